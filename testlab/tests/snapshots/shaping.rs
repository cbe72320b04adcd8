//! What it costs to hide lengths and times, in messages, bytes and time.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use identity::{Padding, Shaping};
use testlab::relays::{Received, Relays};

use super::{SECOND, compare};

const MILLISECOND: Duration = Duration::from_millis(1);
/// Two devices at one relay, and between them an application.
const ALICE: usize = 0;
const BOB: usize = 1;

/// What a network may wish.
const POLICIES: [(&str, Padding, Shaping); 4] = [
    ("off", Padding::Off, Shaping::Off),
    ("buckets", Padding::Buckets, Shaping::Off),
    ("front", Padding::Off, Shaping::Front),
    ("constant", Padding::Off, Shaping::Constant),
];

/// What the application does.
type Play = fn(&mut Talk);

const SCENES: [(&str, Play); 5] = [
    ("a quiet minute", |talk| talk.run_for(60 * SECOND)),
    ("a ping, and a quiet minute", |talk| {
        talk.ping();
        talk.run_for(60 * SECOND);
    }),
    ("a ping each second, a minute", |talk| {
        for _ in 0..60 {
            talk.ping();
            talk.run_for(SECOND);
        }
    }),
    ("ten pages, one every 10 s", |talk| {
        for page in 0..10 {
            talk.load();
            talk.run_for((page + 1) * 10 * SECOND - talk.elapsed());
        }
    }),
    ("10 MB at once", Talk::transfer),
];

/// An application at two devices.
struct Talk {
    relays: Relays,
    begin: Duration,
    /// Bytes that were sent, and frames that have arrived with the sum of the times that they took.
    sent: usize,
    arrived: u32,
    delays: Duration,
    /// The time of what somebody waited for.
    waited: Duration,
}

impl Talk {
    fn new(padding: Padding, shaping: &Shaping) -> Self {
        let mut relays = Relays::new(1, |_, _| Duration::ZERO);
        assert_eq!([0; 2].map(|relay| relays.device_at(relay)), [ALICE, BOB]);
        relays.run_for(SECOND);
        relays.set_policy(padding, shaping);
        let begin = relays.elapsed();
        let (delays, waited) = (Duration::ZERO, Duration::ZERO);
        Self { relays, begin, sent: 0, arrived: 0, delays, waited }
    }

    fn elapsed(&self) -> Duration {
        self.relays.elapsed() - self.begin
    }

    fn run_for(&mut self, duration: Duration) {
        self.relays.run_for(duration);
        self.take(ALICE);
        self.take(BOB);
    }

    fn send(&mut self, from: usize, length: usize) {
        self.send_numbered(from, 0, length);
    }

    /// Sends bytes that begin with the time and a number.
    fn send_numbered(&mut self, from: usize, number: u32, length: usize) {
        let mut bytes = vec![7; length];
        let now = u64::try_from(self.relays.elapsed().as_micros()).expect("a short time");
        bytes[..8].copy_from_slice(&now.to_be_bytes());
        bytes[8..12].copy_from_slice(&number.to_be_bytes());
        self.relays.send(from, 1 - from, &bytes);
        self.sent += length;
    }

    /// How many frames have come to one.
    fn take(&mut self, at: usize) -> usize {
        self.take_numbers(at).len()
    }

    /// The numbers of the frames that have come to one.
    fn take_numbers(&mut self, at: usize) -> Vec<u32> {
        let take = |arrival: Received| {
            let (sent, rest) = arrival.bytes.split_first_chunk().expect("a time");
            self.delays += arrival.at - Duration::from_micros(u64::from_be_bytes(*sent));
            self.arrived += 1;
            u32::from_be_bytes(*rest.first_chunk().expect("a number"))
        };
        self.relays.take_arrivals(at).into_iter().map(take).collect()
    }

    /// Waits until so many frames have come to one.
    fn wait_for(&mut self, at: usize, mut frames: usize) {
        let begin = self.relays.elapsed();
        while frames > 0 {
            self.relays.run_for(MILLISECOND);
            frames -= self.take(at);
            assert!(self.relays.elapsed() - begin < 60 * SECOND, "they arrive");
        }
    }

    fn ping(&mut self) {
        let begin = self.relays.elapsed();
        self.send(ALICE, 100);
        self.wait_for(BOB, 1);
        self.send(BOB, 100);
        self.wait_for(ALICE, 1);
        self.waited += self.relays.elapsed() - begin;
    }

    /// A page of three rounds of requests, and answers of 50 to 200 KB.
    fn load(&mut self) {
        let begin = self.relays.elapsed();
        for answers in [1, 4, 2] {
            self.send(ALICE, 600);
            self.wait_for(BOB, 1);
            (0..answers).for_each(|_| self.send(BOB, 50_000));
            self.wait_for(ALICE, answers);
        }
        self.waited += self.relays.elapsed() - begin;
    }

    /// Super-packets, each with an acknowledgement, of which so many are under way as get through.
    fn transfer(&mut self) {
        const ALL: u32 = 167;
        let begin = self.relays.elapsed();
        let (mut next, mut window, mut under_way) = (0, 4.0_f64, BTreeMap::new());
        while next < ALL || !under_way.is_empty() {
            let now = self.relays.elapsed();
            assert!(now - begin < 60 * SECOND, "they arrive");
            while next < ALL && (under_way.len() as f64) < window {
                under_way.insert(next, now);
                self.send_numbered(ALICE, next, 60_000);
                next += 1;
            }
            let late: Vec<u32> = under_way
                .iter()
                .filter(|(_, sent)| now - **sent > SECOND / 2)
                .map(|(number, _)| *number)
                .collect();
            for number in late {
                window = (window / 2.0).max(1.0);
                under_way.insert(number, now);
                self.send_numbered(ALICE, number, 60_000);
            }
            self.relays.run_for(MILLISECOND);
            for number in self.take_numbers(BOB) {
                self.send_numbered(BOB, number, 40);
            }
            for number in self.take_numbers(ALICE) {
                under_way.remove(&number);
                window = (window + 1.0 / window).min(16.0);
            }
        }
        self.waited += self.relays.elapsed() - begin;
    }
}

#[test]
fn what_shaping_costs_is_as_committed() {
    let mut table = format!(
        "{:<30} {:<9} {:>9} {:>10} {:>9} {:>9} {:>9}\n",
        "", "", "messages", "KB", "per byte", "one way", "in all"
    );
    for (scene, play) in SCENES {
        for (name, padding, shaping) in POLICIES {
            let mut talk = Talk::new(padding, &shaping);
            let before = talk.relays.traffic();
            play(&mut talk);
            let (messages, bytes) = talk.relays.traffic();
            let (messages, bytes) = (messages - before.0, bytes - before.1);
            // Each byte goes over two links.
            let per_byte = match talk.sent {
                0 => "-".to_owned(),
                sent => format!("{:.2}", bytes as f64 / (2 * sent) as f64),
            };
            let one_way = match talk.arrived {
                0 => "-".to_owned(),
                arrived => format!("{:.1} ms", (talk.delays / arrived).as_secs_f64() * 1e3),
            };
            let in_all = match talk.waited {
                Duration::ZERO => "-".to_owned(),
                waited => format!("{:.2} s", waited.as_secs_f64()),
            };
            let _ = writeln!(
                table,
                "{scene:<30} {name:<9} {messages:>9} {:>10.1} {per_byte:>9} {one_way:>9} {in_all:>9}",
                bytes as f64 / 1e3
            );
        }
    }
    compare("shaping.txt", &table);
}

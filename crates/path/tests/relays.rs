//! Two ends that choose among relays, some of which are dead without saying so, on a virtual clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use path::{Message, RelayChange, RelayChoice};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const RELAYS: [u8; 3] = [0, 1, 2];
/// Between two packets of one end.
const PACE: Duration = Duration::from_millis(100);

enum Frame {
    Packet,
    Disco(Message),
}

struct Net {
    start: Instant,
    now: Instant,
    ends: [RelayChoice<u8>; 2],
    /// Whether an end's link to a relay works, and how long frames take over it.
    links: [[(bool, Duration); 3]; 2],
    rng: ChaCha20Rng,
    in_flight: BTreeMap<(Instant, u64), (usize, u8, Frame)>,
    sent: u64,
    pings: u64,
    changes: [Vec<RelayChange>; 2],
    /// When each end heard something last, and the longest that it waited.
    heard: [Instant; 2],
    longest_gap: Duration,
}

impl Net {
    fn new() -> Self {
        let start = Instant::now();
        let mut ends = [RelayChoice::new(false), RelayChoice::new(true)];
        ends[0].handle_announced(&RELAYS);
        ends[1].handle_announced(&RELAYS);
        Self {
            start,
            now: start,
            ends,
            links: [[(true, 20 * MS); 3]; 2],
            rng: ChaCha20Rng::seed_from_u64(1),
            in_flight: BTreeMap::new(),
            sent: 0,
            pings: 0,
            changes: [Vec::new(), Vec::new()],
            heard: [start; 2],
            longest_gap: Duration::ZERO,
        }
    }

    fn used(&self) -> [u8; 2] {
        [0, 1].map(|end| self.ends[end].relays()[0])
    }

    fn put(&mut self, end: usize, relay: u8, frame: Frame) {
        let ways = [end, 1 - end].map(|end| self.links[end][usize::from(relay)]);
        if ways.iter().all(|(works, _)| *works) {
            self.sent += 1;
            let at = self.now + ways[0].1 + ways[1].1;
            self.in_flight.insert((at, self.sent), (1 - end, relay, frame));
        }
    }

    fn send(&mut self, end: usize) {
        let relay = self.used()[end];
        self.ends[end].handle_sent(relay, self.now);
        self.put(end, relay, Frame::Packet);
    }

    fn drain(&mut self) {
        for end in [0, 1] {
            self.ends[end].handle_timeout(&mut self.rng, self.now);
            while let Some((relay, payload)) = self.ends[end].poll_transmit() {
                let message = Message::decode(&payload).expect("choices encode messages");
                self.pings += u64::from(matches!(message, Message::Ping { .. }));
                self.put(end, relay, Frame::Disco(message));
            }
            while let Some(change) = self.ends[end].poll_change() {
                self.changes[end].push(change);
            }
        }
    }

    fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            self.drain();
            let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
            let timers = self.ends.iter().filter_map(RelayChoice::poll_timeout);
            let next = timers.map(|(at, _)| at).chain(arrival).min();
            let Some(next) = next.filter(|at| *at <= until) else { break };
            assert!(next >= self.now, "a timer that does not move on");
            self.now = next;
            while let Some(entry) = self.in_flight.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (to, relay, frame) = entry.remove();
                self.take(to, relay, frame);
            }
        }
        self.now = until;
    }

    fn take(&mut self, to: usize, relay: u8, frame: Frame) {
        let (end, now) = (&mut self.ends[to], self.now);
        match frame {
            Frame::Packet => {
                end.handle_received(relay, now);
                self.longest_gap = self.longest_gap.max(now - self.heard[to]);
                self.heard[to] = now;
            }
            Frame::Disco(Message::Ping { transaction }) => end.handle_ping(relay, transaction),
            Frame::Disco(Message::Pong { transaction, .. }) => {
                end.handle_pong(relay, transaction, now)
            }
            Frame::Disco(_) => panic!("choices send nothing else"),
        }
    }

    /// Packets both ways at an even pace, every second end a little later.
    fn talk(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.send(0);
            self.run(PACE / 3);
            self.send(1);
            self.run(PACE - PACE / 3);
        }
    }

    fn cut(&mut self, end: usize, relay: u8) {
        self.links[end][usize::from(relay)].0 = false;
    }

    fn forget_gaps(&mut self) {
        (self.heard, self.longest_gap) = ([self.now; 2], Duration::ZERO);
    }
}

#[test]
fn ends_that_prefer_different_relays_meet_at_one_and_stay() {
    for crossing in [false, true] {
        let mut net = Net::new();
        net.ends[1] = RelayChoice::new(true);
        net.ends[1].handle_announced(&[1, 0, 2]);
        if crossing {
            (0..2).for_each(|end| net.send(end));
        }
        net.talk(SECOND);
        assert_eq!(net.used()[0], net.used()[1]);
        let changes = net.changes.each_ref().map(Vec::len);
        net.talk(60 * SECOND);
        assert_eq!(net.changes.each_ref().map(Vec::len), changes, "nobody moves without need");
        assert!(changes[0] + changes[1] <= 2, "{changes:?}");
    }
}

#[test]
fn ends_that_talk_seldom_and_at_the_same_moment_do_not_swap_relays_for_ever() {
    let mut net = Net::new();
    net.ends[1] = RelayChoice::new(true);
    net.ends[1].handle_announced(&[1, 0, 2]);
    for _ in 0..20 {
        (0..2).for_each(|end| net.send(end));
        net.run(5 * SECOND);
    }
    assert_eq!(net.used()[0], net.used()[1]);
    assert!(net.changes.iter().map(Vec::len).sum::<usize>() <= 2, "{:?}", net.changes);
}

#[test]
fn a_relay_that_is_dead_for_one_or_both_is_replaced_in_time() {
    for dead_for in [vec![0], vec![1], vec![0, 1]] {
        let mut net = Net::new();
        net.talk(5 * SECOND);
        net.forget_gaps();
        dead_for.iter().for_each(|end| net.cut(*end, 0));
        net.talk(5 * SECOND);
        assert!(net.longest_gap < 1_400 * MS, "{:?} for {dead_for:?}", net.longest_gap);
        assert_ne!(net.used()[0], 0);
        assert_eq!(net.used()[0], net.used()[1]);
        let silent =
            |change: &RelayChange| matches!(change, RelayChange::Silent(after) if *after >= SECOND);
        assert!(net.changes.iter().flatten().any(silent), "{:?}", net.changes);
    }
}

#[test]
fn one_way_traffic_that_pings_answer_stays_where_it_is() {
    let mut net = Net::new();
    for _ in 0..300 {
        net.send(0);
        net.run(PACE);
    }
    assert_eq!((net.used()[0], net.changes[0].len()), (0, 0));
    assert!(net.pings <= 61, "{} pings in 30 s", net.pings);
}

#[test]
fn a_peer_that_is_gone_is_asked_for_a_few_times_only() {
    let mut net = Net::new();
    RELAYS.iter().for_each(|relay| net.cut(1, *relay));
    net.send(0);
    net.run(3_600 * SECOND);
    assert_eq!(net.pings, 1 + 3 * 3);
    assert_eq!(net.ends[0].poll_timeout(), None);
}

#[test]
fn what_was_learnt_outlives_an_announcement() {
    let mut net = Net::new();
    net.ends[0].handle_absent(0);
    net.ends[0].handle_announced(&[0, 1, 2]);
    assert_eq!(net.ends[0].relays(), [1, 2, 0]);
    net.ends[0].handle_announced(&[0, 2]);
    assert_eq!(net.ends[0].relays(), [2, 0]);
    assert!(net.ends[0].handle_seen(1));
    assert!(!net.ends[0].handle_seen(1));
}

#[test]
fn what_still_comes_through_a_relay_that_asks_to_be_left_calls_nobody_back() {
    for is_late in [true, false] {
        let mut net = Net::new();
        net.talk(SECOND);
        net.run(2 * SECOND);
        let end = &mut net.ends[1];
        end.handle_announced(&[1, 2]);
        let receive =
            if is_late { RelayChoice::handle_received_late } else { RelayChoice::handle_received };
        receive(end, 0, net.now);
        assert_eq!(net.used()[1], if is_late { 1 } else { 0 });
    }
}

#[test]
fn a_stream_straight_to_the_peer_goes_first_and_is_left_for_good_when_it_is_dead() {
    let mut net = Net::new();
    net.ends.iter_mut().for_each(|end| end.handle_announced(&[0, 1]));
    net.talk(SECOND);
    for end in &mut net.ends {
        end.handle_stream_opened(2, net.now);
    }
    net.talk(5 * SECOND);
    assert_eq!(net.used(), [2, 2]);
    net.ends[0].handle_announced(&[1]);
    assert_eq!(net.ends[0].relays(), [2, 1], "an announcement does not end it");
    net.forget_gaps();
    (0..2).for_each(|end| net.cut(end, 2));
    net.talk(5 * SECOND);
    assert!(net.longest_gap < 1_400 * MS, "{:?}", net.longest_gap);
    for end in &mut net.ends {
        assert!(end.has_stream() && !end.is_straight());
        end.handle_stream_closed();
        assert!(!end.has_stream() && !end.relays().contains(&2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever dies and comes back: as long as one relay works for both, packets flow again soon.
    #[test]
    fn one_relay_that_works_for_both_is_enough(
        delays in prop::array::uniform2(prop::array::uniform3(1_u64..150)),
        steps in prop::collection::vec((0_usize..3, any::<[[bool; 3]; 2]>()), 1..12),
    ) {
        let mut net = Net::new();
        net.links = delays.map(|end| end.map(|ms| (true, Duration::from_millis(ms))));
        net.talk(5 * SECOND);
        for (good, works) in steps {
            for (end, works) in works.iter().enumerate() {
                for (relay, works) in works.iter().enumerate() {
                    net.links[end][relay].0 = *works || relay == good;
                }
            }
            net.forget_gaps();
            net.talk(6 * SECOND);
            prop_assert!(net.now - net.heard[0].min(net.heard[1]) < SECOND);
            prop_assert!(net.longest_gap < 3 * SECOND, "{:?}", net.longest_gap);
        }
        prop_assert!(net.pings < 3 * 2 * u64::try_from((net.now - net.start).as_millis() / 500).unwrap());
    }
}

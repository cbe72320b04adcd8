//! The highest rate at which hardly a frame is lost, and how long frames take below it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testlab::netns::processor_seconds;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::peer::{Id, Peer};

/// Frames that are written at once: as many as a sender's TUN gives in one super-packet.
const BATCH: usize = 32;
/// Payload between which the rate is looked for, in bytes a second, and in how many halvings of the ratio.
const BETWEEN: (f64, f64) = (14e6, 2_800e6);
const STEPS: usize = 8;
/// What may be lost of all.
const LOSS: f64 = 0.01;
/// A sender that falls behind its rate by more than this could not send so much.
const BEHIND: f64 = 0.02;
const PROBE: Duration = Duration::from_millis(1_200);
const LONG_PROBE: Duration = Duration::from_secs(3);
/// Frames of 1,400 bytes a second, or as much payload, at which latencies are taken too: less than half of what any relay here carries.
const EQUAL: f64 = 50_000.0;
/// A frame that takes longer than this after the last was sent counts as lost: it stood in a queue that grew.
const GRACE: Duration = Duration::from_millis(100);
/// Nothing came for this long: nothing more comes.
const SILENCE: Duration = Duration::from_millis(200);
/// A moment for the senders to learn of a plan.
const LEAD: Duration = Duration::from_millis(20);
/// Latencies are kept apart by an eighth of their size.
const PARTS: u64 = 8;
const BUCKETS: usize = 48 * PARTS as usize;

/// What all senders do next.
#[derive(Debug, Clone, Copy)]
struct Plan {
    number: u64,
    /// From one batch of a sender to its next.
    every: Duration,
    from: Instant,
    until: Instant,
}

/// What senders and receivers count.
struct Counts {
    begun: Instant,
    plan: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

/// What was seen of one plan.
struct Seen {
    sent: f64,
    received: f64,
    seconds: f64,
    relay: f64,
    load: f64,
}

/// Sends over every even connection to the one behind it, at rates that are looked for.
pub(crate) async fn highest(peers: Vec<Peer>, bytes: usize, process: &str) -> Value {
    let pairs = peers.len() / 2;
    let counts = Arc::new(Counts {
        begun: Instant::now(),
        plan: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
        latencies: [const { AtomicU64::new(0) }; BUCKETS],
    });
    let (plans, planned) = watch::channel(None);
    let (mut peers, mut index) = (peers.into_iter(), 0);
    while let (Some(mut sender), Some(mut receiver)) = (peers.next(), peers.next()) {
        Peer::join(&mut sender, &mut receiver).await;
        let to = receiver.id();
        tokio::spawn(receive(receiver, Arc::clone(&counts)));
        let share = f64::from(index) / pairs as f64;
        let pace = Pace { bytes, share };
        tokio::spawn(send(sender, to, pace, planned.clone(), Arc::clone(&counts)));
        index += 1;
    }
    let load = Load { counts, plans, process, pairs };
    load.look(bytes).await
}

/// How one sender sends.
#[derive(Clone, Copy)]
struct Pace {
    bytes: usize,
    /// Where in the interval its batches are, so that not all send at once.
    share: f64,
}

async fn send(
    mut peer: Peer,
    to: Id,
    pace: Pace,
    mut plans: watch::Receiver<Option<Plan>>,
    counts: Arc<Counts>,
) {
    let mut ignore = |_: &[u8]| {};
    loop {
        let plan = tokio::select! {
            changed = plans.changed() => {
                if changed.is_err() {
                    return;
                }
                *plans.borrow_and_update()
            }
            () = peer.receive(&mut ignore) => None,
        };
        let Some(plan) = plan else { continue };
        let mut due = plan.from + plan.every.mul_f64(pace.share);
        while due < plan.until {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            if Instant::now() >= plan.until {
                break;
            }
            let head = [counts.now().to_be_bytes(), plan.number.to_be_bytes()].concat();
            peer.send(to, pace.bytes, BATCH, &head).await;
            counts.sent.fetch_add(BATCH as u64, Ordering::Relaxed);
            due += plan.every;
        }
    }
}

async fn receive(mut peer: Peer, counts: Arc<Counts>) {
    loop {
        let shared = &counts;
        peer.receive(&mut |payload| shared.take(payload)).await;
    }
}

impl Counts {
    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("it is not that long ago")
    }

    fn take(&self, payload: &[u8]) {
        let number = |at: usize| {
            u64::from_be_bytes(payload[at..at + 8].try_into().expect("frames are longer"))
        };
        if number(8) != self.plan.load(Ordering::Relaxed) {
            return;
        }
        self.received.fetch_add(1, Ordering::Relaxed);
        let bucket = bucket(self.now().saturating_sub(number(0)));
        self.latencies[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// The latency in milliseconds that so large a part of the frames does not exceed.
    fn quantile(&self, part: f64) -> f64 {
        let counts: Vec<u64> = self.latencies.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let wanted = counts.iter().sum::<u64>() as f64 * part;
        let mut seen = 0.0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += *count as f64;
            if seen >= wanted && *count > 0 {
                return upper_end(bucket) / 1e6;
            }
        }
        f64::NAN
    }
}

/// Which eighth of which power of two.
fn bucket(nanoseconds: u64) -> usize {
    let value = nanoseconds.max(PARTS);
    let power = u64::from(value.ilog2());
    let part = (value >> (power - u64::from(PARTS.ilog2()))) - PARTS;
    usize::try_from(power * PARTS + part).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

fn upper_end(bucket: usize) -> f64 {
    let (power, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    (power as f64).exp2() * (1.0 + (part + 1) as f64 / PARTS as f64)
}

/// The controls.
struct Load<'a> {
    counts: Arc<Counts>,
    plans: watch::Sender<Option<Plan>>,
    process: &'a str,
    pairs: usize,
}

impl Load<'_> {
    async fn look(&self, bytes: usize) -> Value {
        let (mut low, mut high) = (BETWEEN.0 / bytes as f64, BETWEEN.1 / bytes as f64);
        let mut best = self.run(low, PROBE).await;
        if !best.holds(low) {
            return json!({});
        }
        for _ in 0..STEPS {
            let rate = (low * high).sqrt();
            // A moment in which the machine did something else decides nothing.
            let mut seen = self.run(rate, PROBE).await;
            if !seen.holds(rate) {
                seen = self.run(rate, PROBE).await;
            }
            if seen.holds(rate) {
                (low, best) = (rate, seen);
            } else {
                high = rate;
            }
        }
        let gigabytes = best.received * bytes as f64 / 1e9;
        let mut latencies = Vec::new();
        for rate in [low / 2.0, EQUAL * 1_400.0 / bytes as f64] {
            let _ = self.run(rate, LONG_PROBE).await;
            latencies.push([0.5, 0.99].map(|part| self.counts.quantile(part)));
        }
        json!({
            "rate": best.received / best.seconds,
            "processor": best.relay / gigabytes,
            "relay_cores": best.relay / best.seconds,
            "load_cores": best.load / best.seconds,
            "median": latencies[0][0],
            "slowest": latencies[0][1],
            "equal_median": latencies[1][0],
            "equal_slowest": latencies[1][1],
        })
    }

    /// Sends so many frames a second for a while.
    async fn run(&self, rate: f64, length: Duration) -> Seen {
        let counts = &self.counts;
        let number = counts.plan.fetch_add(1, Ordering::Relaxed) + 1;
        for count in counts.latencies.iter().chain([&counts.sent, &counts.received]) {
            count.store(0, Ordering::Relaxed);
        }
        let every = Duration::from_secs_f64((BATCH * self.pairs) as f64 / rate);
        let from = Instant::now() + LEAD;
        let until = from + length;
        let before = (processor_seconds(self.process), processor_seconds("self"));
        self.plans.send_replace(Some(Plan { number, every, from, until }));
        sleep_until(until + GRACE).await;
        let received = counts.received.load(Ordering::Relaxed) as f64;
        let after = (processor_seconds(self.process), processor_seconds("self"));
        // A sender that is stuck counts what it was to send when it has sent it.
        self.quiet().await;
        Seen {
            sent: counts.sent.load(Ordering::Relaxed) as f64,
            received,
            seconds: length.as_secs_f64(),
            relay: after.0 - before.0,
            load: after.1 - before.1,
        }
    }

    async fn quiet(&self) {
        let mut last = u64::MAX;
        loop {
            let now = self.counts.received.load(Ordering::Relaxed);
            if now == last {
                return;
            }
            last = now;
            sleep(SILENCE).await;
        }
    }
}

impl Seen {
    fn holds(&self, rate: f64) -> bool {
        let wanted = rate * self.seconds * (1.0 - BEHIND);
        self.sent >= wanted && self.received >= self.sent * (1.0 - LOSS)
    }
}

//! What happens to bytes between two hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

/// What TCP waits at least before it sends again what was lost (RFC 6298 allows less than its second, and
/// Linux takes 200 ms).
pub(super) const RETRANSMIT: Duration = Duration::from_millis(200);

/// How one direction between two hosts treats what is sent. Streams are only late: TCP hides the
/// rest, at the cost of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// Least time from one end to the other.
    pub latency: Duration,
    /// At random up to this much more, which reorders datagrams.
    pub jitter: Duration,
    /// Datagrams lost, of a thousand.
    pub loss_permille: u32,
    /// Datagrams that arrive twice, of a thousand.
    pub duplication_permille: u32,
    /// Datagrams with a wrong bit, of a thousand.
    pub corruption_permille: u32,
    /// The largest IP packet that passes.
    pub mtu: usize,
}

impl Quality {
    /// Five milliseconds, nothing lost.
    pub const GOOD: Self = Self {
        latency: Duration::from_millis(5),
        jitter: Duration::ZERO,
        loss_permille: 0,
        duplication_permille: 0,
        corruption_permille: 0,
        mtu: 1_500,
    };

    /// Streams that nothing holds up, of ten milliseconds.
    pub const STREAM: Self = Self { latency: Duration::from_millis(10), ..Self::GOOD };

    /// Links as between two homes of one continent: a round trip takes 50 ms and a bit, and one datagram in a
    /// hundred is lost.
    pub const HOME: Self = Self {
        latency: Duration::from_millis(25),
        jitter: Duration::from_millis(5),
        loss_permille: 10,
        ..Self::GOOD
    };

    /// A bad mobile connection: one datagram in ten is lost, most are out of order.
    pub const BAD: Self = Self {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(30),
        loss_permille: 100,
        duplication_permille: 30,
        corruption_permille: 0,
        mtu: 1_500,
    };

    /// As [`Self::BAD`], and one datagram in fifty arrives with a wrong bit.
    pub const NOISY: Self = Self { corruption_permille: 20, ..Self::BAD };

    /// A path that carries what IPv6 asks for and no more: too narrow for a tunnel of that size.
    pub const NARROW: Self = Self { mtu: 1_280, ..Self::GOOD };

    /// Half a second one way.
    pub const SLOW: Self = Self {
        latency: Duration::from_millis(500),
        jitter: Duration::from_millis(20),
        ..Self::GOOD
    };

    /// Whether a datagram of this size passes in one piece. What would pass in parts only is lost, as behind many firewalls.
    pub fn carries(&self, to: SocketAddr, payload: usize) -> bool {
        let headers = if to.is_ipv4() { 28 } else { 48 };
        payload + headers <= self.mtu
    }

    /// Perhaps spoils a datagram.
    pub fn spoil(&self, payload: &mut [u8], rng: &mut ChaCha20Rng) {
        if self.corruption_permille > 0 && permille(rng) < self.corruption_permille {
            let place = rng.next_u32() as usize % (payload.len() * 8);
            payload[place / 8] ^= 1 << (place % 8);
        }
    }

    /// When the copies of one datagram arrive: none, one or two of them.
    pub fn arrivals(&self, rng: &mut ChaCha20Rng, now: Instant) -> Vec<Instant> {
        if permille(rng) < self.loss_permille {
            return Vec::new();
        }
        let copies = if permille(rng) < self.duplication_permille { 2 } else { 1 };
        (0..copies).map(|_| now + self.latency + self.random_jitter(rng)).collect()
    }

    /// How long a message of a stream takes, if nothing before it takes longer.
    pub fn delay(&self, rng: &mut ChaCha20Rng) -> Duration {
        let is_even = self.jitter.is_zero() && self.loss_permille == 0;
        if is_even {
            return self.latency;
        }
        let is_lost = permille(rng) < self.loss_permille;
        let again = if is_lost { RETRANSMIT + self.latency } else { Duration::ZERO };
        self.latency + self.random_jitter(rng) + again
    }

    fn random_jitter(&self, rng: &mut ChaCha20Rng) -> Duration {
        let nanos = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(rng.next_u64() % (nanos + 1))
    }
}

fn permille(rng: &mut ChaCha20Rng) -> u32 {
    rng.next_u32() % 1000
}

/// Things that will happen, in order of time and then of insertion.
#[derive(Debug)]
pub struct Agenda<T> {
    entries: BTreeMap<(Instant, u64), T>,
    inserted: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), inserted: 0 }
    }
}

impl<T> Agenda<T> {
    /// Lets something happen at `at`.
    pub fn insert(&mut self, at: Instant, entry: T) {
        self.inserted += 1;
        self.entries.insert((at, self.inserted), entry);
    }

    /// When the next thing happens.
    pub fn next(&self) -> Option<Instant> {
        self.entries.keys().next().map(|(at, _)| *at)
    }

    /// Takes all things of a kind, in order.
    pub fn take(&mut self, is_taken: impl Fn(&T) -> bool) -> Vec<T> {
        self.entries.extract_if(.., |_, entry| is_taken(entry)).map(|(_, entry)| entry).collect()
    }

    /// Takes the next thing if it is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        let entry = self.entries.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}

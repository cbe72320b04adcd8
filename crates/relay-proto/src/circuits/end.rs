//! An end's part in a circuit over a relay.

use std::time::{Duration, Instant};

use super::wire::{BIND_LEN, CircuitKey, Kind, Nonce, about};

/// Waits for an answer: the first two are longer than most round trips.
const WAITS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// The place is shown again after this, before the 30 s after which the strictest translators forget it.
const REFRESH: Duration = Duration::from_secs(20);

/// Shows a relay where this end of a circuit is, again and again.
///
/// Ask [`Self::poll_transmit`] after every handler, and when time has passed.
#[derive(Debug)]
pub struct CircuitBinding {
    number: u32,
    key: CircuitKey,
    /// What the relay wants to have repeated: it depends on where this end is, and on the time.
    nonce: Nonce,
    is_bound: bool,
    /// Messages that got no answer so far.
    vain: usize,
    next: Instant,
}

impl CircuitBinding {
    /// A binding of a circuit with this number at the relay, which knows the key.
    #[must_use]
    pub fn new(number: u32, key: CircuitKey, now: Instant) -> Self {
        Self { number, key, nonce: Nonce::default(), is_bound: false, vain: 0, next: now }
    }

    /// The number at the relay.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether the relay passes on what this end sends.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.is_bound && !self.has_failed()
    }

    /// Whether the relay does not answer.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.vain > WAITS.len()
    }

    /// Takes a datagram from the relay's address; true if it is an answer.
    pub fn handle_answer(&mut self, datagram: &[u8], now: Instant) -> bool {
        let read = |kind| {
            let (number, message) = about(kind, datagram)?;
            self.key.read(message).filter(|_| number == self.number)
        };
        match (read(Kind::Repeat), read(Kind::Bound)) {
            (Some(nonce), _) => (self.nonce, self.next) = (nonce, now),
            (None, Some(nonce)) if nonce == self.nonce => {
                (self.is_bound, self.next) = (true, now + REFRESH);
            }
            // It was repeated before, perhaps from elsewhere.
            (None, Some(_)) => return true,
            (None, None) => return false,
        }
        self.vain = 0;
        true
    }

    /// This end may be elsewhere.
    pub fn handle_network_change(&mut self, now: Instant) {
        (self.vain, self.next) = (0, now);
    }

    /// What to send to the relay's address now.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant) -> Option<[u8; BIND_LEN]> {
        if self.next > now || self.has_failed() {
            return None;
        }
        let wait = WAITS.get(self.vain);
        self.vain += 1;
        self.next = now + *wait?;
        Some(self.key.write(Kind::Bind, self.number, self.nonce))
    }
}

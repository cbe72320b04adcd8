//! Introductions that name an unknown tunnel key: each costs a Diffie-Hellman before it is known to be good.
//!
//! They come through relays only, which know who sends. What fails counts against the sender and the
//! relay together, so that neither a member nor a relay can keep out what others bring.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use identity::DeviceId;

/// Between two attempts of one sender through one relay.
const AGAIN: Duration = Duration::from_secs(1);
/// Attempts through one relay within that time: half a thousandth of a processor.
const MOST: usize = 8;

/// The attempts of the last second.
#[derive(Debug, Default)]
pub(crate) struct Introductions {
    recent: VecDeque<Attempt>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    relay: DeviceId,
    sender: DeviceId,
    at: Instant,
}

impl Introductions {
    /// Whether an introduction of `sender` that `relay` brought may be opened; counts it if so.
    pub(crate) fn permit(&mut self, sender: DeviceId, relay: DeviceId, now: Instant) -> bool {
        while self.recent.front().is_some_and(|attempt| now >= attempt.at + AGAIN) {
            self.recent.pop_front();
        }
        let mut of_relay = self.recent.iter().filter(|attempt| attempt.relay == relay);
        let permitted = of_relay.clone().count() < MOST && of_relay.all(|a| a.sender != sender);
        if permitted {
            self.recent.push_back(Attempt { relay, sender, at: now });
        }
        permitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u8) -> DeviceId {
        DeviceId::from_bytes([number; 32])
    }

    #[test]
    fn forged_introductions_cost_little_and_leave_room_for_others_and_other_relays() {
        let (mut introductions, now) = (Introductions::default(), Instant::now());
        let (bad, good) = (device(100), device(101));
        assert!(introductions.permit(device(0), bad, now));
        assert!(!introductions.permit(device(0), bad, now), "once a second");
        assert!(introductions.permit(device(0), good, now), "what another relay brings counts");
        let through_bad = (1..=200).filter(|n| introductions.permit(device(*n), bad, now)).count();
        assert_eq!(through_bad, MOST - 1);
        assert!(introductions.permit(device(1), good, now));
        assert!(introductions.permit(device(0), bad, now + AGAIN));
    }
}

//! What this device passes on: its part as a peer relay.

use std::time::{Duration, Instant};

use identity::DeviceId;
use path::{Message, Path};
use rand_core::CryptoRng;
use relay_proto::NUMBERS;

use super::Circuits;
use crate::context::Context;
use crate::engine::Engine;

/// A circuit that nobody has asked for in so long is forgotten: three requests.
const PASSED_KEPT: Duration = Duration::from_secs(60);
/// Direct paths to both ends are looked for for so long.
const OPENING: Duration = Duration::from_secs(10);
/// Circuits over this device ...
const MAX_PASSED: usize = 1_024;
/// ... and those of them that one end asked for.
const MAX_ASKED: usize = 64;

/// A circuit over this device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    /// The one that asked first, and the other.
    pub(super) ends: [DeviceId; 2],
    state: State,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It waits for direct paths to both ends until then.
    Opening(Instant),
    /// Both ends know of it.
    Open,
}

impl Passed {
    fn is_between(&self, one: DeviceId, other: DeviceId) -> bool {
        self.ends == [one, other] || self.ends == [other, one]
    }
}

impl Circuits {
    /// Between how many pairs this device passes on.
    pub(crate) fn passed(&self) -> usize {
        self.passed.values().filter(|passed| passed.state == State::Open).count()
    }

    /// The circuit between two devices over this one, a new one if need be; none if there is no room.
    fn pass(
        &mut self,
        ends: [DeviceId; 2],
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Option<&mut Passed> {
        let [one, other] = ends;
        let found = self.passed.iter().find(|(_, passed)| passed.is_between(one, other));
        let number = match found {
            Some((number, _)) => *number,
            None => {
                let asked = self.passed.values().filter(|passed| passed.ends[0] == one).count();
                if self.passed.len() >= MAX_PASSED || asked >= MAX_ASKED {
                    return None;
                }
                let number = rng.next_u32() % NUMBERS;
                if self.passed.contains_key(&number) {
                    return None;
                }
                number
            }
        };
        let state = State::Opening(now + OPENING);
        Some(self.passed.entry(number).or_insert(Passed { ends, state, until: now }))
    }
}

impl Engine {
    /// Another member wants datagrams passed on between it and a third one.
    pub(crate) fn handle_circuit_request(
        &mut self,
        (from, path): (DeviceId, Path),
        peer: DeviceId,
        cx: &mut Context<'_>,
    ) {
        let now = cx.instant();
        // It may have moved, which nothing else would show: there may be no other traffic.
        if let Some(from) = self.peers.touch(from) {
            from.agent.handle_received(path, now);
        }
        let is_known = from != peer && self.peers.get(peer).is_some();
        let passed = if is_known && self.may_pass(cx) {
            self.circuits.pass([from, peer], cx.rng, now)
        } else {
            None
        };
        let Some(passed) = passed else { return self.tell_circuit(from, peer, None, cx) };
        passed.until = now + PASSED_KEPT;
        if passed.state == State::Open {
            // Who asks again may have forgotten it, and the other one hears that it is still wanted.
            passed.state = State::Opening(now + OPENING);
        }
        for end in [from, peer] {
            self.need(end, now);
        }
        self.open_circuits(cx);
    }

    /// Whether the network lets this device pass on.
    fn may_pass(&self, cx: &Context<'_>) -> bool {
        let client = self.control.client();
        let info = client.map().info().filter(|info| !info.peer_relays.is_empty());
        let (Some(info), Some(own)) = (info, client.member(cx.now)) else { return false };
        self.settings.path.udp && info.lets_relay(&own.groups)
    }

    /// Forgets what nobody asks for any more or may be passed on no longer.
    pub(super) fn forget_passed(&mut self, cx: &Context<'_>) {
        let now = cx.instant();
        let may_pass = self.may_pass(cx);
        let is_known = |device: &DeviceId| self.peers.get(*device).is_some();
        self.circuits
            .passed
            .retain(|_, passed| may_pass && passed.until > now && passed.ends.iter().all(is_known));
    }

    /// Tells both ends of each circuit that is asked for whether there are the direct paths that it needs, once they are
    /// there or are not found in time.
    pub(super) fn open_circuits(&mut self, cx: &mut Context<'_>) {
        let now = cx.instant();
        let mut news = Vec::new();
        for (number, passed) in &mut self.circuits.passed {
            let State::Opening(until) = passed.state else { continue };
            let is_straight = |device: &DeviceId| {
                self.peers.get(*device).is_some_and(|peer| peer.agent.straight().is_some())
            };
            let [one, other] = passed.ends;
            if passed.ends.iter().all(is_straight) {
                passed.state = State::Open;
                news.extend([(one, other, Some(*number)), (other, one, Some(*number))]);
            } else if until <= now {
                passed.until = now;
                news.extend([(one, other, None), (other, one, None)]);
            }
        }
        for (to, peer, number) in news {
            self.tell_circuit(to, peer, number, cx);
            self.schedule.publish();
        }
    }

    fn tell_circuit(
        &mut self,
        to: DeviceId,
        peer: DeviceId,
        number: Option<u32>,
        cx: &mut Context<'_>,
    ) {
        self.send_disco(to, &Message::Circuit { peer: *peer.as_bytes(), number }, cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_circuits_and_for_fewer_that_one_member_asked_for() {
        let (mut circuits, now) = (Circuits::default(), Instant::now());
        let mut rng = <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::seed_from_u64(1);
        let device = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            DeviceId::from_bytes(bytes)
        };
        let mut pass = |one, other| {
            let ends = [device(one), device(other)];
            circuits.pass(ends, &mut rng, now).is_some()
        };
        // A number that is drawn twice is asked for again.
        let mut passes = |one, other| (0..3).any(|_| pass(one, other));
        assert!((0..MAX_ASKED).all(|number| passes(9_999, number)));
        assert!(!passes(9_999, 8_888), "the member has had its share");
        assert!(passes(0, 9_999), "from the other end it is the same circuit");
        assert!((MAX_ASKED..MAX_PASSED).all(|number| passes(number, 7_777)));
        assert!(!passes(5_555, 6_666), "all is full");
    }
}

//! Datagrams that members pass on for each other.
//!
//! Where two devices find no direct path, a third one to which both have one may pass their datagrams on, if the network
//! lets devices of its groups do so: a peer relay. What it passes on for one pair is a circuit. It has a number at the
//! peer relay, which stands before each datagram ([`Head`]); the two ends are told by the addresses from which the
//! datagrams come, which are those of their proven direct paths. To an end the circuit is an address of its own making
//! ([`Alias::Circuit`]), with a number that this device gave it.

mod wire;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use frame_proto::FrameType;
use identity::DeviceId;
use path::{Alias, Message, Path};
use rand_core::CryptoRng;

use crate::context::Context;
use crate::dataplane::{Circuits as Published, Onward};
use crate::engine::Engine;
use crate::io::Transmit;
use crate::peer::{Lacking, Peer};

pub(crate) use wire::{HEAD_LEN, Head};

/// Traffic has to lack a direct path for so long before peer relays are asked: most paths are found sooner.
const LACKING: Duration = Duration::from_millis(500);
/// Peer relays that are asked at a time for one peer.
const ASKED: usize = 2;
/// Those that pass on are asked again after this, ...
const REFRESH: Duration = Duration::from_secs(20);
/// ... others after this, if nothing gets through.
const AGAIN: Duration = Duration::from_secs(5);
/// An end forgets a circuit of which it has heard nothing for so long: three requests of the other.
const END_KEPT: Duration = Duration::from_secs(60);
/// A peer relay forgets one that nobody has asked for as long.
const PASSED_KEPT: Duration = Duration::from_secs(60);
/// A peer relay looks for direct paths to both ends for so long.
const OPENING: Duration = Duration::from_secs(10);
/// Circuits that end here, ...
const MAX_ENDS: usize = 1_024;
/// ... and those of them that lead to one peer.
const MAX_TO_PEER: usize = 4;
/// Circuits over this device ...
const MAX_PASSED: usize = 1_024;
/// ... and those of them that one end asked for.
const MAX_ASKED: usize = 64;

/// What this device passes on, and what is passed on for it.
#[derive(Debug, Default)]
pub(crate) struct Circuits {
    /// Those that end here, by the number that this device gave them.
    ends: BTreeMap<u32, End>,
    /// Those over this device, by their number on the wire.
    passed: BTreeMap<u32, Passed>,
    /// Peers to which traffic lacks a direct path.
    lacks: BTreeMap<DeviceId, Lack>,
    /// How many ended here so far.
    ended: u32,
}

/// A circuit that ends here.
#[derive(Clone, Copy, Debug)]
struct End {
    relay: DeviceId,
    peer: DeviceId,
    /// Its number at the peer relay.
    number: u32,
    until: Instant,
}

/// A circuit over this device.
#[derive(Clone, Copy, Debug)]
struct Passed {
    /// The one that asked first, and the other.
    ends: [DeviceId; 2],
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

/// A peer to which traffic lacks a direct path.
#[derive(Clone, Copy, Debug)]
struct Lack {
    since: Instant,
    /// When peer relays are asked next.
    next: Instant,
    /// How often some were asked in vain.
    vain: usize,
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

    /// Paths are looked for anew: peer relays may be needed elsewhere than before.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        self.lacks.values_mut().for_each(|lack| lack.next = now);
    }

    /// The circuits to a peer, by this device's numbers.
    fn to(&self, peer: DeviceId) -> impl Iterator<Item = (u32, End)> {
        let ends = self.ends.iter().filter(move |(_, end)| end.peer == peer);
        ends.map(|(number, end)| (*number, *end))
    }

    /// Whether a circuit to a peer works.
    pub(crate) fn reach(&self, peer: &Peer) -> bool {
        let mut circuits = self.to(peer.device());
        circuits.any(|(number, _)| peer.agent.is_proven(Alias::Circuit(number).into()))
    }

    /// Notes whether a peer relay passes on between this device and a peer.
    fn set_end(&mut self, relay: DeviceId, peer: DeviceId, number: Option<u32>, now: Instant) {
        let is_same = |end: &End| end.relay == relay && end.peer == peer;
        self.ends.retain(|_, end| !is_same(end) || Some(end.number) == number);
        let Some(number) = number.filter(|number| *number < wire::NUMBERS) else { return };
        let until = now + END_KEPT;
        if let Some(end) = self.ends.values_mut().find(|end| is_same(end)) {
            end.until = until;
            return;
        }
        let oldest = self.to(peer).min_by_key(|(_, end)| end.until);
        if let Some((oldest, _)) = oldest.filter(|_| self.to(peer).count() >= MAX_TO_PEER) {
            self.ends.remove(&oldest);
        }
        if self.ends.len() < MAX_ENDS {
            self.ends.insert(self.ended, End { relay, peer, number, until });
            self.ended += 1;
        }
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
                let number = rng.next_u32() % wire::NUMBERS;
                if self.passed.contains_key(&number) {
                    return None;
                }
                number
            }
        };
        let state = State::Opening(now + OPENING);
        Some(self.passed.entry(number).or_insert(Passed { ends, state, until: now }))
    }

    /// Whom to ask for a circuit to a peer: those that pass on already if one `works`, else some of `relays` in turns.
    fn ask(
        &mut self,
        peer: DeviceId,
        works: bool,
        relays: &[DeviceId],
        now: Instant,
    ) -> Vec<DeviceId> {
        let Some(lack) = self.lacks.get_mut(&peer) else { return Vec::new() };
        if works {
            (lack.next, lack.vain) = (now + REFRESH, 0);
            return self.to(peer).map(|(_, end)| end.relay).collect();
        }
        let skipped = lack.vain * ASKED % relays.len().max(1);
        (lack.next, lack.vain) = (now + AGAIN, lack.vain + 1);
        relays.iter().cycle().skip(skipped).take(ASKED.min(relays.len())).copied().collect()
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

    /// A member says whether it passes datagrams on between this device and a third one.
    pub(crate) fn handle_circuit(
        &mut self,
        relay: DeviceId,
        (peer, number): (DeviceId, Option<u32>),
        cx: &mut Context<'_>,
    ) {
        let now = cx.instant();
        let is_permitted = self.peers.get(relay).is_some_and(|relay| self.is_peer_relay(relay));
        if relay == peer || !is_permitted || self.peers.get(peer).is_none() {
            return;
        }
        self.circuits.set_end(relay, peer, number, now);
        self.announce_circuits(peer, now);
        self.schedule.publish();
    }

    /// Does what is due, and asks for circuits to the peers to which traffic lacks a direct path.
    pub(crate) fn tend_circuits(&mut self, cx: &mut Context<'_>) {
        self.note_lacks(cx.instant());
        self.forget_circuits(cx);
        self.open_circuits(cx);
        self.ask_for_circuits(cx);
        if *self.plane.load().circuits() != self.circuits_onward() {
            self.schedule.publish();
        }
    }

    /// Notes to whom traffic lacks a direct path, if anybody may pass it on.
    fn note_lacks(&mut self, now: Instant) {
        let before = std::mem::take(&mut self.circuits.lacks);
        let info = self.control.client().map().info();
        if !self.settings.path.udp || info.is_none_or(|info| info.peer_relays.is_empty()) {
            return;
        }
        let lacking = self.peers.iter().filter_map(|peer| peer.lacking(now));
        let wanted = lacking.filter(|lacking| lacking.has_session || lacking.is_waiting);
        for Lacking { device, .. } in wanted {
            let new = Lack { since: now, next: now, vain: 0 };
            self.circuits.lacks.insert(device, before.get(&device).copied().unwrap_or(new));
        }
    }

    /// Sends a datagram over a circuit; it is lost if there is none.
    pub(crate) fn send_over_circuit(&mut self, number: u32, payload: &[u8], whole: bool) {
        if let Some((to, head)) = self.circuit(number) {
            let payload = [head.bytes(), payload].concat();
            self.output.transmits.push_back(Transmit { to, payload, whole });
        }
    }

    /// Where a circuit begins for this device, and what stands before each datagram.
    pub(crate) fn circuit(&self, number: u32) -> Option<(SocketAddr, Head)> {
        let end = self.circuits.ends.get(&number)?;
        let to = self.peers.get(end.relay)?.agent.straight()?;
        Some((to, Head::ascending(end.number)))
    }

    /// Who passes on what goes over a circuit.
    pub(crate) fn peer_relay(&self, number: u32) -> Option<&Peer> {
        self.peers.get(self.circuits.ends.get(&number)?.relay)
    }

    /// What becomes of datagrams on circuits that come from where their senders are proven to be.
    pub(crate) fn circuits_onward(&self) -> Published {
        let mut published = HashMap::new();
        let proven =
            |device| self.peers.get(device).into_iter().flat_map(|peer| peer.agent.proven());
        for (number, end) in &self.circuits.ends {
            let way = Alias::Circuit(*number).into();
            let head = Head::descending(end.number);
            published.extend(proven(end.relay).map(|from| ((from, head), Onward::Here(way))));
        }
        for (number, passed) in &self.circuits.passed {
            let head = Head::ascending(*number);
            let [one, other] = passed.ends;
            for (from, to) in [(one, other), (other, one)] {
                let Some(to) = self.peers.get(to).and_then(|to| to.agent.straight()) else {
                    continue;
                };
                published.extend(proven(from).map(|from| ((from, head), Onward::There(to))));
            }
        }
        published
    }

    /// Whether the network lets a member pass on.
    fn is_peer_relay(&self, peer: &Peer) -> bool {
        let info = self.control.client().map().info();
        info.is_some_and(|info| info.lets_relay(&peer.member.groups))
    }

    /// Whether the network lets this device pass on.
    fn may_pass(&self, cx: &Context<'_>) -> bool {
        let client = self.control.client();
        let info = client.map().info().filter(|info| !info.peer_relays.is_empty());
        let (Some(info), Some(own)) = (info, client.member(cx.now)) else { return false };
        self.settings.path.udp && info.lets_relay(&own.groups)
    }

    /// A direct path to a device is needed though there may be no traffic for it.
    fn need(&mut self, device: DeviceId, now: Instant) {
        let Some(peer) = self.peers.touch(device) else { return };
        peer.agent.handle_need(now);
        if peer.agent.straight().is_none() {
            self.relays.want(device, now);
        }
    }

    /// Forgets what nobody asks for any more or may be used no longer, and keeps up the paths that the rest needs.
    fn forget_circuits(&mut self, cx: &mut Context<'_>) {
        if self.circuits.ends.is_empty() && self.circuits.passed.is_empty() {
            return;
        }
        let now = cx.instant();
        let may_pass = self.may_pass(cx);
        let is_known = |device: &DeviceId| self.peers.get(*device).is_some();
        self.circuits
            .passed
            .retain(|_, passed| may_pass && passed.until > now && passed.ends.iter().all(is_known));
        let peers: BTreeSet<_> = self.circuits.ends.values().map(|end| end.peer).collect();
        let may_stay = |end: &End| {
            let relay = self.peers.get(end.relay).filter(|relay| self.is_peer_relay(relay));
            end.until > now && relay.is_some() && is_known(&end.peer)
        };
        let ends = self.circuits.ends.iter().filter(|(_, end)| may_stay(end));
        self.circuits.ends = ends.map(|(number, end)| (*number, *end)).collect();
        peers.into_iter().for_each(|peer| self.announce_circuits(peer, now));
        let passed = self.circuits.passed.values().flat_map(|passed| passed.ends);
        let needed: Vec<_> =
            passed.chain(self.circuits.ends.values().map(|end| end.relay)).collect();
        needed.into_iter().for_each(|device| self.need(device, now));
    }

    /// Tells both ends of each circuit that is asked for whether there are the direct paths that it needs, once they are
    /// there or are not found in time.
    fn open_circuits(&mut self, cx: &mut Context<'_>) {
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

    fn ask_for_circuits(&mut self, cx: &mut Context<'_>) {
        let now = cx.instant();
        let is_due = |lack: &Lack| now >= lack.since + LACKING && lack.next <= now;
        let due = self.circuits.lacks.iter().filter(|(_, lack)| is_due(lack));
        let due: Vec<_> = due.map(|(peer, _)| *peer).collect();
        if due.is_empty() {
            return;
        }
        let relays = self.peer_relays();
        for peer in due {
            let others: Vec<_> = relays.iter().copied().filter(|relay| *relay != peer).collect();
            let works = self.peers.get(peer).is_some_and(|peer| self.circuits.reach(peer));
            for relay in self.circuits.ask(peer, works, &others, now) {
                self.need(relay, now);
                let request = Message::CircuitRequest { peer: *peer.as_bytes() };
                self.send_disco(relay, &request, cx);
            }
        }
    }

    /// Members that may pass on: those with a direct path first, the nearest before others.
    fn peer_relays(&self) -> Vec<DeviceId> {
        let mut relays: Vec<_> =
            self.peers.iter().filter(|peer| self.is_peer_relay(peer)).collect();
        relays.sort_by_key(|peer| (Reverse(peer.agent.straight().is_some()), peer.agent.latency()));
        relays.into_iter().map(Peer::device).collect()
    }

    /// Tells the machine that chooses the path to a peer which circuits lead there: those to whose peer relays there is a
    /// direct path. If they are others than before, peer relays are asked at once.
    fn announce_circuits(&mut self, peer: DeviceId, now: Instant) {
        let circuits = self.circuits.to(peer).map(|(number, _)| number);
        let circuits: Vec<_> = circuits.filter(|number| self.circuit(*number).is_some()).collect();
        let is_other =
            self.peers.touch(peer).is_some_and(|peer| peer.agent.handle_circuits(&circuits, now));
        if let Some(lack) = self.circuits.lacks.get_mut(&peer).filter(|_| is_other) {
            lack.next = now;
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

    /// Sends a disco message over the best path.
    fn send_disco(&mut self, device: DeviceId, message: &Message, cx: &mut Context<'_>) {
        let payload = message.encode();
        let Some(peer) = self.peers.get(device) else { return };
        let Some(to) = peer.agent.straight() else {
            return self.send_hello(device, FrameType::Disco, &payload, cx);
        };
        if let Some(payload) = peer.frames.seal_hello_direct(FrameType::Disco, &payload, cx.rng) {
            self.output.transmits.push_back(Transmit::new(to, payload));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId::from_bytes([9; 32]);

    #[test]
    fn few_circuits_lead_to_one_peer_and_those_that_were_confirmed_last_stay() {
        let (mut circuits, start) = (Circuits::default(), Instant::now());
        let relay = |number: u8| DeviceId::from_bytes([number; 32]);
        let mut seconds = 0;
        let mut confirm = |circuits: &mut Circuits, number: u8| {
            seconds += 1;
            let now = start + Duration::from_secs(seconds);
            circuits.set_end(relay(number), PEER, Some(number.into()), now);
        };
        (1..=4).for_each(|number| confirm(&mut circuits, number));
        confirm(&mut circuits, 1);
        confirm(&mut circuits, 5);
        let mut kept: Vec<_> = circuits.to(PEER).map(|(_, end)| end.number).collect();
        kept.sort_unstable();
        assert_eq!(kept, [1, 3, 4, 5]);
        // One that is not passed on any more is gone, and another number is another circuit.
        let before: Vec<_> = circuits.to(PEER).map(|(own, _)| own).collect();
        circuits.set_end(relay(3), PEER, None, start);
        circuits.set_end(relay(4), PEER, Some(44), start);
        circuits.set_end(relay(5), PEER, Some(wire::NUMBERS), start);
        let kept: Vec<_> = circuits.to(PEER).map(|(own, end)| (own, end.number)).collect();
        assert_eq!(kept.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [1, 44]);
        assert!(before.contains(&kept[0].0) && !before.contains(&kept[1].0));
    }

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

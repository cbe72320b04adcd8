//! Datagrams that somebody else passes on.
//!
//! Where two devices find no direct path, a relay may pass their datagrams on over UDP, or a third device to which both have a
//! direct path, if the network lets devices of its groups do so: a peer relay. What is passed on for one pair is a circuit. It has a
//! number at who passes it on, the carrier, which stands before each datagram ([`Head`]). The two ends are told by the addresses from
//! which the datagrams come: for a peer relay those of their proven direct paths, for a relay those that they have shown to it
//! ([`relay_proto::CircuitBinding`]). To an end the circuit is an address of its own making ([`Alias::Circuit`]), with a number that
//! this device gave it.

mod over_relays;
mod passing;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use frame_proto::FrameType;
use identity::{DeviceId, Padding, Shaping};
use path::{Alias, Message};
use relay_proto::{CircuitBinding, CircuitKey, Head, NUMBERS};

use crate::context::Context;
use crate::dataplane::{Circuits as Published, Onward};
use crate::engine::Engine;
use crate::io::Transmit;
use crate::ladder::Rung;
use crate::peer::{Lacking, Peer};
use crate::via::Arrival;

use passing::Passed;

/// Peer relays that are asked at a time for one peer.
const ASKED: usize = 2;
/// Those that pass on are asked again after this, ...
const REFRESH: Duration = Duration::from_secs(20);
/// ... others after this, if nothing gets through.
const AGAIN: Duration = Duration::from_secs(5);
/// An end forgets a circuit of which it has heard nothing for so long: three requests of the other.
const END_KEPT: Duration = Duration::from_secs(60);
/// A circuit over a carrier to a peer takes the place of another no sooner.
const SETTLED: Duration = Duration::from_secs(1);
/// Circuits that end here, ...
const MAX_ENDS: usize = 1_024;
/// ... and those of them that lead to one peer.
const MAX_TO_PEER: usize = 4;

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
#[derive(Debug)]
struct End {
    carrier: Carrier,
    peer: DeviceId,
    /// Its number at the carrier.
    number: u32,
    until: Instant,
    /// What tells a relay where this end is, and where the relay is.
    binding: Option<(SocketAddr, CircuitBinding)>,
}

/// Who passes on what goes over a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// Another member.
    Member(DeviceId),
    /// A relay.
    Relay(DeviceId),
}

/// A peer to which traffic lacks a direct path.
#[derive(Clone, Copy, Debug)]
struct Lack {
    since: Instant,
    /// When somebody is asked next.
    next: Instant,
    /// How often some were asked in vain; none if a circuit worked the last time.
    vain: Option<usize>,
}

impl Circuits {
    /// Paths are looked for anew: carriers may be needed elsewhere than before, and this end is elsewhere.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        self.lacks.values_mut().for_each(|lack| lack.next = now);
        let bindings = self.ends.values_mut().filter_map(|end| end.binding.as_mut());
        bindings.for_each(|(_, binding)| binding.handle_network_change(now));
    }

    /// The circuits to a peer, by this device's numbers.
    fn to(&self, peer: DeviceId) -> impl Iterator<Item = (u32, &End)> {
        let ends = self.ends.iter().filter(move |(_, end)| end.peer == peer);
        ends.map(|(number, end)| (*number, end))
    }

    /// Whether a circuit to a peer works.
    pub(crate) fn reach(&self, peer: &Peer) -> bool {
        let mut circuits = self.to(peer.device());
        circuits.any(|(number, _)| peer.agent.is_proven(Alias::Circuit(number).into()))
    }

    /// The end of the circuit over a carrier to a peer.
    fn end_mut(&mut self, (carrier, peer): (Carrier, DeviceId)) -> Option<&mut End> {
        self.ends.values_mut().find(|end| end.carrier == carrier && end.peer == peer)
    }

    /// Whether the circuit with this number at a relay is known to lead to another peer than this one.
    fn is_of_another(&self, (at, number): (SocketAddr, u32), peer: DeviceId) -> bool {
        self.ends.values().any(|end| {
            let is_there = end.binding.as_ref().is_some_and(|(relay, _)| *relay == at);
            is_there && end.number == number && end.peer != peer
        })
    }

    /// Notes whether a carrier passes on between this device and a peer.
    fn set_end(&mut self, (carrier, peer): (Carrier, DeviceId), number: Option<u32>, now: Instant) {
        let is_same = |end: &End| end.carrier == carrier && end.peer == peer;
        self.ends.retain(|_, end| !is_same(end) || Some(end.number) == number);
        let Some(number) = number.filter(|number| *number < NUMBERS) else { return };
        let until = now + END_KEPT;
        if let Some(end) = self.end_mut((carrier, peer)) {
            end.until = until;
            return;
        }
        let oldest = self.to(peer).min_by_key(|(_, end)| end.until);
        if let Some((oldest, _)) = oldest.filter(|_| self.to(peer).count() >= MAX_TO_PEER) {
            self.ends.remove(&oldest);
        }
        if self.ends.len() < MAX_ENDS {
            self.ends.insert(self.ended, End { carrier, peer, number, until, binding: None });
            self.ended += 1;
        }
    }

    /// Whether a carrier would be another circuit to a peer than it was a moment ago, which happens to nobody who is honest.
    fn changes_too_soon(
        &self,
        (carrier, peer): (Carrier, DeviceId),
        number: u32,
        now: Instant,
    ) -> bool {
        let mut ends = self.to(peer).map(|(_, end)| end);
        let before = ends.find(|end| end.carrier == carrier && end.number != number);
        before.is_some_and(|end| end.until + SETTLED > now + END_KEPT)
    }

    /// Whom to ask for a circuit to a peer: those that pass on already if one `works`, else one of `relays` and some of `members` in
    /// turns.
    fn ask(
        &mut self,
        (peer, works): (DeviceId, bool),
        (relays, members): (&[DeviceId], &[DeviceId]),
        now: Instant,
    ) -> Vec<Carrier> {
        let Some(lack) = self.lacks.get_mut(&peer) else { return Vec::new() };
        if !works && relays.is_empty() && members.is_empty() {
            // There is nobody yet.
            return Vec::new();
        }
        if works {
            (lack.next, lack.vain) = (now + REFRESH, None);
            return self.to(peer).map(|(_, end)| end.carrier).collect();
        }
        let vain = lack.vain.unwrap_or(0);
        (lack.next, lack.vain) = (now + AGAIN, Some(vain + 1));
        let in_turns = |all: &[DeviceId], count: usize| -> Vec<DeviceId> {
            let skipped = vain * count % all.len().max(1);
            all.iter().cycle().skip(skipped).take(count.min(all.len())).copied().collect()
        };
        let relays = in_turns(relays, 1).into_iter().map(Carrier::Relay);
        relays.chain(in_turns(members, ASKED).into_iter().map(Carrier::Member)).collect()
    }
}

impl Engine {
    /// Takes what a member says about circuits; what it says about something else comes back.
    pub(crate) fn take_circuit_message(
        &mut self,
        (from, arrival): (DeviceId, Arrival),
        message: Message,
        cx: &mut Context<'_>,
    ) -> Option<Message> {
        if let Message::CircuitRequest { peer } = message {
            let from = (from, arrival.path(from));
            self.handle_circuit_request(from, DeviceId::from_bytes(peer), cx);
        } else if let Message::Circuit { peer, number } = message {
            self.handle_circuit(from, (DeviceId::from_bytes(peer), number), cx);
        } else if let Message::RelayCircuit { relay, number, key } = message {
            let place = (from, DeviceId::from_bytes(relay));
            self.handle_relay_circuit(place, (number, CircuitKey::from_bytes(key)), cx.instant());
        } else {
            return Some(message);
        }
        None
    }

    /// A member says whether it passes datagrams on between this device and a third one.
    fn handle_circuit(
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
        self.circuits.set_end((Carrier::Member(relay), peer), number, now);
        self.announce_circuits(peer, now);
        self.schedule.publish();
    }

    /// Does what is due, and asks for circuits to the peers to which traffic lacks a direct path.
    pub(crate) fn tend_circuits(&mut self, cx: &mut Context<'_>) {
        self.note_lacks(cx.instant());
        self.show_places(cx.instant());
        self.forget_circuits(cx);
        self.open_circuits(cx);
        self.ask_for_circuits(cx);
        if *self.plane.load().circuits() != self.circuits_onward() {
            self.schedule.publish();
        }
    }

    /// Notes to whom traffic lacks a direct path, if datagrams could take another.
    fn note_lacks(&mut self, now: Instant) {
        let before = std::mem::take(&mut self.circuits.lacks);
        if !self.settings.path.udp {
            return;
        }
        let lacking = self.peers.iter().filter_map(|peer| peer.lacking(now));
        let wanted = lacking.filter(|lacking| lacking.has_session || lacking.is_waiting);
        for Lacking { device, .. } in wanted {
            let new = Lack { since: now, next: now, vain: Some(0) };
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
        let to = match (end.carrier, &end.binding) {
            (Carrier::Member(member), _) => self.peers.get(member)?.agent.straight()?,
            (Carrier::Relay(_), Some((at, binding))) if binding.is_bound() => *at,
            (Carrier::Relay(_), _) => return None,
        };
        Some((to, Head::ascending(end.number)))
    }

    /// Who passes on what goes over a circuit.
    pub(crate) fn carrier(&self, number: u32) -> Option<Carrier> {
        self.circuits.ends.get(&number).map(|end| end.carrier)
    }

    /// What becomes of datagrams on circuits that come from where their senders are proven to be.
    pub(crate) fn circuits_onward(&self) -> Published {
        let mut published = HashMap::new();
        let proven =
            |device| self.peers.get(device).into_iter().flat_map(|peer| peer.agent.proven());
        for (number, end) in &self.circuits.ends {
            let way = Alias::Circuit(*number).into();
            let head = Head::descending(end.number);
            let bound = end.binding.as_ref().filter(|(_, binding)| binding.is_bound());
            let relay = bound.map(|(at, _)| *at);
            let member = match end.carrier {
                Carrier::Member(member) => Some(proven(member)),
                Carrier::Relay(_) => None,
            };
            let from = relay.into_iter().chain(member.into_iter().flatten());
            published.extend(from.map(|from| ((from, head), Onward::Here(way))));
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

    /// Whether the network hides lengths or times on streams: then nothing leaves these for the sake of a relay.
    fn hides_traffic(&self) -> bool {
        let info = self.control.client().map().info();
        info.is_some_and(|info| info.padding != Padding::Off || info.shaping != Shaping::Off)
    }

    /// Whether the network lets a member pass on.
    fn is_peer_relay(&self, peer: &Peer) -> bool {
        let info = self.control.client().map().info();
        info.is_some_and(|info| info.lets_relay(&peer.member.groups))
    }

    /// A direct path to a device is needed though there may be no traffic for it.
    fn need(&mut self, device: DeviceId, now: Instant) {
        let Some(peer) = self.peers.touch(device) else { return };
        peer.agent.handle_need(now);
        if peer.agent.straight().is_none() {
            self.relays.want(device, &self.ladder, now);
        }
    }

    /// Forgets what nobody asks for any more or may be used no longer, and keeps up the paths that the rest needs.
    fn forget_circuits(&mut self, cx: &mut Context<'_>) {
        if self.circuits.ends.is_empty() && self.circuits.passed.is_empty() {
            return;
        }
        let now = cx.instant();
        self.forget_passed(cx);
        let peers: BTreeSet<_> = self.circuits.ends.values().map(|end| end.peer).collect();
        let mut ends = std::mem::take(&mut self.circuits.ends);
        ends.retain(|_, end| end.until > now && self.may_stay(end));
        self.circuits.ends = ends;
        peers.into_iter().for_each(|peer| self.announce_circuits(peer, now));
        let passed = self.circuits.passed.values().flat_map(|passed| passed.ends);
        let members = self.circuits.ends.values().filter_map(|end| match end.carrier {
            Carrier::Member(member) => Some(member),
            Carrier::Relay(_) => None,
        });
        let needed: Vec<_> = passed.chain(members).collect();
        needed.into_iter().for_each(|device| self.need(device, now));
    }

    /// Whether a circuit to a peer works, and one carrier at least can be asked to go on.
    fn is_served(&self, device: DeviceId) -> bool {
        let can_be_asked = |(_, end): (u32, &End)| match end.carrier {
            Carrier::Member(_) => true,
            Carrier::Relay(relay) => self.relays.is_attached(relay),
        };
        let works = self.peers.get(device).is_some_and(|peer| self.circuits.reach(peer));
        works && self.circuits.to(device).any(can_be_asked)
    }

    /// Whether a circuit's peer is there, and its carrier may pass on and does.
    fn may_stay(&self, end: &End) -> bool {
        let has_carrier = match (end.carrier, &end.binding) {
            (Carrier::Member(member), _) => {
                self.peers.get(member).is_some_and(|member| self.is_peer_relay(member))
            }
            (Carrier::Relay(_), binding) => {
                !self.hides_traffic()
                    && binding.as_ref().is_some_and(|(_, binding)| !binding.has_failed())
            }
        };
        has_carrier && self.peers.get(end.peer).is_some()
    }

    fn ask_for_circuits(&mut self, cx: &mut Context<'_>) {
        let now = cx.instant();
        let is_due = |(device, lack): &(&DeviceId, &Lack)| {
            let has_ended = lack.vain.is_none() && !self.is_served(**device);
            let since = lack.since + self.ladder.stagger(**device, Rung::Circuit);
            now >= since && (lack.next <= now || has_ended)
        };
        let due = self.circuits.lacks.iter().filter(is_due);
        let due: Vec<_> = due.map(|(peer, _)| *peer).collect();
        if due.is_empty() {
            return;
        }
        let members = self.peer_relays();
        for device in due {
            let Some(peer) = self.peers.get(device) else { continue };
            let members: Vec<_> =
                members.iter().copied().filter(|member| *member != device).collect();
            let answers = |address| self.stun.latency(address).is_some();
            let relays = if self.hides_traffic() {
                Vec::new()
            } else {
                self.relays.carriers((peer.relays.relays(), &peer.member.groups), answers)
            };
            let works = self.is_served(device);
            let since = self.circuits.lacks.get(&device).map(|lack| lack.since);
            let is_early = since.is_some_and(|since| now < since + Rung::Circuit.stagger());
            if !works && is_early && relays.is_empty() {
                // The one that passed on before may not be there yet.
                continue;
            }
            for carrier in self.circuits.ask((device, works), (&relays, &members), now) {
                match carrier {
                    Carrier::Member(member) => {
                        self.need(member, now);
                        let request = Message::CircuitRequest { peer: *device.as_bytes() };
                        self.send_disco(member, &request, cx);
                    }
                    Carrier::Relay(relay) => {
                        self.relays.request_circuit(relay, device, &mut self.streams, now);
                    }
                }
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

    /// Tells the machine that chooses the path to a peer which circuits lead there: those to whose carriers there is a way. If
    /// they are others than before, carriers are asked at once.
    fn announce_circuits(&mut self, peer: DeviceId, now: Instant) {
        let circuits = self.circuits.to(peer).map(|(number, _)| number);
        let circuits: Vec<_> = circuits.filter(|number| self.is_usable(*number)).collect();
        let is_other =
            self.peers.touch(peer).is_some_and(|peer| peer.agent.handle_circuits(&circuits, now));
        if let Some(lack) = self.circuits.lacks.get_mut(&peer).filter(|_| is_other) {
            lack.next = now;
        }
    }

    /// Whether a circuit leads somewhere, and its carrier does not ask to be left.
    fn is_usable(&self, number: u32) -> bool {
        let is_well = match self.carrier(number) {
            Some(Carrier::Relay(relay)) => self.relays.is_well(relay),
            Some(Carrier::Member(_)) | None => true,
        };
        is_well && self.circuit(number).is_some()
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
        let relay = |number: u8| Carrier::Member(DeviceId::from_bytes([number; 32]));
        let mut seconds = 0;
        let mut confirm = |circuits: &mut Circuits, number: u8| {
            seconds += 1;
            let now = start + Duration::from_secs(seconds);
            circuits.set_end((relay(number), PEER), Some(number.into()), now);
        };
        (1..=4).for_each(|number| confirm(&mut circuits, number));
        confirm(&mut circuits, 1);
        confirm(&mut circuits, 5);
        let mut kept: Vec<_> = circuits.to(PEER).map(|(_, end)| end.number).collect();
        kept.sort_unstable();
        assert_eq!(kept, [1, 3, 4, 5]);
        // One that is not passed on any more is gone, and another number is another circuit.
        let before: Vec<_> = circuits.to(PEER).map(|(own, _)| own).collect();
        circuits.set_end((relay(3), PEER), None, start);
        circuits.set_end((relay(4), PEER), Some(44), start);
        circuits.set_end((relay(5), PEER), Some(NUMBERS), start);
        let kept: Vec<_> = circuits.to(PEER).map(|(own, end)| (own, end.number)).collect();
        assert_eq!(kept.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [1, 44]);
        assert!(before.contains(&kept[0].0) && !before.contains(&kept[1].0));
    }
}

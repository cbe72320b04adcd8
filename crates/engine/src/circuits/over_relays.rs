//! Circuits over relays.

use std::net::SocketAddr;
use std::time::Instant;

use identity::DeviceId;
use path::{Alias, Message, Path};
use relay_proto::{CircuitBinding, CircuitKey, CircuitOffer};

use super::{Carrier, END_KEPT};
use crate::context::Context;
use crate::engine::Engine;
use crate::io::Transmit;

impl Engine {
    /// A relay says whether it passes datagrams on between this device and a peer, which has not heard of it.
    pub(crate) fn handle_circuit_offer(
        &mut self,
        (relay, device): (DeviceId, DeviceId),
        offer: Option<CircuitOffer>,
        cx: &mut Context<'_>,
    ) {
        if self.peers.get(device).is_none() {
            return;
        }
        let Some(CircuitOffer { number, keys: [own, other] }) = offer else {
            self.circuits.set_end((Carrier::Relay(relay), device), None, cx.instant());
            return self.announce_circuits(device, cx.instant());
        };
        let (relay_id, key) = (*relay.as_bytes(), *other.as_bytes());
        let message = Message::RelayCircuit { relay: relay_id, number, key };
        self.send_disco(device, &message, cx);
        self.join_circuit((relay, device), (number, own), cx.instant());
    }

    /// A peer says that a relay passes datagrams on between it and this device.
    pub(crate) fn handle_relay_circuit(
        &mut self,
        (peer, relay): (DeviceId, DeviceId),
        (number, key): (u32, CircuitKey),
        now: Instant,
    ) {
        if self.settings.path.udp && !self.hides_traffic() {
            self.join_circuit((relay, peer), (number, key), now);
        }
    }

    /// Shows the relay of a circuit where this device is, unless it does so already.
    fn join_circuit(
        &mut self,
        (relay, peer): (DeviceId, DeviceId),
        (number, key): (u32, CircuitKey),
        now: Instant,
    ) {
        let Some(at) = self.relay_address(relay) else { return };
        let place = (Carrier::Relay(relay), peer);
        if self.circuits.changes_too_soon(place, number, now)
            || self.circuits.is_of_another((at, number), peer)
        {
            return;
        }
        let works = self.peers.get(peer).is_some_and(|peer| self.circuits.reach(peer));
        self.circuits.set_end(place, Some(number), now);
        let Some(end) = self.circuits.end_mut(place) else { return };
        match &mut end.binding {
            Some(_) if works => {}
            // To the relay this device may be elsewhere, as behind a translator that has forgotten.
            Some((before, binding)) if *before == at => binding.handle_network_change(now),
            binding => *binding = Some((at, CircuitBinding::new(number, key, now))),
        }
        self.announce_circuits(peer, now);
        self.schedule.publish();
        self.show_places(now);
    }

    /// Shows relays where this device is, as often as they have to be shown.
    pub(super) fn show_places(&mut self, now: Instant) {
        let bindings = self.circuits.ends.values_mut().filter_map(|end| end.binding.as_mut());
        for (at, binding) in bindings {
            let payload = binding.poll_transmit(now);
            let transmit = payload.map(|payload| Transmit::new(*at, payload.to_vec()));
            self.output.transmits.extend(transmit);
        }
    }

    /// Takes a datagram if it is a relay's answer to such a message.
    pub(crate) fn take_bound(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let answered = self.circuits.ends.values_mut().find_map(|end| {
            let (at, binding) = end.binding.as_mut()?;
            (*at == from && binding.handle_answer(datagram, now)).then_some(end)
        });
        let Some(end) = answered else { return false };
        // The relay forgets it where nobody asks any more, and does not answer then.
        end.until = now + END_KEPT;
        let peer = end.peer;
        self.show_places(now);
        self.announce_circuits(peer, now);
        self.schedule.publish();
        true
    }

    /// The link to some relay has opened or ended. A relay without a link may be gone, and with it what it passes on.
    pub(crate) fn doubt_circuits(&mut self, now: Instant) {
        let doubtful = self.circuits.ends.iter().filter(|(_, end)| match end.carrier {
            Carrier::Relay(relay) => !self.relays.is_attached(relay),
            Carrier::Member(_) => false,
        });
        let doubtful: Vec<_> = doubtful.map(|(number, end)| (*number, end.peer)).collect();
        for (number, peer) in doubtful {
            let path = Path::Direct(Alias::Circuit(number).into());
            let Some(peer) = self.peers.touch(peer) else { continue };
            if peer.agent.chosen() == path {
                peer.agent.handle_doubt(now);
            }
        }
    }

    /// Where a relay takes datagrams: the nearest of its addresses that are known to answer.
    fn relay_address(&self, relay: DeviceId) -> Option<SocketAddr> {
        let filter = &self.settings.path.filter;
        let addresses = self.relays.datagram_addresses(relay);
        let permitted = addresses.iter().copied().filter(|address| filter.permits(*address));
        permitted.min_by_key(|address| {
            let latency = self.stun.latency(*address);
            (latency.is_none(), latency)
        })
    }
}

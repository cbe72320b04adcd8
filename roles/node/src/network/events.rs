//! Carrying out what the engine wants.

use std::{net::IpAddr, time::Duration};

use engine::{ConnectionState, EngineEvent, InterfaceSettings, StatePart};
use identity::DeviceId;
use tracing::{debug, info, warn};

use super::{Ending, Network, Note, answer, not_found};
use crate::{
    api::{Event, Membership, PingReply},
    directory::Listing,
    memory, view,
};

impl Network {
    /// Carries out everything that the engine wants done.
    pub(super) fn drain(&mut self) {
        loop {
            let mut idle = true;
            while let Some(command) = self.engine.poll_stream() {
                idle = false;
                self.handle_stream_command(command);
            }
            idle &= !self.send_messages();
            while let Some(transmit) = self.engine.poll_transmit() {
                idle = false;
                self.transmit(&transmit);
            }
            while let Some(datagrams) = self.engine.poll_fresh_socket() {
                idle = false;
                self.survey(&datagrams);
            }
            while let Some(command) = self.engine.poll_socket() {
                idle = false;
                self.handle_socket_command(command);
            }
            while let Some(packet) = self.engine.poll_packet() {
                idle = false;
                self.host.deliver(&packet);
            }
            while let Some(event) = self.engine.poll_event() {
                idle = false;
                self.handle_event(event);
            }
            if idle {
                return;
            }
        }
    }

    fn handle_event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Interface(settings) => self.configure(settings),
            EngineEvent::ZoneChanged => self.publish(),
            EngineEvent::Save(part, bytes) => self.save(part, &bytes),
            EngineEvent::Connection(state) => self.handle_connection(&state),
            EngineEvent::Pong { peer, path, latency } => {
                self.handle_pong(peer, &self.engine.describe(peer, path), latency);
            }
            EngineEvent::Path { peer, decision } => {
                let path = self.engine.describe(peer, decision.path);
                let text = format!("{path}: {}", decision.reason);
                debug!(network = self.name, %peer, text, "path");
                self.tell(Event::Path {
                    network: self.id.to_string(),
                    peer: peer.to_string(),
                    text,
                });
            }
            EngineEvent::Won { peer, rung } => self.note_winner((peer, rung)),
            EngineEvent::ClockWrong { offset_ms: _ } => self.tell_clock(),
            EngineEvent::Removed => {
                self.ending = Ending::Removed;
                let reason = "this device is no longer in the network; coming back takes a new \
                              invite";
                self.change_membership(Membership::Refused, Some(reason.to_owned()));
            }
            EngineEvent::Security(event) => {
                warn!(network = self.name, ?event, "security event");
                let text = format!("{event:?}");
                self.tell(Event::Security { network: self.id.to_string(), text });
            }
        }
    }

    fn configure(&mut self, settings: InterfaceSettings) {
        self.arrangement.wanted = Some(settings);
        self.arrange();
    }

    /// Sets up the interface, names and prefixes, but for what another network of the device has already:
    /// of two with one IPv4 prefix, the later one has IPv6 only.
    pub(super) fn arrange(&mut self) {
        let Some(wanted) = &self.arrangement.wanted else { return };
        let taken = self.node.directory.taken(self.id, &wanted.routes);
        if taken != self.arrangement.taken {
            info!(network = self.name, "another network of this device has prefixes of this one");
            self.arrangement.taken = taken;
        }
        self.publish();
        let Some(settings) = self.settings() else { return };
        self.host.configure(&settings, &self.node.directory);
        if let Some((_, interface)) = self.host.interface() {
            // Without a node there is no resolver to change.
            let _ = self.node.notes.send(Note::Configured { network: self.id, interface });
        }
    }

    /// What the engine wants, without what is taken.
    fn settings(&self) -> Option<InterfaceSettings> {
        let mut settings = self.arrangement.wanted.clone()?;
        settings.routes.retain(|route| !self.arrangement.taken.contains(route));
        let is_taken =
            |address: &IpAddr| self.arrangement.taken.iter().any(|route| route.contains(address));
        settings.addresses.retain(|address| !is_taken(address));
        Some(settings)
    }

    /// Makes names, addresses and prefixes known to the rest of the node.
    fn publish(&self) {
        let Some(settings) = self.settings() else { return };
        match self.engine.zone_without(&self.arrangement.taken, self.clock.now()) {
            Ok(zone) => {
                let listing = Listing {
                    zone,
                    own: settings.addresses,
                    routes: settings.routes,
                    outlet: self.outlet.clone(),
                };
                self.node.directory.publish(self.id, listing);
            }
            Err(error) => {
                warn!(network = self.name, %error, "the network has a name that DNS cannot have")
            }
        }
    }

    fn save(&mut self, part: StatePart, bytes: &[u8]) {
        let result = memory::store_state(self.node.keys.as_ref(), self.id, part, bytes);
        self.saving.note(&self.name, (part, result), self.clock.now().instant);
    }

    /// Keeps by what others were reached, if it is time, or if this is the `last` time. Without it they are only found later.
    pub(super) fn save_winners(&mut self, last: bool) {
        let due = self.underlay.winners.take_due(last, self.clock.now().instant);
        let stored =
            due.map(|bytes| memory::store_winners(self.node.keys.as_ref(), self.id, &bytes));
        if let Some(Err(error)) = stored {
            debug!(network = self.name, %error, "by what others were reached is not kept");
        }
    }

    fn handle_connection(&mut self, state: &ConnectionState) {
        let admitted = self.engine.status(self.clock.now()).name.is_some();
        let (membership, reason) = view::membership(state, admitted);
        if membership == Membership::Online || membership == Membership::AwaitingApproval {
            self.underlay.fault = None;
        }
        self.change_membership(membership, reason);
    }

    fn change_membership(&mut self, membership: Membership, reason: Option<String>) {
        self.membership = membership;
        info!(network = self.name, ?membership, reason, "membership");
        self.tell(Event::Membership { network: self.id.to_string(), membership, reason });
    }

    /// Says how wrong the clock is, or that it is right again.
    pub(super) fn tell_clock(&self) {
        let status = self.engine.status(self.clock.now());
        let advice = status.clock_offset.map(|_| status.warnings.join("; "));
        match &advice {
            Some(advice) => warn!(network = self.name, "{advice}"),
            None => info!(network = self.name, "this device's clock is right again"),
        }
        let (network, offset_seconds) = (self.id.to_string(), status.clock_offset);
        self.tell(Event::Clock { network, offset_seconds, advice });
    }

    pub(super) fn tell(&self, event: Event) {
        // Without anybody who listens there is nobody to tell.
        let _ = self.node.events.send(event);
    }

    fn handle_pong(&mut self, peer: DeviceId, path: &str, latency: Duration) {
        let latency_ms = latency.as_secs_f64() * 1_000.0;
        for ping in self.pings.extract_if(.., |ping| ping.peer == peer) {
            let reply = view::path(path, Some(latency_ms))
                .map(|path| PingReply { peer: ping.name, path })
                .ok_or_else(|| not_found("the peer"));
            answer(ping.reply, reply);
        }
    }
}

//! What a shell does for each machine: it carries out what the machine wants.

use std::time::Duration;

use control_proto::{Change, ClientEvent, Output, StreamAction};
use engine::{EngineEvent, HostPacket, Purpose, StreamCommand, Transmit};
use identity::{DeviceId, NetworkId};
use relay_proto::{ConnectionId, ServerEvent};

use super::delivery::{Client, Delivery, Server};
use super::packets::{Echo, too_big};
use super::underlay::HostId;
use super::world::{Arrival, World};

/// A controller that could not keep a change is started again after this long.
const SUPERVISION: Duration = Duration::from_secs(2);

impl World {
    pub(super) fn send_packet(&mut self, index: usize, packet: &[u8]) {
        let now = self.node_now(index);
        if let Some(engine) = &mut self.nodes[index].engine {
            engine.handle_packet(HostPacket::single(packet), &mut self.rng, now);
            self.drain_node(index);
        }
    }

    pub(super) fn drain_controller(&mut self) {
        while let Some(output) = self.controller.machine.as_mut().and_then(|c| c.poll_output()) {
            match output {
                Output::Send { connection, message } => {
                    let wire = connection.0;
                    self.later(Delivery::ToClient { wire, message });
                }
                Output::Close { connection } => {
                    self.later(Delivery::ClosedByServer { wire: connection.0 });
                }
                // What it cannot keep it must not promise: whoever watches over it starts it again.
                Output::Persist { .. } if self.controller.disk_full => {
                    self.stop_controller();
                    self.controller.restart_at = Some(self.now.instant + SUPERVISION);
                }
                Output::Persist { id, changes } => {
                    for change in &changes {
                        self.controller.disk.apply(change);
                        if let Change::Event(event) = change {
                            self.controller.events.push(event.clone());
                        }
                    }
                    if let Some(controller) = &mut self.controller.machine {
                        controller.handle_persisted(id, self.now);
                    }
                }
                Output::Answer { ticket, result } => {
                    self.answers.insert(ticket, result.expect("scenarios ask what is granted"));
                }
            }
        }
        self.note_timer(HostId::Controller);
    }

    pub(super) fn drain_relay(&mut self, index: usize) {
        while let Some(event) = self.relays[index].client.poll_event() {
            if let ClientEvent::MapChanged(_) = event {
                let relay = &mut self.relays[index];
                let map = relay.client.map();
                let (network, revocations) = (map.network(), map.revocations());
                relay.server.set_revocations(network, revocations, self.now);
                relay.circuits.set_revocations(network, revocations);
            }
        }
        while let Some(action) = self.relays[index].client.poll_action() {
            self.carry_out(index, action);
        }
        while let Some(connection) = self.relays[index].server.poll_ready() {
            let Some(wire) = self.wire_of_relay(index, connection) else { continue };
            let now = self.now.instant;
            while let Some(message) = self.relays[index].server.poll_message(connection, now) {
                self.relays[index].sent_bytes += message.len() as u64;
                self.later(Delivery::ToClient { wire, message: message.into() });
            }
        }
        while let Some(event) = self.relays[index].server.poll_event() {
            if let ServerEvent::CircuitWanted { connection, network, device, peer } = event {
                self.offer_circuit(index, connection, (network, [device, peer]));
                return self.drain_relay(index);
            }
            let circuits = &mut self.relays[index].circuits;
            if let ServerEvent::Attached { network, device, .. } = event {
                circuits.admit(network, device);
            } else if let ServerEvent::Expelled { network, device } = event {
                circuits.expel(network, device);
            }
            if let ServerEvent::Close { connection, .. } = event
                && let Some(wire) = self.wire_of_relay(index, connection)
            {
                self.relays[index].server.handle_closed(connection, self.now.instant);
                self.later(Delivery::ClosedByServer { wire });
            }
        }
        self.note_timer(HostId::Relay(index));
    }

    fn offer_circuit(
        &mut self,
        index: usize,
        connection: ConnectionId,
        (network, ends): (NetworkId, [DeviceId; 2]),
    ) {
        let (relay, now) = (&mut self.relays[index], self.now.instant);
        let offer = self
            .relays_pass_on
            .then(|| relay.circuits.open(network, ends, &mut self.rng, now))
            .flatten();
        relay.server.answer_circuit(connection, (ends[1], offer.as_ref()), now);
    }

    fn carry_out(&mut self, index: usize, action: StreamAction) {
        let wire_of =
            |world: &Self, connection| world.wire_of_client(Client::Relay(index, connection));
        match action {
            StreamAction::Dial { connection, path, .. } => {
                self.connect(Client::Relay(index, connection), Server::Controller, path);
            }
            StreamAction::Send { connection, message } => {
                if let Some(wire) = wire_of(self, connection) {
                    self.later(Delivery::ToServer { wire, message });
                }
            }
            StreamAction::Close { connection } => {
                if let Some(wire) = wire_of(self, connection) {
                    self.later(Delivery::ClosedByClient { wire });
                }
            }
        }
    }

    pub(super) fn drain_plain(&mut self, index: usize) {
        while let Some((to, payload)) = self.plain[index].poll_transmit(self.now.instant) {
            let from = self.plain[index].address;
            self.send_datagram(HostId::Plain(index), from, to, payload);
        }
        self.note_timer(HostId::Plain(index));
    }

    pub(super) fn drain_node(&mut self, index: usize) {
        while let Some(engine) = &mut self.nodes[index].engine {
            if let Some(transmit) = engine.poll_transmit() {
                if let Some(from) = self.nodes[index].source(transmit.to) {
                    self.send_datagram(HostId::Node(index), from, transmit.to, transmit.payload);
                }
            } else if let Some(datagrams) = engine.poll_fresh_socket() {
                let Some(first) = datagrams.first() else { continue };
                let from = self.nodes[index].open_fresh(first.to);
                for Transmit { to, payload, .. } in datagrams {
                    if self.nodes[index].source(to).is_some() {
                        self.send_datagram(HostId::Node(index), from, to, payload);
                    }
                }
            } else if let Some(command) = engine.poll_socket() {
                self.handle_socket_command(index, command);
            } else if let Some(command) = engine.poll_stream() {
                self.handle_stream_command(index, command);
            } else if let Some(packet) = engine.poll_packet() {
                packet.split(|part| self.handle_application(index, part));
            } else if let Some(event) = engine.poll_event() {
                match event {
                    EngineEvent::Save(part, bytes) => self.nodes[index].save(part, bytes),
                    EngineEvent::Interface(settings) => {
                        self.nodes[index].interface = Some(settings);
                    }
                    EngineEvent::Won { peer, rung } => self.nodes[index].note_winner(peer, rung),
                    EngineEvent::ZoneChanged
                    | EngineEvent::Connection(_)
                    | EngineEvent::Pong { .. }
                    | EngineEvent::Path { .. }
                    | EngineEvent::ClockWrong { .. }
                    | EngineEvent::Removed => {}
                    EngineEvent::Security(event) => {
                        let at = self.elapsed();
                        self.nodes[index].alarms.push((at, event));
                    }
                }
            } else {
                break;
            }
        }
        self.note_timer(HostId::Node(index));
    }

    fn handle_stream_command(&mut self, index: usize, command: StreamCommand) {
        match command {
            StreamCommand::Dial { stream, target } => {
                let server = match target.purpose {
                    Purpose::Controller => Some(Server::Controller),
                    Purpose::Relay(device) => {
                        let found = self.relays.iter().position(|relay| relay.device == device);
                        found.map(Server::Relay)
                    }
                    Purpose::Peer(device) => {
                        let found = self.nodes.iter().position(|node| node.device == device);
                        found.map(Server::Node)
                    }
                };
                if let Some(server) = server {
                    self.connect(Client::Node(index, stream), server, target.path);
                }
            }
            StreamCommand::Wake { stream } => {
                let dialled = self.wire_of_client(Client::Node(index, stream));
                let accepted = self.wire_to_node(index, stream);
                let now = self.node_now(index).instant;
                while let Some(engine) = &mut self.nodes[index].engine {
                    let Some(message) = engine.poll_message(stream, now) else { break };
                    self.nodes[index].stream_bytes += message.len() as u64;
                    let message = message.into();
                    match (dialled, accepted) {
                        (Some(wire), _) => self.later(Delivery::ToServer { wire, message }),
                        (None, Some(wire)) => self.later(Delivery::ToClient { wire, message }),
                        (None, None) => {}
                    }
                }
            }
            StreamCommand::Close { stream } => {
                if let Some(wire) = self.wire_of_client(Client::Node(index, stream)) {
                    self.later(Delivery::ClosedByClient { wire });
                } else if let Some(wire) = self.wire_to_node(index, stream) {
                    self.later(Delivery::ClosedByServer { wire });
                }
            }
        }
    }

    /// An application gets a packet: it answers questions and notes answers.
    fn handle_application(&mut self, index: usize, packet: &[u8]) {
        let node = &mut self.nodes[index];
        node.received += 1;
        let echo = Echo::from_packet(packet);
        self.arrivals.push(Arrival { at: self.now.instant, node: index, echo });
        node.too_big.extend(too_big(packet));
        let Some(echo) = echo else { return };
        if echo.answer {
            node.answers.insert(echo.number, self.now.instant);
        } else {
            self.send_packet(index, &echo.answered().to_packet(packet.len()));
        }
    }
}

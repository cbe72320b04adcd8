//! What happens between the hosts: datagrams and streams on their way.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use control_proto::ConnectionId;
use engine::StreamId;

use super::world::World;

/// From one end of a stream to the other.
const STREAM_LATENCY: Duration = Duration::from_millis(10);

/// One stream between a client and a server.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) client: Client,
    pub(super) server: Server,
    path: String,
    pub(super) accepted: Option<Accepted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Node(usize, StreamId),
    Relay(usize, ConnectionId),
    /// The process that opened it is no more.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Controller,
    Relay(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Controller(ConnectionId),
    Relay(relay_proto::ConnectionId),
}

#[derive(Debug)]
pub(super) enum Delivery {
    Datagram { from: SocketAddr, to: SocketAddr, payload: Vec<u8> },
    Connect { wire: u64 },
    Connected { wire: u64 },
    ToServer { wire: u64, message: Vec<u8> },
    ToClient { wire: u64, message: Vec<u8> },
    ClosedByServer { wire: u64 },
    ClosedByClient { wire: u64 },
}

impl World {
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Datagram { from, to, payload } => self.deliver_datagram(from, to, payload),
            Delivery::Connect { wire } => self.accept(wire),
            Delivery::Connected { wire } => self.at_client(wire, Client::opened),
            Delivery::ToClient { wire, message } => {
                self.at_client(wire, |client, world| client.message(&message, world));
            }
            Delivery::ClosedByServer { wire } => {
                self.at_client(wire, Client::closed);
                self.wires.remove(&wire);
            }
            Delivery::ToServer { wire, message } => self.at_server(wire, Some(message)),
            Delivery::ClosedByClient { wire } => {
                self.at_server(wire, None);
                self.wires.remove(&wire);
            }
        }
    }

    fn deliver_datagram(&mut self, from: SocketAddr, to: SocketAddr, mut payload: Vec<u8>) {
        if let Some(relay) = self.relays.iter().find(|relay| relay.running && relay.stun == to) {
            if let Some(answer) = path::stun::answer(&payload, from) {
                let stun = relay.stun;
                self.send_datagram(stun, from, answer);
            }
            return;
        }
        if let Some(index) = self.plain.iter().position(|host| host.address == to) {
            self.plain[index].receive(from, &mut payload, &mut self.rng, self.now.instant);
            return self.drain_plain(index);
        }
        let found = self.nodes.iter().position(|node| node.address == to && !node.udp_blocked);
        let Some(index) = found else { return };
        if let Some(engine) = &mut self.nodes[index].engine {
            engine.handle_datagram(from, &mut payload, &mut self.rng, self.now);
            self.drain_node(index);
        }
    }

    fn accept(&mut self, number: u64) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        let accepted = match wire.server {
            Server::Controller => self.controller.machine.as_mut().and_then(|controller| {
                let mask = controller.recognise(&wire.path)?;
                controller.handle_opened(ConnectionId(number), mask, self.now);
                Some(Accepted::Controller(ConnectionId(number)))
            }),
            Server::Relay(index) => {
                let source = match wire.client {
                    Client::Node(node, _) => self.nodes[node].address.ip(),
                    Client::Relay(..) | Client::Gone => Ipv4Addr::UNSPECIFIED.into(),
                };
                let relay = &mut self.relays[index];
                relay
                    .server
                    .recognise(&wire.path)
                    .filter(|_| relay.running)
                    .and_then(|recognised| {
                        relay.server.handle_open(recognised, source, self.now).ok()
                    })
                    .map(Accepted::Relay)
            }
        };
        wire.accepted = accepted;
        let delivery = match accepted {
            Some(_) => Delivery::Connected { wire: number },
            None => Delivery::ClosedByServer { wire: number },
        };
        self.agenda.insert(self.now.instant + STREAM_LATENCY, delivery);
    }

    fn at_client(&mut self, wire: u64, act: impl FnOnce(Client, &mut Self)) {
        if let Some(client) = self.wires.get(&wire).map(|wire| wire.client) {
            act(client, self);
        }
    }

    /// A message, or the end, for the server of a wire.
    fn at_server(&mut self, wire: u64, message: Option<Vec<u8>>) {
        let Some(Wire { server, accepted: Some(accepted), .. }) = self.wires.get(&wire) else {
            return;
        };
        match (*server, *accepted, message) {
            (Server::Controller, Accepted::Controller(connection), message) => {
                let Some(controller) = &mut self.controller.machine else { return };
                match message {
                    Some(message) => {
                        controller.handle_message(connection, &message, &mut self.rng, self.now);
                    }
                    None => controller.handle_closed(connection, self.now),
                }
                self.drain_controller();
            }
            (Server::Relay(index), Accepted::Relay(connection), message) => {
                let server = &mut self.relays[index].server;
                match message {
                    Some(message) => {
                        server.handle_message(connection, message, &mut self.rng, self.now);
                    }
                    None => server.handle_closed(connection, self.now.instant),
                }
                self.drain_relay(index);
            }
            (Server::Controller, Accepted::Relay(_), _)
            | (Server::Relay(_), Accepted::Controller(_), _) => {}
        }
    }

    pub(super) fn send_datagram(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        for at in self.quality.arrivals(&mut self.rng, self.now.instant) {
            self.agenda.insert(at, Delivery::Datagram { from, to, payload: payload.clone() });
        }
    }

    pub(super) fn connect(&mut self, client: Client, server: Server, path: String) {
        let wire = self.next_number();
        self.wires.insert(wire, Wire { client, server, path, accepted: None });
        self.later(Delivery::Connect { wire });
    }

    pub(super) fn later(&mut self, delivery: Delivery) {
        self.agenda.insert(self.now.instant + STREAM_LATENCY, delivery);
    }

    pub(super) fn wire_of_client(&self, client: Client) -> Option<u64> {
        self.wires.iter().find(|(_, wire)| wire.client == client).map(|(number, _)| *number)
    }

    /// The link of a node to a relay: its stream, and the connection that this is at the relay.
    pub(super) fn link(
        &self,
        node: usize,
        relay: usize,
    ) -> Option<(StreamId, relay_proto::ConnectionId)> {
        self.wires.values().find_map(|wire| match (wire.client, wire.server, wire.accepted) {
            (Client::Node(index, stream), Server::Relay(at), Some(Accepted::Relay(connection)))
                if (index, at) == (node, relay) =>
            {
                Some((stream, connection))
            }
            _ => None,
        })
    }

    pub(super) fn wire_of_relay(
        &self,
        index: usize,
        connection: relay_proto::ConnectionId,
    ) -> Option<u64> {
        let end = (Server::Relay(index), Some(Accepted::Relay(connection)));
        self.wires
            .iter()
            .find(|(_, wire)| (wire.server, wire.accepted) == end)
            .map(|(number, _)| *number)
    }

    /// One end of these wires is gone: the other end hears of it.
    pub(super) fn break_wires(&mut self, broken: impl Fn(&Wire) -> bool) {
        let mut deliveries = Vec::new();
        for (wire, state) in self.wires.iter_mut().filter(|(_, wire)| broken(wire)) {
            let gone = match state.client {
                Client::Node(index, _) => self.nodes[index].engine.is_none(),
                Client::Relay(index, _) => !self.relays[index].running,
                Client::Gone => true,
            };
            if gone {
                state.client = Client::Gone;
                deliveries.push(Delivery::ClosedByClient { wire: *wire });
            } else {
                deliveries.push(Delivery::ClosedByServer { wire: *wire });
            }
        }
        deliveries.into_iter().for_each(|delivery| self.later(delivery));
    }
}

impl Client {
    fn opened(self, world: &mut World) {
        let now = world.now;
        match self {
            Self::Node(index, stream) => {
                if let Some(engine) = &mut world.nodes[index].engine {
                    engine.handle_stream_opened(stream, &mut world.rng, now);
                    world.drain_node(index);
                }
            }
            Self::Relay(index, connection) => {
                world.relays[index].client.handle_opened(connection, &mut world.rng, now);
                world.drain_relay(index);
            }
            Self::Gone => {}
        }
    }

    fn message(self, message: &[u8], world: &mut World) {
        let now = world.now;
        match self {
            Self::Node(index, stream) => {
                if let Some(engine) = &mut world.nodes[index].engine {
                    engine.handle_stream_message(stream, message.to_vec(), &mut world.rng, now);
                    world.drain_node(index);
                }
            }
            Self::Relay(index, connection) => {
                let client = &mut world.relays[index].client;
                client.handle_message(connection, message, &mut world.rng, now);
                world.drain_relay(index);
            }
            Self::Gone => {}
        }
    }

    fn closed(self, world: &mut World) {
        let now = world.now;
        match self {
            Self::Node(index, stream) => {
                if let Some(engine) = &mut world.nodes[index].engine {
                    engine.handle_stream_closed(stream, &mut world.rng, now);
                    world.drain_node(index);
                }
            }
            Self::Relay(index, connection) => {
                world.relays[index].client.handle_closed(connection, &mut world.rng, now);
                world.drain_relay(index);
            }
            Self::Gone => {}
        }
    }
}

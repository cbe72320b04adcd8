//! What happens between the hosts: datagrams and streams on their way.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use control_proto::ConnectionId;
use engine::StreamId;
use path::stun::{self, Port};
use relay_proto::Head;

use super::hosts::{NodeHost, RelayHost};
use super::trace::{Traced, kind_of};
use super::underlay::{Flight, HostId, INTERNET, SiteId, Streams};
use super::wire::Quality;
use super::world::World;

/// How long it takes to a proxy, or back.
const TO_PROXY: Duration = Duration::from_millis(2);

/// One stream between a client and a server.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) client: Client,
    pub(super) server: Server,
    pub(super) path: String,
    pub(super) accepted: Option<Accepted>,
    /// Whether it belongs to an address that its client has no more: nothing gets through, and
    /// neither end hears of it.
    pub(super) dead: bool,
    /// When it was dialled.
    pub(super) since: Instant,
    /// When the latest arrives that is on its way to the client, and to the server: nothing overtakes it.
    pub(super) latest: [Instant; 2],
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
    /// A node that listens.
    Node(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Controller(ConnectionId),
    Relay(relay_proto::ConnectionId),
    Node(StreamId),
    /// By a process that is no more; the next one may give its number to another.
    Gone,
}

#[derive(Debug)]
pub(super) enum Delivery {
    Datagram {
        sender: HostId,
        flight: Flight,
        payload: Vec<u8>,
    },
    /// A dial, after so many that met a cut.
    Connect {
        wire: u64,
        tries: usize,
    },
    Connected {
        wire: u64,
    },
    ToServer {
        wire: u64,
        message: Vec<u8>,
    },
    ToClient {
        wire: u64,
        message: Vec<u8>,
    },
    ClosedByServer {
        wire: u64,
    },
    ClosedByClient {
        wire: u64,
    },
    /// The client, or the server, has sent something that may still wait.
    Unacknowledged {
        wire: u64,
        to_server: bool,
    },
}

impl Delivery {
    /// The wire over which it goes, and whether to its server: what shares both stays in order.
    pub(super) fn flow(&self) -> Option<(u64, bool)> {
        self.wire().map(|wire| (wire, self.goes_to_server()))
    }

    fn goes_to_server(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::ToServer { .. } | Self::ClosedByClient { .. } => true,
            Self::Datagram { .. }
            | Self::Unacknowledged { .. }
            | Self::Connected { .. }
            | Self::ToClient { .. }
            | Self::ClosedByServer { .. } => false,
        }
    }

    pub(super) fn wire(&self) -> Option<u64> {
        match self {
            Self::Datagram { .. } | Self::Unacknowledged { .. } => None,
            Self::Connect { wire, .. }
            | Self::Connected { wire }
            | Self::ToServer { wire, .. }
            | Self::ToClient { wire, .. }
            | Self::ClosedByServer { wire }
            | Self::ClosedByClient { wire } => Some(*wire),
        }
    }
}

impl World {
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        let wire = delivery.wire().and_then(|wire| self.wires.get(&wire));
        if wire.is_some_and(|wire| self.is_held(wire)) {
            return self.hold(delivery);
        }
        match delivery {
            Delivery::Datagram { sender, flight, payload } => {
                self.deliver_datagram(sender, flight, payload);
            }
            Delivery::Connect { wire, tries } => self.dial(wire, tries),
            Delivery::Connected { wire } => self.at_client(wire, Client::opened),
            Delivery::ToClient { wire, message } => {
                self.note_wire(wire, false, message.len());
                self.at_client(wire, |client, world| client.message(&message, world));
                if self.wires.get(&wire).is_some_and(|wire| wire.client == Client::Gone) {
                    self.later(Delivery::ClosedByClient { wire });
                }
            }
            Delivery::ClosedByServer { wire } => {
                self.at_client(wire, Client::closed);
                self.wires.remove(&wire);
            }
            Delivery::ToServer { wire, message } => {
                self.note_wire(wire, true, message.len());
                self.at_server(wire, Some(message));
                let accepted = self.wires.get(&wire).and_then(|wire| wire.accepted);
                if accepted == Some(Accepted::Gone) {
                    self.later(Delivery::ClosedByServer { wire });
                }
            }
            Delivery::ClosedByClient { wire } => {
                self.at_server(wire, None);
                self.wires.remove(&wire);
            }
            Delivery::Unacknowledged { wire, to_server } => self.give_up(wire, to_server),
        }
    }

    fn deliver_datagram(&mut self, sender: HostId, flight: Flight, mut payload: Vec<u8>) {
        let Some(Flight { site, from, to }) = self.underlay.descend(flight, self.now.instant)
        else {
            return self.note(sender, None, "stopped by an edge", payload.len());
        };
        let Some(host) = self.host_at(site, to) else {
            return self.note(sender, None, "sent to nobody", payload.len());
        };
        if self.is_cut(sender, host) {
            return self.note(sender, None, "cut off", payload.len());
        }
        self.note(sender, Some(host), kind_of(&payload), payload.len());
        match host {
            HostId::Relay(index) => {
                if let Some(answer) = stun::answer(&payload, from, true) {
                    let by = match answer.port {
                        Port::Asked => to,
                        Port::Other => self.relays[index].other_port(to),
                    };
                    self.send_datagram(host, by, answer.to, answer.bytes);
                } else if let Some((by, to)) = self.pass_on((index, from, to), &mut payload) {
                    self.send_datagram(host, by, to, payload);
                }
            }
            HostId::Plain(index) => {
                self.plain[index].receive(from, &mut payload, &mut self.rng, self.now.instant);
                self.drain_plain(index);
            }
            HostId::Turn => {
                let sent = self.turn.receive((from, to), &payload, self.now.instant);
                for (by, to, payload) in sent {
                    self.send_datagram(host, by, to, payload);
                }
            }
            HostId::Node(index) => {
                let now = self.node_now(index);
                let turn = self.socket_at(index, to, from);
                if let Some(engine) = &mut self.nodes[index].engine {
                    if let Some(turn) = turn {
                        engine.handle_socket_bytes(turn, &payload, &mut self.rng, now);
                        return self.drain_node(index);
                    }
                    engine.handle_datagram(from, &mut payload, &mut self.rng, now);
                    self.drain_node(index);
                }
            }
            HostId::Controller => {}
        }
    }

    /// What a relay makes of a datagram that is no question: from which of its addresses it goes where.
    fn pass_on(
        &mut self,
        (relay, from, to): (usize, SocketAddr, SocketAddr),
        payload: &mut Vec<u8>,
    ) -> Option<(SocketAddr, SocketAddr)> {
        if !self.relays_pass_on {
            return None;
        }
        let relay = &mut self.relays[relay];
        let place = relay.place(to, from)?;
        let Some(head) = Head::of(payload) else {
            *payload = relay.circuits.handle_bind(place, payload, self.now.instant)?.to_vec();
            return Some((to, from));
        };
        let bytes = payload.len() as u64;
        let next = relay.circuits.pass_on(&place, head, bytes, self.now.instant)?;
        relay.passed_bytes += bytes;
        Head::descend(payload);
        Some((relay.stun[next.socket], next.remote))
    }

    /// The host that takes datagrams at an address.
    fn host_at(&self, site: SiteId, to: SocketAddr) -> Option<HostId> {
        if site == INTERNET {
            let is_stun = |relay: &RelayHost| relay.running && relay.stun.contains(&to);
            if let Some(index) = self.relays.iter().position(is_stun) {
                return Some(HostId::Relay(index));
            }
            if self.turn.listens_at(to) {
                return Some(HostId::Turn);
            }
            if let Some(index) = self.plain.iter().position(|host| host.address == to) {
                return Some(HostId::Plain(index));
            }
        }
        let is_there = |node: &NodeHost| {
            let is_on = !node.udp_blocked && !node.asleep && node.site == site;
            is_on && node.listens_at(to)
        };
        self.nodes.iter().position(is_there).map(HostId::Node)
    }

    pub(super) fn accept(&mut self, number: u64) {
        let Some(wire) = self.wires.get(&number).cloned() else { return };
        let source = match wire.client {
            Client::Node(node, _) => self.nodes[node].address.ip(),
            Client::Relay(..) | Client::Gone => Ipv4Addr::UNSPECIFIED.into(),
        };
        let accepted = match wire.server {
            Server::Controller => self.controller.machine.as_mut().and_then(|controller| {
                let mask = controller.recognise(&wire.path)?;
                controller.handle_opened(ConnectionId(number), mask, self.now);
                Some(Accepted::Controller(ConnectionId(number)))
            }),
            Server::Relay(index) => {
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
            Server::Node(index) => {
                let now = self.node_now(index);
                let node = &mut self.nodes[index];
                let engine = node.engine.as_mut().filter(|_| node.listens);
                engine
                    .and_then(|engine| {
                        engine.handle_stream_accepted(&wire.path, source, &mut self.rng, now)
                    })
                    .map(Accepted::Node)
            }
        };
        if let Some(wire) = self.wires.get_mut(&number) {
            wire.accepted = accepted;
        }
        let delivery = match accepted {
            Some(_) => Delivery::Connected { wire: number },
            None => Delivery::ClosedByServer { wire: number },
        };
        self.later(delivery);
    }

    pub(super) fn at_client(&mut self, wire: u64, act: impl FnOnce(Client, &mut Self)) {
        if let Some(client) = self.wires.get(&wire).map(|wire| wire.client) {
            act(client, self);
        }
    }

    /// A message, or the end, for the server of a wire.
    pub(super) fn at_server(&mut self, wire: u64, message: Option<Vec<u8>>) {
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
            (Server::Node(index), Accepted::Node(stream), message) => {
                let now = self.node_now(index);
                let Some(engine) = &mut self.nodes[index].engine else { return };
                match message {
                    Some(message) => {
                        engine.handle_stream_message(stream, message, &mut self.rng, now);
                    }
                    None => engine.handle_stream_closed(stream, &mut self.rng, now),
                }
                self.drain_node(index);
            }
            // By a process that is no more.
            (Server::Controller | Server::Relay(_) | Server::Node(_), _, _) => {}
        }
    }

    pub(super) fn send_datagram(
        &mut self,
        sender: HostId,
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
    ) {
        let (site, quality) = self.uplink(sender);
        if !quality.carries(to, payload.len()) {
            return self.note(sender, None, "too big", payload.len());
        }
        if (self.censor)(&payload) {
            return self.note(sender, None, "censored", payload.len());
        }
        let flight = self.underlay.climb(Flight { site, from, to }, self.now.instant);
        let Some(flight) = flight else {
            return self.note(sender, None, "kept by an edge", payload.len());
        };
        let is_end = |relay: &&RelayHost| relay.stun.contains(&from) || relay.stun.contains(&to);
        let distance = self.relays.iter().find(is_end).map_or(Duration::ZERO, |end| end.distance);
        for at in quality.arrivals(&mut self.rng, self.now.instant + distance) {
            let mut payload = payload.clone();
            quality.spoil(&mut payload, &mut self.rng);
            self.agenda.insert(at, Delivery::Datagram { sender, flight, payload });
        }
    }

    fn uplink(&self, sender: HostId) -> (SiteId, Quality) {
        match sender {
            HostId::Node(index) => {
                let node = &self.nodes[index];
                (node.site, node.uplink.unwrap_or(self.quality))
            }
            HostId::Controller | HostId::Relay(_) | HostId::Plain(_) | HostId::Turn => {
                (INTERNET, self.quality)
            }
        }
    }

    fn note(&mut self, from: HostId, to: Option<HostId>, what: &'static str, len: usize) {
        let at = self.elapsed();
        self.trace.note(Traced { at, from, to, what, len });
    }

    fn note_wire(&mut self, wire: u64, to_server: bool, len: usize) {
        let Some(wire) = self.wires.get(&wire) else { return };
        let Some(client) = wire.client.host() else { return };
        let server = wire.server.host();
        let (from, to) = if to_server { (client, server) } else { (server, client) };
        self.note(from, Some(to), "stream", len);
    }

    /// How many streams of others a node that listens has.
    pub fn streams_to(&self, node: usize) -> usize {
        self.wires.values().filter(|wire| wire.server == Server::Node(node)).count()
    }

    /// Whether nothing stands between two nodes that would keep streams to the port of one from the other.
    pub(super) fn may_dial(&self, node: usize, host: usize) -> bool {
        let (from, to) = (self.nodes[node].site, self.nodes[host].site);
        to == from || (to == INTERNET && self.underlay.streams(from) == Streams::All)
    }

    /// By how much longer than elsewhere what a client sends or gets is under way, and by how much longer its dials are.
    pub(super) fn detour(&self, client: Client) -> [Duration; 2] {
        match client {
            Client::Node(node, _)
                if self.underlay.streams(self.nodes[node].site) == Streams::Proxy =>
            {
                [TO_PROXY, 2 * (TO_PROXY + self.streams.latency)]
            }
            Client::Node(..) | Client::Relay(..) | Client::Gone => [Duration::ZERO; 2],
        }
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

    /// The wire by which a stream came to a node.
    pub(super) fn wire_to_node(&self, index: usize, stream: StreamId) -> Option<u64> {
        let end = (Server::Node(index), Some(Accepted::Node(stream)));
        self.wires
            .iter()
            .find(|(_, wire)| (wire.server, wire.accepted) == end)
            .map(|(number, _)| *number)
    }
}

impl Server {
    pub(super) fn host(self) -> HostId {
        match self {
            Self::Controller => HostId::Controller,
            Self::Relay(index) => HostId::Relay(index),
            Self::Node(index) => HostId::Node(index),
        }
    }
}

impl Client {
    pub(super) fn host(self) -> Option<HostId> {
        match self {
            Self::Node(index, _) => Some(HostId::Node(index)),
            Self::Relay(index, _) => Some(HostId::Relay(index)),
            Self::Gone => None,
        }
    }

    fn opened(self, world: &mut World) {
        let now = world.now;
        match self {
            Self::Node(index, stream) => {
                let now = world.node_now(index);
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
                let now = world.node_now(index);
                world.nodes[index].stream_bytes += message.len() as u64;
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

    pub(super) fn closed(self, world: &mut World) {
        let now = world.now;
        match self {
            Self::Node(index, stream) => {
                let now = world.node_now(index);
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

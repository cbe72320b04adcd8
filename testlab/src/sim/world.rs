//! All hosts, the network between them, and the clock.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use control_proto::{
    AdminAnswer, AdminRequest, Change, ClientEvent, InviteRequest, MapItem, Output, StoredItem,
    StreamAction, Ticket,
};
use engine::{EngineEvent, HostPacket, Now, Purpose, StreamCommand, UnixMillis};
use identity::{DeviceId, Invite, Record, RecordBody, Signed, TunnelKey, UnixTime};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use relay_proto::ServerEvent;

use super::delivery::{Client, Delivery, Server, Wire};
use super::hosts::{ControllerHost, NodeHost, RelayHost};
use super::packets::{Echo, ipv6};
use super::plain::PlainHost;
use super::wire::{Agenda, Quality};

/// What a world begins with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Relays.
    pub relays: usize,
    /// Nodes.
    pub nodes: usize,
    /// How datagrams fare between any two hosts.
    pub quality: Quality,
}

impl Default for Setup {
    fn default() -> Self {
        Self { seed: 1, relays: 2, nodes: 2, quality: Quality::GOOD }
    }
}

/// A network of simulated hosts.
#[derive(Debug)]
pub struct World {
    /// The controller.
    pub controller: ControllerHost,
    /// The relays.
    pub relays: Vec<RelayHost>,
    /// The nodes.
    pub nodes: Vec<NodeHost>,
    /// The plain WireGuard peers.
    pub plain: Vec<PlainHost>,
    /// How datagrams fare between any two hosts.
    pub quality: Quality,
    start: Instant,
    pub(super) now: Now,
    pub(super) rng: ChaCha20Rng,
    pub(super) agenda: Agenda<Delivery>,
    pub(super) wires: BTreeMap<u64, Wire>,
    last_number: u64,
    answers: BTreeMap<Ticket, AdminAnswer>,
}

impl World {
    /// A world in which everybody has an invite and everything has just been started.
    pub fn new(setup: Setup) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(setup.seed);
        let start = Instant::now();
        let now = Now { instant: start, wall: UnixMillis(1_800_000_000_000) };
        let controller = ControllerHost::new(&mut rng, now);
        let mut world = Self {
            controller,
            relays: Vec::new(),
            nodes: Vec::new(),
            plain: Vec::new(),
            quality: setup.quality,
            start,
            now,
            rng,
            agenda: Agenda::default(),
            wires: BTreeMap::new(),
            last_number: 0,
            answers: BTreeMap::new(),
        };
        world.controller.start(now);
        for index in 0..setup.relays {
            let invite = world.invite(InviteRequest { relay: true, ..InviteRequest::default() });
            let relay = RelayHost::new(&invite, index, &mut world.rng, now);
            world.relays.push(relay);
        }
        world.run_for(Duration::from_secs(1));
        for _ in 0..setup.nodes {
            world.add_node();
        }
        world
    }

    /// A further node, which joins at once.
    pub fn add_node(&mut self) -> usize {
        let invite = self.invite(InviteRequest::default());
        let index = self.nodes.len();
        let node = NodeHost::new(invite, index, &mut self.rng);
        self.nodes.push(node);
        self.start_node(index);
        index
    }

    /// An invite made by the administrator.
    pub fn invite(&mut self, request: InviteRequest) -> Invite {
        let answer = self.admin(AdminRequest::CreateInvite(request));
        let AdminAnswer::InvitesCreated { invites } = answer else {
            panic!("not the answer to an invite: {answer:?}");
        };
        invites[0].invite.parse().expect("the controller's invites can be read")
    }

    /// Removes a device from the network.
    pub fn remove(&mut self, device: DeviceId) {
        self.admin(AdminRequest::RemoveDevice { device });
    }

    /// Asks the controller, which must run.
    pub fn admin(&mut self, request: AdminRequest) -> AdminAnswer {
        let ticket = Ticket(self.next_number());
        let controller = self.controller.machine.as_mut().expect("the controller runs");
        controller.handle_admin(ticket, request, &mut self.rng, self.now);
        self.drain_controller();
        self.answers.remove(&ticket).expect("the request is granted at once")
    }

    /// Puts a record into the map, as whoever holds the key of its scope beside the controller
    /// would; the controller restarts with it.
    pub fn publish<T: RecordBody>(
        &mut self,
        body: T,
        withdrawn: bool,
        item: impl FnOnce(Signed<Record<T>>) -> MapItem,
    ) {
        self.stop_controller();
        let at = UnixTime(self.now.wall.as_secs());
        let host = &mut self.controller;
        host.disk.counters.record += 1;
        host.disk.counters.map += 1;
        let (version, map) = (host.disk.counters.record, host.disk.counters.map);
        let keys = &host.config.keys;
        let (key, _) = keys.get(T::SCOPE).expect("the simulated controller holds all keys");
        let record = Record { signer: key.id(), epoch: 0, version, at, withdrawn, body };
        let item = item(Signed::sign(keys.network(), key, &record));
        let stored = StoredItem { version: map, bytes: item.to_bytes().into() };
        host.disk.items.insert(item.key(), stored);
        self.start_controller();
    }

    /// A plain WireGuard peer that knows the node with this index; nothing lets it in yet.
    pub fn add_plain(&mut self, node: usize) -> usize {
        let mut inner = self.address(node).octets();
        let node = &self.nodes[node];
        inner[8..].copy_from_slice(&7_u64.to_be_bytes());
        let at = node.address;
        let host = PlainHost::new(&node.tunnel_key(), at, inner.into(), &mut self.rng, self.now);
        self.plain.push(host);
        self.plain.len() - 1
    }

    /// The address of a node that has joined.
    pub fn address(&self, node: usize) -> Ipv6Addr {
        let settings = self.nodes[node].interface.as_ref().expect("the node has joined");
        ipv6(&settings.addresses).expect("every node has one")
    }

    /// Lets the application of a plain peer ask an application of a node.
    pub fn ping_from_plain(&mut self, from: usize, to: usize) -> u64 {
        let number = self.next_number();
        let destination = self.address(to);
        let source = self.plain[from].inner;
        let echo = Echo { source, destination, answer: false, number };
        self.plain[from].send(echo.to_packet(), &mut self.rng, self.now.instant);
        self.drain_plain(from);
        number
    }

    /// Lets an application of a node ask the application of a plain peer.
    pub fn ping_plain(&mut self, from: usize, to: usize) -> u64 {
        self.send_from(from, self.address(from), self.plain[to].inner)
    }

    /// Lets an application of a node ask in the name of any address.
    pub fn send_from(&mut self, from: usize, source: Ipv6Addr, destination: Ipv6Addr) -> u64 {
        let number = self.next_number();
        let echo = Echo { source, destination, answer: false, number };
        self.send_packet(from, &echo.to_packet());
        number
    }

    /// Ends the controller's process, as with `kill -9`.
    pub fn stop_controller(&mut self) {
        self.controller.machine = None;
        self.break_wires(|wire| wire.server == Server::Controller);
    }

    /// Starts the controller from its disk.
    pub fn start_controller(&mut self) {
        self.controller.start(self.now);
        self.drain_controller();
    }

    /// Ends a relay for good.
    pub fn stop_relay(&mut self, index: usize) {
        self.relays[index].running = false;
        self.break_wires(|wire| {
            wire.server == Server::Relay(index)
                || matches!(wire.client, Client::Relay(relay, _) if relay == index)
        });
    }

    /// Ends a node's process, as with `kill -9`.
    pub fn stop_node(&mut self, index: usize) {
        self.nodes[index].engine = None;
        self.break_wires(|wire| matches!(wire.client, Client::Node(node, _) if node == index));
    }

    /// Starts a node from what it saved.
    pub fn start_node(&mut self, index: usize) {
        self.nodes[index].start(&mut self.rng, self.now);
        self.drain_node(index);
    }

    /// Starts a node that does not run, with another tunnel key.
    pub fn start_node_with_new_tunnel_key(&mut self, index: usize) {
        let key = TunnelKey::generate(&mut self.rng);
        self.nodes[index].replace_tunnel_key(key);
        self.start_node(index);
    }

    /// Starts a node that does not run, with the tunnel key of another.
    pub fn start_node_with_tunnel_key_of(&mut self, index: usize, other: usize) {
        let key = self.nodes[other].secret_tunnel_key();
        self.nodes[index].replace_tunnel_key(key);
        self.start_node(index);
    }

    /// Moves a node to another address of the network underneath.
    pub fn move_node(&mut self, index: usize, to: SocketAddr) {
        self.nodes[index].address = to;
        if let Some(engine) = &mut self.nodes[index].engine {
            engine.handle_local_addresses(&[to], &mut self.rng, self.now);
            self.drain_node(index);
        }
    }

    /// Lets an application of one node ask an application of another; answers the question's
    /// number, or nothing while one of them has no address.
    pub fn ping(&mut self, from: usize, to: usize) -> Option<u64> {
        let address = |node: &NodeHost| ipv6(&node.interface.as_ref()?.addresses);
        let source = address(&self.nodes[from])?;
        let destination = address(&self.nodes[to])?;
        let number = self.next_number();
        let echo = Echo { source, destination, answer: false, number };
        self.send_packet(from, &echo.to_packet());
        Some(number)
    }

    /// Whether a question was answered.
    pub fn is_answered(&self, node: usize, number: Option<u64>) -> bool {
        number.is_some_and(|number| self.nodes[node].answers.contains_key(&number))
    }

    /// Asks once a second until there is an answer; false if there is none in time.
    pub fn ping_until_answered(&mut self, from: usize, to: usize, patience: Duration) -> bool {
        let deadline = self.now.instant + patience;
        while self.now.instant < deadline {
            let number = self.ping(from, to);
            let second = Duration::from_secs(1).min(deadline - self.now.instant);
            if self.run_until(second, |world| world.is_answered(from, number)) {
                return true;
            }
        }
        false
    }

    /// The path from one node to another, as `status` shows it.
    pub fn path(&self, from: usize, to: usize) -> String {
        let Some(engine) = &self.nodes[from].engine else { return "none".to_owned() };
        let why = engine.why(self.nodes[to].device, self.now);
        why.map_or_else(|| "none".to_owned(), |why| why.path)
    }

    /// How long the world has existed.
    pub fn elapsed(&self) -> Duration {
        self.now.instant - self.start
    }

    /// The time in the world.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Lets time pass until something holds; false if it does not within `patience`.
    pub fn run_until(&mut self, patience: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now.instant + patience;
        loop {
            if holds(self) {
                return true;
            }
            let next = self.next_instant().filter(|next| *next <= end);
            let to = next.unwrap_or(end).max(self.now.instant);
            self.now = self.now.after(to - self.now.instant);
            if next.is_none() {
                return holds(self);
            }
            self.step();
        }
    }

    fn next_instant(&self) -> Option<Instant> {
        let controller = self.controller.machine.as_ref().and_then(|c| c.poll_timeout());
        let relays = self
            .relays
            .iter()
            .filter(|relay| relay.running)
            .flat_map(|relay| [relay.client.poll_timeout(), relay.server.poll_timeout()]);
        let nodes = self.nodes.iter().filter_map(|node| node.engine.as_ref());
        let nodes = nodes.map(engine::Engine::poll_timeout);
        let plain = self.plain.iter().map(PlainHost::poll_timeout);
        let timers =
            relays.chain(nodes).chain(plain).chain([controller]).flatten().map(|(at, _)| at);
        timers.chain(self.agenda.next()).min()
    }

    /// Everything that is due now.
    fn step(&mut self) {
        while let Some(delivery) = self.agenda.pop_due(self.now.instant) {
            self.deliver(delivery);
        }
        let now = self.now;
        let due =
            |timeout: Option<(Instant, &str)>| timeout.is_some_and(|(at, _)| at <= now.instant);
        if let Some(controller) = &mut self.controller.machine
            && due(controller.poll_timeout())
        {
            controller.handle_timeout(&mut self.rng, now);
            self.drain_controller();
        }
        for index in 0..self.relays.len() {
            let relay = &mut self.relays[index];
            if relay.running
                && (due(relay.client.poll_timeout()) || due(relay.server.poll_timeout()))
            {
                relay.client.handle_timeout(&mut self.rng, now);
                relay.server.handle_timeout(&mut self.rng, now);
                self.drain_relay(index);
            }
        }
        for index in 0..self.nodes.len() {
            if let Some(engine) = &mut self.nodes[index].engine
                && due(engine.poll_timeout())
            {
                engine.handle_timeout(&mut self.rng, now);
                self.drain_node(index);
            }
        }
        for index in 0..self.plain.len() {
            if due(self.plain[index].poll_timeout()) {
                self.plain[index].handle_timeout(&mut self.rng, now.instant);
                self.drain_plain(index);
            }
        }
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// What happens at the hosts.
impl World {
    fn send_packet(&mut self, index: usize, packet: &[u8]) {
        if let Some(engine) = &mut self.nodes[index].engine {
            engine.handle_packet(HostPacket::single(packet), &mut self.rng, self.now);
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
    }

    pub(super) fn drain_relay(&mut self, index: usize) {
        while let Some(event) = self.relays[index].client.poll_event() {
            if let ClientEvent::MapChanged(_) = event {
                let relay = &mut self.relays[index];
                let map = relay.client.map();
                let (network, revocations) = (map.network(), map.revocations());
                relay.server.set_revocations(network, revocations, self.now);
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
            if let ServerEvent::Close { connection, .. } = event
                && let Some(wire) = self.wire_of_relay(index, connection)
            {
                self.relays[index].server.handle_closed(connection, self.now.instant);
                self.later(Delivery::ClosedByServer { wire });
            }
        }
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
            self.send_datagram(from, to, payload);
        }
    }

    pub(super) fn drain_node(&mut self, index: usize) {
        while let Some(engine) = &mut self.nodes[index].engine {
            if let Some(transmit) = engine.poll_transmit() {
                let from = self.nodes[index].address;
                if !self.nodes[index].udp_blocked {
                    self.send_datagram(from, transmit.to, transmit.payload);
                }
            } else if let Some(command) = engine.poll_stream() {
                self.handle_stream_command(index, command);
            } else if let Some(packet) = engine.poll_packet() {
                packet.split(|part| self.handle_application(index, part));
            } else if let Some(event) = engine.poll_event() {
                match event {
                    EngineEvent::Save(bytes) => self.nodes[index].save(bytes),
                    EngineEvent::Interface(settings) => {
                        self.nodes[index].interface = Some(settings);
                    }
                    EngineEvent::ZoneChanged
                    | EngineEvent::Connection(_)
                    | EngineEvent::Pong { .. }
                    | EngineEvent::Path { .. }
                    | EngineEvent::ClockWrong { .. }
                    | EngineEvent::Removed
                    | EngineEvent::Security(_) => {}
                }
            } else {
                return;
            }
        }
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
                };
                if let Some(server) = server {
                    self.connect(Client::Node(index, stream), server, target.path);
                }
            }
            StreamCommand::Wake { stream } => {
                let wire = self.wire_of_client(Client::Node(index, stream));
                let now = self.now.instant;
                while let Some(engine) = &mut self.nodes[index].engine {
                    let Some(message) = engine.poll_message(stream, now) else { break };
                    if let Some(wire) = wire {
                        self.later(Delivery::ToServer { wire, message: message.into() });
                    }
                }
            }
            StreamCommand::Close { stream } => {
                if let Some(wire) = self.wire_of_client(Client::Node(index, stream)) {
                    self.later(Delivery::ClosedByClient { wire });
                }
            }
        }
    }

    /// An application gets a packet: it answers questions and notes answers.
    fn handle_application(&mut self, index: usize, packet: &[u8]) {
        let node = &mut self.nodes[index];
        node.received += 1;
        let Some(echo) = Echo::from_packet(packet) else { return };
        if echo.answer {
            node.answers.insert(echo.number, self.now.instant);
        } else {
            self.send_packet(index, &echo.answered().to_packet());
        }
    }
}

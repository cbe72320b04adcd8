//! Relays of one network that are linked with each other, and devices at them, on a virtual clock: the shipped machines
//! without controller or sockets.

mod wires;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use control_proto::limits::CAPABILITY;
use frame_proto::{FrameType, HEADER_LENGTH, TAG_LENGTH, compose, payload, payload_mut};
use identity::{DeviceId, Padding, Shaping, UnixTime};
use noise_channel::{Now, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use relay_proto::{
    ClientEvent, ConnectionId, FlowId, Limits, RelayClient, RelayServer, ServerEvent,
};
use shaping::Plan;

use self::wires::{Delivery, End, Wire};
use crate::members::{Member, Network};

const START: u64 = 1_700_000_000;
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long a message takes between two relays, by their numbers.
pub type Delay = fn(usize, usize) -> Duration;

/// The whole of it.
#[derive(Debug)]
pub struct Relays {
    network: Network,
    rng: ChaCha20Rng,
    now: Now,
    begin: Instant,
    delay: Delay,
    hosts: Vec<Host>,
    devices: Vec<Device>,
    wires: BTreeMap<u64, Wire>,
    /// What is under way, by when it arrives.
    due: BTreeMap<(Instant, u64), Delivery>,
    timers: BTreeSet<(Instant, End)>,
    armed: BTreeMap<End, Instant>,
    /// Pairs of relays that cannot reach each other, and those between which everything is lost.
    cut: BTreeSet<(usize, usize)>,
    silent: BTreeSet<(usize, usize)>,
    last: u64,
    /// Messages between devices and relays, and their bytes.
    traffic: (u64, u64),
}

#[derive(Debug)]
struct Host {
    member: Member,
    server: RelayServer,
    is_running: bool,
    wires: BTreeMap<ConnectionId, u64>,
    sent_to_relays: u64,
}

#[derive(Debug)]
struct Device {
    member: Member,
    client: RelayClient,
    wire: u64,
    received: Vec<Received>,
    unreachable: Vec<DeviceId>,
}

/// What has come to a device.
#[derive(Debug)]
pub struct Received {
    /// When, since the beginning.
    pub at: Duration,
    /// From whom.
    pub from: DeviceId,
    /// What was sent.
    pub bytes: Vec<u8>,
}

impl Relays {
    /// So many relays that know of each other and have no devices.
    #[must_use]
    pub fn new(count: usize, delay: Delay) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let network = Network::new(UnixTime(START), &mut rng);
        let now = Now { instant: Instant::now(), wall: UnixMillis(START * 1_000) };
        let members = (0..count).map(|number| network.relay(number as u64, &mut rng));
        let hosts = members.map(Host::new).collect();
        let mut relays = Self {
            network,
            rng,
            now,
            begin: now.instant,
            delay,
            hosts,
            devices: Vec::new(),
            wires: BTreeMap::new(),
            due: BTreeMap::new(),
            timers: BTreeSet::new(),
            armed: BTreeMap::new(),
            cut: BTreeSet::new(),
            silent: BTreeSet::new(),
            last: 0,
            traffic: (0, 0),
        };
        (0..count).for_each(|number| relays.start(number));
        relays
    }

    /// A member that takes itself for a relay, and that nobody else does.
    pub fn impostor(&mut self) -> usize {
        let impostor = self.hosts.len();
        let member = self.network.member(impostor as u64, &mut self.rng);
        self.hosts.push(Host::new(member));
        self.start(impostor);
        impostor
    }

    /// A new device that attaches to a relay.
    pub fn device_at(&mut self, relay: usize) -> usize {
        let (device, serial) = (self.devices.len(), 1_000 + self.devices.len() as u64);
        let member = self.network.member(serial, &mut self.rng);
        let (client, wire) = self.link(device, &member, relay);
        let (received, unreachable) = (Vec::new(), Vec::new());
        self.devices.push(Device { member, client, wire, received, unreachable });
        self.drain(End::Device(device));
        device
    }

    /// Has a device attach to another relay.
    pub fn move_device(&mut self, device: usize, relay: usize) {
        let member = self.devices[device].member.clone();
        let (client, wire) = self.link(device, &member, relay);
        (self.devices[device].client, self.devices[device].wire) = (client, wire);
        self.drain(End::Device(device));
    }

    /// A device's end of a new link to a relay, which it dials. Of two attachments the later one counts.
    fn link(&mut self, device: usize, member: &Member, relay: usize) -> (RelayClient, u64) {
        let (wire, nonce) = self.wire(End::Device(device), None, relay);
        let number = self.now.wall.0;
        let config = member.config_for(&self.network, &self.hosts[relay].member, number, nonce);
        let client = RelayClient::new(config, &mut self.rng, self.now).expect("the key is usable");
        self.push(Duration::ZERO, Delivery::Open(wire));
        (client, wire)
    }

    /// The id of a device.
    #[must_use]
    pub fn id(&self, device: usize) -> DeviceId {
        self.devices[device].member.id()
    }

    /// Has a device send something to another.
    pub fn send(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let mut frame = BytesMut::zeroed(HEADER_LENGTH + bytes.len() + TAG_LENGTH);
        compose(FrameType::Data, self.id(to), &mut frame).expect("it fits");
        payload_mut(&mut frame).copy_from_slice(bytes);
        // A link that is not open loses it, as any wire does.
        let _ = self.devices[from].client.send(FlowId(0), frame, self.now.instant);
        self.drain(End::Device(from));
    }

    /// What has come to a device, by sender.
    pub fn take_received(&mut self, device: usize) -> Vec<(DeviceId, Vec<u8>)> {
        let received = self.take_arrivals(device).into_iter();
        received.map(|received| (received.from, received.bytes)).collect()
    }

    /// What has come to a device, with times.
    pub fn take_arrivals(&mut self, device: usize) -> Vec<Received> {
        std::mem::take(&mut self.devices[device].received)
    }

    /// Messages between devices and relays so far, and their bytes.
    #[must_use]
    pub const fn traffic(&self) -> (u64, u64) {
        self.traffic
    }

    /// Has all that are there fill messages up and shape them as a network may wish it.
    pub fn set_policy(&mut self, padding: Padding, shaping: &Shaping) {
        let (network, now) = (self.network.id(), self.now.instant);
        for host in &mut self.hosts {
            host.server.set_padding(network, padding);
            let set = host.server.set_shaping(network, shaping, &mut self.rng, now);
            set.expect("the machines can be run");
        }
        let plan = Plan::new(shaping).expect("the machines can be run");
        for Device { client, .. } in &mut self.devices {
            client.set_padding(padding);
            client.set_shaping(plan.clone(), &mut self.rng, now);
        }
    }

    /// Whom a device was told to be nowhere.
    pub fn take_unreachable(&mut self, device: usize) -> Vec<DeviceId> {
        std::mem::take(&mut self.devices[device].unreachable)
    }

    /// Whether something that is sent now arrives within `patience`.
    pub fn reaches(&mut self, from: usize, to: usize, patience: Duration) -> bool {
        self.devices[to].received.clear();
        self.send(from, to, b"reached");
        self.run_for(patience);
        let sender = self.id(from);
        self.take_received(to).contains(&(sender, b"reached".to_vec()))
    }

    /// Runs for a while.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        loop {
            let delivery = self.due.first_key_value().map(|((at, _), _)| *at);
            let timer = self.timers.first().map(|(at, _)| *at);
            let next = [delivery, timer].into_iter().flatten().min().filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now = self.now.after(at.saturating_duration_since(self.now.instant));
            if delivery == Some(at) {
                if let Some((_, delivery)) = self.due.pop_first() {
                    self.deliver(delivery);
                }
            } else if let Some((_, of)) = self.timers.pop_first() {
                self.armed.remove(&of);
                self.handle_timeout(of);
            }
        }
        self.now = self.now.after(end.saturating_duration_since(self.now.instant));
    }

    /// The time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now.instant - self.begin
    }

    /// Ends a relay's process: its connections close.
    pub fn kill(&mut self, relay: usize) {
        self.hosts[relay].is_running = false;
        self.close_wires(|wire| wire.server == relay || wire.client == End::Relay(relay));
        self.hosts[relay].wires.clear();
        self.arm(End::Relay(relay), None);
    }

    /// Starts a relay, which remembers nothing.
    pub fn start(&mut self, relay: usize) {
        let mut server = RelayServer::new(CAPABILITY, Limits::default());
        server.add_network(self.network.served_by(&self.hosts[relay].member));
        self.hosts[relay].server = server;
        self.hosts[relay].is_running = true;
        self.introduce(relay);
    }

    /// Tells a relay which relays there are.
    fn introduce(&mut self, relay: usize) {
        let all: Vec<_> = self.hosts.iter().map(|host| host.member.id()).collect();
        self.hosts[relay].server.set_relays(self.network.id(), all, self.now);
        self.drain(End::Relay(relay));
    }

    /// Cuts the connections between two relays; new ones are refused until [`Self::mend`].
    pub fn cut(&mut self, one: usize, other: usize) {
        self.cut.extend([(one, other), (other, one)]);
        self.close_wires(|wire| {
            let ends = (wire.client, wire.server);
            ends == (End::Relay(one), other) || ends == (End::Relay(other), one)
        });
    }

    /// Loses everything between two relays, which are not told.
    pub fn silence(&mut self, one: usize, other: usize) {
        self.silent.extend([(one, other), (other, one)]);
    }

    /// Has other relays go round one, or no longer.
    pub fn set_draining(&mut self, relay: usize, draining: bool) {
        self.hosts[relay].server.set_draining(self.network.id(), draining);
        self.drain(End::Relay(relay));
    }

    /// Lets two relays reach each other again.
    pub fn mend(&mut self, one: usize, other: usize) {
        for pair in [(one, other), (other, one)] {
            self.cut.remove(&pair);
            self.silent.remove(&pair);
        }
    }

    /// How many relays a relay reaches, and how many devices it knows there.
    pub fn reach(&mut self, relay: usize) -> (usize, usize) {
        self.hosts[relay].server.reach(self.network.id())
    }

    /// Bytes that relays have sent each other.
    #[must_use]
    pub fn sent_between_relays(&self) -> u64 {
        self.hosts.iter().map(|host| host.sent_to_relays).sum()
    }

    /// Bytes that a relay has sent others.
    #[must_use]
    pub fn sent_by(&self, relay: usize) -> u64 {
        self.hosts[relay].sent_to_relays
    }

    /// How many links between relays there are.
    #[must_use]
    pub fn links(&self) -> usize {
        self.wires.values().filter(|wire| matches!(wire.client, End::Relay(_))).count()
    }

    fn wire(
        &mut self,
        client: End,
        dialled: Option<ConnectionId>,
        server: usize,
    ) -> (u64, [u8; 16]) {
        self.last += 1;
        let mut nonce = [0; 16];
        self.rng.fill_bytes(&mut nonce);
        self.wires.insert(self.last, Wire { client, dialled, server, accepted: None, nonce });
        (self.last, nonce)
    }

    const fn count(&mut self, message: &[u8]) {
        let (messages, bytes) = self.traffic;
        self.traffic = (messages + 1, bytes + message.len() as u64);
    }

    fn push(&mut self, delay: Duration, delivery: Delivery) {
        self.last += 1;
        self.due.insert((self.now.instant + delay, self.last), delivery);
    }

    fn delay_of(&self, wire: &Wire) -> Duration {
        match wire.client {
            End::Relay(client) => (self.delay)(client, wire.server),
            End::Device(_) => Duration::from_millis(1),
        }
    }

    fn is_silent(&self, wire: &Wire) -> bool {
        matches!(wire.client, End::Relay(client) if self.silent.contains(&(client, wire.server)))
    }

    fn deliver(&mut self, delivery: Delivery) {
        let (Delivery::Open(wire)
        | Delivery::Opened(wire)
        | Delivery::ToServer(wire, _)
        | Delivery::ToClient(wire, _)
        | Delivery::ClosedToServer(wire)
        | Delivery::ClosedToClient(wire)) = delivery
        else {
            let Delivery::Failed(relay, connection) = delivery else { return };
            self.hosts[relay].server.handle_closed(connection, self.now.instant);
            return self.drain(End::Relay(relay));
        };
        let Some(of) = self.wires.get(&wire).copied() else { return };
        if self.is_silent(&of) {
            return;
        }
        match delivery {
            Delivery::Open(_) => self.open(wire, of),
            Delivery::Opened(_) => self.opened(of),
            Delivery::ToServer(_, message) => {
                if let Some(connection) = of.accepted {
                    let server = &mut self.hosts[of.server].server;
                    server.handle_message(connection, message, &mut self.rng, self.now);
                    self.drain(End::Relay(of.server));
                }
            }
            Delivery::ToClient(_, message) => {
                match (of.client, of.dialled) {
                    (End::Relay(relay), Some(connection)) => {
                        let server = &mut self.hosts[relay].server;
                        server.handle_message(connection, message, &mut self.rng, self.now);
                    }
                    (End::Device(device), _) => {
                        let client = &mut self.devices[device].client;
                        client.handle_message(message, &mut self.rng, self.now);
                    }
                    (End::Relay(_), None) => {}
                }
                self.drain(of.client);
            }
            Delivery::ClosedToServer(_) => {
                self.wires.remove(&wire);
                if let Some(connection) = of.accepted {
                    self.hosts[of.server].wires.remove(&connection);
                    self.hosts[of.server].server.handle_closed(connection, self.now.instant);
                    self.drain(End::Relay(of.server));
                }
            }
            Delivery::ClosedToClient(_) => {
                self.wires.remove(&wire);
                if let (End::Relay(relay), Some(connection)) = (of.client, of.dialled) {
                    self.hosts[relay].wires.remove(&connection);
                    self.hosts[relay].server.handle_closed(connection, self.now.instant);
                    self.drain(of.client);
                }
            }
            Delivery::Failed(..) => {}
        }
    }

    fn open(&mut self, wire: u64, of: Wire) {
        let path = self.network.path(of.nonce);
        let host = &mut self.hosts[of.server];
        let recognised = host.server.recognise(&path).filter(|_| host.is_running);
        let opened = recognised.and_then(|path| host.server.handle_open(path, HERE, self.now).ok());
        let delay = self.delay_of(&of);
        let Some(connection) = opened else {
            return self.push(delay, Delivery::ClosedToClient(wire));
        };
        self.hosts[of.server].wires.insert(connection, wire);
        if let Some(wire) = self.wires.get_mut(&wire) {
            wire.accepted = Some(connection);
        }
        self.push(delay, Delivery::Opened(wire));
        self.drain(End::Relay(of.server));
    }

    fn opened(&mut self, of: Wire) {
        if let (End::Relay(relay), Some(connection)) = (of.client, of.dialled) {
            let (own, other) = (&self.hosts[relay].member, &self.hosts[of.server].member);
            let number = self.now.wall.0;
            let config = own.config_for(&self.network, other, number, of.nonce);
            let server = &mut self.hosts[relay].server;
            server.handle_dialled(connection, config, &mut self.rng, self.now);
        }
        self.drain(of.client);
    }

    fn handle_timeout(&mut self, of: End) {
        match of {
            End::Relay(relay) if self.hosts[relay].is_running => {
                self.hosts[relay].server.handle_timeout(&mut self.rng, self.now);
            }
            End::Relay(_) => {}
            End::Device(device) => {
                self.devices[device].client.handle_timeout(&mut self.rng, self.now);
            }
        }
        self.drain(of);
    }

    fn drain(&mut self, of: End) {
        match of {
            End::Relay(relay) if self.hosts[relay].is_running => self.drain_relay(relay),
            End::Relay(_) => {}
            End::Device(device) => self.drain_device(device),
        }
    }

    fn drain_relay(&mut self, relay: usize) {
        while let Some(connection) = self.hosts[relay].server.poll_ready() {
            let Some(wire) = self.hosts[relay].wires.get(&connection).copied() else { continue };
            let Some(of) = self.wires.get(&wire).copied() else { continue };
            let (delay, now) = (self.delay_of(&of), self.now.instant);
            while let Some(message) = self.hosts[relay].server.poll_message(connection, now) {
                if matches!(of.client, End::Relay(_)) {
                    self.hosts[relay].sent_to_relays += message.len() as u64;
                }
                if matches!(of.client, End::Device(_)) {
                    self.count(&message);
                }
                let is_client = of.client == End::Relay(relay) && of.dialled == Some(connection);
                let delivery = if is_client {
                    Delivery::ToServer(wire, message)
                } else {
                    Delivery::ToClient(wire, message)
                };
                self.push(delay, delivery);
            }
        }
        while let Some(event) = self.hosts[relay].server.poll_event() {
            match event {
                ServerEvent::Dial { connection, relay: to, .. } => self.dial(relay, connection, to),
                ServerEvent::Close { connection, .. } => self.close(relay, connection),
                ServerEvent::Attached { .. }
                | ServerEvent::Detached { .. }
                | ServerEvent::Expelled { .. }
                | ServerEvent::Misdirected { .. }
                | ServerEvent::CircuitWanted { .. } => {}
            }
        }
        let next = self.hosts[relay].server.poll_timeout().map(|(at, _)| at);
        self.arm(End::Relay(relay), next);
    }

    fn dial(&mut self, relay: usize, connection: ConnectionId, to: DeviceId) {
        let to = self.hosts.iter().position(|host| host.member.id() == to).expect("it is known");
        let delay = (self.delay)(relay, to);
        if self.cut.contains(&(relay, to)) || !self.hosts[to].is_running {
            return self.push(2 * delay, Delivery::Failed(relay, connection));
        }
        let (wire, _) = self.wire(End::Relay(relay), Some(connection), to);
        self.hosts[relay].wires.insert(connection, wire);
        // TCP has its handshake first.
        self.push(3 * delay, Delivery::Open(wire));
    }

    fn close(&mut self, relay: usize, connection: ConnectionId) {
        let wire = self.hosts[relay].wires.remove(&connection);
        self.hosts[relay].server.handle_closed(connection, self.now.instant);
        if let Some(of) = wire.and_then(|wire| self.wires.get(&wire)).copied() {
            let (delay, wire) = (self.delay_of(&of), wire.unwrap_or_default());
            let is_client = of.client == End::Relay(relay) && of.dialled == Some(connection);
            let closed =
                if is_client { Delivery::ClosedToServer } else { Delivery::ClosedToClient };
            self.push(delay, closed(wire));
        }
    }

    fn drain_device(&mut self, device: usize) {
        let at = self.elapsed();
        let Device { client, wire, received, unreachable, .. } = &mut self.devices[device];
        let mut messages = Vec::new();
        while let Some(message) = client.poll_message(self.now.instant) {
            messages.push(message);
        }
        while let Some(event) = client.poll_event() {
            match event {
                ClientEvent::Frame(frame) => {
                    let header = frame_proto::parse(&frame).expect("relays hand out frames");
                    let bytes = payload(&frame).to_vec();
                    received.push(Received { at, from: header.peer, bytes });
                }
                ClientEvent::Unreachable(peer) => unreachable.push(peer),
                ClientEvent::Attached { .. }
                | ClientEvent::Carried(_)
                | ClientEvent::Mesh(_)
                | ClientEvent::Circuit(..)
                | ClientEvent::ClockSkew { .. }
                | ClientEvent::Rotated
                | ClientEvent::RotationAbandoned
                | ClientEvent::Refused(_)
                | ClientEvent::Failed(_) => {}
            }
        }
        let (wire, next) = (*wire, client.poll_timeout().map(|(at, _)| at));
        for message in messages {
            self.count(&message);
            self.push(Duration::from_millis(1), Delivery::ToServer(wire, message));
        }
        self.arm(End::Device(device), next);
    }

    fn close_wires(&mut self, is_concerned: impl Fn(&Wire) -> bool) {
        let concerned: Vec<_> = self
            .wires
            .iter()
            .filter(|(_, wire)| is_concerned(wire))
            .map(|(id, wire)| (*id, *wire))
            .collect();
        for (id, of) in concerned {
            self.wires.remove(&id);
            let ends = [(Some(of.server), of.accepted), (of.client.relay(), of.dialled)];
            for (relay, connection) in ends {
                if let (Some(relay), Some(connection)) = (relay, connection) {
                    self.hosts[relay].wires.remove(&connection);
                    if self.hosts[relay].is_running {
                        self.hosts[relay].server.handle_closed(connection, self.now.instant);
                        self.drain(End::Relay(relay));
                    }
                }
            }
        }
    }

    fn arm(&mut self, of: End, next: Option<Instant>) {
        if let Some(before) = self.armed.remove(&of) {
            self.timers.remove(&(before, of));
        }
        if let Some(next) = next {
            let next = next.max(self.now.instant);
            self.armed.insert(of, next);
            self.timers.insert((next, of));
        }
    }
}

impl Host {
    fn new(member: Member) -> Self {
        let server = RelayServer::new(CAPABILITY, Limits::default());
        Self { member, server, is_running: false, wires: BTreeMap::new(), sent_to_relays: 0 }
    }
}

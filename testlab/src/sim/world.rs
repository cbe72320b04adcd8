//! All hosts, the network between them, and the clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use control_proto::{
    AdminAnswer, AdminRequest, InviteRequest, MapItem, PeerEntry, StoredItem, Ticket,
};
use engine::{Now, UnixMillis};
use identity::{
    Binding, Certificate, CertificateChain, ChannelKey, DeviceId, DeviceKey, Invite, Record,
    RecordBody, Scope, Serial, Signed, TunnelKey, UnixTime, Validity,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::delivery::{Accepted, Client, Delivery, Server, Wire};
use super::hosts::{ControllerHost, NodeHost, RelayHost};
use super::packets::{Echo, ipv6};
use super::plain::PlainHost;
use super::timers::Timers;
use super::trace::Trace;
use super::turn::TurnHost;
use super::underlay::{Cut, HostId, INTERNET, SiteId, Underlay};
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
    /// How streams fare.
    pub streams: Quality,
    /// The largest packets of the nodes' interfaces.
    pub mtu: usize,
}

impl Default for Setup {
    fn default() -> Self {
        let (quality, streams) = (Quality::GOOD, Quality::STREAM);
        Self { seed: 1, relays: 2, nodes: 2, quality, streams, mtu: engine::DEFAULT_MTU.into() }
    }
}

/// A packet that reached an application of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// At which node.
    pub node: usize,
    /// What it says, if it is one of the simulated applications' own.
    pub echo: Option<Echo>,
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
    /// The TURN server, which does not run at first.
    pub turn: TurnHost,
    /// Which datagrams the network drops for what they look like.
    pub censor: fn(&[u8]) -> bool,
    /// Whether relays pass datagrams on over UDP.
    pub relays_pass_on: bool,
    /// How datagrams fare between any two hosts.
    pub quality: Quality,
    /// How streams fare.
    pub streams: Quality,
    mtu: usize,
    /// What lies between hosts.
    pub underlay: Underlay,
    /// The packets that reached applications of nodes.
    pub arrivals: Vec<Arrival>,
    /// Streams that were dialled.
    pub dials: u64,
    pub(super) cuts: BTreeMap<(HostId, HostId), Cut>,
    pub(super) held: Vec<(Instant, Delivery)>,
    pub(super) timers: Timers,
    pub(super) trace: Trace,
    pub(super) start: Instant,
    pub(super) now: Now,
    pub(super) rng: ChaCha20Rng,
    pub(super) agenda: Agenda<Delivery>,
    pub(super) wires: BTreeMap<u64, Wire>,
    pub(super) last_number: u64,
    pub(super) answers: BTreeMap<Ticket, AdminAnswer>,
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
            turn: TurnHost::default(),
            censor: |_| false,
            relays_pass_on: true,
            quality: setup.quality,
            streams: setup.streams,
            mtu: setup.mtu,
            underlay: Underlay::default(),
            arrivals: Vec::new(),
            dials: 0,
            cuts: BTreeMap::new(),
            held: Vec::new(),
            timers: Timers::default(),
            trace: Trace::default(),
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
        self.add_node_at(INTERNET)
    }

    /// A further node at a site, which joins at once.
    pub fn add_node_at(&mut self, site: SiteId) -> usize {
        let invite = self.invite(InviteRequest::default());
        self.add_node_with(invite, site)
    }

    /// A further node with an invite that another one may have, too.
    pub fn add_node_with(&mut self, invite: Invite, site: SiteId) -> usize {
        let index = self.nodes.len();
        let node = NodeHost::new((invite, self.mtu), index, &mut self.rng);
        self.nodes.push(node);
        self.place(index, site);
        self.start_node(index);
        index
    }

    fn place(&mut self, index: usize, site: SiteId) {
        let node = &mut self.nodes[index];
        node.site = site;
        node.has_ipv4 = self.underlay.has_ipv4(site);
        if site == INTERNET {
            (node.address, node.address6) = (NodeHost::public_address(index), None);
        } else {
            let (v4, v6) = self.underlay.add_host(site);
            node.address = SocketAddr::new(IpAddr::V4(v4), node.address.port());
            node.address6 = v6.map(|v6| SocketAddr::new(IpAddr::V6(v6), node.address.port()));
        }
    }

    /// Somebody else at a site makes a mapping in its translator, and in those above it.
    pub fn disturb(&mut self, site: SiteId) {
        self.underlay.disturb(site, self.now.instant);
    }

    /// Moves a node to another site; its shell is told by the system.
    pub fn move_node_to_site(&mut self, index: usize, site: SiteId) {
        self.place(index, site);
        self.tell_addresses(index);
    }

    fn tell_addresses(&mut self, index: usize) {
        let is_its = |wire: &Wire| {
            matches!(wire.client, Client::Node(node, _) if node == index)
                || wire.server == Server::Node(index)
        };
        self.wires.values_mut().filter(|wire| is_its(wire)).for_each(|wire| wire.dead = true);
        // What is being dialled is given up.
        let unanswered = self.wires.iter().filter(|(_, wire)| wire.dead && wire.accepted.is_none());
        let unanswered: Vec<_> = unanswered.map(|(number, _)| *number).collect();
        unanswered.into_iter().for_each(|wire| self.later(Delivery::ClosedByServer { wire }));
        let now = self.node_now(index);
        let node = &mut self.nodes[index];
        let (addresses, servers) = (node.addresses(), node.servers());
        let are_the_same = std::mem::replace(&mut node.told, addresses.clone()) == addresses;
        let winners = node.winners();
        if let Some(engine) = node.engine.as_mut().filter(|_| !node.asleep) {
            engine.handle_winners(winners, &mut self.rng, now);
            if are_the_same {
                // Another router gave out the same addresses.
                engine.handle_network_change(&mut self.rng, now);
            } else {
                engine.handle_local_addresses(&addresses, &mut self.rng, now);
                engine.handle_servers(&servers, &mut self.rng, now);
            }
            self.drain_node(index);
        }
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

    /// Puts members into the map that never run; the controller restarts with them.
    pub fn enrol_silent(&mut self, count: usize) {
        self.stop_controller();
        let now = UnixTime(self.now.wall.as_secs());
        let network = self.controller.config.keys.network();
        let validity = Validity::starting(now, 7 * 24 * 3600);
        for index in 0..count {
            let (device, tunnel, channel) = (
                DeviceKey::generate(&mut self.rng),
                TunnelKey::generate(&mut self.rng),
                ChannelKey::generate(&mut self.rng),
            );
            let certificate = Certificate {
                device: device.id(),
                name: format!("silent-{index}").parse().expect("a label"),
                groups: Vec::new(),
                address: identity::device_address(network, device.id(), 0),
                counter: 0,
                validity,
                serial: Serial(1_000_000 + index as u64),
            };
            let issuer = self.controller.config.keys.get(Scope::Issue);
            let (key, delegation) = issuer.expect("the simulated controller holds all keys");
            let chain = CertificateChain {
                delegation: delegation.clone(),
                grant: None,
                certificate: Signed::sign(network, key, &certificate),
                renewal: None,
            };
            let binding = Binding {
                device: device.id(),
                tunnel_key: tunnel.public(),
                channel_key: channel.public(),
                number: 1,
                not_after: validity.not_after,
                capability: 1,
            };
            let binding = Signed::sign(network, &device, &binding);
            let item = MapItem::Peer(device.id(), PeerEntry { chain, binding, endpoints: None });
            let disk = &mut self.controller.disk;
            disk.counters.map += 1;
            let stored = StoredItem { version: disk.counters.map, bytes: item.to_bytes().into() };
            disk.items.insert(item.key(), stored);
        }
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
        self.plain[from].send(echo.to_packet(0), &mut self.rng, self.now.instant);
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
        self.send_packet(from, &echo.to_packet(0));
        number
    }

    /// Ends the controller's process, as with `kill -9`.
    pub fn stop_controller(&mut self) {
        (self.controller.machine, self.controller.restart_at) = (None, None);
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
        self.nodes[index].stop();
        self.break_wires(|wire| {
            wire.server == Server::Node(index)
                || matches!(wire.client, Client::Node(node, _) if node == index)
        });
    }

    /// Lets a node take streams of its peers, now and whenever it runs.
    pub fn listen(&mut self, index: usize) {
        self.nodes[index].listens = true;
        let (now, servers) = (self.node_now(index), self.nodes[index].servers());
        if let Some(engine) = &mut self.nodes[index].engine {
            engine.handle_servers(&servers, &mut self.rng, now);
            self.drain_node(index);
        }
    }

    /// Ends a node's streams to others as if its listener were killed, and takes no more.
    pub fn kill_listener(&mut self, index: usize) {
        self.nodes[index].listens = false;
        for (number, wire) in &self.wires {
            if wire.server == Server::Node(index) {
                let (at, wire) = (self.now.instant, *number);
                self.agenda.insert(at, Delivery::ClosedByServer { wire });
            }
        }
        let ends = self.wires.values().filter_map(|wire| match (wire.server, wire.accepted) {
            (Server::Node(node), Some(Accepted::Node(stream))) if node == index => Some(stream),
            _ => None,
        });
        let ended: Vec<_> = ends.collect();
        let now = self.node_now(index);
        for stream in ended {
            if let Some(engine) = &mut self.nodes[index].engine {
                engine.handle_stream_closed(stream, &mut self.rng, now);
                self.drain_node(index);
            }
        }
    }

    /// Starts a node from what it saved.
    pub fn start_node(&mut self, index: usize) {
        let now = self.node_now(index);
        self.nodes[index].start(&mut self.rng, now);
        self.drain_node(index);
    }

    /// Starts a relay that was stopped; it knows what it knew.
    pub fn start_relay(&mut self, index: usize) {
        self.relays[index].restart(&mut self.rng, self.now);
        self.drain_relay(index);
    }

    /// Lets a node sleep: nothing of it runs, its monotonic clock stands, datagrams to it are lost and
    /// streams wait.
    pub fn put_to_sleep(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.asleep {
            (node.asleep, node.clock.slept_at) = (true, Some(self.now.instant));
            self.note_timer(HostId::Node(index));
        }
    }

    /// Wakes a node up. Its shell is not told; it sees the wall clock jump.
    pub fn wake_up(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if let Some(slept_at) = node.clock.slept_at.take() {
            node.asleep = false;
            node.clock.asleep_for += self.now.instant - slept_at;
            self.note_timer(HostId::Node(index));
            self.release();
        }
    }

    /// Sets a node's wall clock, relative to the right time.
    pub fn set_clock(&mut self, index: usize, ahead_ms: i64) {
        self.nodes[index].clock.ahead_ms = ahead_ms;
    }

    /// Cuts two hosts off from each other: datagrams are lost, streams wait, nothing is dialled.
    pub fn cut(&mut self, one: HostId, other: HostId) {
        self.cuts.insert((one.min(other), one.max(other)), Cut::Everything);
    }

    /// Lets what two hosts send each other over streams wait, as when a program takes nothing: their systems go on to
    /// acknowledge it.
    pub fn stall(&mut self, one: HostId, other: HostId) {
        self.cuts.insert((one.min(other), one.max(other)), Cut::Programs);
    }

    /// Cuts a host off from everybody.
    pub fn cut_off(&mut self, host: HostId) {
        let others: Vec<_> = self.hosts().filter(|other| *other != host).collect();
        others.into_iter().for_each(|other| self.cut(host, other));
    }

    /// Ends all cuts and stalls.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.release();
    }

    /// Whether two hosts are cut off from each other.
    pub fn is_cut(&self, one: HostId, other: HostId) -> bool {
        self.cuts.get(&(one.min(other), one.max(other))) == Some(&Cut::Everything)
    }

    pub(super) fn is_stalled(&self, one: HostId, other: HostId) -> bool {
        self.cuts.get(&(one.min(other), one.max(other))) == Some(&Cut::Programs)
    }

    /// The last messages as a Mermaid sequence diagram.
    pub fn diagram(&self) -> String {
        self.trace.diagram()
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
        self.tell_addresses(index);
    }

    /// Lets an application of one node ask an application of another; answers the question's
    /// number, or nothing while one of them has no address.
    pub fn ping(&mut self, from: usize, to: usize) -> Option<u64> {
        self.ping_sized(from, to, 0)
    }

    /// The same with a packet of at least `len` bytes, which the answer has too.
    pub fn ping_sized(&mut self, from: usize, to: usize, len: usize) -> Option<u64> {
        let address = |node: &NodeHost| ipv6(&node.interface.as_ref()?.addresses);
        let source = address(&self.nodes[from])?;
        let destination = address(&self.nodes[to])?;
        let number = self.next_number();
        let echo = Echo { source, destination, answer: false, number };
        self.send_packet(from, &echo.to_packet(len));
        Some(number)
    }

    /// Whether a question was answered.
    pub fn is_answered(&self, node: usize, number: Option<u64>) -> bool {
        number.is_some_and(|number| self.nodes[node].answers.contains_key(&number))
    }

    /// When a question was answered, in the world's time.
    pub fn answered_at(&self, node: usize, number: Option<u64>) -> Option<Duration> {
        let answered = self.nodes[node].answers.get(&number?)?;
        Some(answered.saturating_duration_since(self.start))
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

    /// The largest packets that a node's path to another is known to carry; none if it carries any.
    pub fn packet_size(&self, from: usize, to: usize) -> Option<usize> {
        self.why(from, to)?.mtu
    }

    /// The path from one node to another, as `status` shows it.
    pub fn path(&self, from: usize, to: usize) -> String {
        self.why(from, to).map_or_else(|| "none".to_owned(), |why| why.path)
    }

    /// What one node knows of the paths to another, if it runs and knows the other.
    pub fn why(&self, from: usize, to: usize) -> Option<engine::WhyStatus> {
        self.nodes[from].engine.as_ref()?.why(self.nodes[to].device, self.now)
    }
}

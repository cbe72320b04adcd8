//! One controller, its disk, and any number of nodes on a virtual clock.

#![allow(unreachable_pub, reason = "a module shared by tests is no public API")]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use control_proto::{
    AdminAnswer, AdminError, AdminRequest, Admission, AuditAction, AuthorityKeys, Change,
    ClientConfig, ClientEvent, ClientStatus, ClockOffset, ConnectionId, ControlClient, Controller,
    ControllerAddress, ControllerConfig, DeviceView, EventRecord, InviteRequest, NetworkMap, Now,
    Output, Settings, Stored, StreamAction, Ticket, UnixMillis,
};
use identity::{
    Binding, Candidate, CandidateKind, CertificateChain, ChannelKey, DelegatedKey, Delegation,
    DeviceId, DeviceKey, Endpoints, Invite, IssueLimits, NetworkKey, Scope, ServerAddress, Signed,
    TlsMode, TunnelKey, UnixTime, Validity,
};
use noise_channel::PathSecret;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

pub const PORT: u16 = 7443;
pub const YEAR: u64 = 365 * 24 * 3600;

pub struct World {
    pub rng: ChaCha20Rng,
    pub now: Now,
    pub network_key: NetworkKey,
    pub config: ControllerConfig,
    pub controller: Option<Controller>,
    pub disk: Stored,
    pub events: Vec<EventRecord>,
    pub audited: Vec<AuditAction>,
    pub pruned: Vec<(u64, UnixTime)>,
    pub nodes: Vec<Node>,
    /// Whether what the controller sends waits on the way.
    pub is_held: bool,
    held: VecDeque<Output>,
    /// Whether batches reach the disk and are confirmed.
    pub disk_works: bool,
    /// The port at which the controller is reached.
    pub port: u16,
    answers: BTreeMap<Ticket, Result<AdminAnswer, AdminError>>,
    wires: BTreeMap<ConnectionId, (usize, ConnectionId)>,
    next: u64,
}

pub struct Node {
    pub client: ControlClient,
    pub key: DeviceKey,
    pub channel_key: ChannelKey,
    pub events: Vec<ClientEvent>,
    pub chain: Option<CertificateChain>,
    /// How wrong the node's clock is, in milliseconds.
    pub clock_error: i64,
    wires: Vec<Wire>,
}

/// A connection by its names at both ends.
#[derive(Clone, Copy)]
struct Wire {
    ours: ConnectionId,
    theirs: ConnectionId,
    since: Instant,
}

impl World {
    pub fn new(scopes: &[Scope]) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let now = Now { instant: Instant::now(), wall: UnixMillis(1_800_000_000_000) };
        let network_key = NetworkKey::generate(&mut rng);
        let config = config(&network_key, scopes, now, &mut rng);
        let settings = Settings::new(network_key.id(), "home".parse().unwrap());
        let disk = Stored::new(settings);
        let mut world = Self {
            rng,
            now,
            network_key,
            config,
            controller: None,
            disk,
            events: Vec::new(),
            audited: Vec::new(),
            pruned: Vec::new(),
            nodes: Vec::new(),
            is_held: false,
            held: VecDeque::new(),
            disk_works: true,
            port: PORT,
            answers: BTreeMap::new(),
            wires: BTreeMap::new(),
            next: 1,
        };
        world.start();
        world
    }

    pub fn simple() -> Self {
        Self::new(&Scope::ALL)
    }

    pub fn start(&mut self) {
        self.controller = Some(Controller::new(self.config.clone(), self.disk.clone(), self.now));
        self.settle();
    }

    /// The controller process dies; its connections break.
    pub fn crash(&mut self) {
        self.controller = None;
        for index in 0..self.nodes.len() {
            self.cut(index);
        }
        self.settle();
    }

    pub fn cut(&mut self, index: usize) {
        self.cut_older(index, Duration::ZERO);
    }

    /// Ends the connections of a node that have reached this age, as somebody in between does.
    pub fn cut_older(&mut self, index: usize, age: Duration) {
        let end = self.now.instant;
        let is_old = |wire: &mut Wire| end >= wire.since + age;
        let wires: Vec<_> = self.nodes[index].wires.extract_if(.., is_old).collect();
        for Wire { ours, theirs, .. } in wires {
            self.wires.remove(&theirs);
            let now = self.node_now(index);
            self.nodes[index].client.handle_closed(ours, &mut self.rng, now);
            if let Some(controller) = &mut self.controller {
                controller.handle_closed(theirs, self.now);
            }
        }
    }

    /// How many connections a node has.
    pub fn connections(&self, index: usize) -> usize {
        self.nodes[index].wires.len()
    }

    pub fn admin(&mut self, request: AdminRequest) -> Result<AdminAnswer, AdminError> {
        self.next += 1;
        let ticket = Ticket(self.next);
        let controller = self.controller.as_mut().expect("the controller runs");
        controller.handle_admin(ticket, request, &mut self.rng, self.now);
        self.settle();
        self.answers.remove(&ticket).expect("every request is answered")
    }

    pub fn invite(&mut self, request: InviteRequest) -> Invite {
        match self.admin(AdminRequest::CreateInvite(request)).unwrap() {
            AdminAnswer::InvitesCreated { invites } => invites[0].invite.parse().unwrap(),
            other => panic!("not the answer to an invite: {other:?}"),
        }
    }

    pub fn join(&mut self, invite: &Invite, name: &str) -> usize {
        let key = DeviceKey::generate(&mut self.rng);
        self.join_as(invite, name, key)
    }

    pub fn join_as(&mut self, invite: &Invite, name: &str, key: DeviceKey) -> usize {
        let admission =
            Admission::Invite { invite: Box::new(invite.clone()), name: name.parse().unwrap() };
        let map = NetworkMap::new(invite.network);
        let channel_key = ChannelKey::generate(&mut self.rng);
        let index = self.add(key, channel_key, ControllerAddress::from(invite), admission, map);
        self.settle();
        index
    }

    pub fn add(
        &mut self,
        key: DeviceKey,
        channel_key: ChannelKey,
        controller: ControllerAddress,
        admission: Admission,
        map: NetworkMap,
    ) -> usize {
        // A device that comes again has newer keys.
        let number = self.nodes.len() as u64 + 1;
        let config = ClientConfig {
            controller,
            binding: self.binding(&key, &channel_key, number),
            device_key: key.clone(),
            channel_key: channel_key.clone(),
            admission,
            clock_offset: ClockOffset(0),
        };
        let client = ControlClient::new(config, map, self.now);
        let events = Vec::new();
        self.nodes.push(Node {
            client,
            key,
            channel_key,
            events,
            chain: None,
            clock_error: 0,
            wires: Vec::new(),
        });
        self.nodes.len() - 1
    }

    pub fn binding(
        &mut self,
        key: &DeviceKey,
        channel: &ChannelKey,
        number: u64,
    ) -> Signed<Binding> {
        let binding = Binding {
            device: key.id(),
            tunnel_key: TunnelKey::generate(&mut self.rng).public(),
            channel_key: channel.public(),
            number,
            not_after: self.wall().plus(YEAR),
            capability: 1,
        };
        Signed::sign(self.network_key.id(), key, &binding)
    }

    pub fn wall(&self) -> UnixTime {
        UnixTime(self.now.wall.as_secs())
    }

    /// The network's time as a node knows it.
    pub fn node_wall(&self, index: usize) -> UnixTime {
        self.nodes[index].client.wall(self.node_now(index))
    }

    pub fn id(&self, index: usize) -> DeviceId {
        self.nodes[index].key.id()
    }

    pub fn status(&self, index: usize) -> ClientStatus {
        self.nodes[index].client.status()
    }

    pub fn map(&self, index: usize) -> &NetworkMap {
        self.nodes[index].client.map()
    }

    /// Lets time pass, timer by timer.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        loop {
            self.settle();
            let due = self.next_timer().filter(|at| *at <= end.instant);
            let Some(at) = due else { break };
            let step = at.saturating_duration_since(self.now.instant);
            self.now = self.now.after(step.max(Duration::from_millis(1)));
            self.fire();
        }
        self.now = end;
        self.fire();
        self.settle();
    }

    fn fire(&mut self) {
        for index in 0..self.nodes.len() {
            let now = self.node_now(index);
            self.nodes[index].client.handle_timeout(&mut self.rng, now);
        }
        if let Some(controller) = &mut self.controller {
            controller.handle_timeout(&mut self.rng, self.now);
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let nodes = self.nodes.iter().filter_map(|node| node.client.poll_timeout());
        let controller = self.controller.as_ref().and_then(Controller::poll_timeout);
        nodes.chain(controller).map(|(at, _)| at).min()
    }

    /// Carries messages until nobody has anything to say at this moment.
    pub fn settle(&mut self) {
        loop {
            let mut quiet = !self.settle_controller();
            for index in 0..self.nodes.len() {
                let now = self.node_now(index);
                let due = self.nodes[index].client.poll_timeout();
                if due.is_some_and(|(at, _)| at <= now.instant) {
                    self.nodes[index].client.handle_timeout(&mut self.rng, now);
                }
                quiet &= !self.settle_node(index);
            }
            if quiet {
                return;
            }
        }
    }

    fn settle_node(&mut self, index: usize) -> bool {
        let mut busy = false;
        while let Some(action) = self.nodes[index].client.poll_action() {
            busy = true;
            match action {
                StreamAction::Dial { connection, path, server } => {
                    let is_there = server.port == self.port;
                    self.dial(index, connection, if is_there { &path } else { "/nobody" });
                }
                StreamAction::Send { message, connection } => {
                    let wire = self.nodes[index].wires.iter().find(|wire| wire.ours == connection);
                    if let (Some(wire), Some(controller)) = (wire, &mut self.controller) {
                        controller.handle_message(wire.theirs, &message, &mut self.rng, self.now);
                    }
                }
                StreamAction::Close { connection } => {
                    let is_it = |wire: &mut Wire| wire.ours == connection;
                    if let Some(wire) = self.nodes[index].wires.extract_if(.., is_it).next() {
                        self.wires.remove(&wire.theirs);
                        if let Some(controller) = &mut self.controller {
                            controller.handle_closed(wire.theirs, self.now);
                        }
                    }
                }
            }
        }
        while let Some(event) = self.nodes[index].client.poll_event() {
            busy = true;
            if let ClientEvent::Membership(chain) = &event {
                self.nodes[index].chain = Some(chain.as_ref().clone());
            }
            self.nodes[index].events.push(event);
        }
        busy
    }

    fn dial(&mut self, index: usize, connection: ConnectionId, path: &str) {
        let now = self.node_now(index);
        let node = &mut self.nodes[index];
        let mask = self.controller.as_ref().and_then(|controller| controller.recognise(path));
        let (Some(mask), Some(controller)) = (mask, &mut self.controller) else {
            node.client.handle_closed(connection, &mut self.rng, now);
            return;
        };
        self.next += 1;
        let theirs = ConnectionId(self.next);
        node.wires.push(Wire { ours: connection, theirs, since: self.now.instant });
        self.wires.insert(theirs, (index, connection));
        controller.handle_opened(theirs, mask, self.now);
        node.client.handle_opened(connection, &mut self.rng, now);
    }

    fn settle_controller(&mut self) -> bool {
        let mut outputs = VecDeque::new();
        if !self.is_held {
            outputs.append(&mut self.held);
        }
        let Some(controller) = &mut self.controller else { return false };
        while let Some(output) = controller.poll_output() {
            outputs.push_back(output);
        }
        let busy = !outputs.is_empty();
        for output in outputs {
            self.obey(output);
        }
        busy
    }

    /// Does what the controller wants done.
    pub fn obey(&mut self, output: Output) {
        match output {
            Output::Send { .. } if self.is_held => self.held.push_back(output),
            Output::Send { connection, message } => {
                if let Some((index, ours)) = self.wires.get(&connection).copied() {
                    let now = self.node_now(index);
                    let client = &mut self.nodes[index].client;
                    client.handle_message(ours, &message, &mut self.rng, now);
                }
            }
            Output::Close { connection } => {
                if let Some((index, ours)) = self.wires.remove(&connection) {
                    let now = self.node_now(index);
                    self.nodes[index].wires.retain(|wire| wire.ours != ours);
                    self.nodes[index].client.handle_closed(ours, &mut self.rng, now);
                }
            }
            Output::Persist { id, changes } => {
                if !self.disk_works {
                    return;
                }
                changes.iter().for_each(|change| self.keep(change));
                if let Some(controller) = &mut self.controller {
                    controller.handle_persisted(id, self.now);
                }
            }
            Output::Answer { ticket, result } => {
                self.answers.insert(ticket, result);
            }
        }
    }

    fn keep(&mut self, change: &Change) {
        self.disk.apply(change);
        match change {
            Change::Event(event) => self.events.push(event.clone()),
            Change::Audit(entry) => self.audited.push(entry.action.clone()),
            Change::PruneLogs { entries, before } => self.pruned.push((*entries, *before)),
            _ => {}
        }
    }

    fn node_now(&self, index: usize) -> Now {
        let error = ClockOffset(self.nodes[index].clock_error);
        Now { instant: self.now.instant, wall: self.now.wall.with_offset(error) }
    }
}

fn config(
    network_key: &NetworkKey,
    scopes: &[Scope],
    now: Now,
    rng: &mut ChaCha20Rng,
) -> ControllerConfig {
    let network = network_key.id();
    let mut keys = AuthorityKeys::new(network);
    for scope in scopes {
        let key = DelegatedKey::generate(rng);
        let delegation = Delegation {
            network,
            key: key.id(),
            scope: *scope,
            validity: Validity::starting(UnixTime(now.wall.as_secs()), 10 * YEAR),
            limits: IssueLimits::default(),
        };
        let delegation = Signed::sign(network, network_key, &delegation);
        keys.add(*scope, key, delegation).unwrap();
    }
    ControllerConfig {
        keys,
        channel_key: ChannelKey::generate(rng),
        path_secret: PathSecret::from_bytes([9; 32]),
        servers: vec![ServerAddress {
            host: "127.0.0.1".into(),
            port: PORT,
            addresses: Vec::new(),
            tls: TlsMode::Plain,
        }],
        epoch: None,
    }
}

/// A world with so many nodes, all of which have joined.
pub fn joined(count: usize) -> World {
    let mut world = World::simple();
    for index in 0..count {
        let invite = world.invite(InviteRequest::default());
        world.join(&invite, &format!("node{index}"));
    }
    world
}

/// The devices as an administrator sees them.
pub fn devices(world: &mut World) -> Vec<DeviceView> {
    match world.admin(AdminRequest::Devices).unwrap() {
        AdminAnswer::Devices { devices } => devices,
        other => panic!("not a list of devices: {other:?}"),
    }
}

/// Endpoints that a node signs.
pub fn endpoints(world: &World, index: usize, number: u64, port: u16) -> Signed<Endpoints> {
    let address = ([192, 0, 2, 1], port).into();
    let candidates = vec![Candidate { address, kind: CandidateKind::Local }];
    let endpoints =
        Endpoints { number, candidates, relays: Vec::new(), servers: Vec::new(), relayed: None };
    Signed::sign(world.network_key.id(), &world.nodes[index].key, &endpoints)
}

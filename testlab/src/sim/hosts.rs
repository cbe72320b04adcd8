//! Hosts: the machines with what a shell would do for them.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use control_proto::{
    Admission, AuthorityKeys, ClientConfig, ControlClient, Controller, ControllerConfig,
    EventRecord, NetworkMap, SecurityEvent, Settings, Stored, limits::CAPABILITY,
};
use engine::{
    DeviceSecrets, Engine, EngineConfig, InterfaceSettings, Now, Rung, SavedState, SocketId,
    StatePart,
};
use identity::{
    Binding, CertificateChain, ChannelKey, DelegatedKey, Delegation, DeviceId, DeviceKey,
    GroupName, Invite, IssueLimits, NetworkKey, Padding, RelayEntry, Scope, ServerAddress, Signed,
    TlsMode, TunnelKey, TunnelPublicKey, UnixTime, Validity,
};
use noise_channel::{ClockOffset, PathSecret, StaticSecret};
use rand_chacha::ChaCha20Rng;
use relay_proto::{Circuits, Limits, Place, RelayNetwork, RelayServer};

use super::underlay::{INTERNET, SiteId};
use super::wire::Quality;

/// Sockets beside the one that stays get ports from here on ...
const FIRST_FRESH_PORT: u16 = 50_000;
/// ... and the latest so many are open.
const FRESH_SOCKETS: usize = 8;

/// Where nodes take streams of their peers.
const OWN_PORT: u16 = 8_443;

const YEAR: u64 = 365 * 24 * 3600;

/// The controller and its disk. The process can be absent; the disk stays.
#[derive(Debug)]
pub struct ControllerHost {
    pub(crate) config: ControllerConfig,
    /// What is on the disk.
    pub disk: Stored,
    /// The process, if it runs.
    pub machine: Option<Controller>,
    /// The security events on the disk.
    pub events: Vec<EventRecord>,
    /// Whether the disk takes nothing more: the process ends at the first change.
    pub disk_full: bool,
    /// When the supervisor starts the process that ended by itself.
    pub(crate) restart_at: Option<Instant>,
}

impl ControllerHost {
    pub(crate) fn new(rng: &mut ChaCha20Rng, now: Now) -> Self {
        let network_key = NetworkKey::generate(rng);
        let network = network_key.id();
        let mut keys = AuthorityKeys::new(network);
        for scope in Scope::ALL {
            let key = DelegatedKey::generate(rng);
            let delegation = Delegation {
                network,
                key: key.id(),
                scope,
                validity: Validity::starting(UnixTime(now.wall.as_secs()), 10 * YEAR),
                limits: IssueLimits::default(),
            };
            let delegation = Signed::sign(network, &network_key, &delegation);
            keys.add(scope, key, delegation).expect("the delegation was made for the key");
        }
        let config = ControllerConfig {
            keys,
            channel_key: ChannelKey::generate(rng),
            path_secret: PathSecret::from_bytes([9; 32]),
            servers: vec![server("controller")],
            epoch: None,
        };
        let name = "home".parse().expect("a label");
        let disk = Stored::new(Settings::new(network, name));
        Self { config, disk, machine: None, events: Vec::new(), disk_full: false, restart_at: None }
    }

    pub(crate) fn start(&mut self, now: Now) {
        self.restart_at = None;
        self.machine = Some(Controller::new(self.config.clone(), self.disk.clone(), now));
    }
}

/// A relay: a member that serves others.
#[derive(Debug)]
pub struct RelayHost {
    /// Its DeviceId.
    pub device: DeviceId,
    /// Its channel to the controller.
    pub client: ControlClient,
    /// What serves its clients.
    pub server: RelayServer,
    /// What it passes on over UDP.
    pub circuits: Circuits,
    /// Where it answers STUN: at two ports of each of its addresses.
    pub stun: [SocketAddr; 4],
    /// Frames' bytes that it sent to its clients, as they were on the wire.
    pub sent_bytes: u64,
    /// Bytes of datagrams that it passed on.
    pub passed_bytes: u64,
    /// How much longer than to others it takes to get there, one way.
    pub distance: Duration,
    pub(crate) running: bool,
    config: ClientConfig,
    entry: RelayEntry,
    network: RelayNetwork,
    /// What is on the disk, if that is full: else it is what the process knows.
    full_disk: Option<RelayDisk>,
}

/// What a relay keeps.
#[derive(Clone, Debug)]
struct RelayDisk {
    chain: Option<CertificateChain>,
    map: Vec<u8>,
}

impl RelayHost {
    pub(crate) fn new(invite: &Invite, index: usize, rng: &mut ChaCha20Rng, now: Now) -> Self {
        let device_key = DeviceKey::generate(rng);
        let channel_key = ChannelKey::generate(rng);
        let device = device_key.id();
        let binding = Binding {
            device,
            tunnel_key: TunnelKey::generate(rng).public(),
            channel_key: channel_key.public(),
            number: 1,
            not_after: UnixTime(now.wall.as_secs()).plus(YEAR),
            capability: CAPABILITY.into(),
        };
        let name = format!("relay-{index}");
        let number = u8::try_from(index + 1).unwrap_or(u8::MAX);
        let ipv4 = IpAddr::from([203, 0, 113, number]);
        let ipv6 = IpAddr::from([0x2001, 0xdb8, 0xfeed, 0, 0, 0, 0, u16::from(number)]);
        let stun = [(ipv4, 3478), (ipv4, 3479), (ipv6, 3478), (ipv6, 3479)].map(SocketAddr::from);
        let entry = RelayEntry {
            device,
            channel_key: channel_key.public(),
            servers: vec![server(&name)],
            stun: stun.to_vec(),
            region: "sim".to_owned(),
            groups: Vec::new(),
        };
        let config = ClientConfig {
            controller: invite.into(),
            binding: Signed::sign(invite.network, &device_key, &binding),
            device_key,
            channel_key: channel_key.clone(),
            admission: Admission::Invite {
                invite: Box::new(invite.clone()),
                name: name.parse().expect("a label"),
            },
            clock_offset: ClockOffset::default(),
        };
        let map = NetworkMap::new(invite.network);
        let revocations = map.revocations().clone();
        let mut client = ControlClient::new(config.clone(), map, now);
        client.offer_relay(entry.clone(), now.instant);
        let mut server = RelayServer::new(CAPABILITY, Limits::default());
        let network = RelayNetwork {
            network: invite.network,
            relay: device,
            static_key: StaticSecret::from_bytes(*channel_key.to_bytes()),
            path_secret: PathSecret::from_bytes(*invite.path_secret.0),
            revocations,
            clock_offset: ClockOffset::default(),
            padding: Padding::Off,
            groups: Vec::new(),
        };
        server.add_network(network.clone());
        Self {
            device,
            client,
            server,
            circuits: circuits(rng, now),
            stun,
            sent_bytes: 0,
            passed_bytes: 0,
            distance: Duration::ZERO,
            running: true,
            config,
            entry,
            network,
            full_disk: None,
        }
    }

    /// Stands elsewhere, or serves others, from now on.
    pub fn offer(&mut self, region: &str, groups: &[GroupName], now: Now) {
        region.clone_into(&mut self.entry.region);
        self.entry.groups = groups.to_vec();
        self.network.groups = groups.to_vec();
        self.server.add_network(self.network.clone());
        self.client.offer_relay(self.entry.clone(), now.instant);
    }

    /// Its other port beside one where it answers STUN.
    pub(crate) fn other_port(&self, asked: SocketAddr) -> SocketAddr {
        let is_other = |stun: &SocketAddr| stun.ip() == asked.ip() && *stun != asked;
        self.stun.into_iter().find(is_other).expect("it answers at two ports of each address")
    }

    /// Lets the disk take nothing more, or again: then what the process knows is written down.
    pub(crate) fn fill_disk(&mut self, full: bool) {
        self.full_disk = full.then(|| self.disk());
    }

    fn disk(&self) -> RelayDisk {
        let written =
            || RelayDisk { chain: self.client.chain().cloned(), map: self.client.map().to_bytes() };
        self.full_disk.clone().unwrap_or_else(written)
    }

    /// Starts the process again with what it keeps on its disk: membership and map.
    pub(crate) fn restart(&mut self, rng: &mut ChaCha20Rng, now: Now) {
        let disk = self.disk();
        if let Some(chain) = disk.chain {
            self.config.admission = Admission::Chain(Box::new(chain));
        }
        let (network, wall) = (self.network.network, UnixTime(now.wall.as_secs()));
        let saved = NetworkMap::from_bytes(network, &disk.map, wall);
        let map = saved.map_or_else(|_| NetworkMap::new(network), |(map, _)| map);
        self.network.revocations = map.revocations().clone();
        self.client = ControlClient::new(self.config.clone(), map, now);
        self.client.offer_relay(self.entry.clone(), now.instant);
        self.server = RelayServer::new(CAPABILITY, Limits::default());
        self.circuits = circuits(rng, now);
        self.server.add_network(self.network.clone());
        self.running = true;
    }

    /// Where a datagram comes from that reached one of its addresses.
    pub(crate) fn place(&self, to: SocketAddr, remote: SocketAddr) -> Option<Place> {
        let socket = self.stun.iter().position(|own| *own == to)?;
        Some(Place { socket, local: None, remote })
    }
}

fn circuits(rng: &mut ChaCha20Rng, now: Now) -> Circuits {
    let Limits { circuits, bytes, .. } = Limits::default();
    Circuits::new((circuits, bytes), rng, now.instant)
}

/// A node's clocks beside the right ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// By how much the wall clock is fast, in milliseconds.
    pub ahead_ms: i64,
    /// For how long the monotonic clock stood.
    pub(crate) asleep_for: Duration,
    pub(crate) slept_at: Option<Instant>,
}

/// A node and its applications.
#[derive(Debug)]
pub struct NodeHost {
    /// Its DeviceId.
    pub device: DeviceId,
    /// The process, if it runs.
    pub engine: Option<Engine>,
    /// Where it is in the network underneath.
    pub site: SiteId,
    /// Its IPv4 address there, which counts only if it has one.
    pub address: SocketAddr,
    pub(crate) has_ipv4: bool,
    /// Its IPv6 address there, if it has one.
    pub address6: Option<SocketAddr>,
    /// The port that was given last.
    last_port: u16,
    /// Ports of sockets that it opened for one question, the latest last.
    fresh_ports: VecDeque<u16>,
    /// Sockets beside its own: their addresses, and where they lead.
    pub(crate) sockets: BTreeMap<SocketId, (SocketAddr, SocketAddr)>,
    /// How datagrams that it sends fare, if not like everybody's.
    pub uplink: Option<Quality>,
    /// Its clocks.
    pub clock: Clock,
    /// Bytes that it sent and received over streams.
    pub stream_bytes: u64,
    /// The addresses that its process was told last.
    pub(crate) told: Vec<SocketAddr>,
    pub(crate) asleep: bool,
    /// Whether datagrams from and to it are dropped on the way.
    pub udp_blocked: bool,
    /// Whether it takes streams of its peers.
    pub(crate) listens: bool,
    /// How its interface is set up.
    pub interface: Option<InterfaceSettings>,
    /// Answers to its applications' questions, with their times.
    pub answers: BTreeMap<u64, Instant>,
    /// Packets that reached its applications.
    pub received: u64,
    /// How large packets may be that were too big, as its applications were told.
    pub too_big: Vec<u32>,
    /// What its engine has found that somebody should know of, and when in the world's time.
    pub alarms: Vec<(Duration, SecurityEvent)>,
    config: EngineConfig,
    saved: SavedState,
    disk: NodeDisk,
    /// By what it reached others from each site.
    winners: BTreeMap<(SiteId, DeviceId), Rung>,
}

/// Whether a node's disk takes what is to be saved.
#[derive(Debug)]
enum NodeDisk {
    Takes,
    /// It does not; the process tries again with the last that it had to save.
    Full(SavedState),
}

impl NodeHost {
    pub(crate) fn new((invite, mtu): (Invite, usize), index: usize, rng: &mut ChaCha20Rng) -> Self {
        let secrets = DeviceSecrets {
            device: DeviceKey::generate(rng),
            tunnel: TunnelKey::generate(rng),
            channel: ChannelKey::generate(rng),
        };
        Self {
            device: secrets.device.id(),
            engine: None,
            site: INTERNET,
            address: Self::public_address(index),
            has_ipv4: true,
            address6: None,
            last_port: FIRST_FRESH_PORT,
            fresh_ports: VecDeque::new(),
            sockets: BTreeMap::new(),
            uplink: None,
            clock: Clock::default(),
            stream_bytes: 0,
            told: Vec::new(),
            asleep: false,
            udp_blocked: false,
            listens: false,
            interface: None,
            answers: BTreeMap::new(),
            received: 0,
            too_big: Vec::new(),
            alarms: Vec::new(),
            config: EngineConfig {
                invite,
                name: format!("node-{index}").parse().expect("a label"),
                secrets,
                saved: SavedState::default(),
                udp: true,
                loopback: false,
                turn: Vec::new(),
                mtu,
                // Pairs with, without, and of both kinds.
                has_aes: !index.is_multiple_of(3),
            },
            saved: SavedState::default(),
            disk: NodeDisk::Takes,
            winners: BTreeMap::new(),
        }
    }

    /// Its address where nothing stands in front of it.
    pub(crate) fn public_address(index: usize) -> SocketAddr {
        let [.., third, fourth] = u32::try_from(index + 1).unwrap_or(u32::MAX).to_be_bytes();
        SocketAddr::from(([198, 51, 100 + third, fourth], 41_641))
    }

    /// Its addresses, as the system tells them.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let address = Some(self.address).filter(|_| self.has_ipv4);
        [address, self.address6].into_iter().flatten().collect()
    }

    /// How many sockets beside its own it has.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// The address from which it sends to another, if it can.
    pub(crate) fn source(&self, to: SocketAddr) -> Option<SocketAddr> {
        let address = Some(self.address).filter(|_| self.has_ipv4);
        let source = if to.is_ipv4() { address } else { self.address6 };
        source.filter(|_| !self.udp_blocked)
    }

    /// A port that was not used before, at the address from which it can send to another.
    pub(crate) fn new_address(&mut self, to: SocketAddr) -> SocketAddr {
        self.last_port = self.last_port.checked_add(1).unwrap_or(FIRST_FRESH_PORT);
        let own = self.address6.filter(|_| to.is_ipv6()).unwrap_or(self.address);
        SocketAddr::new(own.ip(), self.last_port)
    }

    /// A socket for one question there.
    pub(crate) fn open_fresh(&mut self, to: SocketAddr) -> SocketAddr {
        if self.fresh_ports.len() == FRESH_SOCKETS {
            self.fresh_ports.pop_front();
        }
        let address = self.new_address(to);
        self.fresh_ports.push_back(address.port());
        address
    }

    /// Whether it takes datagrams there.
    pub(crate) fn listens_at(&self, to: SocketAddr) -> bool {
        let is_own = |own: SocketAddr| own.ip() == to.ip();
        let is_fresh = (is_own(self.address) || self.address6.is_some_and(is_own))
            && self.fresh_ports.contains(&to.port());
        let is_open = self.sockets.values().any(|(own, _)| *own == to);
        self.address == to || self.address6 == Some(to) || is_fresh || is_open
    }

    pub(crate) fn start(&mut self, rng: &mut ChaCha20Rng, now: Now) {
        // The port of the run before may be taken.
        let port = self.address.port() + 1;
        self.address.set_port(port);
        if let Some(address) = &mut self.address6 {
            address.set_port(port);
        }
        let config = EngineConfig { saved: self.saved.clone(), ..self.config.clone() };
        let mut engine = Engine::new(config, rng, now);
        self.told = self.addresses();
        engine.handle_winners(self.winners(), rng, now);
        engine.handle_local_addresses(&self.told, rng, now);
        engine.handle_servers(&self.servers(), rng, now);
        self.engine = Some(engine);
    }

    /// By what it reached others from where it is.
    pub(crate) fn winners(&self) -> BTreeMap<DeviceId, Rung> {
        let here = self.winners.iter().filter(|((site, _), _)| *site == self.site);
        here.map(|((_, peer), rung)| (*peer, *rung)).collect()
    }

    pub(crate) fn note_winner(&mut self, peer: DeviceId, rung: Rung) {
        self.winners.insert((self.site, peer), rung);
    }

    /// Has a TURN server in its settings, which count from the next start on.
    pub fn use_turn_server(&mut self, setting: &str) {
        self.config.turn = vec![setting.parse().expect("the test names a server")];
    }

    /// Where it takes streams, as its shell says.
    pub(crate) fn servers(&self) -> Vec<ServerAddress> {
        let addresses: Vec<_> = self.addresses().iter().map(SocketAddr::ip).collect();
        let host = self.address.ip().to_string();
        let server = ServerAddress { addresses, port: OWN_PORT, ..server(&host) };
        self.listens.then_some(server).into_iter().collect()
    }

    /// The key by which a plain WireGuard peer knows the node.
    pub(crate) fn tunnel_key(&self) -> TunnelPublicKey {
        self.config.secrets.tunnel.public()
    }

    /// Gives the device another tunnel key, which counts from the next start on.
    pub(crate) fn replace_tunnel_key(&mut self, key: TunnelKey) {
        self.config.secrets.tunnel = key;
    }

    pub(crate) fn secret_tunnel_key(&self) -> TunnelKey {
        self.config.secrets.tunnel.clone()
    }

    pub(crate) fn save(&mut self, part: StatePart, bytes: Vec<u8>) {
        let state = match &mut self.disk {
            NodeDisk::Takes => &mut self.saved,
            NodeDisk::Full(unsaved) => unsaved,
        };
        match part {
            StatePart::Own => state.own = Some(bytes),
            StatePart::Map => state.map = Some(bytes),
        }
    }

    /// Ends the process; what it could not save is lost.
    pub(crate) fn stop(&mut self) {
        self.engine = None;
        self.sockets.clear();
        if let NodeDisk::Full(unsaved) = &mut self.disk {
            *unsaved = SavedState::default();
        }
    }

    pub(crate) fn disk_is_full(&self) -> bool {
        matches!(self.disk, NodeDisk::Full(_))
    }

    /// Lets the disk take nothing more, or again: then what the process could not save is saved.
    pub(crate) fn fill_disk(&mut self, full: bool) {
        match std::mem::replace(&mut self.disk, NodeDisk::Takes) {
            disk @ NodeDisk::Full(_) if full => self.disk = disk,
            NodeDisk::Full(unsaved) => {
                let before = std::mem::take(&mut self.saved);
                self.saved =
                    SavedState { own: unsaved.own.or(before.own), map: unsaved.map.or(before.map) };
            }
            NodeDisk::Takes if full => self.disk = NodeDisk::Full(SavedState::default()),
            NodeDisk::Takes => {}
        }
    }

    /// Loses what was saved, but not the keys.
    pub fn forget(&mut self) {
        self.saved = SavedState::default();
        self.winners.clear();
    }

    /// The invite by which it joins.
    pub fn invite(&self) -> &Invite {
        &self.config.invite
    }
}

fn server(host: &str) -> ServerAddress {
    ServerAddress { host: host.to_owned(), port: 443, addresses: Vec::new(), tls: TlsMode::Plain }
}

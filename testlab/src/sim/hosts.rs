//! Hosts: the machines with what a shell would do for them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use control_proto::{
    Admission, AuthorityKeys, ClientConfig, ControlClient, Controller, ControllerConfig,
    EventRecord, NetworkMap, Settings, Stored, limits::CAPABILITY,
};
use engine::{DEFAULT_MTU, DeviceSecrets, Engine, EngineConfig, InterfaceSettings, Now};
use identity::{
    Binding, ChannelKey, DelegatedKey, Delegation, DeviceId, DeviceKey, Invite, IssueLimits,
    NetworkKey, RelayEntry, Scope, ServerAddress, Signed, TlsMode, TunnelKey, TunnelPublicKey,
    UnixTime, Validity,
};
use noise_channel::{ClockOffset, PathSecret, StaticSecret};
use rand_chacha::ChaCha20Rng;
use relay_proto::{Limits, RelayNetwork, RelayServer};

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
        Self { config, disk, machine: None, events: Vec::new() }
    }

    pub(crate) fn start(&mut self, now: Now) {
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
    /// Where it answers STUN.
    pub stun: SocketAddr,
    /// Frames' bytes that it sent to its clients, as they were on the wire.
    pub sent_bytes: u64,
    pub(crate) running: bool,
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
        let stun =
            SocketAddr::from(([203, 0, 113, u8::try_from(index + 1).unwrap_or(u8::MAX)], 3478));
        let entry = RelayEntry {
            device,
            channel_key: channel_key.public(),
            servers: vec![server(&name)],
            stun: vec![stun],
            region: "sim".to_owned(),
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
        let mut client = ControlClient::new(config, map, now);
        client.offer_relay(entry, now.instant);
        let mut server = RelayServer::new(CAPABILITY, Limits::default());
        server.add_network(RelayNetwork {
            network: invite.network,
            relay: device,
            static_key: StaticSecret::from_bytes(*channel_key.to_bytes()),
            path_secret: PathSecret::from_bytes(*invite.path_secret.0),
            revocations,
            clock_offset: ClockOffset::default(),
        });
        Self { device, client, server, stun, sent_bytes: 0, running: true }
    }
}

/// A node and its applications.
#[derive(Debug)]
pub struct NodeHost {
    /// Its DeviceId.
    pub device: DeviceId,
    /// The process, if it runs.
    pub engine: Option<Engine>,
    /// Its address in the network underneath.
    pub address: SocketAddr,
    /// Whether datagrams from and to it are dropped on the way.
    pub udp_blocked: bool,
    /// How its interface is set up.
    pub interface: Option<InterfaceSettings>,
    /// Answers to its applications' questions, with their times.
    pub answers: BTreeMap<u64, Instant>,
    /// Packets that reached its applications.
    pub received: u64,
    config: EngineConfig,
    saved: Option<Vec<u8>>,
}

impl NodeHost {
    pub(crate) fn new(invite: Invite, index: usize, rng: &mut ChaCha20Rng) -> Self {
        let secrets = DeviceSecrets {
            device: DeviceKey::generate(rng),
            tunnel: TunnelKey::generate(rng),
            channel: ChannelKey::generate(rng),
        };
        let host = u8::try_from(index + 1).unwrap_or(u8::MAX);
        Self {
            device: secrets.device.id(),
            engine: None,
            address: SocketAddr::from(([198, 51, 100, host], 41_641)),
            udp_blocked: false,
            interface: None,
            answers: BTreeMap::new(),
            received: 0,
            config: EngineConfig {
                invite,
                name: format!("node-{index}").parse().expect("a label"),
                secrets,
                saved: None,
                udp: true,
                loopback: false,
                mtu: DEFAULT_MTU,
            },
            saved: None,
        }
    }

    pub(crate) fn start(&mut self, rng: &mut ChaCha20Rng, now: Now) {
        // The port of the run before may be taken.
        self.address.set_port(self.address.port() + 1);
        let config = EngineConfig { saved: self.saved.clone(), ..self.config.clone() };
        let mut engine = Engine::new(config, rng, now);
        engine.handle_local_addresses(&[self.address], rng, now);
        self.engine = Some(engine);
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

    pub(crate) fn save(&mut self, bytes: Vec<u8>) {
        self.saved = Some(bytes);
    }
}

fn server(host: &str) -> ServerAddress {
    ServerAddress { host: host.to_owned(), port: 443, addresses: Vec::new(), tls: TlsMode::Plain }
}

//! A network's keys; a relay, its clients, and one clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use frame_proto::{FrameType, compose, payload_mut};
use identity::{
    Attachment, Authorities, Binding, Certificate, CertificateChain, ChannelKey, DelegatedKey,
    Delegation, DeviceId, DeviceKey, IssueLimits, NetworkId, NetworkKey, Padding, RevocationTarget,
    Revocations, Scope, Serial, Shaping, Signed, Signer, TunnelKey, UnixTime, Validity,
    device_address,
};
use noise_channel::{ClockOffset, Now, PathSecret, Service, StaticSecret, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use relay_proto::{
    ClientConfig, ClientEvent, CloseReason, ConnectionId, FlowId, Limits, Recognised, RelayClient,
    RelayNetwork, RelayServer, ServerEvent, TurnedAway,
};
use shaping::Plan;

pub(crate) const START: u64 = 1_700_000_000;
const WEEK: u64 = 7 * 24 * 3600;
pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A network's keys.
pub(crate) struct Network {
    root: NetworkKey,
    issuer: DelegatedKey,
    revoker: DelegatedKey,
    pub(crate) relay: DeviceKey,
    relay_channel: ChannelKey,
    pub(crate) secret: PathSecret,
}

/// A device of some network.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) key: DeviceKey,
    pub(crate) channel: ChannelKey,
    pub(crate) chain: CertificateChain,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        Self {
            root: NetworkKey::generate(rng),
            issuer: DelegatedKey::generate(rng),
            revoker: DelegatedKey::generate(rng),
            relay: DeviceKey::generate(rng),
            relay_channel: ChannelKey::generate(rng),
            secret: PathSecret::from_bytes(secret),
        }
    }

    pub(crate) fn id(&self) -> NetworkId {
        self.root.id()
    }

    fn delegation(&self, key: &DelegatedKey, scope: Scope) -> Signed<Delegation> {
        let delegation = Delegation {
            network: self.id(),
            scope,
            key: key.id(),
            validity: Validity::starting(UnixTime(START), 10 * WEEK),
            limits: IssueLimits::default(),
        };
        Signed::sign(self.id(), &self.root, &delegation)
    }

    pub(crate) fn device(&self, number: u8, validity: Validity) -> Device {
        self.device_in(&[], number, validity)
    }

    /// A member of these groups.
    pub(crate) fn member_of(&self, groups: &[&str], number: u8) -> Device {
        self.device_in(groups, number, Validity::starting(UnixTime(START), WEEK))
    }

    fn device_in(&self, groups: &[&str], number: u8, validity: Validity) -> Device {
        let rng = &mut ChaCha20Rng::from_seed([number; 32]);
        let key = DeviceKey::generate(rng);
        let certificate = Certificate {
            device: key.id(),
            name: format!("device-{number}").parse().expect("a good name"),
            groups: groups.iter().map(|group| group.parse().expect("a label")).collect(),
            address: device_address(self.id(), key.id(), 0),
            counter: 0,
            validity,
            serial: Serial(u64::from(number)),
        };
        Device {
            channel: ChannelKey::generate(rng),
            chain: CertificateChain {
                delegation: self.delegation(&self.issuer, Scope::Issue),
                grant: None,
                certificate: Signed::sign(self.id(), &self.issuer, &certificate),
                renewal: None,
            },
            key,
        }
    }

    pub(crate) fn member(&self, number: u8) -> Device {
        self.device(number, Validity::starting(UnixTime(START), WEEK))
    }

    pub(crate) fn revocations_of(&self, target: RevocationTarget) -> Revocations {
        let mut authorities = Authorities::new(self.id());
        authorities.add(&self.delegation(&self.revoker, Scope::Revoke)).expect("a good delegation");
        let mut revocations = Revocations::new(self.id());
        let signer = self.revoker.signer_id();
        let entry = revocations.next_entry(target, signer, &authorities, UnixTime(START));
        let entry = Signed::sign(self.id(), &self.revoker, &entry);
        revocations.apply(&entry, &authorities).expect("a good entry");
        revocations
    }

    pub(crate) fn served(&self) -> RelayNetwork {
        RelayNetwork {
            network: self.id(),
            relay: self.relay.id(),
            static_key: StaticSecret::from_bytes(*self.relay_channel.to_bytes()),
            path_secret: self.secret.clone(),
            revocations: Revocations::new(self.id()),
            clock_offset: ClockOffset(0),
            padding: Padding::Off,
            groups: Vec::new(),
        }
    }

    pub(crate) fn config(&self, device: &Device, number: u64) -> ClientConfig {
        let binding = Binding {
            device: device.key.id(),
            tunnel_key: TunnelKey::from_bytes(&[1; 32]).public(),
            channel_key: device.channel.public(),
            number: 1,
            not_after: UnixTime(START + 10 * WEEK),
            capability: 1,
        };
        let attachment = Attachment { relay: self.relay.id(), number };
        ClientConfig {
            network: self.id(),
            static_key: StaticSecret::from_bytes(*device.channel.to_bytes()),
            relay: self.relay.id(),
            relay_key: *self.relay_channel.public().as_bytes(),
            mask: self.secret.mask(Service::Relay, [0; 16]),
            capability: 4,
            clock_offset: ClockOffset(0),
            chain: device.chain.clone(),
            binding: Signed::sign(self.id(), &device.key, &binding),
            attachment: Signed::sign(self.id(), &device.key, &attachment),
            is_relay: false,
        }
    }
}

/// A relay, its clients, and one clock.
pub(crate) struct World {
    pub(crate) server: RelayServer,
    pub(crate) clients: BTreeMap<ConnectionId, Client>,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) now: Now,
    nonce: u64,
    pub(crate) events: Vec<ServerEvent>,
    /// What clients are told that the network wishes.
    pub(crate) padding: Padding,
    pub(crate) plan: Option<Plan>,
}

pub(crate) struct Client {
    pub(crate) machine: RelayClient,
    /// Its stream takes nothing while this is set.
    pub(crate) stuck: bool,
    pub(crate) events: Vec<ClientEvent>,
    /// The messages of both directions.
    pub(crate) wire: Vec<Vec<u8>>,
    /// When each of them left, and whether it went to the relay.
    pub(crate) times: Vec<(Instant, bool)>,
}

impl Client {
    pub(crate) const fn new(machine: RelayClient) -> Self {
        Self { machine, stuck: false, events: Vec::new(), wire: Vec::new(), times: Vec::new() }
    }
}

impl World {
    pub(crate) fn new(networks: &[&Network], limits: Limits) -> Self {
        let now = Now { instant: Instant::now(), wall: UnixMillis(START * 1_000) };
        let mut server = RelayServer::new(5, limits);
        for network in networks {
            server.add_network(network.served());
        }
        Self {
            server,
            clients: BTreeMap::new(),
            rng: ChaCha20Rng::seed_from_u64(9),
            now,
            nonce: 0,
            events: Vec::new(),
            padding: Padding::Off,
            plan: None,
        }
    }

    /// Has the relay, its clients and those to come shape what they send.
    pub(crate) fn shape(&mut self, network: &Network, shaping: &Shaping) {
        self.plan = Plan::new(shaping).expect("the machines can be run");
        let (rng, now) = (&mut self.rng, self.now.instant);
        self.server.set_shaping(network.id(), shaping, rng, now).expect("the machines can be run");
        for client in self.clients.values_mut() {
            client.machine.set_shaping(self.plan.clone(), &mut self.rng, now);
        }
        self.settle();
    }

    pub(crate) fn recognise(&mut self, secret: &PathSecret) -> (Recognised, [u8; 16]) {
        self.nonce += 1;
        let nonce = u128::from(self.nonce).to_be_bytes();
        let path = secret.path(Service::Relay, nonce);
        (self.server.recognise(&path).expect("the relay serves this network"), nonce)
    }

    /// Opens a connection by a fresh path, and says nothing.
    pub(crate) fn knock(
        &mut self,
        network: &Network,
        source: IpAddr,
    ) -> Result<ConnectionId, TurnedAway> {
        let (recognised, _) = self.recognise(&network.secret);
        self.server.handle_open(recognised, source, self.now)
    }

    pub(crate) fn open(&mut self, network: &Network, mut config: ClientConfig) -> ConnectionId {
        let (recognised, nonce) = self.recognise(&network.secret);
        config.mask = network.secret.mask(Service::Relay, nonce);
        let id = self.server.handle_open(recognised, HERE, self.now).expect("there is room");
        let mut machine =
            RelayClient::new(config, &mut self.rng, self.now).expect("the key is usable");
        machine.set_padding(self.padding);
        machine.set_shaping(self.plan.clone(), &mut self.rng, self.now.instant);
        self.clients.insert(id, Client::new(machine));
        self.settle();
        id
    }

    pub(crate) fn join(&mut self, network: &Network, device: &Device) -> ConnectionId {
        let id = self.open(network, network.config(device, 1));
        assert_eq!(self.take_events(id), [ClientEvent::Attached { capability: 5 }]);
        id
    }

    pub(crate) fn settle(&mut self) {
        let mut idle = false;
        while !idle {
            idle = true;
            for (id, client) in &mut self.clients {
                while let Some(message) = client.machine.poll_message(self.now.instant) {
                    client.wire.push(message.to_vec());
                    client.times.push((self.now.instant, true));
                    self.server.handle_message(*id, message, &mut self.rng, self.now);
                    idle = false;
                }
                while let Some(message) = (!client.stuck)
                    .then(|| self.server.poll_message(*id, self.now.instant))
                    .flatten()
                {
                    assert!(message.len() <= 65_535);
                    client.wire.push(message.to_vec());
                    client.times.push((self.now.instant, false));
                    client.machine.handle_message(message, &mut self.rng, self.now);
                    idle = false;
                }
                client.events.extend(std::iter::from_fn(|| client.machine.poll_event()));
            }
            while self.server.poll_ready().is_some() {}
            self.events.extend(std::iter::from_fn(|| self.server.poll_event()));
        }
    }

    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        loop {
            self.settle();
            let next = self
                .clients
                .values()
                .map(|client| client.machine.poll_timeout())
                .chain([self.server.poll_timeout()])
                .flatten()
                .map(|(at, _)| at)
                .min()
                .filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now = self.now.after(at.saturating_duration_since(self.now.instant));
            for client in self.clients.values_mut() {
                client.machine.handle_timeout(&mut self.rng, self.now);
            }
            self.server.handle_timeout(&mut self.rng, self.now);
        }
        self.now = self.now.after(end.saturating_duration_since(self.now.instant));
    }

    pub(crate) fn client(&mut self, id: ConnectionId) -> &mut Client {
        self.clients.get_mut(&id).expect("the client is there")
    }

    pub(crate) fn take_events(&mut self, id: ConnectionId) -> Vec<ClientEvent> {
        std::mem::take(&mut self.client(id).events)
    }

    pub(crate) fn send(&mut self, id: ConnectionId, frame: BytesMut) {
        let now = self.now.instant;
        self.client(id).machine.send(FlowId(1), frame, now).expect("the link is open");
        self.settle();
    }

    pub(crate) fn closed(&self, id: ConnectionId) -> Option<CloseReason> {
        self.events.iter().find_map(|event| match event {
            ServerEvent::Close { connection, reason } if *connection == id => Some(*reason),
            ServerEvent::Close { .. }
            | ServerEvent::Attached { .. }
            | ServerEvent::Misdirected { .. }
            | ServerEvent::Dial { .. }
            | ServerEvent::Expelled { .. }
            | ServerEvent::CircuitWanted { .. }
            | ServerEvent::Detached { .. } => None,
        })
    }
}

/// A data frame with this payload for, or from, this peer.
pub(crate) fn frame(peer: DeviceId, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::zeroed(64 + payload.len() + 16);
    compose(FrameType::Data, peer, &mut frame).expect("the payload fits");
    payload_mut(&mut frame).copy_from_slice(payload);
    frame
}

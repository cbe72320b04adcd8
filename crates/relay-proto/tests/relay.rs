//! Clients and a relay talking to each other under virtual time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use frame_proto::{FLAG_INTERACTIVE, FrameType, HopError, compose, payload, payload_mut};
use identity::{
    Attachment, Authorities, Binding, Certificate, CertificateChain, ChannelKey, DelegatedKey,
    Delegation, DeviceId, DeviceKey, IssueLimits, NetworkId, NetworkKey, RevocationTarget,
    Revocations, Scope, Serial, Signed, Signer, TunnelKey, UnixTime, Validity, device_address,
};
use noise_channel::limits::{HEARTBEAT_AFTER, ROTATE_AFTER};
use noise_channel::{ClockOffset, Now, PathSecret, Service, StaticSecret, UnixMillis};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use relay_proto::limits::{ATTACH_DEADLINE, FIRST_MESSAGE_DEADLINE};
use relay_proto::{
    ClientConfig, ClientEvent, CloseReason, ConnectionId, FlowId, Limits, LinkError, Rate,
    Recognised, Refusal, RelayClient, RelayNetwork, RelayServer, ServerEvent, TurnedAway,
};

const START: u64 = 1_700_000_000;
const WEEK: u64 = 7 * 24 * 3600;
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A network's keys.
struct Network {
    root: NetworkKey,
    issuer: DelegatedKey,
    revoker: DelegatedKey,
    relay: DeviceKey,
    relay_channel: ChannelKey,
    secret: PathSecret,
}

/// A device of some network.
#[derive(Clone)]
struct Device {
    key: DeviceKey,
    channel: ChannelKey,
    chain: CertificateChain,
}

impl Network {
    fn new(seed: u64) -> Self {
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

    fn id(&self) -> NetworkId {
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

    fn device(&self, number: u8, validity: Validity) -> Device {
        let rng = &mut ChaCha20Rng::from_seed([number; 32]);
        let key = DeviceKey::generate(rng);
        let certificate = Certificate {
            device: key.id(),
            name: format!("device-{number}").parse().expect("a good name"),
            groups: Vec::new(),
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

    fn member(&self, number: u8) -> Device {
        self.device(number, Validity::starting(UnixTime(START), WEEK))
    }

    fn revocations_of(&self, target: RevocationTarget) -> Revocations {
        let mut authorities = Authorities::new(self.id());
        authorities.add(&self.delegation(&self.revoker, Scope::Revoke)).expect("a good delegation");
        let mut revocations = Revocations::new(self.id());
        let signer = self.revoker.signer_id();
        let entry = revocations.next_entry(target, signer, &authorities, UnixTime(START));
        let entry = Signed::sign(self.id(), &self.revoker, &entry);
        revocations.apply(&entry, &authorities).expect("a good entry");
        revocations
    }

    fn served(&self) -> RelayNetwork {
        RelayNetwork {
            network: self.id(),
            relay: self.relay.id(),
            static_key: StaticSecret::from_bytes(*self.relay_channel.to_bytes()),
            path_secret: self.secret.clone(),
            revocations: Revocations::new(self.id()),
            clock_offset: ClockOffset(0),
        }
    }

    fn config(&self, device: &Device, number: u64) -> ClientConfig {
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
            capability: 3,
            clock_offset: ClockOffset(0),
            chain: device.chain.clone(),
            binding: Signed::sign(self.id(), &device.key, &binding),
            attachment: Signed::sign(self.id(), &device.key, &attachment),
        }
    }
}

/// A relay, its clients, and one clock.
struct World {
    server: RelayServer,
    clients: BTreeMap<ConnectionId, Client>,
    rng: ChaCha20Rng,
    now: Now,
    nonce: u8,
    events: Vec<ServerEvent>,
}

struct Client {
    machine: RelayClient,
    /// Its stream takes nothing while this is set.
    stuck: bool,
    events: Vec<ClientEvent>,
    wire: Vec<u8>,
}

impl World {
    fn new(networks: &[&Network], limits: Limits) -> Self {
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
        }
    }

    fn recognise(&mut self, secret: &PathSecret) -> (Recognised, [u8; 16]) {
        self.nonce += 1;
        let nonce = [self.nonce; 16];
        let path = secret.path(Service::Relay, nonce);
        (self.server.recognise(&path).expect("the relay serves this network"), nonce)
    }

    /// Opens a connection by a fresh path, and says nothing.
    fn knock(&mut self, network: &Network, source: IpAddr) -> Result<ConnectionId, TurnedAway> {
        let (recognised, _) = self.recognise(&network.secret);
        self.server.handle_open(recognised, source, self.now)
    }

    fn open(&mut self, network: &Network, mut config: ClientConfig) -> ConnectionId {
        let (recognised, nonce) = self.recognise(&network.secret);
        config.mask = network.secret.mask(Service::Relay, nonce);
        let id = self.server.handle_open(recognised, HERE, self.now).expect("there is room");
        let machine = RelayClient::new(config, &mut self.rng, self.now).expect("the key is usable");
        let client = Client { machine, stuck: false, events: Vec::new(), wire: Vec::new() };
        self.clients.insert(id, client);
        self.settle();
        id
    }

    fn join(&mut self, network: &Network, device: &Device) -> ConnectionId {
        let id = self.open(network, network.config(device, 1));
        assert_eq!(self.take_events(id), [ClientEvent::Attached { capability: 5 }]);
        id
    }

    fn settle(&mut self) {
        let mut idle = false;
        while !idle {
            idle = true;
            for (id, client) in &mut self.clients {
                while let Some(message) = client.machine.poll_message(self.now.instant) {
                    client.wire.extend_from_slice(&message);
                    self.server.handle_message(*id, message, &mut self.rng, self.now);
                    idle = false;
                }
                while let Some(message) = (!client.stuck)
                    .then(|| self.server.poll_message(*id, self.now.instant))
                    .flatten()
                {
                    assert!(message.len() <= 65_535);
                    client.wire.extend_from_slice(&message);
                    client.machine.handle_message(message, &mut self.rng, self.now);
                    idle = false;
                }
                client.events.extend(std::iter::from_fn(|| client.machine.poll_event()));
            }
            while self.server.poll_ready().is_some() {}
            self.events.extend(std::iter::from_fn(|| self.server.poll_event()));
        }
    }

    fn run(&mut self, duration: Duration) {
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

    fn client(&mut self, id: ConnectionId) -> &mut Client {
        self.clients.get_mut(&id).expect("the client is there")
    }

    fn take_events(&mut self, id: ConnectionId) -> Vec<ClientEvent> {
        std::mem::take(&mut self.client(id).events)
    }

    fn send(&mut self, id: ConnectionId, frame: BytesMut) {
        let now = self.now.instant;
        self.client(id).machine.send(FlowId(1), frame, now).expect("the link is open");
        self.settle();
    }

    fn closed(&self, id: ConnectionId) -> Option<CloseReason> {
        self.events.iter().find_map(|event| match event {
            ServerEvent::Close { connection, reason } if *connection == id => Some(*reason),
            ServerEvent::Close { .. }
            | ServerEvent::Attached { .. }
            | ServerEvent::Misdirected { .. }
            | ServerEvent::Detached { .. } => None,
        })
    }
}

/// A data frame with this payload for, or from, this peer.
fn frame(peer: DeviceId, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::zeroed(64 + payload.len() + 16);
    compose(FrameType::Data, peer, &mut frame).expect("the payload fits");
    payload_mut(&mut frame).copy_from_slice(payload);
    frame
}

#[test]
fn frames_reach_the_receiver_under_the_senders_name() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    world.send(a, frame(bob.key.id(), b"to bob"));
    world.send(b, frame(alice.key.id(), b"to alice"));
    assert_eq!(world.take_events(b), [ClientEvent::Frame(frame(alice.key.id(), b"to bob"))]);
    assert_eq!(world.take_events(a), [ClientEvent::Frame(frame(bob.key.id(), b"to alice"))]);
    let load = world.server.report_load(network.id(), 17);
    assert_eq!((load.connections, load.attached, load.cpu_permille), (2, 2, 17));
    assert_eq!(load.bytes_received, 2 * 64 + 2 * 16 + 6 + 8);
    assert_eq!(load.bytes_forwarded, load.bytes_received);
    assert_eq!(world.server.report_load(network.id(), 0).bytes_received, 0);
}

#[test]
fn a_host_takes_what_is_for_itself_sends_by_itself_and_forwards_nothing() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    world.server = RelayServer::of_host(5);
    world.server.add_network(network.served());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    let (host, now) = (network.relay.id(), world.now.instant);
    let to_alice = (network.id(), alice.key.id());

    world.send(a, frame(host, b"to the host"));
    let arrived = world.server.poll_frame().expect("it arrived");
    assert_eq!(arrived, (alice.key.id(), frame(alice.key.id(), b"to the host")));
    assert!(world.server.send(to_alice, FlowId(1), frame(alice.key.id(), b"to alice"), now));
    world.settle();
    assert_eq!(world.take_events(a), [ClientEvent::Frame(frame(host, b"to alice"))]);

    world.send(a, frame(bob.key.id(), b"to bob"));
    assert_eq!(world.take_events(b), []);
    assert_eq!(world.take_events(a), [ClientEvent::Unreachable(bob.key.id())]);
    let misdirected = ServerEvent::Misdirected { network: network.id(), device: alice.key.id() };
    assert!(world.events.contains(&misdirected));
    assert_eq!(world.server.poll_frame(), None);
    assert_eq!(world.server.report_load(network.id(), 0).frames_dropped, 1);

    world.server.give_up(network.id(), alice.key.id(), now);
    world.settle();
    assert_eq!(world.closed(a), Some(CloseReason::Unresponsive));
    assert!(!world.server.send(to_alice, FlowId(1), frame(alice.key.id(), b"too late"), now));
    assert!(world.server.is_attached(network.id(), bob.key.id()));
}

#[test]
fn no_id_is_visible_on_the_stream() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    for _ in 0..10 {
        world.send(a, frame(bob.key.id(), b"some payload"));
    }
    for (id, hidden) in [(a, bob.key.id()), (b, alice.key.id()), (a, alice.key.id())] {
        let wire = &world.client(id).wire;
        assert!(wire.len() > 1_000);
        for part in hidden.as_bytes().chunks(8) {
            assert!(!wire.windows(8).any(|window| window == part));
        }
    }
}

#[test]
fn an_older_attachment_or_binding_never_comes_back() {
    let network = Network::new(1);
    let alice = network.member(1);
    let mut world = World::new(&[&network], Limits::default());
    let refused = [ClientEvent::Refused(Refusal::Superseded)];
    let newest = world.open(&network, network.config(&alice, 7));
    world.server.handle_closed(newest, world.now.instant);
    for number in [6, 7] {
        let replayed = world.open(&network, network.config(&alice, number));
        assert_eq!(world.take_events(replayed), refused, "attachment {number}");
    }
    let next = world.open(&network, network.config(&alice, 8));
    assert_eq!(world.take_events(next), [ClientEvent::Attached { capability: 5 }]);

    let bob = network.member(2);
    world.server.set_bindings(network.id(), [(alice.key.id(), 1), (bob.key.id(), 2)]);
    let by_old_binding = world.open(&network, network.config(&bob, 1));
    assert_eq!(world.take_events(by_old_binding), refused);
    let renewed = world.open(&network, network.config(&alice, 9));
    assert_eq!(world.take_events(renewed), [ClientEvent::Attached { capability: 5 }]);
}

#[test]
fn networks_on_one_relay_do_not_see_each_other() {
    let (one, two) = (Network::new(1), Network::new(2));
    let (alice, bob) = (one.member(1), two.member(2));
    let mut world = World::new(&[&one, &two], Limits::default());
    let (a, b) = (world.join(&one, &alice), world.join(&two, &bob));
    world.send(a, frame(bob.key.id(), b"x"));
    assert_eq!(world.take_events(a), [ClientEvent::Unreachable(bob.key.id())]);
    assert_eq!(world.take_events(b), []);
}

#[test]
fn an_unknown_receiver_is_reported_but_not_for_every_frame() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &network.member(1));
    for _ in 0..1_000 {
        world.send(a, frame(network.relay.id(), b"x"));
    }
    let answers = world.take_events(a).len();
    assert!((1..=20).contains(&answers), "{answers}");
}

#[test]
fn foreign_expired_revoked_and_mistaken_devices_are_refused() {
    let (network, foreign) = (Network::new(1), Network::new(2));
    let revoked = network.member(3);
    let mut world = World::new(&[&network], Limits::default());
    let list = network.revocations_of(RevocationTarget::Device(revoked.key.id()));
    world.server.set_revocations(network.id(), &list, world.now);
    let past = Validity { not_before: UnixTime(START), not_after: UnixTime(START) };
    let stolen = Device { chain: network.member(1).chain, ..network.member(4) };
    let mut other_key = network.config(&network.member(5), 1);
    other_key.static_key = StaticSecret::from_bytes([9; 32]);
    let mut other_relay = network.config(&network.member(6), 1);
    let elsewhere = Attachment { relay: foreign.relay.id(), number: 1 };
    other_relay.attachment = Signed::sign(network.id(), &network.member(6).key, &elsewhere);
    let cases = [
        (network.config(&foreign.member(1), 1), Refusal::NotMember),
        (network.config(&network.device(2, past), 1), Refusal::Expired),
        (network.config(&revoked, 1), Refusal::Revoked),
        (network.config(&stolen, 1), Refusal::NotMember),
        (other_key, Refusal::WrongChannelKey),
        (other_relay, Refusal::NotMember),
    ];
    for (config, refusal) in cases {
        let id = world.open(&network, config);
        assert_eq!(world.take_events(id), [ClientEvent::Refused(refusal)]);
        assert_eq!(world.closed(id), Some(CloseReason::Refused(refusal)));
    }
    assert_eq!(world.server.attached(network.id()).count(), 0);
}

#[test]
fn revocation_detaches_at_once() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    let list = network.revocations_of(RevocationTarget::Device(bob.key.id()));
    world.server.set_revocations(network.id(), &list, world.now);
    world.settle();
    assert_eq!(world.take_events(b), [ClientEvent::Refused(Refusal::Revoked)]);
    assert_eq!(world.closed(b), Some(CloseReason::Refused(Refusal::Revoked)));
    world.send(a, frame(bob.key.id(), b"x"));
    assert_eq!(world.take_events(a), [ClientEvent::Unreachable(bob.key.id())]);
}

#[test]
fn whatever_of_a_members_chain_is_revoked_detaches_it() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    for target in bob.chain.targets() {
        let mut world = World::new(&[&network], Limits::default());
        let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
        let list = network.revocations_of(target);
        world.server.set_revocations(network.id(), &list, world.now);
        world.settle();
        assert_eq!(world.closed(b), Some(CloseReason::Refused(Refusal::Revoked)), "{target}");
        let is_both = matches!(target, RevocationTarget::Delegated(_));
        assert_eq!(world.closed(a).is_some(), is_both, "{target}");
    }
}

#[test]
fn membership_that_ends_detaches_within_a_heartbeat() {
    let network = Network::new(1);
    let hour = network.device(1, Validity::starting(UnixTime(START), 3_000));
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &hour);
    world.run(Duration::from_secs(2_999));
    assert_eq!(world.closed(a), None);
    world.run(Duration::from_secs(1) + HEARTBEAT_AFTER);
    assert_eq!(world.closed(a), Some(CloseReason::Refused(Refusal::Expired)));
}

#[test]
fn a_relay_whose_clock_is_wrong_judges_by_the_networks_time() {
    let network = Network::new(1);
    let day = 24 * 3_600;
    let offset = ClockOffset(i64::try_from(day * 1_000).expect("a day"));
    let mut world = World::new(&[&network], Limits::default());
    world.server.set_clock_offset(network.id(), offset);
    let tomorrow = network.device(1, Validity::starting(UnixTime(START + day), 3_000));
    let right = ClientConfig { clock_offset: offset, ..network.config(&tomorrow, 1) };
    let a = world.open(&network, right);
    assert_eq!(world.take_events(a), [ClientEvent::Attached { capability: 5 }]);
    world.run(Duration::from_secs(3_000) + HEARTBEAT_AFTER);
    assert_eq!(world.closed(a), Some(CloseReason::Refused(Refusal::Expired)));
}

#[test]
fn a_renewed_membership_keeps_the_link() {
    let network = Network::new(1);
    let hour = network.device(1, Validity::starting(UnixTime(START), 3_000));
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &hour);
    let now = world.now.instant;
    world.client(a).machine.renew(network.member(1).chain, now);
    world.run(Duration::from_secs(3_000) + 2 * HEARTBEAT_AFTER);
    assert_eq!(world.closed(a), None);
    assert!(world.client(a).machine.is_attached());
    let list = network.revocations_of(RevocationTarget::Serial(Serial(1)));
    world.server.set_revocations(network.id(), &list, world.now);
    world.settle();
    assert_eq!(world.closed(a), Some(CloseReason::Refused(Refusal::Revoked)));
}

#[test]
fn a_membership_that_is_renewed_while_the_link_opens_counts() {
    let network = Network::new(1);
    let hour = network.device(1, Validity::starting(UnixTime(START), 3_000));
    let mut world = World::new(&[&network], Limits::default());
    let (recognised, nonce) = world.recognise(&network.secret);
    let mut config = network.config(&hour, 1);
    config.mask = network.secret.mask(Service::Relay, nonce);
    let id = world.server.handle_open(recognised, HERE, world.now).expect("there is room");
    let mut machine =
        RelayClient::new(config, &mut world.rng, world.now).expect("the key is usable");
    machine.renew(network.member(1).chain, world.now.instant);
    let client = Client { machine, stuck: false, events: Vec::new(), wire: Vec::new() };
    world.clients.insert(id, client);
    world.run(Duration::from_secs(3_000) + 2 * HEARTBEAT_AFTER);
    assert_eq!(world.closed(id), None);
    assert!(world.client(id).machine.is_attached());
}

#[test]
fn nobody_renews_with_the_membership_of_another() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &network.member(1));
    let now = world.now.instant;
    world.client(a).machine.renew(network.member(2).chain, now);
    world.settle();
    assert_eq!(world.closed(a), Some(CloseReason::Refused(Refusal::NotMember)));
}

#[test]
fn the_newest_attachment_wins_and_evicts() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let b = world.join(&network, &bob);
    let old = world.open(&network, network.config(&alice, 5));
    let new = world.open(&network, network.config(&alice, 6));
    let late = world.open(&network, network.config(&alice, 5));
    assert_eq!(world.take_events(new), [ClientEvent::Attached { capability: 5 }]);
    assert_eq!(
        world.take_events(old),
        [ClientEvent::Attached { capability: 5 }, ClientEvent::Refused(Refusal::Superseded)]
    );
    assert_eq!(world.take_events(late), [ClientEvent::Refused(Refusal::Superseded)]);
    world.server.handle_closed(old, world.now.instant);
    world.send(b, frame(alice.key.id(), b"x"));
    assert_eq!(world.take_events(new), [ClientEvent::Frame(frame(bob.key.id(), b"x"))]);
}

#[test]
fn a_slow_consumer_costs_no_more_than_its_queue() {
    let network = Network::new(1);
    let (alice, bob, carol) = (network.member(1), network.member(2), network.member(3));
    let limits = Limits { queue_bytes: 500_000, ..Limits::default() };
    let mut world = World::new(&[&network], limits);
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    let c = world.join(&network, &carol);
    world.client(b).stuck = true;
    for _ in 0..2_000 {
        world.send(a, frame(bob.key.id(), &[7; 1_300]));
    }
    world.send(a, frame(carol.key.id(), b"beside"));
    assert_eq!(world.take_events(c).len(), 1, "others are served meanwhile");
    let load = world.server.report_load(network.id(), 0);
    assert!(load.queued_bytes <= 500_000, "{}", load.queued_bytes);
    assert!(load.frames_dropped > 1_500);
    world.client(b).stuck = false;
    world.settle();
    world.send(a, frame(bob.key.id(), b"again"));
    let events = world.take_events(b);
    assert!(events.len() > 100 && events.len() < 600, "{}", events.len());
    assert_eq!(events.last(), Some(&ClientEvent::Frame(frame(alice.key.id(), b"again"))));
}

#[test]
fn interactive_frames_and_other_senders_do_not_wait_behind_bulk() {
    let network = Network::new(1);
    let (alice, bob, carol) = (network.member(1), network.member(2), network.member(3));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    let c = world.join(&network, &carol);
    world.client(b).stuck = true;
    for _ in 0..40 {
        world.send(a, frame(bob.key.id(), &[7; 60_000]));
    }
    let mut call = frame(bob.key.id(), b"call");
    call[1] = FLAG_INTERACTIVE;
    world.send(a, call);
    world.send(c, frame(bob.key.id(), b"beside"));
    world.client(b).stuck = false;
    world.settle();
    let events = world.take_events(b);
    let place = |text: &[u8]| {
        let is_it =
            |event: &ClientEvent| matches!(event, ClientEvent::Frame(it) if payload(it) == text);
        events.iter().position(is_it)
    };
    assert_eq!((place(b"call"), place(b"beside")), (Some(1), Some(2)));
    assert!(events.len() > 10, "bulk arrives too");
}

#[test]
fn a_client_that_asks_and_does_not_read_is_closed() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &network.member(1));
    world.client(a).stuck = true;
    let asked = (0..600)
        .find(|_| {
            world.send(a, frame(network.relay.id(), b"x"));
            world.run(Duration::from_millis(100));
            world.closed(a).is_some()
        })
        .expect("what waits is bounded");
    assert_eq!(world.closed(a), Some(CloseReason::NotReading));
    assert!(asked > 100, "a client that reads late is served: {asked}");
}

#[test]
fn a_client_gets_no_more_than_its_rate() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let bytes = Rate { per_second: 10_000, burst: 50_000 };
    let mut world = World::new(&[&network], Limits { bytes, ..Limits::default() });
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    for _ in 0..200 {
        world.send(a, frame(bob.key.id(), &[7; 920]));
    }
    assert_eq!(world.take_events(b).len(), 50);
    world.run(Duration::from_secs(2));
    for _ in 0..200 {
        world.send(a, frame(bob.key.id(), &[7; 920]));
    }
    assert_eq!(world.take_events(b).len(), 20);
}

#[test]
fn keys_of_the_channel_and_of_the_hop_rotate_while_frames_flow() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    let mut received = 0;
    for _ in 0..150 {
        world.run(ROTATE_AFTER / 50);
        world.send(a, frame(bob.key.id(), b"x"));
        let events = world.take_events(b);
        received += events.iter().filter(|event| matches!(event, ClientEvent::Frame(_))).count();
    }
    assert_eq!(received, 150);
    let rotations =
        world.take_events(a).iter().filter(|event| **event == ClientEvent::Rotated).count();
    assert!((2..=3).contains(&rotations), "{rotations}");
    assert_eq!(world.closed(a), None);
}

#[test]
fn a_connection_that_does_not_attach_is_closed_and_sooner_if_it_says_nothing() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let silent = world.knock(&network, HERE).unwrap();
    let (recognised, nonce) = world.recognise(&network.secret);
    let slow = world.server.handle_open(recognised, HERE, world.now).unwrap();
    let mut config = network.config(&network.member(1), 1);
    config.mask = network.secret.mask(Service::Relay, nonce);
    let mut machine = RelayClient::new(config, &mut world.rng, world.now).unwrap();
    let hello = machine.poll_message(world.now.instant).unwrap();
    world.server.handle_message(slow, hello, &mut world.rng, world.now);
    world.run(FIRST_MESSAGE_DEADLINE - Duration::from_secs(1));
    assert_eq!(world.closed(silent), None);
    world.run(Duration::from_secs(1));
    assert_eq!(world.closed(silent), Some(CloseReason::NotAttached));
    world.run(ATTACH_DEADLINE - FIRST_MESSAGE_DEADLINE - Duration::from_secs(1));
    assert_eq!(world.closed(slow), None);
    world.run(Duration::from_secs(1));
    assert!(world.closed(slow).is_some());
}

#[test]
fn connections_are_bounded() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits { connections: 4, ..Limits::default() });
    let first = world.knock(&network, HERE).unwrap();
    for number in 1..=3 {
        world.join(&network, &network.member(number));
    }
    assert_eq!(world.knock(&network, HERE), Err(TurnedAway::Full));
    world.server.handle_closed(first, world.now.instant);
    assert!(world.knock(&network, HERE).is_ok());
}

#[test]
fn whoever_holds_most_places_without_attaching_makes_way_for_others() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits { unattached: 8, ..Limits::default() });
    let crowd = |number| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, number, 0, 0, 1));
    let held: Vec<_> = (0..8).map(|n| world.knock(&network, crowd(n)).unwrap()).collect();
    assert_eq!(world.knock(&network, crowd(9)), Err(TurnedAway::Full), "it has its share");
    world.join(&network, &network.member(1));
    assert_eq!(world.closed(held[0]), Some(CloseReason::Displaced));
    assert_eq!(world.closed(held[1]), None);
    let report = world.server.report_load(network.id(), 0);
    assert_eq!(report.strangers, 2, "one was turned away, another closed");
}

#[test]
fn of_equals_the_oldest_makes_way_once_it_had_time_to_attach() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits { unattached: 3, ..Limits::default() });
    let source = |number| IpAddr::V4(Ipv4Addr::new(198, 51, 100, number));
    let held: Vec<_> = (0..3).map(|n| world.knock(&network, source(n)).unwrap()).collect();
    assert_eq!(world.knock(&network, source(4)), Err(TurnedAway::Full));
    world.run(Duration::from_secs(4));
    assert!(world.knock(&network, source(4)).is_ok());
    world.settle();
    assert_eq!(world.closed(held[0]), Some(CloseReason::Displaced));
    assert_eq!(world.closed(held[1]), None);
}

#[test]
fn a_path_that_somebody_saw_does_not_open_any_number_of_connections() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let path = network.secret.path(Service::Relay, [7; 16]);
    let open = |world: &mut World| {
        let recognised = world.server.recognise(&path).expect("the relay serves this network");
        world.server.handle_open(recognised, HERE, world.now)
    };
    let opened = (0..100).filter(|_| open(&mut world).is_ok()).count();
    assert!((2..=16).contains(&opened), "{opened}");
    assert_eq!(open(&mut world), Err(TurnedAway::SamePath));
}

#[test]
fn a_changed_message_ends_the_link() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &alice);
    let now = world.now;
    world.client(a).machine.send(FlowId(1), frame(bob.key.id(), b"x"), now.instant).unwrap();
    let mut message = world.client(a).machine.poll_message(now.instant).unwrap();
    message[10] ^= 1;
    world.server.handle_message(a, message, &mut world.rng, now);
    world.settle();
    assert_eq!(world.closed(a), Some(CloseReason::Link(LinkError::Hop(HopError::BadTag))));
}

#[test]
fn a_removed_network_is_not_recognised_and_its_members_leave() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &network.member(1));
    world.server.remove_network(network.id(), world.now);
    world.settle();
    assert_eq!(world.take_events(a), [ClientEvent::Refused(Refusal::NetworkRemoved)]);
    let path = network.secret.path(Service::Relay, [1; 16]);
    assert!(world.server.recognise(&path).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_bytes_never_panic_on_either_side(
        message in proptest::collection::vec(any::<u8>(), 0..400),
        attached: bool,
    ) {
        let network = Network::new(1);
        let alice = network.member(1);
        let mut world = World::new(&[&network], Limits::default());
        let id = if attached {
            world.join(&network, &alice)
        } else {
            let (recognised, _) = world.recognise(&network.secret);
            world.server.handle_open(recognised, HERE, world.now).unwrap()
        };
        world.server.handle_message(id, message.clone(), &mut world.rng, world.now);
        world.events.extend(std::iter::from_fn(|| world.server.poll_event()));
        prop_assert!(world.closed(id).is_some());
        if let Some(client) = world.clients.get_mut(&id) {
            client.machine.handle_message(message, &mut world.rng, world.now);
            prop_assert!(client.machine.is_closed());
        }
    }
}

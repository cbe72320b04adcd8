//! A relay on real sockets of the loopback interface.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use control_proto::limits::CAPABILITY;
use frame_proto::{FrameType, compose, payload, payload_mut};
use identity::{
    Attachment, Binding, Certificate, CertificateChain, ChannelKey, DelegatedKey, Delegation,
    DeviceId, DeviceKey, IssueLimits, NetworkId, NetworkKey, Padding, Revocations, Scope, Serial,
    Signed, TunnelKey, UnixTime, Validity, device_address,
};
use noise_channel::{ClockOffset, Now, PathSecret, Service, StaticSecret, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use relay::{Capture, Limits, Relay, RelayConfig, RelayNetwork};
use relay_proto::limits::CLIENT_QUEUE_BYTES;
use relay_proto::{
    CircuitBinding, CircuitKey, CircuitOffer, ClientConfig, ClientEvent, FlowId, HEAD_LEN, Head,
    RelayClient,
};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use websocket::{Endpoint, Listener, Receiver, Sender, ServerCertificate, Tls, dial, generate_key};

const DEADLINE: Duration = Duration::from_secs(20);
const WEEK: u64 = 7 * 24 * 3600;

fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    let wall = UnixMillis(u64::try_from(wall.as_millis()).expect("the clock is before 2500"));
    Now { instant: Instant::now(), wall }
}

/// A network that one relay serves.
struct Network {
    root: NetworkKey,
    issuer: DelegatedKey,
    relay: DeviceKey,
    relay_channel: ChannelKey,
    secret: PathSecret,
    start: UnixTime,
}

impl Network {
    fn new() -> Self {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        Self {
            root: NetworkKey::generate(rng),
            issuer: DelegatedKey::generate(rng),
            relay: DeviceKey::generate(rng),
            relay_channel: ChannelKey::generate(rng),
            secret: PathSecret::from_bytes([7; 32]),
            start: UnixTime(now().wall.as_secs()),
        }
    }

    fn id(&self) -> NetworkId {
        self.root.id()
    }

    fn served(&self) -> RelayNetwork {
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

    fn chain(&self, device: DeviceId, number: u8) -> CertificateChain {
        let delegation = Delegation {
            network: self.id(),
            scope: Scope::Issue,
            key: self.issuer.id(),
            validity: Validity::starting(self.start, WEEK),
            limits: IssueLimits::default(),
        };
        let certificate = Certificate {
            device,
            name: format!("device-{number}").parse().expect("a good name"),
            groups: Vec::new(),
            address: device_address(self.id(), device, 0),
            counter: 0,
            validity: Validity::starting(self.start, WEEK),
            serial: Serial(u64::from(number)),
        };
        CertificateChain {
            delegation: Signed::sign(self.id(), &self.root, &delegation),
            grant: None,
            certificate: Signed::sign(self.id(), &self.issuer, &certificate),
            renewal: None,
        }
    }

    fn config(&self, number: u8, nonce: [u8; 16]) -> (DeviceId, ClientConfig) {
        let rng = &mut ChaCha20Rng::from_seed([number; 32]);
        let (key, channel) = (DeviceKey::generate(rng), ChannelKey::generate(rng));
        let binding = Binding {
            device: key.id(),
            tunnel_key: TunnelKey::generate(rng).public(),
            channel_key: channel.public(),
            number: 1,
            not_after: self.start.plus(WEEK),
            capability: 1,
        };
        let attachment = Attachment { relay: self.relay.id(), number: 1 };
        let config = ClientConfig {
            network: self.id(),
            relay: self.relay.id(),
            static_key: StaticSecret::from_bytes(*channel.to_bytes()),
            relay_key: *self.relay_channel.public().as_bytes(),
            mask: self.secret.mask(Service::Relay, nonce),
            capability: 1,
            clock_offset: ClockOffset(0),
            chain: self.chain(key.id(), number),
            binding: Signed::sign(self.id(), &key, &binding),
            attachment: Signed::sign(self.id(), &key, &attachment),
            is_relay: false,
        };
        (key.id(), config)
    }
}

/// A client machine on a real WebSocket.
struct Client {
    device: DeviceId,
    machine: RelayClient,
    sender: Sender,
    receiver: Receiver,
    rng: ChaCha20Rng,
}

impl Client {
    async fn attach(network: &Network, number: u8, address: SocketAddr, tls: Tls) -> Self {
        let mut rng = ChaCha20Rng::from_seed([number + 100; 32]);
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let (device, config) = network.config(number, nonce);
        let endpoint = Endpoint {
            addresses: vec![address],
            host: "relay.test".to_owned(),
            tls,
            path: network.secret.path(Service::Relay, nonce),
            mark: None,
            detour: None,
        };
        let (sender, receiver) = dial(&endpoint).await.expect("the relay listens").split();
        let machine = RelayClient::new(config, &mut rng, now()).expect("the key is usable");
        let mut client = Self { device, machine, sender, receiver, rng };
        assert_eq!(client.next().await, ClientEvent::Attached { capability: CAPABILITY });
        client
    }

    async fn flush(&mut self) {
        while let Some(message) = self.machine.poll_message(Instant::now()) {
            self.sender.feed(message.freeze()).await.expect("the relay takes messages");
        }
        self.sender.flush().await.expect("the relay takes messages");
    }

    async fn send(&mut self, frame: BytesMut) {
        self.machine.send(FlowId(1), frame, Instant::now()).expect("the link is open");
        self.flush().await;
    }

    /// The next event, for which the relay is read if need be.
    async fn next(&mut self) -> ClientEvent {
        timeout(DEADLINE, async {
            loop {
                self.flush().await;
                if let Some(event) = self.machine.poll_event() {
                    return event;
                }
                let message = self.receiver.receive().await.expect("the relay goes on");
                let message = message.expect("the relay does not close");
                self.machine.handle_message(message, &mut self.rng, now());
            }
        })
        .await
        .expect("something happens in time")
    }
}

fn frame(peer: DeviceId, text: &[u8]) -> BytesMut {
    let mut frame = BytesMut::zeroed(64 + text.len() + 16);
    compose(FrameType::Data, peer, &mut frame).expect("the payload fits");
    payload_mut(&mut frame).copy_from_slice(text);
    frame
}

async fn relay(network: &Network, config: RelayConfig) -> (Relay, SocketAddr) {
    let relay = Relay::start(config).expect("STUN can be bound");
    relay.add_network(network.served());
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), None).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    relay.listen(listener);
    (relay, address)
}

#[tokio::test]
async fn two_clients_exchange_frames_and_the_relay_sees_no_header() {
    let network = Network::new();
    let capture = Capture::with_limit(1 << 20);
    let config = RelayConfig { capture: Some(capture.clone()), ..RelayConfig::default() };
    let (relay, address) = relay(&network, config).await;
    let mut alice = Client::attach(&network, 1, address, Tls::Plain).await;
    let mut bob = Client::attach(&network, 2, address, Tls::Plain).await;
    alice.send(frame(bob.device, b"sealed for bob")).await;
    assert_eq!(bob.next().await, ClientEvent::Frame(frame(alice.device, b"sealed for bob")));
    bob.send(frame(alice.device, b"sealed for alice")).await;
    assert_eq!(alice.next().await, ClientEvent::Frame(frame(bob.device, b"sealed for alice")));
    assert_eq!(relay.attached(network.id()).len(), 2);
    assert_eq!(relay.take_load(network.id()).attached, 2);
    assert!(capture.contains(b"sealed for bob"), "the payload is the peers' to seal");
    assert!(!capture.contains(&bob.device.as_bytes()[..8]), "the header is hidden");
}

#[tokio::test]
async fn the_relay_can_be_reached_over_pinned_tls() {
    let network = Network::new();
    let relay = Relay::start(RelayConfig::default()).unwrap();
    relay.add_network(network.served());
    let certificate =
        ServerCertificate::self_signed(&generate_key(), vec!["relay.test".to_owned()]).unwrap();
    let pin = certificate.pin();
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = Listener::bind(address, Some(certificate)).await.unwrap();
    let address = listener.local_addr().unwrap();
    relay.listen(listener);
    let mut alice = Client::attach(&network, 1, address, Tls::Pin(pin)).await;
    let nobody = network.relay.id();
    alice.send(frame(nobody, b"x")).await;
    assert_eq!(alice.next().await, ClientEvent::Unreachable(nobody));
}

#[tokio::test]
async fn a_path_without_the_secret_is_answered_like_any_unknown_one() {
    let network = Network::new();
    let (relay, address) = relay(&network, RelayConfig::default()).await;
    let stranger = PathSecret::from_bytes([8; 32]).path(Service::Relay, [1; 16]);
    assert!(!relay.claims(&stranger));
    assert!(relay.claims(&network.secret.path(Service::Relay, [1; 16])));
    let endpoint = Endpoint {
        addresses: vec![address],
        host: "relay.test".to_owned(),
        tls: Tls::Plain,
        path: stranger,
        mark: None,
        detour: None,
    };
    assert!(dial(&endpoint).await.is_err());
}

#[tokio::test]
async fn a_burst_arrives_whole_and_in_its_order_also_from_who_goes_right_after_it() {
    const BURST: u16 = 300;
    let network = Network::new();
    let (_relay, address) = relay(&network, RelayConfig::default()).await;
    let mut alice = Client::attach(&network, 1, address, Tls::Plain).await;
    let mut bob = Client::attach(&network, 2, address, Tls::Plain).await;
    for number in 0..BURST {
        let frame = frame(bob.device, &number.to_be_bytes());
        alice.machine.send(FlowId(1), frame, Instant::now()).expect("the link is open");
    }
    alice.flush().await;
    let from = alice.device;
    alice.sender.close().await;
    for number in 0..BURST {
        let sent = frame(from, &number.to_be_bytes());
        assert_eq!(bob.next().await, ClientEvent::Frame(sent));
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4_096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_loses_frames_and_costs_bounded_memory() {
    let network = Network::new();
    let (relay, address) = relay(&network, RelayConfig::default()).await;
    let mut alice = Client::attach(&network, 1, address, Tls::Plain).await;
    let mut slow = Client::attach(&network, 2, address, Tls::Plain).await;
    let mut witness = Client::attach(&network, 3, address, Tls::Plain).await;
    let payload_bytes = vec![5; 16_000];
    // Fills the queues of the system, which are not ours, and warms the allocator up.
    for _ in 0..1_000 {
        alice.send(frame(slow.device, &payload_bytes)).await;
    }
    let before = resident();
    for _ in 0..5_000 {
        alice.send(frame(slow.device, &payload_bytes)).await;
    }
    alice.send(frame(witness.device, b"done")).await;
    assert_eq!(witness.next().await, ClientEvent::Frame(frame(alice.device, b"done")));
    let grown = resident().saturating_sub(before);
    // Both ends of all links are in this process.
    let bound = 3 * (Limits::default().queue_bytes + CLIENT_QUEUE_BYTES) as u64;
    assert!(grown <= bound, "80 MB were sent, memory grew by {grown}, queues hold {bound}");
    let load = relay.take_load(network.id());
    assert!(load.frames_dropped > 1_000, "{load:?}");
    assert!(load.queued_bytes <= Limits::default().queue_bytes as u64, "{load:?}");
    assert!(load.cpu_permille > 0, "{load:?}");
    let ClientEvent::Frame(first) = slow.next().await else { panic!("a frame is first") };
    assert_eq!(payload(&first), payload_bytes);
}

#[tokio::test]
async fn a_stream_that_takes_nothing_any_more_is_given_up() {
    let network = Network::new();
    let (relay, address) = relay(&network, RelayConfig::default()).await;
    let mut alice = Client::attach(&network, 1, address, Tls::Plain).await;
    let stuck = Client::attach(&network, 2, address, Tls::Plain).await;
    for _ in 0..1_000 {
        alice.send(frame(stuck.device, &[5; 16_000])).await;
    }
    assert_eq!(relay.attached(network.id()).len(), 2);
    tokio::time::pause();
    let mut attempts = 0..1_000;
    while relay.attached(network.id()).len() > 1 {
        attempts.next().expect("it is given up in time");
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert_eq!(relay.attached(network.id()), [alice.device]);
}

#[tokio::test]
async fn stun_tells_both_kinds_of_clients_their_address() {
    let stun = vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    let relay = Relay::start(RelayConfig { stun, ..RelayConfig::default() }).unwrap();
    for server in relay.stun_addresses() {
        let socket = UdpSocket::bind(SocketAddr::new(server.ip(), 0)).await.unwrap();
        socket.send_to(b"not STUN at all, and no answer to it", server).await.unwrap();
        socket.send_to(&path::stun::binding_request([3; 12]), server).await.unwrap();
        let mut buffer = [0; 1_280];
        let received = timeout(DEADLINE, socket.recv_from(&mut buffer)).await.unwrap();
        let (length, _) = received.unwrap();
        let (transaction, address) = path::stun::parse_response(&buffer[..length]).unwrap();
        assert_eq!((transaction, address), ([3; 12], socket.local_addr().unwrap()));
    }
}

#[tokio::test]
async fn a_stun_server_with_two_ports_answers_from_the_other_one_if_it_is_asked_to() {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    for more_stun in [vec![free], Vec::new()] {
        let config = RelayConfig { stun: vec![free], more_stun, ..RelayConfig::default() };
        let relay = Relay::start(config).unwrap();
        let servers = relay.stun_addresses();
        let socket = UdpSocket::bind(free).await.unwrap();
        let request = path::stun::binding_request_for_other_port([4; 12]);
        for (server, other) in servers.iter().zip(servers.iter().rev()) {
            socket.send_to(&request, server).await.unwrap();
            let mut buffer = [0; 1_280];
            let received = timeout(DEADLINE, socket.recv_from(&mut buffer)).await.unwrap();
            let (length, from) = received.unwrap();
            let reply = path::stun::parse_reply(&buffer[..length]).unwrap();
            let seen = path::stun::Reply::Address([4; 12], socket.local_addr().unwrap());
            let refused = path::stun::Reply::Error([4; 12]);
            let expected = if servers.len() == 2 { (*other, seen) } else { (*server, refused) };
            assert_eq!((from, reply), expected);
        }
    }
}

#[tokio::test]
async fn a_second_port_for_stun_is_used_if_it_is_free() {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let taken = UdpSocket::bind(free).await.unwrap().local_addr().unwrap();
    let relay = async |more_stun| {
        let config = RelayConfig { stun: vec![free], more_stun, ..RelayConfig::default() };
        Relay::start(config).unwrap()
    };
    assert_eq!(relay(vec![free]).await.stun_addresses().len(), 2);
    let holder = UdpSocket::bind(taken).await.unwrap();
    assert_eq!(relay(vec![holder.local_addr().unwrap()]).await.stun_addresses().len(), 1);
}

/// One end of a circuit, on a socket of its own.
struct End {
    socket: platform::UdpSocket,
    relay: SocketAddr,
    binding: CircuitBinding,
    batch: platform::ReceiveBatch,
}

impl End {
    fn new(relay: SocketAddr, number: u32, key: CircuitKey) -> Self {
        let config = match relay {
            SocketAddr::V4(_) => platform::UdpConfig::ipv4(0),
            SocketAddr::V6(_) => platform::UdpConfig::ipv6(0),
        };
        let socket = platform::UdpSocket::bind(&config).expect("a free port");
        let binding = CircuitBinding::new(number, key, Instant::now());
        Self { socket, relay, binding, batch: platform::ReceiveBatch::new(4) }
    }

    fn send(&self, bytes: &[u8], segment: Option<u16>) {
        let transmit = platform::Transmit { destination: self.relay, source: None, segment, bytes };
        assert_eq!(self.socket.send(&transmit), platform::Delivery::Sent);
    }

    /// The datagrams that come next.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        let begin = Instant::now();
        while !self.socket.receive(&mut self.batch).expect("the socket works") {
            assert!(begin.elapsed() < DEADLINE, "something arrives in time");
            std::thread::sleep(Duration::from_millis(1));
        }
        let (relay, datagrams) = (self.relay, self.batch.datagrams());
        let of_relay = datagrams.inspect(|datagram| assert_eq!(datagram.remote, relay));
        of_relay.flat_map(platform::udp::Datagram::segments).map(|it| it.to_vec()).collect()
    }

    fn bind(&mut self) {
        while let Some(message) = self.binding.poll_transmit(Instant::now()) {
            self.send(&message, None);
            for answer in self.receive() {
                assert!(self.binding.handle_answer(&answer, Instant::now()));
            }
        }
        assert!(self.binding.is_bound());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_are_passed_on_from_one_address_family_to_the_other_many_at_once() {
    const LENGTH: usize = 1_000;
    const COUNT: usize = 60;
    let network = Network::new();
    let stun = vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    let (relay, address) = relay(&network, RelayConfig { stun, ..RelayConfig::default() }).await;
    let mut alice = Client::attach(&network, 1, address, Tls::Plain).await;
    let peer = DeviceId::from_bytes([9; 32]);
    alice.machine.request_circuit(peer, Instant::now());
    let ClientEvent::Circuit(of, Some(offer)) = alice.next().await else {
        panic!("the relay passes datagrams on")
    };
    assert_eq!(of, peer);
    let CircuitOffer { number, keys: [own, other] } = offer;
    let [v4, v6] = relay.stun_addresses() else { panic!("it has two sockets") };
    let (mut one, mut other) = (End::new(*v4, number, own), End::new(*v6, number, other));
    one.bind();
    other.bind();
    let datagram = |number: u32, fill: usize| {
        [Head::ascending(number).bytes(), &vec![fill as u8; LENGTH - HEAD_LEN]].concat()
    };
    // Those of a circuit that is not there go nowhere, and hold nothing up.
    let number_of = |index: usize| if index == 7 { number ^ 1 } else { number };
    let all: Vec<_> = (0..COUNT).map(|index| datagram(number_of(index), index)).collect();
    one.send(&all.concat(), Some(LENGTH as u16));
    let mut arrived = Vec::new();
    while arrived.len() < COUNT - 1 {
        arrived.extend(other.receive());
    }
    let mut expected: Vec<_> = all.into_iter().filter(|it| it[4] != 7).collect();
    expected.iter_mut().for_each(|datagram| Head::descend(datagram));
    assert!(arrived == expected, "each arrives once, whole and in its order");
    other.send(&datagram(number, 200), None);
    assert_eq!(one.receive().len(), 1);
    let load = relay.take_load(network.id());
    assert!(load.bytes_forwarded >= (COUNT * LENGTH) as u64, "{load:?}");
}

#[tokio::test]
async fn a_relay_that_is_to_pass_nothing_on_says_so() {
    let network = Network::new();
    let limits = Limits { circuits: 0, ..Limits::default() };
    let (_relay, address) = relay(&network, RelayConfig { limits, ..RelayConfig::default() }).await;
    let mut alice = Client::attach(&network, 1, address, Tls::Plain).await;
    let peer = DeviceId::from_bytes([9; 32]);
    alice.machine.request_circuit(peer, Instant::now());
    assert_eq!(alice.next().await, ClientEvent::Circuit(peer, None));
}

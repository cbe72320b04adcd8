//! What is given bytes from outside, each as one function over bytes that must neither panic nor take long.
//!
//! `tests/fuzz.rs` runs every target over its corpus and random changes of it; `make fuzz` runs one of them under
//! coverage guidance for as long as wanted. A corpus is a text of hexadecimal lines in `testlab/corpus`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use control_proto::{
    ControllerMessage, MapChunk, MapItem, MapVersion, NetworkMap, NodeMessage, Outline, Unsigned,
};
use data_encoding::HEXLOWER;
use frame_proto::{Ends, FrameKeys, HelloKey, HopKey, HopOpener, OffloadHeader, introduced_key};
use identity::{
    Binding, CertificateChain, DeviceId, Endpoints, Invite, NetworkId, Record, RelayEntry,
    Revocations, Signed, TunnelKey, UnixTime,
};
use naming::{Limit, Namespace, Zone};
use netstack::proxy::socks;
use noise_channel::{
    Channel, MessageClass, Now, PathSecret, ReplayGuard, ResponderConfig, Service, StaticSecret,
    UnixMillis,
};
use packet::{Coalescer, Merging, Offload, Packet, Segments, build};
use path::{Message, stun};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use wireguard_proto::{Interface, InterfaceConfig, LoadLimits, PeerConfig, PrivateKey, Tai64N};

/// A name, and what is given the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 13] = [
    ("frame", frame),
    ("hop", hop),
    ("channel", channel),
    ("control-message", control_message),
    ("map", map),
    ("identity", identity_statement),
    ("invite", invite),
    ("disco", disco),
    ("names", names),
    ("packet", ip_packet),
    ("socks", socks_messages),
    ("uapi", uapi),
    ("wireguard", wireguard),
];

const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 51_820);

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, run)| *run)
}

/// Where the corpus of a target lies.
#[must_use]
pub fn corpus_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("corpus/{name}.txt"))
}

/// The inputs of a corpus, one a line, with comments between.
///
/// # Panics
/// If the text is none.
#[must_use]
pub fn corpus(text: &str) -> Vec<Vec<u8>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| HEXLOWER.decode(line.as_bytes()).expect("hexadecimal digits")).collect()
}

fn now() -> Now {
    Now { instant: Instant::now(), wall: UnixMillis(1_800_000_000_000) }
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

fn ends() -> Ends {
    let (local, remote) = (DeviceId::from_bytes([1; 32]), DeviceId::from_bytes([2; 32]));
    Ends { network: NETWORK, local, remote }
}

fn frame(bytes: &[u8]) {
    let Ok(header) = frame_proto::parse(bytes) else { return };
    assert_eq!(header.encode(), bytes[..frame_proto::HEADER_LENGTH]);
    let _ = introduced_key(bytes);
    if let Ok((head, packet)) = OffloadHeader::split(frame_proto::payload(bytes)) {
        let _ = head.check(packet);
    }
    let ours = TunnelKey::from_bytes(&[3; 32]);
    let theirs = TunnelKey::from_bytes(&[4; 32]).public();
    let hello = HelloKey::new(ends(), &ours, &theirs).expect("a proper key");
    assert!(hello.open(&mut bytes.to_vec()).is_err(), "nobody has the key");
    let (send, receive) = ([1; 32].into(), [2; 32].into());
    let keys = FrameKeys { send, receive, remote_index: 1, local_index: 2 };
    assert!(keys.split(ends()).1.open(&mut bytes.to_vec()).is_err(), "nobody has the key");
}

fn hop(bytes: &[u8]) {
    let mut opener = HopOpener::new(&HopKey::from_bytes(&[5; 32]));
    for message in parts(bytes) {
        assert!(opener.open(&mut message.to_vec()).is_err(), "nobody has the key");
    }
}

fn channel(bytes: &[u8]) {
    let (rng, now) = (&mut rng(), now());
    let secret = PathSecret::from_bytes([3; 32]);
    let path = String::from_utf8_lossy(bytes);
    let _ = secret.recognise(Service::Relay, &path);
    let config = ResponderConfig {
        static_key: StaticSecret::from_bytes([2; 32]),
        prologue: NETWORK.as_bytes().to_vec(),
        mask: secret.mask(Service::Control, [4; 16]),
        capability: 1,
        replay: ReplayGuard::default(),
    };
    let mut responder = Channel::respond(config, now);
    for message in parts(bytes) {
        responder.handle_message(message, rng, now);
        while responder.poll_message().is_some() || responder.poll_event().is_some() {}
    }
    let _ = responder.send(bytes, MessageClass::Counted, now.instant);
    assert!(!responder.is_open(), "nobody has a key");
}

fn control_message(bytes: &[u8]) {
    if let Ok(message) = NodeMessage::from_bytes(bytes) {
        let again = NodeMessage::from_bytes(&message.to_bytes());
        assert!(again.is_ok(), "what was read can be written and read again");
    }
    if let Ok(message) = ControllerMessage::from_bytes(bytes) {
        let again = ControllerMessage::from_bytes(&message.to_bytes());
        assert!(again.is_ok(), "what was read can be written and read again");
    }
}

fn map(bytes: &[u8]) {
    let now = UnixTime(1_800_000_000);
    if let Ok((map, _)) = NetworkMap::from_bytes(NETWORK, bytes, now) {
        assert_eq!(map.peers().count(), 0, "nobody has the network's key");
    }
    let items: Vec<_> = parts(bytes).map(|item| item.to_vec().into()).collect();
    for item in parts(bytes) {
        if let Some(item) = MapItem::from_bytes(item) {
            assert!(MapItem::from_bytes(&item.to_bytes()).is_some());
        }
    }
    let version = MapVersion { epoch: 0, number: 1 };
    let mut map = NetworkMap::new(NETWORK);
    let _ = map.apply(&MapChunk { base: None, version, items, last: true }, now);
    assert_eq!(map.peers().count(), 0, "nobody has the network's key");
}

fn identity_statement(bytes: &[u8]) {
    let (device, now) = (DeviceId::from_bytes([1; 32]), UnixTime(1_800_000_000));
    if let Ok(chain) = CertificateChain::from_bytes(bytes) {
        let _ = chain.targets();
        let verdict = chain.verify(NETWORK, now, &Revocations::new(NETWORK));
        assert!(verdict.is_err(), "nobody has the network's key");
    }
    if let Ok(signed) = Signed::<Binding>::from_bytes(bytes) {
        assert!(signed.verify(NETWORK, device).is_err());
    }
    if let Ok(signed) = Signed::<Endpoints>::from_bytes(bytes) {
        assert!(signed.verify(NETWORK, device).is_err());
    }
    if let Ok(signed) = Signed::<Record<RelayEntry>>::from_bytes(bytes) {
        assert!(signed.verify(NETWORK, device).is_err());
    }
}

fn invite(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(invite) = text.parse::<Invite>() {
        let _ = invite.grant();
        assert!(invite.to_string().parse::<Invite>().is_ok());
    }
    let _ = text.parse::<Outline>();
    let _ = text.parse::<Unsigned>();
}

fn disco(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
    }
    let _ = stun::parse_response(bytes);
    if let Some(answer) = stun::answer(bytes, HERE) {
        assert_eq!(stun::parse_response(&answer).map(|(_, address)| address), Some(HERE));
    }
}

fn names(bytes: &[u8]) {
    let mut zone = Zone::new("home").expect("a label");
    zone.add_prefix(IpAddr::from([100, 64, 0, 0]), 16).expect("a prefix");
    let names = Namespace::new(vec![zone], 1).expect("one zone");
    for limit in [Limit::Udp, Limit::Tcp] {
        let _ = names.answer(bytes, limit);
    }
    let _ = names.lookup(&String::from_utf8_lossy(bytes));
}

fn ip_packet(bytes: &[u8]) {
    let Some((header, bytes)) = bytes.split_first_chunk::<10>() else { return };
    if let Ok(view) = Packet::parse(bytes) {
        let _ = (view.source(), view.destination(), view.transport());
        let _ = (view.check_header(), view.transport_checksum_is_valid());
        let _ = build::echo_reply(&view);
        let mut sink = |_: &Offload, _: &[&[u8]]| {};
        let mut coalescer = Coalescer::new(Merging::ALL);
        coalescer.push(view, &mut sink);
        coalescer.push(view, &mut sink);
        coalescer.finish(&mut sink);
    }
    let Ok(offload) = Offload::from_virtio(header) else { return };
    let _ = offload.validate(bytes);
    if let Ok(plan) = Segments::plan(&offload, bytes) {
        for index in 0..plan.count() {
            plan.write(index, &mut vec![0; plan.length(index)]);
        }
    }
}

fn socks_messages(bytes: &[u8]) {
    let used = [
        socks::parse_greeting(bytes).ok().flatten().map(|(_, used)| used),
        socks::parse_login(bytes).ok().flatten().map(|(_, used)| used),
        socks::parse_request(bytes).ok().flatten().map(|(_, used)| used),
    ];
    assert!(used.into_iter().flatten().all(|used| used <= bytes.len()));
    let _ = socks::parse_datagram(bytes);
}

fn uapi(bytes: &[u8]) {
    let _ = wireguard::uapi::Request::parse(&String::from_utf8_lossy(bytes));
}

fn wireguard(bytes: &[u8]) {
    let (rng, now) = (&mut rng(), now());
    let config = InterfaceConfig {
        private_key: PrivateKey::from_bytes([1; 32]),
        rekey_after_bytes: None,
        limits: LoadLimits::default(),
        last_timestamp: Tai64N::default(),
        wall: Duration::from_millis(now.wall.0),
    };
    let mut interface = Interface::new(config, now.instant);
    let peer = PrivateKey::from_bytes([2; 32]).public_key();
    let config = PeerConfig { endpoint: Some(HERE), ..PeerConfig::default() };
    interface.add_peer(peer, config, now.instant);
    interface.initiate(&peer, rng, now.instant);
    for message in parts(bytes) {
        let mut message = message.to_vec();
        let taken = interface.handle_datagram(&mut message, HERE, rng, now.instant).is_ok();
        assert!(!taken, "nobody has a key");
    }
}

/// Several messages in one input: each begins with its length in two bytes, the last may be shorter.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let part;
        (part, bytes) = rest.split_at(length);
        Some(part)
    })
}

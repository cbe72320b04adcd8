//! What peers and strangers send: frames, channels, disco, packets, WireGuard.

use std::time::Duration;

use frame_proto::{Ends, FrameKeys, HelloKey, HopKey, HopOpener, OffloadHeader, introduced_key};
use identity::{DeviceId, TunnelKey};
use noise_channel::{
    Channel, ClockOffset, InitiatorConfig, MessageClass, PathSecret, ReplayGuard, ResponderConfig,
    Service, StaticSecret,
};
use packet::{Coalescer, Merging, Offload, Packet, Segments, build};
use path::{Message, stun, stun::Port};
use relay_proto::{CircuitBinding, Circuits, Head, Limits, Place};
use wireguard_proto::{Interface, InterfaceConfig, LoadLimits, PeerConfig, PrivateKey, Tai64N};
use zeroize::Zeroizing;

use super::{HERE, NETWORK, now, parts, rng};

fn ends() -> Ends {
    let (local, remote) = (DeviceId::from_bytes([1; 32]), DeviceId::from_bytes([2; 32]));
    Ends { network: NETWORK, local, remote }
}

pub(super) fn frame(bytes: &[u8]) {
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
    let keys = FrameKeys { send, receive, remote_index: 1, local_index: 2, has_aes: true };
    assert!(keys.split(ends()).1.open(&mut bytes.to_vec()).is_err(), "nobody has the key");
}

pub(super) fn turn(bytes: &[u8]) {
    let (rng, now) = (&mut rng(), now().instant);
    for transport in [turn_proto::Transport::Udp, turn_proto::Transport::Tcp] {
        let secret = Zeroizing::new("secret".to_owned());
        let login = turn_proto::Credentials::Shared { secret, name: "fuzz".to_owned() }.login(0);
        let mut client = turn_proto::Client::new(transport, login, now);
        client.handle_timeout(rng, now);
        for message in parts(bytes) {
            client.handle_bytes(message, rng, now);
            client.send(HERE, message, rng, now);
        }
        while let Some(event) = client.poll_event() {
            assert!(matches!(event, turn_proto::Event::Failed(_)), "nobody has the secret");
        }
    }
}

pub(super) fn hop(bytes: &[u8]) {
    let mut opener = HopOpener::new(&HopKey::from_bytes(&[5; 32]));
    for message in parts(bytes) {
        assert!(opener.open(&mut message.to_vec()).is_err(), "nobody has the key");
    }
}

pub(super) fn channel(bytes: &[u8]) {
    let (rng, now) = (&mut rng(), now());
    let secret = PathSecret::from_bytes([3; 32]);
    let path = String::from_utf8_lossy(bytes);
    let _ = secret.recognise(Service::Relay, &path);
    let mask = secret.mask(Service::Control, [4; 16]);
    let responder = ResponderConfig {
        static_key: StaticSecret::from_bytes([2; 32]),
        prologue: NETWORK.as_bytes().to_vec(),
        mask: mask.clone(),
        capability: 1,
        replay: ReplayGuard::default(),
    };
    let initiator = InitiatorConfig {
        static_key: StaticSecret::from_bytes([5; 32]),
        remote_static: StaticSecret::from_bytes([6; 32]).public(),
        prologue: NETWORK.as_bytes().to_vec(),
        mask,
        capability: 1,
        clock_offset: ClockOffset(0),
    };
    let initiator = Channel::initiate(initiator, rng, now).expect("a proper key");
    for mut channel in [Channel::respond(responder, now), initiator] {
        for message in parts(bytes) {
            channel.handle_message(message, rng, now);
            while channel.poll_message().is_some() || channel.poll_event().is_some() {}
        }
        let _ = channel.send(bytes, MessageClass::Counted, now.instant);
        assert!(!channel.is_open(), "nobody has a key");
    }
}

/// What comes to a relay's UDP sockets, or to an end of a circuit over it.
fn circuits(bytes: &[u8]) {
    let (rng, now) = (&mut rng(), now().instant);
    let mut circuits = Circuits::new((10, Limits::default().bytes), rng, now);
    let ends = [[1; 32], [2; 32]].map(DeviceId::from_bytes);
    let offer = circuits.open(NETWORK, ends, rng, now).expect("there is room");
    let from = Place { socket: 0, local: None, remote: HERE };
    assert_eq!(circuits.handle_bind(from, bytes, now), None, "nobody has a key");
    if let Some(head) = Head::of(bytes) {
        assert_eq!(circuits.pass_on(&from, head, bytes.len() as u64, now), None);
    }
    let [key, _] = offer.keys;
    let mut end = CircuitBinding::new(offer.number, key, now);
    assert!(!end.handle_answer(bytes, now));
}

pub(super) fn disco(bytes: &[u8]) {
    circuits(bytes);
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
    }
    let _ = stun::parse_response(bytes);
    for has_other_port in [false, true] {
        let Some(answer) = stun::answer(bytes, HERE, has_other_port) else { continue };
        assert_eq!(answer.to.ip(), HERE.ip());
        if answer.to != HERE || answer.port == Port::Other {
            assert!(has_other_port || answer.port == Port::Asked);
            assert!(answer.bytes.len() <= bytes.len());
        }
        if let Some((_, address)) = stun::parse_response(&answer.bytes) {
            assert_eq!(address, HERE);
        }
    }
}

pub(super) fn ip_packet(bytes: &[u8]) {
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

pub(super) fn wireguard(bytes: &[u8]) {
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

//! Disco messages and STUN on the wire.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use path::{
    BASE_MTU, DecodeError, MAX_MESSAGE, Message, PortSequence, StunClient, TransactionId, stun,
    stun::{Answer, Port},
};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the test writes addresses")
}

#[test]
fn messages_survive_the_round_trip_with_and_without_padding() {
    let transaction = TransactionId([7; 12]);
    for message in [
        Message::Ping { transaction },
        Message::Pong { transaction, arrived: None },
        Message::Pong { transaction, arrived: Some(u32::MAX) },
        Message::CallMeMaybe {
            candidates: vec![address("[2001:db8::1]:9"), address("1.2.3.4:5")],
            ports: None,
        },
        Message::MappingRequest { at: [1, 2, 3, 4].into() },
        Message::Mapping { steady: Some(address("1.2.3.4:5")) },
        Message::Mapping { steady: None },
        Message::Scattered,
        Message::Rendezvous { ports: PortSequence { last: address("1.2.3.4:300"), step: 1 } },
        Message::CircuitRequest { peer: [9; 32] },
        Message::Circuit { peer: [9; 32], number: Some(1 << 24) },
        Message::Circuit { peer: [9; 32], number: None },
        Message::RelayCircuit { relay: [9; 32], number: 1 << 24, key: [8; 16] },
    ] {
        assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        for mtu in [BASE_MTU, 8_920] {
            let padded = message.encode_padded(mtu);
            assert_eq!(padded.len() + 64 + 16, mtu + 16 + 16, "as long as such a packet");
            assert_eq!(Message::decode(&padded).unwrap(), message);
        }
        assert_eq!(message.encode_padded(usize::MAX).len(), MAX_MESSAGE);
    }
}

#[test]
fn a_ping_has_golden_bytes() {
    let message = Message::Ping { transaction: TransactionId([0xab; 12]) };
    let golden = [&[0x82, 0x00, 0x81, 0x4c][..], &[0xab; 12]].concat();
    assert_eq!(message.encode(), golden);
}

#[test]
fn a_circuit_has_golden_bytes() {
    let peer = [0xab; 32];
    let request = [&[0x82, 0x03, 0x81, 0x58, 0x20][..], &peer].concat();
    assert_eq!(Message::CircuitRequest { peer }.encode(), request);
    let granted = [&[0x82, 0x04, 0x82, 0x58, 0x20][..], &peer, &[0x19, 0x01, 0x00]].concat();
    assert_eq!(Message::Circuit { peer, number: Some(256) }.encode(), granted);
    let refused = [&[0x82, 0x04, 0x81, 0x58, 0x20][..], &peer].concat();
    assert_eq!(Message::Circuit { peer, number: None }.encode(), refused);
    let (relay, key) = (peer, [0xcd; 16]);
    let over_a_relay =
        [&[0x82, 0x09, 0x83, 0x58, 0x20][..], &relay, &[0x19, 0x01, 0x00, 0x50], &key].concat();
    assert_eq!(Message::RelayCircuit { relay, number: 256, key }.encode(), over_a_relay);
}

#[test]
fn a_call_has_golden_bytes_with_and_without_ports() {
    let candidates = vec![address("1.2.3.4:5")];
    let plain = Message::CallMeMaybe { candidates: candidates.clone(), ports: None };
    let golden = [0x82, 0x02, 0x81, 0x81, 0x82, 0x00, 0x82, 0x44, 1, 2, 3, 4, 0x05];
    assert_eq!(plain.encode(), golden);
    let ports = Some(PortSequence { last: address("1.2.3.4:300"), step: -2 });
    let counted = Message::CallMeMaybe { candidates, ports };
    let mut golden = golden.to_vec();
    golden[2] = 0x82;
    golden.extend([0x82, 0x82, 0x00, 0x82, 0x44, 1, 2, 3, 4, 0x19, 0x01, 0x2c, 0x21]);
    assert_eq!(counted.encode(), golden);
    assert_eq!(Message::decode(&golden).unwrap(), counted);
}

#[test]
fn a_rendezvous_has_golden_bytes() {
    let ports = PortSequence { last: address("1.2.3.4:300"), step: 1 };
    let golden =
        [0x82, 0x08, 0x81, 0x82, 0x82, 0x00, 0x82, 0x44, 1, 2, 3, 4, 0x19, 0x01, 0x2c, 0x01];
    assert_eq!(Message::Rendezvous { ports }.encode(), golden);
}

#[test]
fn fields_that_came_later_are_passed_over() {
    // What a version after this one may add to a call, and to its ports.
    let mut bytes = vec![0x82, 0x02, 0x83, 0x80];
    bytes.extend([
        0x83, 0x82, 0x00, 0x82, 0x44, 1, 2, 3, 4, 0x05, 0x01, 0x63, b'n', b'e', b'w', 0x80,
    ]);
    let ports = Some(PortSequence { last: address("1.2.3.4:5"), step: 1 });
    let known = Message::CallMeMaybe { candidates: Vec::new(), ports };
    assert_eq!(Message::decode(&bytes).unwrap(), known);
}

#[test]
fn a_call_with_seventeen_candidates_is_refused() {
    let candidates = vec![address("1.2.3.4:5"); 17];
    let error =
        Message::decode(&Message::CallMeMaybe { candidates, ports: None }.encode()).unwrap_err();
    assert_eq!(error, DecodeError::TooManyCandidates(17));
}

#[test]
fn a_stun_server_tells_the_client_its_address() {
    for client in ["203.0.113.7:4242", "[2001:db8::7]:4242"] {
        let request = stun::binding_request([9; 12]);
        assert!(stun::is_stun(&request));
        let response = stun::answer(&request, address(client), true).unwrap().bytes;
        assert_eq!(stun::parse_response(&response).unwrap(), ([9; 12], address(client)));
    }
}

#[test]
fn the_ipv4_response_of_rfc_5769_is_understood() {
    // RFC 5769 section 2.2, up to the attributes that need a password.
    let mut response = vec![0x01, 0x01, 0x00, 0x1c, 0x21, 0x12, 0xa4, 0x42];
    response.extend([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
    response.extend([0x80, 0x22, 0x00, 0x0b]);
    response.extend(b"test vector ");
    response.extend([0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    let (_, reflexive) = stun::parse_response(&response).unwrap();
    assert_eq!(reflexive, address("192.0.2.1:32853"));
}

#[test]
fn a_request_with_an_unknown_required_attribute_gets_error_420() {
    let mut request = stun::binding_request([1; 12]);
    request[3] = 8;
    request.extend([0x7f, 0x01, 0x00, 0x04, 1, 2, 3, 4]);
    let response = stun::answer(&request, address("192.0.2.1:1"), true).unwrap().bytes;
    assert_eq!(response[..2], [0x01, 0x11], "binding error response");
    assert!(stun::parse_response(&response).is_none());
}

#[test]
fn an_answer_from_another_port_or_to_one_is_no_longer_than_its_request() {
    for client in ["203.0.113.7:4242", "[2001:db8::7]:4242"].map(address) {
        let seen = |answer: &Answer| stun::parse_response(&answer.bytes).unwrap();
        let request = stun::binding_request_for_other_port([9; 12]);
        let answer = stun::answer(&request, client, true).unwrap();
        assert_eq!((answer.port, answer.to), (Port::Other, client));
        assert_eq!(seen(&answer), ([9; 12], client));
        assert!(answer.bytes.len() <= request.len());

        let request = stun::binding_request_to_port([9; 12], 4_243);
        for has_other_port in [false, true] {
            let answer = stun::answer(&request, client, has_other_port).unwrap();
            assert_eq!(
                (answer.port, answer.to),
                (Port::Asked, SocketAddr::new(client.ip(), 4_243))
            );
            assert_eq!(seen(&answer), ([9; 12], client));
            assert!(answer.bytes.len() <= request.len());
        }

        let bare = |attribute: [u8; 8]| {
            let mut request = stun::binding_request([9; 12]);
            request[3] = 8;
            request.extend(attribute);
            request
        };
        for attribute in [[0, 3, 0, 4, 0, 0, 0, 2], [0, 0x27, 0, 2, 0x10, 0x93, 0, 0]] {
            assert_eq!(stun::answer(&bare(attribute), client, true), None, "it would grow");
        }
        for request in [
            stun::binding_request([9; 12]),
            stun::binding_request_to_port([9; 12], client.port()),
            bare([0, 3, 0, 4, 0, 0, 0, 0]),
        ] {
            let answer = stun::answer(&request, client, true).unwrap();
            assert_eq!((answer.port, answer.to), (Port::Asked, client));
            assert_eq!(seen(&answer), ([9; 12], client));
        }
    }
}

#[test]
fn what_a_server_cannot_change_is_refused_from_where_it_was_asked() {
    let client = address("203.0.113.7:4242");
    let refusal = |request: &[u8], has_other_port| {
        let answer = stun::answer(request, client, has_other_port).unwrap();
        assert_eq!((answer.port, answer.to), (Port::Asked, client));
        assert_eq!(stun::parse_reply(&answer.bytes), Some(stun::Reply::Error([9; 12])));
    };
    let request = stun::binding_request_for_other_port([9; 12]);
    refusal(&request, false);
    for flags in [4, 6] {
        let mut request = request.clone();
        request[27] = flags;
        refusal(&request, true);
    }
    refusal(&stun::binding_request_to_port([9; 12], 0), true);
}

#[test]
fn a_response_is_not_answered() {
    let request = stun::binding_request([1; 12]);
    let response = stun::answer(&request, address("192.0.2.1:1"), true).unwrap().bytes;
    assert_eq!(stun::answer(&response, address("192.0.2.1:1"), true), None);
}

#[test]
fn the_client_learns_refreshes_and_loses_its_reflexive_address() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let mut now = Instant::now();
    let server = address("192.0.2.3:3478");
    let mapped = address("203.0.113.7:4242");
    let mut client = StunClient::new();
    client.handle_servers(&[server], &[], now);
    client.handle_timeout(&mut rng, now);
    let (to, request) = client.poll_transmit().unwrap();
    assert_eq!(to, server);
    let response = stun::answer(&request, mapped, true).unwrap().bytes;
    assert!(!client.handle_response(address("192.0.2.4:3478"), &response, now), "other source");
    assert!(client.handle_response(server, &response, now));
    assert!(client.reflexive().contains(&mapped));
    let mut silent_for = Duration::ZERO;
    while !client.reflexive().is_empty() {
        let (next, _) = client.poll_timeout().unwrap();
        silent_for += next - now;
        now = next;
        client.handle_timeout(&mut rng, now);
    }
    assert_eq!(silent_for, Duration::from_millis(25_000 + 7_500));
}

#[test]
fn distant_servers_tell_how_far_they_are_and_nothing_else() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let begin = Instant::now();
    let near = address("192.0.2.3:3478");
    let distant: Vec<_> = (0..400).map(|port| SocketAddr::from(([192, 0, 2, 4], port))).collect();
    let mut client = StunClient::new();
    client.handle_servers(&[near], &distant, begin);
    let mut asked = Vec::new();
    let mut now = begin;
    while now < begin + Duration::from_secs(60) {
        client.handle_timeout(&mut rng, now);
        while let Some((to, request)) = client.poll_transmit() {
            asked.push((now, to));
            let source = SocketAddr::from(([203, 0, 113, 7], to.port()));
            let answer = stun::answer(&request, source, true).expect("a request");
            client.handle_response(to, &answer.bytes, now + Duration::from_millis(40));
        }
        now = client.poll_timeout().expect("there is always more to ask").0;
    }
    let of = |wanted: SocketAddr| asked.iter().filter(move |(_, to)| *to == wanted);
    assert_eq!(of(near).count(), 3, "every 25 s");
    assert_eq!(of(distant[0]).count(), 1, "every 20 minutes");
    let reached = distant.iter().filter(|server| client.latency(**server).is_some());
    assert_eq!(reached.count(), 256, "no more than so many");
    let first_second = asked.iter().filter(|(at, _)| *at < begin + Duration::from_secs(1));
    assert!(first_second.count() <= 102, "no burst");
    assert_eq!(client.latency(distant[0]), Some(Duration::from_millis(40)));
    assert_eq!(client.reflexive().len(), 1);
    assert_eq!(client.servers().count(), 1);
    // Another role takes nothing away from what is known.
    client.handle_servers(&distant[..1], &[near], now);
    assert_eq!(client.latency(near), Some(Duration::from_millis(40)));
    assert_eq!(client.latency(distant[0]), Some(Duration::from_millis(40)));
    assert!(client.reflexive().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..1_400)) {
        let _ = Message::decode(&bytes);
        let _ = stun::answer(&bytes, address("192.0.2.1:1"), true);
        let _ = stun::parse_response(&bytes);
        if bytes.len() >= 20 {
            bytes[0] = 0x01;
            bytes[1] = 0x01;
            let length = u16::try_from(bytes.len() - 20).unwrap() & !3;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            let _ = stun::parse_response(&bytes);
            bytes[0] = 0x00;
            let _ = stun::answer(&bytes, address("192.0.2.1:1"), true);
        }
    }
}

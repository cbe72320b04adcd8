//! Reading packets as the receiving host does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use packet::{Fragment, Malformed, Packet, Protocol, Transport, build, checksum};
use proptest::prelude::*;

fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
    bytes.extend([0xfd; 32]);
    bytes.extend(rest);
    bytes
}

fn udp_v4() -> Vec<u8> {
    build::udp("10.0.0.1:5".parse().unwrap(), "10.0.0.2:6".parse().unwrap(), b"hello")
}

#[test]
fn padding_after_the_packet_is_cut_off() {
    let mut padded = udp_v4();
    padded.extend([0; 7]);
    let view = Packet::parse(&padded).unwrap();
    assert_eq!(view.bytes(), udp_v4());
    let Transport::Udp(udp) = view.transport() else { panic!("it is UDP") };
    assert_eq!((udp.source_port(), udp.destination_port(), udp.payload()), (5, 6, &b"hello"[..]));
}

#[test]
fn extension_headers_are_walked() {
    let mut rest = vec![60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0];
    rest.extend([0, 5, 0, 6, 0, 8, 1, 1]);
    let bytes = v6(0, &rest);
    let view = Packet::parse(&bytes).unwrap();
    assert_eq!((view.protocol(), view.transport_offset()), (Protocol::UDP, 56));
    assert!(matches!(view.transport(), Transport::Udp(udp) if udp.destination_port() == 6));
}

#[test]
fn hop_by_hop_options_count_only_in_front() {
    let rest = [0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(Packet::parse(&v6(60, &rest)).unwrap_err(), Malformed::ExtensionHeaders);
}

#[test]
fn endless_extension_headers_are_refused() {
    let rest = [60, 0, 0, 0, 0, 0, 0, 0].repeat(20);
    assert_eq!(Packet::parse(&v6(60, &rest)).unwrap_err(), Malformed::ExtensionHeaders);
}

#[test]
fn later_fragments_have_no_ports() {
    let mut bytes = udp_v4();
    bytes[6..8].copy_from_slice(&[0x00, 0x02]);
    let view = Packet::parse(&bytes).unwrap();
    assert_eq!(view.fragment(), Fragment::Later);
    assert!(matches!(view.transport(), Transport::Unknown));
    let bytes = v6(44, &[17, 0, 0x00, 0x10, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9]);
    let view = Packet::parse(&bytes).unwrap();
    assert_eq!((view.fragment(), view.protocol()), (Fragment::Later, Protocol::UDP));
}

#[test]
fn a_fragment_that_splits_or_overwrites_the_header_is_refused() {
    let tiny = v6(44, &[6, 0, 0x00, 0x01, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9]);
    assert_eq!(Packet::parse(&tiny).unwrap_err(), Malformed::FragmentedHeader);
    let mut overlap = build::tcp(
        "10.0.0.1:5".parse().unwrap(),
        "10.0.0.2:6".parse().unwrap(),
        &build::Tcp { sequence: 0, acknowledgement: 0, flags: packet::tcp::Flags::SYN, window: 1 },
        &[],
    );
    overlap[6..8].copy_from_slice(&[0x00, 0x01]);
    assert_eq!(Packet::parse(&overlap).unwrap_err(), Malformed::FragmentedHeader);
}

#[test]
fn lengths_that_contradict_the_bytes_are_refused() {
    let whole = udp_v4();
    assert_eq!(Packet::parse(&whole[..whole.len() - 1]).unwrap_err(), Malformed::Truncated);
    assert_eq!(Packet::parse(&[]).unwrap_err(), Malformed::Truncated);
    assert_eq!(Packet::parse(&[0x55; 40]).unwrap_err(), Malformed::Version(5));
    let mut short = whole.clone();
    short[0] = 0x44;
    assert_eq!(Packet::parse(&short).unwrap_err(), Malformed::HeaderLength);
    let mut changed = whole;
    changed[8] -= 1;
    assert_eq!(Packet::parse(&changed).unwrap().check_header(), Err(Malformed::HeaderChecksum));
}

#[test]
fn a_packet_that_is_too_big_is_answered_with_its_beginning_and_the_size_that_is_not() {
    let data = [7; 1_400];
    for (a, b, kind, most) in
        [("fd00::1", "fd00::2", (2, 0), 1_280), ("10.0.0.1", "10.0.0.2", (3, 4), 576)]
    {
        let (a, b): (IpAddr, IpAddr) = (a.parse().unwrap(), b.parse().unwrap());
        let packet = build::udp((a, 1).into(), (b, 2).into(), &data);
        let answer = build::too_big(&Packet::parse(&packet).unwrap(), 1_300).unwrap();
        let view = Packet::parse(&answer).unwrap();
        assert_eq!((view.source(), view.destination(), answer.len()), (b, a, most));
        // ICMP for IPv4 has no pseudo-header.
        let is_valid = checksum::Sum::of(view.payload()).is_valid();
        assert!(if a.is_ipv4() { is_valid } else { view.transport_checksum_is_valid() });
        let Transport::Icmp(message) = view.transport() else { panic!("it is an error message") };
        assert_eq!(((message.kind(), message.code()), message.sequence()), (kind, 1_300));
        assert_eq!(message.payload(), &packet[..message.payload().len()]);
        // An error is not answered by another.
        assert!(build::too_big(&view, 1_300).is_none());
        let echo = build::echo_request(a, b, 3, 4, &data);
        assert!(build::too_big(&Packet::parse(&echo).unwrap(), 1_300).is_some());
    }
}

#[test]
fn an_echo_request_has_its_reply() {
    for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let request = build::echo_request(a.parse().unwrap(), b.parse().unwrap(), 3, 4, b"data");
        let reply = build::echo_reply(&Packet::parse(&request).unwrap()).unwrap();
        let view = Packet::parse(&reply).unwrap();
        assert_eq!((view.source(), view.destination()), (b.parse().unwrap(), a.parse().unwrap()));
        let Transport::Icmp(echo) = view.transport() else { panic!("ICMP answers ICMP") };
        assert_eq!((echo.identifier(), echo.sequence(), echo.payload()), (3, 4, &b"data"[..]));
        assert!(build::echo_reply(&view).is_none());
    }
}

proptest! {
    #[test]
    fn the_vectorised_sum_is_the_plain_one(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut plain: u32 = 0;
        for pair in bytes.chunks(2) {
            plain += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while plain > 0xffff {
            plain = (plain & 0xffff) + (plain >> 16);
        }
        prop_assert_eq!(checksum::Sum::of(&bytes).fold(), (plain as u16).to_be_bytes());
    }

    #[test]
    fn an_incremental_update_equals_a_new_sum(
        mut bytes in prop::collection::vec(any::<u8>(), 4..60),
        new in any::<[u8; 2]>(),
    ) {
        prop_assume!(bytes.iter().skip(2).any(|byte| *byte != 0) && new != [0, 0]);
        let before = checksum::Sum::of(&bytes).checksum();
        let old = [bytes[0], bytes[1]];
        bytes[..2].copy_from_slice(&new);
        prop_assert_eq!(checksum::update(before, old, new), checksum::Sum::of(&bytes).checksum());
    }
}

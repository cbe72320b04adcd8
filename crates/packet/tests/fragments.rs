//! Splitting IPv4 packets, and what a host makes of the parts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use packet::{Fragment, Packet, Protocol, build, fragment, may_be_split};
use proptest::prelude::*;

/// A datagram with options, which its sender lets routers split.
fn datagram(data: &[u8], options: &[u8]) -> Vec<u8> {
    let ends = ["10.0.0.1:5", "10.0.0.2:6"].map(|end| end.parse().unwrap());
    let mut packet = build::udp(ends[0], ends[1], data);
    packet.splice(20..20, options.iter().copied());
    packet[0] = 0x40 | u8::try_from((20 + options.len()) / 4).unwrap();
    let length = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[4..8].copy_from_slice(&[7, 8, 0, 0]);
    packet
}

fn parts_of(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    fragment(&Packet::parse(packet).unwrap(), mtu, |part| parts.push(part.to_vec()));
    parts
}

fn header_of(packet: &[u8]) -> usize {
    usize::from(packet[0] & 0x0f) * 4
}

fn offset_of(packet: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff) * 8
}

/// What a host puts together (RFC 815), if nothing is missing.
fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut data = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        assert_eq!(offset_of(part), data.len());
        assert_eq!(part[6] & 0x20 != 0, index + 1 < parts.len(), "more follow");
        data.extend_from_slice(&part[header_of(part)..]);
    }
    data
}

proptest! {
    #[test]
    fn the_parts_are_put_together_to_what_was_split(
        data in prop::collection::vec(any::<u8>(), 0..9_000),
        words in 0..10_usize,
        mtu in 68..3_000_usize,
        again in 68..3_000_usize,
    ) {
        let packet = datagram(&data, &[1; 40][..words * 4]);
        let parts = parts_of(&packet, mtu);
        for part in &parts {
            prop_assert!(part.len() <= mtu);
            let view = Packet::parse(part).unwrap();
            prop_assert!(parts.len() == 1 || view.check_header().is_ok());
            prop_assert_eq!((view.protocol(), &part[4..6]), (Protocol::UDP, &packet[4..6]));
        }
        prop_assert_eq!(joined(&parts), &packet[header_of(&packet)..]);
        // A router on the way may split them once more.
        let twice: Vec<_> = parts.iter().flat_map(|part| parts_of(part, again)).collect();
        prop_assert_eq!(joined(&twice), &packet[header_of(&packet)..]);
    }

    #[test]
    fn no_packet_makes_it_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 20..2_000),
        is_ipv4 in any::<bool>(),
        mtu in 0..1_500_usize,
    ) {
        if is_ipv4 {
            bytes[0] = 0x40 | bytes[0] & 0x0f;
            let length = u16::try_from(bytes.len()).unwrap();
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            fragment(&packet, mtu, |part| assert!(part.len() <= mtu.max(1)));
        }
    }
}

#[test]
fn later_parts_have_the_options_that_are_for_every_router() {
    // A record of the route (not copied), nothing, and a router alert (copied; RFC 2113).
    let options = [7, 7, 4, 0, 0, 0, 0, 1, 0x94, 4, 0, 0];
    let parts = parts_of(&datagram(&[0; 200], &options), 100);
    assert_eq!(&parts[0][20..32], options);
    for later in &parts[1..] {
        assert_eq!(&later[20..header_of(later)], [0x94, 4, 0, 0]);
    }
}

#[test]
fn what_fits_stays_as_it_is_and_what_must_not_be_split_is_not() {
    let packet = datagram(&[0; 100], &[]);
    assert_eq!(parts_of(&packet, packet.len()), std::slice::from_ref(&packet));
    let mut forbidden = packet.clone();
    forbidden[6] |= 0x40;
    assert!(parts_of(&forbidden, 100).is_empty());
    let ends = ["[fd00::1]:5", "[fd00::2]:6"].map(|end| end.parse().unwrap());
    let ipv6 = build::udp(ends[0], ends[1], &[0; 100]);
    assert!(parts_of(&ipv6, 100).is_empty());
    let may = |packet: &[u8]| may_be_split(&Packet::parse(packet).unwrap());
    assert!(may(&packet) && !may(&forbidden) && !may(&ipv6));
    let first = &parts_of(&packet, 68)[0];
    assert_eq!(Packet::parse(first).unwrap().fragment(), Fragment::First);
}

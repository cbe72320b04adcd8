//! Splitting and joining, seen from outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use packet::{
    Coalescer, Merging, Offload, Packet, Segmentation, Segments, build, build::Tcp,
    offload::complete_checksum, tcp::Flags,
};
use proptest::prelude::*;

const FLOWS: [(&str, &str); 2] =
    [("100.64.0.1:1000", "100.64.0.2:80"), ("[fd00::1]:1000", "[fd00::2]:80")];

fn flow(version: usize) -> (SocketAddr, SocketAddr) {
    let (source, destination) = FLOWS[version];
    (source.parse().unwrap(), destination.parse().unwrap())
}

fn segment_of(version: usize, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let (source, destination) = flow(version);
    let meaning = Tcp { sequence, acknowledgement: 7, flags: Flags(flags), window: 512 };
    build::tcp(source, destination, &meaning, data)
}

fn datagram_of(version: usize, data: &[u8]) -> Vec<u8> {
    let (source, destination) = flow(version);
    build::udp(source, destination, data)
}

/// The super-packet a host would hand over for `whole`, a complete packet of a flow.
fn offload_of(whole: &[u8], segment_size: u16) -> Offload {
    let view = Packet::parse(whole).unwrap();
    let v6 = whole[0] >> 4 == 6;
    let transport = u16::try_from(view.transport_offset()).unwrap();
    let tcp = view.protocol() == packet::Protocol::TCP;
    Offload {
        needs_checksum: true,
        segmentation: match (tcp, v6) {
            (true, false) => Segmentation::Tcp4,
            (true, true) => Segmentation::Tcp6,
            (false, _) => Segmentation::Udp,
        },
        header_length: transport + if tcp { 20 } else { 8 },
        segment_size,
        checksum_start: transport,
        checksum_offset: if tcp { 16 } else { 6 },
    }
}

fn split(offload: &Offload, packet: &[u8]) -> Vec<Vec<u8>> {
    let plan = Segments::plan(offload, packet).unwrap();
    (0..plan.count())
        .map(|index| {
            let mut out = vec![0; plan.length(index)];
            plan.write(index, &mut out);
            out
        })
        .collect()
}

fn join(packets: &[Vec<u8>]) -> Vec<(Offload, Vec<u8>)> {
    let mut out = Vec::new();
    let mut sink = |offload: &Offload, pieces: &[&[u8]]| out.push((*offload, pieces.concat()));
    let mut coalescer = Coalescer::new(Merging::ALL);
    for packet in packets {
        coalescer.push(Packet::parse(packet).unwrap(), &mut sink);
    }
    coalescer.finish(&mut sink);
    out
}

#[test]
fn every_part_of_a_split_is_valid_alone() {
    let data: Vec<u8> = (0..5000_u32).map(|byte| byte as u8).collect();
    let end = Flags::ACK.0 | Flags::PSH.0 | Flags::FIN.0 | Flags::CWR.0;
    for version in 0..2 {
        let whole = segment_of(version, u32::MAX - 1000, end, &data);
        let parts = split(&offload_of(&whole, 1400), &whole);
        assert_eq!(parts.len(), 4);
        for (index, part) in parts.iter().enumerate() {
            let view = Packet::parse(part).unwrap();
            assert!(view.check_header().is_ok() && view.transport_checksum_is_valid());
            let packet::Transport::Tcp(tcp) = view.transport() else { panic!("TCP stays TCP") };
            assert_eq!(tcp.sequence(), (u32::MAX - 1000).wrapping_add(1400 * index as u32));
            assert_eq!(tcp.flags().contains(Flags::PSH), index == 3);
            assert_eq!(tcp.flags().contains(Flags::FIN), index == 3);
            assert_eq!(tcp.flags().contains(Flags::CWR), index == 0);
        }
        let datagram = datagram_of(version, &data);
        for part in split(&offload_of(&datagram, 1200), &datagram) {
            assert!(Packet::parse(&part).unwrap().transport_checksum_is_valid());
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ones() {
    let (source, destination) = flow(0);
    let datagram = (0..=u16::MAX)
        .map(|word| build::udp(source, destination, &word.to_be_bytes()))
        .find(|packet| packet[26..28] == [0xff, 0xff])
        .expect("one word of all makes the sum come out even");
    let mut partial = datagram.clone();
    let view = Packet::parse(&datagram).unwrap();
    let pseudo = packet::checksum::Sum::pseudo_header(
        view.source(),
        view.destination(),
        packet::Protocol::UDP,
        view.payload().len(),
    );
    partial[26..28].copy_from_slice(&pseudo.fold());
    let offload = Offload { segmentation: Segmentation::None, ..offload_of(&datagram, 0) };
    complete_checksum(&offload, &mut partial).unwrap();
    assert_eq!(partial, datagram);
    assert_eq!(split(&offload_of(&datagram, 100), &datagram), [datagram]);
}

#[test]
fn a_packet_with_a_wrong_checksum_travels_alone() {
    for broken in 0..4 {
        let mut packets: Vec<_> =
            (0..4).map(|i| segment_of(0, i * 100, Flags::ACK.0, &[i as u8; 100])).collect();
        packets[broken][60] ^= 1;
        let joined = join(&packets);
        let alone: Vec<_> =
            joined.iter().filter(|(offload, _)| offload.is_none()).map(|(_, p)| p).collect();
        assert!(alone.contains(&&packets[broken]), "{broken}");
        let total: usize = joined.iter().map(|(_, bytes)| bytes.len() - 40).sum();
        assert_eq!(total, 400);
    }
}

#[test]
fn packets_that_differ_in_more_than_sequence_stay_apart() {
    let ack = Flags::ACK.0;
    let first = segment_of(0, 0, ack, &[1; 100]);
    let others = [
        segment_of(0, 101, ack, &[1; 100]),
        segment_of(0, 100, ack | Flags::RST.0, &[1; 100]),
        segment_of(0, 100, ack | Flags::URG.0, &[1; 100]),
        segment_of(0, 100, ack | Flags::ECE.0, &[1; 100]),
        segment_of(0, 100, ack, &[1; 101]),
        segment_of(0, 100, ack, &[]),
        segment_of(1, 100, ack, &[1; 100]),
        datagram_of(0, &[1; 100]),
    ];
    for other in others {
        let packets = [first.clone(), other];
        let joined = join(&packets);
        assert_eq!(joined.len(), 2);
        assert_eq!([&joined[0].1, &joined[1].1], [&packets[0], &packets[1]]);
    }
}

#[test]
fn a_push_ends_a_run() {
    let ack = Flags::ACK.0;
    let packets = [
        segment_of(1, 0, ack, &[1; 100]),
        segment_of(1, 100, ack | Flags::PSH.0, &[1; 100]),
        segment_of(1, 200, ack, &[1; 100]),
    ];
    let joined = join(&packets);
    assert_eq!(joined.len(), 2);
    assert_eq!(joined[1], (Offload::default(), packets[2].clone()));
}

#[test]
fn runs_of_datagrams_stay_short() {
    let packets: Vec<_> = (0..40).map(|i| datagram_of(1, &[i; 500])).collect();
    let joined = join(&packets);
    assert_eq!(joined.len(), 3);
    assert!(joined.iter().all(|(offload, bytes)| offload.validate(bytes).is_ok()));
}

#[test]
fn a_hostile_offload_header_is_refused() {
    let whole = segment_of(1, 0, Flags::ACK.0, &[7; 3000]);
    let good = offload_of(&whole, 1000);
    assert!(good.validate(&whole).is_ok());
    let bad = [
        Offload { checksum_start: 41, ..good },
        Offload { checksum_offset: 6, ..good },
        Offload { header_length: 3000, ..good },
        Offload { segment_size: 0, ..good },
        Offload { segmentation: Segmentation::Tcp4, ..good },
        Offload { segmentation: Segmentation::Udp, ..good },
        Offload { needs_checksum: false, ..good },
    ];
    for offload in bad {
        assert!(offload.validate(&whole).is_err(), "{offload:?}");
    }
    assert!(good.validate(&whole[..whole.len() - 1]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn joining_undoes_splitting(
        version in 0..2_usize,
        tcp in any::<bool>(),
        sequence in any::<u32>(),
        ends in prop::sample::select(vec![0_u8, 8, 1, 9]),
        size in 900..1400_u16,
        data in prop::collection::vec(any::<u8>(), 2801..20_000),
    ) {
        let data = if tcp { &data[..] } else { &data[..data.len().min(16 * usize::from(size))] };
        let whole = match tcp {
            true => segment_of(version, sequence, Flags::ACK.0 | ends, data),
            false => datagram_of(version, data),
        };
        let mut offload = offload_of(&whole, size);
        offload.header_length = offload.checksum_start + if tcp { 20 } else { 8 };
        let parts = split(&offload, &whole);
        let joined = join(&parts);
        prop_assert_eq!(joined.len(), 1);
        let (again, mut bytes) = joined[0].clone();
        prop_assert_eq!(again, offload);
        prop_assert!(again.validate(&bytes).is_ok());
        prop_assert_eq!(split(&again, &bytes), parts);
        let single = Offload { segmentation: Segmentation::None, ..again };
        complete_checksum(&single, &mut bytes).unwrap();
        prop_assert_eq!(bytes, whole);
    }

    #[test]
    fn offload_headers_round_trip(header in any::<[u8; 10]>()) {
        if let Ok(offload) = Offload::from_virtio(&header) {
            prop_assert_eq!(Offload::from_virtio(&offload.to_virtio()), Ok(offload));
        }
    }

    #[test]
    fn no_bytes_panic(
        header in any::<[u8; 10]>(),
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        version in prop::sample::select(vec![0x45_u8, 0x46, 0x60]),
        next in prop::sample::select(vec![0_u8, 6, 17, 43, 44, 51, 58, 60]),
        fit in any::<bool>(),
    ) {
        if bytes.len() > 48 {
            bytes[0] = version;
            let length = bytes.len();
            if version == 0x60 {
                bytes[6] = next;
                bytes[40] = next;
                if fit { bytes[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes()); }
            } else {
                bytes[9] = next;
                if fit { bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes()); }
            }
        }
        if let Ok(view) = Packet::parse(&bytes) {
            let _ = (view.source(), view.destination(), view.hop_limit(), view.traffic_class());
            let _ = (view.transport(), view.check_header(), view.transport_checksum_is_valid());
            let _ = (build::echo_reply(&view), build::too_big(&view, 1_280));
            let mut sink = |_: &Offload, _: &[&[u8]]| {};
            let mut coalescer = Coalescer::new(Merging::ALL);
            coalescer.push(view, &mut sink);
            coalescer.push(view, &mut sink);
            coalescer.finish(&mut sink);
        }
        if let Ok(offload) = Offload::from_virtio(&header) {
            let _ = offload.validate(&bytes);
            if let Ok(plan) = Segments::plan(&offload, &bytes) {
                for index in 0..plan.count() {
                    plan.write(index, &mut vec![0; plan.length(index)]);
                }
            }
            let _ = complete_checksum(&offload, &mut bytes);
        }
    }
}

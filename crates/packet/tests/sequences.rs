//! Any packets in any order come out of joining and splitting as they went in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use packet::{
    Coalescer, Fragment, Merging, Offload, Packet, Protocol, Segments, Version, checksum::Sum,
};
use proptest::{prelude::*, sample::Index};

const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const DONT_FRAGMENT: u16 = 0x4000;

/// One packet of a sequence, in relation to the one before in its flow.
#[derive(Clone, Debug)]
struct Step {
    flow: usize,
    length: usize,
    /// The TCP flags beside ACK.
    flags: u8,
    /// What the sequence number leaves out.
    gap: u32,
    /// What the IPv4 identification moves on by.
    identification: u16,
    /// Traffic class or type of service, with congestion marks.
    class: u8,
    oddity: Oddity,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Oddity {
    None,
    OtherWindow,
    OtherTimestamp,
    WrongChecksum,
    /// Over UDP and IPv4 a checksum may be left out.
    NoChecksum,
    /// A first fragment in IPv4, more to follow.
    Fragment,
    /// Bytes behind the packet, as a tunnel's padding.
    Padding,
}

/// What makes a flow: IP version, protocol, options, whether fragmenting is forbidden.
#[derive(Clone, Copy, Debug)]
struct Flow {
    version: Version,
    is_tcp: bool,
    ip_options: bool,
    tcp_options: usize,
    flags: u16,
    sequence: u32,
    identification: u16,
}

fn flow() -> impl Strategy<Value = Flow> {
    let options = prop_oneof![4 => Just(0_usize), 4 => Just(12), 1 => Just(40)];
    let numbers = (prop_oneof![Just(u32::MAX - 3_000), any::<u32>()], any::<u16>());
    (any::<[bool; 3]>(), prop::bool::weighted(0.1), options, numbers).prop_map(
        |([v4, is_tcp, fixed], ip_options, tcp_options, (sequence, identification))| Flow {
            version: if v4 { Version::V4 } else { Version::V6 },
            is_tcp,
            ip_options,
            tcp_options,
            flags: if fixed { DONT_FRAGMENT } else { 0 },
            sequence,
            identification,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![12 => Just(1_208_usize), 2 => 0..1_208_usize, 1 => 1_209..9_000_usize];
    let flags = prop_oneof![
        20 => Just(0_u8),
        3 => prop::sample::select(vec![0x08_u8, 0x01, 0x09, 0x40, 0x80, 0xc0]),
        1 => any::<u8>(),
    ];
    let oddity = prop_oneof![
        30 => Just(Oddity::None),
        6 => prop::sample::select(vec![
            Oddity::OtherWindow,
            Oddity::OtherTimestamp,
            Oddity::WrongChecksum,
            Oddity::NoChecksum,
            Oddity::Fragment,
            Oddity::Padding,
        ]),
    ];
    let gap = prop_oneof![20 => Just(0_u32), 1 => any::<u32>()];
    let identification = prop_oneof![20 => Just(1_u16), 1 => any::<u16>()];
    let class = prop_oneof![20 => Just(0_u8), 1 => any::<u8>()];
    let flow = prop_oneof![8 => Just(0_usize), 1 => 1..3_usize];
    (flow, length, flags, gap, identification, class, oddity).prop_map(
        |(flow, length, flags, gap, identification, class, oddity)| Step {
            flow,
            length,
            flags,
            gap,
            identification,
            class,
            oddity,
        },
    )
}

/// What is odd about one packet is often so about the next.
fn steps(runs: usize) -> impl Strategy<Value = Vec<Step>> {
    let run = (step(), 1..5_usize).prop_map(|(step, times)| vec![step; times]);
    prop::collection::vec(run, 1..runs).prop_map(|runs| runs.concat())
}

impl Flow {
    /// The next packet, and what is left of it when padding is cut off.
    fn next(&mut self, number: usize, step: &Step) -> (Vec<u8>, usize) {
        self.sequence = self.sequence.wrapping_add(step.gap);
        self.identification = self.identification.wrapping_add(step.identification);
        let transport = self.transport(number, step);
        let mut packet = match self.version {
            Version::V4 => self.v4(step, transport.len()),
            Version::V6 => self.v6(step, transport.len()),
        };
        let start = packet.len();
        packet.extend(transport);
        self.complete(&mut packet, start, step.oddity);
        if self.is_tcp {
            self.sequence = self.sequence.wrapping_add(u32::try_from(step.length).unwrap());
        }
        let length = packet.len();
        if step.oddity == Oddity::Padding {
            packet.resize(length + 7, 0);
        }
        (packet, length)
    }

    fn transport(&self, number: usize, step: &Step) -> Vec<u8> {
        let data = (0..step.length).map(|at| (at * 7 + number + step.flow) as u8);
        let mut bytes = vec![0x10, 0, 0, step.flow as u8];
        if self.is_tcp {
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend(7_u32.to_be_bytes());
            let window = u16::from(step.oddity == Oddity::OtherWindow) + 500;
            bytes.extend([((20 + self.tcp_options) << 2) as u8, 0x10 | step.flags]);
            bytes.extend(window.to_be_bytes());
            bytes.extend([0; 4]);
            let stamp = u8::from(step.oddity == Oddity::OtherTimestamp);
            bytes.extend((0..self.tcp_options).map(|at| if at == 7 { stamp } else { 1 }));
        } else {
            bytes.extend(u16::try_from(8 + step.length).unwrap().to_be_bytes());
            bytes.extend([0; 2]);
        }
        bytes.extend(data);
        bytes
    }

    fn protocol(&self) -> Protocol {
        if self.is_tcp { Protocol::TCP } else { Protocol::UDP }
    }

    fn v4(&self, step: &Step, payload: usize) -> Vec<u8> {
        let header = if self.ip_options { 24 } else { 20 };
        let mut packet = vec![0x40 | (header / 4) as u8, step.class];
        packet.extend(u16::try_from(header + payload).unwrap().to_be_bytes());
        packet.extend(self.identification.to_be_bytes());
        let more = if step.oddity == Oddity::Fragment { 0x2000 } else { self.flags };
        packet.extend(more.to_be_bytes());
        packet.extend([64, self.protocol().0, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2]);
        packet.resize(header, 1);
        let checksum = Sum::of(&packet).checksum();
        packet[10..12].copy_from_slice(&checksum);
        packet
    }

    fn v6(&self, step: &Step, payload: usize) -> Vec<u8> {
        // A destination option of padding, or a fragment header.
        let extension: &[u8] = match (step.oddity, self.ip_options) {
            (Oddity::Fragment, _) => &[self.protocol().0, 0, 0, 1, 0, 0, 0, 9],
            (_, true) => &[self.protocol().0, 0, 1, 4, 0, 0, 0, 0],
            (_, false) => &[],
        };
        let next = match (step.oddity, self.ip_options) {
            (Oddity::Fragment, _) => 44,
            (_, true) => 60,
            (_, false) => self.protocol().0,
        };
        let mut packet = vec![0x60 | step.class >> 4, step.class << 4, 0, 3];
        packet.extend(u16::try_from(extension.len() + payload).unwrap().to_be_bytes());
        packet.extend([next, 64]);
        for end in 1..=2 {
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
        }
        packet.extend(extension);
        packet
    }

    fn complete(&self, packet: &mut [u8], start: usize, oddity: Oddity) {
        let addresses = match self.version {
            Version::V4 => 12..20,
            Version::V6 => 8..40,
        };
        let length = u32::try_from(packet.len() - start).unwrap();
        let tail = [&length.to_be_bytes()[..], &[0, 0, 0, self.protocol().0]].concat();
        let sum = Sum::of(&packet[addresses]) + Sum::of(&tail) + Sum::of(&packet[start..]);
        let field = start + if self.is_tcp { TCP_CHECKSUM } else { UDP_CHECKSUM };
        let mut checksum = sum.checksum();
        if !self.is_tcp && checksum == [0, 0] {
            checksum = [0xff, 0xff];
        }
        if oddity == Oddity::WrongChecksum {
            checksum[0] ^= 0x55;
        } else if oddity == Oddity::NoChecksum && !self.is_tcp {
            checksum = [0, 0];
        }
        packet[field..field + 2].copy_from_slice(&checksum);
    }
}

/// Joins packets as a receiver does, then splits what came out as a sender does.
fn there_and_back(packets: &[Vec<u8>], merging: Merging) -> (Vec<Vec<u8>>, usize) {
    let (mut parts, mut writes) = (Vec::new(), 0);
    let mut sink = |offload: &Offload, pieces: &[&[u8]]| {
        writes += 1;
        let whole = pieces.concat();
        offload.validate(&whole).expect("the kernel takes it");
        let plan = Segments::plan(offload, &whole).expect("it can be split");
        for index in 0..plan.count() {
            // What lies behind stays as it is.
            let length = plan.length(index);
            let mut out = vec![0xa5; length + 8];
            plan.write(index, &mut out[..length]);
            assert_eq!(out.split_off(length), [0xa5; 8]);
            parts.push(out);
        }
    };
    let mut coalescer = Coalescer::new(merging);
    for packet in packets {
        coalescer.push(Packet::parse(packet).expect("it is one"), &mut sink);
    }
    coalescer.finish(&mut sink);
    (parts, writes)
}

/// The identification of an atomic datagram means nothing and may change on the way (RFC 6864).
fn without_meaningless(mut packet: Vec<u8>) -> Vec<u8> {
    let view = Packet::parse(&packet).unwrap();
    let is_atomic = view.version() == Version::V4
        && view.fragment() == Fragment::Whole
        && packet[6] & 0x40 != 0;
    if is_atomic && view.check_header().is_ok() {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn joining_and_splitting_changes_no_packet_and_no_order(
        mut flows in prop::collection::vec(flow(), 3),
        steps in steps(40),
        merging in (any::<bool>(), any::<bool>()).prop_map(|(tcp, udp)| Merging { tcp, udp }),
    ) {
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        for (number, step) in steps.iter().enumerate() {
            let (packet, length) = flows[step.flow].next(number, step);
            expected.push(without_meaningless(packet[..length].to_vec()));
            sent.push(packet);
        }
        let (parts, writes) = there_and_back(&sent, merging);
        let parts: Vec<_> = parts.into_iter().map(without_meaningless).collect();
        prop_assert_eq!(parts, expected);
        prop_assert!(merging != Merging::NONE || writes == sent.len());
    }

    #[test]
    fn an_undisturbed_flow_is_joined(
        mut flow in flow().prop_filter("has no options", |flow| !flow.ip_options),
        count in 2..60_usize,
    ) {
        let step = Step {
            flow: 0,
            length: 1_000,
            flags: 0,
            gap: 0,
            identification: 1,
            class: 2,
            oddity: Oddity::None,
        };
        let packets: Vec<_> = (0..count).map(|number| flow.next(number, &step).0).collect();
        let (parts, writes) = there_and_back(&packets, Merging::ALL);
        prop_assert_eq!(parts.len(), count);
        prop_assert_eq!(writes, if flow.is_tcp { 1 } else { count.div_ceil(16) });
    }

    #[test]
    fn damaged_packets_and_headers_panic_nobody(
        mut flows in prop::collection::vec(flow(), 3),
        steps in steps(15),
        damage in prop::collection::vec((any::<Index>(), 0..80_usize, any::<u8>()), 0..40),
        header in any::<[u8; Offload::VIRTIO_LENGTH]>(),
        cut in any::<Index>(),
    ) {
        let mut packets: Vec<_> = steps
            .iter()
            .enumerate()
            .map(|(number, step)| flows[step.flow].next(number, step).0)
            .collect();
        for (which, at, byte) in damage {
            let packet = &mut packets[which.index(steps.len())];
            let at = at.min(packet.len() - 1);
            packet[at] = byte;
        }
        let mut sink = |offload: &Offload, pieces: &[&[u8]]| {
            let whole = pieces.concat();
            assert!(offload.is_none() || offload.validate(&whole).is_ok());
        };
        let mut coalescer = Coalescer::new(Merging::ALL);
        for packet in packets.iter().filter_map(|packet| Packet::parse(packet).ok()) {
            coalescer.push(packet, &mut sink);
        }
        coalescer.finish(&mut sink);
        let whole = packets.concat();
        let bytes = &whole[..cut.index(whole.len().min(65_535)) + 1];
        if let Ok(offload) = Offload::from_virtio(&header)
            && let Ok(plan) = Segments::plan(&offload, bytes)
        {
            let longest = (0..plan.count().min(200)).map(|index| {
                let mut out = vec![0; plan.length(index)];
                plan.write(index, &mut out);
                out.len()
            });
            prop_assert_eq!(longest.max(), Some(plan.longest()));
        }
    }
}

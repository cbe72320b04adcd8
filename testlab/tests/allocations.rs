//! Bulk takes no memory from the heap: what it needs was taken before.

use std::net::Ipv4Addr;
use std::time::Duration;

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use engine::{HostPacket, Inbound, Outbound};
use packet::{Coalescer, Merging, Offload, Packet, Segments};
use platform::{
    Delivery, Interest, Poller, ReceiveBatch, Transmit, Tun, UdpConfig, UdpSocket, tun::MAX_PACKET,
    udp::Datagram,
};
use testlab::sim::Pair;

const PARTS: u16 = 40;
/// Until every buffer has grown to what it needs.
const WARM_UP: usize = 200;
const ROUNDS: usize = 1_000;

/// The sum of what `round` counts, once everything is warm.
fn when_warm<const N: usize>(mut round: impl FnMut() -> [u64; N]) -> [u64; N] {
    for _ in 0..WARM_UP {
        round();
    }
    (0..ROUNDS).fold([0; N], |sums, _| {
        let counts = round();
        std::array::from_fn(|index| sums[index] + counts[index])
    })
}

/// What `work` gives, and how often it allocated.
fn counted<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let mut result = None;
    let counted = measure(|| result = Some(work()));
    (result.expect("it has run"), counted.count_total)
}

/// A message as a stream hands it over: in memory of its own.
fn arrived(message: &BytesMut) -> Bytes {
    Bytes::copy_from_slice(message)
}

#[test]
fn a_super_packet_through_a_relay_allocates_at_neither_end_nor_between() {
    let mut pair = Pair::relayed();
    let (offload, packet) = pair.super_packet(PARTS);
    let counts = when_warm(|| {
        // The relay grants a rate; all rounds together end before any timer does.
        pair.wait(Duration::from_micros(100));
        let packet = HostPacket::new(offload, &packet);
        let (message, sending) = counted(|| pair.send(packet));
        let message = arrived(&message);
        let (message, forwarding) = counted(|| pair.forward(message));
        let message = arrived(&message);
        let (_, receiving) = counted(|| pair.receive(message));
        [sending, forwarding, receiving]
    });
    assert_eq!(counts, [0; 3], "of the sender, the relay and the receiver in {ROUNDS} rounds");
}

#[test]
fn a_super_packet_over_the_direct_way_allocates_at_neither_end() {
    let pair = Pair::direct();
    let (from, now) = (pair.first_address(), pair.now());
    let planes = [0, 1].map(|node| pair.data_plane(node));
    let (offload, packet) = pair.super_packet(PARTS);
    let mut sealed = Vec::new();
    let send = |sealed: &mut Vec<u8>| {
        let segments = Segments::plan(&offload, &packet).expect("it fits");
        let outbound = planes[0].load().outbound((&segments, 0..PARTS as usize), sealed, now);
        let Outbound::Datagrams { len, datagram_len, .. } = outbound else {
            panic!("{outbound:?}")
        };
        assert_eq!(len, sealed.len(), "nothing else is in there");
        datagram_len
    };
    let receive = |sealed: &mut [u8], length: usize| {
        let (plane, mut writes) = (planes[1].load(), 0);
        let mut sink = |_: &Offload, _: &[&[u8]]| writes += 1;
        let mut coalescer = Coalescer::new(Merging::ALL);
        plane.inbound(from, sealed.chunks_mut(length), now, |inbound| {
            let Inbound::Packet(packet) = inbound else { panic!("{inbound:?}") };
            coalescer.push(Packet::parse(packet).expect("it was sent"), &mut sink);
        });
        coalescer.finish(&mut sink);
        writes
    };
    let counts = when_warm(|| {
        let (length, sending) = counted(|| send(&mut sealed));
        let (writes, receiving) = counted(|| receive(&mut sealed, length));
        assert_eq!(writes, 1, "all parts are joined");
        [sending, receiving]
    });
    assert_eq!(counts, [0; 2], "of the sender and the receiver in {ROUNDS} rounds");
}

#[test]
fn devices_and_sockets_allocate_nothing_for_what_goes_through_them() {
    const SEGMENT: u16 = 1_300;
    let (host, tun) = Tun::pair().expect("two ends");
    let loopback = UdpConfig { address: Ipv4Addr::LOCALHOST.into(), ..UdpConfig::ipv4(0) };
    let [from, to] = [0; 2].map(|_| UdpSocket::bind(&loopback).expect("a port on loopback"));
    let mut poller = Poller::new().expect("a poller");
    poller.add(&tun, 0, Interest::Read).expect("it can be watched");
    poller.add(&to, 1, Interest::Read).expect("it can be watched");
    let mut batch = ReceiveBatch::new(8);
    let (packet, mut buffer) =
        (vec![7; 40 * usize::from(SEGMENT)], BytesMut::with_capacity(MAX_PACKET));
    let [whole] = when_warm(|| {
        let ((), count) = counted(|| {
            let pieces = [&packet[..60], &packet[60..]];
            let delivery = host.send(&Offload::default(), &pieces).expect("it works");
            assert_eq!(delivery, Delivery::Sent);
            let transmit = Transmit {
                destination: to.local_address(),
                source: None,
                segment: Some(SEGMENT),
                bytes: &packet,
            };
            assert_eq!(from.send(&transmit), Delivery::Sent);
            let mut missing = [true; 2];
            while missing != [false; 2] {
                for ready in poller.wait(None).expect("it waits") {
                    missing[usize::try_from(ready.token).expect("0 or 1")] = false;
                }
            }
            buffer.clear();
            assert!(tun.receive(&mut buffer).expect("it reads").is_some());
            assert_eq!(buffer.len(), packet.len());
            assert!(to.receive(&mut batch).expect("it receives"));
            let received: usize = batch.datagrams().flat_map(Datagram::segments).count();
            assert!(received > 0);
        });
        while to.receive(&mut batch).expect("it receives") {}
        [count]
    });
    assert_eq!(whole, 0, "in {ROUNDS} rounds");
}

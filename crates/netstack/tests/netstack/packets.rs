//! Raw packets at the stack's edge.

use bytes::BytesMut;
use netstack::Netstack;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr,
};

use crate::wire::{A4, A6, B4, B6, MTU, Names, address, at, echo, exchange};

#[tokio::test(start_paused = true)]
async fn an_ipv6_echo_request_is_answered() {
    let (_stack, mut wire) = Netstack::start(&[address(A6)], MTU, Names::new()).unwrap();
    let (source, destination) = (B6.parse().unwrap(), A6.parse().unwrap());
    let echo = Icmpv6Repr::EchoRequest { ident: 3, seq_no: 9, data: b"abc" };
    let header = Ipv6Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Icmpv6,
        payload_len: echo.buffer_len(),
        hop_limit: 64,
    };
    let mut packet = BytesMut::zeroed(40 + echo.buffer_len());
    header.emit(&mut Ipv6Packet::new_unchecked(&mut packet[..]));
    let mut body = Icmpv6Packet::new_unchecked(&mut packet[40..]);
    echo.emit(&source, &destination, &mut body, &ChecksumCapabilities::default());
    wire.to_stack.send(packet).await.unwrap();
    let answer = wire.from_stack.recv().await.unwrap();
    let view = Ipv6Packet::new_checked(&answer[..]).unwrap();
    assert_eq!((view.src_addr(), view.dst_addr()), (destination, source));
    let body = Icmpv6Packet::new_checked(view.payload()).unwrap();
    let checks = ChecksumCapabilities::default();
    assert_eq!(
        Icmpv6Repr::parse(&destination, &source, &body, &checks).unwrap(),
        Icmpv6Repr::EchoReply { ident: 3, seq_no: 9, data: b"abc" }
    );
}

#[tokio::test(start_paused = true)]
async fn an_ipv4_echo_request_is_answered() {
    let (_stack, mut wire) = Netstack::start(&[address(A4)], MTU, Names::new()).unwrap();
    let echo = Icmpv4Repr::EchoRequest { ident: 3, seq_no: 9, data: b"abc" };
    let header = Ipv4Repr {
        src_addr: B4.parse().unwrap(),
        dst_addr: A4.parse().unwrap(),
        next_header: IpProtocol::Icmp,
        payload_len: echo.buffer_len(),
        hop_limit: 64,
    };
    let checks = ChecksumCapabilities::default();
    let mut packet = BytesMut::zeroed(20 + echo.buffer_len());
    header.emit(&mut Ipv4Packet::new_unchecked(&mut packet[..]), &checks);
    echo.emit(&mut Icmpv4Packet::new_unchecked(&mut packet[20..]), &checks);
    wire.to_stack.send(packet).await.unwrap();
    let answer = wire.from_stack.recv().await.unwrap();
    let view = Ipv4Packet::new_checked(&answer[..]).unwrap();
    let body = Icmpv4Packet::new_checked(view.payload()).unwrap();
    assert_eq!(
        Icmpv4Repr::parse(&body, &checks).unwrap(),
        Icmpv4Repr::EchoReply { ident: 3, seq_no: 9, data: b"abc" }
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_packet_is_passed_over() {
    let (stack, wire) = Netstack::start(&[address(A6)], MTU, Names::new()).unwrap();
    echo(&stack, 7);
    wire.to_stack.send(BytesMut::new()).await.unwrap();
    let stream = stack.connect(at(A6, 7)).await.unwrap();
    assert_eq!(exchange(stream, b"alive").await, b"alive");
}

/// Noise, and noise behind the beginning of a packet that is for us.
fn hostile_packet() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let version6 = (prop::sample::select(vec![0_u8, 6, 17, 43, 44, 58, 60]), noise.clone())
        .prop_map(|(next, body)| {
            let mut packet = vec![0x60, 0, 0, 0, 0, body.len() as u8, next, 64];
            packet.extend_from_slice(&"fd42:1::b".parse::<std::net::Ipv6Addr>().unwrap().octets());
            packet.extend_from_slice(&"fd42:1::a".parse::<std::net::Ipv6Addr>().unwrap().octets());
            packet.extend(body);
            packet
        });
    prop_oneof![noise, version6]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_packet_stops_the_stack(packets in prop::collection::vec(hostile_packet(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (stack, wire) = Netstack::start(&[address(A6)], MTU, Names::new()).unwrap();
            echo(&stack, 7);
            for packet in packets {
                wire.to_stack.send(BytesMut::from(&packet[..])).await.unwrap();
            }
            let stream = stack.connect(at(A6, 7)).await.unwrap();
            assert_eq!(exchange(stream, b"alive").await, b"alive");
        });
    }
}

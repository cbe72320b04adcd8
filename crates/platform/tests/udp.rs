//! UDP sockets on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, time::Duration};

use platform::{
    Delivery, Interest, Poller, ReceiveBatch, Transmit, UdpConfig, UdpSocket, udp::Source,
};

fn loopback(config: UdpConfig, address: &str) -> UdpSocket {
    UdpSocket::bind(&UdpConfig { address: address.parse().unwrap(), ..config }).unwrap()
}

/// Receives until `wanted` bytes came; sizes of the joined buffers.
fn receive(socket: &UdpSocket, wanted: usize) -> (Vec<Vec<u8>>, usize, Option<Source>) {
    let mut poller = Poller::new().unwrap();
    poller.add(socket, 1, Interest::Read).unwrap();
    let mut batch = ReceiveBatch::new(8);
    let (mut got, mut buffers, mut total, mut local) = (Vec::new(), 0, 0, None);
    while total < wanted {
        let ready = poller.wait(Some(Duration::from_secs(5))).unwrap().count();
        assert!(ready > 0, "{total} of {wanted} bytes came");
        while socket.receive(&mut batch).unwrap() {
            for datagram in batch.datagrams() {
                buffers += 1;
                local = datagram.local;
                total += datagram.bytes.len();
                got.extend(datagram.segments().map(|bytes| bytes.to_vec()));
            }
        }
    }
    (got, buffers, local)
}

#[test]
fn a_segmented_send_arrives_joined_and_splits_again() {
    for (config, address) in [(UdpConfig::ipv4(0), "127.0.0.1"), (UdpConfig::ipv6(0), "::1")] {
        let (a, b) = (loopback(config, address), loopback(config, address));
        let bytes: Vec<u8> = (0..40 * 1200 + 77).map(|index| (index / 1200) as u8).collect();
        let transmit = Transmit {
            destination: b.local_address(),
            source: None,
            segment: Some(1200),
            bytes: &bytes,
        };
        assert_eq!(a.send(&transmit), Delivery::Sent);
        let (got, buffers, local) = receive(&b, bytes.len());
        assert_eq!(got.len(), 41);
        assert_eq!(got.concat(), bytes);
        assert!(!b.merges() || buffers < 41, "{buffers} buffers for 41 datagrams");
        assert_eq!(local.unwrap().address, address.parse::<std::net::IpAddr>().unwrap());
    }
}

#[test]
fn more_than_one_send_takes_is_sent_in_parts() {
    let (a, b) =
        (loopback(UdpConfig::ipv4(0), "127.0.0.1"), loopback(UdpConfig::ipv4(0), "127.0.0.1"));
    let bytes: Vec<u8> = (0..200 * 1400).map(|index| (index / 1400) as u8).collect();
    let destination = b.local_address();
    let transmit = Transmit { destination, source: None, segment: Some(1400), bytes: &bytes };
    assert_eq!(a.send(&transmit), Delivery::Sent);
    assert_eq!(receive(&b, bytes.len()).0.concat(), bytes);
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let (a, b) =
        (loopback(UdpConfig::ipv4(0), "127.0.0.1"), UdpSocket::bind(&UdpConfig::ipv4(0)).unwrap());
    let asked: SocketAddr =
        (std::net::Ipv4Addr::new(127, 0, 0, 9), b.local_address().port()).into();
    let transmit = Transmit { destination: asked, source: None, segment: None, bytes: b"question" };
    assert_eq!(a.send(&transmit), Delivery::Sent);
    let (_, _, local) = receive(&b, 8);
    let answer =
        Transmit { destination: a.local_address(), source: local, segment: None, bytes: b"answer" };
    assert_eq!(b.send(&answer), Delivery::Sent);
    let mut batch = ReceiveBatch::new(1);
    let mut poller = Poller::new().unwrap();
    poller.add(&a, 1, Interest::Read).unwrap();
    assert_eq!(poller.wait(Some(Duration::from_secs(5))).unwrap().count(), 1);
    assert!(a.receive(&mut batch).unwrap());
    assert_eq!(batch.datagrams().next().unwrap().remote, asked);
}

#[test]
fn a_source_that_is_not_ours_is_given_up() {
    let (a, b) =
        (UdpSocket::bind(&UdpConfig::ipv4(0)).unwrap(), loopback(UdpConfig::ipv4(0), "127.0.0.1"));
    let source = Some(Source { address: "192.0.2.77".parse().unwrap(), interface: 1 });
    let transmit =
        Transmit { destination: b.local_address(), source, segment: None, bytes: b"hello" };
    assert_eq!(a.send(&transmit), Delivery::SourceGone);
    assert_eq!(receive(&b, 5).0, [b"hello"]);
}

#[test]
fn a_closed_port_stops_neither_sending_nor_receiving() {
    let a = loopback(UdpConfig::ipv4(0), "127.0.0.1");
    let b = loopback(UdpConfig::ipv4(0), "127.0.0.1");
    let closed = loopback(UdpConfig::ipv4(0), "127.0.0.1").local_address();
    for _ in 0..3 {
        let to = |destination| Transmit { destination, source: None, segment: None, bytes: b"x" };
        let _ = a.send(&to(closed));
        assert_eq!(a.send(&to(b.local_address())), Delivery::Sent);
        assert!(!a.receive(&mut ReceiveBatch::new(1)).unwrap());
    }
    assert_eq!(receive(&b, 3).0.len(), 3);
}

#[test]
fn a_datagram_that_is_too_long_is_dropped() {
    let a = loopback(UdpConfig::ipv4(0), "127.0.0.1");
    let bytes = vec![0; 70_000];
    let destination = a.local_address();
    let transmit = Transmit { destination, source: None, segment: None, bytes: &bytes };
    assert_eq!(a.send(&transmit), Delivery::Dropped);
}

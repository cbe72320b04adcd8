//! TCP and UDP between two stacks, in virtual time.

use std::io::ErrorKind;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use netstack::{ConnectError, MAX_CONNECTIONS, Netstack};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::wire::{
    A4, A6, B4, B6, Faults, MTU, Names, address, at, echo, exchange, pair, pair_with,
};

/// Sends `length` bytes of noise from A to B and compares the digests of both ends.
async fn transfer(faults: Faults, length: usize) {
    let (a, b) = pair_with(faults);
    let mut listener = b.listen(80).unwrap();
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut digest = Context::new(&SHA256);
        let mut buffer = vec![0; 64 * 1024];
        let mut received = 0;
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            if count == 0 {
                return (received, digest.finish().as_ref().to_vec());
            }
            received += count;
            digest.update(&buffer[..count]);
        }
    });
    let mut stream = a.connect(at(B6, 80)).await.unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let mut digest = Context::new(&SHA256);
    let mut chunk = vec![0; 64 * 1024];
    let mut left = length;
    while left > 0 {
        let count = left.min(chunk.len());
        rng.fill_bytes(&mut chunk[..count]);
        digest.update(&chunk[..count]);
        stream.write_all(&chunk[..count]).await.unwrap();
        left -= count;
    }
    stream.shutdown().await.unwrap();
    assert_eq!(receiver.await.unwrap(), (length, digest.finish().as_ref().to_vec()));
}

#[tokio::test(start_paused = true)]
async fn fifty_megabytes_arrive_with_the_same_digest() {
    transfer(Faults::default(), 50_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_whole_over_a_wire_that_loses_and_reorders() {
    transfer(Faults { lost: 20, late: 50 }, 2_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn both_families_reach_the_same_listener() {
    let (a, b) = pair();
    echo(&b, 7);
    for host in [B6, B4] {
        let stream = a.connect(at(host, 7)).await.unwrap();
        assert_eq!(stream.peer_addr(), at(host, 7));
        assert_eq!(stream.local_addr().ip(), address(if host == B6 { A6 } else { A4 }));
        assert_eq!(exchange(stream, b"hello").await, b"hello");
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_without_a_listener_refuses() {
    let (a, _b) = pair();
    let error = a.connect(at(B6, 81)).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Io(error) if error.kind() == ErrorKind::ConnectionRefused)
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up() {
    let (a, _b) = pair();
    assert!(matches!(a.connect(at("fd42:1::c", 80)).await, Err(ConnectError::TimedOut)));
}

#[tokio::test(start_paused = true)]
async fn an_address_outside_the_overlay_is_not_dialled() {
    let (a, _b) = pair();
    assert!(matches!(a.connect(at("192.0.2.1", 80)).await, Err(ConnectError::Outside)));
    assert!(matches!(a.connect_host("::1", 80).await, Err(ConnectError::Outside)));
    assert!(matches!(a.connect_host("liar.home.alt", 80).await, Err(ConnectError::Name(_))));
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_still_answers() {
    let (a, b) = pair();
    let mut listener = b.listen(80).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, remote) = listener.accept().await.unwrap();
        assert_eq!(remote.ip(), address(A6));
        let mut question = Vec::new();
        stream.read_to_end(&mut question).await.unwrap();
        stream.write_all(&question.repeat(1000)).await.unwrap();
    });
    let stream = a.connect(at(B6, 80)).await.unwrap();
    assert_eq!(exchange(stream, b"question").await, b"question".repeat(1000));
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_pauses_stops_the_writer_and_loses_nothing() {
    let (a, b) = pair();
    let mut listener = b.listen(80).unwrap();
    let mut writer = a.connect(at(B6, 80)).await.unwrap();
    let (mut reader, _) = listener.accept().await.unwrap();
    let bytes = vec![7; 4_000_000];
    let length = bytes.len();
    let mut sending = tokio::spawn(async move {
        writer.write_all(&bytes).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    assert!(timeout(Duration::from_secs(20), &mut sending).await.is_err());
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), length);
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_aborted_connection_is_an_error_and_not_an_end() {
    let (a, b) = pair();
    let mut listener = b.listen(80).unwrap();
    let mut stream = a.connect(at(B6, 80)).await.unwrap();
    listener.accept().await.unwrap().0.abort();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_connections_in_turn_leave_nothing_behind() {
    let (a, b) = pair();
    echo(&b, 7);
    for round in 0..3000_u32 {
        let stream = a.connect(at(B6, 7)).await.unwrap();
        let bytes = round.to_be_bytes();
        assert_eq!(exchange(stream, &bytes).await, bytes);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    tokio::time::advance(Duration::from_secs(90)).await;
    timeout(Duration::from_secs(10), async {
        while a.connection_count() + b.connection_count() > 0 {
            tokio::time::advance(Duration::from_millis(100)).await;
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("every connection is forgotten");
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_are_refused() {
    let (a, _b) = pair();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..MAX_CONNECTIONS {
        let a = a.clone();
        waiting.spawn(async move { a.connect(at("fd42:1::c", 80)).await.is_err() });
    }
    while a.connection_count() < MAX_CONNECTIONS {
        tokio::task::yield_now().await;
    }
    let error = a.connect(at(B6, 80)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Io(error) if error.kind() == ErrorKind::QuotaExceeded));
    assert!(waiting.join_all().await.into_iter().all(|failed| failed));
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_dropped_refuses() {
    let (a, b) = pair();
    let listener = b.listen(80).unwrap();
    assert_eq!(b.listen(80).unwrap_err().kind(), ErrorKind::AddrInUse);
    let mut waiting = a.connect(at(B6, 80)).await.unwrap();
    drop(listener);
    assert!(waiting.read(&mut [0; 8]).await.is_err());
    assert!(a.connect(at(B6, 80)).await.is_err());
    b.listen(80).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_device_reaches_its_own_services() {
    let (_a, b) = pair();
    echo(&b, 7);
    let stream = b.connect_host("B.home.ALT.", 7).await.unwrap();
    assert_eq!(exchange(stream, b"me").await, b"me");
}

#[tokio::test(start_paused = true)]
async fn new_addresses_replace_the_old() {
    let (a, b) = pair();
    echo(&b, 7);
    let mut stream = a.connect(at(B6, 7)).await.unwrap();
    b.set_addresses(&[address("fd42:1::bb")]);
    let stream_ends = async {
        stream.write_all(b"x").await.unwrap();
        stream.read(&mut [0; 8]).await
    };
    assert!(!matches!(timeout(Duration::from_secs(400), stream_ends).await, Ok(Ok(1..))));
    let stream = a.connect(at("fd42:1::bb", 7)).await.unwrap();
    assert_eq!(exchange(stream, b"new").await, b"new");
}

#[tokio::test(start_paused = true)]
async fn datagrams_go_both_ways() {
    let (a, b) = pair();
    let server = b.bind_udp(53).unwrap();
    let client = a.bind_udp(0).unwrap();
    for host in [B6, B4] {
        client.send_to(b"ping", at(host, 53)).await.unwrap();
        let mut buffer = [0; 64];
        let (length, source) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], source.port()), (&b"ping"[..], client.port()));
        server.send_to(b"pong", source).await.unwrap();
        let (length, source) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], source), (&b"pong"[..], at(host, 53)));
    }
    let whole = client.send_to(&[0; MTU - 48], at(B6, 53)).await;
    let excess = client.send_to(&[0; MTU - 47], at(B6, 53)).await;
    assert!(whole.is_ok());
    assert_eq!(excess.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn a_stack_without_a_wire_ends_its_sockets() {
    let (stack, wire) = Netstack::start(&[address(A6)], MTU, Names::new()).unwrap();
    echo(&stack, 7);
    let mut stream = stack.connect(at(A6, 7)).await.unwrap();
    let socket = stack.bind_udp(9).unwrap();
    let mut listener = stack.listen(8).unwrap();
    drop(wire);
    assert!(stream.read(&mut [0; 8]).await.is_err());
    assert!(listener.accept().await.is_err());
    assert!(socket.recv_from(&mut [0; 8]).await.is_err());
    assert!(stack.connect(at(A6, 7)).await.is_err());
}

//! The stub resolver on loopback, with upstreams that are real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use naming::{Namespace, Zone};
use node::dns::{DnsState, StubResolver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);
const AAAA: u16 = 28;

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A query for `name` with id 0x1234 and recursion desired.
fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

fn code(reply: &[u8]) -> u8 {
    reply[3] & 0x0f
}

fn answers(reply: &[u8]) -> u16 {
    u16::from_be_bytes([reply[6], reply[7]])
}

async fn start(upstreams: &[SocketAddr]) -> (SocketAddr, DnsState) {
    let state = DnsState::default();
    let mut zone = Zone::new("home").unwrap();
    zone.add_host("nas", &["fd42::7".parse().unwrap()]).unwrap();
    state.replace_names(Namespace::new(vec![zone], 1).unwrap());
    state.replace_upstreams(upstreams);
    let stub = StubResolver::bind(loopback(), state.clone()).await.unwrap();
    let address = stub.local_addr();
    tokio::spawn(stub.serve());
    (address, state)
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(query).await.unwrap();
    let mut reply = vec![0; 65_535];
    let length = timeout(DEADLINE, socket.recv(&mut reply)).await.unwrap().unwrap();
    reply.truncate(length);
    reply
}

async fn ask_tcp(stream: &mut TcpStream, query: &[u8]) -> Vec<u8> {
    stream.write_u16(query.len() as u16).await.unwrap();
    stream.write_all(query).await.unwrap();
    let mut reply = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut reply).await.unwrap();
    reply
}

/// Answers with one record `192.0.2.n` and whatever `spoil` makes of it.
async fn upstream(
    n: u8,
    spoil: fn(&mut Vec<u8>),
) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let tcp = TcpListener::bind(loopback()).await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let (seen, queries) = mpsc::unbounded_channel();
    let seen_over_tcp = seen.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
            let _unread = seen.send(buffer[..length].to_vec());
            let mut reply = respond(&buffer[..length], n);
            spoil(&mut reply);
            udp.send_to(&reply, client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            let reply = respond(&query, n);
            let _unread = seen_over_tcp.send(query);
            stream.write_u16(reply.len() as u16).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    (address, queries)
}

fn respond(query: &[u8], n: u8) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply[7] = 1;
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, n]);
    reply
}

#[tokio::test]
async fn private_names_are_answered_over_both_transports_and_never_forwarded() {
    let (upstream, mut seen) = upstream(1, |_| {}).await;
    let (stub, state) = start(&[upstream]).await;
    let reply = ask_udp(stub, &query("NAS.home.alt", AAAA)).await;
    assert_eq!((code(&reply), answers(&reply)), (0, 1));
    assert!(reply.ends_with(&"fd42::7".parse::<std::net::Ipv6Addr>().unwrap().octets()));
    let mut stream = TcpStream::connect(stub).await.unwrap();
    for _ in 0..2 {
        assert_eq!(answers(&ask_tcp(&mut stream, &query("nas.home.alt", AAAA)).await), 1);
    }
    assert_eq!(code(&ask_udp(stub, &query("nas.elsewhere.alt", AAAA)).await), 3);
    assert!(seen.try_recv().is_err());

    state.replace_names(Namespace::default());
    assert_eq!(code(&ask_udp(stub, &query("nas.home.alt", AAAA)).await), 3);
}

#[tokio::test]
async fn other_names_are_forwarded_in_disguise() {
    let (upstream, mut seen) = upstream(1, |_| {}).await;
    let (stub, _) = start(&[upstream]).await;
    let question = query("a-rather-long-name.with-many-letters.example.com", 1);
    let reply = ask_udp(stub, &question).await;
    assert_eq!(reply[..2], question[..2]);
    assert_eq!(reply[12..question.len()], question[12..]);
    assert!(reply.ends_with(&[192, 0, 2, 1]));
    let forwarded = seen.recv().await.unwrap();
    assert_ne!(forwarded[12..], question[12..]);
    assert!(forwarded[12..].eq_ignore_ascii_case(&question[12..]));

    let mut stream = TcpStream::connect(stub).await.unwrap();
    assert!(ask_tcp(&mut stream, &question).await.ends_with(&[192, 0, 2, 1]));
}

#[tokio::test]
async fn a_forged_reply_does_not_count() {
    let (forger, _) = upstream(66, |reply| reply[0] ^= 1).await;
    let (honest, _) = upstream(2, |_| {}).await;
    let (stub, _) = start(&[forger, honest]).await;
    assert!(ask_udp(stub, &query("example.com", 1)).await.ends_with(&[192, 0, 2, 2]));
}

#[tokio::test]
async fn an_upstream_that_loses_the_case_is_asked_over_tcp() {
    let (upstream, mut seen) = upstream(3, |reply| reply.make_ascii_lowercase()).await;
    let (stub, _) = start(&[upstream]).await;
    let name = "a-rather-long-name.with-many-letters.example.com";
    assert!(ask_udp(stub, &query(name, 1)).await.ends_with(&[192, 0, 2, 3]));
    seen.recv().await.unwrap();
    assert!(seen.recv().await.is_some());
}

#[tokio::test]
async fn a_failing_upstream_gives_way_to_the_next() {
    let (failing, mut seen) = upstream(4, |reply| reply[3] |= 2).await;
    let (working, _) = upstream(5, |_| {}).await;
    let (stub, _) = start(&[failing, working]).await;
    for _ in 0..2 {
        assert!(ask_udp(stub, &query("example.com", 1)).await.ends_with(&[192, 0, 2, 5]));
    }
    seen.recv().await.unwrap();
    assert!(seen.try_recv().is_err(), "the upstream that works is remembered");
}

#[tokio::test]
async fn the_resolver_never_asks_itself() {
    let (stub, state) = start(&[]).await;
    state.replace_upstreams(&[stub]);
    let reply = ask_udp(stub, &query("example.com", 1)).await;
    assert_eq!((code(&reply), answers(&reply)), (2, 0));
    assert_eq!(reply[12..], query("example.com", 1)[12..]);
}

#[tokio::test]
async fn garbage_does_not_stop_the_resolver() {
    let (upstream, _seen) = upstream(1, |_| {}).await;
    let (stub, _) = start(&[upstream]).await;
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    let whole = query("example.com", 1);
    for length in 0..whole.len() {
        socket.send_to(&whole[..length], stub).await.unwrap();
    }
    socket.send_to(&[0xff; 5000], stub).await.unwrap();
    let mut stream = TcpStream::connect(stub).await.unwrap();
    stream.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(answers(&ask_udp(stub, &query("nas.home.alt", AAAA)).await), 1);
}

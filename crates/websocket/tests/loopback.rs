//! Dialling and listening on the loopback interface.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use websocket::{
    AttemptError, CertificateError, DialError, Endpoint, Front, Listener, MAX_MESSAGE,
    ServerCertificate, SpkiPin, Tls, WebSocketError, dial, dial_by, generate_key,
};

const DEADLINE: Duration = Duration::from_secs(20);
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn endpoint(address: SocketAddr, tls: Tls) -> Endpoint {
    Endpoint {
        addresses: vec![address],
        host: "relay.example".to_owned(),
        tls,
        path: "/api/v1/ws/abc".to_owned(),
        mark: None,
        detour: None,
    }
}

fn self_signed(key: &[u8]) -> ServerCertificate {
    ServerCertificate::self_signed(key, vec!["relay.example".to_owned()]).expect("a valid name")
}

/// A server that sends every message back on one path and has nothing on the others.
async fn echo_server(certificate: Option<ServerCertificate>) -> (SocketAddr, JoinHandle<()>) {
    let mut listener = Listener::bind(HERE, certificate).await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let task = tokio::spawn(async move {
        loop {
            let upgrade = listener.accept().await;
            if !upgrade.path().starts_with("/api/v1/ws/") {
                upgrade.reject_not_found().await;
                continue;
            }
            tokio::spawn(async move {
                let Ok(socket) = upgrade.accept().await else { return };
                let (mut sender, mut receiver) = socket.split();
                while let Ok(Some(message)) = receiver.receive().await {
                    if sender.send(message).await.is_err() {
                        return;
                    }
                }
                sender.close().await;
            });
        }
    });
    (address, task)
}

async fn round_trip(endpoint: &Endpoint) {
    let (mut sender, mut receiver) = dial(endpoint).await.expect("the server echoes").split();
    for length in [0, 1, 125, 126, 65_535, MAX_MESSAGE] {
        let message = Bytes::from(vec![0x5a; length]);
        sender.send(message.clone()).await.expect("the server echoes");
        assert_eq!(
            receiver.receive().await.expect("the server echoes").expect("the server echoes"),
            message
        );
    }
    sender.close().await;
    assert!(receiver.receive().await.expect("the server echoes").is_none());
}

async fn failure(endpoint: &Endpoint) -> AttemptError {
    match dial(endpoint).await {
        Err(DialError::Failed(mut failures)) => failures.pop().expect("the server echoes").1,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the connection should not have come about"),
    }
}

#[tokio::test]
async fn messages_come_back_over_plain_tcp() {
    let (address, _server) = echo_server(None).await;
    timeout(DEADLINE, round_trip(&endpoint(address, Tls::Plain))).await.unwrap();
}

#[tokio::test]
async fn messages_come_back_over_pinned_tls_and_the_pin_outlives_the_certificate() {
    let key = generate_key();
    let pin = self_signed(&key).pin();
    let (address, _server) = echo_server(Some(self_signed(&key))).await;
    timeout(DEADLINE, round_trip(&endpoint(address, Tls::Pin(pin)))).await.unwrap();
}

#[tokio::test]
async fn what_came_with_a_message_is_there_without_waiting_and_nothing_else() {
    let mut listener = Listener::bind(HERE, None).await.unwrap();
    let endpoint = endpoint(listener.local_addr().unwrap(), Tls::Plain);
    let accepted = async { listener.accept().await.accept().await.unwrap() };
    let (client, server) =
        timeout(DEADLINE, async { tokio::join!(dial(&endpoint), accepted) }).await.unwrap();
    let ((mut sender, _), (_, mut receiver)) = (client.unwrap().split(), server.split());
    assert!(receiver.receive_now().is_none());
    for number in 1..=3 {
        sender.feed(Bytes::from(vec![number])).await.unwrap();
    }
    sender.flush().await.unwrap();
    let first = timeout(DEADLINE, receiver.receive()).await.unwrap().unwrap();
    assert_eq!(first, Some(Bytes::from_static(&[1])));
    for number in 2..=3 {
        let next = receiver.receive_now().expect("they came together").unwrap();
        assert_eq!(next, Some(Bytes::from(vec![number])));
    }
    assert!(receiver.receive_now().is_none());
    sender.close().await;
    assert_eq!(timeout(DEADLINE, receiver.receive()).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn certificate_files_in_pem_work() {
    let issued = rcgen_pem();
    let certificate =
        ServerCertificate::from_pem(issued.0.as_bytes(), issued.1.as_bytes()).unwrap();
    let pin = certificate.pin();
    let (address, _server) = echo_server(Some(certificate)).await;
    timeout(DEADLINE, round_trip(&endpoint(address, Tls::Pin(pin)))).await.unwrap();
    assert!(ServerCertificate::from_pem(b"no", issued.1.as_bytes()).is_err());
    assert!(ServerCertificate::from_pem(issued.0.as_bytes(), b"no").is_err());
}

fn rcgen_pem() -> (String, String) {
    let issued =
        rcgen::generate_simple_self_signed(vec!["relay.example".to_owned()]).expect("a valid name");
    (issued.cert.pem(), issued.signing_key.serialize_pem())
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (chain, key) = (rcgen_pem().0, rcgen_pem().1);
    let error = ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
    assert_eq!(error, CertificateError::Mismatch);
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_refused() {
    let (address, _server) = echo_server(Some(self_signed(&generate_key()))).await;
    let error = failure(&endpoint(address, Tls::Pin(SpkiPin([7; 32])))).await;
    assert!(matches!(error, AttemptError::WrongPin), "{error}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_not_web_pki() {
    let (address, _server) = echo_server(Some(self_signed(&generate_key()))).await;
    let error = failure(&endpoint(address, Tls::WebPki)).await;
    assert!(matches!(error, AttemptError::Certificate(_)), "{error}");
}

#[tokio::test]
async fn an_unknown_path_and_a_web_browser_see_the_same_page() {
    let (address, _server) = echo_server(None).await;
    let mut other = endpoint(address, Tls::Plain);
    other.path = "/other".to_owned();
    let error = failure(&other).await;
    assert!(matches!(error, AttemptError::Status(404)), "{error}");

    let mut pages = Vec::new();
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /other HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        "garbage\r\n\r\n",
    ] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        timeout(DEADLINE, tcp.read_to_string(&mut page)).await.unwrap().unwrap();
        pages.push(page);
    }
    assert!(pages[0].starts_with("HTTP/1.1 404 Not Found"));
    assert!(pages.iter().all(|page| *page == pages[0]));
}

#[tokio::test]
async fn where_a_client_comes_from_is_told_by_proxies_that_are_trusted_and_by_nobody_else() {
    for (trusted, origin) in [("127.0.0.0/8", "203.0.113.7"), ("192.0.2.0/24", "127.0.0.1")] {
        let front = Front::new(vec![trusted.parse().unwrap()], None).unwrap();
        let listener = Listener::bind(HERE, None).await.expect("a free port");
        let mut listener = listener.with_front(front);
        let address = listener.local_addr().expect("a bound socket has an address");
        let mut tcp = TcpStream::connect(address).await.unwrap();
        // What the client itself claims stands before what the proxy adds.
        let request = "GET /api HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
            X-Forwarded-For: 198.51.100.1, 203.0.113.7\r\n\r\n";
        tcp.write_all(request.as_bytes()).await.unwrap();
        let upgrade = timeout(DEADLINE, listener.accept()).await.unwrap();
        assert_eq!(upgrade.remote().ip().to_string(), origin);
    }
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let (address, _server) = echo_server(None).await;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let endless = format!("GET /{} ", "x".repeat(20_000));
    tcp.write_all(endless.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server may close with our bytes unread, which resets the connection.
    let _ = timeout(DEADLINE, tcp.read_to_end(&mut answer)).await.unwrap();
}

#[tokio::test]
async fn a_silent_client_does_not_keep_others_out() {
    let (address, _server) = echo_server(None).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    timeout(DEADLINE, round_trip(&endpoint(address, Tls::Plain))).await.unwrap();
}

#[tokio::test]
async fn the_next_address_is_tried_when_the_first_fails() {
    let (address, _server) = echo_server(None).await;
    let closed = TcpListener::bind(HERE).await.unwrap().local_addr().unwrap();
    let mut endpoint = endpoint(address, Tls::Plain);
    endpoint.addresses.insert(0, closed);
    timeout(DEADLINE, round_trip(&endpoint)).await.unwrap();
}

#[tokio::test]
async fn the_next_address_is_tried_when_the_first_is_silent() {
    let (address, _server) = echo_server(None).await;
    let silent = TcpListener::bind(HERE).await.unwrap();
    let mut endpoint = endpoint(address, Tls::Plain);
    endpoint.addresses.insert(0, silent.local_addr().unwrap());
    timeout(DEADLINE, round_trip(&endpoint)).await.unwrap();
}

#[tokio::test]
async fn the_way_that_won_goes_first_the_next_time_and_no_other_than_those_that_are_known() {
    let (address, _server) = echo_server(None).await;
    let silent = TcpListener::bind(HERE).await.unwrap();
    let mut endpoint = endpoint(address, Tls::Plain);
    endpoint.addresses.insert(0, silent.local_addr().unwrap());
    let (_, won) = dial_by(&endpoint, None).await.unwrap();
    let begun = Instant::now();
    let (_, again) = dial_by(&endpoint, Some(&won)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
    assert_eq!(again, won);
    endpoint.addresses.pop();
    assert!(timeout(Duration::from_secs(1), dial_by(&endpoint, Some(&won))).await.is_err());
}

#[tokio::test]
async fn an_endpoint_without_addresses_or_with_nonsense_fails_at_once() {
    let mut nowhere = endpoint(HERE, Tls::Plain);
    nowhere.addresses.clear();
    assert!(matches!(dial(&nowhere).await, Err(DialError::Failed(list)) if list.is_empty()));
    let mut host = endpoint(HERE, Tls::Plain);
    host.host = "a b".to_owned();
    assert!(matches!(dial(&host).await, Err(DialError::Host(_))));
    let mut path = endpoint(HERE, Tls::Plain);
    path.path = "/a b\r\n".to_owned();
    assert!(matches!(dial(&path).await, Err(DialError::Path)));
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_on_both_sides() {
    let (address, _server) = echo_server(None).await;
    let (mut sender, _receiver) = dial(&endpoint(address, Tls::Plain)).await.unwrap().split();
    let oversized = Bytes::from(vec![0; MAX_MESSAGE + 1]);
    assert!(matches!(sender.send(oversized).await, Err(WebSocketError::TooLong)));

    let mut raw = upgraded(address).await;
    // A masked binary frame that announces 1 MiB.
    raw.write_all(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]).await.unwrap();
    assert_server_hangs_up(raw).await;
}

#[tokio::test]
async fn text_garbage_and_ping_floods_end_the_connection() {
    let (address, _server) = echo_server(None).await;
    let text: &[u8] = &[0x81, 0x81, 0, 0, 0, 0, b'x'];
    let unmasked: &[u8] = &[0x82, 0x01, b'x'];
    let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(100);
    for bytes in [text, unmasked, &[0xff; 64], &pings] {
        let mut raw = upgraded(address).await;
        raw.write_all(bytes).await.unwrap();
        assert_server_hangs_up(raw).await;
    }
}

/// A connection after its upgrade, to send bytes of our own.
async fn upgraded(address: SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(address).await.expect("the server listens");
    let request = "GET /api/v1/ws/abc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    tcp.write_all(request.as_bytes()).await.expect("the server reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.expect("the server answers"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    tcp
}

async fn assert_server_hangs_up(mut tcp: TcpStream) {
    let mut rest = Vec::new();
    // Either end of the stream or a reset will do.
    let _ = timeout(DEADLINE, tcp.read_to_end(&mut rest)).await.expect("the server hangs up");
}

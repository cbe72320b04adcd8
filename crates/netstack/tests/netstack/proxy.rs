//! The proxy and the forwards, with real local sockets.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use netstack::proxy::socks::{parse_datagram, parse_greeting, parse_login, parse_request};
use netstack::proxy::{self, Credentials};
use netstack::{NetstackHandle, forward};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::wire::{A6, B4, B6, address, at, echo, exchange, pair};

async fn local_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn start_proxy(stack: &NetstackHandle, credentials: Option<Credentials>) -> SocketAddr {
    let (listener, address) = local_listener().await;
    tokio::spawn(proxy::serve(listener, stack.clone(), credentials));
    address
}

fn name_request(command: u8, name: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, command, 0, 3, name.len() as u8];
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

/// Greets without a password and sends a request; returns the stream and the reply's code.
async fn ask(proxy: SocketAddr, request: &[u8]) -> (TcpStream, u8, Vec<u8>) {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [5, 0]);
    stream.write_all(request).await.unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.unwrap();
    let mut bound = vec![0; if head[3] == 1 { 6 } else { 18 }];
    stream.read_exact(&mut bound).await.unwrap();
    (stream, head[1], bound)
}

#[tokio::test]
async fn socks_connects_by_name() {
    let (a, b) = pair();
    echo(&b, 7);
    let proxy = start_proxy(&a, None).await;
    let (stream, code, bound) = ask(proxy, &name_request(1, "B.Home.alt", 7)).await;
    assert_eq!(code, 0);
    assert_eq!(bound[..16], A6.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let bytes = vec![42; 300_000];
    assert_eq!(exchange(stream, &bytes).await, bytes);
}

#[tokio::test]
async fn socks_refuses_with_the_right_code() {
    let (a, _b) = pair();
    let proxy = start_proxy(&a, None).await;
    let outside = [&[5, 1, 0, 1, 192, 0, 2, 1][..], &[0, 80]].concat();
    let mapped = [&[5, 1, 0, 4][..], &[0; 10], &[0xff, 0xff, 127, 0, 0, 1, 0, 22]].concat();
    let cases = [
        (name_request(1, "www.example.com", 80), 2),
        (outside, 2),
        (mapped, 2),
        (name_request(1, "nobody.home.alt", 80), 4),
        (name_request(1, "liar.home.alt", 80), 4),
        (name_request(1, "b.home.alt", 81), 5),
        (name_request(2, "b.home.alt", 80), 7),
        (name_request(9, "b.home.alt", 80), 7),
        (vec![5, 1, 0, 9, 0, 0], 8),
    ];
    for (request, expected) in cases {
        assert_eq!(ask(proxy, &request).await.1, expected, "{request:?}");
    }
}

#[tokio::test]
async fn a_password_is_demanded_when_there_is_one() {
    let (a, b) = pair();
    echo(&b, 7);
    let login = Credentials { user: "u".into(), password: "secret".into() };
    let proxy = start_proxy(&a, Some(login)).await;

    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [5, 0xff]);

    for (password, welcome) in [("secret", true), ("Secret", false)] {
        let mut stream = TcpStream::connect(proxy).await.unwrap();
        stream.write_all(&[5, 2, 0, 2]).await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [5, 2]);
        stream.write_all(&[1, 1, b'u', 6]).await.unwrap();
        stream.write_all(password.as_bytes()).await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [1, u8::from(!welcome)]);
        if welcome {
            stream.write_all(&name_request(1, "b.home.alt", 7)).await.unwrap();
            let mut reply = [0; 22];
            stream.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply[1], 0);
        } else {
            assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
        }
    }

    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(b"CONNECT b.home.alt:7 HTTP/1.1\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 407 "));
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let request =
        "CONNECT b.home.alt:7 HTTP/1.1\r\nProxy-Authorization: Basic dTpzZWNyZXQ=\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}

#[tokio::test]
async fn datagrams_pass_by_name_and_by_both_kinds_of_address() {
    let (a, b) = pair();
    let server = b.bind_udp(9).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, source)) = server.recv_from(&mut buffer).await {
            server.send_to(&buffer[..length], source).await.unwrap();
        }
    });
    let proxy = start_proxy(&a, None).await;
    let (control, code, bound) = ask(proxy, &[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    assert_eq!((code, bound.len()), (0, 6));
    let relay = SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([bound[4], bound[5]])));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let name = [&[0, 0, 0, 3, 10][..], b"b.home.alt", &[0, 9]].concat();
    let six = [&[0, 0, 0, 4][..], &b_octets6(), &[0, 9]].concat();
    let four = [&[0, 0, 0, 1, 100, 64, 0, 2][..], &[0, 9]].concat();
    let outside = [&[0, 0, 0, 1, 192, 0, 2, 1][..], &[0, 9]].concat();
    for (header, source) in [(&name, B6), (&six, B6), (&four, B4)] {
        socket.send_to(&[&outside[..], b"lost"].concat(), relay).await.unwrap();
        socket.send_to(&[&header[..], b"hello"].concat(), relay).await.unwrap();
        let mut buffer = [0; 2048];
        let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
        let datagram = parse_datagram(&buffer[..length]).unwrap().unwrap();
        assert_eq!(datagram.payload, b"hello");
        assert_eq!((datagram.host.to_string(), datagram.port), (address(source).to_string(), 9));
    }
    drop(control);
}

fn b_octets6() -> [u8; 16] {
    B6.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

#[tokio::test]
async fn http_clients_use_the_same_port() {
    let (a, b) = pair();
    echo(&b, 80);
    let proxy = start_proxy(&a, None).await;

    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(b"CONNECT b.home.alt:80 HTTP/1.1\r\nHost: b\r\n\r\nearly").await.unwrap();
    let mut head = [0; 39];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 Connection Established\r\n\r\n");
    assert_eq!(exchange(stream, b" and late").await, b"early and late");

    let stream = TcpStream::connect(proxy).await.unwrap();
    let request = b"GET http://b.home.alt/page?x=1 HTTP/1.1\r\nHost: b.home.alt\r\n\
                    Proxy-Connection: keep-alive\r\n\r\n";
    let echoed = exchange(stream, request).await;
    assert_eq!(
        String::from_utf8(echoed).unwrap(),
        "GET /page?x=1 HTTP/1.1\r\nHost: b.home.alt\r\nConnection: close\r\n\r\n"
    );

    for (request, status) in [
        ("GET http://example.com/ HTTP/1.1\r\n\r\n", "403"),
        ("CONNECT nobody.home.alt:80 HTTP/1.1\r\n\r\n", "502"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
    ] {
        let stream = TcpStream::connect(proxy).await.unwrap();
        let answer = String::from_utf8(exchange(stream, request.as_bytes()).await).unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}");
    }
}

#[tokio::test]
async fn a_published_service_is_reached_through_a_forward() {
    let (a, b) = pair();
    let (service, service_address) = local_listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = service.accept().await {
            let mut question = Vec::new();
            stream.read_to_end(&mut question).await.unwrap();
            question.reverse();
            stream.write_all(&question).await.unwrap();
        }
    });
    tokio::spawn(forward::publish(b.listen(8080).unwrap(), service_address));
    let (entrance, entrance_address) = local_listener().await;
    tokio::spawn(forward::forward(entrance, a, "b.home.alt".into(), 8080));
    for _ in 0..3 {
        let stream = TcpStream::connect(entrance_address).await.unwrap();
        assert_eq!(exchange(stream, b"drawer").await, b"reward");
    }
}

#[tokio::test]
async fn a_published_service_that_is_down_resets() {
    let (a, b) = pair();
    let (gone, gone_address) = local_listener().await;
    drop(gone);
    tokio::spawn(forward::publish(b.listen(8080).unwrap(), gone_address));
    let mut stream = a.connect(at(B6, 8080)).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_panic_the_parsers(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 0..2_usize) {
        let mut greeted = bytes.clone();
        if let Some(first) = greeted.first_mut() {
            *first = [5, 1][version];
        }
        for bytes in [&bytes, &greeted] {
            let lengths = [
                parse_greeting(bytes).ok().flatten().map(|(_, used)| used),
                parse_login(bytes).ok().flatten().map(|(_, used)| used),
                parse_request(bytes).ok().flatten().map(|(_, used)| used),
            ];
            prop_assert!(lengths.into_iter().flatten().all(|used| used <= bytes.len()));
            let _datagram = parse_datagram(bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_client_stops_the_proxy(
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        start in prop::sample::select(vec![&b""[..], &[5, 1, 0], &[5, 1, 0, 5, 1, 0, 3], b"CONNECT ", b"GET http://"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (a, b) = pair();
            echo(&b, 7);
            let proxy = start_proxy(&a, None).await;
            let mut hostile = TcpStream::connect(proxy).await.unwrap();
            hostile.write_all(&[start, &bytes[..]].concat()).await.unwrap();
            hostile.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _outcome = hostile.read_to_end(&mut answer).await;
            let (stream, code, _) = ask(proxy, &name_request(1, "b.home.alt", 7)).await;
            assert_eq!(code, 0);
            assert_eq!(exchange(stream, b"alive").await, b"alive");
        });
    }
}

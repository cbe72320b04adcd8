//! WebSocket in both directions, and the proxy of the userspace mode.

use std::cell::RefCell;
use std::iter::once;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netstack::proxy::{http, socks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use websocket::upgrade::{Request, UpgradeError, parse_request, parse_response, response_status};
use websocket::{Endpoint, Front, Listener, MAX_MESSAGE, Tls, WebSocket, dial};

/// The example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

pub(super) fn socks_messages(bytes: &[u8]) {
    let used = [
        socks::parse_greeting(bytes).ok().flatten().map(|(_, used)| used),
        socks::parse_login(bytes).ok().flatten().map(|(_, used)| used),
        socks::parse_request(bytes).ok().flatten().map(|(_, used)| used),
    ];
    assert!(used.into_iter().flatten().all(|used| used <= bytes.len()));
    let _ = socks::parse_datagram(bytes);
}

pub(super) fn http_proxy(bytes: &[u8]) {
    let Ok(Some((head, used))) = http::parse_head(bytes) else { return };
    assert_eq!(head.as_bytes(), &bytes[..used]);
    let Some(wish) = http::parse_wish(&head) else { return };
    assert!(!wish.host.is_empty());
    if let Some(forwarded) = wish.head {
        let whole = http::parse_head(forwarded.as_bytes()).ok().flatten();
        assert_eq!(whole, Some((forwarded.clone(), forwarded.len())), "one request goes out");
        assert!(!forwarded.to_ascii_lowercase().contains("\r\nproxy-authorization:"));
    }
}

pub(super) fn upgrade(bytes: &[u8]) {
    if let Ok(Some((request, used))) = parse_request(bytes) {
        let again = parse_request(&bytes[..used]).ok().flatten();
        assert_eq!(again.map(|(again, used)| (again == request, used)), Some((true, used)));
        if let Some(request) = request {
            client(&request);
            let answer = request.answer();
            let ours = bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
            match parse_response(answer.as_bytes(), KEY) {
                Ok(Some(((), length))) => assert!(ours && length == answer.len()),
                Err(UpgradeError::Malformed) => {}
                other => panic!("our own answer is read as {other:?}"),
            }
        }
    }
    if let Ok(Some((status, used))) = response_status(bytes) {
        assert!(used <= bytes.len());
        match parse_response(bytes, KEY) {
            Ok(Some(_)) => assert_eq!(status, 101),
            Err(UpgradeError::Status(refused)) => assert_eq!(status, refused),
            Err(UpgradeError::Malformed) => {}
            other => panic!("a whole answer is read as {other:?}"),
        }
    }
    if let Ok(Some(((), used))) = parse_response(bytes, KEY) {
        let head = &bytes[..used];
        assert!(head.windows(ACCEPT.len()).any(|window| window == ACCEPT), "it knows the key");
    }
}

/// Where a request says that it comes from, to listeners that trust some of the proxies that it names.
fn client(request: &Request) {
    let peer = SocketAddr::from(([192, 0, 2, 9], 443));
    let named = request.forwarded_for().filter_map(|named| named.parse().ok());
    let others: Vec<IpAddr> = named.filter(|named| *named != peer.ip()).collect();
    let listener = |trusted: &[IpAddr]| {
        let trusted = trusted.iter().copied().map(Into::into).collect();
        Front::new(trusted, None).expect("there is no page")
    };
    let client = listener(&others).client(peer, request.forwarded_for());
    assert_eq!(client, peer, "whom nobody trusts is himself");
    let some: Vec<IpAddr> = others.iter().copied().step_by(2).chain([peer.ip()]).collect();
    let client = listener(&some).client(peer, request.forwarded_for());
    let forged = once("198.51.100.7").chain(request.forwarded_for());
    let forged = listener(&some).client(peer, forged);
    assert_eq!(client.port(), peer.port());
    assert!(client == forged || some.contains(&client.ip()), "nobody says where he comes from");
}

/// Both ends, on ports that live as long as the thread.
struct Ends {
    runtime: Runtime,
    listener: Listener,
    raw: TcpListener,
}

thread_local! {
    static ENDS: RefCell<Ends> = RefCell::new(Ends::new());
}

/// The bytes after the head, to a server or to a client as the first of them says.
pub(super) fn websocket(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    ENDS.with_borrow_mut(|ends| {
        let Ends { runtime, listener, raw } = ends;
        let received = runtime.block_on(async {
            if first & 1 == 0 {
                let address = listener.local_addr().expect("it is bound");
                tokio::join!(receive_as_server(listener), ask(address, bytes)).0
            } else {
                tokio::join!(receive_as_client(raw), answer(raw, bytes)).0
            }
        });
        assert!(received <= bytes.len(), "nothing comes out that did not go in");
    });
}

impl Ends {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (listener, raw) = runtime.block_on(async {
            let listener = Listener::bind(free, None).await.expect("a free port");
            (listener, TcpListener::bind(free).await.expect("a free port"))
        });
        Self { runtime, listener, raw }
    }
}

/// The bytes of all messages until the connection is over.
async fn receive(websocket: WebSocket) -> usize {
    let (_sender, mut receiver) = websocket.split();
    let mut received = 0;
    while let Ok(Some(message)) = receiver.receive().await {
        assert!(message.len() <= MAX_MESSAGE);
        received += message.len();
    }
    received
}

async fn receive_as_server(listener: &mut Listener) -> usize {
    let upgrade = listener.accept().await;
    receive(upgrade.accept().await.expect("the client waits")).await
}

async fn receive_as_client(raw: &TcpListener) -> usize {
    let endpoint = Endpoint {
        addresses: vec![raw.local_addr().expect("it is bound")],
        host: "localhost".to_owned(),
        tls: Tls::Plain,
        path: "/".to_owned(),
        mark: None,
        detour: None,
    };
    receive(dial(&endpoint).await.expect("the server answers")).await
}

/// A client that asks for an upgrade and says the bytes.
async fn ask(address: SocketAddr, bytes: &[u8]) {
    let stream = TcpStream::connect(address).await.expect("the listener is there");
    say(stream, REQUEST, bytes).await;
}

/// A server that answers as it should and says the bytes.
async fn answer(raw: &TcpListener, bytes: &[u8]) {
    let (mut stream, _) = raw.accept().await.expect("the client is there");
    let mut head = Vec::new();
    let request = loop {
        stream.read_buf(&mut head).await.expect("the client asks");
        if let Some((request, _)) = parse_request(&head).expect("our own request") {
            break request.expect("our own request");
        }
    };
    say(stream, request.answer().as_bytes(), bytes).await;
}

/// Says a head and the bytes, and hears the other end out. Whoever ends first is not asked why, and
/// the port is free at once.
async fn say(mut stream: TcpStream, head: &[u8], bytes: &[u8]) {
    let _ = stream.write_all(&[head, bytes].concat()).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
    stream.set_zero_linger().expect("the socket is ours");
}

//! The HTTP head on either side of an upgrade (RFC 6455 section 4).

use std::{io, time::SystemTime};

use aws_lc_rs::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    rand,
};
use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{Front, transport::Transport};

/// A head longer than this is refused; browsers and proxies stay below it.
const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
/// RFC 6455 section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A browser that many people use: what a request says of itself tells nobody what made it.
const USER_AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/142.0.0.0 Safari/537.36";

/// A well-formed upgrade request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    path: String,
    accept: String,
    forwarded_for: Vec<String>,
}

impl Request {
    /// The path that is asked for, with its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the `X-Forwarded-For` headers name, the nearest proxy's word last.
    pub fn forwarded_for(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.forwarded_for.iter().flat_map(|value| value.split(',')).map(str::trim)
    }

    /// The head of the answer by which the connection becomes a WebSocket.
    #[must_use]
    pub fn answer(&self) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            self.accept
        )
    }
}

/// Why an upgrade did not come about.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer does not speak HTTP, or says too much.
    #[error("the HTTP head is malformed or too long")]
    Malformed,
    /// The server answered with another status than 101.
    #[error("HTTP status {0}")]
    Status(u16),
}

/// Asks a server for an upgrade, from a page of its own (`https://` and its name), and checks its answer.
pub(crate) async fn request(
    transport: &mut Transport,
    origin: &str,
    path: &str,
) -> Result<(), UpgradeError> {
    let mut nonce = [0; 16];
    rand::fill(&mut nonce).expect("the operating system gives randomness");
    let key = BASE64.encode(&nonce);
    let head = request_head(origin, path, &key);
    transport.write_all(head.as_bytes()).await?;
    transport.flush().await?;
    let ((), rest) = read_head(transport, |head| parse_response(head, &key)).await?;
    transport.put_back(rest);
    Ok(())
}

/// The head of a request, with the headers of a browser in its order.
fn request_head(origin: &str, path: &str, key: &str) -> String {
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nPragma: no-cache\r\n\
         Cache-Control: no-cache\r\nUser-Agent: {USER_AGENT}\r\nUpgrade: websocket\r\n\
         Origin: {origin}\r\nSec-WebSocket-Version: 13\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\
         Sec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    )
}

/// Reads a client's request; `None` is a request for something else than an upgrade.
pub(crate) async fn read_request(
    transport: &mut Transport,
) -> Result<Option<Request>, UpgradeError> {
    let (request, rest) = read_head(transport, parse_request).await?;
    transport.put_back(rest);
    Ok(request)
}

/// Tells the client that the connection is a WebSocket from here on.
pub(crate) async fn accept(transport: &mut Transport, request: &Request) -> io::Result<()> {
    transport.write_all(request.answer().as_bytes()).await?;
    transport.flush().await
}

/// Tells the client what a web server tells that knows nothing of WebSocket.
pub(crate) async fn reject(transport: &mut Transport, front: &Front) -> io::Result<()> {
    transport.write_all_buf(&mut front.answer(SystemTime::now())).await?;
    transport.flush().await?;
    transport.shutdown().await
}

/// What a head means and how long it is, or `None` while it is incomplete.
pub type Parsed<T> = Result<Option<(T, usize)>, UpgradeError>;

/// Reads a head, and answers with its meaning and what was read of what follows.
pub(crate) async fn read_head<T>(
    stream: &mut (impl AsyncRead + Unpin),
    parse: impl Fn(&[u8]) -> Parsed<T>,
) -> Result<(T, Bytes), UpgradeError> {
    let mut head = BytesMut::with_capacity(1024);
    loop {
        let read = stream.read_buf(&mut head).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some((meaning, length)) = parse(&head)? {
            return Ok((meaning, Bytes::from(head.split_off(length))));
        }
        if head.len() > MAX_HEAD {
            return Err(UpgradeError::Malformed);
        }
    }
}

/// Reads a client's head; one that asks for something else than an upgrade has no [`Request`].
///
/// # Errors
/// [`UpgradeError::Malformed`].
pub fn parse_request(head: &[u8]) -> Parsed<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(head).map_err(|_| UpgradeError::Malformed)?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    let key = header(request.headers, "sec-websocket-key")
        .filter(|key| BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16));
    let is_upgrade = request.method == Some("GET")
        && request.version == Some(1)
        && has_token(request.headers, "upgrade", "websocket")
        && has_token(request.headers, "connection", "upgrade")
        && header(request.headers, "sec-websocket-version") == Some(b"13");
    let upgrade = match (key, request.path) {
        (Some(key), Some(path)) if is_upgrade => {
            let forwarded_for = headers_named(request.headers, "x-forwarded-for");
            let forwarded_for =
                forwarded_for.filter_map(|value| String::from_utf8(value.to_vec()).ok());
            let (path, accept) = (path.to_owned(), accept_value(key));
            Some(Request { path, accept, forwarded_for: forwarded_for.collect() })
        }
        (_, _) => None,
    };
    Ok(Some((upgrade, length)))
}

/// Reads a server's answer to a request with this `Sec-WebSocket-Key`.
///
/// # Errors
/// [`UpgradeError::Malformed`], also when it answers another request, and [`UpgradeError::Status`].
pub fn parse_response(head: &[u8], key: &str) -> Parsed<()> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(head).map_err(|_| UpgradeError::Malformed)?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    let code = response.code.ok_or(UpgradeError::Malformed)?;
    if code != 101 {
        return Err(UpgradeError::Status(code));
    }
    // An extension is offered as browsers do, but none is understood; servers of our own take none.
    let accepted = header(response.headers, "sec-websocket-accept")
        == Some(accept_value(key.as_bytes()).as_bytes())
        && header(response.headers, "sec-websocket-extensions").is_none();
    if accepted { Ok(Some(((), length))) } else { Err(UpgradeError::Malformed) }
}

/// The status of any response.
///
/// # Errors
/// [`UpgradeError::Malformed`].
pub fn response_status(head: &[u8]) -> Parsed<u16> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(head).map_err(|_| UpgradeError::Malformed)?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    Ok(Some((response.code.ok_or(UpgradeError::Malformed)?, length)))
}

fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers_named(headers, name).next()
}

fn headers_named<'h, 'a: 'h>(
    headers: &'h [httparse::Header<'a>],
    name: &'h str,
) -> impl Iterator<Item = &'a [u8]> + 'h {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value)
}

fn has_token(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    header(headers, name)
        .and_then(|value| std::str::from_utf8(value).ok())
        .is_some_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
}

fn accept_value(key: &[u8]) -> String {
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_GUID].concat()).as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_6455_is_understood() {
        let head = b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
            Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\r\nrest";
        let (request, length) = parse_request(head).unwrap().unwrap();
        let request = request.unwrap();
        assert_eq!(request.path, "/chat");
        assert_eq!(request.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(&head[length..], b"rest");
    }

    #[test]
    fn our_own_request_is_understood_and_looks_like_a_browsers() {
        let head = request_head("https://relay.example.org", "/chat", "dGhlIHNhbXBsZSBub25jZQ==");
        let (request, length) = parse_request(head.as_bytes()).unwrap().unwrap();
        assert_eq!((request.unwrap().path(), length), ("/chat", head.len()));
        let names: Vec<_> =
            head.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
        // As Chrome sends them.
        let expected = "Host Connection Pragma Cache-Control User-Agent Upgrade Origin Sec-WebSocket-Version \
            Accept-Encoding Accept-Language Sec-WebSocket-Key Sec-WebSocket-Extensions";
        assert_eq!(names.join(" "), expected);
        assert!(head.contains("\r\nUser-Agent: Mozilla/5.0 (") && head.contains(" Chrome/"));
        assert!(head.contains("\r\nHost: relay.example.org\r\n"));
    }

    #[test]
    fn an_extension_that_nobody_understands_is_no_upgrade() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        assert!(matches!(parse_response(format!("{answer}\r\n").as_bytes(), key), Ok(Some(_))));
        let extended = format!("{answer}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
        assert!(matches!(parse_response(extended.as_bytes(), key), Err(UpgradeError::Malformed)));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256), http: bool) {
            let mut head = if http { b"HTTP/1.1 101 \r\n".to_vec() } else { b"GET ".to_vec() };
            head.extend(bytes);
            let _ = parse_request(&head);
            let _ = response_status(&head);
            let _ = parse_response(&head, "dGhlIHNhbXBsZSBub25jZQ==");
        }
    }
}

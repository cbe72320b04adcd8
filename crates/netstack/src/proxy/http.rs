//! The HTTP side of the proxy: CONNECT and absolute-form requests (RFC 9110, RFC 9112).
//!
//! An absolute-form request is forwarded with its target cut to a path and with
//! `Connection: close`, so that a client connection never serves a second origin.

use std::io;

use data_encoding::BASE64;
use tokio::io::AsyncWriteExt;

use super::Credentials;
use super::client::Client;
use super::socks::{Parsed, SocksError};
use crate::forward::join;
use crate::{ConnectError, NetstackHandle, ResolveError};

const HEAD_END: &[u8] = b"\r\n\r\n";
/// Fields that concern this hop only.
const HOP_FIELDS: [&str; 5] =
    ["connection", "proxy-connection", "proxy-authorization", "keep-alive", "te"];

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wish {
    /// A name or an address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The head to send to the origin; `None` for CONNECT.
    pub head: Option<String>,
}

/// Reads a request and checks its password; `None` when the client has had its refusal.
pub(crate) async fn negotiate(
    client: &mut Client,
    credentials: Option<&Credentials>,
) -> io::Result<Option<Wish>> {
    let head = client.read_with(parse_head).await?;
    if !credentials.is_none_or(|credentials| authorized(&head, credentials)) {
        let field = "Proxy-Authenticate: Basic realm=\"shadowmesh\"\r\n";
        refuse(client, "407 Proxy Authentication Required", field, "a password is needed").await?;
        return Ok(None);
    }
    let wish = parse_wish(&head);
    if wish.is_none() {
        let advice = "this is a proxy: send CONNECT or an absolute http:// address";
        refuse(client, "400 Bad Request", "", advice).await?;
    }
    Ok(wish)
}

/// Connects and copies.
pub(crate) async fn serve(
    mut client: Client,
    stack: &NetstackHandle,
    wish: Wish,
) -> io::Result<()> {
    let mut remote = match stack.connect_host(&wish.host, wish.port).await {
        Ok(remote) => remote,
        Err(error) => {
            return refuse(&mut client, status_of(&error), "", &error.to_string()).await;
        }
    };
    match wish.head {
        None => client.send(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?,
        Some(head) => remote.write_all(head.as_bytes()).await?,
    }
    join(client, remote).await;
    Ok(())
}

fn status_of(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Outside | ConnectError::Name(ResolveError::Outside) => "403 Forbidden",
        ConnectError::TimedOut => "504 Gateway Timeout",
        ConnectError::Name(ResolveError::NotFound | ResolveError::Unavailable)
        | ConnectError::Io(_) => "502 Bad Gateway",
    }
}

async fn refuse(client: &mut Client, status: &str, fields: &str, why: &str) -> io::Result<()> {
    let length = why.len() + 1;
    let answer = format!(
        "HTTP/1.1 {status}\r\n{fields}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{why}\n"
    );
    client.send(answer.as_bytes()).await
}

/// Reads a request's head, up to the empty line.
///
/// # Errors
/// When it is not text.
pub fn parse_head(bytes: &[u8]) -> Parsed<String> {
    let Some(end) = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END) else {
        return Ok(None);
    };
    let used = end + HEAD_END.len();
    let head = std::str::from_utf8(&bytes[..used]).map_err(|_| SocksError::Http)?;
    Ok(Some((head.to_owned(), used)))
}

fn authorized(head: &str, credentials: &Credentials) -> bool {
    fields(head)
        .find(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"))
        .and_then(|(_, value)| value.trim().split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| BASE64.decode(encoded.trim().as_bytes()).ok())
        .is_some_and(|login| {
            let colon = login.iter().position(|&byte| byte == b':').unwrap_or(login.len());
            let (user, password) = login.split_at(colon);
            credentials.accept(user, password.get(1..).unwrap_or_default())
        })
}

fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'))
}

/// What a whole head asks for; nothing if that is no request to a proxy.
#[must_use]
pub fn parse_wish(head: &str) -> Option<Wish> {
    let mut words = head.split("\r\n").next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    if method == "CONNECT" {
        let (host, port) = split_authority(target, None)?;
        return Some(Wish { host, port, head: None });
    }
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let start = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(start);
    let (host, port) = split_authority(authority, Some(80))?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut forwarded = format!("{method} {slash}{path} {version}\r\n");
    for (name, value) in fields(head) {
        if !HOP_FIELDS.iter().any(|field| name.trim().eq_ignore_ascii_case(field)) {
            forwarded.push_str(&format!("{name}:{value}\r\n"));
        }
    }
    forwarded.push_str("Connection: close\r\n\r\n");
    Some(Wish { host, port, head: Some(forwarded) })
}

fn split_authority(authority: &str, default_port: Option<u16>) -> Option<(String, u16)> {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        Some(_) | None => (authority, default_port?),
    };
    let host = host.trim_matches(['[', ']']);
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

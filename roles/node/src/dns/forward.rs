//! Asking the host's own resolvers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use naming::Limit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::message::{self, ForwardQuery, Match};
use crate::mark::Mark;

/// How long one upstream may take; with two rounds over two upstreams still less than the five
/// seconds after which a libc asks again.
const ATTEMPT: Duration = Duration::from_millis(1200);
/// Times that each upstream is asked.
const ROUNDS: usize = 2;
/// How long a query may take in all.
const WHOLE: Duration = Duration::from_millis(4800);
/// Largest reply over UDP.
const MAX_DATAGRAM: usize = 65_535;
/// What every client takes over UDP (RFC 1035 section 4.2.1).
const PLAIN_UDP: usize = 512;
/// One bit for each letter that a name can have.
const DICE: usize = 32;

/// Asks upstreams, the one that answered last first.
#[derive(Debug)]
pub(super) struct Forwarder {
    own: Option<SocketAddr>,
    mark: Mark,
    preferred: AtomicUsize,
}

/// What an upstream gave.
enum Given {
    Reply(Vec<u8>),
    /// Its UDP does not repeat the name as it was asked.
    CaseLost,
}

impl Forwarder {
    /// A forwarder for the resolver on `own`, which is never asked itself.
    pub(super) fn new(own: Option<SocketAddr>, mark: Mark) -> Self {
        Self { own, mark, preferred: AtomicUsize::new(0) }
    }

    /// Finds a reply; when there is none, says so with SERVFAIL.
    pub(super) async fn forward(
        &self,
        query: &[u8],
        limit: Limit,
        upstreams: &[SocketAddr],
    ) -> Vec<u8> {
        let deadline = Instant::now() + WHOLE;
        let Some(original) = ForwardQuery::parse(query) else {
            return message::server_failure(query);
        };
        let first = self.preferred.load(Ordering::Relaxed);
        let order = (0..upstreams.len() * ROUNDS).map(|step| (first + step) % upstreams.len());
        let mut failure = None;
        for index in order {
            let upstream = upstreams[index];
            if self.is_own(upstream) || Instant::now() >= deadline {
                continue;
            }
            match timeout_at(deadline, ask(&original, limit, upstream, self.mark)).await {
                Ok(Ok(reply)) if message::is_failure(&reply) => failure = Some(reply),
                Ok(Ok(reply)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return reply;
                }
                Ok(Err(error)) => tracing::debug!(%upstream, %error, "upstream does not answer"),
                Err(_elapsed) => tracing::debug!(%upstream, "upstream does not answer in time"),
            }
        }
        failure.unwrap_or_else(|| message::server_failure(query))
    }

    fn is_own(&self, upstream: SocketAddr) -> bool {
        self.own.is_some_and(|own| {
            let same_host = upstream.ip() == own.ip()
                || (own.ip().is_unspecified() && upstream.ip().is_loopback());
            upstream.port() == own.port() && same_host
        })
    }
}

async fn ask(
    original: &ForwardQuery,
    limit: Limit,
    upstream: SocketAddr,
    mark: Mark,
) -> io::Result<Vec<u8>> {
    if limit == Limit::Udp {
        match timeout(ATTEMPT, ask_udp(original, upstream, mark)).await?? {
            Given::Reply(reply) => return Ok(reply),
            Given::CaseLost => {}
        }
    }
    let mut reply = timeout(ATTEMPT, ask_tcp(original, upstream, mark)).await??;
    if limit == Limit::Udp && reply.len() > PLAIN_UDP {
        original.truncate(&mut reply);
    }
    Ok(reply)
}

async fn ask_udp(original: &ForwardQuery, upstream: SocketAddr, mark: Mark) -> io::Result<Given> {
    let query = disguise(original)?;
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    mark.put_on(&socket)?;
    socket.connect(upstream).await?;
    socket.send(query.as_bytes()).await?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match query.matches(&buffer[..length]) {
            Match::Whole => {
                buffer.truncate(length);
                original.restore(&mut buffer);
                return Ok(Given::Reply(buffer));
            }
            Match::OtherCase => return Ok(Given::CaseLost),
            Match::None => {}
        }
    }
}

async fn ask_tcp(original: &ForwardQuery, upstream: SocketAddr, mark: Mark) -> io::Result<Vec<u8>> {
    let query = disguise(original)?;
    let socket = if upstream.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    mark.put_on(&socket)?;
    let mut stream = socket.connect(upstream).await?;
    let length = u16::try_from(query.as_bytes().len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], query.as_bytes()].concat()).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    match query.matches(&reply) {
        Match::Whole | Match::OtherCase => {
            original.restore(&mut reply);
            Ok(reply)
        }
        Match::None => Err(io::Error::new(io::ErrorKind::InvalidData, "reply to another query")),
    }
}

fn disguise(original: &ForwardQuery) -> io::Result<ForwardQuery> {
    let mut dice = [0; DICE + 2];
    getrandom::fill(&mut dice).map_err(|error| io::Error::other(error.to_string()))?;
    let [high, low, case @ ..] = dice;
    Ok(original.disguised(u16::from_be_bytes([high, low]), &case))
}

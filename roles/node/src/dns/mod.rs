//! The stub resolver: the host's DNS server for as long as the node runs.
//!
//! It answers what a [`naming::Namespace`] knows, lets nothing else under `.alt` out, and forwards
//! the rest to the resolvers that the host had before ([`DnsState::replace_upstreams`]). Only
//! processes of this host are served, also on an overlay address.
//!
//! A forwarded query gets a new id, a random source port and random case in its name (0x20), and
//! only a reply that repeats all of it counts. Each upstream is asked over UDP, and over TCP when
//! its reply does not repeat the case; the upstream that answered last is asked first next time.

mod forward;
mod lookup;
pub mod message;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use naming::{Limit, Namespace, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::mark::Mark;
use forward::Forwarder;
pub use lookup::in_hosts;
pub(crate) use lookup::lookup;

/// Forwarded queries under way; further ones are dropped, and their clients ask again.
const MAX_FORWARDED: usize = 256;
/// Clients over TCP.
const MAX_CONNECTIONS: usize = 64;
/// How long a TCP client may keep silent (RFC 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// Largest query that is read.
const MAX_QUERY: usize = 4096;
/// Pause after a failed receive or accept, so that a lasting failure does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// What the resolver knows; clones share it, so that the node can change it while it serves.
#[derive(Debug, Clone, Default)]
pub struct DnsState {
    names: Arc<RwLock<Arc<Namespace>>>,
    upstreams: Arc<RwLock<Arc<[SocketAddr]>>>,
    mark: Mark,
}

impl DnsState {
    /// Nothing known yet; questions to upstreams will bear the mark.
    pub(crate) fn marked(mark: Mark) -> Self {
        Self { mark, ..Self::default() }
    }

    /// Sets the private names.
    pub fn replace_names(&self, names: Namespace) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    /// Sets the resolvers that everything else is forwarded to, best first.
    pub fn replace_upstreams(&self, upstreams: &[SocketAddr]) {
        *self.upstreams.write().unwrap_or_else(PoisonError::into_inner) = upstreams.into();
    }

    /// The private names.
    #[must_use]
    pub fn names(&self) -> Arc<Namespace> {
        Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn upstreams(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.upstreams.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A resolver on one address, over UDP and TCP.
#[derive(Debug)]
pub struct StubResolver {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: DnsState,
    forwarder: Forwarder,
    forwarded: Arc<Semaphore>,
    own: IpAddr,
}

impl StubResolver {
    /// Binds both transports to `listen`; with port 0 both get the same free port.
    pub async fn bind(listen: SocketAddr, state: DnsState) -> io::Result<Self> {
        let tcp = TcpListener::bind(listen).await?;
        let address = tcp.local_addr()?;
        let udp = Arc::new(UdpSocket::bind(address).await?);
        let forwarder = Forwarder::new(Some(address), state.mark);
        let forwarded = Arc::new(Semaphore::new(MAX_FORWARDED));
        let shared = Arc::new(Shared { state, forwarder, forwarded, own: address.ip() });
        Ok(Self { udp, tcp, address, shared })
    }

    /// The address in use.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the future is dropped.
    pub async fn serve(self) {
        tokio::join!(
            serve_udp(self.udp, Arc::clone(&self.shared)),
            serve_tcp(self.tcp, self.shared)
        );
    }
}

impl Shared {
    /// Whether a client is a process of this host.
    fn serves(&self, client: SocketAddr) -> bool {
        client.ip().to_canonical().is_loopback() || client.ip() == self.own
    }

    async fn forward(&self, query: &[u8], limit: Limit) -> Vec<u8> {
        self.forwarder.forward(query, limit, &self.state.upstreams()).await
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; MAX_QUERY + 1];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "cannot receive a query");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !shared.serves(client) {
            continue;
        }
        let query = &buffer[..length];
        match shared.state.names().answer(query, Limit::Udp) {
            Outcome::Reply(reply) => reply_udp(&socket, &reply, client).await,
            Outcome::Ignore => {}
            Outcome::Forward => {
                let Ok(slot) = Arc::clone(&shared.forwarded).try_acquire_owned() else { continue };
                let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
                let query = query.to_vec();
                tokio::spawn(async move {
                    let _slot = slot;
                    let reply = shared.forward(&query, Limit::Udp).await;
                    reply_udp(&socket, &reply, client).await;
                });
            }
        }
    }
}

async fn reply_udp(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%error, "cannot send a reply");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, client)) if shared.serves(client) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _slot = slot;
                    if let Err(error) = serve_connection(stream, &shared).await {
                        tracing::debug!(%error, "query over TCP failed");
                    }
                });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "cannot accept a query over TCP");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers one query after the other, each behind its length (RFC 1035 section 4.2.2).
async fn serve_connection(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = vec![0; MAX_QUERY];
    loop {
        let length = match timeout(IDLE, stream.read_u16()).await? {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            length => usize::from(length?),
        };
        let Some(query) = buffer.get_mut(..length) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        timeout(IDLE, stream.read_exact(query)).await??;
        let reply = match shared.state.names().answer(query, Limit::Tcp) {
            Outcome::Reply(reply) => reply,
            Outcome::Forward => {
                let slot = shared.forwarded.acquire().await;
                let _slot = slot.expect("the semaphore is never closed");
                shared.forward(query, Limit::Tcp).await
            }
            Outcome::Ignore => return Ok(()),
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &reply].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

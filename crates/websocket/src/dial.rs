//! Endpoints and connecting.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::uri::Authority;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    Proxy, Tls, WebSocket,
    proxy::TunnelError,
    tls::client_config,
    transport::{self, Transport},
    upgrade::{self, UpgradeError},
};

/// A further address joins the race after this long (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// One address may take this long from SYN to upgrade.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses beyond this many are not tried.
const MAX_ADDRESSES: usize = 16;
/// The same for a proxy's.
const MAX_PROXY_ADDRESSES: usize = 2;

/// Where and how to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses of one and the same server, the best first.
    pub addresses: Vec<SocketAddr>,
    /// What the request and TLS call the server: a DNS name or an address, with a port where the
    /// `Host` header should have one.
    pub host: String,
    /// How the server proves who it is.
    pub tls: Tls,
    /// The request's path, beginning with a slash.
    pub path: String,
    /// A mark for the socket, by which the host's routing keeps the connection out of the tunnel;
    /// on Linux only, and it takes privilege.
    pub mark: Option<u32>,
    /// A way around that is tried beside the direct one.
    pub detour: Option<Detour>,
}

/// A way to a server through an HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    /// The proxy.
    pub proxy: Proxy,
    /// Its addresses, the best first.
    pub addresses: Vec<SocketAddr>,
}

/// By which way a server was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where the TCP connection went.
    pub address: SocketAddr,
    /// What a proxy there was asked for.
    pub asked: Option<String>,
}

/// Connects to the first address that answers as it should.
///
/// Addresses are tried in order, those of a proxy first; the next one starts as soon as one fails or
/// 250 ms have passed, and those still under way are dropped when one has succeeded. A proxy is asked for
/// the host by its name, and, if that fails, by its address.
///
/// # Errors
/// When no address led to an upgraded connection; the error has the reason of each.
pub async fn dial(endpoint: &Endpoint) -> Result<WebSocket, DialError> {
    dial_by(endpoint, None).await.map(|(socket, _)| socket)
}

/// The same, where one way goes before all others if it is among them; says by which way the server was reached.
///
/// # Errors
/// As for [`dial`].
pub async fn dial_by(
    endpoint: &Endpoint,
    first: Option<&Route>,
) -> Result<(WebSocket, Route), DialError> {
    let authority: Authority =
        endpoint.host.parse().map_err(|_| DialError::Host(endpoint.host.clone()))?;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|_| DialError::Host(endpoint.host.clone()))?;
    if !is_path(&endpoint.path) {
        return Err(DialError::Path);
    }
    let attempt = Attempt { endpoint, name, tls: client_config(endpoint.tls) };
    let mut ways = ways(endpoint, &authority);
    ways.sort_by_key(|way| first != Some(&way.route()));
    let mut waiting = ways.iter().take(MAX_ADDRESSES);
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        let more = waiting.next().map(|way| running.push(attempt.run(way))).is_some();
        if running.is_empty() {
            return Err(DialError::Failed(failures));
        }
        tokio::select! {
            Some((way, result)) = running.next() => match result {
                Ok(connection) => return Ok((connection, way.route())),
                Err(error) => failures.push((way.address, error)),
            },
            () = sleep(STAGGER), if more => {}
        }
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Where a TCP connection goes, and what is asked of a proxy there.
struct Way<'a> {
    address: SocketAddr,
    tunnel: Option<(&'a Proxy, String)>,
}

impl Way<'_> {
    fn route(&self) -> Route {
        let asked = self.tunnel.as_ref().map(|(_, target)| target.clone());
        Route { address: self.address, asked }
    }
}

/// All ways, the best first.
fn ways<'a>(endpoint: &'a Endpoint, authority: &Authority) -> Vec<Way<'a>> {
    let direct = endpoint.addresses.iter().map(|address| Way { address: *address, tunnel: None });
    let Some(detour) = &endpoint.detour else { return direct.collect() };
    let known = endpoint.addresses.first();
    let port = authority.port_u16().or(known.map(SocketAddr::port)).unwrap_or(443);
    let by_name = format!("{}:{port}", authority.host());
    let by_address = known.map(ToString::to_string).filter(|address| *address != by_name);
    let targets = [Some(by_name), by_address].into_iter().flatten();
    let through = targets.flat_map(|target| {
        let way = move |address: &SocketAddr| Way {
            address: *address,
            tunnel: Some((&detour.proxy, target.clone())),
        };
        detour.addresses.iter().take(MAX_PROXY_ADDRESSES).map(way)
    });
    through.chain(direct).collect()
}

struct Attempt<'a> {
    endpoint: &'a Endpoint,
    name: ServerName<'static>,
    tls: Option<Arc<ClientConfig>>,
}

impl Attempt<'_> {
    async fn run<'w>(&self, way: &'w Way<'w>) -> (&'w Way<'w>, Result<WebSocket, AttemptError>) {
        let result = timeout(ATTEMPT_TIMEOUT, self.connect(way)).await;
        (way, result.unwrap_or(Err(AttemptError::Timeout)))
    }

    async fn connect(&self, way: &Way<'_>) -> Result<WebSocket, AttemptError> {
        let tcp = connect_tcp(way.address, self.endpoint.mark).await;
        let mut tcp = tcp.map_err(AttemptError::Connect)?;
        if let Some((proxy, target)) = &way.tunnel {
            proxy.connect(&mut tcp, target).await?;
        }
        let mut transport = match &self.tls {
            None => Transport::plain(tcp),
            Some(config) => Transport::connect_tls(tcp, Arc::clone(config), self.name.clone())
                .await
                .map_err(tls_error)?,
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://{}", self.endpoint.host);
        upgrade::request(&mut transport, &origin, &self.endpoint.path).await?;
        Ok(WebSocket::client(transport))
    }
}

async fn connect_tcp(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    #[cfg(target_os = "linux")]
    if let Some(mark) = mark {
        socket2::SockRef::from(&socket).set_mark(mark)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = mark;
    let tcp = socket.connect(address).await?;
    transport::prepare(&tcp)?;
    Ok(tcp)
}

fn tls_error(error: io::Error) -> AttemptError {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::ApplicationVerificationFailure,
        )) => AttemptError::WrongPin,
        Some(rustls::Error::InvalidCertificate(
            reason @ (rustls::CertificateError::Expired
            | rustls::CertificateError::ExpiredContext { .. }
            | rustls::CertificateError::NotValidYet
            | rustls::CertificateError::NotValidYetContext { .. }),
        )) => AttemptError::CertificateTime(reason.to_string()),
        Some(rustls::Error::InvalidCertificate(reason)) => {
            AttemptError::Certificate(reason.to_string())
        }
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)) => {
            AttemptError::TlsVersion
        }
        Some(_) | None => AttemptError::Tls(error),
    }
}

/// Why [`dial`] has no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The caller gave a host that is neither a DNS name nor an address.
    #[error("{0:?} is not a host")]
    Host(String),
    /// The caller gave a path that is not one.
    #[error("the request's path is not a path")]
    Path,
    /// No address worked, each for its own reason; without addresses the list is empty.
    #[error("{}", describe(.0))]
    Failed(Vec<(SocketAddr, AttemptError)>),
}

/// Why one address did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// The TCP connection did not come about.
    #[error("{0}")]
    Connect(io::Error),
    /// TLS failed for another reason than the certificate.
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    /// The server has no TLS 1.3.
    #[error("the server does not offer TLS 1.3")]
    TlsVersion,
    /// The server has another key than the pinned one: it is not the server we look for.
    #[error("another server answers there: its key is not the pinned one")]
    WrongPin,
    /// The certificate is not one of the Web PKI for the host.
    #[error("the server's certificate is not valid: {0}")]
    Certificate(String),
    /// The certificate has expired or is not valid yet, by this host's clock.
    #[error("the server's certificate is not valid at this time: {0}")]
    CertificateTime(String),
    /// The server answered the upgrade with another status.
    #[error("the server refused the WebSocket with HTTP status {0}")]
    Status(u16),
    /// The server's answer was not an HTTP answer to an upgrade.
    #[error("the server does not speak WebSocket")]
    Malformed,
    /// The proxy wants a user and a password that it knows.
    #[error("the proxy wants another user and password")]
    ProxyCredentials,
    /// The proxy opened no connection to the server.
    #[error("the proxy refused with HTTP status {0}")]
    ProxyStatus(u16),
    /// What is taken for a proxy is none.
    #[error("what answers there is no HTTP proxy")]
    NoProxy,
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
}

impl From<TunnelError> for AttemptError {
    fn from(error: TunnelError) -> Self {
        match error {
            TunnelError::Io(error) => Self::Connect(error),
            TunnelError::Malformed => Self::NoProxy,
            TunnelError::Credentials => Self::ProxyCredentials,
            TunnelError::Status(status) => Self::ProxyStatus(status),
        }
    }
}

impl From<UpgradeError> for AttemptError {
    fn from(error: UpgradeError) -> Self {
        match error {
            UpgradeError::Io(error) => Self::Connect(error),
            UpgradeError::Malformed => Self::Malformed,
            UpgradeError::Status(status) => Self::Status(status),
        }
    }
}

fn describe(failures: &[(SocketAddr, AttemptError)]) -> String {
    if failures.is_empty() {
        return "there is no address to connect to".to_owned();
    }
    let each: Vec<_> =
        failures.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    each.join("; ")
}

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
    Tls, WebSocket,
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
}

/// Connects to the first address that answers as it should.
///
/// Addresses are tried in order; the next one starts as soon as one fails or 250 ms have passed,
/// and those still under way are dropped when one has succeeded.
///
/// # Errors
/// When no address led to an upgraded connection; the error has the reason of each.
pub async fn dial(endpoint: &Endpoint) -> Result<WebSocket, DialError> {
    let authority: Authority =
        endpoint.host.parse().map_err(|_| DialError::Host(endpoint.host.clone()))?;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|_| DialError::Host(endpoint.host.clone()))?;
    if !is_path(&endpoint.path) {
        return Err(DialError::Path);
    }
    let attempt = Attempt { endpoint, name, tls: client_config(endpoint.tls) };
    let mut waiting = endpoint.addresses.iter().copied().take(MAX_ADDRESSES);
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        let more = waiting.next().map(|address| running.push(attempt.run(address))).is_some();
        if running.is_empty() {
            return Err(DialError::Failed(failures));
        }
        tokio::select! {
            Some((address, result)) = running.next() => match result {
                Ok(connection) => return Ok(connection),
                Err(error) => failures.push((address, error)),
            },
            () = sleep(STAGGER), if more => {}
        }
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
}

struct Attempt<'a> {
    endpoint: &'a Endpoint,
    name: ServerName<'static>,
    tls: Option<Arc<ClientConfig>>,
}

impl Attempt<'_> {
    async fn run(&self, address: SocketAddr) -> (SocketAddr, Result<WebSocket, AttemptError>) {
        let result = timeout(ATTEMPT_TIMEOUT, self.connect(address)).await;
        (address, result.unwrap_or(Err(AttemptError::Timeout)))
    }

    async fn connect(&self, address: SocketAddr) -> Result<WebSocket, AttemptError> {
        let tcp = connect_tcp(address, self.endpoint.mark).await.map_err(AttemptError::Connect)?;
        let mut transport = match &self.tls {
            None => Transport::plain(tcp),
            Some(config) => Transport::connect_tls(tcp, Arc::clone(config), self.name.clone())
                .await
                .map_err(tls_error)?,
        };
        upgrade::request(&mut transport, &self.endpoint.host, &self.endpoint.path).await?;
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
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
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

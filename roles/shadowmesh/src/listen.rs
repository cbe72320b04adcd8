//! Where a server listens, and under which addresses others reach it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use control_proto::limits::MAX_PLACES;
use identity::{ServerAddress, TlsMode};
use tokio::net::{UdpSocket, lookup_host};
use websocket::{Listener, ServerCertificate};

use crate::exit::{Exit, Failure};

/// Like any web server, where the privileges allow it.
const HTTPS_PORT: u16 = 443;
/// Needs no privileges.
const DEFAULT_PORT: u16 = 8443;
/// A certificate chain and key are far smaller.
const MAX_PEM: u64 = 1 << 20;

/// Where this host reaches a listener on all addresses: one on all of IPv6 takes IPv4 as well.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What is asked of a listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Address and port; the defaults otherwise.
    pub(crate) listen: Option<SocketAddr>,
    /// Names and addresses by which others reach this host; its own addresses otherwise.
    pub(crate) hosts: Vec<String>,
    /// Certificate chain and key (PEM); self-signed otherwise.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    /// Whether there is no TLS at all.
    pub(crate) plain: bool,
}

/// A listener with everything that others must know to reach it.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: Listener,
    /// The address of the listener; STUN gets the same port on UDP, and the next one if that is free.
    pub(crate) address: SocketAddr,
    /// How others reach it.
    pub(crate) servers: Vec<ServerAddress>,
    /// At which addresses others reach its STUN.
    pub(crate) stun: Vec<IpAddr>,
    /// How this host reaches it, whatever stands in front.
    pub(crate) from_here: ServerAddress,
}

/// Listens as wanted; `key` is the private key of the self-signed certificate (PKCS #8).
pub(crate) async fn listen(wanted: &Wanted, key: &[u8]) -> Result<Listening, Failure> {
    let port = match wanted.listen {
        Some(address) => address.port(),
        None => free_default_port().await,
    };
    let address = wanted.listen.unwrap_or_else(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    let hosts =
        if wanted.hosts.is_empty() { own_addresses(address.ip())? } else { wanted.hosts.clone() };
    let (certificate, tls) = if wanted.plain {
        (None, TlsMode::Plain)
    } else {
        let (certificate, tls) = certificate(wanted, key, &hosts)?;
        (Some(certificate), tls)
    };
    let listener = match Listener::bind(address, certificate).await {
        Ok(listener) => listener,
        Err(source) => return Err(not_bound(address, &source)),
    };
    let address = listener.local_addr().map_err(|source| not_bound(address, &source))?;
    let servers = servers(&hosts, wanted.hosts.is_empty(), address.port(), tls).await;
    let stun = servers.iter().flat_map(|server| server.addresses.iter().copied()).collect();
    let here = if address.ip().is_unspecified() { LOOPBACK } else { address.ip() };
    let host = hosts.first().cloned().unwrap_or_else(|| here.to_string());
    let from_here = ServerAddress { host, port: address.port(), addresses: vec![here], tls };
    Ok(Listening { listener, address, servers, stun, from_here })
}

/// Finds out whether [`listen`] would succeed, before anything is made that a failure would leave behind.
pub(crate) async fn check(wanted: &Wanted) -> Result<(), Failure> {
    let is_host = |host: &String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
        !host.is_empty() && host.len() <= 253 && host.bytes().all(plain)
    };
    if let Some(host) = wanted.hosts.iter().find(|host| !is_host(host)) {
        let text = format!("{host:?} is no host: give a name or an address, without a port");
        return Err(Failure::new(Exit::Usage, text));
    }
    if let Some(address) = wanted.listen {
        let bound = tokio::net::TcpListener::bind(address).await;
        bound.map_err(|source| not_bound(address, &source))?;
    }
    if wanted.certificate.is_some() {
        certificate(wanted, &[], &[])?;
    }
    Ok(())
}

fn certificate(
    wanted: &Wanted,
    key: &[u8],
    hosts: &[String],
) -> Result<(ServerCertificate, TlsMode), Failure> {
    let unusable = |what: &Path, error: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format!("{}: {error}", what.display()))
    };
    match &wanted.certificate {
        Some((chain_file, key_file)) => {
            let chain = read(chain_file).map_err(|error| unusable(chain_file, &error))?;
            let key = read(key_file).map_err(|error| unusable(key_file, &error))?;
            let certificate = ServerCertificate::from_pem(&chain, &key);
            Ok((certificate.map_err(|error| unusable(chain_file, &error))?, TlsMode::WebPki))
        }
        None => {
            let certificate = ServerCertificate::self_signed(key, hosts.to_vec());
            let certificate = certificate
                .map_err(|error| Failure::new(Exit::Usage, format!("--host: {error}")))?;
            let pin = TlsMode::Pin(certificate.pin().0);
            Ok((certificate, pin))
        }
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(file)?.len() > MAX_PEM {
        return Err(io::Error::other("too large for a certificate or key"));
    }
    fs::read(file)
}

/// Port 443 if this process may take it and it is free, 8443 otherwise.
async fn free_default_port() -> u16 {
    let is_free = async |port| {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        tokio::net::TcpListener::bind(address).await.is_ok()
            && UdpSocket::bind(address).await.is_ok()
    };
    if is_free(HTTPS_PORT).await { HTTPS_PORT } else { DEFAULT_PORT }
}

/// How others may reach this host when nobody says so: its global addresses, or loopback if it has no others.
fn own_addresses(listen: IpAddr) -> Result<Vec<String>, Failure> {
    if !listen.is_unspecified() {
        return Ok(vec![listen.to_string()]);
    }
    let all = platform::links::local_addresses()
        .map_err(|error| Failure::new(Exit::Host, format!("this host's addresses: {error}")))?;
    let usable = all.iter().map(|local| local.address.addr()).filter(|address| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => listen.is_ipv6() && !v6.is_loopback() && !v6.is_unicast_link_local(),
    });
    let mut hosts: Vec<String> = usable.map(|address| address.to_string()).collect();
    if hosts.is_empty() {
        hosts.push(LOOPBACK.to_string());
    }
    Ok(hosts)
}

/// One entry a host; the addresses that this host found by itself are those of one host.
async fn servers(hosts: &[String], found: bool, port: u16, tls: TlsMode) -> Vec<ServerAddress> {
    if found {
        let addresses: Vec<IpAddr> = hosts.iter().filter_map(|host| host.parse().ok()).collect();
        let host = hosts.first().cloned().unwrap_or_default();
        return vec![ServerAddress { host, port, addresses, tls }];
    }
    let mut servers = Vec::new();
    for host in hosts {
        let addresses = addresses(host, port).await;
        servers.push(ServerAddress { host: host.clone(), port, addresses, tls });
    }
    servers
}

/// The addresses of a host. A name that does not resolve here may still resolve where the nodes are.
pub(crate) async fn addresses(host: &str, port: u16) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    match lookup_host((host, port)).await {
        Ok(found) => found.map(|address| address.ip()).take(MAX_PLACES).collect(),
        Err(_) => Vec::new(),
    }
}

fn not_bound(address: SocketAddr, source: &io::Error) -> Failure {
    let advice = if source.kind() == io::ErrorKind::AddrInUse {
        "another program listens there; choose another with --listen"
    } else if source.kind() == io::ErrorKind::PermissionDenied {
        "ports below 1024 take root; choose another with --listen"
    } else {
        "choose another with --listen"
    };
    Failure::new(Exit::Host, format!("cannot listen at {address}: {source}; {advice}"))
}

//! Where a server listens, and under which addresses others reach it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use control_proto::limits::MAX_PLACES;
use identity::{ServerAddress, TlsMode};
use tokio::net::{UdpSocket, lookup_host};
use websocket::{Front, Listener, ServerCertificate, SpkiPin};

use crate::cli::FrontSettings;
use crate::exit::{Exit, Failure};

/// Like any web server, where the privileges allow it.
const HTTPS_PORT: u16 = 443;
/// Needs no privileges.
const DEFAULT_PORT: u16 = 8443;
/// A certificate chain, a key and a page are far smaller.
const MAX_FILE: u64 = 1 << 20;

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
    /// What stands before it.
    pub(crate) front: FrontSettings,
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
    let has_front = !wanted.front.hosts.is_empty();
    let (certificate, tls) = if wanted.plain || has_front {
        (None, TlsMode::Plain)
    } else {
        let (certificate, tls) = certificate(wanted, key, &hosts)?;
        (Some(certificate), tls)
    };
    let listener = match Listener::bind(address, certificate).await {
        Ok(listener) => listener,
        Err(source) => return Err(not_bound(address, &source)),
    };
    let listener = listener.with_front(front(&wanted.front)?);
    let address = listener.local_addr().map_err(|source| not_bound(address, &source))?;
    let own = servers(&hosts, wanted.hosts.is_empty(), address.port(), tls).await;
    // Who hides behind a front does not say where it is, unless it names this host.
    let answers_stun = !has_front || !wanted.hosts.is_empty();
    let reachable =
        own.iter().filter(|_| answers_stun).flat_map(|server| server.addresses.iter().copied());
    let stun = reachable.collect();
    let servers = if has_front { front_servers(&wanted.front).await? } else { own };
    let here = if address.ip().is_unspecified() { LOOPBACK } else { address.ip() };
    let host = hosts.first().cloned().unwrap_or_else(|| here.to_string());
    let from_here = ServerAddress { host, port: address.port(), addresses: vec![here], tls };
    Ok(Listening { listener, address, servers, stun, from_here })
}

fn front(settings: &FrontSettings) -> Result<Front, Failure> {
    let page =
        settings.page.as_ref().map(|file| read(file).map_err(|error| unusable(file, &error)));
    Ok(Front { trusted: settings.trusted.clone(), page: page.transpose()?.map(Into::into) })
}

/// How others reach what stands before the listener.
async fn front_servers(settings: &FrontSettings) -> Result<Vec<ServerAddress>, Failure> {
    let tls = match &settings.certificate {
        None => TlsMode::WebPki,
        Some(file) => {
            let pem = read(file).map_err(|error| unusable(file, &error))?;
            TlsMode::Pin(SpkiPin::of_pem(&pem).map_err(|error| unusable(file, &error))?.0)
        }
    };
    let mut all = Vec::new();
    for (host, port) in settings.hosts.iter().map(|host| front_host(host)) {
        let addresses = addresses(&host, port).await;
        all.push(ServerAddress { host, port, addresses, tls });
    }
    Ok(all)
}

/// Host and port of a front: `relay.example.org`, `relay.example.org:8443`, `192.0.2.1` or `[2001:db8::1]:8443`.
fn front_host(text: &str) -> (String, u16) {
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if text.parse::<IpAddr>().is_ok() {
        return (text.to_owned(), HTTPS_PORT);
    }
    match text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (bare(host), port),
        None => (bare(text), HTTPS_PORT),
    }
}

/// Finds out whether [`listen`] would succeed, before anything is made that a failure would leave behind.
pub(crate) async fn check(wanted: &Wanted) -> Result<(), Failure> {
    let is_host = |host: &String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
        !host.is_empty() && host.len() <= 253 && host.bytes().all(plain)
    };
    let fronts = wanted.front.hosts.iter().map(|host| front_host(host).0);
    if let Some(host) = wanted.hosts.iter().cloned().chain(fronts).find(|host| !is_host(host)) {
        let text = format!("{host:?} is no host: give a name or an address, without a port");
        return Err(Failure::new(Exit::Usage, text));
    }
    if let Some(address) = wanted.listen {
        let bound = tokio::net::TcpListener::bind(address).await;
        bound.map_err(|source| not_bound(address, &source))?;
    }
    if wanted.certificate.is_some() && !wanted.front.hosts.is_empty() {
        let text = "TLS ends at the front: give either that or a certificate for this listener";
        return Err(Failure::new(Exit::Usage, text));
    }
    if wanted.certificate.is_some() {
        certificate(wanted, &[], &[])?;
    }
    front(&wanted.front)?;
    front_servers(&wanted.front).await?;
    Ok(())
}

fn certificate(
    wanted: &Wanted,
    key: &[u8],
    hosts: &[String],
) -> Result<(ServerCertificate, TlsMode), Failure> {
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

fn unusable(what: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format!("{}: {error}", what.display()))
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(file)?.len() > MAX_FILE {
        return Err(io::Error::other("too large for a certificate, key or page"));
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

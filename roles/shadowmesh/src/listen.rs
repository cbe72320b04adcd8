//! Where a server listens, and under which addresses others reach it.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use control_proto::limits::MAX_PLACES;
use identity::{ServerAddress, TlsMode};
use tokio::net::{TcpListener, UdpSocket, lookup_host};
use websocket::{Front, Listener, MAX_PAGE, ServerCertificate, SpkiPin};

use crate::cli::FrontSettings;
use crate::exit::{Exit, Failure};
use crate::values::{HTTPS_PORT, Host, HostPort};

/// Needs no privileges.
const DEFAULT_PORT: u16 = 8443;
/// The most bytes of a file: a certificate chain and a key are far smaller than a page may be.
const MAX_FILE: usize = MAX_PAGE;

/// Where this host reaches a listener on all addresses: one on all of IPv6 takes IPv4 as well.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What is asked of a listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Address and port; the defaults otherwise.
    pub(crate) listen: Option<SocketAddr>,
    /// Names and addresses by which others reach this host; its own addresses otherwise.
    pub(crate) hosts: Vec<Host>,
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

/// A listener that can be opened: whatever is read of files for it makes sense.
#[derive(Debug)]
pub(crate) struct Prepared {
    listen: Option<SocketAddr>,
    hosts: Vec<Host>,
    tls: TlsEnd,
    front: Front,
}

/// Where TLS ends.
#[derive(Debug)]
enum TlsEnd {
    /// There is none.
    Nowhere,
    /// At what stands before the listener, whose certificate is judged so.
    Front(Vec<HostPort>, TlsMode),
    /// At the listener, with a certificate that a public authority has signed.
    Certified(ServerCertificate),
    /// At the listener, with a certificate of its own.
    SelfSigned,
}

/// Reads what is wanted, and tries the port, before anything is made that a failure would leave behind.
pub(crate) async fn prepare(wanted: Wanted) -> Result<Prepared, Failure> {
    let Wanted { listen, hosts, certificate, plain, front } = wanted;
    if let Some(address) = listen {
        let bound = TcpListener::bind(address).await;
        bound.map_err(|source| not_bound(address, &source))?;
    }
    let has_front = !front.hosts.is_empty();
    let tls = match certificate {
        Some(_) if has_front || plain => {
            let text =
                "TLS ends in one place: give a certificate for this listener, a front, or no-tls";
            return Err(Failure::new(Exit::Usage, text));
        }
        None if has_front && plain => {
            let text = "TLS ends at the front: without it there is no front to name";
            return Err(Failure::new(Exit::Usage, text));
        }
        None if plain => TlsEnd::Nowhere,
        Some((chain, key)) => TlsEnd::Certified(certified(&chain, &key)?),
        None if has_front => TlsEnd::Front(front.hosts, front_tls(front.certificate.as_deref())?),
        None => TlsEnd::SelfSigned,
    };
    let page = front.page.as_deref().map(read).transpose()?.map(Into::into);
    let front = Front::new(front.trusted, page)
        .map_err(|error| Failure::new(Exit::Usage, format!("--page: {error}")))?;
    Ok(Prepared { listen, hosts, tls, front })
}

impl Prepared {
    /// Listens; `key` is the private key of the self-signed certificate (PKCS #8).
    pub(crate) async fn listen(self, key: &[u8]) -> Result<Listening, Failure> {
        let port = match self.listen {
            Some(address) => address.port(),
            None => free_default_port().await,
        };
        let address =
            self.listen.unwrap_or_else(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let is_named = !self.hosts.is_empty();
        let hosts = if is_named {
            self.hosts.iter().map(ToString::to_string).collect()
        } else {
            own_addresses(address.ip())?
        };
        let (certificate, tls, front) = match self.tls {
            TlsEnd::Nowhere => (None, TlsMode::Plain, None),
            TlsEnd::Front(front, tls) => (None, TlsMode::Plain, Some((front, tls))),
            TlsEnd::Certified(certificate) => (Some(certificate), TlsMode::WebPki, None),
            TlsEnd::SelfSigned => {
                let certificate = self_signed(key, &hosts)?;
                let pin = TlsMode::Pin(certificate.pin().0);
                (Some(certificate), pin, None)
            }
        };
        let listener = Listener::bind(address, certificate).await;
        let listener = listener.map_err(|source| not_bound(address, &source))?;
        let listener = listener.with_front(self.front);
        let address = listener.local_addr().map_err(|source| not_bound(address, &source))?;
        let own = servers(&hosts, !is_named, address.port(), tls).await;
        // Who hides behind a front does not say where it is, unless it names this host.
        let answers_stun = front.is_none() || is_named;
        let reachable =
            own.iter().filter(|_| answers_stun).flat_map(|server| server.addresses.iter().copied());
        let stun = reachable.collect();
        let servers = match front {
            None => own,
            Some((front, tls)) => front_servers(front, tls).await,
        };
        let here = if address.ip().is_unspecified() { LOOPBACK } else { address.ip() };
        let host = hosts.first().cloned().unwrap_or_else(|| here.to_string());
        let from_here = ServerAddress { host, port: address.port(), addresses: vec![here], tls };
        Ok(Listening { listener, address, servers, stun, from_here })
    }
}

/// How others reach what stands before the listener.
async fn front_servers(front: Vec<HostPort>, tls: TlsMode) -> Vec<ServerAddress> {
    let mut all = Vec::new();
    for HostPort { host, port } in front {
        let host = host.to_string();
        let addresses = addresses(&host, port).await;
        all.push(ServerAddress { host, port, addresses, tls });
    }
    all
}

/// How the certificate of a front is judged, which is in this file if no public authority has signed it.
fn front_tls(certificate: Option<&Path>) -> Result<TlsMode, Failure> {
    let Some(file) = certificate else { return Ok(TlsMode::WebPki) };
    let pin = SpkiPin::of_pem(&read(file)?).map_err(|error| unusable(file, &error))?;
    Ok(TlsMode::Pin(pin.0))
}

fn certified(chain: &Path, key: &Path) -> Result<ServerCertificate, Failure> {
    let certificate = ServerCertificate::from_pem(&read(chain)?, &read(key)?);
    certificate.map_err(|error| unusable(chain, &error))
}

fn self_signed(key: &[u8], hosts: &[String]) -> Result<ServerCertificate, Failure> {
    let certificate = ServerCertificate::self_signed(key, hosts.to_vec());
    certificate.map_err(|error| Failure::new(Exit::Usage, format!("--host: {error}")))
}

fn unusable(what: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format!("{}: {error}", what.display()))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = MAX_FILE as u64 + 1;
    let read = File::open(file).and_then(|open| open.take(most).read_to_end(&mut bytes));
    if read.map_err(|error| unusable(file, &error))? > MAX_FILE {
        return Err(unusable(file, &"it has more than 1 MiB: give a smaller one"));
    }
    Ok(bytes)
}

/// Port 443 if this process may take it and it is free, 8443 otherwise.
async fn free_default_port() -> u16 {
    let is_free = async |port| {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        TcpListener::bind(address).await.is_ok() && UdpSocket::bind(address).await.is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(front: FrontSettings) -> Wanted {
        let listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Wanted { listen, front, ..Wanted::default() }
    }

    #[tokio::test]
    async fn what_stands_in_front_is_what_others_are_told() {
        let hosts = vec!["192.0.2.1:8443".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let prepared = prepare(behind(FrontSettings { hosts, ..FrontSettings::default() })).await;
        let listening = prepared.unwrap().listen(&[]).await.unwrap();
        let told: Vec<String> = listening.servers.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["wss://192.0.2.1:8443", "wss://[2001:db8::1]:443"]);
        assert_eq!(listening.servers[0].addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(listening.stun, [] as [IpAddr; 0], "nobody says where it is");
        assert_eq!(listening.from_here.to_string(), format!("ws://{}", listening.address));
    }

    #[tokio::test]
    async fn files_that_cannot_be_used_are_found_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, length: usize| {
            let file = folder.path().join(name);
            std::fs::write(&file, vec![b'a'; length]).unwrap();
            file
        };
        let (most, more) = (file("most", MAX_FILE), file("more", MAX_FILE + 1));
        let front = |page: Option<&PathBuf>, certificate: Option<&PathBuf>| {
            let hosts = vec!["mesh.example.org".parse().unwrap()];
            let (page, certificate) = (page.cloned(), certificate.cloned());
            behind(FrontSettings { hosts, page, certificate, ..FrontSettings::default() })
        };
        assert!(prepare(front(Some(&most), None)).await.is_ok());
        let missing = folder.path().join("missing");
        let pair = Some((most.clone(), most.clone()));
        for wrong in [
            front(Some(&more), None),
            front(Some(&missing), None),
            front(None, Some(&missing)),
            front(None, Some(&most)),
            Wanted { certificate: pair.clone(), ..front(None, None) },
            Wanted { plain: true, ..front(None, None) },
            Wanted { plain: true, certificate: pair.clone(), ..behind(FrontSettings::default()) },
            Wanted { certificate: pair, ..behind(FrontSettings::default()) },
        ] {
            let failure = prepare(wrong.clone()).await.expect_err("it cannot be used");
            assert_eq!(failure.exit, Exit::Usage, "{wrong:?}");
        }
    }
}

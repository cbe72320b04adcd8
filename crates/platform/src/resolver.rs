//! Making our stub the system's resolver.
//!
//! Where systemd-resolved answers, it gets our zones as routing-only domains of our interface and
//! asks the stub for nothing else. Elsewhere `/etc/resolv.conf` names the stub, which then has to
//! forward all other questions to the [`upstreams`](Resolver::upstreams) that stood there.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use zbus::{Connection, connection::Builder};

use crate::journal::{Entry, Journal, replace_file};

/// The only port that `resolv.conf` can mean.
const DNS_PORT: u16 = 53;
/// Where systemd-resolved keeps the servers it asks itself.
const RESOLVED_UPSTREAMS: &str = "/run/systemd/resolve/resolv.conf";
const RESOLVED: &str = "org.freedesktop.resolve1";
const RESOLVED_PATH: &str = "/org/freedesktop/resolve1";
const RESOLVED_MANAGER: &str = "org.freedesktop.resolve1.Manager";

/// What to install.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the stub answers, over UDP and TCP.
    pub stub: SocketAddr,
    /// The zones it is the authority for, without final dots.
    pub zones: Vec<String>,
    /// Our interface (its index), to which systemd-resolved ties the zones.
    pub interface: u32,
    /// The file, where it is not `/etc/resolv.conf`.
    pub file: PathBuf,
    /// The D-Bus address of systemd-resolved's bus, where it is not the system's.
    pub bus: Option<String>,
}

impl Setup {
    /// The stub as the resolver of `zones`, through `interface`.
    #[must_use]
    pub fn new(stub: SocketAddr, zones: Vec<String>, interface: u32) -> Self {
        let file = PathBuf::from("/etc/resolv.conf");
        Self { stub, zones, interface, file, bus: None }
    }
}

/// Why the stub is not the system's resolver.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The file cannot say which port.
    #[error("without systemd-resolved the stub has to answer on port 53, not {0}")]
    Port(u16),
    /// The file cannot be read, written or journalled.
    #[error("cannot change {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// systemd-resolved refused.
    #[error("systemd-resolved refused the settings")]
    Resolved(#[from] zbus::Error),
}

/// An installed stub. Call [`revert`](Self::revert) at the end.
#[derive(Debug)]
pub struct Resolver {
    way: Way,
    upstreams: Vec<IpAddr>,
}

#[derive(Debug)]
enum Way {
    Resolved { bus: Connection, interface: i32 },
    File(SavedFile),
}

impl Resolver {
    /// Makes the stub the system's resolver in whichever way this system has.
    pub async fn install(setup: &Setup, journal: &mut Journal) -> Result<Self, ResolverError> {
        if let Some(bus) = resolved(setup).await {
            return Self::install_resolved(bus, setup).await;
        }
        Self::install_file(setup, journal)
    }

    async fn install_resolved(bus: Connection, setup: &Setup) -> Result<Self, ResolverError> {
        let interface = i32::try_from(setup.interface).unwrap_or(0);
        if let Err(error) = set_link(&bus, interface, setup).await {
            // Half a setting would send names to where they are not answered.
            let _ = call(&bus, "RevertLink", &(interface,)).await;
            return Err(error);
        }
        let text = std::fs::read_to_string(RESOLVED_UPSTREAMS).unwrap_or_default();
        let upstreams = nameservers(&text, setup.stub.ip());
        Ok(Self { way: Way::Resolved { bus, interface }, upstreams })
    }

    fn install_file(setup: &Setup, journal: &mut Journal) -> Result<Self, ResolverError> {
        if setup.stub.port() != DNS_PORT {
            return Err(ResolverError::Port(setup.stub.port()));
        }
        let fault = |source| ResolverError::File { path: setup.file.clone(), source };
        let saved = SavedFile::plan(&setup.file, setup.stub.ip()).map_err(fault)?;
        let upstreams = nameservers(&saved.original, setup.stub.ip());
        journal.record(Entry::ResolvConf(saved.clone())).map_err(fault)?;
        if let Err(error) = saved.install() {
            journal.forget(&Entry::ResolvConf(saved)).map_err(fault)?;
            return Err(fault(error));
        }
        Ok(Self { way: Way::File(saved), upstreams })
    }

    /// The servers that the system asked before, in order.
    #[must_use]
    pub fn upstreams(&self) -> &[IpAddr] {
        &self.upstreams
    }

    /// Whether the system asks the stub for our zones only, and needs no forwarding.
    #[must_use]
    pub fn splits(&self) -> bool {
        match self.way {
            Way::Resolved { .. } => true,
            Way::File(_) => false,
        }
    }

    /// Installs the stub again where somebody else has replaced our settings since, as DHCP clients
    /// do, and takes over the servers that they name; true if that was so.
    pub fn keep(&mut self, setup: &Setup, journal: &mut Journal) -> Result<bool, ResolverError> {
        let Way::File(before) = &self.way else { return Ok(false) };
        if before.is_installed() {
            return Ok(false);
        }
        let before = Entry::ResolvConf(before.clone());
        let Self { way, upstreams } = Self::install_file(setup, journal)?;
        let fault = |source| ResolverError::File { path: setup.file.clone(), source };
        journal.forget(&before).map_err(fault)?;
        self.way = way;
        // A file that names nobody says less than the one before.
        if !upstreams.is_empty() {
            self.upstreams = upstreams;
        }
        Ok(true)
    }

    /// Puts things back as they were. A file that somebody else changed stays as they left it.
    pub async fn revert(self, journal: &mut Journal) -> Result<(), ResolverError> {
        match self.way {
            Way::Resolved { bus, interface } => call(&bus, "RevertLink", &(interface,)).await,
            Way::File(saved) => {
                let fault = |source| ResolverError::File { path: saved.path.clone(), source };
                saved.restore().map_err(fault)?;
                journal.forget(&Entry::ResolvConf(saved.clone())).map_err(fault)
            }
        }
    }
}

/// Ties the stub and its zones to the interface (org.freedesktop.resolve1(5)).
async fn set_link(bus: &Connection, interface: i32, setup: &Setup) -> Result<(), ResolverError> {
    let (family, octets) = match setup.stub.ip() {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let servers = [(family, octets, setup.stub.port(), "")];
    let domains: Vec<_> = setup.zones.iter().map(|zone| (zone.as_str(), true)).collect();
    call(bus, "SetLinkDNSEx", &(interface, &servers[..])).await?;
    call(bus, "SetLinkDomains", &(interface, domains)).await?;
    call(bus, "SetLinkDefaultRoute", &(interface, false)).await?;
    // Whatever the host demands of others: the stub has no TLS, and nobody signs private names.
    call(bus, "SetLinkDNSOverTLS", &(interface, "no")).await?;
    call(bus, "SetLinkDNSSEC", &(interface, "no")).await?;
    call(bus, "FlushCaches", &()).await
}

/// The bus of systemd-resolved, if that is what this host's programs ask.
async fn resolved(setup: &Setup) -> Option<Connection> {
    let target = std::fs::canonicalize(&setup.file).ok()?;
    let text = std::fs::read_to_string(&target).ok()?;
    let asks = target.starts_with("/run/systemd/resolve")
        || text.lines().any(|line| line.trim() == "nameserver 127.0.0.53");
    if !asks {
        return None;
    }
    let bus = match &setup.bus {
        Some(address) => Builder::address(address.as_str()).build().await.ok()?,
        None => Connection::system().await.ok()?,
    };
    let daemon = "org.freedesktop.DBus";
    let path = "/org/freedesktop/DBus";
    let answer = bus.call_method(Some(daemon), path, Some(daemon), "NameHasOwner", &(RESOLVED,));
    let running: bool = answer.await.ok()?.body().deserialize().ok()?;
    running.then_some(bus)
}

async fn call<B>(bus: &Connection, method: &str, body: &B) -> Result<(), ResolverError>
where
    B: Serialize + zbus::zvariant::DynamicType + Sync,
{
    bus.call_method(Some(RESOLVED), RESOLVED_PATH, Some(RESOLVED_MANAGER), method, body).await?;
    Ok(())
}

/// A `resolv.conf` before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedFile {
    path: PathBuf,
    original: String,
    written: String,
}

impl SavedFile {
    /// Links are followed: what they point to is replaced, they stay.
    fn plan(file: &Path, stub: IpAddr) -> io::Result<Self> {
        let path = match std::fs::canonicalize(file) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
            Err(error) => return Err(error),
        };
        let original = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let written = rewritten(&original, stub);
        Ok(Self { path, original, written })
    }

    fn install(&self) -> io::Result<()> {
        self.put(&self.written)
    }

    fn is_installed(&self) -> bool {
        std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.written)
    }

    pub(crate) fn restore(&self) -> io::Result<()> {
        if !self.is_installed() {
            return Ok(());
        }
        self.put(&self.original)
    }

    fn put(&self, text: &str) -> io::Result<()> {
        match replace_file(&self.path, text.as_bytes(), 0o644) {
            // A file mounted into a container cannot be replaced, only written.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::fs::write(&self.path, text)
            }
            other => other,
        }
    }
}

/// A `resolv.conf` with the stub as its only server; search domains and options stay.
#[must_use]
pub fn rewritten(original: &str, stub: IpAddr) -> String {
    let mut text = String::from(
        "# Written by shadowmesh, which answers here and asks the former servers itself.\n\
         # The former file comes back when it stops.\n",
    );
    text.push_str(&format!("nameserver {stub}\n"));
    for line in original.lines() {
        let keyword = line.split_whitespace().next().unwrap_or("");
        if !keyword.is_empty() && keyword != "nameserver" && !keyword.starts_with(['#', ';']) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The servers that a `resolv.conf` names, in order, without the stub.
#[must_use]
pub fn nameservers(text: &str, stub: IpAddr) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    // A zone such as %eth0 cannot be kept in an address; such servers are on the link itself.
    servers.filter_map(|word| word.parse().ok()).filter(|server| *server != stub).collect()
}

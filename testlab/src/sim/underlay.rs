//! The network underneath: sites behind translators and firewalls, and how a datagram gets from one host to another.
//!
//! A site is a link with hosts on it. [`INTERNET`] is the one that has nothing in front of it; each other site
//! has an edge to its parent, which may itself be behind an edge (a carrier's translator).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::nat::{Dependence, Firewall, Nat, NatBehaviour};

/// Names a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SiteId(usize);

/// The site in the middle.
pub const INTERNET: SiteId = SiteId(0);

/// What does not get through between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Everything,
    /// Their systems reach each other, and their programs do not.
    Programs,
}

/// A host of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostId {
    /// The controller.
    Controller,
    /// The relay with this index.
    Relay(usize),
    /// The node with this index.
    Node(usize),
    /// The plain WireGuard peer with this index.
    Plain(usize),
    /// The TURN server.
    Turn,
}

/// A datagram's addresses, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Where it is.
    pub site: SiteId,
    /// Its source, as it reads there.
    pub from: SocketAddr,
    /// Its destination, as it reads there.
    pub to: SocketAddr,
}

/// What stands between a site and its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    /// A translator; IPv4 only.
    Nat(NatBehaviour),
    /// A translator for IPv4 and a firewall for IPv6.
    NatAndIpv6(NatBehaviour),
    /// Public addresses of both families behind a firewall.
    Firewall,
    /// The same without IPv4.
    Ipv6,
    /// Only such streams get out.
    Streams(Streams),
}

/// What gets out where datagrams do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// Streams to anywhere.
    All,
    /// Streams to the port of HTTPS.
    Https,
    /// The same through a proxy, which is asked first (CONNECT, RFC 9110 section 9.3.6).
    Proxy,
}

/// How long an IPv6 firewall remembers (RFC 6092 section 3.2.1 allows 120 s and more).
const FIREWALL_EXPIRY: Duration = Duration::from_secs(120);

/// All sites.
#[derive(Debug, Default)]
pub struct Underlay {
    /// Those beside the internet: the site with number n is at n - 1.
    sites: Vec<Site>,
}

#[derive(Debug)]
struct Site {
    parent: SiteId,
    kind: EdgeKind,
    nat: Option<Nat>,
    firewall: Firewall,
    number: u8,
    hosts: u8,
}

impl Site {
    /// Private addresses are the same at all sites, as they are in homes.
    fn v4(&self, host: u8) -> Ipv4Addr {
        match self.kind {
            EdgeKind::Nat(_) | EdgeKind::NatAndIpv6(_) => Ipv4Addr::new(192, 168, 0, host),
            EdgeKind::Firewall | EdgeKind::Ipv6 | EdgeKind::Streams(_) => {
                Ipv4Addr::new(198, 18, self.number, host)
            }
        }
    }

    fn v6(&self, host: u8) -> Option<Ipv6Addr> {
        let has_v6 =
            matches!(self.kind, EdgeKind::NatAndIpv6(_) | EdgeKind::Firewall | EdgeKind::Ipv6);
        let site = u16::from(self.number);
        has_v6.then(|| Ipv6Addr::new(0x2001, 0xdb8, 0x5eed, site, 0, 0, 0, u16::from(host)))
    }

    fn lets_datagrams_pass(&self) -> bool {
        !matches!(self.kind, EdgeKind::Streams(_))
    }

    /// Whether an address belongs to this site's link.
    fn holds(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4.octets()[..3] == self.v4(0).octets()[..3],
            IpAddr::V6(v6) => {
                self.v6(0).is_some_and(|own| v6.segments()[..4] == own.segments()[..4])
            }
        }
    }

    /// Whether the parent's link sends an address here.
    fn is_seen_as(&self, address: IpAddr) -> bool {
        let translated = self.nat.as_ref().is_some_and(|nat| nat.outside() == address);
        let is_routed = address.is_ipv6() || self.nat.is_none();
        translated || (is_routed && self.holds(address))
    }

    fn outbound(&mut self, flight: Flight, now: Instant) -> Option<Flight> {
        if !self.lets_datagrams_pass() {
            return None;
        }
        let from = match (&mut self.nat, flight.from) {
            (Some(nat), SocketAddr::V4(_)) => {
                if flight.to.ip() == nat.outside() && !nat.hairpins() {
                    return None;
                }
                nat.outbound(flight.from, flight.to, now)
            }
            (Some(_) | None, from) => {
                self.firewall.outbound(from, flight.to, now);
                from
            }
        };
        Some(Flight { site: self.parent, from, ..flight })
    }

    fn inbound(&self, site: SiteId, flight: Flight, now: Instant) -> Option<Flight> {
        let to = match (&self.nat, flight.to) {
            (Some(nat), SocketAddr::V4(_)) => nat.inbound(flight.from, flight.to.port(), now)?,
            (Some(_) | None, to) => {
                let permitted =
                    self.lets_datagrams_pass() && self.firewall.permits(flight.from, to, now);
                permitted.then_some(to)?
            }
        };
        Some(Flight { site, to, ..flight })
    }
}

impl Underlay {
    /// A further site.
    pub fn add_site(&mut self, parent: SiteId, kind: EdgeKind) -> SiteId {
        let number = u8::try_from(self.sites.len() + 1).expect("scenarios have few sites");
        let outside = match parent {
            INTERNET => IpAddr::from([192, 0, 2, number]),
            SiteId(_) => IpAddr::from([10, 0, 0, number]),
        };
        let nat = match kind {
            EdgeKind::Nat(behaviour) | EdgeKind::NatAndIpv6(behaviour) => {
                Some(Nat::new(behaviour, outside))
            }
            EdgeKind::Firewall | EdgeKind::Ipv6 | EdgeKind::Streams(_) => None,
        };
        let firewall = Firewall::new(Dependence::AddressAndPort, FIREWALL_EXPIRY);
        self.sites.push(Site { parent, kind, nat, firewall, number, hosts: 1 });
        SiteId(self.sites.len())
    }

    /// Somebody else behind the translator of a site, and those above it, goes somewhere.
    pub fn disturb(&mut self, site: SiteId, now: Instant) {
        let mut next = Some(site);
        while let Some(site) = next.and_then(|id| self.site_mut(id)) {
            next = Some(site.parent);
            if let Some(nat) = &mut site.nat {
                nat.disturb(now);
            }
        }
    }

    /// Whether a site has IPv4.
    #[must_use]
    pub fn has_ipv4(&self, site: SiteId) -> bool {
        let index = site.0.checked_sub(1);
        index.is_none_or(|index| self.sites[index].kind != EdgeKind::Ipv6)
    }

    /// Which streams get out of a site.
    #[must_use]
    pub fn streams(&self, site: SiteId) -> Streams {
        match site.0.checked_sub(1).map(|index| self.sites[index].kind) {
            Some(EdgeKind::Streams(streams)) => streams,
            Some(
                EdgeKind::Nat(_) | EdgeKind::NatAndIpv6(_) | EdgeKind::Firewall | EdgeKind::Ipv6,
            )
            | None => Streams::All,
        }
    }

    /// The addresses of a further host at a site other than the internet; without IPv4 the first is nobody's.
    pub fn add_host(&mut self, site: SiteId) -> (Ipv4Addr, Option<Ipv6Addr>) {
        let site = self.site_mut(site).expect("hosts of the internet choose their addresses");
        site.hosts = site.hosts.checked_add(1).expect("scenarios have few hosts at a site");
        (site.v4(site.hosts), site.v6(site.hosts))
    }

    /// Brings a datagram out of its site as far as it has to go; nothing if an edge drops it.
    pub fn climb(&mut self, mut flight: Flight, now: Instant) -> Option<Flight> {
        loop {
            let to = flight.to.ip();
            let here = flight.site;
            let is_below = self.child_of(here, to).is_some();
            let Some(site) = self.site_mut(here) else { return Some(flight) };
            if site.holds(to) || is_below {
                return Some(flight);
            }
            flight = site.outbound(flight, now)?;
        }
    }

    /// Brings a datagram to the site of its destination; nothing if an edge drops it.
    #[must_use]
    pub fn descend(&self, mut flight: Flight, now: Instant) -> Option<Flight> {
        while let Some((id, site)) = self.child_of(flight.site, flight.to.ip()) {
            flight = site.inbound(id, flight, now)?;
        }
        Some(flight)
    }

    fn child_of(&self, parent: SiteId, address: IpAddr) -> Option<(SiteId, &Site)> {
        let sites = self.sites.iter().enumerate();
        let mut children = sites.filter(|(_, site)| site.parent == parent);
        let (index, site) = children.find(|(_, site)| site.is_seen_as(address))?;
        Some((SiteId(index + 1), site))
    }

    fn site_mut(&mut self, id: SiteId) -> Option<&mut Site> {
        id.0.checked_sub(1).and_then(|index| self.sites.get_mut(index))
    }
}

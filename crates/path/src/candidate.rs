//! Addresses at which a device may be reachable, and those that nobody may be sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use ipnet::IpNet;

use crate::alias::is_reserved;

/// Candidates kept per peer; more are a sign of abuse, not of connectivity.
pub const MAX_CANDIDATES: usize = 16;

/// How an address became known, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// Configured on an interface of the device itself.
    Local,
    /// A port of the device's NAT that leads to it, as the NAT itself said.
    Mapped,
    /// Seen by a STUN server, in front of the device's NAT.
    Reflexive,
    /// Seen by us as the source of an authenticated packet of the peer.
    PeerReflexive,
    /// At a TURN server or over a circuit, where somebody passes on what comes.
    Relayed,
}

/// One address at which a device may be reachable over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// How the address became known.
    pub kind: CandidateKind,
    /// Where to send.
    pub address: SocketAddr,
}

impl Candidate {
    /// A candidate with its address in canonical form (no IPv4-mapped IPv6).
    pub fn new(kind: CandidateKind, address: SocketAddr) -> Self {
        Self { kind, address: canonical(address) }
    }
}

/// Puts candidates into the order of preference: IPv6 first, then by kind; without duplicates and
/// cut to [`MAX_CANDIDATES`].
pub fn order(candidates: &mut Vec<Candidate>) {
    candidates
        .sort_by_key(|candidate| (candidate.address.is_ipv4(), candidate.kind, candidate.address));
    let mut seen = std::collections::BTreeSet::new();
    candidates.retain(|candidate| seen.insert(candidate.address));
    candidates.truncate(MAX_CANDIDATES);
}

/// Decides which addresses may be dialled at all.
///
/// A member that announces somebody else's address must not be able to make the others send there
/// what they would never send by themselves: into the overlay (loops), to this host, to many hosts,
/// to a neighbour on another link, or to the metadata service of a cloud. Nor may it name a way through an
/// allocation of theirs ([`Alias`](crate::Alias)).
#[derive(Clone, Debug, Default)]
pub struct CandidateFilter {
    overlay: Vec<IpNet>,
    loopback: bool,
}

impl CandidateFilter {
    /// A filter that refuses the given overlay prefixes beside everything that is always refused.
    pub fn new(overlay: Vec<IpNet>) -> Self {
        Self { overlay, loopback: false }
    }

    /// Lets loopback addresses pass, for networks that live on one machine.
    #[must_use]
    pub fn with_loopback(mut self, allowed: bool) -> Self {
        self.loopback = allowed;
        self
    }

    /// Whether packets may be sent to this address.
    pub fn permits(&self, address: SocketAddr) -> bool {
        let ip = canonical(address).ip();
        let scope_permits = match ip {
            IpAddr::V4(v4) => self.permits_v4(v4),
            IpAddr::V6(v6) => self.permits_v6(v6),
        };
        address.port() != 0
            && scope_permits
            && !METADATA.contains(&ip)
            && !self.overlay.iter().any(|prefix| prefix.contains(&ip))
    }

    fn permits_v4(&self, ip: Ipv4Addr) -> bool {
        let reserved = ip.octets()[0] == 0 || ip.octets()[0] >= 240;
        !reserved && !ip.is_multicast() && !ip.is_link_local() && self.permits_loopback(ip.into())
    }

    fn permits_v6(&self, ip: Ipv6Addr) -> bool {
        !ip.is_unspecified()
            && !ip.is_multicast()
            && !ip.is_unicast_link_local()
            && !is_reserved(ip)
            && self.permits_loopback(ip.into())
    }

    fn permits_loopback(&self, ip: IpAddr) -> bool {
        self.loopback || !ip.is_loopback()
    }
}

/// Well-known metadata and platform services that answer to whoever is on the host. Those inside
/// 169.254.0.0/16 are refused as link-local already.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), // Alibaba Cloud
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),   // Azure
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),     // Oracle Cloud (classic)
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), // AWS
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), // Google Cloud
];

/// The same endpoint without the IPv4-mapped form, so that one endpoint has one name.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, v6.port())),
            None => address,
        },
    }
}

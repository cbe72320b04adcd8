//! Ways to peers other than from this device's UDP socket straight to an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

/// The discard-only prefix of RFC 6666: no packet from or to there is on any wire.
const PREFIX: [u16; 4] = [0x100, 0, 0, 0];

/// The bits by which the numbers of circuits and sockets are told from those of allocations.
const CIRCUIT: u32 = 0b10 << 30;
const SOCKET: u32 = 0b11 << 30;
const KIND: u32 = 0b11 << 30;

/// What stands for a way to a peer that no address says.
///
/// It has the form of an address that exists nowhere, in 100::/64, so that whatever deals with addresses of peers deals
/// with it too. Only this device makes such addresses; from elsewhere none is taken. Numbers are below 2^30, and no two
/// allocations, circuits or sockets that this device ever had have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alias {
    /// Through an allocation of this device at a TURN server: its number, then where the server sends what is for the
    /// peer, which is where what comes from it comes from.
    Turn(u32, SocketAddrV4),
    /// Over the circuit with this number, through another member.
    Circuit(u32),
    /// From another socket of this device: its number, then the one address to which that leads.
    Socket(u32, SocketAddrV4),
}

impl Alias {
    /// What the address stands for, if it is one of these.
    #[must_use]
    pub fn of(address: SocketAddr) -> Option<Self> {
        let IpAddr::V6(ip) = address.ip() else { return None };
        if !is_reserved(ip) {
            return None;
        }
        let [.., a, b, c, d] = ip.segments();
        let number = u32::from(a) << 16 | u32::from(b);
        let peer = Ipv4Addr::from_bits(u32::from(c) << 16 | u32::from(d));
        let peer = SocketAddrV4::new(peer, address.port());
        Some(match number & KIND {
            CIRCUIT => Self::Circuit(number & !KIND),
            SOCKET => Self::Socket(number & !KIND, peer),
            _ => Self::Turn(number, peer),
        })
    }

    /// Where a datagram to this address arrives: at the peer's address behind a TURN server or at the end of a socket, else
    /// at the address itself.
    #[must_use]
    pub fn reached(address: SocketAddr) -> SocketAddr {
        match Self::of(address) {
            Some(Self::Turn(_, peer) | Self::Socket(_, peer)) => peer.into(),
            Some(Self::Circuit(_)) | None => address,
        }
    }

    /// Whose probes are counted together with those to this address: all that arrive where those do, but each socket by itself,
    /// since nothing comes to it but from where it leads.
    pub(crate) fn counted(address: SocketAddr) -> SocketAddr {
        match Self::of(address) {
            Some(Self::Socket(..)) => address,
            Some(Self::Turn(..) | Self::Circuit(_)) | None => Self::reached(address),
        }
    }

    /// Whether somebody passes on what goes this way.
    #[must_use]
    pub fn is_relayed(self) -> bool {
        match self {
            Self::Turn(..) | Self::Circuit(_) => true,
            Self::Socket(..) => false,
        }
    }
}

impl From<Alias> for SocketAddr {
    fn from(alias: Alias) -> Self {
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let (number, peer) = match alias {
            Alias::Turn(allocation, peer) => (allocation & !KIND, peer),
            Alias::Circuit(number) => (number | CIRCUIT, nowhere),
            Alias::Socket(number, peer) => (number | SOCKET, peer),
        };
        let [p0, p1, p2, p3] = PREFIX;
        let halves = |number: u32| [(number >> 16) as u16, number as u16];
        let ([a, b], [c, d]) = (halves(number), halves(peer.ip().to_bits()));
        let ip = Ipv6Addr::new(p0, p1, p2, p3, a, b, c, d);
        Self::new(ip.into(), peer.port())
    }
}

/// What this device has at a TURN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allocation {
    /// Its number, which no other one ever has.
    pub number: u32,
    /// Its address at the server.
    pub relayed: SocketAddr,
}

impl Allocation {
    /// Whether the server may have a way to a peer's host. One on the internet has none to private addresses, and some
    /// end an allocation over the attempt.
    pub(crate) fn may_reach(self, peer: Ipv4Addr) -> bool {
        let is_private_too = matches!(self.relayed.ip(), IpAddr::V4(own) if is_private(own));
        !is_private(peer) || is_private_too
    }
}

/// Private (RFC 1918), or a carrier's (RFC 6598).
pub(crate) fn is_private(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    ip.is_private() || (first == 100 && second & 0xc0 == 64)
}

/// Whether an address is of those that only this device makes.
pub(crate) fn is_reserved(ip: Ipv6Addr) -> bool {
    ip.segments()[..4] == PREFIX
}

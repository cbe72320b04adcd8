//! Which peer an address belongs to.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use relay_proto::FlowId;

/// Longest-prefix match from an address to a `T`, for both families.
///
/// The same table routes outbound packets and checks the source of inbound ones, as WireGuard's
/// cryptokey routing does.
#[derive(Clone)]
pub struct Routes<T> {
    v4: PrefixMap<Ipv4Net, T>,
    v6: PrefixMap<Ipv6Net, T>,
}

impl<T: Copy> Routes<T> {
    /// A table without routes.
    #[must_use]
    pub fn new() -> Self {
        Self { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }

    /// Routes `prefix` to `target`; answers the target that had it before.
    pub fn insert(&mut self, prefix: IpNet, target: T) -> Option<T> {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(prefix.trunc(), target),
            IpNet::V6(prefix) => self.v6.insert(prefix.trunc(), target),
        }
    }

    /// The target of the longest prefix that contains `address`.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<T> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&address.into()).map(|(_, target)| *target),
            IpAddr::V6(address) => self.v6.get_lpm(&address.into()).map(|(_, target)| *target),
        }
    }
}

impl<T: Copy> Default for Routes<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Routes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("ipv4", &self.v4.len())
            .field("ipv6", &self.v6.len())
            .finish()
    }
}

/// Source and destination of an IP packet, if it is one.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => {
            let source: [u8; 4] = packet[12..16].try_into().ok()?;
            let destination: [u8; 4] = packet[16..20].try_into().ok()?;
            Some((source.into(), destination.into()))
        }
        6 if packet.len() >= 40 => {
            let source: [u8; 16] = packet[8..24].try_into().ok()?;
            let destination: [u8; 16] = packet[24..40].try_into().ok()?;
            Some((source.into(), destination.into()))
        }
        _ => None,
    }
}

/// What belongs to no flow of packets.
pub(crate) const NO_FLOW: FlowId = FlowId(0);

/// The flow of a packet: what must stay in order, told by addresses, protocol and the first bytes of what
/// the header carries, where TCP and UDP have their ports.
pub(crate) fn flow_of(packet: &[u8]) -> FlowId {
    let (addresses, protocol, transport) = match packet.first() {
        Some(byte) if byte >> 4 == 4 => (12..20, 9, usize::from(byte & 0xf) * 4),
        Some(_) | None => (8..40, 6, 40),
    };
    let mut hasher = DefaultHasher::new();
    for part in [addresses, protocol..protocol + 1, transport..transport + 4] {
        hasher.write(packet.get(part).unwrap_or_default());
    }
    FlowId(hasher.finish())
}

/// The length that an IP packet gives itself, which is at most `packet.len()`; tunnels pad.
pub(crate) fn packet_len(packet: &[u8]) -> Option<usize> {
    let len = match packet.first()? >> 4 {
        4 if packet.len() >= 20 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        6 if packet.len() >= 40 => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
        _ => return None,
    };
    (len >= 20 && len <= packet.len()).then_some(len)
}

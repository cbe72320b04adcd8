//! The view of an IPv4 (RFC 791) or IPv6 (RFC 8200) packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{checksum::Sum, icmp, tcp, udp};

/// The shortest IPv4 header.
pub(crate) const IPV4_HEADER: usize = 20;
/// The fixed IPv6 header.
pub(crate) const IPV6_HEADER: usize = 40;
/// Extension headers that are walked before a packet counts as hostile; hosts need three or four.
const MAX_EXTENSION_HEADERS: usize = 8;

/// An IP protocol number (IPv4 protocol, IPv6 next header).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);

    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;
}

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which part of a datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first part: the transport header is there, its length and checksum say nothing here.
    First,
    /// A later part, without a transport header.
    Later,
}

/// Why bytes are not a packet that a host would accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Neither IPv4 nor IPv6.
    #[error("unknown IP version {0}")]
    Version(u8),
    /// Fewer bytes than the headers announce.
    #[error("packet shorter than it says")]
    Truncated,
    /// A header length that contradicts itself.
    #[error("impossible header length")]
    HeaderLength,
    /// The IPv4 header checksum is wrong.
    #[error("wrong IPv4 header checksum")]
    HeaderChecksum,
    /// Too many extension headers, or one at a place where hosts refuse it.
    #[error("extension headers that hosts refuse")]
    ExtensionHeaders,
    /// A fragment that overwrites or splits the transport header (RFC 1858, RFC 7112).
    #[error("fragment across the transport header")]
    FragmentedHeader,
}

/// A checked view of one IP packet.
///
/// Bytes after the packet's own length (WireGuard's padding) are cut off. The IPv4 header checksum
/// is not read here, because a host that offloads may leave it to the card: see
/// [`Packet::check_header`].
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    version: Version,
    protocol: Protocol,
    transport_offset: u16,
    fragment: Fragment,
}

impl<'a> Packet<'a> {
    /// Checks the headers up to the transport's.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let first = *bytes.first().ok_or(Malformed::Truncated)?;
        match first >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            version => Err(Malformed::Version(version)),
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < IPV4_HEADER {
            return Err(Malformed::Truncated);
        }
        let header = usize::from(bytes[0] & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        if header < IPV4_HEADER || length < header {
            return Err(Malformed::HeaderLength);
        }
        let bytes = bytes.get(..length).ok_or(Malformed::Truncated)?;
        let flags = u16::from_be_bytes([bytes[6], bytes[7]]);
        let fragment = fragment_of(flags & 0x1fff, flags & 0x2000 != 0);
        let offset = usize::from(flags & 0x1fff) * 8;
        Self {
            bytes,
            version: Version::V4,
            protocol: Protocol(bytes[9]),
            transport_offset: offset_of(header),
            fragment,
        }
        .check_fragment(offset)
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < IPV6_HEADER {
            return Err(Malformed::Truncated);
        }
        let length = IPV6_HEADER + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        let bytes = bytes.get(..length).ok_or(Malformed::Truncated)?;
        let chain = Extensions::walk(bytes)?;
        Self {
            bytes,
            version: Version::V6,
            protocol: chain.protocol,
            transport_offset: offset_of(chain.end),
            fragment: chain.fragment,
        }
        .check_fragment(chain.fragment_offset)
    }

    /// Refuses a datagram whose transport header is split, or overwritten by a later part.
    fn check_fragment(self, offset: usize) -> Result<Self, Malformed> {
        let needed = match self.protocol {
            Protocol::TCP => tcp::HEADER,
            Protocol::UDP => udp::HEADER,
            Protocol::ICMP | Protocol::ICMPV6 => icmp::HEADER,
            _ => 0,
        };
        match self.fragment {
            Fragment::Whole => Ok(self),
            Fragment::First if self.payload().len() >= needed => Ok(self),
            Fragment::Later if offset >= needed => Ok(self),
            Fragment::First | Fragment::Later => Err(Malformed::FragmentedHeader),
        }
    }

    /// Verifies the IPv4 header checksum; IPv6 has none.
    pub fn check_header(&self) -> Result<(), Malformed> {
        let header = usize::from(self.bytes[0] & 0x0f) * 4;
        if self.version == Version::V6 || Sum::of(&self.bytes[..header]).is_valid() {
            return Ok(());
        }
        Err(Malformed::HeaderChecksum)
    }

    /// The packet, without anything that followed it.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self.version {
            Version::V4 => IpAddr::V4(self.ipv4_at(12)),
            Version::V6 => IpAddr::V6(self.ipv6_at(8)),
        }
    }

    /// The destination address.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match self.version {
            Version::V4 => IpAddr::V4(self.ipv4_at(16)),
            Version::V6 => IpAddr::V6(self.ipv6_at(24)),
        }
    }

    fn ipv4_at(&self, offset: usize) -> Ipv4Addr {
        let octets: [u8; 4] = self.bytes[offset..offset + 4].try_into().expect("four bytes");
        Ipv4Addr::from(octets)
    }

    fn ipv6_at(&self, offset: usize) -> Ipv6Addr {
        let octets: [u8; 16] = self.bytes[offset..offset + 16].try_into().expect("sixteen bytes");
        Ipv6Addr::from(octets)
    }

    /// The protocol of the payload, after any extension headers.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Hops left (IPv4 TTL).
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        match self.version {
            Version::V4 => self.bytes[8],
            Version::V6 => self.bytes[7],
        }
    }

    /// The traffic class (IPv4 TOS): six bits DSCP, two bits ECN.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        match self.version {
            Version::V4 => self.bytes[1],
            Version::V6 => self.bytes[0] << 4 | self.bytes[1] >> 4,
        }
    }

    /// Which part of its datagram this is.
    #[must_use]
    pub fn fragment(&self) -> Fragment {
        self.fragment
    }

    /// Where the payload starts, in bytes from the start of the packet.
    #[must_use]
    pub fn transport_offset(&self) -> usize {
        usize::from(self.transport_offset)
    }

    /// What follows the IP headers.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.transport_offset()..]
    }

    /// The view of the payload; [`Transport::Unknown`] where its header is absent or broken.
    #[must_use]
    pub fn transport(&self) -> Transport<'a> {
        let payload = self.payload();
        let whole = self.fragment == Fragment::Whole;
        let view = match (self.fragment, self.protocol) {
            (Fragment::Later, _) => None,
            (_, Protocol::TCP) => tcp::Segment::parse(payload).map(Transport::Tcp),
            (_, Protocol::UDP) => udp::Datagram::parse(payload, whole).map(Transport::Udp),
            (_, Protocol::ICMP) if self.version == Version::V4 => {
                icmp::Message::parse(payload).map(Transport::Icmp)
            }
            (_, Protocol::ICMPV6) if self.version == Version::V6 => {
                icmp::Message::parse(payload).map(Transport::Icmp)
            }
            _ => None,
        };
        view.unwrap_or(Transport::Unknown)
    }

    /// The addresses as they stand in the header, side by side.
    pub(crate) fn addresses(&self) -> &'a [u8] {
        match self.version {
            Version::V4 => &self.bytes[12..20],
            Version::V6 => &self.bytes[8..40],
        }
    }

    /// Whether the checksum over pseudo-header and payload holds (TCP, UDP and ICMPv6).
    #[must_use]
    pub fn transport_checksum_is_valid(&self) -> bool {
        let payload = self.payload();
        let pseudo = Sum::pseudo_of(self.addresses(), self.protocol, payload.len());
        (pseudo + Sum::of(payload)).is_valid()
    }
}

/// What a packet carries.
#[derive(Clone, Copy, Debug)]
pub enum Transport<'a> {
    /// A TCP segment.
    Tcp(tcp::Segment<'a>),
    /// A UDP datagram, or the first fragment of one.
    Udp(udp::Datagram<'a>),
    /// An ICMP message of the packet's own version.
    Icmp(icmp::Message<'a>),
    /// Another protocol, a later fragment, or a header that is cut short.
    Unknown,
}

fn fragment_of(offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

fn offset_of(header: usize) -> u16 {
    u16::try_from(header).expect("IP lengths have 16 bits")
}

/// The IPv6 extension headers of a packet, walked to their end.
struct Extensions {
    protocol: Protocol,
    end: usize,
    fragment: Fragment,
    fragment_offset: usize,
}

impl Extensions {
    fn walk(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut chain = Self {
            protocol: Protocol(bytes[6]),
            end: IPV6_HEADER,
            fragment: Fragment::Whole,
            fragment_offset: 0,
        };
        for position in 0..=MAX_EXTENSION_HEADERS {
            let kind = chain.protocol.0;
            match kind {
                Protocol::HOP_BY_HOP if position > 0 => return Err(Malformed::ExtensionHeaders),
                Protocol::HOP_BY_HOP
                | Protocol::ROUTING
                | Protocol::DESTINATION_OPTIONS
                | Protocol::AUTHENTICATION
                | Protocol::FRAGMENT => chain.step(bytes, kind)?,
                _ => return Ok(chain),
            }
            if chain.fragment == Fragment::Later {
                return Ok(chain);
            }
        }
        Err(Malformed::ExtensionHeaders)
    }

    fn step(&mut self, bytes: &[u8], kind: u8) -> Result<(), Malformed> {
        let header = bytes.get(self.end..self.end + 8).ok_or(Malformed::Truncated)?;
        let length = match kind {
            Protocol::FRAGMENT => 8,
            Protocol::AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if kind == Protocol::FRAGMENT {
            if self.fragment != Fragment::Whole {
                return Err(Malformed::ExtensionHeaders);
            }
            let field = u16::from_be_bytes([header[2], header[3]]);
            self.fragment = fragment_of(field >> 3, field & 1 != 0);
            self.fragment_offset = usize::from(field >> 3) * 8;
        }
        self.protocol = Protocol(header[0]);
        self.end += length;
        if self.end > bytes.len() {
            return Err(Malformed::Truncated);
        }
        Ok(())
    }
}

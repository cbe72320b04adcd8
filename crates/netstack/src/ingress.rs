//! The little that must be known of a packet before smoltcp sees it.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{IpProtocol, IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket};

/// The two ends of a TCP connection, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) destination: IpAddr,
    /// The connection that the packet asks for (TCP SYN without ACK).
    pub(crate) opens: Option<Flow>,
}

/// Reads the destination, and the flow of a SYN; `None` for anything that is not a whole IP packet.
pub(crate) fn inspect(packet: &[u8]) -> Option<Summary> {
    // smoltcp reads the version without looking at the length.
    packet.first()?;
    let (source, destination, protocol, payload) = match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let view = Ipv4Packet::new_checked(packet).ok()?;
            let fragment = view.more_frags() || view.frag_offset() != 0;
            let protocol = (!fragment).then(|| view.next_header());
            (IpAddr::V4(view.src_addr()), IpAddr::V4(view.dst_addr()), protocol, view.payload())
        }
        IpVersion::Ipv6 => {
            let view = Ipv6Packet::new_checked(packet).ok()?;
            let protocol = Some(view.next_header());
            (IpAddr::V6(view.src_addr()), IpAddr::V6(view.dst_addr()), protocol, view.payload())
        }
    };
    let opens = (protocol == Some(IpProtocol::Tcp))
        .then(|| TcpPacket::new_checked(payload).ok())
        .flatten()
        .filter(|segment| segment.syn() && !segment.ack() && !segment.rst())
        .map(|segment| Flow {
            local: SocketAddr::new(destination, segment.dst_port()),
            remote: SocketAddr::new(source, segment.src_port()),
        });
    Some(Summary { destination, opens })
}

/// The number of leading bits that two addresses share (RFC 6724 section 2.2).
pub(crate) fn common_prefix(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    }
}

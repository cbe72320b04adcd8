//! Whole packets from their meaning, checksums included: for answers that a node gives itself and
//! for tests.

use std::net::{IpAddr, SocketAddr};

use crate::{
    checksum::Sum,
    ip::{IPV4_HEADER, IPV6_HEADER, Protocol, Version},
    segment::{write_ipv4_checksum, write_lengths},
    tcp, udp,
};

const HOP_LIMIT: u8 = 64;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY: u8 = 0;
const ECHO_REPLY_V6: u8 = 129;
/// No ICMP error is longer (RFC 1812 section 4.3.2.3), ...
const MAX_ERROR_V4: usize = 576;
/// ... and no ICMPv6 error (RFC 4443 section 2.4).
const MAX_ERROR_V6: usize = 1_280;

/// The meaning of a TCP header.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Control bits.
    pub flags: tcp::Flags,
    /// The receive window, unscaled.
    pub window: u16,
}

/// A UDP datagram. Both addresses must be of one IP version.
#[must_use]
pub fn udp(source: SocketAddr, destination: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut header = [0; udp::HEADER];
    header[..2].copy_from_slice(&source.port().to_be_bytes());
    header[2..4].copy_from_slice(&destination.port().to_be_bytes());
    let length = u16::try_from(udp::HEADER + data.len()).expect("a datagram is below 64 KiB");
    header[4..6].copy_from_slice(&length.to_be_bytes());
    let ends = (source.ip(), destination.ip());
    ip_packet(ends, Protocol::UDP, udp::CHECKSUM, &[&header, data])
}

/// A TCP segment without options. Both addresses must be of one IP version.
#[must_use]
pub fn tcp(source: SocketAddr, destination: SocketAddr, meaning: &Tcp, data: &[u8]) -> Vec<u8> {
    let mut header = [0; tcp::HEADER];
    header[..2].copy_from_slice(&source.port().to_be_bytes());
    header[2..4].copy_from_slice(&destination.port().to_be_bytes());
    header[4..8].copy_from_slice(&meaning.sequence.to_be_bytes());
    header[8..12].copy_from_slice(&meaning.acknowledgement.to_be_bytes());
    header[12] = 5 << 4;
    header[tcp::FLAGS] = meaning.flags.0;
    header[14..16].copy_from_slice(&meaning.window.to_be_bytes());
    let ends = (source.ip(), destination.ip());
    ip_packet(ends, Protocol::TCP, tcp::CHECKSUM, &[&header, data])
}

/// An ICMP or ICMPv6 echo request. Both addresses must be of one IP version.
#[must_use]
pub fn echo_request(
    source: IpAddr,
    destination: IpAddr,
    identifier: u16,
    sequence: u16,
    data: &[u8],
) -> Vec<u8> {
    let kind = if source.is_ipv4() { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
    echo((source, destination), kind, (identifier, sequence), data)
}

/// The answer to an echo request, with the addresses turned round; none if it is not one.
#[must_use]
pub fn echo_reply(packet: &crate::Packet<'_>) -> Option<Vec<u8>> {
    let crate::Transport::Icmp(request) = packet.transport() else { return None };
    let kind = match (packet.version(), request.kind()) {
        (Version::V4, ECHO_REQUEST) => ECHO_REPLY,
        (Version::V6, ECHO_REQUEST_V6) => ECHO_REPLY_V6,
        _ => return None,
    };
    let ends = (packet.destination(), packet.source());
    Some(echo(ends, kind, (request.identifier(), request.sequence()), request.payload()))
}

/// What tells the sender of a packet that it is too big for the way to its destination, which carries `mtu` bytes: ICMPv6
/// Packet Too Big (RFC 4443 section 3.2) or ICMP Fragmentation Needed (RFC 1191 section 4), in the destination's name, with
/// the beginning of the packet, 576 bytes at most for IPv4 and 1,280 for IPv6. None for ICMP messages but echoes, which are not answered.
#[must_use]
pub fn too_big(packet: &crate::Packet<'_>, mtu: u16) -> Option<Vec<u8>> {
    let (kind, code, protocol, most, echoes) = match packet.version() {
        Version::V4 => {
            (3, 4, Protocol::ICMP, MAX_ERROR_V4 - IPV4_HEADER, [ECHO_REQUEST, ECHO_REPLY])
        }
        Version::V6 => {
            (2, 0, Protocol::ICMPV6, MAX_ERROR_V6 - IPV6_HEADER, [ECHO_REQUEST_V6, ECHO_REPLY_V6])
        }
    };
    if let crate::Transport::Icmp(message) = packet.transport()
        && !echoes.contains(&message.kind())
    {
        return None;
    }
    let mut header = [0; crate::icmp::HEADER];
    (header[0], header[1]) = (kind, code);
    header[6..8].copy_from_slice(&mtu.to_be_bytes());
    let bytes = packet.bytes();
    let begin = &bytes[..bytes.len().min(most - header.len())];
    let ends = (packet.destination(), packet.source());
    Some(ip_packet(ends, protocol, 2, &[&header, begin]))
}

fn echo(
    ends: (IpAddr, IpAddr),
    kind: u8,
    (identifier, sequence): (u16, u16),
    data: &[u8],
) -> Vec<u8> {
    let mut header = [0; crate::icmp::HEADER];
    header[0] = kind;
    header[4..6].copy_from_slice(&identifier.to_be_bytes());
    header[6..8].copy_from_slice(&sequence.to_be_bytes());
    let protocol = if ends.0.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
    ip_packet(ends, protocol, 2, &[&header, data])
}

fn ip_packet(
    (source, destination): (IpAddr, IpAddr),
    protocol: Protocol,
    checksum_offset: usize,
    parts: &[&[u8]],
) -> Vec<u8> {
    let (version, mut packet) = ip_header(source, destination, protocol);
    let transport = packet.len();
    for part in parts {
        packet.extend_from_slice(part);
    }
    write_lengths(version, 0, &mut packet);
    let length = packet.len() - transport;
    let mut sum = Sum::of(&packet[transport..]);
    if protocol != Protocol::ICMP {
        sum = sum + Sum::pseudo_header(source, destination, protocol, length);
    }
    let mut checksum = sum.checksum();
    if checksum == [0, 0] && protocol == Protocol::UDP {
        checksum = [0xff, 0xff];
    }
    let field = transport + checksum_offset;
    packet[field..field + 2].copy_from_slice(&checksum);
    packet
}

fn ip_header(source: IpAddr, destination: IpAddr, protocol: Protocol) -> (Version, Vec<u8>) {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0; IPV4_HEADER];
            header[0] = 0x45;
            header[6] = 0x40;
            header[8] = HOP_LIMIT;
            header[9] = protocol.0;
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            write_ipv4_checksum(&mut header);
            (Version::V4, header)
        }
        (source, destination) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let mut header = vec![0; IPV6_HEADER];
            header[0] = 0x60;
            header[6] = protocol.0;
            header[7] = HOP_LIMIT;
            header[8..24].copy_from_slice(&octets(source));
            header[24..40].copy_from_slice(&octets(destination));
            (Version::V6, header)
        }
    }
}

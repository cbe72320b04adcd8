//! The packets that simulated applications exchange.

use std::net::{IpAddr, Ipv6Addr};

const HEADER: usize = 40;
/// For experiments (RFC 3692).
const PROTOCOL: u8 = 253;
const ICMPV6: u8 = 58;

/// An application's message: a question with a number, or the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Who sent it.
    pub source: Ipv6Addr,
    /// Whom it is for.
    pub destination: Ipv6Addr,
    /// Whether it is an answer.
    pub answer: bool,
    /// Which question.
    pub number: u64,
}

impl Echo {
    /// A packet of at least `len` bytes.
    pub(crate) fn to_packet(self, len: usize) -> Vec<u8> {
        let mut packet = vec![0; len.max(HEADER + 9)];
        let body = u16::try_from(packet.len() - HEADER).expect("no longer than a packet may be");
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&body.to_be_bytes());
        packet[6] = PROTOCOL;
        packet[7] = 64;
        packet[8..24].copy_from_slice(&self.source.octets());
        packet[24..40].copy_from_slice(&self.destination.octets());
        packet[40] = u8::from(self.answer);
        packet[41..49].copy_from_slice(&self.number.to_be_bytes());
        packet
    }

    /// Reads a packet, with or without the padding of a tunnel.
    pub(crate) fn from_packet(packet: &[u8]) -> Option<Self> {
        let (header, body) = packet.split_first_chunk::<HEADER>()?;
        let (answer, number) = body.split_first()?;
        let source: [u8; 16] = header[8..24].try_into().ok()?;
        let destination: [u8; 16] = header[24..40].try_into().ok()?;
        (header[6] == PROTOCOL).then_some(Self {
            source: source.into(),
            destination: destination.into(),
            answer: *answer == 1,
            number: u64::from_be_bytes(*number.first_chunk()?),
        })
    }

    pub(crate) fn answered(self) -> Self {
        Self { source: self.destination, destination: self.source, answer: true, ..self }
    }
}

/// How large packets may be, if this says that one was too big (RFC 4443 section 3.2).
pub(crate) fn too_big(packet: &[u8]) -> Option<u32> {
    let (header, message) = packet.split_first_chunk::<HEADER>()?;
    let mtu = message.get(4..8)?.first_chunk()?;
    (header[6] == ICMPV6 && message[0] == 2).then_some(u32::from_be_bytes(*mtu))
}

/// The IPv6 address among several.
pub(crate) fn ipv6(addresses: &[IpAddr]) -> Option<Ipv6Addr> {
    addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    })
}

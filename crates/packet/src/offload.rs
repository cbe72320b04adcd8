//! What a host leaves to its network card: the virtio-net header (virtio 1.2, section 5.1.6) as a
//! value, and its check against the packet it describes.

use crate::{
    checksum::Sum,
    ip::{Fragment, Packet, Protocol, Version},
    tcp, udp,
};

const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// The longest packet headers that are split: IPv6 with extension headers and a full TCP header.
pub const MAX_HEADER: usize = 256;

/// How a super-packet is to be split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// One packet, not to be split.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either: one datagram each.
    Udp,
}

/// What is still to be done to a packet before it is fit for a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum holds only the sum of the pseudo-header.
    pub needs_checksum: bool,
    /// How to split it.
    pub segmentation: Segmentation,
    /// Length of all headers, repeated on every part; a hint when reading.
    pub header_length: u16,
    /// Payload bytes in each part but the last.
    pub segment_size: u16,
    /// Where the checksum starts to cover: the transport header.
    pub checksum_start: u16,
    /// Where the checksum stands, from `checksum_start`.
    pub checksum_offset: u16,
}

/// Why an offload header does not fit its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// A kind of segmentation that is not offered to the host.
    #[error("unknown segmentation type {0}")]
    Segmentation(u8),
    /// Another protocol, IP version, or a fragment.
    #[error("offload does not match the packet")]
    Mismatch,
    /// A length or offset outside the packet.
    #[error("offload points outside the packet")]
    Bounds,
}

impl Offload {
    /// The size of the header in front of each packet of a TUN opened with it.
    pub const VIRTIO_LENGTH: usize = 10;

    /// Reads a virtio-net header (in the host's byte order, as TUN devices use it).
    pub fn from_virtio(header: &[u8; Self::VIRTIO_LENGTH]) -> Result<Self, OffloadError> {
        let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let segmentation = match header[1] & !GSO_ECN {
            GSO_NONE => Segmentation::None,
            GSO_TCP4 => Segmentation::Tcp4,
            GSO_TCP6 => Segmentation::Tcp6,
            GSO_UDP => Segmentation::Udp,
            other => return Err(OffloadError::Segmentation(other)),
        };
        Ok(Self {
            needs_checksum: header[0] & NEEDS_CHECKSUM != 0,
            segmentation,
            header_length: field(2),
            segment_size: field(4),
            checksum_start: field(6),
            checksum_offset: field(8),
        })
    }

    /// Writes the virtio-net header.
    #[must_use]
    pub fn to_virtio(&self) -> [u8; Self::VIRTIO_LENGTH] {
        let kind = match self.segmentation {
            Segmentation::None => GSO_NONE,
            Segmentation::Tcp4 => GSO_TCP4,
            Segmentation::Tcp6 => GSO_TCP6,
            Segmentation::Udp => GSO_UDP,
        };
        let mut header = [0; Self::VIRTIO_LENGTH];
        header[0] = if self.needs_checksum { NEEDS_CHECKSUM } else { 0 };
        header[1] = kind;
        header[2..4].copy_from_slice(&self.header_length.to_ne_bytes());
        header[4..6].copy_from_slice(&self.segment_size.to_ne_bytes());
        header[6..8].copy_from_slice(&self.checksum_start.to_ne_bytes());
        header[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        header
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_none(&self) -> bool {
        !self.needs_checksum && self.segmentation == Segmentation::None
    }

    /// Checks every field against the packet, as for a header that came from a peer: after this
    /// a kernel may be given both. The packet must fill `bytes` exactly.
    pub fn validate(&self, bytes: &[u8]) -> Result<(), OffloadError> {
        let packet = Packet::parse(bytes).map_err(|_| OffloadError::Bounds)?;
        if packet.bytes().len() != bytes.len() {
            return Err(OffloadError::Bounds);
        }
        if self.is_none() {
            return Ok(());
        }
        let layout = Layout::of(&packet)?;
        if usize::from(self.checksum_start) != layout.transport
            || usize::from(self.checksum_offset) != layout.checksum_offset()
            || !self.needs_checksum
        {
            return Err(OffloadError::Bounds);
        }
        if self.segmentation == Segmentation::None {
            return Ok(());
        }
        layout.check_segmentation(self)?;
        if usize::from(self.header_length) != layout.header {
            return Err(OffloadError::Bounds);
        }
        Ok(())
    }
}

/// Where the headers of a TCP or UDP packet lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) version: Version,
    pub(crate) tcp: bool,
    pub(crate) transport: usize,
    pub(crate) header: usize,
    pub(crate) payload: usize,
}

impl Layout {
    /// The layout of a whole TCP or UDP packet.
    pub(crate) fn of(packet: &Packet<'_>) -> Result<Self, OffloadError> {
        if packet.fragment() != Fragment::Whole {
            return Err(OffloadError::Mismatch);
        }
        let transport = packet.transport_offset();
        let (tcp, header) = match packet.protocol() {
            Protocol::TCP => {
                let view = tcp::Segment::parse(packet.payload()).ok_or(OffloadError::Bounds)?;
                (true, view.header_length())
            }
            Protocol::UDP if packet.payload().len() >= udp::HEADER => (false, udp::HEADER),
            _ => return Err(OffloadError::Mismatch),
        };
        let header = transport + header;
        if header > MAX_HEADER {
            return Err(OffloadError::Bounds);
        }
        let payload = packet.bytes().len() - header;
        Ok(Self { version: packet.version(), tcp, transport, header, payload })
    }

    pub(crate) fn protocol(&self) -> Protocol {
        if self.tcp { Protocol::TCP } else { Protocol::UDP }
    }

    pub(crate) fn checksum_offset(&self) -> usize {
        if self.tcp { tcp::CHECKSUM } else { udp::CHECKSUM }
    }

    pub(crate) fn check_segmentation(&self, offload: &Offload) -> Result<(), OffloadError> {
        let fits = match offload.segmentation {
            Segmentation::None => true,
            Segmentation::Tcp4 => self.tcp && self.version == Version::V4,
            Segmentation::Tcp6 => self.tcp && self.version == Version::V6,
            Segmentation::Udp => !self.tcp,
        };
        if !fits {
            return Err(OffloadError::Mismatch);
        }
        if offload.segment_size == 0 || self.payload == 0 {
            return Err(OffloadError::Bounds);
        }
        Ok(())
    }
}

/// Finishes the transport checksum of a packet that was handed over with
/// [`Offload::needs_checksum`]; a UDP checksum of zero becomes 0xffff.
pub fn complete_checksum(offload: &Offload, packet: &mut [u8]) -> Result<(), OffloadError> {
    let start = usize::from(offload.checksum_start);
    let field = start + usize::from(offload.checksum_offset);
    if field + 2 > packet.len() {
        return Err(OffloadError::Bounds);
    }
    let mut checksum = Sum::of(&packet[start..]).checksum();
    if checksum == [0, 0] && usize::from(offload.checksum_offset) == udp::CHECKSUM {
        checksum = [0xff, 0xff];
    }
    packet[field..field + 2].copy_from_slice(&checksum);
    Ok(())
}

//! The head of a data payload: what the sender's host left to be done to the packet.

/// Bytes before the packet in the payload of a data frame.
pub const OFFLOAD_LENGTH: usize = 8;

const NEEDS_CHECKSUM: u8 = 1;

/// How a super-packet is to be split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

impl Segmentation {
    const ALL: [Self; 4] = [Self::None, Self::Tcp4, Self::Tcp6, Self::Udp];

    const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Tcp4 => 1,
            Self::Tcp6 => 2,
            Self::Udp => 3,
        }
    }
}

/// Why an offload header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// Fewer bytes than the header and the smallest packet.
    #[error("the payload is too short for an offload header and a packet")]
    TooShort,
    /// A kind or a flag that is not known here.
    #[error("the offload header has a kind or a flag that is not known here")]
    Unknown,
    /// The fields contradict each other, or the packet.
    #[error("the offload header does not fit the packet")]
    Mismatch,
}

/// What is still to be done to the packet behind it. 8 bytes: kind 1, flags 1, segment size 2,
/// checksum start 2, checksum offset 2; of its own layout, whatever the host's is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OffloadHeader {
    /// How to split the packet.
    pub segmentation: Segmentation,
    /// Whether the transport checksum holds only the sum of the pseudo-header.
    pub needs_checksum: bool,
    /// Transport payload bytes in each part but the last.
    pub segment_size: u16,
    /// Where the checksum begins to cover: the transport header.
    pub checksum_start: u16,
    /// Where the checksum stands, from `checksum_start`.
    pub checksum_offset: u16,
}

impl OffloadHeader {
    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; OFFLOAD_LENGTH] {
        let mut bytes = [0; OFFLOAD_LENGTH];
        bytes[0] = self.segmentation.number();
        bytes[1] = if self.needs_checksum { NEEDS_CHECKSUM } else { 0 };
        bytes[2..4].copy_from_slice(&self.segment_size.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.checksum_start.to_be_bytes());
        bytes[6..].copy_from_slice(&self.checksum_offset.to_be_bytes());
        bytes
    }

    /// Splits the payload of a data frame into its header and the packet, and checks the one
    /// against the other, since the peer may send anything: see [`Self::check`].
    ///
    /// What is checked is what this layer can see: the IP version and protocol, where the
    /// transport header stands, the length of the packet, and that every field lies within.
    /// Packets with extension headers or fragments cannot be offloaded.
    ///
    /// # Errors
    /// See [`OffloadError`].
    pub fn split(payload: &[u8]) -> Result<(Self, &[u8]), OffloadError> {
        let (bytes, packet) =
            payload.split_first_chunk::<OFFLOAD_LENGTH>().ok_or(OffloadError::TooShort)?;
        let header = Self::decode(bytes)?;
        header.check(packet)?;
        Ok((header, packet))
    }

    fn decode(bytes: &[u8; OFFLOAD_LENGTH]) -> Result<Self, OffloadError> {
        let kind = Segmentation::ALL.get(usize::from(bytes[0])).ok_or(OffloadError::Unknown)?;
        if bytes[1] & !NEEDS_CHECKSUM != 0 {
            return Err(OffloadError::Unknown);
        }
        let field = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Ok(Self {
            segmentation: *kind,
            needs_checksum: bytes[1] & NEEDS_CHECKSUM != 0,
            segment_size: field(2),
            checksum_start: field(4),
            checksum_offset: field(6),
        })
    }

    /// Checks the header against the packet as a receiver does.
    ///
    /// # Errors
    /// See [`OffloadError`].
    pub fn check(&self, packet: &[u8]) -> Result<(), OffloadError> {
        let outline = Outline::of(packet)?;
        if !self.needs_checksum {
            // Splitting writes checksums anew, so there is none without the other.
            let idle = Self::default();
            return if *self == idle { Ok(()) } else { Err(OffloadError::Mismatch) };
        }
        let transport = outline.transport.ok_or(OffloadError::Mismatch)?;
        let expected = match (outline.protocol, self.segmentation) {
            (TCP, Segmentation::None) => TCP_CHECKSUM,
            (TCP, Segmentation::Tcp4) if outline.is_v4 => TCP_CHECKSUM,
            (TCP, Segmentation::Tcp6) if !outline.is_v4 => TCP_CHECKSUM,
            (UDP, Segmentation::None | Segmentation::Udp) => UDP_CHECKSUM,
            _ => return Err(OffloadError::Mismatch),
        };
        let placed = usize::from(self.checksum_start) == transport
            && usize::from(self.checksum_offset) == expected;
        let headers = outline.header_length(packet).ok_or(OffloadError::Mismatch)?;
        let split = self.segmentation != Segmentation::None;
        let sized = split == (self.segment_size > 0) && (!split || packet.len() > headers);
        if placed && sized { Ok(()) } else { Err(OffloadError::Mismatch) }
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// As much of a packet as offloads depend on.
struct Outline {
    is_v4: bool,
    protocol: u8,
    /// Where the transport header begins; nothing in a fragment.
    transport: Option<usize>,
}

impl Outline {
    fn of(packet: &[u8]) -> Result<Self, OffloadError> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => Self::of_v4(packet),
            Some(6) => Self::of_v6(packet),
            Some(_) => Err(OffloadError::Mismatch),
            None => Err(OffloadError::TooShort),
        }
    }

    fn of_v4(packet: &[u8]) -> Result<Self, OffloadError> {
        let fixed = packet.first_chunk::<20>().ok_or(OffloadError::TooShort)?;
        let transport = usize::from(fixed[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if total != packet.len() || transport < 20 || transport > total {
            return Err(OffloadError::Mismatch);
        }
        let is_fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0;
        let transport = (!is_fragment).then_some(transport);
        Ok(Self { is_v4: true, protocol: fixed[9], transport })
    }

    fn of_v6(packet: &[u8]) -> Result<Self, OffloadError> {
        let fixed = packet.first_chunk::<40>().ok_or(OffloadError::TooShort)?;
        let length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        if 40 + length != packet.len() {
            return Err(OffloadError::Mismatch);
        }
        Ok(Self { is_v4: false, protocol: fixed[6], transport: Some(40) })
    }

    /// The length of all headers of a TCP or UDP packet, if they are all there.
    fn header_length(&self, packet: &[u8]) -> Option<usize> {
        let transport = packet.get(self.transport?..)?;
        let length = match self.protocol {
            TCP => usize::from(transport.get(12)? >> 4) * 4,
            _ => 8,
        };
        let shortest = if self.protocol == TCP { 20 } else { 8 };
        (length >= shortest && length <= transport.len())
            .then(|| self.transport.map(|at| at + length))?
    }
}

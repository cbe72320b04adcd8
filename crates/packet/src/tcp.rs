//! The view of a TCP segment (RFC 9293).

/// The shortest TCP header.
pub(crate) const HEADER: usize = 20;
/// Where the checksum stands in the header.
pub(crate) const CHECKSUM: usize = 16;
/// Where the flags stand in the header.
pub(crate) const FLAGS: usize = 13;

/// The control bits of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement field counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A checked view of a TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    bytes: &'a [u8],
    header: usize,
}

impl<'a> Segment<'a> {
    /// The view of `bytes`, none if the header is cut short or its length is impossible.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < HEADER {
            return None;
        }
        let header = usize::from(bytes[12] >> 4) * 4;
        (header >= HEADER && header <= bytes.len()).then_some(Self { bytes, header })
    }

    /// The source port.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// The destination port.
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// The sequence number of the first byte.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.bytes[4], self.bytes[5], self.bytes[6], self.bytes[7]])
    }

    /// The acknowledgement number.
    #[must_use]
    pub fn acknowledgement(&self) -> u32 {
        u32::from_be_bytes([self.bytes[8], self.bytes[9], self.bytes[10], self.bytes[11]])
    }

    /// The control bits.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags(self.bytes[FLAGS])
    }

    /// The length of the header with its options.
    #[must_use]
    pub fn header_length(&self) -> usize {
        self.header
    }

    /// The data.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header..]
    }
}

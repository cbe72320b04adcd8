//! The view of a UDP datagram (RFC 768).

/// The UDP header.
pub(crate) const HEADER: usize = 8;
/// Where the checksum stands in the header.
pub(crate) const CHECKSUM: usize = 6;

/// A checked view of a UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    bytes: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The view of `bytes`; a `whole` datagram's length field must fit inside them.
    #[must_use]
    pub fn parse(bytes: &'a [u8], whole: bool) -> Option<Self> {
        if bytes.len() < HEADER {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        if length < HEADER {
            return None;
        }
        match bytes.get(..length) {
            Some(exact) => Some(Self { bytes: exact }),
            None if whole => None,
            None => Some(Self { bytes }),
        }
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

    /// Whether the sender left the checksum out (IPv4 only).
    #[must_use]
    pub fn has_no_checksum(&self) -> bool {
        self.bytes[CHECKSUM..HEADER] == [0, 0]
    }

    /// The data.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER..]
    }
}

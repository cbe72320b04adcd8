//! The view of an ICMP (RFC 792) or ICMPv6 (RFC 4443) message.

/// The common header: type, code, checksum, four bytes by type.
pub(crate) const HEADER: usize = 8;

/// A checked view of an ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// The view of `bytes`, none if the header is cut short.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= HEADER).then_some(Self { bytes })
    }

    /// The message type.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.bytes[0]
    }

    /// The code within the type.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.bytes[1]
    }

    /// The identifier of an echo message.
    #[must_use]
    pub fn identifier(&self) -> u16 {
        u16::from_be_bytes([self.bytes[4], self.bytes[5]])
    }

    /// The sequence number of an echo message.
    #[must_use]
    pub fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.bytes[6], self.bytes[7]])
    }

    /// What follows the header: data of an echo, the offending packet of an error.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER..]
    }
}

//! The lengths of messages, where a network hides those of its frames.

use identity::Padding;

/// The lengths to which messages are filled up, in bytes. A frame and its hop's tag add 104 to a packet.
///
/// 256 takes what answers and what is typed: acknowledgements, keys, pings, handshakes. 1,536 takes a full packet of
/// any usual MTU, of which the rest are multiples: super-packets of two, of ten and of twenty or so, and the largest
/// that a frame carries, which bulk consists of. So the padding is less than three quarters of any message but those of
/// little more than a keystroke, and a twentieth of bulk.
pub const BUCKETS: [usize; 6] = [256, 1_536, 4_096, 16_384, 32_768, 65_535];

/// Whoever speaks this version passes over padding; older ones end the connection.
pub const PADDING_CAPABILITY: u16 = 2;

/// How what is sent over one link is filled up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filling {
    /// What the network wishes.
    pub(crate) policy: Padding,
    /// Whether the other end passes over padding.
    pub(crate) is_understood: bool,
}

impl Filling {
    /// Not at all.
    pub(crate) const NONE: Self = Self { policy: Padding::Off, is_understood: false };

    /// How long a message of `length` becomes. What no bucket takes stays as it is: that is no data.
    pub(crate) fn apply(self, length: usize) -> usize {
        match self.policy {
            Padding::Buckets if self.is_understood => {
                BUCKETS.into_iter().find(|bucket| *bucket >= length).unwrap_or(length)
            }
            Padding::Buckets | Padding::Off => length,
        }
    }
}

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

/// Whoever speaks this version passes over dummies and takes bundles; older ones end the connection.
pub const SHAPING_CAPABILITY: u16 = 4;

/// Where messages are shaped all are at least this long, in bytes: dummies, and everything up to a full packet.
pub const SHAPED_LENGTH: usize = BUCKETS[1];

/// How what is sent over one link is filled up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filling {
    /// What the network wishes.
    pub(crate) policy: Padding,
    /// Whether the other end passes over padding.
    pub(crate) is_understood: bool,
    /// Whether messages are shaped, which their lengths are not to undo.
    pub(crate) is_shaped: bool,
}

impl Filling {
    /// Not at all.
    pub(crate) const NONE: Self =
        Self { policy: Padding::Off, is_understood: false, is_shaped: false };

    /// How long a message of `length` becomes. What no bucket takes stays as it is: that is no data.
    pub(crate) fn apply(self, length: usize) -> usize {
        let least = match self.policy {
            Padding::Buckets | Padding::Off if self.is_shaped => length.max(SHAPED_LENGTH),
            Padding::Buckets if self.is_understood => length,
            Padding::Buckets | Padding::Off => return length,
        };
        BUCKETS.into_iter().find(|bucket| *bucket >= least).unwrap_or(length)
    }
}

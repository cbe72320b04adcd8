//! What relays tell each other.

use identity::{Attachment, DeviceId, Signed};
use minicbor::{Decode, Encode};

/// One message between neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum MeshMessage {
    /// Asks for a pong with the same number.
    #[n(0)]
    Ping(#[n(0)] u64),
    /// The answer.
    #[n(1)]
    Pong(#[n(0)] u64),
    /// How far the sender knows what these relays said of themselves.
    #[n(2)]
    Known(#[n(0)] Vec<Standing>),
    /// What a relay said of itself, a piece of it.
    #[n(3)]
    Delta(#[n(0)] Delta),
}

/// How much is known of what a relay said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Standing {
    /// The relay.
    #[n(0)]
    pub(crate) origin: DeviceId,
    /// Everything up to there.
    #[n(1)]
    pub(crate) version: Version,
}

/// A place in what a relay says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Version {
    /// When the relay started, in milliseconds of Unix time; it forgot what it said before.
    #[n(0)]
    pub(crate) run: u64,
    /// Counts what it said since then, from 1.
    #[n(1)]
    pub(crate) number: u64,
}

/// What a relay said of itself after one version, as far as it still counts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Delta {
    /// The relay.
    #[n(0)]
    pub(crate) origin: DeviceId,
    /// Until where it leads.
    #[n(1)]
    pub(crate) to: Version,
    /// The number after which it begins.
    #[n(2)]
    pub(crate) after: u64,
    /// What was said, by rising numbers.
    #[n(3)]
    pub(crate) changes: Vec<Change>,
}

/// Something that a relay said.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Change {
    #[n(0)]
    pub(crate) number: u64,
    #[n(1)]
    pub(crate) word: Word,
}

/// What a relay says of itself; later words about the same take the place of earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Word {
    /// A device is attached, as it signed itself.
    #[n(0)]
    Attached(#[n(0)] DeviceId, #[n(1)] Signed<Attachment>),
    /// It is no more.
    #[n(1)]
    Detached(#[n(0)] DeviceId),
    /// All the relays to which there is a link.
    #[n(2)]
    Links(#[n(0)] Vec<Distance>),
}

/// How far a neighbour is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Distance {
    /// The neighbour.
    #[n(0)]
    pub(crate) relay: DeviceId,
    /// The round trip, in microseconds.
    #[n(1)]
    pub(crate) micros: u32,
}

impl MeshMessage {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }
}

//! The messages between nodes and controllers.
//!
//! One channel message carries one control message: CBOR, an array of variant and fields, so that a
//! later version can append fields. A variant that is not known is passed over.

use identity::{
    Binding, CertificateChain, ChannelProof, DeviceName, Endpoints, NetworkName, RelayEntry, Signed,
};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::SecurityEvent;
use crate::limits::MAX_MESSAGE;

/// Names a connection of a machine; never used twice by the same machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Which of the network's keys a controller holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Delegated keys of all scopes: the controller could admit devices by itself.
    #[n(0)]
    Simple,
    /// Keys to renew and to revoke only.
    #[n(1)]
    Strict,
}

/// The version of a network map as one controller counts it.
///
/// Versions of different epochs are not comparable: after a restore from backup nodes get the
/// whole map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(array)]
pub struct MapVersion {
    /// The epoch of the network.
    #[n(0)]
    pub epoch: u64,
    /// Rises with each change.
    #[n(1)]
    pub number: u64,
}

/// The first message of a node on each channel: who it is, and what it has.
///
/// Joining and coming back are the same message, so a node that lost the answer repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Hello {
    /// The device's membership; made with an invite when it joins.
    #[n(0)]
    pub chain: CertificateChain,
    /// Its keys.
    #[n(1)]
    pub binding: Signed<Binding>,
    /// Proof that the DeviceKey is present on this channel.
    #[n(2)]
    pub presence: Signed<ChannelProof>,
    /// The version of the map that it has.
    #[n(3)]
    pub have: Option<MapVersion>,
    /// Its endpoints, if it knows them already.
    #[n(4)]
    pub endpoints: Option<Signed<Endpoints>>,
}

/// What a relay says about itself every minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct LoadReport {
    /// Nodes attached to it.
    #[n(0)]
    pub attached: u32,
    /// Bytes forwarded since the last report.
    #[n(1)]
    pub forwarded_bytes: u64,
    /// Frames dropped since the last report.
    #[n(2)]
    pub dropped_frames: u64,
    /// Whether it wants no further nodes because it is about to stop.
    #[n(3)]
    pub draining: bool,
    /// Processor use of the relay as a whole since the last report, in thousandths of one core.
    #[cbor(n(4), default)]
    pub cpu_permille: u32,
    /// How much of what it can serve is in use, in thousandths: by processor or by connections, whichever is more.
    #[cbor(n(5), default)]
    pub busy_permille: u32,
}

/// A message of a node to its controller.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum NodeMessage {
    /// Who it is. Always first.
    #[n(0)]
    Hello(#[n(0)] Box<Hello>),
    /// New endpoints.
    #[n(1)]
    Endpoints(#[n(0)] Signed<Endpoints>),
    /// New keys.
    #[n(2)]
    Binding(#[n(0)] Signed<Binding>),
    /// It asks for a longer membership.
    #[n(3)]
    Renew,
    /// A relay's load.
    #[n(4)]
    Load(#[n(0)] LoadReport),
    /// A relay says where it is reached; the controller signs that if it may.
    #[n(5)]
    Relay(#[n(0)] RelayEntry),
    /// A security event that it saw, with a number to confirm it by.
    #[n(6)]
    Security(#[n(0)] SecurityEvent, #[cbor(n(1), default)] u64),
    /// It leaves the network for good.
    #[n(7)]
    Leave,
}

/// A part of a network map, or of the changes to one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct MapChunk {
    /// The version that the chunks change; nothing if they are the whole map.
    #[n(0)]
    pub base: Option<MapVersion>,
    /// The version after the last chunk.
    #[n(1)]
    pub version: MapVersion,
    /// Encoded [`MapItem`](crate::MapItem)s, each one self-verifying.
    #[n(2)]
    pub items: Vec<ByteVec>,
    /// Whether it is the last chunk.
    #[n(3)]
    pub last: bool,
}

/// What a controller says to a node that it accepts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Welcome {
    /// The network's name.
    #[n(0)]
    pub network: NetworkName,
    /// Which keys the controller holds.
    #[n(1)]
    pub mode: Mode,
    /// Whether the device waits for approval and gets no map until then.
    #[n(2)]
    pub pending: bool,
    /// The name under which the device is listed.
    #[n(3)]
    pub name: DeviceName,
}

/// Why a controller refuses a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Another device has the name.
    #[n(0)]
    #[error("another device has this name; {suggestion} is free")]
    NameTaken {
        /// A name that is free.
        #[n(0)]
        suggestion: DeviceName,
    },
    /// Another device has the address.
    #[n(1)]
    #[error("another device has this address; counter {counter} is free")]
    AddressTaken {
        /// A counter whose address is free.
        #[n(0)]
        counter: u32,
    },
    /// Another device came in by this invite.
    #[n(2)]
    #[error("the invite was used by another device; ask for a new one")]
    InviteUsed,
    /// The invite was revoked.
    #[n(3)]
    #[error("the invite was revoked; ask for a new one")]
    InviteRevoked,
    /// The invite's time is over.
    #[n(4)]
    #[error("the invite has expired; ask for a new one")]
    InviteExpired,
    /// The device was removed from the network.
    #[n(5)]
    #[error(
        "this device was removed from the network; ask for a new invite and join with new keys"
    )]
    Revoked,
    /// The chain proves no membership.
    #[n(6)]
    #[error("the certificate is refused: {reason}")]
    Chain {
        /// What is wrong with it.
        #[n(0)]
        reason: String,
    },
    /// Binding, presence and channel do not fit together.
    #[n(7)]
    #[error("the device's keys do not fit together: {reason}")]
    Keys {
        /// What is wrong with them.
        #[n(0)]
        reason: String,
    },
    /// The network has as many devices as it may have.
    #[n(8)]
    #[error("the network is full; ask its administrator to remove devices")]
    Full,
    /// The node sent too much.
    #[n(9)]
    #[error("too many messages; wait")]
    RateLimited,
    /// The controller lacks the key that is needed.
    #[n(10)]
    #[error(
        "the controller holds no key for this (strict mode); it waits until the owner runs `shadowmesh network sign`"
    )]
    KeyNotHeld,
    /// Something that only a relay may do.
    #[n(11)]
    #[error("this device is no relay; ask for an invite with the relay flag")]
    NotARelay,
    /// An earlier run of the device gave its statements higher numbers: it has lost its memory, and its
    /// clock was fast then or is slow now.
    #[n(12)]
    #[error("an earlier run of this device has used the number {number}")]
    Outdated {
        /// The highest of them.
        #[n(0)]
        number: u64,
    },
}

/// A message of a controller to a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum ControllerMessage {
    /// The hello is accepted.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// Something is refused; after a hello the connection ends.
    #[n(1)]
    Refused(#[n(0)] Refusal),
    /// A part of the map.
    #[n(2)]
    Map(#[n(0)] MapChunk),
    /// The device's membership has changed: approved, renewed or renamed.
    #[n(3)]
    Membership(#[n(0)] Box<CertificateChain>),
    /// The security event with this number is on disk, and all before it on the same channel.
    #[n(4)]
    Noted(#[n(0)] u64),
    /// The device is no member any more: it was removed, or has left.
    #[n(5)]
    Removed,
}

/// Bytes that are no control message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("a control message of {0} bytes is too long")]
    TooLong(usize),
    /// Not a message of a known kind, or of a later version.
    #[error("not a control message that this version knows")]
    Unknown,
}

impl NodeMessage {
    /// The message as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Takes a message as received.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        decode(bytes)
    }
}

impl ControllerMessage {
    /// The message as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Takes a message as received.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        decode(bytes)
    }
}

fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, MessageError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong(bytes.len()));
    }
    minicbor::decode(bytes).map_err(|_| MessageError::Unknown)
}

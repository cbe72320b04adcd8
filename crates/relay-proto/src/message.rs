//! What clients and relays tell each other inside the channel.

use identity::{Attachment, Binding, CertificateChain, DeviceId, Signed};
use minicbor::{Decode, Encode};

use crate::circuits::OfferMessage;

/// One message of the relay protocol.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Message {
    /// The client's first message: who it is, and that it wants its frames here.
    #[n(0)]
    Attach(#[n(0)] Attach),
    /// The relay's answer: frames may flow.
    #[n(1)]
    Attached(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
    /// The relay's other answer, or its last word to a client that was attached.
    #[n(2)]
    Refused(#[n(0)] Refusal),
    /// The hop key that the sender uses after its next marker.
    #[n(3)]
    HopKey(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
    /// Nobody by this id is attached here.
    #[n(4)]
    Unreachable(#[n(0)] DeviceId),
    /// The client's membership, renewed while it is attached.
    #[n(5)]
    Renew(#[n(0)] Box<CertificateChain>),
    /// The client wants datagrams passed on between it and this device.
    #[n(6)]
    CircuitRequest(#[n(0)] DeviceId),
    /// The relay's answer: how, or that it does not.
    #[n(7)]
    Circuit(#[n(0)] DeviceId, #[n(1)] Option<OfferMessage>),
}

/// What a client proves, and its hop key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Attach {
    #[n(0)]
    pub(crate) chain: CertificateChain,
    #[n(1)]
    pub(crate) binding: Signed<Binding>,
    #[n(2)]
    pub(crate) attachment: Signed<Attachment>,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) hop_key: [u8; 32],
}

/// Why a relay does not, or no longer, serve a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(index_only)]
pub enum Refusal {
    /// The chain, binding or attachment does not verify.
    #[error("the membership does not verify")]
    #[n(0)]
    NotMember,
    /// The membership has ended or not begun.
    #[error("the membership is not valid at this time; ask the controller for a renewal")]
    #[n(1)]
    Expired,
    /// The device was revoked.
    #[error("the device was revoked")]
    #[n(2)]
    Revoked,
    /// The device still waits for its approval.
    #[error("the device waits for approval; approve it with `shadowmesh device approve`")]
    #[n(3)]
    NeedsApproval,
    /// The binding names another channel key than the one that opened the channel.
    #[error("the binding is for another channel key")]
    #[n(4)]
    WrongChannelKey,
    /// An attachment with the same or a higher number is there.
    #[error("a newer attachment of the same device is there")]
    #[n(5)]
    Superseded,
    /// The relay no longer serves the network.
    #[error("the relay does not serve this network any more")]
    #[n(6)]
    NetworkRemoved,
    /// The relay serves other groups.
    #[error("the relay serves members of other groups")]
    #[n(7)]
    OtherGroups,
}

impl Refusal {
    /// Whether the device is served over no other connection either.
    pub(crate) const fn expels(self) -> bool {
        match self {
            Self::NotMember
            | Self::Expired
            | Self::Revoked
            | Self::NeedsApproval
            | Self::NetworkRemoved
            | Self::OtherGroups => true,
            Self::WrongChannelKey | Self::Superseded => false,
        }
    }
}

impl Message {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }
}

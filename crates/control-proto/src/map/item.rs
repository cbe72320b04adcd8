//! The items of a map, each of which proves itself.

use identity::{
    Binding, CertificateChain, ChannelPublicKey, ControllerEntry, Delegation, DeviceId, Endpoints,
    Epoch, Freshness, Lease4, NameEntry, NetworkInfo, Record, RelayEntry, RevocationEntry, Signed,
    StatementHash, StaticPeer, TunnelPublicKey,
};
use minicbor::{Decode, Encode};

use crate::limits::MAX_ITEM;

/// A member with everything that others need to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PeerEntry {
    /// Proves the membership.
    #[n(0)]
    pub chain: CertificateChain,
    /// The member's keys.
    #[n(1)]
    pub binding: Signed<Binding>,
    /// Where the member is reached, if it has said so.
    #[n(2)]
    pub endpoints: Option<Signed<Endpoints>>,
}

/// One item of a network map.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum MapItem {
    /// Who has which scope.
    #[n(0)]
    Delegation(#[n(0)] Signed<Delegation>),
    /// The epoch of the network.
    #[n(1)]
    Epoch(#[n(0)] Signed<Epoch>),
    /// An entry of the list of revocations.
    #[n(2)]
    Revocation(#[n(0)] u64, #[n(1)] Signed<RevocationEntry>),
    /// The settings of the network.
    #[n(3)]
    Info(#[n(0)] Signed<Record<NetworkInfo>>),
    /// A member.
    #[n(4)]
    Peer(#[n(0)] DeviceId, #[n(1)] PeerEntry),
    /// A member that has left. Not signed: leaving it out would have the same effect.
    #[n(5)]
    Gone(#[n(0)] DeviceId),
    /// A relay's entry.
    #[n(6)]
    Relay(#[n(0)] DeviceId, #[n(1)] Signed<Record<RelayEntry>>),
    /// Whether a relay's load reports arrive, and how many quarters of what it can serve are in use (0 to 4): advice about
    /// an order, so not signed.
    #[n(7)]
    RelayHealth(#[n(0)] DeviceId, #[n(1)] bool, #[cbor(n(2), default)] u8),
    /// A member's IPv4 address.
    #[n(8)]
    Lease4(#[n(0)] DeviceId, #[n(1)] Signed<Record<Lease4>>),
    /// A further name.
    #[n(9)]
    Name(#[n(0)] String, #[n(1)] Signed<Record<NameEntry>>),
    /// A plain WireGuard peer.
    #[n(10)]
    Static(#[n(0)] TunnelPublicKey, #[n(1)] Signed<Record<StaticPeer>>),
    /// A further controller.
    #[n(11)]
    Controller(#[n(0)] ChannelPublicKey, #[n(1)] Signed<Record<ControllerEntry>>),
    /// The list of revocations is current.
    #[n(12)]
    Freshness(#[n(0)] Signed<Freshness>),
}

/// How a relay is doing, by the controller's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayHealth {
    /// Whether its load reports arrive, and do not ask to be left.
    pub healthy: bool,
    /// How many quarters of what it can serve are in use, 0 to 4.
    pub load: u8,
}

impl Default for RelayHealth {
    /// That of a relay of which nothing was said.
    fn default() -> Self {
        Self { healthy: true, load: 0 }
    }
}

/// What an item is about: a newer item of the same key replaces it.
///
/// The order is the one in which items can be believed: those that prove others come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum ItemKey {
    /// See [`MapItem::Delegation`].
    #[n(0)]
    Delegation(#[n(0)] StatementHash),
    /// See [`MapItem::Epoch`].
    #[n(1)]
    Epoch,
    /// See [`MapItem::Revocation`].
    #[n(2)]
    Revocation(#[n(0)] u64),
    /// See [`MapItem::Info`].
    #[n(3)]
    Info,
    /// See [`MapItem::Controller`].
    #[n(4)]
    Controller(#[n(0)] ChannelPublicKey),
    /// See [`MapItem::Peer`] and [`MapItem::Gone`].
    #[n(5)]
    Peer(#[n(0)] DeviceId),
    /// See [`MapItem::Relay`].
    #[n(6)]
    Relay(#[n(0)] DeviceId),
    /// See [`MapItem::RelayHealth`].
    #[n(7)]
    RelayHealth(#[n(0)] DeviceId),
    /// See [`MapItem::Lease4`].
    #[n(8)]
    Lease4(#[n(0)] DeviceId),
    /// See [`MapItem::Name`].
    #[n(9)]
    Name(#[n(0)] String),
    /// See [`MapItem::Static`].
    #[n(10)]
    Static(#[n(0)] TunnelPublicKey),
    /// See [`MapItem::Freshness`].
    #[n(11)]
    Freshness,
}

impl MapItem {
    /// What the item claims to be about; whether that is so is found out when it is applied.
    #[must_use]
    pub fn key(&self) -> ItemKey {
        match self {
            Self::Delegation(signed) => ItemKey::Delegation(signed.hash()),
            Self::Epoch(_) => ItemKey::Epoch,
            Self::Revocation(number, _) => ItemKey::Revocation(*number),
            Self::Info(_) => ItemKey::Info,
            Self::Peer(device, _) | Self::Gone(device) => ItemKey::Peer(*device),
            Self::Relay(device, _) => ItemKey::Relay(*device),
            Self::RelayHealth(device, ..) => ItemKey::RelayHealth(*device),
            Self::Lease4(device, _) => ItemKey::Lease4(*device),
            Self::Name(name, _) => ItemKey::Name(name.clone()),
            Self::Static(key, _) => ItemKey::Static(*key),
            Self::Controller(key, _) => ItemKey::Controller(*key),
            Self::Freshness(_) => ItemKey::Freshness,
        }
    }

    /// The item as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Takes an item as received; nothing if it is too large or of a kind not known.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_ITEM {
            return None;
        }
        minicbor::decode(bytes).ok()
    }
}

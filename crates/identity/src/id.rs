//! Public keys and digests as ids.

use minicbor::{Decode, Encode};

use crate::encoding::{from_base64, from_z_base_32, public_bytes, to_base64, to_z_base_32};

/// A text that is no key: wrong length, wrong alphabet, or stray trailing bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a key; copy it again, completely")]
pub struct ParseKeyError;

public_bytes! {
    /// The public half of a network's root key, and thereby the name that no two networks share.
    ///
    /// Its text form is z-base-32, 52 characters.
    NetworkId, to_z_base_32, from_z_base_32
}

public_bytes! {
    /// The public half of a device's identity key.
    ///
    /// Its text form is z-base-32, 52 characters: one valid DNS label.
    DeviceId, to_z_base_32, from_z_base_32
}

public_bytes! {
    /// Any Ed25519 public key that may have signed a statement: a network's, a device's, a
    /// delegated key or an invite key.
    SignerId, to_z_base_32, from_z_base_32
}

public_bytes! {
    /// The X25519 static key of a device's WireGuard tunnels, in the base64 that `wg` prints.
    TunnelPublicKey, to_base64, from_base64
}

public_bytes! {
    /// The X25519 static key of a device's or controller's Noise channels.
    ChannelPublicKey, to_base64, from_base64
}

public_bytes! {
    /// SHA-256 over the bytes of a signed statement: names exactly that statement.
    StatementHash, to_z_base_32, from_z_base_32
}

impl StatementHash {
    /// What the first entry of a hash chain has in place of a predecessor.
    pub const NONE: Self = Self([0; 32]);
}

impl From<NetworkId> for SignerId {
    fn from(network: NetworkId) -> Self {
        Self(network.0)
    }
}

impl From<DeviceId> for SignerId {
    fn from(device: DeviceId) -> Self {
        Self(device.0)
    }
}

/// The number of a membership: unique within a network, given by the issuer, rising with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Serial(pub u64);

impl std::fmt::Display for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

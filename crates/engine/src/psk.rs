//! The preshared key of two devices.
//!
//! It is never empty: it binds the tunnel to the network, to both identities and to both
//! capability versions, so that a tunnel key in the wrong hands, or a carrier that hides a
//! capability, breaks the handshake instead of weakening it.

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use identity::{DeviceId, NetworkId, TunnelPublicKey};
use wireguard_proto::PresharedKey;

const LABEL: &[u8] = b"shadowmesh/preshared-key/v1";

/// What one end contributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    pub(crate) device: DeviceId,
    pub(crate) tunnel_key: TunnelPublicKey,
    pub(crate) capability: u32,
}

/// The key that both ends derive, in whatever order they are named.
pub(crate) fn preshared_key(network: NetworkId, one: End, other: End) -> PresharedKey {
    let no_post_quantum_secret = [0; 32];
    let mut kdf = Blake2sMac256::new(&no_post_quantum_secret.into());
    kdf.update(LABEL);
    kdf.update(network.as_bytes());
    for end in [one.min(other), one.max(other)] {
        kdf.update(end.device.as_bytes());
        kdf.update(end.tunnel_key.as_bytes());
        kdf.update(&end.capability.to_be_bytes());
    }
    PresharedKey::from_bytes(kdf.finalize_fixed().into())
}

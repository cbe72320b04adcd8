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

#[cfg(test)]
mod tests {
    use super::*;

    fn end(device: u8, tunnel_key: u8, capability: u32) -> End {
        End {
            device: DeviceId::from_bytes([device; 32]),
            tunnel_key: TunnelPublicKey::from_bytes([tunnel_key; 32]),
            capability,
        }
    }

    fn key(network: u8, one: End, other: End) -> [u8; 32] {
        *preshared_key(NetworkId::from_bytes([network; 32]), one, other).as_bytes()
    }

    /// Computed apart from this code, with the `blake2s` of Python's `hashlib`.
    #[test]
    fn the_key_is_what_it_always_was_in_whatever_order_the_ends_are_named() {
        let expected = "7543e82b30f621f22f8c5f02a29f4bb5d45632ed6d8e2a2a2f9f9a6bd9a68a92";
        let (one, other) = (end(2, 3, 4), end(5, 6, 7));
        for key in [key(1, one, other), key(1, other, one)] {
            let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected);
        }
    }

    #[test]
    fn the_key_depends_on_everything_that_it_binds() {
        let other = end(5, 6, 7);
        let usual = key(1, end(2, 3, 4), other);
        assert_ne!(usual, key(9, end(2, 3, 4), other), "the network");
        assert_ne!(usual, key(1, end(1, 3, 4), other), "the device, in the same order");
        assert_ne!(usual, key(1, end(2, 9, 4), other), "the tunnel key");
        assert_ne!(usual, key(1, end(2, 3, 9), other), "the capability");
    }
}

//! Secret keys: wiped when dropped, never shown.

use ed25519_dalek::Signer as _;
use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::{ChannelPublicKey, DeviceId, NetworkId, SignerId, TunnelPublicKey};

mod sealed {
    /// Signing raw bytes stays inside this crate, so that no other protocol shares these keys.
    pub trait Sign {
        fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64];
    }
}

/// A secret key that signs statements; see [`Signed::sign`](crate::Signed::sign).
pub trait Signer: sealed::Sign {
    /// The public half, under which statements verify.
    fn signer_id(&self) -> SignerId;
}

pub(crate) fn sign_bytes(key: &impl Signer, bytes: &[u8]) -> [u8; 64] {
    key.sign_bytes(bytes)
}

macro_rules! signing_key {
    ($(#[$docs:meta])* $name:ident, $id:ident) => {
        $(#[$docs])*
        #[derive(Clone)]
        pub struct $name(ed25519_dalek::SigningKey);

        impl $name {
            /// Makes a new key.
            pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                let mut seed = Zeroizing::new([0; 32]);
                rng.fill_bytes(seed.as_mut_slice());
                Self::from_bytes(&seed)
            }

            /// Restores a key from its 32-byte seed (RFC 8032).
            #[must_use]
            pub fn from_bytes(seed: &[u8; 32]) -> Self {
                Self(ed25519_dalek::SigningKey::from_bytes(seed))
            }

            /// The seed, for the keystore and for backups.
            #[must_use]
            pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
                Zeroizing::new(self.0.to_bytes())
            }

            /// The public half.
            #[must_use]
            pub fn id(&self) -> $id {
                $id::from_bytes(self.0.verifying_key().to_bytes())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "(secret of {})"), self.id())
            }
        }

        impl sealed::Sign for $name {
            fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
                self.0.sign(bytes).to_bytes()
            }
        }

        impl Signer for $name {
            fn signer_id(&self) -> SignerId {
                SignerId::from_bytes(*self.id().as_bytes())
            }
        }
    };
}

signing_key! {
    /// The root of a network. It signs delegations and epochs, and can stay offline otherwise.
    NetworkKey, NetworkId
}

signing_key! {
    /// A device's identity.
    DeviceKey, DeviceId
}

signing_key! {
    /// The one-time key inside an invite, with which a device certifies itself.
    InviteKey, SignerId
}

signing_key! {
    /// A key that the network's root has given one [`Scope`](crate::Scope).
    DelegatedKey, SignerId
}

macro_rules! agreement_key {
    ($(#[$docs:meta])* $name:ident, $public:ident) => {
        $(#[$docs])*
        #[derive(Clone)]
        pub struct $name(StaticSecret);

        impl $name {
            /// Makes a new key.
            pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                let mut secret = Zeroizing::new([0; 32]);
                rng.fill_bytes(secret.as_mut_slice());
                Self::from_bytes(&secret)
            }

            /// Restores a key from its 32 bytes (RFC 7748); clamping happens at use.
            #[must_use]
            pub fn from_bytes(secret: &[u8; 32]) -> Self {
                Self(StaticSecret::from(*secret))
            }

            /// The secret bytes, for the keystore and for the protocol that uses the key.
            #[must_use]
            pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
                Zeroizing::new(self.0.to_bytes())
            }

            /// The public half.
            #[must_use]
            pub fn public(&self) -> $public {
                $public::from_bytes(x25519_dalek::PublicKey::from(&self.0).to_bytes())
            }

            /// The X25519 shared secret with `theirs`; nothing if `theirs` is of low order.
            #[must_use]
            pub fn agree(&self, theirs: &$public) -> Option<Zeroizing<[u8; 32]>> {
                let theirs = x25519_dalek::PublicKey::from(*theirs.as_bytes());
                let shared = self.0.diffie_hellman(&theirs);
                shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "(secret of {})"), self.public())
            }
        }
    };
}

agreement_key! {
    /// A device's WireGuard static key.
    TunnelKey, TunnelPublicKey
}

agreement_key! {
    /// A device's or controller's Noise static key.
    ChannelKey, ChannelPublicKey
}

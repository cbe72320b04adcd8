//! The secrets of a controller, as its keystore holds them.

use control_proto::{AuthorityKeys, KeyMismatch, Mode};
use identity::{
    ChannelKey, DelegatedKey, Delegation, Epoch, NetworkId, NetworkKey, PathSecretBytes, Scope,
    Signed, UnixTime, Validity,
};
use keystore::{Keystore, KeystoreError};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// The name of the controller's secrets in its keystore.
const NAME: &str = "controller";

/// A delegation outlives many certificates: replacing one takes the network's key out of its drawer.
const DELEGATION_VALIDITY: u64 = 10 * 365 * 86_400;

/// Everything secret that a controller needs to run.
#[derive(Debug, Clone)]
pub struct ControllerSecrets {
    /// The keys by which it signs for the network.
    pub keys: AuthorityKeys,
    /// Its Noise static key.
    pub channel: ChannelKey,
    /// With which the paths of the network's servers are made.
    pub path_secret: PathSecretBytes,
    /// The private key of its self-signed certificate (PKCS #8).
    pub tls_key: Zeroizing<Vec<u8>>,
    /// The epoch that the root began last; none before the first restored backup.
    pub epoch: Option<Signed<Epoch>>,
}

/// Why a controller's secrets cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretsError {
    /// The keystore fails.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// What is stored does not decode.
    #[error("the controller's secrets make no sense; restore a backup")]
    Malformed,
    /// A stored key does not fit its delegation.
    #[error(transparent)]
    Mismatch(#[from] KeyMismatch),
}

impl ControllerSecrets {
    /// Makes the secrets of a new network's controller, with a key for each scope of its mode, delegated by the root.
    pub fn generate(root: &NetworkKey, mode: Mode, rng: &mut dyn CryptoRng, now: UnixTime) -> Self {
        let network = root.id();
        let mut keys = AuthorityKeys::new(network);
        let scopes = match mode {
            Mode::Simple => Scope::ALL.as_slice(),
            Mode::Strict => &[Scope::Renew, Scope::Revoke],
        };
        for scope in scopes.iter().copied() {
            let key = DelegatedKey::generate(rng);
            let validity = Validity::starting(now, DELEGATION_VALIDITY);
            let delegation =
                Delegation { network, key: key.id(), scope, validity, limits: Default::default() };
            let signed = Signed::sign(network, root, &delegation);
            keys.add(scope, key, signed)
                .expect("the root has just delegated this scope to this key");
        }
        let mut path_secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(path_secret.as_mut_slice());
        Self {
            keys,
            channel: ChannelKey::generate(rng),
            path_secret: PathSecretBytes(path_secret),
            tls_key: websocket::generate_key(),
            epoch: None,
        }
    }

    /// Reads the secrets, nothing if there is no network here.
    ///
    /// # Errors
    /// If the keystore fails or what it holds makes no sense.
    pub fn load(keystore: &dyn Keystore) -> Result<Option<Self>, SecretsError> {
        keystore.load(NAME)?.map(|bytes| Self::from_bytes(&bytes)).transpose()
    }

    /// Keeps the secrets; they are durable on return.
    ///
    /// # Errors
    /// If the keystore fails.
    pub fn store(&self, keystore: &dyn Keystore) -> Result<(), SecretsError> {
        Ok(keystore.store(NAME, &self.to_bytes())?)
    }

    /// The secrets as bytes, for a sealed backup.
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let kept = Kept {
            network: self.keys.network(),
            keys: self
                .keys
                .iter()
                .map(|(_, (key, delegation))| KeptKey {
                    seed: *key.to_bytes(),
                    delegation: delegation.clone(),
                })
                .collect(),
            channel: *self.channel.to_bytes(),
            path_secret: self.path_secret.clone(),
            tls_key: self.tls_key.to_vec(),
            epoch: self.epoch.clone(),
        };
        Zeroizing::new(minicbor::to_vec(kept).expect("writing to memory cannot fail"))
    }

    /// The secrets from a sealed backup.
    ///
    /// # Errors
    /// If the bytes make no sense.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, SecretsError> {
        let kept: Kept = minicbor::decode(bytes).map_err(|_| SecretsError::Malformed)?;
        let mut keys = AuthorityKeys::new(kept.network);
        for key in &kept.keys {
            let scope = key
                .delegation
                .verify_root(kept.network)
                .map_err(|_| SecretsError::Malformed)?
                .scope;
            keys.add(scope, DelegatedKey::from_bytes(&key.seed), key.delegation.clone())?;
        }
        Ok(Self {
            keys,
            channel: ChannelKey::from_bytes(&kept.channel),
            path_secret: kept.path_secret.clone(),
            tls_key: Zeroizing::new(kept.tls_key.clone()),
            epoch: kept.epoch.clone(),
        })
    }
}

/// The stored form, wiped when dropped.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Kept {
    #[n(0)]
    network: NetworkId,
    #[n(1)]
    keys: Vec<KeptKey>,
    #[cbor(n(2), with = "minicbor::bytes")]
    channel: [u8; 32],
    #[n(3)]
    path_secret: PathSecretBytes,
    #[cbor(n(4), with = "minicbor::bytes")]
    tls_key: Vec<u8>,
    #[n(5)]
    epoch: Option<Signed<Epoch>>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct KeptKey {
    #[cbor(n(0), with = "minicbor::bytes")]
    seed: [u8; 32],
    #[n(1)]
    delegation: Signed<Delegation>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.channel);
        zeroize::Zeroize::zeroize(&mut self.tls_key);
    }
}

impl Drop for KeptKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.seed);
    }
}

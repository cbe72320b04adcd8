//! What the node keeps in its keystore.
//!
//! `network-ID` holds a device's keys and the invite of one network, written once before anything is
//! sent; `state-ID` and `map-ID` hold what the engine wants to remember, each replaced as a whole; `port-ID` holds
//! the UDP port of the last run, and `winners-ID` by what others were reached from each local network.

use std::fmt;

use engine::{DeviceSecrets, SavedState, StatePart};
use identity::{ChannelKey, DeviceKey, DeviceName, Invite, NetworkId, TunnelKey};
use keystore::{Keystore, KeystoreError};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use tracing::warn;
use zeroize::{Zeroize, Zeroizing};

const NETWORK_PREFIX: &str = "network-";
const STATE_PREFIX: &str = "state-";
const MAP_PREFIX: &str = "map-";
const PORT_PREFIX: &str = "port-";
const WINNERS_PREFIX: &str = "winners-";

/// A device's place in one network.
pub(crate) struct Place {
    pub(crate) invite: Invite,
    pub(crate) name: DeviceName,
    pub(crate) secrets: DeviceSecrets,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("network", &self.invite.network).finish_non_exhaustive()
    }
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Record {
    #[n(0)]
    invite: Invite,
    #[n(1)]
    name: String,
    #[cbor(n(2), with = "minicbor::bytes")]
    device: [u8; 32],
    #[cbor(n(3), with = "minicbor::bytes")]
    tunnel: [u8; 32],
    #[cbor(n(4), with = "minicbor::bytes")]
    channel: [u8; 32],
}

impl Drop for Record {
    fn drop(&mut self) {
        self.device.zeroize();
        self.tunnel.zeroize();
        self.channel.zeroize();
    }
}

impl Place {
    /// A new place with fresh keys.
    pub(crate) fn new(invite: Invite, name: DeviceName, rng: &mut impl CryptoRng) -> Self {
        let secrets = DeviceSecrets {
            device: DeviceKey::generate(rng),
            tunnel: TunnelKey::generate(rng),
            channel: ChannelKey::generate(rng),
        };
        Self { invite, name, secrets }
    }

    pub(crate) fn network(&self) -> NetworkId {
        self.invite.network
    }

    /// Keeps the place; it is durable on return.
    pub(crate) fn store(&self, keys: &dyn Keystore) -> Result<(), MemoryError> {
        let record = Record {
            invite: self.invite.clone(),
            name: self.name.to_string(),
            device: *self.secrets.device.to_bytes(),
            tunnel: *self.secrets.tunnel.to_bytes(),
            channel: *self.secrets.channel.to_bytes(),
        };
        let bytes =
            Zeroizing::new(minicbor::to_vec(&record).expect("writing to memory cannot fail"));
        Ok(keys.store(&secret_name(NETWORK_PREFIX, self.network()), &bytes)?)
    }

    fn load(keys: &dyn Keystore, secret: &str) -> Result<Self, MemoryError> {
        let damaged = || MemoryError::Damaged(secret.to_owned());
        let bytes = keys.load(secret)?.ok_or_else(damaged)?;
        let record: Record = minicbor::decode(&bytes).map_err(|_| damaged())?;
        Ok(Self {
            invite: record.invite.clone(),
            name: record.name.parse().map_err(|_| damaged())?,
            secrets: DeviceSecrets {
                device: DeviceKey::from_bytes(&record.device),
                tunnel: TunnelKey::from_bytes(&record.tunnel),
                channel: ChannelKey::from_bytes(&record.channel),
            },
        })
    }
}

/// All places that are kept.
pub(crate) fn places(keys: &dyn Keystore) -> Result<Vec<Place>, MemoryError> {
    let names = keys.list()?;
    let places = names.iter().filter(|name| name.starts_with(NETWORK_PREFIX));
    places.map(|name| Place::load(keys, name)).collect()
}

/// What the engine of a network wanted to remember.
pub(crate) fn load_state(
    keys: &dyn Keystore,
    network: NetworkId,
) -> Result<SavedState, MemoryError> {
    let load = |part| {
        let found = keys.load(&state_name(part, network));
        found.map(|found| found.map(|bytes| bytes.to_vec()))
    };
    let map = load(StatePart::Map).unwrap_or_else(|error| {
        warn!(%network, %error, "the map that was kept cannot be read; the controller has another");
        None
    });
    Ok(SavedState { own: load(StatePart::Own)?, map })
}

/// Remembers for the engine of a network; it is durable on return.
pub(crate) fn store_state(
    keys: &dyn Keystore,
    network: NetworkId,
    part: StatePart,
    bytes: &[u8],
) -> Result<(), MemoryError> {
    Ok(keys.store(&state_name(part, network), bytes)?)
}

/// The UDP port of the last run.
pub(crate) fn load_port(keys: &dyn Keystore, network: NetworkId) -> Option<u16> {
    let bytes = keys.load(&secret_name(PORT_PREFIX, network)).ok()??;
    Some(u16::from_be_bytes(bytes.as_slice().try_into().ok()?))
}

/// Remembers a UDP port for the next run.
pub(crate) fn store_port(
    keys: &dyn Keystore,
    network: NetworkId,
    port: u16,
) -> Result<(), MemoryError> {
    Ok(keys.store(&secret_name(PORT_PREFIX, network), &port.to_be_bytes())?)
}

/// By what others were reached in earlier runs.
pub(crate) fn load_winners(keys: &dyn Keystore, network: NetworkId) -> Option<Vec<u8>> {
    Some(keys.load(&secret_name(WINNERS_PREFIX, network)).ok()??.to_vec())
}

/// Remembers by what others were reached.
pub(crate) fn store_winners(
    keys: &dyn Keystore,
    network: NetworkId,
    bytes: &[u8],
) -> Result<(), MemoryError> {
    Ok(keys.store(&secret_name(WINNERS_PREFIX, network), bytes)?)
}

/// Forgets a place and everything about it.
pub(crate) fn forget(keys: &dyn Keystore, network: NetworkId) -> Result<(), MemoryError> {
    keys.remove(&secret_name(NETWORK_PREFIX, network))?;
    keys.remove(&secret_name(PORT_PREFIX, network))?;
    keys.remove(&secret_name(WINNERS_PREFIX, network))?;
    keys.remove(&secret_name(MAP_PREFIX, network))?;
    Ok(keys.remove(&secret_name(STATE_PREFIX, network))?)
}

fn state_name(part: StatePart, network: NetworkId) -> String {
    let prefix = match part {
        StatePart::Own => STATE_PREFIX,
        StatePart::Map => MAP_PREFIX,
    };
    secret_name(prefix, network)
}

fn secret_name(prefix: &str, network: NetworkId) -> String {
    format!("{prefix}{network}")
}

/// Why the keystore did not give or take what the node keeps there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    #[error("the keystore's entry {0} is damaged; remove it and join again with a new invite")]
    Damaged(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_proto::{InviteRequest, Outline, Owner};
    use identity::{NetworkKey, PathSecretBytes, UnixTime};
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    /// A keystore with one entry, which may be damaged.
    #[derive(Debug)]
    struct Entry(Vec<u8>);

    impl Keystore for Entry {
        fn load(&self, _: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeystoreError> {
            Ok(Some(Zeroizing::new(self.0.clone())))
        }

        fn store(&self, _: &str, secret: &[u8]) -> Result<(), KeystoreError> {
            assert_eq!(secret, self.0, "the same place is the same entry");
            Ok(())
        }

        fn remove(&self, _: &str) -> Result<(), KeystoreError> {
            Ok(())
        }

        fn list(&self) -> Result<Vec<String>, KeystoreError> {
            Ok(vec![NETWORK_PREFIX.to_owned()])
        }
    }

    fn invite(rng: &mut ChaCha20Rng) -> Invite {
        let root = NetworkKey::generate(rng);
        let outline = Outline {
            network: root.id(),
            network_name: "home".parse().expect("a name"),
            controllers: Vec::new(),
            controller_key: ChannelKey::generate(rng).public(),
            path_secret: PathSecretBytes(Zeroizing::new([7; 32])),
            relays: Vec::new(),
            ula: "fd00:1:2::/48".parse().expect("a prefix"),
            approval: false,
            validity: 3_600,
        };
        let invites = Owner::new(root).invites(
            &outline,
            &InviteRequest::default(),
            rng,
            UnixTime(1_800_000_000),
        );
        invites.expect("within the bounds").remove(0).0
    }

    #[test]
    fn a_damaged_place_is_refused_or_another_one_and_never_a_panic() {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let place = Place::new(invite(rng), "laptop".parse().expect("a name"), rng);
        let folder = tempfile::tempdir().expect("a folder");
        let keys = keystore::FileKeystore::open(folder.path(), None).expect("it opens");
        place.store(&keys).expect("it writes");
        let name = secret_name(NETWORK_PREFIX, place.network());
        let whole = keys.load(&name).expect("it reads").expect("it is there").to_vec();
        for at in 0..whole.len() {
            assert!(places(&Entry(whole[..at].to_vec())).is_err(), "cut to {at} bytes");
            for change in [1, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= change;
                let entry = Entry(changed);
                for place in places(&entry).unwrap_or_default() {
                    place.store(&entry).expect("this keystore takes anything");
                }
            }
        }
    }
}

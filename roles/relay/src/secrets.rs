//! What a relay that is a member keeps between runs.

use control_proto::limits::CAPABILITY;
use control_proto::{ClockOffset, ControllerAddress, NetworkMap};
use identity::{
    Binding, CertificateChain, ChannelKey, ChannelPublicKey, DeviceKey, Invite, NetworkId,
    ServerAddress, Signed, TunnelKey, UnixTime,
};
use keystore::{Keystore, KeystoreError};
use minicbor::{Decode, Encode};
use noise_channel::{PathSecret, UnixMillis};
use tracing::warn;
use zeroize::Zeroizing;

use crate::clock;

const PREFIX: &str = "relay.";
const KEYS: &str = "keys";
const CHAIN: &str = "chain";
const MAP: &str = "map";
const CLOCK: &str = "clock";
const BINDING: &str = "binding";

/// A binding counts for a year, and is replaced when half of that is over.
const BINDING_VALIDITY: u64 = 365 * 24 * 3600;

/// The keys of one network and where its controller is.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Stored {
    #[cbor(n(0), with = "minicbor::bytes")]
    device: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    channel: [u8; 32],
    #[n(2)]
    servers: Vec<ServerAddress>,
    #[n(3)]
    controller_key: ChannelPublicKey,
    #[cbor(n(4), with = "minicbor::bytes")]
    path_secret: [u8; 32],
    #[n(5)]
    follows_records: bool,
}

/// A relay's identity in one network.
pub(crate) struct Secrets {
    pub(crate) network: NetworkId,
    pub(crate) device: DeviceKey,
    pub(crate) channel: ChannelKey,
    pub(crate) controller: ControllerAddress,
}

impl Secrets {
    /// The networks of which something is kept.
    pub(crate) fn networks(keystore: &dyn Keystore) -> Result<Vec<NetworkId>, KeystoreError> {
        let names = keystore.list()?;
        let networks = names.iter().filter_map(|name| {
            name.strip_prefix(PREFIX)?.strip_suffix(KEYS)?.strip_suffix('.')?.parse().ok()
        });
        Ok(networks.collect())
    }

    /// Makes and keeps an identity for the network of an invite.
    pub(crate) fn create(invite: &Invite, keystore: &dyn Keystore) -> Result<Self, KeystoreError> {
        let mut rng = clock::rng();
        let secrets = Self {
            network: invite.network,
            device: DeviceKey::generate(&mut rng),
            channel: ChannelKey::generate(&mut rng),
            controller: ControllerAddress::from(invite),
        };
        let stored = Stored {
            device: *secrets.device.to_bytes(),
            channel: *secrets.channel.to_bytes(),
            servers: secrets.controller.servers.clone(),
            controller_key: secrets.controller.channel_key,
            path_secret: *secrets.controller.path_secret.as_bytes(),
            follows_records: secrets.controller.follows_records,
        };
        let bytes = minicbor::to_vec(&stored).expect("writing to memory cannot fail");
        keystore.store(&name(secrets.network, KEYS), &Zeroizing::new(bytes))?;
        Ok(secrets)
    }

    /// The identity that is kept, if it can be read.
    pub(crate) fn load(
        network: NetworkId,
        keystore: &dyn Keystore,
    ) -> Result<Option<Self>, KeystoreError> {
        let Some(bytes) = keystore.load(&name(network, KEYS))? else { return Ok(None) };
        let Ok(stored) = minicbor::decode::<Stored>(&bytes) else { return Ok(None) };
        Ok(Some(Self {
            network,
            device: DeviceKey::from_bytes(&stored.device),
            channel: ChannelKey::from_bytes(&stored.channel),
            controller: ControllerAddress {
                network,
                servers: stored.servers,
                channel_key: stored.controller_key,
                path_secret: PathSecret::from_bytes(stored.path_secret),
                follows_records: stored.follows_records,
            },
        }))
    }

    /// Announces the channel key: as it was announced before, or anew if that is half over or was
    /// said by a clock that was wrong, or by a number that is not above `above`. A relay has no tunnels, so its
    /// tunnel key is made and forgotten.
    pub(crate) fn binding(
        &self,
        keystore: &dyn Keystore,
        wall: UnixMillis,
        above: u64,
    ) -> Result<Signed<Binding>, KeystoreError> {
        let kept = keystore.load(&name(self.network, BINDING))?.and_then(|bytes| {
            let signed = Signed::<Binding>::from_bytes(bytes.as_slice()).ok()?;
            let binding = signed.verify(self.network, self.device.id()).ok()?;
            Some((signed, binding))
        });
        let now = UnixTime(wall.as_secs());
        let longest = now.plus(BINDING_VALIDITY);
        let fits = now.plus(BINDING_VALIDITY / 2)..=longest;
        let last = match kept {
            Some((signed, binding))
                if fits.contains(&binding.not_after)
                    && binding.number > above
                    && binding.capability == u32::from(CAPABILITY) =>
            {
                return Ok(signed);
            }
            Some((_, binding)) => binding.number.max(above),
            None => above,
        };
        let binding = Binding {
            device: self.device.id(),
            tunnel_key: TunnelKey::generate(&mut clock::rng()).public(),
            channel_key: self.channel.public(),
            // Above all before it, also where the clock went back or the keystore lost it.
            number: wall.0.max(last.saturating_add(1)),
            not_after: longest,
            capability: CAPABILITY.into(),
        };
        let signed = Signed::sign(self.network, &self.device, &binding);
        // The next run then makes another one, whose number is higher as long as its clock is not set back.
        if let Err(error) = keystore.store(&name(self.network, BINDING), signed.as_bytes()) {
            warn!(%error, "the announcement of the relay's key cannot be kept");
        }
        Ok(signed)
    }

    pub(crate) fn chain(
        &self,
        keystore: &dyn Keystore,
    ) -> Result<Option<CertificateChain>, KeystoreError> {
        let bytes = keystore.load(&name(self.network, CHAIN))?;
        Ok(bytes.and_then(|bytes| CertificateChain::from_bytes(&bytes).ok()))
    }

    /// What the network taught about the local clock in an earlier run.
    pub(crate) fn clock_offset(
        &self,
        keystore: &dyn Keystore,
    ) -> Result<ClockOffset, KeystoreError> {
        let bytes = keystore.load(&name(self.network, CLOCK))?;
        let kept = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
        Ok(ClockOffset(kept.map_or(0, i64::from_be_bytes)))
    }

    /// The membership and the clock's offset as they are to be kept, by name.
    pub(crate) fn small_entries(
        &self,
        chain: Option<&CertificateChain>,
        offset: ClockOffset,
    ) -> Vec<(String, Vec<u8>)> {
        let chain = chain.map(|chain| (name(self.network, CHAIN), chain.to_bytes()));
        let clock = (name(self.network, CLOCK), offset.0.to_be_bytes().to_vec());
        chain.into_iter().chain([clock]).collect()
    }

    /// The map that is kept, as far as it counts `now`, or an empty one.
    pub(crate) fn map(
        &self,
        keystore: &dyn Keystore,
        now: UnixTime,
    ) -> Result<NetworkMap, KeystoreError> {
        let bytes = keystore.load(&self.map_name())?;
        let map = bytes.and_then(|bytes| NetworkMap::from_bytes(self.network, &bytes, now).ok());
        Ok(map.map_or_else(|| NetworkMap::new(self.network), |(map, _)| map))
    }

    /// Under which name the map is kept.
    pub(crate) fn map_name(&self) -> String {
        name(self.network, MAP)
    }

    /// Forgets everything: the relay is no member any more.
    pub(crate) fn forget(&self, keystore: &dyn Keystore) -> Result<(), KeystoreError> {
        [CHAIN, MAP, CLOCK, BINDING, KEYS]
            .into_iter()
            .try_for_each(|what| keystore.remove(&name(self.network, what)))
    }
}

fn name(network: NetworkId, what: &str) -> String {
    format!("{PREFIX}{network}.{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let mut rng = clock::rng();
        Secrets {
            network: identity::NetworkKey::generate(&mut rng).id(),
            device: DeviceKey::generate(&mut rng),
            channel: ChannelKey::generate(&mut rng),
            controller: ControllerAddress {
                network: NetworkId::from_bytes([7; 32]),
                servers: Vec::new(),
                channel_key: ChannelKey::generate(&mut rng).public(),
                path_secret: PathSecret::from_bytes([7; 32]),
                follows_records: true,
            },
        }
    }

    #[test]
    fn a_binding_is_kept_and_its_successors_number_rises_whatever_the_clock_says() {
        const START: u64 = 1_800_000_000_000;
        const DAY: u64 = 24 * 3_600_000;
        let folder = tempfile::tempdir().expect("a folder");
        let keystore = keystore::FileKeystore::open(folder.path(), None).expect("it opens");
        let secrets = secrets();
        let binding = |wall| secrets.binding(&keystore, UnixMillis(wall), 0).expect("it is kept");
        let read = |signed: &Signed<Binding>| {
            signed.verify(secrets.network, secrets.device.id()).expect("our own")
        };
        let first = binding(START);
        assert_eq!(first, binding(START), "two starts at one moment say the same");
        assert_eq!(first, binding(START + 100 * DAY));
        let (late, early) = (binding(START + 200 * DAY), binding(START - 300 * DAY));
        assert_eq!(early, binding(START - 300 * DAY));
        assert_eq!(read(&early).not_after, UnixTime((START + 65 * DAY) / 1_000));
        assert!(read(&first).number < read(&late).number);
        assert!(read(&late).number < read(&early).number);
    }

    #[test]
    fn the_learnt_clock_offset_is_kept_and_goes_with_the_membership() {
        let folder = tempfile::tempdir().expect("a folder");
        let keystore = keystore::FileKeystore::open(folder.path(), None).expect("it opens");
        let secrets = secrets();
        let kept = || secrets.clock_offset(&keystore).expect("it reads");
        assert_eq!(kept(), ClockOffset(0));
        for (name, bytes) in secrets.small_entries(None, ClockOffset(-7_200_000)) {
            keystore.store(&name, &bytes).expect("it writes");
        }
        assert_eq!(kept(), ClockOffset(-7_200_000));
        secrets.forget(&keystore).expect("it writes");
        assert_eq!(kept(), ClockOffset(0));
    }

    #[test]
    fn damaged_keys_are_none_or_others_and_never_a_panic() {
        let folder = tempfile::tempdir().expect("a folder");
        let keystore = keystore::FileKeystore::open(folder.path(), None).expect("it opens");
        let (network, path_secret) = (NetworkId::from_bytes([7; 32]), [3; 32]);
        let controller_key = secrets().controller.channel_key;
        let server = ServerAddress {
            host: "relay.example".to_owned(),
            port: 443,
            addresses: Vec::new(),
            tls: identity::TlsMode::Pin([6; 32]),
        };
        let stored = Stored {
            device: [1; 32],
            channel: [2; 32],
            servers: vec![server],
            controller_key,
            path_secret,
            follows_records: true,
        };
        let whole = minicbor::to_vec(&stored).expect("writing to memory cannot fail");
        let load = |bytes: &[u8]| {
            std::fs::write(folder.path().join(name(network, KEYS)), bytes).expect("it writes");
            Secrets::load(network, &keystore).expect("it reads").is_some()
        };
        assert!(load(&whole));
        for at in 0..whole.len() {
            assert!(!load(&whole[..at]), "cut to {at} bytes");
            let mut changed = whole.clone();
            changed[at] ^= 0x80;
            load(&changed);
        }
    }
}

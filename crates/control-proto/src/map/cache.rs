//! The map on disk, with which a node starts while every controller is dead.

use identity::{NetworkId, RecordFloors, UnixTime};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::floors::{DeviceFloors, Floors};
use super::{Applied, NetworkMap};
use crate::limits::MAX_MAP;
use crate::{MapChunk, MapVersion};

const FORMAT: u8 = 1;

#[derive(Encode, Decode)]
#[cbor(array)]
struct Cached {
    #[n(0)]
    format: u8,
    #[n(1)]
    network: NetworkId,
    #[n(2)]
    version: Option<MapVersion>,
    #[n(3)]
    floors: RecordFloors,
    #[n(4)]
    items: Vec<ByteVec>,
    #[cbor(n(5), default)]
    devices: DeviceFloors,
}

/// Bytes that are no map of this network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// Damaged, or of a later version.
    #[error("the cached map cannot be read; remove it, and the controller sends a new one")]
    Unreadable,
    /// Of another network.
    #[error("the cached map belongs to network {0}")]
    WrongNetwork(NetworkId),
}

impl NetworkMap {
    /// The map as bytes, with the newest versions seen, so that a restart lets no old state in.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let cached = Cached {
            format: FORMAT,
            network: self.network,
            version: self.version,
            floors: self.floors.records.clone(),
            items: self.raw.items.values().map(|bytes| bytes.to_vec().into()).collect(),
            devices: self.floors.devices.clone(),
        };
        minicbor::to_vec(&cached).expect("writing to memory cannot fail")
    }

    /// The map from bytes; every item is verified again, and what does not count any more is left
    /// out and reported.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn from_bytes(
        network: NetworkId,
        bytes: &[u8],
        now: UnixTime,
    ) -> Result<(Self, Applied), CacheError> {
        if bytes.len() > MAX_MAP {
            return Err(CacheError::Unreadable);
        }
        let cached: Cached = minicbor::decode(bytes).map_err(|_| CacheError::Unreadable)?;
        if cached.format != FORMAT {
            return Err(CacheError::Unreadable);
        }
        if cached.network != network {
            return Err(CacheError::WrongNetwork(cached.network));
        }
        let mut map = Self::new(network);
        map.floors = Floors { records: cached.floors, devices: cached.devices };
        let version = cached.version.unwrap_or_default();
        let chunk = MapChunk { base: None, version, items: cached.items, last: true };
        let applied = map.apply(&chunk, now);
        map.version = cached.version;
        Ok((map, applied))
    }
}

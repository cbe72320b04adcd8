//! What a node knows about its network.

mod apply;
mod cache;
mod floors;
mod gossip;
mod item;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use identity::{
    Authorities, Binding, ControllerEntry, DeviceId, DeviceName, Endpoints, Member, NameEntry,
    NetworkId, NetworkInfo, RelayEntry, Revocations, SignerId, StaticPeer, TunnelPublicKey,
    UnixTime,
};

use self::floors::Floors;
use crate::{MapVersion, SecurityEvent};

pub(crate) use apply::chain_event;
pub use cache::CacheError;
pub use gossip::Gossip;
pub use item::{ItemKey, MapItem, PeerEntry, RelayHealth};

/// The verified map of one network.
///
/// Every item in it proves itself against the [`NetworkId`], so it does not matter who delivered
/// it: the controller, another node, or a file. What does not verify, is older than what was seen,
/// or is revoked is left out and reported. The device itself is among the peers if the controller
/// has said so.
#[derive(Debug, Clone)]
pub struct NetworkMap {
    network: NetworkId,
    version: Option<MapVersion>,
    authorities: Authorities,
    revocations: Revocations,
    floors: Floors,
    peers: BTreeMap<DeviceId, Peer>,
    leases: BTreeMap<DeviceId, Ipv4Addr>,
    relays: BTreeMap<DeviceId, RelayEntry>,
    /// Of relays that are not as one would think of a new one.
    health: BTreeMap<DeviceId, RelayHealth>,
    names: BTreeMap<String, NameEntry>,
    statics: BTreeMap<TunnelPublicKey, StaticPeer>,
    controllers: BTreeMap<ItemKey, ControllerEntry>,
    info: Option<NetworkInfo>,
    owners: Owners,
    raw: Raw,
}

/// The bytes of the accepted items, and those seen of a whole map that is under way.
#[derive(Debug, Clone, Default)]
struct Raw {
    items: BTreeMap<ItemKey, Box<[u8]>>,
    underway: Option<BTreeSet<ItemKey>>,
}

/// Who has what only one member can have.
#[derive(Debug, Clone, Default)]
struct Owners {
    names: BTreeMap<DeviceName, DeviceId>,
    addresses: BTreeMap<Ipv6Addr, DeviceId>,
    invites: BTreeMap<SignerId, DeviceId>,
    tunnels: BTreeMap<TunnelPublicKey, DeviceId>,
}

/// A member whose chain, keys and endpoints were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The membership.
    pub member: Member,
    /// Its keys.
    pub binding: Binding,
    /// Where it is reached.
    pub endpoints: Option<Endpoints>,
    /// The proofs, to pass on.
    pub entry: PeerEntry,
}

/// What a change of the map touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapChanges {
    /// Peers that came, changed or went.
    pub peers: BTreeSet<DeviceId>,
    /// Devices that were revoked just now.
    pub revoked: BTreeSet<DeviceId>,
    /// Whether it is known of further keys or epochs whether they count, or count no more.
    pub trust: bool,
    /// Whether relays or their health changed.
    pub relays: bool,
    /// Whether the network's settings or its controllers changed.
    pub info: bool,
    /// Whether names beside those of devices, or static peers, changed.
    pub records: bool,
}

impl MapChanges {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what `other` touched.
    pub fn merge(&mut self, other: Self) {
        self.peers.extend(other.peers);
        self.revoked.extend(other.revoked);
        self.trust |= other.trust;
        self.relays |= other.relays;
        self.info |= other.info;
        self.records |= other.records;
    }
}

/// What applying a chunk came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Applied {
    /// What changed.
    pub changes: MapChanges,
    /// What was left out, and why.
    pub events: Vec<SecurityEvent>,
    /// The chunk does not fit the version that is here: ask for the whole map.
    pub needs_resync: bool,
}

impl NetworkMap {
    /// The map of somebody who knows nothing yet.
    #[must_use]
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            version: None,
            authorities: Authorities::new(network),
            revocations: Revocations::new(network),
            floors: Floors::default(),
            peers: BTreeMap::new(),
            leases: BTreeMap::new(),
            relays: BTreeMap::new(),
            health: BTreeMap::new(),
            names: BTreeMap::new(),
            statics: BTreeMap::new(),
            controllers: BTreeMap::new(),
            info: None,
            owners: Owners::default(),
            raw: Raw::default(),
        }
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// The version, once a whole map has arrived.
    #[must_use]
    pub const fn version(&self) -> Option<MapVersion> {
        self.version
    }

    /// A peer.
    #[must_use]
    pub fn peer(&self, device: DeviceId) -> Option<&Peer> {
        self.peers.get(&device)
    }

    /// All peers, by id.
    pub fn peers(&self) -> impl Iterator<Item = (DeviceId, &Peer)> {
        self.peers.iter().map(|(device, peer)| (*device, peer))
    }

    /// The peer with this name.
    #[must_use]
    pub fn peer_by_name(&self, name: &DeviceName) -> Option<&Peer> {
        self.owners.names.get(name).and_then(|device| self.peers.get(device))
    }

    /// The IPv4 address of a member.
    #[must_use]
    pub fn ipv4(&self, device: DeviceId) -> Option<Ipv4Addr> {
        self.leases.get(&device).copied().filter(|_| self.peers.contains_key(&device))
    }

    /// The relays that are members with the right to relay, and how they are doing.
    pub fn relays(&self) -> impl Iterator<Item = (&RelayEntry, RelayHealth)> {
        self.relays.values().filter_map(|entry| {
            let member = &self.peers.get(&entry.device)?.member;
            let health = self.health.get(&entry.device).copied().unwrap_or_default();
            member.is_relay().then_some((entry, health))
        })
    }

    /// Names beside those of devices.
    pub fn names(&self) -> impl Iterator<Item = &NameEntry> {
        self.names.values()
    }

    /// A name beside those of devices, as its record writes it.
    #[must_use]
    pub fn name(&self, name: &str) -> Option<&NameEntry> {
        self.names.get(name)
    }

    /// Plain WireGuard peers whose time is not over.
    pub fn static_peers(&self, now: UnixTime) -> impl Iterator<Item = &StaticPeer> {
        self.statics.values().filter(move |peer| now < peer.not_after)
    }

    /// Controllers beside the one of the invite.
    pub fn controllers(&self) -> impl Iterator<Item = &ControllerEntry> {
        self.controllers.values()
    }

    /// The network's settings.
    #[must_use]
    pub const fn info(&self) -> Option<&NetworkInfo> {
        self.info.as_ref()
    }

    /// The list of revocations: for verifying what peers introduce themselves with.
    #[must_use]
    pub const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Who has which scope.
    #[must_use]
    pub const fn authorities(&self) -> &Authorities {
        &self.authorities
    }
}

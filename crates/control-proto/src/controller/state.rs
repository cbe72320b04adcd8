//! What a controller has to keep, as data and as changes to it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use identity::{
    Binding, CertificateChain, DeviceId, DeviceName, Endpoints, GroupName, InviteGrant, Ipv4Prefix,
    NetworkId, NetworkName, Padding, Serial, Shaping, Signed, SignerId, TrafficRule, TurnServer,
    UlaPrefix, UnixTime,
};
use minicbor::{Decode, Encode};

use crate::{AuditEntry, ControllerPlace, EventRecord, ItemKey};

/// The settings of a network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Settings {
    /// The network's name.
    #[n(0)]
    pub name: NetworkName,
    /// Its IPv6 prefix.
    #[n(1)]
    pub ula: UlaPrefix,
    /// Its IPv4 prefix.
    #[n(2)]
    pub ipv4: Ipv4Prefix,
    /// Whether invites ask for approval unless they say otherwise.
    #[n(3)]
    pub approval: bool,
    /// How long a membership is valid without renewal, in seconds.
    #[n(4)]
    pub validity: u64,
    /// How much of the logs is kept.
    #[cbor(n(5), default)]
    pub logs: Retention,
    /// Where nodes find the controller; where it listens if there are none.
    #[cbor(n(6), default)]
    pub controllers: Vec<ControllerPlace>,
    /// Which traffic goes before which.
    #[cbor(n(7), default)]
    pub traffic: Vec<TrafficRule>,
    /// How messages on streams are filled up.
    #[cbor(n(8), default)]
    pub padding: Padding,
    /// TURN servers for every member.
    #[cbor(n(9), default)]
    pub turn: Vec<TurnServer>,
    /// After how many seconds devices are at home at other relays; 0 for never.
    #[cbor(n(10), default)]
    pub relay_rotation: u32,
    /// When messages on streams leave.
    #[cbor(n(11), default)]
    pub shaping: Shaping,
    /// The groups whose members pass datagrams on between others.
    #[cbor(n(12), default)]
    pub peer_relays: Vec<GroupName>,
    /// Whether members send each other no datagrams.
    #[cbor(n(13), default)]
    pub streams_only: bool,
}

/// How much is kept of each log: what is beyond either bound goes, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Retention {
    /// Entries.
    #[n(0)]
    pub entries: u64,
    /// Age in seconds.
    #[n(1)]
    pub seconds: u64,
}

impl Default for Retention {
    /// A year and a month, so that who reviews once a year finds all of it; and a hundred megabytes
    /// or less.
    fn default() -> Self {
        Self { entries: 100_000, seconds: 400 * 86_400 }
    }
}

impl Settings {
    /// The settings of a new network.
    #[must_use]
    pub fn new(network: NetworkId, name: NetworkName) -> Self {
        Self {
            name,
            ula: identity::ula_prefix(network),
            ipv4: identity::ipv4_prefix(network),
            approval: false,
            validity: identity::DEFAULT_VALIDITY,
            logs: Retention::default(),
            controllers: Vec::new(),
            traffic: Vec::new(),
            padding: Padding::Off,
            turn: Vec::new(),
            relay_rotation: 0,
            shaping: Shaping::Off,
            peer_relays: Vec::new(),
            streams_only: false,
        }
    }
}

/// Numbers that only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(array)]
pub struct Counters {
    /// The version of the map.
    #[n(0)]
    pub map: u64,
    /// The version of the newest record.
    #[n(1)]
    pub record: u64,
    /// The serial of the newest membership.
    #[n(2)]
    pub serial: u64,
    /// Removed items below this version are forgotten.
    #[n(3)]
    pub forgotten: u64,
}

/// A device, member or waiting.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct DeviceRecord {
    /// The device.
    #[n(0)]
    pub device: DeviceId,
    /// Its name, unique.
    #[n(1)]
    pub name: DeviceName,
    /// Its address, unique.
    #[n(2)]
    pub address: Ipv6Addr,
    /// Its groups.
    #[n(3)]
    pub groups: Vec<GroupName>,
    /// The number of its membership.
    #[n(4)]
    pub serial: Serial,
    /// Proves the membership.
    #[n(5)]
    pub chain: CertificateChain,
    /// Its keys.
    #[n(6)]
    pub binding: Signed<Binding>,
    /// Where it is reached.
    #[n(7)]
    pub endpoints: Option<Signed<Endpoints>>,
    /// Its IPv4 address, unique.
    #[n(8)]
    pub ipv4: Option<Ipv4Addr>,
    /// Whether it waits for approval.
    #[n(9)]
    pub pending: bool,
    /// When it joined.
    #[n(10)]
    pub joined: UnixTime,
    /// Since when the membership in force is valid.
    #[n(11)]
    pub not_before: UnixTime,
    /// Until when the membership in force is valid.
    #[n(12)]
    pub not_after: UnixTime,
}

/// An invite, as far as the controller keeps it: without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct InviteRecord {
    /// The invite key.
    #[n(0)]
    pub key: SignerId,
    /// What it allows.
    #[n(1)]
    pub grant: InviteGrant,
    /// When it was made, or first seen.
    #[n(2)]
    pub created: UnixTime,
    /// The device that came in by it.
    #[n(3)]
    pub used_by: Option<DeviceId>,
    /// Whether it was revoked.
    #[n(4)]
    pub revoked: bool,
}

/// An item of the map with the version in which it last changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredItem {
    /// The version.
    pub version: u64,
    /// The encoded [`crate::MapItem`].
    pub bytes: Box<[u8]>,
}

/// One change to what is kept. All changes of one batch are kept together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// New settings.
    Settings(Settings),
    /// Numbers have risen.
    Counters(Counters),
    /// A device came or changed.
    Device(Box<DeviceRecord>),
    /// A device went.
    RemoveDevice(DeviceId),
    /// An invite came or changed.
    Invite(Box<InviteRecord>),
    /// An invite is forgotten.
    RemoveInvite(SignerId),
    /// An item of the map came or changed.
    Item(ItemKey, StoredItem),
    /// An item of the map is forgotten.
    RemoveItem(ItemKey),
    /// A security event, to be appended.
    Event(EventRecord),
    /// An audit entry, to be appended.
    Audit(AuditEntry),
    /// Of each log only the newest entries are kept, and none from before a time that has no newer
    /// one before it.
    PruneLogs {
        /// How many are kept.
        entries: u64,
        /// Since when.
        before: UnixTime,
    },
}

/// Everything that a controller keeps, but for secrets and what is only appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The settings.
    pub settings: Settings,
    /// The numbers.
    pub counters: Counters,
    /// All devices.
    pub devices: BTreeMap<DeviceId, DeviceRecord>,
    /// All invites.
    pub invites: BTreeMap<SignerId, InviteRecord>,
    /// All items of the map.
    pub items: BTreeMap<ItemKey, StoredItem>,
}

impl Stored {
    /// What the controller of a new network keeps.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            counters: Counters { map: 0, record: 0, serial: 0, forgotten: 0 },
            devices: BTreeMap::new(),
            invites: BTreeMap::new(),
            items: BTreeMap::new(),
        }
    }

    /// Makes one change; what is only appended changes nothing here.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Settings(settings) => self.settings = settings.clone(),
            Change::Counters(counters) => self.counters = *counters,
            Change::Device(device) => {
                self.devices.insert(device.device, device.as_ref().clone());
            }
            Change::RemoveDevice(device) => {
                self.devices.remove(device);
            }
            Change::Invite(invite) => {
                self.invites.insert(invite.key, invite.as_ref().clone());
            }
            Change::RemoveInvite(key) => {
                self.invites.remove(key);
            }
            Change::Item(key, item) => {
                self.items.insert(key.clone(), item.clone());
            }
            Change::RemoveItem(key) => {
                self.items.remove(key);
            }
            Change::Event(_) | Change::Audit(_) | Change::PruneLogs { .. } => {}
        }
    }
}

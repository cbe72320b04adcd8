//! The map as the controller keeps it, and how nodes get it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Bound;

use identity::{
    ControllerEntry, DeviceId, Lease4, NetworkInfo, Record, RecordBody, RelayEntry,
    RevocationTarget, Scope, ServerAddress, Signed, TlsMode, UnixTime,
};
use minicbor::bytes::ByteVec;

use super::session::{Delivered, Part, Phase};
use super::{Change, Controller, DeviceRecord, StoredItem};
use crate::limits::{CHUNK_BYTES, MAX_PLACES, MAX_TOMBSTONES};
use crate::{
    ConnectionId, ControllerMessage, ControllerPlace, ItemKey, MapChunk, MapItem, MapVersion,
    PeerEntry,
};
use noise_channel::Now;

/// Which item changed in which version, and what is on disk.
#[derive(Debug, Default)]
pub(crate) struct Publication {
    /// The items by the version in which they last changed.
    pub(crate) log: BTreeMap<u64, ItemKey>,
    /// Versions of members that are gone.
    pub(crate) tombstones: BTreeSet<u64>,
    /// The version that is on disk.
    pub(crate) published: u64,
    /// Entries of relays that wait for the owner's signature.
    pub(crate) offers: BTreeMap<DeviceId, RelayEntry>,
}

impl Controller {
    /// Puts an item into the map, under a new version.
    pub(crate) fn publish(&mut self, item: &MapItem) {
        let key = item.key();
        let bytes = item.to_bytes().into_boxed_slice();
        if self.state.items.get(&key).is_some_and(|known| known.bytes == bytes) {
            return;
        }
        self.unlog(&key);
        self.state.counters.map += 1;
        let version = self.state.counters.map;
        self.publication.log.insert(version, key.clone());
        if matches!(item, MapItem::Gone(_)) {
            self.publication.tombstones.insert(version);
        }
        self.change(Change::Item(key, StoredItem { version, bytes }));
        self.forget_tombstones();
    }

    fn unlog(&mut self, key: &ItemKey) {
        if let Some(known) = self.state.items.get(key) {
            self.publication.log.remove(&known.version);
            self.publication.tombstones.remove(&known.version);
        }
    }

    fn forget_tombstones(&mut self) {
        while self.publication.tombstones.len() > MAX_TOMBSTONES {
            let Some(version) = self.publication.tombstones.pop_first() else { return };
            if let Some(key) = self.publication.log.remove(&version) {
                self.change(Change::RemoveItem(key));
            }
            self.state.counters.forgotten = version;
        }
    }

    pub(crate) fn publish_peer(&mut self, record: &DeviceRecord) {
        if record.pending {
            return;
        }
        let entry = PeerEntry {
            chain: record.chain.clone(),
            binding: record.binding.clone(),
            endpoints: record.endpoints.clone(),
        };
        self.publish(&MapItem::Peer(record.device, entry));
    }

    /// Takes everything about a device out of the map.
    pub(crate) fn withdraw_peer(&mut self, record: &DeviceRecord, at: UnixTime) {
        if !record.pending {
            self.publish(&MapItem::Gone(record.device));
        }
        if let Some(address) = record.ipv4 {
            let lease = Lease4 { device: record.device, address };
            if let Some(signed) = self.sign(lease, at, true) {
                self.publish(&MapItem::Lease4(record.device, signed));
            }
        }
        self.withdraw_relay(record.device, at);
    }

    pub(crate) fn publish_lease(&mut self, device: DeviceId, address: Ipv4Addr, at: UnixTime) {
        if let Some(signed) = self.sign(Lease4 { device, address }, at, false) {
            self.publish(&MapItem::Lease4(device, signed));
        }
    }

    /// The settings of the network, unless the map has them already.
    pub(crate) fn new_info(&self) -> Option<NetworkInfo> {
        let settings = &self.state.settings;
        let info = NetworkInfo {
            name: settings.name.clone(),
            prefix: settings.ula,
            ipv4_prefix: settings.ipv4,
            needs_approval: settings.approval,
            traffic: settings.traffic.clone(),
            padding: settings.padding,
            turn: settings.turn.clone(),
            relay_rotation: settings.relay_rotation,
            shaping: settings.shaping.clone(),
            peer_relays: settings.peer_relays.clone(),
            streams_only: settings.streams_only,
        };
        let known = self.stored_item(&ItemKey::Info).and_then(|item| {
            let MapItem::Info(signed) = item else { return None };
            self.current_body(&signed)
        });
        (known.as_ref() != Some(&info)).then_some(info)
    }

    /// Publishes the settings of the network, if they are new and may be signed here.
    pub(crate) fn publish_info(&mut self, at: UnixTime) {
        if let Some(info) = self.new_info()
            && let Some(signed) = self.sign(info, at, false)
        {
            self.publish(&MapItem::Info(signed));
        }
    }

    /// Where nodes find this controller.
    pub(crate) fn servers(&self) -> Vec<ServerAddress> {
        let listening = &self.config.servers;
        let places = &self.state.settings.controllers;
        if places.is_empty() {
            return listening.iter().take(MAX_PLACES).cloned().collect();
        }
        let tls = listening.first().map_or(TlsMode::WebPki, |server| server.tls);
        let place = |place: &ControllerPlace| ServerAddress {
            host: place.host.clone(),
            port: place.port,
            addresses: place.addresses.clone(),
            tls,
        };
        places.iter().map(place).collect()
    }

    /// Where this controller is, unless the map says so already.
    pub(crate) fn new_entry(&self) -> Option<ControllerEntry> {
        let channel_key = self.config.channel_key.public();
        let entry = ControllerEntry { channel_key, servers: self.servers() };
        let known = self.stored_item(&ItemKey::Controller(channel_key)).and_then(|item| {
            let MapItem::Controller(_, signed) = item else { return None };
            self.current_body(&signed)
        });
        let is_new = !entry.servers.is_empty() && known.as_ref() != Some(&entry);
        is_new.then_some(entry)
    }

    /// Says where this controller is, so that nodes find it after it has moved.
    pub(crate) fn publish_controller(&mut self, at: UnixTime) {
        if let Some(entry) = self.new_entry()
            && let Some(signed) = self.sign(entry, at, false)
        {
            let channel_key = self.config.channel_key.public();
            self.publish(&MapItem::Controller(channel_key, signed));
        }
    }

    /// Publishes a relay's entry; says whether that was possible and new.
    pub(crate) fn publish_relay(&mut self, entry: RelayEntry, at: UnixTime) -> Option<bool> {
        let device = entry.device;
        if self.relay_entry(device).is_some_and(|known| known == entry) {
            return Some(false);
        }
        let signed = self.sign(entry, at, false)?;
        self.publish(&MapItem::Relay(device, signed));
        Some(true)
    }

    /// Withdraws a relay's entry; says whether there was one.
    pub(crate) fn withdraw_relay(&mut self, device: DeviceId, at: UnixTime) -> bool {
        self.publication.offers.remove(&device);
        let Some(entry) = self.relay_entry(device) else { return false };
        self.relays.remove(&device);
        match self.sign(entry, at, true) {
            Some(signed) => self.publish(&MapItem::Relay(device, signed)),
            None => return false,
        }
        true
    }

    /// The entry of a relay as it stands in the map.
    pub(crate) fn relay_entry(&self, device: DeviceId) -> Option<RelayEntry> {
        let MapItem::Relay(_, signed) = self.stored_item(&ItemKey::Relay(device))? else {
            return None;
        };
        self.current_body(&signed)
    }

    /// All relays' entries as they stand in the map.
    pub(crate) fn relay_entries(&self) -> Vec<RelayEntry> {
        let relays =
            self.state.items.keys().filter_map(|key| {
                if let ItemKey::Relay(device) = key { Some(*device) } else { None }
            });
        relays.filter_map(|device| self.relay_entry(device)).collect()
    }

    /// Revokes for good; false if no key to revoke is held.
    pub(crate) fn revoke(&mut self, target: RevocationTarget, at: UnixTime) -> bool {
        if self.revocations.contains(&target) {
            return true;
        }
        let Some((key, _)) = self.config.keys.get(Scope::Revoke) else { return false };
        let entry = self.revocations.next_entry(target, key.id(), &self.authorities, at);
        let signed = Signed::sign(self.network(), key, &entry);
        if self.revocations.apply(&signed, &self.authorities).is_err() {
            return false;
        }
        self.publish(&MapItem::Revocation(entry.number, signed));
        self.refresh(at);
        true
    }

    /// Says that the list of revocations is current.
    pub(crate) fn refresh(&mut self, at: UnixTime) {
        let Some((key, _)) = self.config.keys.get(Scope::Revoke) else { return };
        let freshness = self.revocations.freshness(key.id(), at);
        let signed = Signed::sign(self.network(), key, &freshness);
        // A clock that went back makes it no newer; the next one will be.
        let _ = self.revocations.refresh(&signed, &self.authorities);
    }

    /// Tells all nodes with a map that the list of revocations is current.
    pub(crate) fn push_freshness(&mut self, now: Now) {
        for connection in self.ready_connections() {
            self.send_freshness(connection, now);
        }
    }

    /// Tells one node that the list of revocations is current.
    pub(crate) fn send_freshness(&mut self, connection: ConnectionId, now: Now) {
        let Some(Delivered::UpTo(version)) = self.delivered(connection) else { return };
        let Some(signed) = self.revocations.signed_freshness().cloned() else { return };
        let items = vec![ByteVec::from(MapItem::Freshness(signed).to_bytes())];
        let chunk = MapChunk { base: Some(version), version, items, last: true };
        self.say(connection, &ControllerMessage::Map(chunk), now);
    }

    /// Signs all records anew after the root began a new epoch.
    pub(crate) fn sign_records_anew(&mut self, at: UnixTime) {
        let items: Vec<_> = self.state.items.keys().cloned().collect();
        for key in items {
            match self.stored_item(&key) {
                Some(MapItem::Relay(device, signed)) => {
                    if let Some(signed) = self.sign_again(&signed, at) {
                        self.publish(&MapItem::Relay(device, signed));
                    }
                }
                Some(MapItem::Lease4(device, signed)) => {
                    if let Some(signed) = self.sign_again(&signed, at) {
                        self.publish(&MapItem::Lease4(device, signed));
                    }
                }
                Some(MapItem::Name(name, signed)) => {
                    if let Some(signed) = self.sign_again(&signed, at) {
                        self.publish(&MapItem::Name(name, signed));
                    }
                }
                Some(MapItem::Static(peer, signed)) => {
                    if let Some(signed) = self.sign_again(&signed, at) {
                        self.publish(&MapItem::Static(peer, signed));
                    }
                }
                // Info and our own entry are compared with the settings at every start.
                Some(
                    MapItem::Info(_)
                    | MapItem::Controller(..)
                    | MapItem::Delegation(_)
                    | MapItem::Epoch(_)
                    | MapItem::Revocation(..)
                    | MapItem::Peer(..)
                    | MapItem::Gone(_)
                    | MapItem::RelayHealth(..)
                    | MapItem::Freshness(_),
                )
                | None => {}
            }
        }
    }

    /// Our own record once more, in the current epoch; others' records stay as they are.
    fn sign_again<T: RecordBody>(
        &mut self,
        signed: &Signed<Record<T>>,
        at: UnixTime,
    ) -> Option<Signed<Record<T>>> {
        let signer = self.config.keys.get(T::SCOPE)?.0.id();
        let record = signed.verify(self.network(), signer).ok()?;
        self.sign(record.body, at, record.withdrawn)
    }

    pub(crate) fn sign<T: RecordBody>(
        &mut self,
        body: T,
        at: UnixTime,
        withdrawn: bool,
    ) -> Option<Signed<Record<T>>> {
        let number = (self.authorities.epoch(), self.state.counters.record + 1);
        let signed = self.config.keys.sign_record(body, number, at, withdrawn)?;
        self.state.counters.record += 1;
        Some(signed)
    }

    pub(crate) fn current_body<T: RecordBody>(&self, signed: &Signed<Record<T>>) -> Option<T> {
        let record = identity::verify_record(signed, &self.authorities, &self.revocations).ok()?;
        (!record.withdrawn).then_some(record.body)
    }

    pub(crate) fn stored_item(&self, key: &ItemKey) -> Option<MapItem> {
        MapItem::from_bytes(&self.state.items.get(key)?.bytes)
    }

    /// Brings the map of one node up to what is on disk, as far as the keys of its channel reach.
    pub(crate) fn deliver(&mut self, connection: ConnectionId, now: Now) {
        while let Some(part) = self.next_part(connection)
            && self.sessions.get(&connection).is_some_and(|session| session.channel.has_room())
        {
            let (chunk, after) = self.chunk(&part);
            self.say(connection, &ControllerMessage::Map(chunk), now);
            if let Some(session) = self.sessions.get_mut(&connection)
                && let Phase::Ready { map: Some(map), .. } = &mut session.phase
            {
                *map = match after {
                    Some(_) => Delivered::Partly(Part { after, ..part }),
                    None => Delivered::UpTo(part.version),
                };
            }
        }
    }

    /// What a node gets next; nothing if it has everything.
    fn next_part(&self, connection: ConnectionId) -> Option<Part> {
        let version =
            MapVersion { epoch: self.authorities.epoch(), number: self.publication.published };
        let base = match self.delivered(connection)? {
            // What has been forgotten since is on no way from an earlier version any more.
            Delivered::Partly(Part { base: Some(base), .. })
                if base.number < self.state.counters.forgotten =>
            {
                None
            }
            Delivered::Partly(part) => return Some(part),
            Delivered::UpTo(base) if base == version => return None,
            Delivered::UpTo(base) if self.can_continue(base, version) => Some(base),
            Delivered::UpTo(_) | Delivered::Nothing => None,
        };
        Some(Part { base, version, after: None })
    }

    fn can_continue(&self, base: MapVersion, version: MapVersion) -> bool {
        base.epoch == version.epoch
            && base.number < version.number
            && base.number >= self.state.counters.forgotten
    }

    /// The next items of a part, and the last of them if more follow.
    fn chunk(&self, part: &Part) -> (MapChunk, Option<ItemKey>) {
        let Part { base, version, after } = part;
        let mut chunk = MapChunk { base: *base, version: *version, items: Vec::new(), last: false };
        let more = match base {
            Some(base) => {
                let range = base.number + 1..=version.number;
                let keys: BTreeSet<&ItemKey> =
                    self.publication.log.range(range).map(|(_, key)| key).collect();
                let rest = keys.into_iter().filter(|key| Some(*key) > after.as_ref());
                fill(&mut chunk, rest.filter_map(|key| self.state.items.get_key_value(key)))
            }
            None => {
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                fill(&mut chunk, self.state.items.range((from, Bound::Unbounded)))
            }
        };
        if more.is_none() {
            let freshness = self.revocations.signed_freshness().cloned().map(MapItem::Freshness);
            chunk.items.extend(freshness.map(|freshness| ByteVec::from(freshness.to_bytes())));
            chunk.last = true;
        }
        (chunk, more)
    }

    fn delivered(&self, connection: ConnectionId) -> Option<Delivered> {
        match &self.sessions.get(&connection)?.phase {
            Phase::Ready { map, .. } => map.clone(),
            Phase::Handshake | Phase::Stranger { .. } => None,
        }
    }

    pub(crate) fn ready_connections(&self) -> Vec<ConnectionId> {
        self.by_device.values().copied().collect()
    }
}

/// Puts items into a chunk until it is full; says which was the last if more follow.
fn fill<'a>(
    chunk: &mut MapChunk,
    items: impl Iterator<Item = (&'a ItemKey, &'a StoredItem)>,
) -> Option<ItemKey> {
    let newest = chunk.version.number;
    let (mut bytes, mut last) = (0, None::<&ItemKey>);
    // What is newer may not be on disk yet, and comes with the next version.
    for (key, item) in items.filter(|(_, item)| item.version <= newest) {
        if bytes > 0 && bytes + item.bytes.len() > CHUNK_BYTES {
            return last.cloned();
        }
        bytes += item.bytes.len();
        chunk.items.push(item.bytes.to_vec().into());
        last = Some(key);
    }
    None
}

//! Believing items.

use std::mem;

use identity::{
    ChainError, DelegationError, DeviceId, Record, RecordBody, RecordError, RevocationError,
    RevocationTarget, Signed, UnixTime,
};

use super::{Applied, ItemKey, MapItem, NetworkMap, Peer, PeerEntry, RelayHealth};
use crate::{MapChunk, SecurityEvent};

/// An item was not taken over.
enum Skip {
    /// It is not a record.
    NotARecord,
    /// Entries of the list of revocations between the known ones and this one are not here.
    Gap,
    /// It is not to be believed.
    Refused(SecurityEvent),
}

type Taken = Result<(), Skip>;

impl NetworkMap {
    /// Takes over a part of a map after verifying each item by itself.
    ///
    /// After the last chunk of a whole map, members and records that it did not contain are
    /// dropped; what was revoked and the newest versions seen are remembered for good.
    pub fn apply(&mut self, chunk: &MapChunk, now: UnixTime) -> Applied {
        let mut applied = Applied::default();
        match chunk.base {
            None if self.raw.underway.is_none() => self.raw.underway = Some(Default::default()),
            None => {}
            Some(base) if self.version == Some(base) => self.raw.underway = None,
            Some(_) => {
                applied.needs_resync = true;
                return applied;
            }
        }
        for bytes in &chunk.items {
            match MapItem::from_bytes(bytes) {
                Some(item) => self.apply_item(&item, bytes, now, &mut applied),
                None => applied.events.push(SecurityEvent::ForgedStatement {
                    what: "map item".into(),
                    reason: "not an item that this version knows".into(),
                }),
            }
        }
        if applied.needs_resync && chunk.base.is_some() {
            return applied;
        }
        // Who leaves entries out of a whole map would do so again.
        if mem::take(&mut applied.needs_resync) {
            applied.events.push(SecurityEvent::ForgedStatement {
                what: "revocation list".into(),
                reason: "entries are missing".into(),
            });
        }
        if chunk.last {
            self.version = Some(chunk.version);
            if let Some(seen) = self.raw.underway.take() {
                let stale: Vec<_> =
                    self.raw.items.keys().filter(|key| !seen.contains(key)).cloned().collect();
                stale.iter().for_each(|key| self.drop_item(key, &mut applied));
            }
        }
        applied
    }

    /// Takes over one item that somebody else than the controller brought: a peer's introduction.
    /// Endpoints that it leaves out stay as they are known.
    pub fn introduce(&mut self, device: DeviceId, entry: &PeerEntry, now: UnixTime) -> Applied {
        let mut applied = Applied::default();
        let item = MapItem::Peer(device, entry.clone());
        let bytes = item.to_bytes();
        self.apply_item(&item, &bytes, now, &mut applied);
        applied
    }

    /// Forgets a whole map of which not all chunks arrived.
    pub(crate) fn abandon(&mut self) {
        self.raw.underway = None;
    }

    /// Drops the members and the plain WireGuard peers whose time is over. Their proofs are kept, in
    /// case the clock is wrong: see [`Self::revive`].
    pub fn expire(&mut self, now: UnixTime) -> Applied {
        let mut applied = Applied::default();
        let over = |peer: &Peer| now >= peer.member.not_after.min(peer.binding.not_after);
        let expired: Vec<_> =
            self.peers.iter().filter(|(_, peer)| over(peer)).map(|(device, _)| *device).collect();
        for device in expired {
            self.drop_peer(device, &mut applied);
        }
        let before = self.statics.len();
        self.statics.retain(|_, peer| now < peer.not_after);
        applied.changes.records |= self.statics.len() != before;
        applied
    }

    /// Believes again what did not count by a clock that was wrong.
    pub fn revive(&mut self, now: UnixTime) -> Applied {
        let mut applied = Applied::default();
        let items: Vec<_> =
            self.raw.items.values().filter_map(|bytes| MapItem::from_bytes(bytes)).collect();
        for item in items {
            // What does not count by this clock either is no news.
            match &item {
                MapItem::Peer(device, entry) if !self.peers.contains_key(device) => {
                    let _ = self.take_peer(*device, entry, now, &mut applied);
                }
                MapItem::Static(key, _) if !self.statics.contains_key(key) => {
                    let _ = self.take_record(&item, now, &mut applied);
                }
                MapItem::Delegation(_)
                | MapItem::Epoch(_)
                | MapItem::Revocation(..)
                | MapItem::Info(_)
                | MapItem::Peer(..)
                | MapItem::Gone(_)
                | MapItem::Relay(..)
                | MapItem::RelayHealth(..)
                | MapItem::Lease4(..)
                | MapItem::Name(..)
                | MapItem::Static(..)
                | MapItem::Controller(..)
                | MapItem::Freshness(_) => {}
            }
        }
        applied
    }

    /// When [`Self::expire`] has something to do next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<UnixTime> {
        let members = self.peers.values().map(|p| p.member.not_after.min(p.binding.not_after));
        members.chain(self.statics.values().map(|peer| peer.not_after)).min()
    }

    pub(super) fn apply_item(
        &mut self,
        item: &MapItem,
        bytes: &[u8],
        now: UnixTime,
        applied: &mut Applied,
    ) {
        let key = item.key();
        let is_known = self.raw.items.contains_key(&key);
        let taken = self.take_item(item, now, applied);
        if matches!(taken, Err(Skip::Gap)) {
            applied.needs_resync = true;
            return;
        }
        if let Err(Skip::Refused(event)) = taken {
            let by_clock = matches!(event, SecurityEvent::ExpiredCertificate { .. });
            applied.events.push(event);
            if by_clock && !self.has_peer(&key) {
                self.raw.items.insert(key.clone(), bytes.into());
            }
            // What is refused changes nothing, so what is known about the same stays.
            if let Some(seen) = self.raw.underway.as_mut().filter(|_| is_known || by_clock) {
                seen.insert(key);
            }
            return;
        }
        if let Some(seen) = &mut self.raw.underway {
            seen.insert(key.clone());
        }
        match item {
            MapItem::Gone(_) => {
                self.raw.items.remove(&key);
            }
            MapItem::Peer(device, entry) => {
                let kept =
                    self.peers.get(device).map(|peer| &peer.entry).filter(|kept| *kept != entry);
                let kept = kept.map(|kept| MapItem::Peer(*device, kept.clone()).to_bytes());
                self.raw.items.insert(key, kept.map_or_else(|| bytes.into(), Into::into));
            }
            MapItem::Delegation(_)
            | MapItem::Epoch(_)
            | MapItem::Revocation(..)
            | MapItem::Info(_)
            | MapItem::Relay(..)
            | MapItem::RelayHealth(..)
            | MapItem::Lease4(..)
            | MapItem::Name(..)
            | MapItem::Static(..)
            | MapItem::Controller(..)
            | MapItem::Freshness(_) => {
                self.raw.items.insert(key, bytes.into());
            }
        }
    }

    fn has_peer(&self, key: &ItemKey) -> bool {
        matches!(key, ItemKey::Peer(device) if self.peers.contains_key(device))
    }

    fn take_item(&mut self, item: &MapItem, now: UnixTime, applied: &mut Applied) -> Taken {
        match item {
            MapItem::Delegation(signed) => {
                let is_new = self.authorities.add(signed).map_err(|e| Skip::delegation(&e))?;
                applied.changes.trust |= is_new;
                Ok(())
            }
            MapItem::Epoch(signed) => {
                let advanced = self.authorities.advance_epoch(signed);
                applied.changes.trust |= advanced.map_err(|e| Skip::forged("epoch", &e))?;
                Ok(())
            }
            MapItem::Revocation(_, signed) => self.take_revocation(signed, now, applied),
            MapItem::Freshness(signed) => self
                .revocations
                .refresh(signed, &self.authorities)
                .map(drop)
                .map_err(|e| Skip::revocation(&e)),
            MapItem::Peer(device, entry) => self.take_peer(*device, entry, now, applied),
            MapItem::Gone(device) => {
                self.drop_item(&ItemKey::Peer(*device), applied);
                Ok(())
            }
            MapItem::RelayHealth(device, healthy, load) => {
                let health = RelayHealth { healthy: *healthy, load: *load };
                let before = self.health.insert(*device, health);
                applied.changes.relays |= before.unwrap_or_default() != health;
                Ok(())
            }
            MapItem::Info(_)
            | MapItem::Relay(..)
            | MapItem::Lease4(..)
            | MapItem::Name(..)
            | MapItem::Static(..)
            | MapItem::Controller(..) => self.take_record(item, now, applied),
        }
    }

    fn take_record(&mut self, item: &MapItem, now: UnixTime, applied: &mut Applied) -> Taken {
        let key = item.key();
        match item {
            MapItem::Info(signed) => {
                let record = self.accept_about(signed, |_| true)?;
                applied.changes.info |= self.info.as_ref() != Some(&record.body);
                self.info = (!record.withdrawn).then_some(record.body);
            }
            MapItem::Controller(channel, signed) => {
                let record = self.accept_about(signed, |body| body.channel_key == *channel)?;
                applied.changes.info |= replace(&mut self.controllers, key, record);
            }
            MapItem::Relay(device, signed) => {
                let record = self.accept_about(signed, |body| body.device == *device)?;
                applied.changes.relays |= replace(&mut self.relays, *device, record);
            }
            MapItem::Lease4(device, signed) => {
                let record = self.accept_about(signed, |body| body.device == *device)?;
                let before = self.leases.remove(device);
                if !record.withdrawn {
                    self.leases.insert(*device, record.body.address);
                }
                if before != self.leases.get(device).copied() {
                    applied.changes.peers.insert(*device);
                }
            }
            MapItem::Name(name, signed) => {
                let record = self.accept_about(signed, |body| body.name == *name)?;
                applied.changes.records |= replace(&mut self.names, name.clone(), record);
            }
            MapItem::Static(tunnel_key, signed) => {
                let mut record =
                    self.accept_about(signed, |body| body.tunnel_key == *tunnel_key)?;
                record.withdrawn |= now >= record.body.not_after;
                applied.changes.records |= replace(&mut self.statics, *tunnel_key, record);
            }
            MapItem::Delegation(_)
            | MapItem::Epoch(_)
            | MapItem::Revocation(..)
            | MapItem::Peer(..)
            | MapItem::Gone(_)
            | MapItem::RelayHealth(..)
            | MapItem::Freshness(_) => return Err(Skip::NotARecord),
        }
        Ok(())
    }

    fn accept_about<T: RecordBody>(
        &mut self,
        signed: &Signed<Record<T>>,
        is_about: impl FnOnce(&T) -> bool,
    ) -> Result<Record<T>, Skip> {
        let record = self
            .floors
            .records
            .accept(signed, &self.authorities, &self.revocations)
            .map_err(|e| Skip::record(T::PURPOSE, &e))?;
        if is_about(&record.body) {
            Ok(record)
        } else {
            Err(Skip::forged(T::PURPOSE, &"is about something else"))
        }
    }

    fn take_revocation(
        &mut self,
        signed: &Signed<identity::RevocationEntry>,
        now: UnixTime,
        applied: &mut Applied,
    ) -> Taken {
        let newly =
            self.revocations.apply(signed, &self.authorities).map_err(|e| Skip::revocation(&e))?;
        let Some(target) = newly else { return Ok(()) };
        applied.changes.trust = true;
        let hit: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| match target {
                RevocationTarget::Device(device) => peer.member.device == device,
                RevocationTarget::Serial(serial) => peer.member.serial == serial,
                RevocationTarget::Invite(key) => peer.member.invite == Some(key),
                RevocationTarget::Delegated(_) => {
                    peer.entry.chain.verify(self.network, now, &self.revocations).is_err()
                }
            })
            .map(|(device, _)| *device)
            .collect();
        if let RevocationTarget::Device(device) = target {
            applied.changes.revoked.insert(device);
        }
        for device in hit {
            applied.changes.revoked.insert(device);
            self.drop_item(&ItemKey::Peer(device), applied);
        }
        if let RevocationTarget::Delegated(_) = target {
            self.forget_records(now, applied);
        }
        Ok(())
    }

    /// After a signer was revoked: records are believed again one by one.
    fn forget_records(&mut self, now: UnixTime, applied: &mut Applied) {
        let items: Vec<_> =
            self.raw.items.values().filter_map(|b| MapItem::from_bytes(b)).collect();
        for item in items {
            if let Err(Skip::Refused(_)) = self.take_record(&item, now, applied) {
                self.drop_item(&item.key(), applied);
            }
        }
    }

    fn take_peer(
        &mut self,
        device: DeviceId,
        entry: &PeerEntry,
        now: UnixTime,
        applied: &mut Applied,
    ) -> Taken {
        if self.peers.get(&device).is_some_and(|peer| peer.entry == *entry) {
            return Ok(());
        }
        let mut peer = self.verified_peer(device, entry, now)?;
        if let Some(known) = self.peers.get(&device) {
            // Renewals all come from one place.
            if peer.member.not_before < known.member.not_before {
                return Err(Skip::rollback("membership"));
            }
            keep_newer_statements(known, &mut peer);
            if peer == *known {
                return Ok(());
            }
        }
        if let Some(what) = self.floors.devices.older(&peer) {
            return Err(Skip::rollback(what));
        }
        self.settle_conflicts(&peer, applied)?;
        self.forget_owner(device);
        let member = &peer.member;
        self.owners.tunnels.insert(peer.binding.tunnel_key, device);
        self.owners.names.insert(member.name.clone(), device);
        self.owners.addresses.insert(member.address, device);
        if let Some(invite) = member.invite {
            self.owners.invites.insert(invite, device);
        }
        applied.changes.relays |= member.is_relay();
        applied.changes.peers.insert(device);
        self.floors.devices.note(&peer, |device| !self.peers.contains_key(device));
        self.peers.insert(device, peer);
        Ok(())
    }

    fn verified_peer(
        &self,
        device: DeviceId,
        entry: &PeerEntry,
        now: UnixTime,
    ) -> Result<Peer, Skip> {
        // What was verified once stays so: whoever is revoked is dropped at once.
        let known = self.peers.get(&device);
        let member = match known.filter(|known| known.entry.chain == entry.chain) {
            Some(known) if now < known.member.not_after => known.member.clone(),
            Some(_) | None => entry
                .chain
                .prove(&self.authorities)
                .and_then(|proof| proof.check(now, &self.revocations))
                .map_err(|e| Skip::chain(device, e))?,
        };
        if member.device != device {
            return Err(Skip::forged("peer", &"names another device"));
        }
        let binding = match known.filter(|known| known.entry.binding == entry.binding) {
            Some(known) => known.binding,
            None => entry
                .binding
                .verify(self.network, device)
                .map_err(|e| Skip::forged("binding", &e))?,
        };
        if binding.device != device {
            return Err(Skip::forged("binding", &"names another device"));
        }
        if now >= binding.not_after {
            return Err(Skip::forged("binding", &"expired"));
        }
        let endpoints = match &entry.endpoints {
            Some(signed) => Some(
                signed.verify(self.network, device).map_err(|e| Skip::forged("endpoints", &e))?,
            ),
            None => None,
        };
        Ok(Peer { member, binding, endpoints, entry: entry.clone() })
    }

    /// Of two members with one name, address, invite or tunnel key the one with the lower serial counts.
    fn settle_conflicts(&mut self, peer: &Peer, applied: &mut Applied) -> Taken {
        let member = &peer.member;
        let owners = [
            ("tunnel key", self.owners.tunnels.get(&peer.binding.tunnel_key).copied()),
            ("name", self.owners.names.get(&member.name).copied()),
            ("address", self.owners.addresses.get(&member.address).copied()),
            ("invite", member.invite.and_then(|key| self.owners.invites.get(&key).copied())),
        ];
        for (what, owner) in owners {
            let Some(owner) = owner.filter(|owner| *owner != member.device) else { continue };
            let Some(other) = self.peers.get(&owner) else { continue };
            let conflict = |device| SecurityEvent::Conflict { device, what: what.to_owned() };
            if other.member.serial <= member.serial {
                return Err(Skip::Refused(conflict(member.device)));
            }
            applied.events.push(conflict(owner));
            self.drop_item(&ItemKey::Peer(owner), applied);
        }
        Ok(())
    }

    fn forget_owner(&mut self, device: DeviceId) {
        if let Some(peer) = self.peers.get(&device) {
            self.owners.tunnels.remove(&peer.binding.tunnel_key);
            self.owners.names.remove(&peer.member.name);
            self.owners.addresses.remove(&peer.member.address);
            if let Some(invite) = peer.member.invite {
                self.owners.invites.remove(&invite);
            }
        }
    }

    fn drop_peer(&mut self, device: DeviceId, applied: &mut Applied) {
        self.forget_owner(device);
        if let Some(peer) = self.peers.remove(&device) {
            applied.changes.relays |= peer.member.is_relay();
            applied.changes.peers.insert(device);
        }
    }

    fn drop_item(&mut self, key: &ItemKey, applied: &mut Applied) {
        let changes = &mut applied.changes;
        match key {
            // What proves or revokes is never forgotten.
            ItemKey::Delegation(_)
            | ItemKey::Epoch
            | ItemKey::Revocation(_)
            | ItemKey::Freshness => return,
            ItemKey::Info => changes.info |= mem::take(&mut self.info).is_some(),
            ItemKey::Controller(_) => changes.info |= self.controllers.remove(key).is_some(),
            ItemKey::Peer(device) => {
                self.drop_peer(*device, applied);
            }
            ItemKey::Relay(device) => changes.relays |= self.relays.remove(device).is_some(),
            ItemKey::RelayHealth(device) => changes.relays |= self.health.remove(device).is_some(),
            ItemKey::Lease4(device) => {
                if self.leases.remove(device).is_some() {
                    changes.peers.insert(*device);
                }
            }
            ItemKey::Name(name) => changes.records |= self.names.remove(name).is_some(),
            ItemKey::Static(peer) => changes.records |= self.statics.remove(peer).is_some(),
        }
        self.raw.items.remove(key);
    }
}

/// A device tells the controller and its peers of new keys and addresses at the same time, so that
/// either may be the first to bring them here: what the other brings then is late, and no news.
fn keep_newer_statements(known: &Peer, new: &mut Peer) {
    if new.binding.number < known.binding.number {
        new.binding = known.binding;
        new.entry.binding = known.entry.binding.clone();
    }
    let number = |peer: &Peer| peer.endpoints.as_ref().map(|endpoints| endpoints.number);
    if number(new) < number(known) {
        new.endpoints.clone_from(&known.endpoints);
        new.entry.endpoints.clone_from(&known.entry.endpoints);
    }
}

/// Puts a record's body in or, if it is withdrawn, out; says whether that changed anything.
fn replace<K: Ord, T: PartialEq>(
    map: &mut std::collections::BTreeMap<K, T>,
    key: K,
    record: Record<T>,
) -> bool {
    if record.withdrawn {
        return map.remove(&key).is_some();
    }
    let same = map.get(&key) == Some(&record.body);
    map.insert(key, record.body);
    !same
}

impl Skip {
    fn forged(what: &str, reason: &dyn std::fmt::Display) -> Self {
        Self::Refused(SecurityEvent::ForgedStatement {
            what: what.to_owned(),
            reason: reason.to_string(),
        })
    }

    fn rollback(what: &str) -> Self {
        Self::Refused(SecurityEvent::RollbackRefused { what: what.to_owned() })
    }

    fn delegation(error: &DelegationError) -> Self {
        Self::forged("delegation", error)
    }

    fn revocation(error: &RevocationError) -> Self {
        match error {
            RevocationError::RevokedSigner(key) => {
                Self::Refused(SecurityEvent::Revoked { device: None, what: key.to_string() })
            }
            RevocationError::Fork(_) | RevocationError::WrongEpoch(_) => {
                Self::rollback("revocation list")
            }
            RevocationError::Gap { .. } => Self::Gap,
            RevocationError::Signature(_)
            | RevocationError::Delegation(_)
            | RevocationError::Validity(_) => Self::forged("revocation", error),
        }
    }

    fn record(what: &str, error: &RecordError) -> Self {
        match error {
            RecordError::RevokedSigner(key) => {
                Self::Refused(SecurityEvent::Revoked { device: None, what: key.to_string() })
            }
            RecordError::WrongEpoch { .. }
            | RecordError::RolledBack { .. }
            | RecordError::Conflict(_) => Self::rollback(what),
            RecordError::Signature(_) | RecordError::Delegation(_) | RecordError::Validity(_) => {
                Self::forged(what, error)
            }
        }
    }

    fn chain(device: DeviceId, error: ChainError) -> Self {
        Self::Refused(chain_event(Some(device), error))
    }
}

/// The security event that a refused chain is.
pub(crate) fn chain_event(device: Option<DeviceId>, error: ChainError) -> SecurityEvent {
    match error {
        ChainError::WrongNetwork => SecurityEvent::ForeignCertificate,
        ChainError::Validity { .. } => {
            SecurityEvent::ExpiredCertificate { reason: error.to_string() }
        }
        ChainError::Revoked(target) => SecurityEvent::Revoked { device, what: target.to_string() },
        ChainError::Signature { .. }
        | ChainError::UnknownScope(_)
        | ChainError::WrongScope { .. }
        | ChainError::LimitExceeded { .. }
        | ChainError::WrongRenewal
        | ChainError::NeedsApproval => {
            SecurityEvent::ForgedCertificate { reason: error.to_string() }
        }
    }
}

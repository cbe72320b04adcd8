//! What the owner signs in place of a controller that may not.

use identity::{
    ControllerEntry, NetworkInfo, PathSecretBytes, Record, RecordBody, RelayEntry, Signed,
    verify_record,
};
use noise_channel::Now;

use super::Controller;
use crate::limits::{MAX_ITEMS_AT_ONCE, MAX_OFFERS};
use crate::owner::item_from_text;
use crate::{Actor, AdminAnswer, AdminError, AuditAction, ItemKey, MapItem, Outline, Unsigned};

/// Relays that an invite names, enough to get in by another one when one is down.
const RELAYS_IN_INVITE: usize = 3;

impl Controller {
    /// What an invite says beside whom it admits.
    pub(crate) fn outline(&self) -> Outline {
        let settings = &self.state.settings;
        let mut relays = self.relay_entries();
        relays.truncate(RELAYS_IN_INVITE);
        Outline {
            network: self.network(),
            network_name: settings.name.clone(),
            controllers: self.servers(),
            controller_key: self.config.channel_key.public(),
            path_secret: PathSecretBytes((*self.config.path_secret.as_bytes()).into()),
            relays,
            ula: settings.ula,
            approval: settings.approval,
            validity: settings.validity,
        }
    }

    /// Records that nobody has signed, because this controller does not hold the keys.
    pub(crate) fn unsigned(&self) -> Unsigned {
        Unsigned {
            epoch: self.authorities.epoch(),
            info: self.new_info().filter(|_| !self.holds(NetworkInfo::SCOPE)),
            controller: self.new_entry().filter(|_| !self.holds(ControllerEntry::SCOPE)),
            relays: self.publication.offers.values().cloned().collect(),
        }
    }

    /// Keeps an entry until the owner has signed it.
    pub(crate) fn offer_relay(&mut self, entry: RelayEntry) {
        let offers = &mut self.publication.offers;
        if offers.len() < MAX_OFFERS || offers.contains_key(&entry.device) {
            offers.insert(entry.device, entry);
        }
    }

    /// Puts what the owner has signed into the map.
    pub(crate) fn publish_signed(
        &mut self,
        texts: &[String],
        now: Now,
    ) -> Result<AdminAnswer, AdminError> {
        if texts.len() > MAX_ITEMS_AT_ONCE {
            let what = format!("publish up to {MAX_ITEMS_AT_ONCE} items at a time");
            return Err(AdminError::OutOfBounds { what });
        }
        let mut records = 0;
        for text in texts {
            let item = item_from_text(text).ok_or_else(|| wrong("item", &"not understood"))?;
            records += self.publish_item(&item, now)?;
        }
        self.audit(Actor::Administrator, AuditAction::OwnerSigned { records }, now);
        Ok(AdminAnswer::Done)
    }

    /// Publishes an item that proves itself; says how many records it was.
    fn publish_item(&mut self, item: &MapItem, now: Now) -> Result<u32, AdminError> {
        match item {
            MapItem::Delegation(signed) => {
                let added = self.authorities.add(signed).map_err(|e| wrong("delegation", &e))?;
                if added {
                    self.publish(item);
                }
                return Ok(0);
            }
            MapItem::Info(signed) => {
                let known = self.stored_item(&ItemKey::Info).and_then(|item| {
                    let MapItem::Info(known) = item else { return None };
                    Some(known)
                });
                self.believe(signed, known.as_ref(), |_| true)?;
            }
            MapItem::Controller(channel, signed) => {
                let known = self.stored_item(&item.key()).and_then(|item| {
                    let MapItem::Controller(_, known) = item else { return None };
                    Some(known)
                });
                self.believe(signed, known.as_ref(), |entry| entry.channel_key == *channel)?;
            }
            MapItem::Relay(device, signed) => {
                let known = self.stored_item(&item.key()).and_then(|item| {
                    let MapItem::Relay(_, known) = item else { return None };
                    Some(known)
                });
                let entry =
                    self.believe(signed, known.as_ref(), |entry| entry.device == *device)?;
                if self.publication.offers.get(device) == Some(&entry) {
                    self.publication.offers.remove(device);
                }
                self.note_relay(*device, now.instant);
            }
            MapItem::Epoch(_)
            | MapItem::Revocation(..)
            | MapItem::Peer(..)
            | MapItem::Gone(_)
            | MapItem::RelayHealth(..)
            | MapItem::Lease4(..)
            | MapItem::Name(..)
            | MapItem::Static(..)
            | MapItem::Freshness(_) => {
                return Err(wrong("item", &"the owner signs no such thing by hand"));
            }
        }
        self.publish(item);
        Ok(1)
    }

    /// The body of a record that counts, is about what it says, and is newer than the known one.
    fn believe<T: RecordBody + PartialEq>(
        &self,
        signed: &Signed<Record<T>>,
        known: Option<&Signed<Record<T>>>,
        is_about: impl FnOnce(&T) -> bool,
    ) -> Result<T, AdminError> {
        let verified = |signed| verify_record(signed, &self.authorities, &self.revocations);
        let record = verified(signed).map_err(|error| wrong(T::PURPOSE, &error))?;
        // One that does not count any more stands in nobody's way.
        let known = known.filter(|known| *known != signed).and_then(|known| verified(known).ok());
        if known.is_some_and(|known| known.version >= record.version) {
            return Err(wrong(T::PURPOSE, &"older than what is known; is the clock right?"));
        }
        if is_about(&record.body) {
            Ok(record.body)
        } else {
            Err(wrong(T::PURPOSE, &"is about something else"))
        }
    }
}

fn wrong(what: &str, reason: &dyn std::fmt::Display) -> AdminError {
    AdminError::NotBelieved { what: what.to_owned(), reason: reason.to_string() }
}

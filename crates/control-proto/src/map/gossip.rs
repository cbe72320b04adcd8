//! The list of revocations on its way from member to member.

use identity::{Freshness, RevocationEntry, Signed, UnixTime};
use minicbor::{Decode, Encode};

use super::{Applied, MapItem, NetworkMap};
use crate::limits::MAX_GOSSIP;

/// What a member knows of revocations, for another that may know less.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Gossip {
    /// How many entries the list has.
    #[n(0)]
    pub number: u64,
    /// When the list was last known to be current.
    #[n(1)]
    pub fresh_at: Option<UnixTime>,
    /// How many entries the other is thought to have.
    #[n(2)]
    pub after: u64,
    /// The entries that follow, [`MAX_GOSSIP`] at most.
    #[n(3)]
    pub entries: Vec<Signed<RevocationEntry>>,
    /// Proves `fresh_at`.
    #[n(4)]
    pub freshness: Option<Signed<Freshness>>,
}

impl NetworkMap {
    /// What to tell somebody who knows the first `known` entries; the newest ones if that is not known.
    #[must_use]
    pub fn gossip(&self, known: Option<u64>) -> Gossip {
        let number = self.revocations.number();
        let after = known.unwrap_or_else(|| number.saturating_sub(MAX_GOSSIP as u64)).min(number);
        let entries = self.revocations.entries_after(after).iter().take(MAX_GOSSIP);
        Gossip {
            number,
            fresh_at: self.revocations.fresh_at(),
            after,
            entries: entries.cloned().collect(),
            freshness: self.revocations.signed_freshness().cloned(),
        }
    }

    /// Takes over what a member tells, as far as a revoker has signed it and nothing before it is
    /// missing.
    pub fn hear(&mut self, gossip: &Gossip, now: UnixTime) -> Applied {
        let mut applied = Applied::default();
        let numbers = (1..).map(|number| gossip.after.saturating_add(number));
        for (number, signed) in numbers.zip(gossip.entries.iter().take(MAX_GOSSIP)) {
            let known = self.revocations.number();
            if number <= known {
                continue;
            }
            let item = MapItem::Revocation(number, signed.clone());
            if number == known + 1 {
                self.apply_item(&item, &item.to_bytes(), now, &mut applied);
            }
            if self.revocations.number() != number {
                // It is another entry than it was said to be.
                self.raw.items.remove(&item.key());
                break;
            }
        }
        if let Some(signed) = gossip.freshness.as_ref().filter(|_| applied.events.is_empty()) {
            let item = MapItem::Freshness(signed.clone());
            self.apply_item(&item, &item.to_bytes(), now, &mut applied);
        }
        applied.needs_resync = false;
        applied
    }

    /// Whether this map and whoever tells this know a different part of the list, so that another
    /// exchange is of use. Its words are not checked.
    #[must_use]
    pub fn differs_from(&self, gossip: &Gossip) -> bool {
        let (number, fresh_at) = (self.revocations.number(), self.revocations.fresh_at());
        number != gossip.number || fresh_at > gossip.fresh_at
    }
}

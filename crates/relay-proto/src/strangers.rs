//! Connections that are not attached yet, and who of them makes way for newcomers.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use crate::ConnectionId;
use crate::limits::{ATTACH_CHANCE, STRANGERS_PER_PATH};

/// Everybody who is not attached, in the order of arrival.
#[derive(Default)]
pub(crate) struct Strangers {
    waiting: BTreeMap<ConnectionId, Stranger>,
}

struct Stranger {
    source: IpAddr,
    path: String,
    since: Instant,
}

impl Strangers {
    pub(crate) fn insert(&mut self, id: ConnectionId, source: IpAddr, path: String, now: Instant) {
        self.waiting.insert(id, Stranger { source: party(source), path, since: now });
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) {
        self.waiting.remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether as many connections as a client may try at once came by this path, which somebody who
    /// saw it can use again.
    pub(crate) fn is_crowded(&self, path: &str) -> bool {
        self.waiting.values().filter(|stranger| stranger.path == path).count() >= STRANGERS_PER_PATH
    }

    /// Who makes way for somebody from `source`: the oldest of the party that has the most. A party
    /// that has no more than the newcomer's would have loses only who had the time to attach, so
    /// that a crowd that comes back at once does not drive itself out.
    pub(crate) fn to_displace(&self, source: IpAddr, now: Instant) -> Option<ConnectionId> {
        let mut parties: BTreeMap<IpAddr, (usize, Reverse<ConnectionId>)> = BTreeMap::new();
        for (id, stranger) in &self.waiting {
            parties.entry(stranger.source).or_insert((0, Reverse(*id))).0 += 1;
        }
        let own = parties.get(&party(source)).map_or(0, |(count, _)| *count);
        let (count, Reverse(oldest)) = *parties.values().max()?;
        let had_its_chance = |stranger: &Stranger| now >= stranger.since + ATTACH_CHANCE;
        let makes_way = count > own + 1 || self.waiting.get(&oldest).is_some_and(had_its_chance);
        makes_way.then_some(oldest)
    }
}

/// What one party usually holds: an address of IPv4, a /56 of IPv6.
fn party(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 72))),
    }
}

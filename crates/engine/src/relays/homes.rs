//! At which relays a device is at home: near ones that are well, spread over all devices by lot.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use blake2::digest::{FixedOutput, Update};
use blake2::{Blake2s256, Digest};
use control_proto::RelayHealth;
use identity::{DeviceId, RelayEntry, UnixTime};

/// Relays at which a device can be reached: one more than is needed, for the day when one dies.
const HOMES: usize = 2;
/// Between two looks at what has changed without anybody telling.
const REVIEW: Duration = Duration::from_secs(60);
/// After a change of network: the nearest relays have answered by then, and their first question may be lost.
const SETTLE: Duration = Duration::from_secs(2);
/// Attempts to reach a relay that fail in a row before another one takes its place.
const BLAMED_AFTER: u32 = 2;
/// A relay that was not reached is none for so long; doubled each time.
const BLAMED_FOR: Duration = Duration::from_secs(60);
/// The longest time.
const BLAMED_LONGEST: Duration = Duration::from_secs(3_600);
/// Relays of which it is found out over streams how far they are.
const MAX_MEASURED: usize = 16;
/// Where this device is at home, and what speaks for one relay or another beside the map.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    chosen: Vec<Home>,
    /// The relays that were not reached.
    blamed: BTreeMap<DeviceId, Blame>,
    /// How long relays took to answer over streams, for when no datagrams tell.
    measured: BTreeMap<DeviceId, Duration>,
    /// The relays of the last choice, and until when some of them may not have had the time to answer.
    seen: BTreeSet<DeviceId>,
    unsettled_until: Option<Instant>,
    review_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Home {
    relay: DeviceId,
    /// Which choice this was, of those that the network wants to be made from time to time; none if it was not known how far
    /// all relays are.
    turn: Option<u64>,
}

/// A relay was not reached so often, and counts as out of reach until then.
#[derive(Clone, Copy, Debug)]
struct Blame {
    times: u32,
    until: Instant,
}

/// Whose homes are looked for, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chooser {
    pub(crate) device: DeviceId,
    /// Seconds after which the network wants others to be chosen; 0 for never.
    pub(crate) rotation: u32,
    pub(crate) wall: UnixTime,
}

/// What is known of a relay that serves this device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prospect<'a> {
    pub(crate) entry: &'a RelayEntry,
    pub(crate) health: RelayHealth,
    pub(crate) is_attached: bool,
    /// There and back, by datagrams.
    pub(crate) distance: Option<Duration>,
}

impl Homes {
    /// The relays, the preferred first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = DeviceId> {
        self.chosen.iter().map(|home| home.relay)
    }

    pub(crate) fn contains(&self, relay: DeviceId) -> bool {
        self.iter().any(|home| home == relay)
    }

    /// How far a relay is, as far as streams tell.
    pub(crate) fn measured(&self, relay: DeviceId) -> Option<Duration> {
        self.measured.get(&relay).copied()
    }

    /// A stream to a relay was made, with so long a round trip.
    pub(crate) fn handle_attached(&mut self, relay: DeviceId, round_trip: Option<Duration>) {
        self.blamed.remove(&relay);
        if let Some(round_trip) = round_trip {
            self.measured.insert(relay, round_trip);
        }
    }

    /// So many attempts to reach a relay have failed in a row.
    pub(crate) fn handle_failures(&mut self, relay: DeviceId, failures: u32, now: Instant) {
        if failures < BLAMED_AFTER || !self.contains(relay) || self.is_out(relay, now) {
            return;
        }
        let times = self.blamed.get(&relay).map_or(0, |blame| blame.times);
        let wait = BLAMED_FOR.saturating_mul(1 << times.min(6)).min(BLAMED_LONGEST);
        self.blamed.insert(relay, Blame { times: times.saturating_add(1), until: now + wait });
        self.look_after(Duration::ZERO, now);
    }

    fn is_out(&self, relay: DeviceId, now: Instant) -> bool {
        self.blamed.get(&relay).is_some_and(|blame| blame.until > now)
    }

    /// What was found out about relays counts no more: they are looked at when some have answered.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        self.measured.clear();
        self.seen.clear();
        self.pardon(now);
    }

    /// Relays that were not reached may be now.
    pub(crate) fn pardon(&mut self, now: Instant) {
        self.blamed.clear();
        self.look_after(SETTLE, now);
    }

    fn look_after(&mut self, wait: Duration, now: Instant) {
        let at = now + wait;
        self.review_at = Some(self.review_at.map_or(at, |before| before.min(at)));
    }

    /// Whether it is time to look.
    pub(crate) fn take_review(&mut self, now: Instant) -> bool {
        self.review_at.take_if(|at| *at <= now).is_some()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.review_at.map(|at| (at, "review of relays"))
    }

    /// Relays to which a stream shows how far they are, since datagrams do not tell of any: a few at a time.
    pub(crate) fn unknown(&self, prospects: &[Prospect<'_>], now: Instant) -> Vec<DeviceId> {
        let is_told = prospects.iter().any(|prospect| prospect.distance.is_some());
        if is_told || prospects.len() <= HOMES || self.measured.len() >= MAX_MEASURED {
            return Vec::new();
        }
        let unknown = |relay: &DeviceId| {
            !self.measured.contains_key(relay)
                && !self.contains(*relay)
                && !self.is_out(*relay, now)
        };
        let healthy = prospects.iter().filter(|prospect| prospect.health.healthy);
        healthy.map(|prospect| prospect.entry.device).filter(unknown).take(HOMES).collect()
    }

    /// Chooses anew; true if there are other homes than before. None that is attached is left before another one is.
    pub(crate) fn choose(
        &mut self,
        prospects: &[Prospect<'_>],
        chooser: Chooser,
        now: Instant,
    ) -> bool {
        let known = |relay| prospects.iter().any(|prospect| prospect.entry.device == relay);
        self.chosen.retain(|home| known(home.relay));
        self.measured.retain(|relay, _| known(*relay));
        self.blamed.retain(|relay, _| known(*relay));
        let seen = prospects.iter().map(|prospect| prospect.entry.device).collect();
        if !self.seen.is_superset(&seen) {
            self.unsettled_until = Some(now + SETTLE);
        }
        self.seen = seen;
        let turn = self.is_settled(now).then(|| chooser.turn());
        let mut wanted = self.best(prospects, chooser, now);
        let stands = |relay: DeviceId| {
            prospects.iter().any(|prospect| prospect.entry.device == relay && prospect.is_attached)
        };
        let is_safe = wanted.len() < HOMES || wanted.iter().any(|relay| stands(*relay));
        let last = self.chosen.iter().rfind(|home| !is_safe && stands(home.relay));
        let is_half = last.is_some();
        if let Some(last) = last {
            wanted[HOMES - 1] = last.relay;
        }
        let before = std::mem::take(&mut self.chosen);
        let stays = |relay| before.iter().find(|home| home.relay == relay && is_half).copied();
        let home = |relay| stays(relay).unwrap_or(Home { relay, turn });
        self.chosen = wanted.into_iter().map(home).collect();
        self.look_after(if turn.is_none() || is_half { SETTLE } else { REVIEW }, now);
        !before.iter().map(|home| home.relay).eq(self.iter())
    }

    fn is_settled(&self, now: Instant) -> bool {
        self.unsettled_until.is_none_or(|until| until <= now)
    }

    fn best(&self, prospects: &[Prospect<'_>], chooser: Chooser, now: Instant) -> Vec<DeviceId> {
        let (turn, is_settled) = (chooser.turn(), self.is_settled(now));
        let is_out = |relay| self.is_out(relay, now);
        let distance = |prospect: &Prospect<'_>| {
            prospect.distance.or_else(|| self.measured(prospect.entry.device))
        };
        let usable = prospects
            .iter()
            .filter(|prospect| prospect.health.healthy && !is_out(prospect.entry.device));
        let nearest = usable.filter_map(distance).min();
        let mut best: Vec<&Prospect<'_>> = Vec::new();
        while best.len() < HOMES {
            let first = best.first().map(|first| &*first.entry.region);
            let rank = |prospect: &&Prospect<'_>| {
                let relay = prospect.entry.device;
                let home = Home { relay, turn: Some(turn) };
                let is_home = is_settled && self.chosen.contains(&home);
                let is_apart = first.is_some_and(|first| first != prospect.entry.region);
                let load = if is_home { 0 } else { prospect.health.load };
                Rank {
                    is_unwell: !prospect.health.healthy,
                    is_out: is_out(relay) && !prospect.is_attached,
                    nearness: Nearness::of(distance(prospect), nearest, (is_home, is_apart)),
                    is_beside: first.is_some() && !is_apart,
                    is_new: !is_home,
                    lot: Reverse(Lot(chooser.lot(relay, turn, load))),
                }
            };
            let rest = prospects.iter().filter(|prospect| {
                best.iter().all(|chosen| chosen.entry.device != prospect.entry.device)
            });
            let Some(next) = rest.min_by_key(rank) else { break };
            best.push(next);
        }
        best.into_iter().map(|prospect| prospect.entry.device).collect()
    }
}

impl Chooser {
    /// Which choice is due. Devices make theirs at different times.
    fn turn(self) -> u64 {
        let Some(period) = std::num::NonZeroU64::new(self.rotation.into()) else { return 0 };
        let [a, b, c, d, ..] = *self.device.as_bytes();
        let offset = u64::from(u32::from_be_bytes([a, b, c, d])) % period;
        1 + (self.wall.0 + offset) / period
    }

    /// Spreads devices over relays without anybody deciding it, by what relays have left (weighted rendezvous hashing).
    fn lot(self, relay: DeviceId, turn: u64, load: u8) -> f64 {
        let hash = Blake2s256::new().chain(self.device.as_bytes()).chain(relay.as_bytes());
        let bytes: [u8; 32] = hash.chain(turn.to_be_bytes()).finalize_fixed().into();
        let [a, b, c, d, ..] = bytes;
        let uniform = (f64::from(u32::from_be_bytes([a, b, c, d])) + 0.5) / 4_294_967_296.0;
        // Who is full may still be the only one.
        let left = f64::from(4 - load.min(4)).max(0.01);
        -left / uniform.ln()
    }
}

/// What makes one relay preferable to another, in this order; the least is the best.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_unwell: bool,
    is_out: bool,
    nearness: Nearness,
    /// Whether it is where the first home is, and may fail with it.
    is_beside: bool,
    is_new: bool,
    lot: Reverse<Lot>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    /// About as near as the nearest.
    Near,
    Unknown,
    Far(Duration),
}

impl Nearness {
    /// A home is left for a clearly nearer relay only, and another region may be farther away.
    fn of(
        distance: Option<Duration>,
        nearest: Option<Duration>,
        (is_home, is_apart): (bool, bool),
    ) -> Self {
        let (Some(distance), Some(nearest)) = (distance, nearest) else { return Self::Unknown };
        let millis = Duration::from_millis;
        let bound = if is_apart { nearest * 2 + millis(40) } else { nearest * 5 / 4 + millis(5) };
        let grace = if is_home { nearest / 4 + millis(15) } else { Duration::ZERO };
        if distance <= bound + grace { Self::Near } else { Self::Far(distance) }
    }
}

#[derive(Debug)]
struct Lot(f64);

impl Ord for Lot {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Lot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Lot {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Lot {}

#[cfg(test)]
mod tests {
    use identity::ChannelPublicKey;

    use super::*;

    #[test]
    fn no_home_is_left_before_another_one_is_attached() {
        let device = DeviceId::from_bytes([9; 32]);
        let entries = [1, 2, 3, 4].map(|number| RelayEntry {
            device: DeviceId::from_bytes([number; 32]),
            channel_key: ChannelPublicKey::from_bytes([number; 32]),
            servers: Vec::new(),
            stun: Vec::new(),
            region: String::new(),
            groups: Vec::new(),
        });
        let prospects = |millis: [u64; 4], attached: [bool; 4]| {
            let each = entries.iter().zip(millis).zip(attached);
            let prospect = |((entry, millis), is_attached)| Prospect {
                entry,
                health: RelayHealth::default(),
                is_attached,
                distance: Some(Duration::from_millis(millis)),
            };
            each.map(prospect).collect::<Vec<_>>()
        };
        let chooser = Chooser { device, rotation: 0, wall: UnixTime(1_800_000_000) };
        let (mut homes, begin) = (Homes::default(), Instant::now());
        let is_home =
            |homes: &Homes| [0, 1, 2, 3].map(|place| homes.contains(entries[place].device));
        homes.choose(&prospects([10, 10, 500, 500], [true; 4]), chooser, begin);
        let now = begin + SETTLE;
        homes.choose(&prospects([10, 10, 500, 500], [true; 4]), chooser, now);
        assert_eq!(is_home(&homes), [true, true, false, false]);
        let others_are_near = [500, 500, 10, 10];
        homes.choose(&prospects(others_are_near, [true, true, false, false]), chooser, now);
        let [a, b, c, d] = is_home(&homes);
        assert!(a != b && c != d, "one stays for as long as no other is attached");
        homes.choose(&prospects(others_are_near, [true, true, c, d]), chooser, now);
        assert_eq!(is_home(&homes), [false, false, true, true]);
    }
}

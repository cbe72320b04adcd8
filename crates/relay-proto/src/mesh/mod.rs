//! What a relay knows of the others of a network: who they have, and how to get there.
//!
//! Each relay speaks for itself, in numbered words ([`origin`]): which devices are attached, each as the device signed it,
//! and how far its neighbours are. Neighbours tell each other once how much they know of everybody, and from then on what
//! is new, piece by piece as the stream takes it: what a neighbour does not have yet is looked up when it has room, so that
//! nothing waits in queues and a relay that changes often costs no more than its newest words. From everybody's links
//! follows the shortest way to each ([`routes`]). Along it, in reverse, goes what a relay says, so that each hears it once
//! (reverse path forwarding, Dalal and Metcalfe, 1978); neighbours compare what they know once a minute, in case somebody
//! was left out while ways changed.

pub(crate) mod message;
mod origin;
mod partners;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use identity::{Attachment, DeviceId, NetworkId, Signed};
use noise_channel::UnixMillis;

use self::message::{Delta, Distance, MeshMessage, Standing, Version, Word};
use self::origin::Origin;
pub(crate) use self::partners::partners;
use self::routes::{Topology, Way};
use crate::serving::ConnectionId;

/// How often neighbours are pinged. One that has not answered by the next ping is none until it does.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Round trips of which the shortest is the distance, those of a minute: queues and shaping add to single ones what no way has.
const ROUND_TRIPS: usize = 12;
/// A distance is told anew when it has changed by a quarter and so much.
const NOTABLE: Duration = Duration::from_millis(2);
/// How long news about links is gathered before it is told, and before ways are looked for anew. What this relay itself has
/// lost counts at once.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the links of a relay seem that is to be gone round: longer than any way.
const DETOUR: Duration = Duration::from_secs(600);
/// How far a relay's start may be ahead of our clock.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 3600);
/// Pings from one comparison of what is known to the next.
const COMPARISON: u64 = 12;
/// Answers that may wait for a neighbour; whoever asks faster than it reads gets fewer.
const MAX_ANSWERS: usize = 16;
/// Relays in one message about what is known.
const KNOWN_AT_ONCE: usize = 512;

/// One relay's view of the relays of one network.
#[derive(Debug)]
pub(crate) struct Mesh {
    network: NetworkId,
    own: DeviceId,
    /// The other relays of the network: nobody else's word counts.
    relays: BTreeSet<DeviceId>,
    /// What each said of itself, this one among them.
    origins: BTreeMap<DeviceId, Origin>,
    /// Which relays say to have a device, and whether the device says so too.
    places: BTreeMap<(DeviceId, DeviceId), Trust>,
    neighbours: BTreeMap<ConnectionId, Neighbour>,
    topology: Option<Topology>,
    next_ping: Option<Instant>,
    pings: u64,
    /// Whether others are to go round this relay.
    is_draining: bool,
    /// Whether it serves some of the network's members only.
    is_private: bool,
    /// When to say how far neighbours are.
    say_at: Option<Instant>,
    /// When to look for ways anew.
    look_at: Option<Instant>,
}

/// Whether a device signed that it is where a relay says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Nobody wanted to know yet.
    Unchecked,
    Good,
    Bad,
}

/// A relay to which there is a link.
#[derive(Debug)]
struct Neighbour {
    relay: DeviceId,
    /// How far it knows everybody, once it has said so.
    known: Option<BTreeMap<DeviceId, Version>>,
    /// Of whom it may not know everything.
    behind: BTreeSet<DeviceId>,
    /// Of whom it has itself said to know too little.
    misses: BTreeSet<DeviceId>,
    answers: VecDeque<MeshMessage>,
    /// The ping that has no answer.
    ping: Option<(u64, Instant)>,
    /// The last round trips.
    round_trips: VecDeque<Duration>,
    /// Pings so far.
    pings: u64,
}

impl Mesh {
    pub(crate) fn new(network: NetworkId, own: DeviceId, now: UnixMillis) -> Self {
        Self {
            network,
            own,
            relays: BTreeSet::new(),
            origins: BTreeMap::from([(own, Origin::new(now.0))]),
            places: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            topology: None,
            next_ping: None,
            pings: 0,
            is_draining: false,
            is_private: false,
            say_at: None,
            look_at: None,
        }
    }

    /// Takes over which relays the network has; true if that is news.
    pub(crate) fn set_relays(&mut self, relays: impl IntoIterator<Item = DeviceId>) -> bool {
        let relays: BTreeSet<_> = relays.into_iter().filter(|relay| *relay != self.own).collect();
        if relays == self.relays {
            return false;
        }
        let before = std::mem::replace(&mut self.relays, relays);
        for gone in before.difference(&self.relays) {
            for device in self.origins.remove(gone).iter().flat_map(Origin::devices) {
                self.places.remove(&(device, *gone));
            }
        }
        let new: Vec<_> = self.relays.difference(&before).copied().collect();
        for neighbour in self.neighbours.values_mut() {
            // What it said of these was not believed before.
            neighbour.answer(MeshMessage::Known(new.iter().map(|relay| unknown(*relay)).collect()));
        }
        self.topology = None;
        true
    }

    /// The other relays of the network.
    pub(crate) fn relays(&self) -> &BTreeSet<DeviceId> {
        &self.relays
    }

    /// Whether there is a link to a relay.
    pub(crate) fn is_linked(&self, relay: DeviceId) -> bool {
        self.neighbours.values().any(|neighbour| neighbour.relay == relay)
    }

    /// A device is attached here.
    pub(crate) fn say_attached(&mut self, device: DeviceId, attachment: Signed<Attachment>) {
        self.say(Word::Attached(device, attachment));
    }

    /// It is no more.
    pub(crate) fn say_detached(&mut self, device: DeviceId) {
        self.say(Word::Detached(device));
    }

    /// Has others go round this relay, or no longer: its own links seem long to them.
    pub(crate) fn set_draining(&mut self, is_draining: bool) {
        self.is_draining = is_draining;
        self.say_links();
    }

    /// Has others go round this relay for good, or no longer.
    pub(crate) fn set_private(&mut self, is_private: bool) {
        if std::mem::replace(&mut self.is_private, is_private) != is_private {
            self.say_links();
        }
    }

    /// A link to a relay stands.
    pub(crate) fn handle_link(&mut self, link: ConnectionId, relay: DeviceId, now: Instant) {
        let mut neighbour = Neighbour {
            relay,
            known: None,
            behind: BTreeSet::new(),
            misses: BTreeSet::new(),
            answers: VecDeque::new(),
            ping: None,
            round_trips: VecDeque::new(),
            pings: 0,
        };
        for known in self.standings().chunks(KNOWN_AT_ONCE) {
            neighbour.answer(MeshMessage::Known(known.to_vec()));
        }
        neighbour.ping(&mut self.pings, now);
        self.neighbours.insert(link, neighbour);
        self.next_ping.get_or_insert(now + PING_INTERVAL);
    }

    /// A link to a relay has ended.
    pub(crate) fn handle_closed(&mut self, link: ConnectionId) {
        if self.neighbours.remove(&link).is_some() {
            self.say_links();
        }
        if self.neighbours.is_empty() {
            self.next_ping = None;
        }
    }

    /// Takes a neighbour's message; false if it is none.
    pub(crate) fn handle_message(
        &mut self,
        link: ConnectionId,
        bytes: &[u8],
        now: (Instant, UnixMillis),
    ) -> bool {
        let Some(message) = MeshMessage::from_bytes(bytes) else { return false };
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return true };
        match message {
            MeshMessage::Ping(number) => neighbour.answer(MeshMessage::Pong(number)),
            MeshMessage::Pong(number) => {
                if let Some((_, since)) = neighbour.ping.take_if(|(asked, _)| *asked == number) {
                    self.handle_round_trip(link, now.0.saturating_duration_since(since), now.0);
                }
            }
            MeshMessage::Known(known) => self.handle_known(link, known, now.1),
            MeshMessage::Delta(delta) => self.handle_delta(link, delta, now),
        }
        true
    }

    /// Pings neighbours, and gives up those that did not answer.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.say_at.take_if(|at| *at <= now).is_some() {
            self.say_links();
        }
        if self.look_at.take_if(|at| *at <= now).is_some() {
            self.look_anew();
        }
        if self.next_ping.take_if(|at| *at <= now).is_none() {
            return;
        }
        let mut is_lost = false;
        let standings = self.standings();
        for neighbour in self.neighbours.values_mut() {
            if neighbour.ping.is_some() && neighbour.distance().is_some() {
                neighbour.round_trips.clear();
                is_lost = true;
            }
            neighbour.ping(&mut self.pings, now);
            if neighbour.pings % COMPARISON == 0 {
                for known in standings.chunks(KNOWN_AT_ONCE) {
                    neighbour.answer(MeshMessage::Known(known.to_vec()));
                }
            }
        }
        self.next_ping = Some(now + PING_INTERVAL);
        if is_lost {
            self.say_links();
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.next_ping, self.say_at, self.look_at].into_iter().flatten().min()
    }

    /// The links for which there is a message.
    pub(crate) fn ready(&self) -> impl Iterator<Item = ConnectionId> {
        let has_message = |neighbour: &Neighbour| {
            !neighbour.answers.is_empty()
                || (neighbour.known.is_some() && !neighbour.behind.is_empty())
        };
        let ready = self.neighbours.iter().filter(move |(_, neighbour)| has_message(neighbour));
        ready.map(|(link, _)| *link)
    }

    /// The next message for a neighbour whose stream takes one.
    pub(crate) fn poll_message(&mut self, link: ConnectionId) -> Option<Vec<u8>> {
        if let Some(answer) = self.neighbours.get_mut(&link)?.answers.pop_front() {
            return Some(answer.to_bytes());
        }
        loop {
            let neighbour = self.neighbours.get(&link)?;
            let known = neighbour.known.as_ref()?;
            let (relay, origin) = (neighbour.relay, *neighbour.behind.first()?);
            let known = known.get(&origin).copied().unwrap_or_default();
            let is_missing = neighbour.misses.contains(&origin) || self.tells(relay, origin);
            let said = self.origins.get(&origin).filter(|_| origin != relay && is_missing);
            let delta = said.and_then(|said| said.after(origin, known));
            let neighbour = self.neighbours.get_mut(&link)?;
            match (delta, &mut neighbour.known) {
                (Some(delta), Some(known)) => {
                    known.insert(origin, delta.to);
                    return Some(MeshMessage::Delta(delta).to_bytes());
                }
                _ => {
                    neighbour.behind.pop_first();
                    neighbour.misses.remove(&origin);
                }
            }
        }
    }

    /// The link over which a device is reached that is attached elsewhere, that relay, and over how many relays it may go
    /// there. It never goes back to `from`.
    pub(crate) fn next_hop(
        &mut self,
        device: DeviceId,
        from: Option<ConnectionId>,
    ) -> Option<(ConnectionId, DeviceId)> {
        let back = from.and_then(|link| self.neighbours.get(&link)).map(|back| back.relay);
        let first = (device, DeviceId::from_bytes([0; 32]));
        let last = (device, DeviceId::from_bytes([0xff; 32]));
        let places = self.places.range(first..=last).filter(|(_, trust)| **trust != Trust::Bad);
        let relays: Vec<_> = places.map(|((_, relay), _)| *relay).collect();
        let ways = self.ways(self.own);
        let mut ways: Vec<_> =
            relays.into_iter().filter_map(|relay| Some((*ways.get(&relay)?, relay))).collect();
        ways.sort_unstable();
        let mut ways = ways.into_iter().filter(|(way, _)| Some(way.next) != back);
        let (way, _) = ways.find(|(_, relay)| self.is_there(device, *relay))?;
        let links = self.neighbours.iter().filter(|(_, neighbour)| neighbour.relay == way.next);
        let link = links.min_by_key(|(_, neighbour)| neighbour.distance().unwrap_or(Duration::MAX));
        link.map(|(link, _)| (*link, way.next))
    }

    /// How many relays can be reached, and how many devices are attached to them.
    pub(crate) fn reach(&mut self) -> (usize, usize) {
        let relays: Vec<_> = self.ways(self.own).keys().copied().collect();
        let devices = relays.iter().filter_map(|relay| self.origins.get(relay));
        let devices = devices.map(|said| said.devices().count()).sum();
        (relays.len(), devices)
    }

    /// Whether a device has signed that it is attached to a relay that says so.
    fn is_there(&mut self, device: DeviceId, relay: DeviceId) -> bool {
        let Some(trust) = self.places.get_mut(&(device, relay)) else { return false };
        if *trust == Trust::Unchecked {
            let attachment = self.origins.get(&relay).and_then(|said| said.attachment(device));
            let is_good = attachment
                .and_then(|signed| signed.verify(self.network, device).ok())
                .is_some_and(|attachment| attachment.relay == relay);
            *trust = if is_good { Trust::Good } else { Trust::Bad };
        }
        *trust == Trust::Good
    }

    fn standings(&self) -> Vec<Standing> {
        let standing = |(origin, said): (&DeviceId, &Origin)| Standing {
            origin: *origin,
            version: said.version(),
        };
        self.origins.iter().map(standing).collect()
    }

    /// The shortest ways from a relay, as this one sees it.
    fn ways(&mut self, from: DeviceId) -> &BTreeMap<DeviceId, Way> {
        let origins = &self.origins;
        self.topology.get_or_insert_with(|| Topology::new(origins)).ways(from)
    }

    /// Whether a neighbour is told of a relay from here: if the way from there to that relay begins here, or if nobody
    /// knows one.
    fn tells(&mut self, neighbour: DeviceId, origin: DeviceId) -> bool {
        let own = self.own;
        origin == own || self.ways(neighbour).get(&origin).is_none_or(|way| way.next == own)
    }

    /// Links have changed: there are other ways, and others may be told from here.
    fn look_anew(&mut self) {
        self.topology = None;
        let all = || self.origins.keys();
        self.neighbours.values_mut().for_each(|neighbour| neighbour.behind.extend(all()));
    }

    fn say(&mut self, word: Word) {
        self.origins.entry(self.own).or_default().say(word);
        self.spread(self.own, None);
    }

    /// Says which neighbours there are, if that is news.
    fn say_links(&mut self) {
        let mut links: BTreeMap<DeviceId, u32> = BTreeMap::new();
        for neighbour in self.neighbours.values() {
            if let Some(distance) = neighbour.distance() {
                let is_avoided = self.is_draining || self.is_private;
                let least = if is_avoided { DETOUR } else { Duration::ZERO };
                let micros = u32::try_from(distance.max(least).as_micros()).unwrap_or(u32::MAX);
                let least = links.entry(neighbour.relay).or_insert(micros);
                *least = micros.min(*least);
            }
        }
        let said: BTreeMap<_, _> = self
            .origins
            .get(&self.own)
            .map(Origin::links)
            .unwrap_or_default()
            .iter()
            .map(|distance| (distance.relay, distance.micros))
            .collect();
        let is_news = said.len() != links.len()
            || links.iter().any(|(relay, micros)| {
                said.get(relay).is_none_or(|said| is_notable(*said, *micros))
            });
        if is_news {
            let links = links.into_iter().map(|(relay, micros)| Distance { relay, micros });
            self.say(Word::Links(links.collect()));
            self.look_anew();
        }
    }

    /// Everybody but who told it is to hear what is new of a relay.
    fn spread(&mut self, origin: DeviceId, except: Option<ConnectionId>) {
        let others = self.neighbours.iter_mut().filter(|(link, _)| Some(**link) != except);
        others.for_each(|(_, neighbour)| neighbour.behind.extend([origin]));
    }

    fn handle_round_trip(&mut self, link: ConnectionId, measured: Duration, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        neighbour.round_trips.push_back(measured);
        if neighbour.round_trips.len() > ROUND_TRIPS {
            neighbour.round_trips.pop_front();
        }
        self.say_at.get_or_insert(now + SETTLE);
    }

    /// A neighbour says how far it knows everybody, or some again.
    fn handle_known(&mut self, link: ConnectionId, known: Vec<Standing>, wall: UnixMillis) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        if neighbour.known.is_none() {
            neighbour.known = Some(BTreeMap::new());
            neighbour.behind.extend(self.origins.keys());
            neighbour.misses.extend(self.origins.keys());
        }
        let mut of_us = Version::default();
        for Standing { origin, version } in known.into_iter().take(KNOWN_AT_ONCE) {
            if origin == self.own {
                of_us = version;
            }
            if self.origins.contains_key(&origin) {
                neighbour.behind.insert(origin);
                neighbour.misses.insert(origin);
                neighbour.known.get_or_insert_default().insert(origin, version);
            }
        }
        if is_possible(of_us, wall) {
            self.outdo(of_us);
        }
    }

    /// Somebody knows more of this relay than it said: in another life, when the clock was ahead.
    fn outdo(&mut self, known: Version) {
        let own = self.origins.entry(self.own).or_default();
        if known > own.version() {
            own.begin_run(known.run.saturating_add(1));
            self.spread(self.own, None);
        }
    }

    fn handle_delta(&mut self, link: ConnectionId, delta: Delta, now: (Instant, UnixMillis)) {
        let (origin, to) = (delta.origin, delta.to);
        if !is_possible(to, now.1) {
            return;
        }
        if origin == self.own {
            return self.outdo(to);
        }
        if !self.relays.contains(&origin) {
            return;
        }
        let said = self.origins.entry(origin).or_default();
        let before = said.version();
        let mut about = Vec::new();
        let is_about_links =
            delta.changes.iter().any(|change| matches!(change.word, Word::Links(_)));
        let follows = said.apply(delta, |device| about.push(device));
        for device in about {
            if said.attachment(device).is_some() {
                self.places.insert((device, origin), Trust::Unchecked);
            } else {
                self.places.remove(&(device, origin));
            }
        }
        let after = said.version();
        if let Some(neighbour) = self.neighbours.get_mut(&link) {
            if follows {
                if let Some(known) = &mut neighbour.known {
                    let known = known.entry(origin).or_default();
                    *known = to.max(*known);
                }
            } else {
                neighbour.answer(MeshMessage::Known(vec![Standing { origin, version: before }]));
            }
        }
        if after != before {
            self.spread(origin, Some(link));
        }
        if is_about_links {
            self.look_at.get_or_insert(now.0 + SETTLE);
        }
    }
}

impl Neighbour {
    /// Asks for a pong with the number after `last`, which that becomes.
    fn ping(&mut self, last: &mut u64, now: Instant) {
        *last += 1;
        self.pings += 1;
        self.ping = Some((*last, now));
        self.answer(MeshMessage::Ping(*last));
    }

    /// How far it is, once it has answered.
    fn distance(&self) -> Option<Duration> {
        self.round_trips.iter().min().copied()
    }

    fn answer(&mut self, message: MeshMessage) {
        if self.answers.len() < MAX_ANSWERS {
            self.answers.push_back(message);
        }
    }
}

/// Whether a relay may have started when a version says.
fn is_possible(version: Version, wall: UnixMillis) -> bool {
    let ahead = u64::try_from(MAX_AHEAD.as_millis()).unwrap_or(u64::MAX);
    version.run <= wall.0.saturating_add(ahead)
}

const fn unknown(origin: DeviceId) -> Standing {
    Standing { origin, version: Version { run: 0, number: 0 } }
}

/// Whether a distance, in microseconds, has changed enough to tell everybody.
fn is_notable(said: u32, now: u32) -> bool {
    let change = said.abs_diff(now);
    change > said / 4 && u128::from(change) > NOTABLE.as_micros()
}

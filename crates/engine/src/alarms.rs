//! Security events on their way out: equal ones are told once a minute, refusals are counted first.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use control_proto::{Repeats, SecurityEvent, TunnelRefusal, limits::FRESHNESS_STALE};
use identity::DeviceId;

/// Refusals of one kind are told once within this time.
const PERIOD: Duration = Duration::from_secs(60);
/// Peers and kinds of refusals that are told apart; the rest is counted without the peer.
const MAX_TALLIES: usize = 256;
/// A node that has just started, or was asleep, hears within this time whether the list of revocations is
/// current.
const NEWS_WITHIN: Duration = Duration::from_secs(60);

/// What was told lately, what is being counted, and what is to be told.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    repeats: Repeats,
    tallies: BTreeMap<(Option<DeviceId>, TunnelRefusal), Tally>,
    ready: VecDeque<SecurityEvent>,
    stale: Option<Stale>,
}

/// The last word about revocations is too old.
#[derive(Clone, Copy, Debug)]
struct Stale {
    since: Instant,
    told: bool,
}

#[derive(Debug)]
struct Tally {
    since: Instant,
    quiet_until: Option<Instant>,
    count: u64,
}

/// How many refusals within a period are worth an alarm. Networks double and damage datagrams, maps
/// arrive late, devices change keys, and ports are scanned: all of that looks like an attack in small numbers.
const fn least(what: TunnelRefusal) -> u64 {
    match what {
        TunnelRefusal::ForeignSource => 1,
        TunnelRefusal::FailedHandshake | TunnelRefusal::UnknownPeer => 3,
        TunnelRefusal::ForgedPacket | TunnelRefusal::ReplayedHandshake => 10,
        TunnelRefusal::ReplayedPacket => 100,
        TunnelRefusal::Flood => 1_000,
        TunnelRefusal::Noise => 10_000,
    }
}

impl Alarms {
    /// Something happened that is worth telling by itself.
    pub(crate) fn raise(&mut self, event: SecurityEvent, now: Instant) {
        if self.repeats.admit(&event, now) {
            self.ready.push_back(event);
        }
    }

    /// A tunnel refused something.
    pub(crate) fn tally(
        &mut self,
        device: Option<DeviceId>,
        what: TunnelRefusal,
        count: u64,
        now: Instant,
    ) {
        let is_full = self.tallies.len() >= MAX_TALLIES;
        let key = match (device, what) {
            known if self.tallies.contains_key(&known) => known,
            (_, what) if is_full => (None, what),
            new => new,
        };
        let new = || Tally { since: now, quiet_until: None, count: 0 };
        self.tallies.entry(key).or_insert_with(new).count += count;
    }

    /// Turns what was counted into events.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let ready = &mut self.ready;
        self.tallies.retain(|(device, what), tally| {
            if tally.quiet_until.is_some_and(|until| now < until) {
                return true;
            }
            if tally.count >= least(*what) {
                let (device, what, count) = (*device, *what, std::mem::take(&mut tally.count));
                ready.push_back(SecurityEvent::TunnelRefusals { device, what, count });
                (tally.since, tally.quiet_until) = (now, Some(now + PERIOD));
                return true;
            }
            now < tally.since + PERIOD
        });
        ready.extend(self.repeats.poll_suppressed(now));
    }

    /// Takes note of how many seconds ago the list of revocations was last known to be current.
    pub(crate) fn note_freshness(&mut self, seconds: u64, now: Instant) {
        if seconds <= FRESHNESS_STALE.as_secs() {
            self.stale = None;
            return;
        }
        let stale = self.stale.get_or_insert(Stale { since: now, told: false });
        if !stale.told && now >= stale.since + NEWS_WITHIN {
            stale.told = true;
            self.raise(SecurityEvent::StaleRevocations { seconds }, now);
        }
    }

    /// Whether revocations may be withheld from this device.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.is_some_and(|stale| stale.told)
    }

    pub(crate) fn poll(&mut self) -> Option<SecurityEvent> {
        self.ready.pop_front()
    }
}

//! When to ask the peer to probe, and what to say of the ports that our own probes will get.

use std::time::{Duration, Instant};

use crate::guesses::OwnPorts;
use crate::translator::PortSequence;

/// Between call-me-maybes while no direct path is proven.
const CALL_AGAIN: Duration = Duration::from_secs(30);
/// Least time between two call-me-maybes, so that two peers do not answer each other for ever.
const CALL_PAUSE: Duration = Duration::from_secs(2);
/// Who has called within this need not answer a call: each knows what the other has to say.
const ANSWERED: Duration = Duration::from_secs(10);
/// Probes and calls wait for a survey for at most this long; other peers' surveys may come first.
const HELD: Duration = Duration::from_secs(3);
/// A survey that has found no count is made again after this if the peer's translator counts.
const SURVEY_AGAIN: Duration = Duration::from_secs(25);
/// What was surveyed within this is near enough for a destination that turned up since.
const RECENT: Duration = Duration::from_secs(1);

/// Call-me-maybes to one peer, and the state of our ports that they tell.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    called: Option<Instant>,
    next: Option<Instant>,
    /// Whether our translator gives each destination a port of its own, if that is known.
    dependent: Option<bool>,
    ports: Option<OwnPorts>,
    surveyed: Option<Instant>,
    held_until: Option<Instant>,
}

impl Calls {
    /// Schedules a call as soon as the pause allows.
    pub(crate) fn schedule(&mut self, now: Instant) {
        let earliest = self.called.map_or(now, |called| now.max(called + CALL_PAUSE));
        self.next = Some(self.next.map_or(earliest, |next| next.min(earliest)));
    }

    /// The peer has called: it is called back, unless it just was and this device has not `wanted` a path.
    pub(crate) fn answer(&mut self, wanted: bool, now: Instant) {
        if wanted || self.called.is_none_or(|called| now >= called + ANSWERED) {
            self.schedule(now);
        }
    }

    /// When the next call is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next.map(|next| self.held_until.map_or(next, |until| next.max(until)))
    }

    /// Takes the call that is due; false if none is. The next one follows by itself if this device has `wanted` a path.
    pub(crate) fn take(&mut self, wanted: bool, now: Instant) -> bool {
        let is_due = self.due().is_some_and(|at| at <= now);
        if is_due {
            self.next = wanted.then_some(now + CALL_AGAIN);
        }
        is_due
    }

    /// A call was sent.
    pub(crate) fn handle_sent(&mut self, now: Instant) {
        self.called = Some(now);
    }

    /// Nobody has to be called any more.
    pub(crate) fn stop(&mut self) {
        self.next = None;
    }

    /// Whether our translator gives each destination a port of its own.
    pub(crate) fn set_dependent(&mut self, dependent: Option<bool>) {
        self.dependent = dependent;
        if dependent != Some(true) {
            self.forget_ports();
        }
    }

    /// Whether our translator gives ports in no order that is known.
    pub(crate) fn is_random(&self) -> bool {
        let is_surveyed = self.surveyed.is_some() && self.held_until.is_none();
        self.is_dependent() && is_surveyed && self.ports.is_none()
    }

    /// Whether our translator is known to give each destination a port of its own.
    pub(crate) fn is_dependent(&self) -> bool {
        self.dependent == Some(true)
    }

    /// Whether our translator is known to keep one port for all destinations.
    pub(crate) fn is_steady(&self) -> bool {
        self.dependent == Some(false)
    }

    /// Our mappings are gone, or will be.
    pub(crate) fn forget_ports(&mut self) {
        (self.ports, self.surveyed, self.held_until) = (None, None, None);
    }

    /// Asks for a survey if what is going to be sent needs one: until it has ended, or for [`HELD`], nothing
    /// is to be sent. It does if there are `new` destinations, and if the peer counts while it is not known that we do.
    pub(crate) fn hold(&mut self, new: bool, peer_counts: bool, now: Instant) -> bool {
        if self.held_until.take_if(|until| *until <= now).is_some() {
            // It has taken too long: what waits goes without.
            self.surveyed = Some(now);
        }
        let age = self.surveyed.map(|at| now.saturating_duration_since(at));
        let is_missing = peer_counts && self.ports.is_none();
        let is_old =
            age.is_none_or(|age| (new && age >= RECENT) || (is_missing && age >= SURVEY_AGAIN));
        let wanted = self.is_dependent() && is_old && !self.is_held(now);
        if wanted {
            self.hold_for_survey(now);
        }
        wanted
    }

    /// Until a survey has ended, or for [`HELD`], nothing is to be sent.
    pub(crate) fn hold_for_survey(&mut self, now: Instant) {
        (self.ports, self.held_until) = (None, Some(now + HELD));
    }

    /// Until when nothing was to be sent the last time.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Whether nothing is to be sent now.
    pub(crate) fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| until > now)
    }

    /// A survey has ended. It counts only for what has waited for it.
    pub(crate) fn handle_survey(&mut self, sequence: Option<PortSequence>, now: Instant) {
        if self.is_held(now) {
            self.ports = sequence.map(|sequence| OwnPorts { sequence, taken: 0 });
            (self.surveyed, self.held_until) = (Some(now), None);
        }
    }

    /// A probe went where none went before.
    pub(crate) fn handle_mapping_made(&mut self) {
        if let Some(ports) = &mut self.ports {
            ports.taken = ports.taken.saturating_add(1);
        }
    }

    /// How our translator counts, and how far our probes have taken it.
    pub(crate) fn ports(&self) -> Option<OwnPorts> {
        self.ports
    }

    /// How our translator counts, and where it was before our probes: what the peer has to know.
    pub(crate) fn announced(&self) -> Option<PortSequence> {
        self.ports.map(|ports| ports.sequence)
    }
}

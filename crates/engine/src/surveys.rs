//! How the translator in front of this device counts ports: found out for one peer after the other, because
//! the probes to one move the count on for the next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use identity::DeviceId;
use path::{Mapping, PortSequence};

use crate::context::Context;
use crate::engine::Engine;
use crate::io::Transmit;

/// Peers whose paths wait for a survey.
#[derive(Debug, Default)]
pub(crate) struct Surveys {
    waiting: VecDeque<DeviceId>,
    /// For whom one is on.
    asked: Option<DeviceId>,
    /// What the latest one found.
    found: Option<PortSequence>,
    /// How many in a row have found nothing.
    failed: u32,
    /// Until when it needs no other, because the translator did not count.
    settled_until: Option<Instant>,
}

/// A translator that did not count, or whose count others disturbed too much, is asked again after this.
const SETTLED: Duration = Duration::from_secs(60);

impl Surveys {
    pub(crate) fn want(&mut self, peer: DeviceId, first: bool) {
        if first {
            self.waiting.retain(|waiting| *waiting != peer);
            self.waiting.push_front(peer);
        } else if !self.waiting.contains(&peer) {
            self.waiting.push_back(peer);
        }
    }

    /// The translator is another one.
    fn forget(&mut self) {
        (self.found, self.failed, self.settled_until) = (None, 0, None);
    }

    /// Takes what a survey has found; false if it is made once more, because an answer may have been lost.
    fn take(&mut self, found: Option<PortSequence>, now: Instant) -> bool {
        self.found = found;
        self.failed = if found.is_some() { 0 } else { self.failed.saturating_add(1) };
        if self.failed == 1 {
            self.asked.take().into_iter().for_each(|peer| self.waiting.push_front(peer));
        }
        self.settled_until = (self.failed > 1).then(|| now + SETTLED);
        self.failed != 1
    }

    /// How the translator counted the last time, if it did.
    pub(crate) fn found(&self) -> Option<PortSequence> {
        self.found
    }
}

impl Engine {
    /// Lets surveys end and begin, and tells the peers' machines what they have to know of the translator.
    pub(crate) fn drain_surveys(&mut self, cx: &mut Context<'_>) {
        let is_dependent = self.stun.mapping().map(Mapping::is_dependent);
        if std::mem::replace(&mut self.settings.dependent, is_dependent) != is_dependent {
            self.for_each_peer(|peer| peer.agent.handle_translator(is_dependent));
            // Nobody waits for it, but whoever looks at the surroundings wants to know.
            self.underlay.surveys.forget();
            if is_dependent == Some(true) {
                self.stun.survey(cx.rng, cx.now.instant);
            }
        }
        if let Some(found) = self.stun.poll_surveyed(cx.instant())
            && self.underlay.surveys.take(found, cx.instant())
        {
            self.tell_surveyed(found, cx);
        }
        if !self.stun.is_surveying()
            && let Some(peer) = self.underlay.surveys.waiting.pop_front()
        {
            self.underlay.surveys.asked = Some(peer);
            let settled = self.underlay.surveys.settled_until;
            let is_settled = settled.is_some_and(|until| until > cx.instant());
            if is_settled || !self.stun.survey(cx.rng, cx.now.instant) {
                self.tell_surveyed(None, cx);
            }
        }
        while let Some(datagrams) = self.stun.poll_fresh_socket() {
            let transmits = datagrams.into_iter().map(|(to, payload)| Transmit::new(to, payload));
            self.output.fresh_sockets.push_back(transmits.collect());
        }
    }

    fn tell_surveyed(&mut self, found: Option<PortSequence>, cx: &Context<'_>) {
        let asked = self.underlay.surveys.asked.take();
        if let Some(peer) = asked.and_then(|device| self.peers.touch(device)) {
            peer.agent.handle_survey(found, cx.instant());
        }
    }
}

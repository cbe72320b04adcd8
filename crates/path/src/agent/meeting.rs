//! Guesses by two devices whose translators both count.

use std::net::IpAddr;
use std::time::Instant;

use rand_core::CryptoRng;

use super::PathAgent;
use crate::budget::ProbeBudget;
use crate::disco::Message;
use crate::io::PathEvent;
use crate::rendezvous::{ANSWER_WITHIN, STILL, Stage};
use crate::translator::PortSequence;

impl PathAgent {
    /// The peer tells where its count stands and keeps still, so that both can guess.
    pub(super) fn handle_rendezvous(&mut self, peer: PortSequence, now: Instant) {
        let is_announced = match peer.last.ip() {
            IpAddr::V4(ip) => self.remotes.is_announced(ip),
            IpAddr::V6(_) => false,
        };
        if is_announced {
            self.stir(now);
            self.rendezvous.handle_told(peer, now);
        }
    }

    /// Begins, goes on with or ends the rendezvous with the peer.
    pub(super) fn meet(&mut self, budget: &mut ProbeBudget, rng: &mut dyn CryptoRng, now: Instant) {
        let told = self.rendezvous.take_told();
        let lacks = self.config.udp && self.is_active(now) && !self.has_straight();
        if !lacks || !self.calls.is_dependent() {
            self.rendezvous.release(budget);
            return self.rendezvous.forget();
        }
        match self.rendezvous.stage() {
            Stage::None => self.begin_rendezvous(told, budget, rng, now),
            Stage::Survey { until, peer } => match self.calls.ports() {
                _ if self.calls.is_held(now) => {}
                Some(own) if now < until => {
                    let ports = own.sequence;
                    self.transmits.extend(self.frames.transmit(&Message::Rendezvous { ports }));
                    if self.config.leads {
                        self.rendezvous.ask(peer.last.ip(), now);
                    } else {
                        self.guess_together(peer, budget, rng, now);
                    }
                }
                Some(_) | None => self.rendezvous.end(budget, rng, now),
            },
            Stage::Asked { until, at } => match told.filter(|peer| peer.last.ip() == at) {
                Some(peer) if now < until => self.guess_together(peer, budget, rng, now),
                Some(_) | None if now >= until => self.rendezvous.end(budget, rng, now),
                Some(_) | None => {}
            },
        }
    }

    fn begin_rendezvous(
        &mut self,
        told: Option<PortSequence>,
        budget: &mut ProbeBudget,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        let may_ask = self.rendezvous.may_ask(now);
        let peer =
            if self.config.leads { self.guesses.counted().filter(|_| may_ask) } else { told };
        let Some(peer) = peer.filter(|_| self.rendezvous.has_attempts(now)) else { return };
        match budget.begin_rendezvous(peer.last.ip(), now) {
            Ok(()) => {
                let within = if self.config.leads { STILL } else { ANSWER_WITHIN };
                self.rendezvous.begin(peer, within, now);
                self.calls.hold_for_survey(now);
                self.events.push_back(PathEvent::SurveyWanted { first: true });
            }
            Err(Some(_)) => self.rendezvous.wait_for_turn(rng, now),
            Err(None) => self.rendezvous.rest(now),
        }
    }

    fn guess_together(
        &mut self,
        peer: PortSequence,
        budget: &mut ProbeBudget,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        budget.begin_met(peer.last.ip(), now);
        self.guesses.meet(peer, now);
        self.rendezvous.handle_guesses(rng, now);
    }
}

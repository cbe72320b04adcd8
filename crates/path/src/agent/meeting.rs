//! Guesses by two devices whose translators both count.

use std::net::IpAddr;
use std::time::Instant;

use rand_core::CryptoRng;

use super::PathAgent;
use crate::budget::ProbeBudget;
use crate::disco::Message;
use crate::io::PathEvent;
use crate::rendezvous::Stage;
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
        let lacks = self.config.udp && self.is_active(now) && !self.is_straight();
        if !lacks || !self.calls.is_dependent() {
            if self.rendezvous.stage() != Stage::None {
                budget.end_rendezvous();
            }
            return self.rendezvous.forget();
        }
        match self.rendezvous.stage() {
            Stage::None => self.begin_rendezvous(told, budget, rng, now),
            Stage::Survey { until, peer } => match self.calls.ports() {
                _ if self.calls.is_held(now) => {}
                Some(own) if now < until => {
                    let ports = own.sequence;
                    self.transmits.extend(self.frames.transmit(&Message::Rendezvous { ports }));
                    match peer {
                        Some(peer) => self.guess_together(peer, budget, rng, now),
                        None => match self.guesses.counted() {
                            Some(peer) => self.rendezvous.ask(peer.last.ip(), until, now),
                            None => self.end_rendezvous(budget, rng, now),
                        },
                    }
                }
                Some(_) | None => self.end_rendezvous(budget, rng, now),
            },
            Stage::Asked { until, at } => match told.filter(|peer| peer.last.ip() == at) {
                Some(peer) if now < until => self.guess_together(peer, budget, rng, now),
                Some(_) | None if now >= until => self.end_rendezvous(budget, rng, now),
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
        let Some(own) = self.seen_at() else { return };
        let leads = |peer: PortSequence| IpAddr::V4(*own.ip()) > peer.last.ip();
        let asked = told.filter(|peer| !leads(*peer));
        let to_ask = self.guesses.counted().filter(|peer| leads(*peer) && may_ask);
        let peer = asked.or(to_ask).filter(|_| self.rendezvous.has_attempts(now));
        let Some(peer) = peer else { return };
        match budget.begin_rendezvous(peer.last.ip(), now) {
            Ok(()) => {
                self.rendezvous.begin(asked, now);
                self.calls.hold_for_survey(now);
                self.events.push_back(PathEvent::SurveyWanted);
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

    fn end_rendezvous(&mut self, budget: &mut ProbeBudget, rng: &mut dyn CryptoRng, now: Instant) {
        budget.end_rendezvous();
        self.rendezvous.end(rng, now);
    }
}

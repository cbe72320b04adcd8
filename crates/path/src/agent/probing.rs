//! What is sent so that a path is found or kept: calls, probes and guesses.

use std::net::SocketAddr;
use std::time::Instant;

use rand_core::CryptoRng;

use super::{PROBE_AFTER, PathAgent, Unanswered};
use crate::alias::Alias;
use crate::budget::ProbeBudget;
use crate::candidate::{Candidate, CandidateKind};
use crate::disco::{Message, TransactionId};
use crate::io::{PathEvent, Transmit};
use crate::mtu::BASE_MTU;
use crate::remote::{KEEP_ALIVE, Remote, retry_after};
use crate::why::Path;

impl PathAgent {
    /// Where the peer was reached before from the local network where this device is now, if it was.
    pub fn handle_recalled(&mut self, address: Option<SocketAddr>, now: Instant) {
        let recalled = address.map(|one| Candidate::new(CandidateKind::PeerReflexive, one));
        let permitted = recalled.filter(|one| self.config.udp && self.permits(one.address));
        self.remotes.recall(permitted, self.is_active(now), now);
    }

    /// Waits with what is due until it is known which ports it will get.
    pub(super) fn hold(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut due = self.remotes.all().filter(|remote| is_due(remote.due())).peekable();
        let has_due = due.peek().is_some() || is_due(self.calls.due());
        let is_new = due.any(Remote::lacks_mapping);
        let wanted = has_due && !self.has_straight() && self.is_active(now);
        if wanted && self.calls.hold(is_new, self.guesses.counted().is_some(), now) {
            self.events.push_back(PathEvent::SurveyWanted { first: false });
        }
    }

    pub(super) fn send_call(&mut self, now: Instant) {
        if self.has_straight() || !self.is_active(now) {
            self.calls.stop();
        }
        if !self.calls.take(self.is_wanted(now), now) || self.local.is_empty() {
            return;
        }
        let candidates = self.local.iter().map(|candidate| candidate.address).collect();
        let ports = self.calls.announced();
        if let Some(transmit) = self.frames.transmit(&Message::CallMeMaybe { candidates, ports }) {
            self.calls.handle_sent(now);
            self.transmits.push_back(transmit);
        }
    }

    pub(super) fn send_guesses(
        &mut self,
        budget: &mut ProbeBudget,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        if self.has_straight() || !self.is_active(now) || !self.config.udp {
            return self.guesses.stop();
        }
        let guess = self.guesses.next(self.calls.ports(), budget, now);
        let Some(address) = guess.filter(|address| self.config.filter.permits(*address)) else {
            return;
        };
        // An answer needs no match: what arrives shows the peer's address by itself.
        let ping = Message::Ping { transaction: TransactionId::random(rng) };
        self.transmits.push_back(Transmit::new(Path::Direct(address), &ping));
    }

    pub(super) fn send_frame_ping(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        if self.user_pings.take().is_some() {
            self.transmits.extend(self.frames.ping(rng, now));
        }
    }

    pub(super) fn send_probes(
        &mut self,
        budget: &mut ProbeBudget,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        let silent = self.silent_since.map(|since| now.saturating_duration_since(since));
        let mut retry = retry_after(silent.filter(|silent| *silent >= PROBE_AFTER));
        if self.calls.ports().is_some() {
            // The mapping has to stay where the peer looks for it.
            retry = retry.min(KEEP_ALIVE);
        }
        let is_held = self.calls.is_held(now);
        let (chosen, mut is_chosen_probed) = (self.chosen, false);
        let uses_frames = !self.is_direct();
        for (address, remote) in self.remotes.all_mut() {
            let waits = is_held && !remote.is_proven();
            if waits || remote.due().is_none_or(|at| at > now) {
                continue;
            }
            if !remote.is_proven() && !budget.take(Alias::counted(address), now) {
                remote.skip_probe(retry, now);
                continue;
            }
            let transaction = TransactionId::random(rng);
            if remote.makes_mapping() {
                self.calls.handle_mapping_made();
            }
            let path = Path::Direct(address);
            // Whether it is a path at all comes before how large packets it carries.
            let is_in_use = path == chosen && remote.is_proven();
            let mtu = if is_in_use { remote.mtu.carried() } else { BASE_MTU };
            let sent = self.counts.map(|counts| counts.sent);
            remote.handle_probe_sent((transaction, sent), retry, now);
            self.transmits.push_back(Transmit::probe(path, transaction, mtu));
            if uses_frames && remote.is_void(now) {
                self.events.push_back(PathEvent::TunnelProbe { to: address });
            }
            if path == chosen {
                self.unanswered.get_or_insert(Unanswered::since(now));
                is_chosen_probed = true;
            }
        }
        if is_chosen_probed {
            self.watch_delivery(now);
        }
    }
}

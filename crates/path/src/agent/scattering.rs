//! Being found, and finding, behind a translator that gives ports at random.

use std::net::{SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::time::Instant;

use rand_core::CryptoRng;

use super::PathAgent;
use crate::alias::{Alias, is_private};
use crate::budget::ProbeBudget;
use crate::candidate::CandidateKind;
use crate::disco::{Message, TransactionId};
use crate::io::{PathEvent, Transmit};
use crate::why::Path;

impl PathAgent {
    /// The sockets that were wanted, by number, and where they lead. A ping through each has its translator make a mapping.
    pub fn handle_sockets(
        &mut self,
        sockets: Range<u32>,
        to: SocketAddrV4,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        self.remotes.handle_sockets(sockets.clone(), now);
        for number in sockets {
            let path = Path::Direct(Alias::Socket(number, to).into());
            let ping = Message::Ping { transaction: TransactionId::random(rng) };
            self.transmits.push_back(Transmit::new(path, &ping));
        }
        self.transmits.extend(self.frames.transmit(&Message::Scattered));
    }

    /// The sockets that were wanted are not to be had now.
    pub fn handle_no_sockets(&mut self, now: Instant) {
        self.scatter.postpone(now);
    }

    /// Of these sockets only one is left, or none.
    pub fn handle_sockets_closed(&mut self, kept: Option<u32>, now: Instant) {
        let kept = kept.map_or(0..0, |number| number..number + 1);
        self.remotes.handle_sockets(kept, now);
        self.leave_lost_way(now);
    }

    /// The socket that was kept has led nowhere for too long: the peer is asked anew.
    pub fn handle_socket_lost(&mut self, now: Instant) {
        self.scatter.postpone(now);
        self.handle_sockets_closed(None, now);
    }

    /// Asks the peer whether it could find this device by chance, if nothing else has helped.
    pub(super) fn ask_for_mapping(&mut self, budget: &mut ProbeBudget, now: Instant) {
        let at = self.seen_at().map(|address| *address.ip());
        let at = at.filter(|_| self.config.udp && self.lacks_direct(now) && self.calls.is_random());
        let is_due = self.scatter.take_question(at.is_some(), now);
        let Some(at) = at.filter(|_| is_due) else { return };
        if budget.begin_scattering(now) {
            self.transmits.extend(self.frames.transmit(&Message::MappingRequest { at }));
        } else {
            self.scatter.wait_for_turn(now);
        }
    }

    /// Answers the peer that asks so, if that is known, and if what would come of it can begin at once. If not, it asks again.
    pub(super) fn tell_mapping(&mut self, budget: &mut ProbeBudget, now: Instant) {
        let Some(at) = self.scatter.take_question_of_peer() else { return };
        if !self.lacks_direct(now) || is_private(at) || !self.remotes.is_announced(at) {
            return;
        }
        let steady = self.seen_at().filter(|_| self.calls.is_steady()).map(SocketAddr::V4);
        if steady.is_some() && budget.reserve_guesses(at.into(), now) {
            self.scatter.handle_let(at, now);
        } else if !self.calls.is_dependent() {
            return;
        }
        self.transmits.extend(self.frames.transmit(&Message::Mapping { steady }));
    }

    pub(super) fn handle_steady(&mut self, steady: Option<SocketAddr>, now: Instant) {
        let is_awaited = self.scatter.take_answer(steady.is_some(), now);
        let Some(SocketAddr::V4(to)) = steady.filter(|_| is_awaited) else { return };
        let is_of_use = self.config.filter.permits(to.into()) && !is_private(*to.ip());
        if is_of_use && self.remotes.is_announced_straight(*to.ip()) {
            self.events.push_back(PathEvent::SocketsWanted { to });
        }
    }

    pub(super) fn handle_scattered(&mut self, now: Instant) {
        if let Some(at) = self.scatter.take_expected(now).filter(|_| self.lacks_direct(now)) {
            self.guesses.handle_scattered(at, now);
        }
    }

    /// Where others see this device: by what servers say, or without a translator by what it has itself.
    fn seen_at(&self) -> Option<SocketAddrV4> {
        let of = |kind: CandidateKind| {
            let mut candidates = self.local.iter().filter(move |one| one.kind == kind);
            candidates.find_map(|candidate| match candidate.address {
                SocketAddr::V4(address) if !is_private(*address.ip()) => Some(address),
                SocketAddr::V4(_) | SocketAddr::V6(_) => None,
            })
        };
        of(CandidateKind::Reflexive).or_else(|| of(CandidateKind::Local))
    }
}

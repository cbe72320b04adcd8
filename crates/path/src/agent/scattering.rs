//! Being found, and finding, behind a translator that gives ports at random.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::time::Instant;

use rand_core::CryptoRng;

use super::PathAgent;
use crate::alias::{Alias, is_private};
use crate::budget::ProbeBudget;
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
        let Some(at) = self.public().map(|address| *address.ip()) else { return };
        for number in sockets {
            let path = Path::Direct(Alias::Socket(number, to).into());
            let payload = Message::Ping { transaction: TransactionId::random(rng) }.encode();
            self.transmits.push_back(Transmit { path, payload });
        }
        self.transmits.extend(self.frames.transmit(&Message::Scattered { at }));
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

    /// Asks the peer whether it could find this device by chance, if nothing else has helped.
    pub(super) fn ask_for_mapping(&mut self, now: Instant) {
        let lacking = self.config.udp && self.lacks_direct(now) && self.calls.is_random();
        if self.scatter.take_question(lacking, now) {
            self.transmits.extend(self.frames.transmit(&Message::MappingRequest));
        }
    }

    /// Answers the peer that asks so, if what would come of it can begin at once. If not, it asks again.
    pub(super) fn tell_mapping(&mut self, budget: &mut ProbeBudget, now: Instant) {
        if !self.scatter.take_question_of_peer(now) || !self.lacks_direct(now) {
            return;
        }
        let steady = self.public().filter(|_| !self.calls.is_dependent()).map(SocketAddr::V4);
        if steady.is_none() || budget.reserve_guesses(now) {
            self.transmits.extend(self.frames.transmit(&Message::Mapping { steady }));
        }
    }

    pub(super) fn handle_steady(&mut self, steady: Option<SocketAddr>, now: Instant) {
        let is_awaited = self.scatter.take_answer(now);
        let Some(SocketAddr::V4(to)) = steady.filter(|_| is_awaited) else { return };
        if self.remotes.is_announced(*to.ip()) && self.config.filter.permits(to.into()) {
            self.events.push_back(PathEvent::SocketsWanted { to });
        }
    }

    pub(super) fn handle_scattered(&mut self, at: Ipv4Addr, now: Instant) {
        let is_of_use = self.lacks_direct(now) && !self.calls.is_dependent();
        if is_of_use && self.remotes.is_announced(at) {
            self.guesses.handle_scattered(at, now);
        }
    }

    /// An IPv4 address of this device that is not private.
    fn public(&self) -> Option<SocketAddrV4> {
        self.local.iter().find_map(|candidate| match candidate.address {
            SocketAddr::V4(address) if !is_private(*address.ip()) => Some(address),
            SocketAddr::V4(_) | SocketAddr::V6(_) => None,
        })
    }
}

//! How large packets the chosen path carries, and what follows when it ceases to carry those.

use std::net::SocketAddr;
use std::time::Instant;

use rand_core::CryptoRng;

use super::PathAgent;
use crate::disco::TransactionId;
use crate::io::{PathEvent, Transmit};
use crate::mtu::BASE_MTU;
use crate::remote::{KEEP_ALIVE_BUSY, Remote};
use crate::why::{Path, Reason};

impl PathAgent {
    /// Large packets are being sent. Should the path cease to carry them, that is found out sooner.
    pub fn handle_large_sent(&mut self, now: Instant) {
        if let Some(remote) = self.chosen_remote_mut() {
            remote.hasten_probe(KEEP_ALIVE_BUSY, now);
        }
    }

    /// The tunnel's largest packets that the chosen path is known to carry; none if it carries any.
    pub fn mtu(&self) -> Option<usize> {
        self.is_direct().then(|| self.carried())
    }

    /// The same for a path that is a direct one.
    pub fn carried(&self) -> usize {
        self.chosen_remote().map_or(BASE_MTU, |remote| remote.mtu.carried())
    }

    /// Whether it may turn out in a moment that it carries larger ones, or once it answers again.
    pub fn is_searching(&self) -> bool {
        self.chosen_remote().is_some_and(|remote| remote.mtu.is_on())
    }

    /// The same, and it is the largest of all that are being tried.
    pub fn is_trying_largest(&self) -> bool {
        self.chosen_remote().is_some_and(|remote| remote.mtu.is_trying_most())
    }

    pub(super) fn chosen_remote(&self) -> Option<&Remote> {
        match self.chosen {
            Path::Direct(address) => self.remotes.get(address),
            Path::Relay | Path::Stream | Path::None => None,
        }
    }

    pub(super) fn chosen_remote_mut(&mut self) -> Option<&mut Remote> {
        match self.chosen {
            Path::Direct(address) => self.remotes.get_mut(address),
            Path::Relay | Path::Stream | Path::None => None,
        }
    }

    /// The chosen path is a new one, or answers again: it may carry less than it did, or more.
    pub(super) fn begin_search(&mut self, now: Instant) {
        if let Some(remote) = self.chosen_remote_mut() {
            remote.mtu.begin(now);
            self.events.push_back(PathEvent::Mtu);
        }
    }

    /// Leaves a path on which full packets get lost though small ones arrive. If it carries smaller ones, it is back after a
    /// round trip.
    pub(super) fn check_full_packets(&mut self, now: Instant) {
        let (chosen, mut reason) = (self.chosen, None);
        for (address, remote) in self.remotes.all_mut() {
            let is_its = chosen == Path::Direct(address);
            let Some(since) = remote.mute_since(now).filter(|_| remote.is_proven() || is_its)
            else {
                continue;
            };
            let is_narrow = remote.find_mute(since, now);
            if is_its {
                remote.start_burst(now);
                let since = now.saturating_duration_since(since);
                reason =
                    Some(if is_narrow { Reason::Narrow } else { Reason::Unanswered { since } });
            }
        }
        if let Some(reason) = reason {
            self.choose_again(reason, now);
            self.events.push_back(PathEvent::Mtu);
        }
    }

    /// When [`Self::search_sizes`] has something to send: while there is traffic, and an answer to be had.
    pub(super) fn search_due(&self) -> Option<Instant> {
        let remote = self.chosen_remote().filter(|remote| remote.is_proven())?;
        remote.mtu.due().filter(|_| self.active_until.is_some())
    }

    pub(super) fn search_sizes(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        if self.search_due().is_none() {
            return;
        }
        let (path, was_trying) = (self.chosen, self.is_trying_largest());
        let next = self.chosen_remote_mut().and_then(|remote| {
            let latency = remote.latency();
            remote.mtu.next(latency, rng, now)
        });
        if let Some((transaction, size)) = next {
            self.transmits.push_back(Transmit::probe(path, transaction, size));
        }
        if was_trying && !self.is_trying_largest() {
            self.events.push_back(PathEvent::Mtu);
        }
    }

    /// Takes a pong that came straight from this address.
    pub(super) fn handle_size_pong(
        &mut self,
        address: SocketAddr,
        transaction: TransactionId,
        now: Instant,
    ) {
        if self.chosen == Path::Direct(address)
            && self.chosen_remote_mut().is_some_and(|it| it.mtu.handle_pong(transaction, now))
        {
            self.events.push_back(PathEvent::Mtu);
        }
    }
}

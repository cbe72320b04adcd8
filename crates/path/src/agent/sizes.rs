//! How large packets the chosen path carries, and what follows when it ceases to carry those.

use std::time::Instant;

use rand_core::CryptoRng;

use super::PathAgent;
use crate::disco::Message;
use crate::io::{PathEvent, Transmit};
use crate::why::{Path, Reason};

impl PathAgent {
    /// Large packets are being sent. Should the path cease to carry them, that is found out sooner.
    pub fn handle_large_sent(&mut self, now: Instant) {
        if let Path::Direct(address) = self.chosen
            && let Some(remote) = self.remotes.get_mut(address)
        {
            remote.hasten_keep_alive(now);
        }
    }

    /// The tunnel's largest packets that the chosen path is known to carry; none if it carries any.
    pub fn mtu(&self) -> Option<usize> {
        self.is_direct().then(|| self.mtu.carried())
    }

    /// The same for a path that is a direct one.
    pub fn carried(&self) -> usize {
        self.mtu.carried()
    }

    /// Whether it may turn out in a moment that it carries larger ones.
    pub fn is_searching(&self) -> bool {
        self.mtu.is_on()
    }

    /// The same, and it is the largest of all that are being tried.
    pub fn is_trying_largest(&self) -> bool {
        self.mtu.is_trying_most()
    }

    /// A path that stays the chosen one for want of another may not carry any more what it did.
    pub(super) fn doubt_size(&mut self, now: Instant) {
        if self.is_direct() && self.mtu.shrink(now) {
            self.events.push_back(PathEvent::Mtu);
        }
    }

    /// Leaves a path on which full packets get lost though small ones arrive. If it carries smaller ones, it is back after a
    /// round trip.
    pub(super) fn check_full_packets(&mut self, now: Instant) {
        let (chosen, mut is_chosen) = (self.chosen, false);
        for (address, remote) in self.remotes.all_mut() {
            let is_its = chosen == Path::Direct(address);
            if remote.is_narrow(now) && (remote.is_proven() || is_its) {
                remote.find_narrow();
                if is_its {
                    remote.start_burst(now);
                    is_chosen = true;
                }
            }
        }
        if is_chosen {
            self.choose_again(Reason::Narrow, now);
            self.doubt_size(now);
        }
    }

    /// In another network nothing is known of the size either, if the path stays the chosen one for want of another.
    pub(super) fn forget_size(&mut self, now: Instant) {
        if self.is_direct() {
            self.mtu.begin(now);
            self.events.push_back(PathEvent::Mtu);
        }
    }

    pub(super) fn search_mtu(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        if !self.is_active(now) {
            return;
        }
        if let Some((transaction, size)) = self.mtu.next(rng, now) {
            let payload = Message::Ping { transaction }.encode_padded(size);
            self.transmits.push_back(Transmit { path: self.chosen, payload });
        }
    }
}

//! Which of the paths it is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::delivery::Delivery;
use super::{DECISIONS, PathAgent};
use crate::alias::Alias;
use crate::io::PathEvent;
use crate::remote::Remote;
use crate::why::{Decision, Hindrance, Path, Reason};

impl PathAgent {
    /// Whether there is traffic for the peer and no direct path on which nobody passes it on, nor a stream.
    pub fn lacks_direct(&self, now: Instant) -> bool {
        self.is_active(now) && self.chosen != Path::Stream && !self.has_straight()
    }

    /// The chosen path's address, if it is a direct one from the device's own UDP socket, on which nobody passes packets on.
    pub fn straight(&self) -> Option<SocketAddr> {
        match self.chosen {
            Path::Direct(address) if self.is_straight() => {
                Some(address).filter(|address| Alias::of(*address).is_none())
            }
            Path::Direct(_) | Path::Relay | Path::Stream | Path::None => None,
        }
    }

    /// Whether an address of the peer has answered lately.
    pub fn is_proven(&self, address: SocketAddr) -> bool {
        self.remotes.is_proven(address)
    }

    /// Why there is no direct path on which nobody passes packets on, if there is none, and no stream straight to the peer.
    pub fn hindrance(&self, now: Instant) -> Option<Hindrance> {
        let hindrance = if self.is_straight() || self.chosen == Path::Stream {
            return None;
        } else if !self.config.udp {
            Hindrance::NoUdp
        } else if !self.is_active(now) {
            Hindrance::Idle
        } else if self.remotes.straight().any(Remote::is_proven) {
            Hindrance::Unusable
        } else if self.remotes.straight().next().is_none() {
            Hindrance::NoAddress
        } else if !self.calls.is_random() {
            Hindrance::NoAnswer
        } else if self.scatter.is_peer_unsteady() {
            Hindrance::BothAtRandom
        } else {
            Hindrance::AtRandom
        };
        Some(hindrance)
    }

    /// Round trip of the chosen path, if it is a direct one.
    pub fn latency(&self) -> Option<Duration> {
        self.remotes.latency(self.chosen)
    }

    /// The addresses of the peer that have answered lately, other than where somebody passes on.
    pub fn proven(&self) -> impl Iterator<Item = SocketAddr> {
        let proven = self.remotes.straight().filter(|remote| remote.is_proven());
        let addresses = proven.map(|remote| remote.candidate.address);
        addresses.filter(|address| Alias::of(*address).is_none())
    }

    /// A path in words: `turn ADDRESS` where a TURN server passes on what is sent to that address of the peer.
    pub fn describe(&self, path: Path) -> String {
        match path {
            Path::Direct(address) if Alias::of(address).is_none() && self.is_relayed(path) => {
                format!("turn {address}")
            }
            Path::Direct(_) | Path::Relay | Path::Stream | Path::None => path.to_string(),
        }
    }

    /// Whether packets go to the peer by a direct path on which nobody passes them on: there is no better one to look for.
    pub(super) fn is_straight(&self) -> bool {
        matches!(self.chosen, Path::Direct(_)) && !self.is_relayed(self.chosen)
    }

    /// The same, or there is one that was left for frames: no other is looked for.
    pub(super) fn has_straight(&self) -> bool {
        self.is_straight() || self.remotes.straight().any(Remote::is_shunned)
    }

    /// Leaves the chosen path if it led over what is gone.
    pub(super) fn leave_lost_way(&mut self, now: Instant) {
        let Path::Direct(address) = self.chosen else { return };
        let Some(way) = Alias::of(address).filter(|way| !self.remotes.has(*way)) else { return };
        let reason = match way {
            Alias::Turn(..) => Reason::AllocationLost,
            Alias::Circuit(_) => Reason::CircuitLost,
            Alias::Socket(..) => Reason::SocketLost,
        };
        self.choose_again(reason, now);
    }

    /// Whether somebody passes on what goes by a path.
    fn is_relayed(&self, path: Path) -> bool {
        match path {
            Path::Direct(address) => self.remotes.is_relayed(address),
            Path::Relay | Path::Stream | Path::None => false,
        }
    }

    /// Moves to the best path, if that is another one than the chosen.
    pub(super) fn choose_best(&mut self, reason: Reason, now: Instant) {
        let path = match (self.best(now), self.frames.path()) {
            (Some(address), _) => Path::Direct(address),
            (None, Path::None) => self.chosen,
            (None, frames) => frames,
        };
        if path == self.chosen {
            return;
        }
        let left = self.chosen_remote().and_then(|remote| remote.shunning.reason());
        let reason = match (self.remotes.latency(path), self.remotes.latency(self.chosen)) {
            (None, _) => left.unwrap_or(reason),
            (Some(latency), Some(_)) if self.is_relayed(self.chosen) && !self.is_relayed(path) => {
                Reason::Straighter { latency }
            }
            (Some(latency), Some(than)) => Reason::Better { latency, than },
            (Some(_), None) => reason,
        };
        self.choose(path, reason, now);
    }

    /// The chosen path is lost: takes the best of the others. Without any other, the address
    /// that worked last stays the best guess.
    pub(super) fn choose_again(&mut self, reason: Reason, now: Instant) {
        let is_there =
            |address: &SocketAddr| Alias::of(*address).is_none_or(|way| self.remotes.has(way));
        let path = match (self.best(now), self.frames.path(), self.chosen) {
            (Some(address), ..) => Path::Direct(address),
            (None, Path::None, Path::Direct(address)) if is_there(&address) => {
                Path::Direct(address)
            }
            (None, frames, _) => frames,
        };
        if path != self.chosen {
            self.choose(path, reason, now);
        }
    }

    /// The best direct path, where frames are better than one that was left for them, unless they do not get to the peer.
    fn best(&self, now: Instant) -> Option<SocketAddr> {
        let trusted = self.has_frames() && !self.frames.is_silent(now);
        self.remotes.best(self.chosen, trusted, now)
    }

    pub(super) fn choose(&mut self, path: Path, reason: Reason, now: Instant) {
        let decision = Decision { at: now, path, reason };
        self.chosen = path;
        (self.unanswered, self.suspected) = (None, None);
        self.delivery = Delivery::default();
        if let Path::Direct(address) = path {
            self.loss.handle_chosen(address);
        }
        if self.decisions.len() == DECISIONS {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
        self.events.push_back(PathEvent::Chosen(decision));
        self.begin_search(now);
    }
}

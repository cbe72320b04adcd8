//! Which of the paths it is.

use std::net::SocketAddr;
use std::time::Instant;

use super::{DECISIONS, PathAgent};
use crate::io::PathEvent;
use crate::relayed::Relayed;
use crate::why::{Decision, Path, Reason};

impl PathAgent {
    /// Whether there is traffic for the peer and no direct path that does without a TURN server, nor a stream.
    pub fn lacks_direct(&self, now: Instant) -> bool {
        self.is_active(now) && self.chosen != Path::Stream && !self.is_straight()
    }

    /// A path in words: `turn ADDRESS` where a TURN server passes on what is sent to that address of the peer.
    pub fn describe(&self, path: Path) -> String {
        match path {
            Path::Direct(address) if self.is_relayed(path) => {
                format!("turn {}", Relayed::reached(address))
            }
            Path::Direct(_) | Path::Relay | Path::Stream | Path::None => path.to_string(),
        }
    }

    /// Whether packets go to the peer by a direct path without a TURN server in between: there is no better one to
    /// look for.
    pub(super) fn is_straight(&self) -> bool {
        matches!(self.chosen, Path::Direct(_)) && !self.is_relayed(self.chosen)
    }

    /// Whether a path leads through a TURN server.
    fn is_relayed(&self, path: Path) -> bool {
        match path {
            Path::Direct(address) => self.remotes.is_relayed(address),
            Path::Relay | Path::Stream | Path::None => false,
        }
    }

    /// Moves to the best path, if that is another one than the chosen.
    pub(super) fn choose_best(&mut self, reason: Reason, now: Instant) {
        let path = match (self.remotes.best(self.chosen, now), self.frames.path()) {
            (Some(address), _) => Path::Direct(address),
            (None, Path::None) => self.chosen,
            (None, frames) => frames,
        };
        if path == self.chosen {
            return;
        }
        let reason = match (self.remotes.latency(path), self.remotes.latency(self.chosen)) {
            (Some(latency), Some(_)) if self.is_relayed(self.chosen) && !self.is_relayed(path) => {
                Reason::Straighter { latency }
            }
            (Some(latency), Some(than)) => Reason::Better { latency, than },
            (Some(_) | None, _) => reason,
        };
        self.choose(path, reason, now);
    }

    /// The chosen path is lost: takes the best of the others. Without any other, the address
    /// that worked last stays the best guess.
    pub(super) fn choose_again(&mut self, reason: Reason, now: Instant) {
        let is_there = |address: &SocketAddr| {
            Relayed::of(*address).is_none() || self.remotes.is_through_allocation(*address)
        };
        let path = match (self.remotes.best(self.chosen, now), self.frames.path(), self.chosen) {
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

    pub(super) fn choose(&mut self, path: Path, reason: Reason, now: Instant) {
        let decision = Decision { at: now, path, reason };
        self.chosen = path;
        self.unanswered = None;
        if self.decisions.len() == DECISIONS {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
        self.events.push_back(PathEvent::Chosen(decision));
    }
}

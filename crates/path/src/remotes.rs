//! The addresses of the peer that are tried.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::candidate::{Candidate, CandidateKind, MAX_CANDIDATES};
use crate::io::RemoteStatus;
use crate::remote::Remote;
use crate::why::Path;

/// At most [`MAX_CANDIDATES`] addresses, each with what is known about it.
#[derive(Debug, Default)]
pub(crate) struct Remotes(BTreeMap<SocketAddr, Remote>);

impl Remotes {
    /// Takes over what was announced, best first, and `probe`s what is not proven. Addresses that are proven
    /// stay even if they are not announced any more.
    pub(crate) fn announce(&mut self, announced: &[Candidate], probe: bool, now: Instant) {
        self.0.retain(|address, remote| {
            remote.is_proven() || announced.iter().any(|candidate| candidate.address == *address)
        });
        for candidate in announced {
            if self.0.len() >= MAX_CANDIDATES {
                break;
            }
            let remote = self.0.entry(candidate.address).or_insert_with(|| Remote::new(*candidate));
            if probe && !remote.is_proven() {
                remote.start_burst(now);
            }
        }
    }

    /// Something authenticated came straight from this address; true if it is known.
    pub(crate) fn hear(&mut self, address: SocketAddr, now: Instant) -> bool {
        let Some(remote) = self.0.get_mut(&address) else { return false };
        remote.handle_heard(now);
        if !remote.is_proven() {
            remote.hasten_burst(now);
        }
        true
    }

    /// The same for an address that is not known: takes the place of the worst, if need be.
    pub(crate) fn discover(&mut self, address: SocketAddr, now: Instant) {
        if self.0.len() >= MAX_CANDIDATES {
            let worst = self.0.values().rev().find(|remote| !remote.is_proven());
            let Some(worst) = worst.map(|remote| remote.candidate.address) else { return };
            self.0.remove(&worst);
        }
        let remote = Remote::new(Candidate::new(CandidateKind::PeerReflexive, address));
        self.0.insert(address, remote);
        self.hear(address, now);
    }

    pub(crate) fn get_mut(&mut self, address: SocketAddr) -> Option<&mut Remote> {
        self.0.get_mut(&address)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Remote> {
        self.0.values()
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut Remote)> {
        self.0.iter_mut().map(|(address, remote)| (*address, remote))
    }

    /// Starts a burst at each, unless one is on.
    pub(crate) fn start_bursts(&mut self, now: Instant) {
        self.0.values_mut().for_each(|remote| remote.start_burst(now));
    }

    /// Drops proofs that have run out; true if there were any.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        for remote in self.0.values_mut() {
            any |= remote.expire(now);
        }
        any
    }

    /// When the next probe is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.0.values().filter_map(Remote::due).min()
    }

    /// When the next proof runs out.
    pub(crate) fn stale_at(&self) -> Option<Instant> {
        self.0.values().filter_map(Remote::stale_at).min()
    }

    /// The best proven one, where the chosen one has an advantage.
    pub(crate) fn best(&self, chosen: Path, now: Instant) -> Option<SocketAddr> {
        let ranked = self.0.iter().filter_map(|(address, remote)| {
            Some((remote.rank(chosen == Path::Direct(*address), now)?, *address))
        });
        ranked.max().map(|(_, address)| address)
    }

    pub(crate) fn latency(&self, path: Path) -> Option<Duration> {
        match path {
            Path::Direct(address) => self.0.get(&address)?.latency(),
            Path::Relay | Path::Stream | Path::None => None,
        }
    }

    /// What is known about each, for display.
    pub(crate) fn statuses(&self, now: Instant) -> Vec<RemoteStatus> {
        let status = |remote: &Remote| RemoteStatus {
            candidate: remote.candidate,
            proven: remote.is_proven(),
            latency: remote.latency(),
            loss_percent: remote.loss_percent(now),
            heard: remote.heard(),
        };
        self.0.values().map(status).collect()
    }
}

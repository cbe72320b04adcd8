//! The addresses of the peer that are tried.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::alias::{Alias, Allocation};
use crate::candidate::{Candidate, CandidateKind, MAX_CANDIDATES};
use crate::io::RemoteStatus;
use crate::mtu::MtuSearch;
use crate::remote::Remote;
use crate::why::Path;

/// The same through somebody who passes on: enough for four servers, the few hosts that a peer's addresses are, and a
/// few circuits.
const MAX_RELAYED: usize = 16;

/// At most [`MAX_CANDIDATES`] addresses and [`MAX_RELAYED`] ways that somebody passes on for, each with what is known
/// about it.
#[derive(Debug)]
pub(crate) struct Remotes {
    /// What a path begins with of which nothing is known.
    mtu: MtuSearch,
    known: BTreeMap<SocketAddr, Remote>,
    /// What the peer announced, best first.
    announced: Vec<Candidate>,
    /// Where the peer was reached before from where this device is now.
    recalled: Option<Candidate>,
    /// The allocations of this device.
    allocations: Vec<Allocation>,
    /// The circuits to the peer.
    circuits: Vec<u32>,
    /// The sockets of this device that lead to it.
    sockets: Range<u32>,
}

impl Remotes {
    /// None yet, for packets of at most so many bytes.
    pub(crate) fn new(mtu: usize) -> Self {
        Self {
            mtu: MtuSearch::new(mtu),
            known: BTreeMap::new(),
            announced: Vec::new(),
            recalled: None,
            allocations: Vec::new(),
            circuits: Vec::new(),
            sockets: 0..0,
        }
    }

    /// Takes over what was announced, best first, and `probe`s what is not proven. Addresses that are proven
    /// stay even if they are not announced any more.
    pub(crate) fn announce(&mut self, announced: &[Candidate], probe: bool, now: Instant) {
        self.announced = announced.to_vec();
        self.arrange(probe, now);
    }

    /// The same for where the peer was reached before.
    pub(crate) fn recall(&mut self, recalled: Option<Candidate>, probe: bool, now: Instant) {
        if self.recalled != recalled {
            self.recalled = recalled;
            self.arrange(probe, now);
        }
    }

    /// The same for the allocations of this device: with one that is gone, all ways through it are.
    pub(crate) fn handle_allocations(
        &mut self,
        allocations: &[Allocation],
        probe: bool,
        now: Instant,
    ) {
        self.allocations = allocations.to_vec();
        self.arrange(probe, now);
    }

    /// The same for the circuits to the peer; true if they are others than before.
    pub(crate) fn handle_circuits(&mut self, circuits: &[u32], probe: bool, now: Instant) -> bool {
        let is_other = self.circuits != circuits;
        if is_other {
            self.circuits = circuits.to_vec();
            self.arrange(probe, now);
        }
        is_other
    }

    /// The same for sockets that lead to the peer. They are not probed before something comes to them.
    pub(crate) fn handle_sockets(&mut self, sockets: Range<u32>, now: Instant) {
        self.sockets = sockets;
        self.arrange(false, now);
    }

    /// Whether the peer announced an address of this host.
    pub(crate) fn is_announced(&self, host: Ipv4Addr) -> bool {
        self.announced.iter().any(|candidate| candidate.address.ip() == host)
    }

    /// The same at which nobody passes on.
    pub(crate) fn is_announced_straight(&self, host: Ipv4Addr) -> bool {
        let mut of_host = self.announced.iter().filter(|candidate| candidate.address.ip() == host);
        of_host.any(|candidate| candidate.kind != CandidateKind::Relayed)
    }

    fn arrange(&mut self, probe: bool, now: Instant) {
        let is_announced = |recalled: &&Candidate| {
            self.announced.iter().any(|candidate| candidate.address == recalled.address)
        };
        let recalled = self.recalled.iter().filter(|recalled| !is_announced(recalled)).copied();
        let announced = self.announced.iter().copied();
        let wanted: Vec<_> = recalled.chain(announced).chain(self.relayed()).collect();
        let had = (&self.allocations[..], &self.circuits[..], &self.sockets);
        self.known.retain(|address, remote| {
            let is_wanted = wanted.iter().any(|candidate| candidate.address == *address);
            let is_there = Alias::of(*address).is_none_or(|way| is_had(had, way));
            // The last socket is kept for a while without proof.
            let is_kept = is_last_socket(*address, &self.sockets);
            is_wanted || is_there && (remote.is_proven() || is_kept)
        });
        for candidate in wanted {
            if !self.known.contains_key(&candidate.address) && self.is_full(candidate.address) {
                continue;
            }
            let remote = self
                .known
                .entry(candidate.address)
                .or_insert_with(|| Remote::new(candidate, self.mtu.renewed()));
            if candidate.kind == CandidateKind::Relayed {
                // Not every announcement says of what kind an address is.
                remote.candidate = candidate;
            }
            if probe && !remote.is_proven() {
                remote.start_burst(now);
            }
        }
    }

    /// The circuits, and the ways through each allocation: one for each host, since a server lets in whatever port of a
    /// host it sends to.
    fn relayed(&self) -> impl Iterator<Item = Candidate> {
        let mut peers: Vec<SocketAddrV4> = Vec::new();
        for candidate in &self.announced {
            if let SocketAddr::V4(peer) = candidate.address
                && !peers.iter().any(|known| known.ip() == peer.ip())
            {
                peers.push(peer);
            }
        }
        let ways = self.allocations.iter().flat_map(move |allocation| {
            let peers = peers.clone().into_iter().filter(|peer| allocation.may_reach(*peer.ip()));
            peers.map(|peer| Alias::Turn(allocation.number, peer))
        });
        let circuits = self.circuits.iter().copied().map(Alias::Circuit);
        circuits.chain(ways).map(|way| Candidate::new(CandidateKind::Relayed, way.into()))
    }

    /// Whether there is no room for one more of the same sort.
    fn is_full(&self, address: SocketAddr) -> bool {
        let is_own = |address: &SocketAddr| Alias::of(*address).is_some();
        let own = self.known.keys().filter(|known| is_own(known)).count();
        if is_own(&address) { own >= MAX_RELAYED } else { self.known.len() - own >= MAX_CANDIDATES }
    }

    /// Whether there is the allocation, the circuit or the socket of such a way.
    pub(crate) fn has(&self, way: Alias) -> bool {
        is_had((&self.allocations, &self.circuits, &self.sockets), way)
    }

    /// Whether somebody passes on what goes between this device and the peer there.
    pub(crate) fn is_relayed(&self, address: SocketAddr) -> bool {
        Alias::of(address).is_some_and(Alias::is_relayed)
            || self.known.get(&address).is_some_and(Remote::is_relayed)
    }

    /// Something authenticated came straight from this address; true if it is known.
    pub(crate) fn hear(&mut self, address: SocketAddr, now: Instant) -> bool {
        let Some(remote) = self.known.get_mut(&address) else { return false };
        remote.handle_heard(now);
        if !remote.is_proven() {
            remote.hasten_burst(now);
        }
        true
    }

    /// The same for an address that is not known: takes the place of the worst, if need be.
    pub(crate) fn discover(&mut self, address: SocketAddr, now: Instant) {
        let is_own = Alias::of(address).is_some();
        if self.is_full(address) {
            let same = |known: &&SocketAddr| Alias::of(**known).is_some() == is_own;
            let is_idle = |known: &&SocketAddr| !self.known[*known].is_proven();
            let worst = self.known.keys().rev().filter(same).find(is_idle).copied();
            let Some(worst) = worst else { return };
            self.known.remove(&worst);
        }
        let is_relayed = Alias::of(address).is_some_and(Alias::is_relayed);
        let kind = if is_relayed { CandidateKind::Relayed } else { CandidateKind::PeerReflexive };
        let remote = Remote::new(Candidate::new(kind, address), self.mtu.renewed());
        self.known.insert(address, remote);
        self.hear(address, now);
    }

    /// Forgets the proof of every way that somebody passes on for from which nothing has come since: where one is dead, the
    /// others most likely are as well.
    pub(crate) fn doubt_relayed(&mut self, since: Instant) {
        let is_silent = |remote: &&mut Remote| remote.heard().is_none_or(|heard| heard < since);
        let relayed = self.known.values_mut().filter(|remote| remote.is_relayed());
        relayed.filter(is_silent).for_each(Remote::disprove);
    }

    pub(crate) fn is_proven(&self, address: SocketAddr) -> bool {
        self.known.get(&address).is_some_and(Remote::is_proven)
    }

    pub(crate) fn get(&self, address: SocketAddr) -> Option<&Remote> {
        self.known.get(&address)
    }

    pub(crate) fn get_mut(&mut self, address: SocketAddr) -> Option<&mut Remote> {
        self.known.get_mut(&address)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Remote> {
        self.known.values()
    }

    /// Those at which nobody passes on.
    pub(crate) fn straight(&self) -> impl Iterator<Item = &Remote> {
        self.all().filter(|remote| !remote.is_relayed())
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut Remote)> {
        self.known.iter_mut().map(|(address, remote)| (*address, remote))
    }

    /// Starts a burst at each, unless one is on.
    pub(crate) fn start_bursts(&mut self, now: Instant) {
        self.known.values_mut().for_each(|remote| remote.start_burst(now));
    }

    /// Drops proofs that have run out; true if there were any.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        for remote in self.known.values_mut() {
            any |= remote.expire(now);
        }
        any
    }

    /// When the next probe is due.
    pub(crate) fn due(&self, of: fn(&Remote) -> bool) -> Option<Instant> {
        self.known.values().filter(|remote| of(remote)).filter_map(Remote::due).min()
    }

    /// When the next proof runs out.
    pub(crate) fn stale_at(&self) -> Option<Instant> {
        self.known.values().filter_map(Remote::stale_at).min()
    }

    /// The best proven one, where the chosen one has an advantage; one that was left for what is better only if it may not be
    /// a trusted one.
    pub(crate) fn best(&self, chosen: Path, trusted: bool, now: Instant) -> Option<SocketAddr> {
        let ranked = self.known.iter().filter_map(|(address, remote)| {
            Some((remote.rank(chosen == Path::Direct(*address), now)?, *address))
        });
        let usable = ranked.filter(|(rank, _)| rank.trusted || !trusted);
        usable.max().map(|(_, address)| address)
    }

    pub(crate) fn latency(&self, path: Path) -> Option<Duration> {
        match path {
            Path::Direct(address) => self.known.get(&address)?.latency(),
            Path::Relay | Path::Stream | Path::None => None,
        }
    }

    /// What is known about each, for display.
    pub(crate) fn statuses(&self, chosen: Path, now: Instant) -> Vec<RemoteStatus> {
        let status = |(address, remote): (&SocketAddr, &Remote)| RemoteStatus {
            candidate: remote.candidate,
            proven: remote.is_proven(),
            latency: remote.latency(),
            loss_percent: remote.loss_percent(now),
            heard: remote.heard(),
            lacks: (chosen != Path::Direct(*address)).then(|| remote.lacks(now)),
        };
        self.known.iter().map(status).collect()
    }
}

fn is_last_socket(address: SocketAddr, sockets: &Range<u32>) -> bool {
    matches!(Alias::of(address), Some(Alias::Socket(number, _)) if *sockets == (number..number + 1))
}

fn is_had(
    (allocations, circuits, sockets): (&[Allocation], &[u32], &Range<u32>),
    way: Alias,
) -> bool {
    match way {
        Alias::Turn(number, _) => allocations.iter().any(|allocation| allocation.number == number),
        Alias::Circuit(number) => circuits.contains(&number),
        Alias::Socket(number, _) => sockets.contains(&number),
    }
}

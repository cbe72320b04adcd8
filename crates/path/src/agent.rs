//! The machine that chooses the path to one peer.

mod choosing;
mod delivery;
mod meeting;
mod probing;
mod quality;
mod scattering;
mod sizes;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use self::delivery::Delivery;
use crate::alias::{Alias, Allocation};
use crate::budget::ProbeBudget;
use crate::calls::Calls;
use crate::candidate::{Candidate, CandidateKind, canonical, order};
use crate::disco::{Message, TransactionId};
use crate::frames::Frames;
use crate::guesses::Guesses;
use crate::io::{Counts, PathConfig, PathEvent, RemoteStatus, Transmit};
use crate::loss::LossMeter;
use crate::relay_choice::RelayChange;
use crate::remote::{Answer, Remote};
use crate::remotes::Remotes;
use crate::rendezvous::Rendezvous;
use crate::scatter::Scatter;
use crate::translator::PortSequence;
use crate::why::{Decision, Path, Reason};

/// Traffic that got no answer for this long triggers probes.
pub const PROBE_AFTER: Duration = Duration::from_millis(500);
/// A direct path that answered nothing for this long is given up.
pub const DEMOTE_AFTER: Duration = Duration::from_secs(2);
/// What was suspected of a path, and found untrue, is suspected again after this at the soonest.
const SETTLED: Duration = Duration::from_secs(5);
/// Paths are probed and kept alive for this long after the last traffic.
const ACTIVE_FOR: Duration = Duration::from_secs(120);
/// Decisions kept for `why`.
const DECISIONS: usize = 8;

/// Chooses the path to one peer; see the crate's documentation for the rules.
#[derive(Debug)]
pub struct PathAgent {
    config: PathConfig,
    local: Vec<Candidate>,
    remotes: Remotes,
    frames: Frames,
    chosen: Path,
    active_until: Option<Instant>,
    /// The same for traffic of this device and for it, without what the peer asks for.
    wanted_until: Option<Instant>,
    unanswered: Option<Unanswered>,
    /// When the chosen path was suspected to be dead because of what came by another.
    suspected: Option<Instant>,
    /// Since when traffic leaves to which nothing at all has come back, by whatever path.
    silent_since: Option<Instant>,
    calls: Calls,
    guesses: Guesses,
    rendezvous: Rendezvous,
    scatter: Scatter,
    /// What the tunnel has sent and received straight, where there is a session.
    counts: Option<Counts>,
    delivery: Delivery,
    loss: LossMeter,
    user_pings: Option<Instant>,
    decisions: VecDeque<Decision>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<PathEvent>,
}

#[derive(Clone, Copy, Debug)]
struct Unanswered {
    since: Instant,
    demote_at: Instant,
    probed: bool,
    /// Whether a pong alone shows that the path works: all else may have been under way before.
    needs_pong: bool,
}

impl Unanswered {
    fn since(now: Instant) -> Self {
        Self { since: now, demote_at: now + DEMOTE_AFTER, probed: false, needs_pong: false }
    }
}

impl PathAgent {
    /// An agent that knows no path yet.
    pub fn new(config: PathConfig) -> Self {
        Self {
            remotes: Remotes::new(config.mtu),
            config,
            local: Vec::new(),
            frames: Frames::default(),
            chosen: Path::None,
            active_until: None,
            wanted_until: None,
            unanswered: None,
            suspected: None,
            silent_since: None,
            calls: Calls::default(),
            guesses: Guesses::default(),
            rendezvous: Rendezvous::default(),
            scatter: Scatter::default(),
            counts: None,
            delivery: Delivery::default(),
            loss: LossMeter::default(),
            user_pings: None,
            decisions: VecDeque::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The addresses of this device, to be told to the peer when it matters.
    pub fn handle_local_candidates(&mut self, candidates: &[Candidate], now: Instant) {
        let mut candidates = candidates.to_vec();
        order(&mut candidates);
        if self.local == candidates {
            return;
        }
        self.local = candidates;
        if self.is_active(now) {
            self.call(now);
        }
    }

    /// Whether the translator in front of this device gives each destination a port of its own, if that is known. If it does, each
    /// attempt begins with a [`PathEvent::SurveyWanted`].
    pub fn handle_translator(&mut self, is_dependent: Option<bool>) {
        self.calls.set_dependent(is_dependent);
    }

    /// The survey that was wanted has found how the translator counts ports, or that it does not.
    pub fn handle_survey(&mut self, sequence: Option<PortSequence>, now: Instant) {
        self.calls.handle_survey(sequence, now);
    }

    /// The addresses that the peer announced, in signed endpoints or a call-me-maybe. Addresses
    /// that are proven stay even if they are not announced any more.
    pub fn handle_remote_candidates(&mut self, candidates: &[Candidate], now: Instant) {
        let mut wanted: Vec<_> = candidates
            .iter()
            .map(|candidate| Candidate::new(candidate.kind, candidate.address))
            .filter(|candidate| self.config.udp && self.config.filter.permits(candidate.address))
            .collect();
        order(&mut wanted);
        self.remotes.announce(&wanted, self.is_active(now), now);
    }

    /// The allocations of this device at TURN servers, through which the peer may be reached too.
    pub fn handle_allocations(&mut self, allocations: &[Allocation], now: Instant) {
        self.remotes.handle_allocations(allocations, self.is_active(now), now);
        self.leave_lost_way(now);
    }

    /// The circuits to the peer, through relays or other members; true if they are others than before.
    pub fn handle_circuits(&mut self, circuits: &[u32], now: Instant) -> bool {
        let is_other = self.remotes.handle_circuits(circuits, self.is_active(now), now);
        self.leave_lost_way(now);
        is_other
    }

    /// A direct path to the peer is wanted for as long as this is called, without traffic of our own for it.
    pub fn handle_need(&mut self, now: Instant) {
        self.wake(now);
    }

    /// Whether a relay is there through which the peer can be reached.
    pub fn handle_relay(&mut self, available: bool, now: Instant) {
        if std::mem::replace(&mut self.frames.relay, available) != available {
            let reason = if available { Reason::RelayFirst } else { Reason::RelayLost };
            self.handle_frames(available, reason, now);
        }
    }

    /// Whether a stream leads straight to the peer. It goes before relays.
    pub fn handle_stream(&mut self, available: bool, now: Instant) {
        if std::mem::replace(&mut self.frames.stream, available) != available {
            let reason = if available { Reason::StreamOpen } else { Reason::StreamLost };
            self.handle_frames(available, reason, now);
        }
    }

    /// There is one more way for frames, or one less.
    fn handle_frames(&mut self, gained: bool, reason: Reason, now: Instant) {
        self.frames.handle_change();
        if !self.is_direct() {
            self.choose_again(reason, now);
        }
        if gained && self.is_active(now) && !self.is_direct() {
            self.call(now);
        }
    }

    /// Frames for the peer go through another of its relays, and not over a stream any more.
    pub fn handle_relay_change(&mut self, change: RelayChange, now: Instant) {
        (self.frames.relay, self.frames.stream) = (true, false);
        self.frames.handle_change();
        if matches!(self.chosen, Path::Relay | Path::Stream) {
            let reason = match change {
                RelayChange::Silent(since) => Reason::Unanswered { since },
                RelayChange::Followed => Reason::PeerChangedRelay,
            };
            self.choose(Path::Relay, reason, now);
        }
    }

    /// An authenticated disco message of the peer arrived over `path`. Pings that came through a relay are
    /// for the [`crate::RelayChoice`].
    pub fn handle_message(&mut self, path: Path, message: Message, now: Instant) {
        self.silent_since = None;
        match message {
            Message::Ping { transaction } => self.handle_ping(path, transaction, now),
            Message::Pong { transaction, arrived } => {
                self.handle_pong(path, (transaction, arrived), now);
            }
            Message::MappingRequest { at } => self.scatter.handle_question(at, now),
            Message::Mapping { steady } => self.handle_steady(steady, now),
            Message::Scattered => self.handle_scattered(now),
            Message::Rendezvous { ports } => self.handle_rendezvous(ports, now),
            // What a peer relay and those that ask it say to each other is the owner's affair.
            Message::CircuitRequest { .. }
            | Message::Circuit { .. }
            | Message::RelayCircuit { .. } => {}
            Message::CallMeMaybe { candidates, ports } => {
                if self.is_straight() {
                    self.handle_doubt(now);
                }
                let is_announced = |ports: &PortSequence| {
                    let ip = ports.last.ip();
                    ip.is_ipv4() && candidates.iter().any(|candidate| candidate.ip() == ip)
                };
                let ports = ports.filter(is_announced);
                self.guesses.handle_announcement(ports, self.calls.is_dependent(), now);
                let candidates: Vec<_> = candidates
                    .into_iter()
                    .map(|address| Candidate::new(CandidateKind::Reflexive, address))
                    .collect();
                self.stir(now);
                self.handle_remote_candidates(&candidates, now);
                if self.config.udp {
                    self.calls.answer(self.is_wanted(now), now);
                }
            }
        }
    }

    /// Traffic for the peer left over the chosen path.
    pub fn handle_sent(&mut self, now: Instant) {
        if self.is_direct() && self.unanswered.is_none() {
            self.unanswered = Some(Unanswered::since(now));
        }
        self.silent_since.get_or_insert(now);
        self.wake(now);
    }

    /// Authenticated traffic of the peer arrived over `path`.
    pub fn handle_received(&mut self, path: Path, now: Instant) {
        self.silent_since = None;
        match path {
            Path::Direct(address) => {
                let address = canonical(address);
                if self.chosen != Path::Direct(address) {
                    self.suspect(now);
                }
                self.hear(address, now);
            }
            Path::Relay | Path::Stream => {
                self.suspect(now);
                self.doubt_delivery(now);
            }
            Path::None => {}
        }
        self.wake(now);
    }

    /// A new session with the peer was made over `path`, and confirmed: a round trip this way.
    ///
    /// The side that begins a session does so over its best path. If that is not ours, ours may be
    /// dead without our knowing, as when the peer was started anew on another port; then the first
    /// answers would be lost. If ours still works, its next pong brings it back.
    pub fn handle_session(&mut self, path: Path, now: Instant) {
        let path = match path {
            Path::Direct(address) => Path::Direct(canonical(address)),
            // Which way frames take is not for the session to say.
            Path::Relay | Path::Stream | Path::None => self.frames.path(),
        };
        let is_usable = match path {
            Path::Direct(address) => {
                let is_poor = |remote: &Remote| remote.is_poor(now);
                self.permits(address) && !self.remotes.get(address).is_some_and(is_poor)
            }
            Path::Relay | Path::Stream => true,
            Path::None => false,
        };
        if path == self.chosen || !is_usable {
            return;
        }
        if let Path::Direct(address) = self.chosen
            && let Some(remote) = self.remotes.get_mut(address)
        {
            remote.disprove();
            remote.start_burst(now);
        }
        if let Path::Direct(address) = path {
            self.hear(address, now);
        }
        self.choose(path, Reason::PeerMoved, now);
    }

    /// Addresses or routes of this device changed: nothing is proven any more.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.remotes.all_mut().for_each(|(_, remote)| remote.reset());
        self.calls.forget_ports();
        self.scatter.forget();
        self.frames.handle_change();
        self.loss = LossMeter::default();
        (self.unanswered, self.suspected) = (None, None);
        if self.is_direct() {
            self.choose_again(Reason::NetworkChanged, now);
            self.begin_search(now);
        }
        if self.is_active(now) {
            self.discover(now);
        }
    }

    /// The user wants to know how the paths are doing: pings all of them.
    pub fn handle_ping_request(&mut self, now: Instant) {
        self.wake(now);
        self.user_pings = Some(now);
        self.remotes.start_bursts(now);
    }

    /// Does what is due: probes, call-me-maybes, demotion.
    pub fn handle_timeout(
        &mut self,
        budget: &mut ProbeBudget,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        self.check_unanswered(now);
        self.check_full_packets(now);
        self.check_idle(now);
        self.hold(now);
        self.send_call(now);
        self.ask_for_mapping(budget, now);
        self.tell_mapping(budget, now);
        self.meet(budget, rng, now);
        self.watch_quality(rng, now);
        self.send_frame_ping(rng, now);
        self.send_probes(budget, rng, now);
        if !self.calls.is_held(now) {
            self.send_guesses(budget, rng, now);
        }
        self.search_sizes(rng, now);
    }

    /// The next message to seal and send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<PathEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let unanswered = self.unanswered.map(|unanswered| {
            if unanswered.probed {
                (unanswered.demote_at, "path demotion")
            } else {
                (unanswered.since + PROBE_AFTER, "probes for unanswered traffic")
            }
        });
        let unproven = self.remotes.due(|remote| !remote.is_proven());
        let held = unproven.into_iter().chain(self.guesses.due()).min();
        let held = held.map(|at| self.calls.held_until().map_or(at, |until| at.max(until)));
        let probe = self.remotes.due(Remote::is_proven).into_iter().chain(held).min();
        [
            unanswered,
            probe.map(|at| (at, "path probe")),
            self.remotes.stale_at().map(|at| (at, "path proof runs out")),
            self.calls.due().map(|at| (at, "call-me-maybe")),
            self.rendezvous.due().map(|at| (at, "rendezvous")),
            self.scatter.due().map(|at| (at, "scattered sockets")),
            self.user_pings.map(|at| (at, "ping")),
            self.search_due().map(|at| (at, "packet size")),
            self.active_until.map(|at| (at, "path goes idle")),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Over which path the next packet goes.
    pub fn chosen(&self) -> Path {
        self.chosen
    }

    /// Whether there is a way for frames, which may be of any size.
    pub fn has_frames(&self) -> bool {
        self.frames.path() != Path::None
    }

    /// The latest decisions, newest first.
    pub fn why(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().rev()
    }

    /// What is known about each address of the peer.
    pub fn remotes(&self, now: Instant) -> Vec<RemoteStatus> {
        self.remotes.statuses(self.chosen, now)
    }

    fn handle_ping(&mut self, path: Path, transaction: TransactionId, now: Instant) {
        let is_usable = match path {
            Path::Direct(address) => self.permits(canonical(address)),
            // Through which relay it came matters there, so the choice of the relay answers it.
            Path::Relay | Path::Stream | Path::None => false,
        };
        if !is_usable {
            return;
        }
        let arrived = self.counts.map(|counts| counts.arrived);
        self.transmits.push_back(Transmit::new(path, &Message::Pong { transaction, arrived }));
        if let Path::Direct(address) = path {
            self.hear(canonical(address), now);
        }
    }

    fn handle_pong(
        &mut self,
        path: Path,
        (transaction, arrived): (TransactionId, Option<u32>),
        now: Instant,
    ) {
        let (answer, sample) = match path {
            Path::Direct(address) => {
                let answer = self.handle_direct_pong(address, transaction, now);
                if answer.is_some() {
                    self.reconsider_void(canonical(address), arrived);
                    self.reconsider_shunned(canonical(address), now);
                }
                let sample = answer.map(|answer| now.saturating_duration_since(answer.at));
                (answer, sample)
            }
            Path::Relay | Path::Stream => (None, self.frames.handle_pong(transaction, now)),
            Path::None => (None, None),
        };
        let Some(latency) = sample else { return };
        self.events.push_back(PathEvent::Pong { path, latency });
        if path == self.chosen {
            self.unanswered = None;
        }
        if let Path::Direct(_) = path {
            self.choose_best(Reason::Proven { latency }, now);
        }
        if let Some(answer) = answer {
            self.judge(path, &answer, arrived, now);
        }
    }

    /// A pong that came straight; what it answers if that is a probe of the path, and no search for packet sizes.
    fn handle_direct_pong(
        &mut self,
        address: SocketAddr,
        transaction: TransactionId,
        now: Instant,
    ) -> Option<Answer> {
        let address = canonical(address);
        self.handle_size_pong(address, transaction, now);
        let remote = self.remotes.get_mut(address)?;
        let was_proven = remote.is_proven();
        let answer = remote.handle_pong(transaction, now)?;
        if !was_proven && self.chosen == Path::Direct(address) {
            self.begin_search(now);
        }
        Some(answer)
    }

    /// Something authenticated came straight from this address.
    fn hear(&mut self, address: SocketAddr, now: Instant) {
        if !self.remotes.is_relayed(address) {
            self.guesses.stop();
        }
        if self.chosen == Path::Direct(address) {
            self.unanswered = self.unanswered.filter(|unanswered| unanswered.needs_pong);
        }
        let is_known = self.remotes.hear(address, now);
        if !is_known && self.permits(address) {
            self.remotes.discover(address, now);
        }
    }

    /// Whether packets for the peer may be sent there: an address that may be dialled, by itself or through an
    /// allocation that there is, or a circuit that there is.
    fn permits(&self, address: SocketAddr) -> bool {
        let filter = &self.config.filter;
        let is_permitted = match Alias::of(address) {
            None => filter.permits(address),
            Some(way @ (Alias::Circuit(_) | Alias::Socket(..))) => self.remotes.has(way),
            Some(way @ Alias::Turn(_, peer)) => {
                self.remotes.has(way) && filter.permits(peer.into())
            }
        };
        self.config.udp && is_permitted
    }

    fn is_active(&self, now: Instant) -> bool {
        self.active_until.is_some_and(|until| until > now)
    }

    fn is_wanted(&self, now: Instant) -> bool {
        self.wanted_until.is_some_and(|until| until > now)
    }

    fn is_direct(&self) -> bool {
        matches!(self.chosen, Path::Direct(_))
    }

    /// There is traffic: look for a better path if none is proven.
    fn wake(&mut self, now: Instant) {
        self.wanted_until = Some(now + ACTIVE_FOR);
        self.stir(now);
    }

    /// A path is looked for, whoever has traffic.
    fn stir(&mut self, now: Instant) {
        let was_active = self.is_active(now);
        self.active_until = Some(now + ACTIVE_FOR);
        if !was_active {
            self.discover(now);
        }
    }

    fn discover(&mut self, now: Instant) {
        self.remotes.start_bursts(now);
        if !self.has_straight() {
            self.call(now);
        }
    }

    /// Schedules a call-me-maybe as soon as the pause allows.
    fn call(&mut self, now: Instant) {
        if self.config.udp {
            self.calls.schedule(now);
        }
    }

    fn check_unanswered(&mut self, now: Instant) {
        let (Some(unanswered), Path::Direct(address)) = (self.unanswered, self.chosen) else {
            self.unanswered = None;
            return;
        };
        if now >= unanswered.demote_at {
            self.unanswered = None;
            if let Some(remote) = self.remotes.get_mut(address) {
                remote.disprove();
            }
            self.remotes.doubt_relayed(unanswered.since);
            let since = now.saturating_duration_since(unanswered.since);
            self.choose_again(Reason::Unanswered { since }, now);
            self.discover(now);
        } else if now >= unanswered.since + PROBE_AFTER && !unanswered.probed {
            let demote_at = self.give_up_at(unanswered.demote_at, now);
            self.unanswered = Some(Unanswered { probed: true, demote_at, ..unanswered });
            self.doubt_delivery(now);
            self.remotes.start_bursts(now);
        }
    }

    fn check_idle(&mut self, now: Instant) {
        if self.active_until.is_some_and(|until| until <= now) {
            self.active_until = None;
            self.calls.stop();
            self.calls.forget_ports();
            self.guesses.stop();
            self.remotes.all_mut().for_each(|(_, remote)| remote.stop_probing());
        }
        if self.remotes.expire(now) && self.is_direct() {
            self.choose_best(Reason::Idle, now);
        }
    }
}

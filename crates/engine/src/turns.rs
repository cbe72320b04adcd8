//! Allocations at TURN servers: when they are wanted, how they come about, and what goes through them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use identity::{DeviceId, MAX_TURN_SERVERS, Transport, TurnLogin, TurnServer, UnixTime};
use noise_channel::Now;
use path::{Alias, Allocation, CandidateFilter};
use rand_core::CryptoRng;
use turn_proto::{Client, Credentials, Event, Failure};
use zeroize::Zeroizing;

use crate::context::Context;
use crate::engine::Engine;
use crate::io::SocketId;
use crate::ladder::Rung;
use crate::peer::{Lacking, Peer};
use crate::sockets::Sockets;
use crate::status::TurnStatus;

/// Allocations are given back when no traffic has lacked a direct path for so long.
const KEPT: Duration = Duration::from_secs(60);
/// Traffic for a peer with which there is no session counts for so long ...
const TRIED: Duration = Duration::from_secs(120);
/// ... out of this: the peer may merely be offline, and may come back.
const TRIED_EVERY: Duration = Duration::from_secs(600);
/// A server that failed is asked again after this, doubled with each failure ...
const AGAIN: Duration = Duration::from_secs(5);
/// ... up to this.
const AGAIN_LATEST: Duration = Duration::from_secs(300);
/// A server that has no room is asked again after this at the soonest (RFC 8656 section 7.4).
const AGAIN_FULL: Duration = Duration::from_secs(60);
const ALLOCATION_QUOTA_REACHED: u16 = 486;
const INSUFFICIENT_CAPACITY: u16 = 508;

/// The servers, and what this device has at each.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Those of this device's settings.
    own: Vec<TurnServer>,
    /// By what servers with a shared secret find this device in their logs.
    name: String,
    lines: Vec<Line>,
    /// Since when traffic has lacked a direct path.
    lacking_since: Option<Instant>,
    /// The same for each peer with which there is no session.
    lacking_sessions: BTreeMap<DeviceId, Instant>,
    /// Allocations are wanted until then.
    wanted_until: Option<Instant>,
}

/// One server.
#[derive(Debug)]
struct Line {
    server: TurnServer,
    link: Option<Link>,
    /// How often in a row it failed.
    failures: u32,
    again: Option<Instant>,
    problem: Option<Problem>,
}

/// A socket towards a server, and once it is open the machine that uses it.
#[derive(Debug)]
struct Link {
    turn: SocketId,
    client: Option<Client>,
}

/// Why a server was of no use the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    /// The connection to it was not made, or broke.
    Unreached,
    /// It, or the login, did not do.
    Failed(Failure),
}

/// A datagram that came through an allocation, and from where, as this device names it.
type Arrived = (SocketAddr, Vec<u8>);

impl Turns {
    /// The servers of the device's own settings.
    pub(crate) fn new(own: Vec<TurnServer>, device: DeviceId) -> Self {
        Self {
            own,
            name: device.to_string(),
            lines: Vec::new(),
            lacking_since: None,
            lacking_sessions: BTreeMap::new(),
            wanted_until: None,
        }
    }

    /// Takes over which servers the network has beside this device's own, as far as they may be dialled.
    pub(crate) fn handle_servers(
        &mut self,
        network: &[TurnServer],
        filter: &CandidateFilter,
        sockets: &mut Sockets,
        cx: &mut Context<'_>,
    ) {
        let mut wanted: Vec<&TurnServer> = Vec::new();
        for server in self.own.iter().chain(network) {
            let is_good = server.is_bounded() && filter.permits(server.address);
            if is_good && wanted.len() < MAX_TURN_SERVERS && !wanted.contains(&server) {
                wanted.push(server);
            }
        }
        let wanted: Vec<TurnServer> = wanted.into_iter().cloned().collect();
        for line in &mut self.lines {
            if !wanted.contains(&line.server) {
                line.close(sockets, cx);
            }
        }
        self.lines.retain(|line| wanted.contains(&line.server));
        for server in wanted {
            if !self.lines.iter().any(|line| line.server == server) {
                self.lines.push(Line::new(server));
            }
        }
    }

    /// Takes note of the peers for which traffic lacks a direct path now, each with how long it has to before servers are asked.
    pub(crate) fn handle_lack(
        &mut self,
        peers: impl Iterator<Item = (Lacking, Duration)>,
        now: Instant,
    ) {
        let before = std::mem::take(&mut self.lacking_sessions);
        let mut stagger = None;
        if !self.lines.is_empty() {
            for (Lacking { device, has_session, is_waiting }, after) in peers {
                let since = before.get(&device).copied().unwrap_or(now);
                if !has_session {
                    self.lacking_sessions.insert(device, since);
                }
                if has_session || is_waiting && is_tried(now - since) {
                    stagger = Some(stagger.map_or(after, |least: Duration| least.min(after)));
                }
            }
        }
        let Some(stagger) = stagger else {
            self.lacking_since = None;
            self.wanted_until = self.wanted_until.filter(|until| *until > now);
            return;
        };
        let since = *self.lacking_since.get_or_insert(now);
        if now >= since + stagger {
            self.wanted_until = Some(now + KEPT);
        }
    }

    /// The network underneath is another one: servers know this device by the address that it had.
    pub(crate) fn handle_network_change(&mut self, sockets: &mut Sockets, cx: &mut Context<'_>) {
        for line in &mut self.lines {
            line.close(sockets, cx);
            (line.failures, line.again, line.problem) = (0, None, None);
        }
    }

    /// Gives everything back.
    pub(crate) fn give_back(&mut self, sockets: &mut Sockets, cx: &mut Context<'_>) {
        self.wanted_until = None;
        self.lines.iter_mut().for_each(|line| line.close(sockets, cx));
    }

    /// Sends a datagram to a peer through an allocation; it is lost if there is none.
    pub(crate) fn send(
        &mut self,
        allocation: u32,
        peer: SocketAddrV4,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) {
        let now = cx.instant();
        if let Some(client) = self.client(SocketId(allocation)) {
            client.send(peer.into(), payload, cx.rng, now);
        }
    }

    /// A socket is open.
    pub(crate) fn handle_opened(&mut self, turn: SocketId, wall: UnixTime, cx: &mut Context<'_>) {
        let name = &self.name;
        let lines = self.lines.iter_mut();
        for line in lines.filter(|line| line.is(turn)) {
            let login = credentials(&line.server.login, name).login(wall.0);
            let mut client = Client::new(transport(line.server.transport), login, cx.now.instant);
            client.handle_timeout(cx.rng, cx.now.instant);
            line.link = Some(Link { turn, client: Some(client) });
        }
    }

    /// Bytes came in over a socket.
    pub(crate) fn handle_bytes(&mut self, turn: SocketId, bytes: &[u8], cx: &mut Context<'_>) {
        let now = cx.instant();
        if let Some(client) = self.client(turn) {
            client.handle_bytes(bytes, cx.rng, now);
        }
    }

    /// A socket failed.
    pub(crate) fn handle_closed(&mut self, turn: SocketId, now: Instant) {
        for line in self.lines.iter_mut().filter(|line| line.is(turn)) {
            line.fail(Problem::Unreached, now);
        }
    }

    fn client(&mut self, turn: SocketId) -> Option<&mut Client> {
        let line = self.lines.iter_mut().find(|line| line.is(turn))?;
        line.link.as_mut()?.client.as_mut()
    }

    /// Opens and closes sockets as it is wanted, and lets the machines work. Answers what came through them.
    fn work(&mut self, sockets: &mut Sockets, cx: &mut Context<'_>) -> Vec<Arrived> {
        let is_wanted = self.wanted_until.is_some();
        let mut arrived = Vec::new();
        for line in &mut self.lines {
            if !is_wanted {
                line.close(sockets, cx);
            } else if line.link.is_none() && line.again.is_none_or(|at| at <= cx.now.instant) {
                let (server, transport) = (line.server.address, line.server.transport);
                let turn = sockets.open(server, transport);
                line.link = Some(Link { turn, client: None });
            }
            line.work(sockets, &mut arrived, cx);
        }
        arrived
    }

    /// What this device has at all servers.
    pub(crate) fn allocations(&self) -> impl Iterator<Item = Allocation> {
        self.lines.iter().filter_map(|line| {
            let link = line.link.as_ref()?;
            let relayed = link.client.as_ref()?.relayed().filter(SocketAddr::is_ipv4)?;
            Some(Allocation { number: link.turn.0, relayed })
        })
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let is_wanted = self.wanted_until.is_some();
        let timeouts = self.lines.iter().filter_map(|line| match &line.link {
            Some(link) => link.client.as_ref()?.poll_timeout(),
            None => Some((line.again.filter(|_| is_wanted)?, "ask a TURN server")),
        });
        timeouts.min()
    }

    pub(crate) fn statuses(&self) -> impl Iterator<Item = TurnStatus> {
        self.lines.iter().map(Line::status)
    }
}

impl Line {
    fn new(server: TurnServer) -> Self {
        Self { server, link: None, failures: 0, again: None, problem: None }
    }

    fn is(&self, turn: SocketId) -> bool {
        self.link.as_ref().is_some_and(|link| link.turn == turn)
    }

    fn work(&mut self, sockets: &mut Sockets, arrived: &mut Vec<Arrived>, cx: &mut Context<'_>) {
        let now = cx.instant();
        let Some(Link { turn, client: Some(client) }) = &mut self.link else { return };
        let turn = *turn;
        if client.poll_timeout().is_some_and(|(at, _)| at <= now) {
            client.handle_timeout(cx.rng, now);
        }
        while let Some((peer, payload)) = client.poll_data() {
            if let SocketAddr::V4(peer) = peer {
                arrived.push((Alias::Turn(turn.0, peer).into(), payload));
            }
        }
        while let Some(bytes) = client.poll_transmit() {
            sockets.send(turn, bytes);
        }
        while let Some(event) = client.poll_event() {
            match event {
                Event::Allocated(_) => (self.failures, self.problem) = (0, None),
                Event::Failed(failure) => {
                    self.fail(Problem::Failed(failure), now);
                    sockets.close(turn);
                    return;
                }
            }
        }
    }

    /// Ends the allocation, politely.
    fn close(&mut self, sockets: &mut Sockets, cx: &mut Context<'_>) {
        let Some(Link { turn, client }) = self.link.take() else { return };
        if let Some(mut client) = client {
            client.end(cx.rng);
            while let Some(bytes) = client.poll_transmit() {
                sockets.send(turn, bytes);
            }
        }
        sockets.close(turn);
    }

    fn fail(&mut self, problem: Problem, now: Instant) {
        self.link = None;
        self.problem = (problem != Problem::Failed(Failure::LoginEnds)).then_some(problem);
        let doubled = (AGAIN * 2_u32.pow(self.failures.min(16))).min(AGAIN_LATEST);
        let pause = match problem {
            Problem::Failed(Failure::LoginEnds) => Duration::ZERO,
            Problem::Failed(Failure::Refused(ALLOCATION_QUOTA_REACHED | INSUFFICIENT_CAPACITY)) => {
                doubled.max(AGAIN_FULL)
            }
            Problem::Failed(_) | Problem::Unreached => doubled,
        };
        self.failures += 1;
        self.again = Some(now + pause);
    }

    fn status(&self) -> TurnStatus {
        let client = self.link.as_ref().and_then(|link| link.client.as_ref());
        let relayed = client.and_then(Client::relayed);
        let state = match (&self.link, relayed, self.problem) {
            (_, Some(_), _) => "allocated",
            (_, None, Some(_)) => "failed",
            (Some(_), None, None) => "asked",
            (None, None, None) => "unused",
        };
        TurnStatus {
            server: format!("{}/{}", self.server.transport, self.server.address),
            state: state.to_owned(),
            relayed,
            problem: self.problem.map(Problem::text),
        }
    }
}

impl Problem {
    /// In words, with what to do.
    fn text(self) -> String {
        match self {
            Self::Unreached => "it is not reached; check its address and port".to_owned(),
            Self::Failed(failure @ Failure::Unauthorized) => {
                format!(
                    "{failure}; check username and password, or the shared secret, and its clock"
                )
            }
            Self::Failed(failure @ Failure::Silent) => {
                format!("{failure}; check that it runs and that its port is open")
            }
            Self::Failed(failure) => format!("{failure}; its log tells more"),
        }
    }
}

impl Engine {
    /// Gives back what others keep for this device: for a clean stop.
    pub fn give_back(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        let mut cx = Context { rng, now };
        self.turns.give_back(&mut self.sockets, &mut cx);
        self.drain(&mut cx);
    }

    /// Sends what goes by ways that no address says, takes what came through allocations, and tells the peers' machines
    /// which there are.
    pub(crate) fn drain_turns(&mut self, cx: &mut Context<'_>) {
        loop {
            while let Some((alias, transmit)) = self.output.aliased.pop_front() {
                let payload = transmit.payload;
                match alias {
                    Alias::Turn(number, peer) => self.turns.send(number, peer, &payload, cx),
                    Alias::Circuit(number) => {
                        self.send_over_circuit(number, &payload, transmit.whole);
                    }
                    Alias::Socket(number, _) => self.sockets.send(SocketId(number), payload),
                }
            }
            let arrived = self.turns.work(&mut self.sockets, cx);
            if arrived.is_empty() {
                break;
            }
            for (from, mut datagram) in arrived {
                self.take_datagram(from, &mut datagram, cx);
            }
            // What was answered at once goes the same way.
            self.drain_wireguard(cx);
        }
        let allocations: Vec<_> = self.turns.allocations().collect();
        if allocations != self.settings.allocations {
            self.settings.allocations.clone_from(&allocations);
            let now = cx.instant();
            self.for_each_peer(|peer| peer.agent.handle_allocations(&allocations, now));
            self.schedule.announce_soon(now);
        }
    }

    /// Looks for whom traffic lacks a direct path that nobody passes on, other than a member.
    pub(crate) fn look_for_lack(&mut self, now: Instant) {
        let may_lack = |peer: &&Peer| self.settings.path.udp && !self.circuits.reach(peer);
        let alone = self.peers.iter().filter(may_lack).filter_map(|peer| peer.lacking(now));
        let stagger = |lacking: &Lacking| self.ladder.stagger(lacking.device, Rung::Allocation);
        self.turns.handle_lack(alone.map(|lacking| (lacking, stagger(&lacking))), now);
    }
}

/// Whether traffic that has lacked a session for so long still counts, or counts again.
fn is_tried(lacking: Duration) -> bool {
    lacking.as_secs() % TRIED_EVERY.as_secs() < TRIED.as_secs()
}

fn transport(transport: Transport) -> turn_proto::Transport {
    match transport {
        Transport::Udp => turn_proto::Transport::Udp,
        Transport::Tcp => turn_proto::Transport::Tcp,
    }
}

fn credentials(login: &TurnLogin, name: &str) -> Credentials {
    let secret = |text: &str| Zeroizing::new(text.to_owned());
    match login {
        TurnLogin::User(username, password) => Credentials::LongTerm {
            username: username.clone(),
            password: secret(password.as_str()),
        },
        TurnLogin::Shared(shared) => {
            Credentials::Shared { secret: secret(shared.as_str()), name: name.to_owned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let server = "udp/192.0.2.7:3478,username=alice,password=secret";
        Line::new(server.parse().expect("the test names a server"))
    }

    /// Pauses after failures in a row.
    fn pauses(problem: Problem) -> [u64; 8] {
        let (mut line, now) = (line(), Instant::now());
        [(); 8].map(|()| {
            line.fail(problem, now);
            line.again.expect("it is asked again").duration_since(now).as_secs()
        })
    }

    #[test]
    fn a_server_that_fails_is_left_alone_for_longer_each_time_and_a_full_one_for_a_minute() {
        let doubled = [5, 10, 20, 40, 80, 160, 300, 300];
        for failure in [Failure::Silent, Failure::Unauthorized, Failure::Refused(403)] {
            assert_eq!(pauses(Problem::Failed(failure)), doubled);
        }
        for code in [486, 508] {
            let failure = Problem::Failed(Failure::Refused(code));
            assert_eq!(pauses(failure), doubled.map(|pause| pause.max(60)));
        }
        assert_eq!(pauses(Problem::Failed(Failure::LoginEnds)), [0; 8]);
    }

    #[test]
    fn a_peer_without_a_session_has_servers_asked_for_two_minutes_out_of_ten() {
        let device = DeviceId::from_bytes([1; 32]);
        let (mut turns, start) = (Turns::new(Vec::new(), device), Instant::now());
        turns.lines.push(line());
        let mut wanted = Vec::new();
        for second in 0..1_200 {
            // Now and then all that waited is dropped.
            let is_waiting = second % 90 != 89;
            let lacking = Lacking { device, has_session: false, is_waiting };
            let lacking = std::iter::once((lacking, Duration::from_secs(1)));
            turns.handle_lack(lacking, start + Duration::from_secs(second));
            wanted.push(turns.wanted_until.is_some());
        }
        let begins = |from: usize| !wanted[from] && wanted[from + 1];
        assert!(begins(0) && begins(600));
        assert_eq!(wanted[..600].iter().filter(|wanted| **wanted).count(), 178);
        // With a session it is there.
        let lacking = Lacking { device, has_session: true, is_waiting: false };
        let lacking = std::iter::once((lacking, Duration::from_secs(1)));
        turns.handle_lack(lacking, start + Duration::from_secs(1_200));
        assert!(turns.lacking_sessions.is_empty());
    }

    #[test]
    fn where_there_is_no_server_nobody_is_looked_at() {
        let device = DeviceId::from_bytes([1; 32]);
        let mut turns = Turns::new(Vec::new(), device);
        let peers = std::iter::from_fn(|| panic!("nobody asks"));
        turns.handle_lack(peers, Instant::now());
        assert!(turns.wanted_until.is_none());
    }
}

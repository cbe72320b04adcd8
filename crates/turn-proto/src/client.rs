//! The machine of one allocation.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::channels::{Channels, Way};
use crate::credentials::Login;
use crate::message::{self, Answer, Ask, Incoming, STALE_NONCE, Session, UNAUTHORIZED};
use crate::stream::Stream;

/// For how many seconds an allocation is asked for: what RFC 8656 section 7.2 has servers grant without being asked.
const LIFETIME: u32 = 600;
/// Between refreshes: below the 30 s after which the strictest translators forget a mapping.
const REFRESH: Duration = Duration::from_secs(25);
/// The shortest time between two refreshes, whatever a server grants.
const SHORTEST: Duration = Duration::from_secs(5);
/// Waits between transmissions of one request (RFC 8489 section 6.2.1: RTO 500 ms, doubling), shortened to four because
/// another server, or the relay, is there as well.
const RETRANSMIT: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
    Duration::from_millis(4_000),
];
/// What all of these take: how long a request over a stream is waited for.
const PATIENCE: Duration = Duration::from_millis(7_500);
/// Nonces that one request may find stale before the server is not believed any more.
const STALE: u8 = 3;
/// Bytes of peers' datagrams that wait to be polled, with their framing: several reads of a stream, of which nothing may be
/// lost that has come.
const WAITING: usize = 256 * 1024;
/// What frames a datagram at least.
const FRAMING: usize = 4;

/// There is another allocation, or none (RFC 8656 section 19).
const ALLOCATION_MISMATCH: u16 = 437;

/// Over what a client talks to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
}

/// What has become of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// What is sent here gets to this device, if it comes from a host to which this device sends.
    Allocated(SocketAddr),
    /// There is none, or none any more.
    Failed(Failure),
}

/// Why there is no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing came back.
    #[error("it does not answer")]
    Silent,
    /// Nothing came back that was signed with the credentials.
    #[error("it answers without proof that it knows the password")]
    Unproven,
    /// The credentials are none of the server's.
    #[error("it refuses the credentials")]
    Unauthorized,
    /// It does not do what was asked.
    #[error("it refuses with error {0}")]
    Refused(u16),
    /// It knows no such allocation, or another one from the same address.
    #[error("it has lost the allocation")]
    Lost,
    /// What it says makes no sense.
    #[error("it does not speak TURN as RFC 8656 has it")]
    Nonsense,
    /// The login has to be replaced.
    #[error("the login is about to end")]
    LoginEnds,
}

/// A client of one server, with one allocation; see the crate's documentation.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    login: Login,
    session: Option<Session>,
    requests: Vec<Request>,
    channels: Channels,
    stream: Stream,
    state: State,
    login_ends: Option<Instant>,
    /// When something came last that only a server with this allocation sends.
    heard: Option<Instant>,
    transmits: VecDeque<Vec<u8>>,
    data: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Bytes of `data`, with their framing.
    waiting: usize,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was asked yet.
    New,
    /// The server was asked for an allocation.
    Asked,
    /// There is one, to be refreshed then.
    Allocated(SocketAddr, Instant),
    /// There is none any more.
    Over,
}

/// A request that has no answer yet.
#[derive(Debug)]
struct Request {
    ask: Ask,
    transaction: [u8; 12],
    bytes: Vec<u8>,
    sent: usize,
    since: Instant,
    next: Instant,
    /// Nonces that it found stale.
    stale: u8,
    /// Whether it showed the credentials.
    signed: bool,
    /// Whether an answer came that did not.
    unproven: bool,
}

impl Client {
    /// A client that will ask for an allocation with the first call of [`Self::handle_timeout`].
    #[must_use]
    pub fn new(transport: Transport, login: Login, now: Instant) -> Self {
        Self {
            transport,
            login_ends: login.lasts.map(|lasts| now + lasts),
            heard: None,
            login,
            session: None,
            requests: Vec::new(),
            channels: Channels::default(),
            stream: Stream::default(),
            state: State::New,
            transmits: VecDeque::new(),
            data: VecDeque::new(),
            waiting: 0,
            events: VecDeque::new(),
        }
    }

    /// A datagram of the server came in, or some bytes of its stream.
    pub fn handle_bytes(&mut self, bytes: &[u8], rng: &mut dyn CryptoRng, now: Instant) {
        match self.transport {
            Transport::Udp => self.take(bytes, rng, now),
            Transport::Tcp => {
                let mut stream = std::mem::take(&mut self.stream);
                stream.push(bytes);
                while self.state != State::Over {
                    match stream.next() {
                        Ok(Some(message)) => self.take(message, rng, now),
                        Ok(None) => break,
                        Err(_) => self.fail(Failure::Nonsense, rng),
                    }
                }
                if self.state != State::Over {
                    self.stream = stream;
                }
            }
        }
    }

    /// Does what is due: asks, asks again, refreshes.
    pub fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        match self.state {
            State::New => {
                self.state = State::Asked;
                self.ask(Ask::Allocate(LIFETIME), 0, rng, now);
            }
            State::Allocated(..) if self.login_ends.is_some_and(|ends| ends <= now) => {
                return self.fail(Failure::LoginEnds, rng);
            }
            State::Allocated(relayed, at) if at <= now => {
                // One that has no answer yet is told from its failure.
                self.state = State::Allocated(relayed, now + REFRESH);
                self.ask(Ask::Refresh(LIFETIME), 0, rng, now);
            }
            State::Over => return,
            State::Asked | State::Allocated(..) => {}
        }
        while let Some(binding) = self.channels.next_due(now) {
            self.ask(Ask::Bind(binding), 0, rng, now);
        }
        self.repeat(rng, now);
    }

    /// Sends a datagram to a peer; it is lost where there is no allocation.
    pub fn send(
        &mut self,
        peer: SocketAddr,
        payload: &[u8],
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        let State::Allocated(..) = self.state else { return };
        match self.channels.send(peer, payload, now) {
            Way::Over(number) => self.send_over(number, payload),
            Way::Ask(binding) => self.ask(Ask::Bind(binding), 0, rng, now),
            Way::None => {}
        }
    }

    /// Gives the allocation back, without waiting for an answer.
    pub fn end(&mut self, rng: &mut dyn CryptoRng) {
        if self.state != State::Over {
            self.give_back(rng);
        }
        self.state = State::Over;
        self.requests.clear();
    }

    /// The next datagram for the server, or the next piece of the stream to it.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// The next datagram of a peer, with its address.
    #[must_use]
    pub fn poll_data(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let (peer, payload) = self.data.pop_front()?;
        self.waiting -= FRAMING + payload.len();
        Some((peer, payload))
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let request = self.requests.iter().map(|request| request.next).min();
        let refresh = match self.state {
            State::New => return None,
            State::Allocated(_, at) => Some(at),
            State::Asked => None,
            State::Over => return None,
        };
        let login = self.login_ends.filter(|_| refresh.is_some());
        [
            request.map(|at| (at, "ask a TURN server again")),
            refresh.map(|at| (at, "refresh an allocation")),
            login.map(|at| (at, "replace a login")),
            self.channels.due().map(|at| (at, "renew a channel")),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The address at which peers reach this device.
    #[must_use]
    pub fn relayed(&self) -> Option<SocketAddr> {
        match self.state {
            State::Allocated(relayed, _) => Some(relayed),
            State::New | State::Asked | State::Over => None,
        }
    }

    fn take(&mut self, bytes: &[u8], rng: &mut dyn CryptoRng, now: Instant) {
        if self.state == State::Over {
            return;
        }
        match message::parse(bytes) {
            Some(Incoming::Channel(number, payload)) => {
                if let Some(peer) = self.channels.peer(number) {
                    self.deliver(peer, payload.to_vec(), now);
                }
            }
            Some(Incoming::Data(peer, payload)) => self.deliver(peer, payload, now),
            Some(Incoming::Answer(transaction, answer)) => {
                let known = |request: &Request| request.transaction == transaction;
                let Some(index) = self.requests.iter().position(known) else { return };
                let proven = self.session.as_ref().is_some_and(|session| session.proves(bytes));
                if proven {
                    self.heard = Some(now);
                } else if answer.must_be_proven(self.requests[index].signed) {
                    self.requests[index].unproven = true;
                    return;
                }
                let request = self.requests.swap_remove(index);
                match answer {
                    Answer::Success { relayed, lifetime } => {
                        self.handle_success(request.ask, (relayed, lifetime), rng, now);
                    }
                    Answer::Error { code, realm, nonce } => {
                        self.handle_error(&request, (code, realm, nonce), rng, now);
                    }
                }
            }
            None => {}
        }
    }

    fn deliver(&mut self, peer: SocketAddr, payload: Vec<u8>, now: Instant) {
        self.heard = Some(now);
        let size = FRAMING + payload.len();
        if self.waiting + size <= WAITING {
            self.waiting += size;
            self.data.push_back((peer, payload));
        }
    }

    fn handle_success(
        &mut self,
        ask: Ask,
        (relayed, lifetime): (Option<SocketAddr>, Option<u64>),
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        let refresh_at = |lifetime: u64| {
            let half = Duration::from_secs(lifetime) / 2;
            now + half.clamp(SHORTEST, REFRESH)
        };
        match (ask, self.state) {
            (Ask::Allocate(_), State::Asked) => match (relayed, lifetime) {
                (Some(relayed), Some(1..)) => {
                    let at = refresh_at(lifetime.unwrap_or_default());
                    self.state = State::Allocated(relayed, at);
                    self.events.push_back(Event::Allocated(relayed));
                }
                _ => self.fail(Failure::Nonsense, rng),
            },
            (Ask::Refresh(_), State::Allocated(relayed, _)) => match lifetime {
                Some(lifetime @ 1..) => {
                    self.state = State::Allocated(relayed, refresh_at(lifetime));
                }
                Some(0) | None => self.fail(Failure::Lost, rng),
            },
            (Ask::Bind(binding), State::Allocated(..)) => {
                for payload in self.channels.handle_bound(binding, now) {
                    self.send_over(binding.0, &payload);
                }
            }
            _ => {}
        }
    }

    fn handle_error(
        &mut self,
        request: &Request,
        (code, realm, nonce): (u16, Option<String>, Option<String>),
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        let is_first = code == UNAUTHORIZED && !request.signed;
        let is_stale = code == STALE_NONCE && request.stale < STALE;
        if !is_first && !is_stale {
            return self.give_up(request, failure(code), rng, now);
        }
        // The realm stays: one that is named later names nobody who could sign it.
        let known = self.session.as_ref().map(|session| session.realm.clone());
        let (Some(realm), Some(nonce)) = (known.or(realm), nonce) else {
            return self.fail(Failure::Nonsense, rng);
        };
        self.session = Some(Session::new(&self.login, realm, nonce));
        self.ask(request.ask, request.stale + u8::from(is_stale), rng, now);
    }

    /// A request was refused, or has no answer.
    fn give_up(
        &mut self,
        request: &Request,
        failure: Failure,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        let heard_since = self.heard.is_some_and(|at| at >= request.since);
        match (request.ask, failure) {
            // The server may be there, but not for this peer.
            (Ask::Bind(binding), Failure::Refused(_) | Failure::Silent | Failure::Unproven) => {
                self.channels.handle_refused(binding, now);
            }
            // What was lost is the request or its answer; the next one is soon enough.
            (Ask::Refresh(_), Failure::Silent) if heard_since => {}
            (Ask::Bind(_) | Ask::Allocate(_) | Ask::Refresh(_), failure) => {
                self.fail(failure, rng);
            }
        }
    }

    fn fail(&mut self, failure: Failure, rng: &mut dyn CryptoRng) {
        if self.state == State::Over {
            return;
        }
        let may_remain = match failure {
            Failure::Silent | Failure::Unproven | Failure::Nonsense | Failure::LoginEnds => true,
            Failure::Refused(_) => matches!(self.state, State::Allocated(..)),
            Failure::Unauthorized | Failure::Lost => false,
        };
        if may_remain {
            self.give_back(rng);
        }
        self.state = State::Over;
        self.requests.clear();
        self.events.push_back(Event::Failed(failure));
    }

    /// Ends what the server has granted, or may have in an answer that did not come. Nobody waits for an answer.
    fn give_back(&mut self, rng: &mut dyn CryptoRng) {
        let Some(session) = &self.session else { return };
        let transaction = transaction(rng);
        self.transmits.extend(message::request(Ask::Refresh(0), transaction, Some(session)));
    }

    fn ask(&mut self, ask: Ask, stale: u8, rng: &mut dyn CryptoRng, now: Instant) {
        let transaction = transaction(rng);
        let session = self.session.as_ref();
        let Some(bytes) = message::request(ask, transaction, session) else {
            return self.fail(Failure::Nonsense, rng);
        };
        self.transmits.push_back(bytes.clone());
        let wait = match self.transport {
            Transport::Udp => RETRANSMIT[0],
            Transport::Tcp => PATIENCE,
        };
        self.requests.push(Request {
            ask,
            transaction,
            bytes,
            sent: 1,
            since: now,
            next: now + wait,
            stale,
            signed: session.is_some(),
            unproven: false,
        });
    }

    /// Sends again what has had no answer for a while, and gives up what has had none for long.
    fn repeat(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        let last = match self.transport {
            Transport::Udp => RETRANSMIT.len(),
            Transport::Tcp => 1,
        };
        let is_due = |request: &Request| request.next <= now;
        for request in self.requests.iter_mut().filter(|request| is_due(request)) {
            if request.sent < last {
                request.next = now + RETRANSMIT[request.sent];
                request.sent += 1;
                self.transmits.push_back(request.bytes.clone());
            }
        }
        let given_up: Vec<_> = self.requests.extract_if(.., |request| is_due(request)).collect();
        for request in given_up {
            let failure = if request.unproven { Failure::Unproven } else { Failure::Silent };
            self.give_up(&request, failure, rng, now);
        }
    }

    fn send_over(&mut self, number: u16, payload: &[u8]) {
        let filled = self.transport == Transport::Tcp;
        self.transmits.extend(message::channel_data(number, payload, filled));
    }
}

fn transaction(rng: &mut dyn CryptoRng) -> [u8; 12] {
    let mut transaction = [0; 12];
    rng.fill_bytes(&mut transaction);
    transaction
}

fn failure(code: u16) -> Failure {
    match code {
        UNAUTHORIZED => Failure::Unauthorized,
        ALLOCATION_MISMATCH => Failure::Lost,
        code => Failure::Refused(code),
    }
}

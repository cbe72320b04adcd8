//! The machine that shells and parents drive.

use std::fmt;
use std::mem;
use std::time::Instant;

use rand_core::CryptoRng;
use snow::HandshakeState;
use x25519_dalek::PublicKey;
use zeroize::Zeroizing;

use crate::handshake::{self, Hello, Verdict};
use crate::limits::{CLOCK_TOLERANCE, HANDSHAKE_DEADLINE};
use crate::rotation::Statics;
use crate::session::{Outbox, Session};
use crate::{ChannelError, ClockOffset, ConnectionMask, Now, ReplayGuard, SendError, UnixMillis};

const PROLOGUE: &[u8] = b"shadowmesh channel v1";

/// An X25519 static secret key, erased when dropped.
#[derive(Clone)]
pub struct StaticSecret(Zeroizing<[u8; 32]>);

impl StaticSecret {
    /// The key from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&x25519_dalek::StaticSecret::from(*self.0)).to_bytes()
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for StaticSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticSecret(..)")
    }
}

/// What an initiator brings to a channel.
#[derive(Debug, Clone)]
pub struct InitiatorConfig {
    /// Our static key.
    pub static_key: StaticSecret,
    /// The responder's static public key.
    pub remote_static: [u8; 32],
    /// Bytes on which both sides must agree; the NetworkId.
    pub prologue: Vec<u8>,
    /// The mask that belongs to the path of the connection.
    pub mask: ConnectionMask,
    /// Our capability version.
    pub capability: u16,
    /// What to add to our wall clock, learnt from an earlier [`ChannelEvent::ClockSkew`].
    pub clock_offset: ClockOffset,
}

/// What a responder brings to a channel.
#[derive(Debug, Clone)]
pub struct ResponderConfig {
    /// Our static key.
    pub static_key: StaticSecret,
    /// Bytes on which both sides must agree; the NetworkId.
    pub prologue: Vec<u8>,
    /// The mask that the path of the connection was recognised to have.
    pub mask: ConnectionMask,
    /// Our capability version.
    pub capability: u16,
    /// The first messages seen by all connections of this responder.
    pub replay: ReplayGuard,
}

/// Whether a message counts towards the rotation of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageClass {
    /// A control message.
    Counted,
    /// A periodical sign of life.
    Heartbeat,
}

/// What happened on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEvent {
    /// Both sides have proved their static keys; messages can be sent.
    Established {
        /// The peer's static public key.
        remote_static: [u8; 32],
        /// Identifies this session; signatures over it prove presence in it.
        handshake_hash: [u8; 32],
        /// The peer's capability version.
        capability: u16,
    },
    /// A message from the peer.
    Received(Vec<u8>),
    /// The responder refuses our clock. The channel has ended; a new one may use the offset.
    ClockSkew {
        /// The responder's wall time, authenticated.
        theirs: UnixMillis,
        /// What to add to our wall clock to agree with the responder.
        offset: ClockOffset,
    },
    /// The keys were replaced in both directions.
    Rotated,
    /// A rotation was not agreed in time; it will be tried again.
    RotationAbandoned,
    /// The channel has ended. Messages that are still to be polled should be sent before closing.
    Failed(ChannelError),
}

/// One Noise_IK channel, either side.
///
/// After every handler and [`Self::send`]: drain [`Self::poll_message`], drain [`Self::poll_event`],
/// arm a timer for [`Self::poll_timeout`]. Everything handed over after the end is ignored.
pub struct Channel {
    state: State,
    out: Outbox,
    started: Instant,
    last_now: Instant,
}

impl Channel {
    /// Starts a channel on a freshly opened connection.
    ///
    /// # Errors
    ///
    /// [`ChannelError::UnusableKey`] if the configured public key is of low order.
    pub fn initiate(
        config: InitiatorConfig,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) -> Result<Self, ChannelError> {
        let prologue = prologue(&config.mask, &config.prologue);
        let mut handshake =
            handshake::initiator(&config.static_key, &config.remote_static, &prologue, rng)?;
        let wall = now.wall.with_offset(config.clock_offset);
        let hello = Hello { verdict: Verdict::Proceed, capability: config.capability, wall };
        let message = handshake::write(&mut handshake, &hello.encode(rng))
            .map_err(|_| ChannelError::UnusableKey)?;
        let message = handshake::mask_first(&config.mask, message);
        let statics = Statics { ours: config.static_key, theirs: config.remote_static };
        let waiting = AwaitReply { handshake, statics, mask: config.mask };
        let mut channel = Self::new(State::AwaitReply(Box::new(waiting)), now.instant);
        channel.out.messages.push_back(message);
        Ok(channel)
    }

    /// Waits for the first message on a freshly accepted connection.
    #[must_use]
    pub fn respond(config: ResponderConfig, now: Now) -> Self {
        Self::new(State::AwaitHello(Box::new(config)), now.instant)
    }

    fn new(state: State, now: Instant) -> Self {
        Self { state, out: Outbox::default(), started: now, last_now: now }
    }

    /// Takes one binary WebSocket message from the peer.
    pub fn handle_message(&mut self, message: &[u8], rng: &mut dyn CryptoRng, now: Now) {
        self.last_now = now.instant;
        let next = match mem::replace(&mut self.state, State::Closed) {
            State::AwaitReply(waiting) => self.handle_reply(*waiting, message, now),
            State::AwaitHello(config) => self.handle_hello(*config, message, rng, now),
            State::Confirming(confirming) => self.handle_first(*confirming, message, rng, now),
            State::Open(mut session) => session
                .handle_message(message, &mut self.out, rng, now.instant)
                .map(|()| State::Open(session)),
            State::Closed => return,
        };
        self.settle(next);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        self.last_now = now.instant;
        let next = match mem::replace(&mut self.state, State::Closed) {
            State::Open(mut session) => session
                .handle_timeout(&mut self.out, rng, now.instant)
                .map(|()| State::Open(session)),
            State::Closed => return,
            opening @ (State::AwaitReply(_) | State::AwaitHello(_) | State::Confirming(_)) => {
                if now.instant >= self.started + HANDSHAKE_DEADLINE {
                    Err(ChannelError::HandshakeTimeout)
                } else {
                    Ok(opening)
                }
            }
        };
        self.settle(next);
    }

    /// Queues a message of at most [`crate::limits::MAX_PAYLOAD`] bytes.
    ///
    /// While the keys are at their hard limit, counted messages wait for the next keys.
    ///
    /// # Errors
    ///
    /// The message is dropped if the channel is not open, if it is too long, or if too much waits
    /// already.
    pub fn send(
        &mut self,
        payload: &[u8],
        class: MessageClass,
        now: Instant,
    ) -> Result<(), SendError> {
        self.last_now = now;
        match &mut self.state {
            State::Open(session) => session.send(payload, class, &mut self.out, now),
            State::AwaitReply(_) | State::AwaitHello(_) | State::Confirming(_) | State::Closed => {
                Err(SendError::NotOpen)
            }
        }
    }

    /// Whether a counted message would leave at once: it would not have to wait for the next keys.
    #[must_use]
    pub fn has_room(&self) -> bool {
        match &self.state {
            State::Open(session) => session.has_room(),
            State::AwaitReply(_) | State::AwaitHello(_) | State::Confirming(_) | State::Closed => {
                false
            }
        }
    }

    /// Whether keys are being replaced: who loses the connection now does not know how that ended.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        match &self.state {
            State::Open(session) => session.is_rotating(),
            State::AwaitReply(_) | State::AwaitHello(_) | State::Confirming(_) | State::Closed => {
                false
            }
        }
    }

    /// Notes that something else was sent on the same connection, so no heartbeat is needed.
    pub fn note_sent(&mut self, now: Instant) {
        if let State::Open(session) = &mut self.state {
            session.note_sent(now);
        }
    }

    /// Notes that something else authentic arrived on the same connection, so the peer is alive.
    pub fn note_received(&mut self, now: Instant) {
        if let State::Open(session) = &mut self.state {
            session.note_received(now);
        }
    }

    /// The next binary WebSocket message for the peer.
    #[must_use]
    pub fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.out.messages.pop_front()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<ChannelEvent> {
        self.out.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called next, and for what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if !self.out.messages.is_empty() || !self.out.events.is_empty() {
            return Some((self.last_now, "output is queued"));
        }
        match &self.state {
            State::AwaitReply(_) | State::AwaitHello(_) | State::Confirming(_) => {
                Some((self.started + HANDSHAKE_DEADLINE, "handshake deadline"))
            }
            State::Open(session) => Some(session.poll_timeout()),
            State::Closed => None,
        }
    }

    /// Whether messages can be sent.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether the channel has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    fn settle(&mut self, next: Result<State, ChannelError>) {
        match next {
            Ok(state) => self.state = state,
            Err(error) => self.out.events.push_back(ChannelEvent::Failed(error)),
        }
    }

    fn handle_hello(
        &mut self,
        config: ResponderConfig,
        message: &[u8],
        rng: &mut dyn CryptoRng,
        now: Now,
    ) -> Result<State, ChannelError> {
        let (message, ephemeral) = handshake::unmask_first(&config.mask, message)?;
        let prologue = prologue(&config.mask, &config.prologue);
        let mut handshake = handshake::responder(&config.static_key, &prologue, rng)?;
        let hello = Hello::decode(&handshake::read(&mut handshake, &message)?)?;
        if !config.replay.admit(ephemeral, now.instant) {
            return Err(ChannelError::Replayed);
        }
        let theirs = handshake::remote_static(&handshake)?;
        let difference = now.wall.abs_diff(hello.wall);
        let in_time = difference <= CLOCK_TOLERANCE;
        let verdict = if in_time { Verdict::Proceed } else { Verdict::ClockSkew };
        let answer = Hello { verdict, capability: config.capability, wall: now.wall };
        let reply = handshake::write(&mut handshake, &answer.encode(rng))?;
        self.out.messages.push_back(handshake::mask_second(&config.mask, reply, rng));
        if !in_time {
            return Err(ChannelError::ClockSkew { theirs: hello.wall, difference });
        }
        let statics = Statics { ours: config.static_key, theirs };
        let session = Session::responder(handshake, statics, now.instant)?;
        Ok(State::Confirming(Box::new(Confirming { session, capability: hello.capability })))
    }

    fn handle_reply(
        &mut self,
        waiting: AwaitReply,
        message: &[u8],
        now: Now,
    ) -> Result<State, ChannelError> {
        let AwaitReply { mut handshake, statics, mask } = waiting;
        let message = handshake::unmask_second(&mask, message)?;
        let hello = Hello::decode(&handshake::read(&mut handshake, &message)?)?;
        match hello.verdict {
            Verdict::Proceed => {
                let session = Session::initiator(handshake, statics, now.instant)?;
                self.out.events.push_back(established(&session, hello.capability));
                Ok(State::Open(Box::new(session)))
            }
            Verdict::ClockSkew => {
                let offset = ClockOffset::between(now.wall, hello.wall);
                self.out.events.push_back(ChannelEvent::ClockSkew { theirs: hello.wall, offset });
                Ok(State::Closed)
            }
        }
    }

    fn handle_first(
        &mut self,
        confirming: Confirming,
        message: &[u8],
        rng: &mut dyn CryptoRng,
        now: Now,
    ) -> Result<State, ChannelError> {
        let Confirming { mut session, capability } = confirming;
        let mut first = Outbox::default();
        session.handle_message(message, &mut first, rng, now.instant)?;
        self.out.events.push_back(established(&session, capability));
        self.out.events.append(&mut first.events);
        self.out.messages.append(&mut first.messages);
        Ok(State::Open(Box::new(session)))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::AwaitReply(_) => "await reply",
            State::AwaitHello(_) => "await hello",
            State::Confirming(_) => "confirming",
            State::Open(_) => "open",
            State::Closed => "closed",
        };
        f.debug_struct("Channel").field("state", &state).finish_non_exhaustive()
    }
}

enum State {
    /// The initiator has sent message 1.
    AwaitReply(Box<AwaitReply>),
    /// The responder has nothing yet.
    AwaitHello(Box<ResponderConfig>),
    /// The responder has sent message 2 and waits for proof that the initiator is live.
    Confirming(Box<Confirming>),
    /// Both sides are proved.
    Open(Box<Session>),
    /// Over.
    Closed,
}

struct AwaitReply {
    handshake: HandshakeState,
    statics: Statics,
    mask: ConnectionMask,
}

struct Confirming {
    session: Session,
    capability: u16,
}

fn established(session: &Session, capability: u16) -> ChannelEvent {
    ChannelEvent::Established {
        remote_static: *session.remote_static(),
        handshake_hash: *session.handshake_hash(),
        capability,
    }
}

fn prologue(mask: &ConnectionMask, network: &[u8]) -> Vec<u8> {
    [PROLOGUE, &[0], mask.service().label().as_bytes(), &[0], network].concat()
}

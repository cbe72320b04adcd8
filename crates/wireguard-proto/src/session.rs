use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ciphers::{BadTag, Key};
use zeroize::Zeroizing;

use crate::activity::Activity;
use crate::handshake::{Role, SessionKeys};
use crate::keys::PublicKey;
use crate::message::{KEEPALIVE_LEN, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, at, read_u32};
use crate::primitives::{Secret, TAG_LEN, nonce, seal};
use crate::replay::ReplayWindow;
use crate::timers::{
    REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME,
    REKEY_ON_RECEIVE, REKEY_TIMEOUT,
};

/// One pair of transport keys, shared by any number of data threads.
///
/// Sending: [`reserve`](Self::reserve) counters for a batch, [`seal`](Self::seal) each message in
/// place, send, then [`record_sent`](Self::record_sent) once. Receiving:
/// [`decrypt`](Self::decrypt) each message in place, ask the [`replay_window`](Self::replay_window)
/// for all of them under one lock, then [`record_received`](Self::record_received) once.
/// When a `record_*` answers true, call [`Interface::handle_activity`](crate::Interface::handle_activity)
/// for the peer.
pub struct Session {
    peer: PublicKey,
    role: Role,
    local_index: u32,
    remote_index: u32,
    created: Instant,
    send: Key,
    receive: Key,
    frame_send: Secret,
    frame_receive: Secret,
    counter: AtomicU64,
    replay: Mutex<ReplayWindow>,
    state: SessionState,
    activity: Arc<Activity>,
}

struct SessionState {
    /// Bytes in both directions.
    bytes: AtomicU64,
    rekey_after_bytes: u64,
    /// By so much it is renewed later than is usual; none where age is for the peer to look at.
    renewed_later: Option<Duration>,
    rekey_wanted: AtomicBool,
    confirmed: AtomicBool,
    closed: AtomicBool,
}

/// What a new session is made of besides its keys.
pub(crate) struct SessionParts {
    pub(crate) peer: PublicKey,
    pub(crate) role: Role,
    pub(crate) local_index: u32,
    pub(crate) remote_index: u32,
    pub(crate) rekey_after_bytes: Option<u64>,
    /// Whether the peer has begun a handshake at the same time, and renews the session before this end does.
    pub(crate) yields: bool,
    pub(crate) activity: Arc<Activity>,
}

/// Why a session cannot seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUsable {
    /// The peer has not yet shown that it holds the keys; a responder waits for that.
    #[error("the peer has not confirmed the session yet")]
    Unconfirmed,
    /// The session is older than [`REJECT_AFTER_TIME`], has used up its counters, or was replaced.
    #[error("the session has ended")]
    Ended,
}

/// Why a transport message was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than a keepalive, or another session's.
    #[error("not a transport message of this session")]
    Malformed,
    /// The session is older than [`REJECT_AFTER_TIME`] or was replaced.
    #[error("the session has ended")]
    Ended,
    /// The tag is wrong: forged, damaged, or sealed with other keys.
    #[error("the message is not authentic")]
    NotAuthentic,
    /// The counter was seen before or is too old to tell.
    #[error("the message was received before")]
    Replayed,
}

/// Secrets for the frame protocol on streams, one per direction (32 bytes each).
#[derive(Clone)]
pub struct FrameSecrets {
    /// For frames to the peer.
    pub send: Zeroizing<[u8; 32]>,
    /// For frames from the peer.
    pub receive: Zeroizing<[u8; 32]>,
}

/// The right to seal one message: a counter that nobody else has.
#[derive(Debug)]
pub struct Counter(u64);

/// Counters reserved for a batch, each given out once.
#[derive(Debug)]
pub struct Counters(Range<u64>);

impl Iterator for Counters {
    type Item = Counter;

    fn next(&mut self) -> Option<Counter> {
        self.0.next().map(Counter)
    }
}

impl Session {
    pub(crate) fn new(keys: &SessionKeys, parts: SessionParts, now: Instant) -> Self {
        // The responder waits a little longer, so that one end asks and not both.
        let slack = |limit: u64| match parts.role {
            Role::Initiator if !parts.yields => limit,
            Role::Initiator | Role::Responder => limit.saturating_add(limit / 16),
        };
        Self {
            peer: parts.peer,
            role: parts.role,
            local_index: parts.local_index,
            remote_index: parts.remote_index,
            created: now,
            send: Key::new(&keys.send),
            receive: Key::new(&keys.receive),
            frame_send: keys.frame_send.clone(),
            frame_receive: keys.frame_receive.clone(),
            counter: AtomicU64::new(0),
            replay: Mutex::new(ReplayWindow::default()),
            state: SessionState {
                bytes: AtomicU64::new(0),
                rekey_after_bytes: parts.rekey_after_bytes.map_or(u64::MAX, slack),
                renewed_later: (parts.role == Role::Initiator).then_some(if parts.yields {
                    2 * REKEY_TIMEOUT
                } else {
                    Duration::ZERO
                }),
                rekey_wanted: AtomicBool::new(false),
                confirmed: AtomicBool::new(parts.role == Role::Initiator),
                closed: AtomicBool::new(false),
            },
            activity: parts.activity,
        }
    }

    /// The peer at the other end.
    #[must_use]
    pub fn peer(&self) -> &PublicKey {
        &self.peer
    }

    /// The index by which the peer's messages name this session.
    #[must_use]
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The index by which the peer knows it.
    #[must_use]
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Whether this end sent the handshake's first message.
    #[must_use]
    pub fn is_initiator(&self) -> bool {
        self.role == Role::Initiator
    }

    /// Time since the handshake.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }

    /// The secrets for frames on streams, taken from the handshake's final chaining key.
    #[must_use]
    pub fn frame_secrets(&self) -> FrameSecrets {
        FrameSecrets { send: self.frame_send.clone(), receive: self.frame_receive.clone() }
    }

    /// Whether anything may be sent on it, over any transport.
    ///
    /// # Errors
    /// Why not.
    pub fn check_usable(&self, now: Instant) -> Result<(), NotUsable> {
        if !self.is_alive(now) {
            return Err(NotUsable::Ended);
        }
        if !self.state.confirmed.load(Ordering::Acquire) {
            return Err(NotUsable::Unconfirmed);
        }
        Ok(())
    }

    /// Reserves counters for `count` messages.
    ///
    /// # Errors
    /// Why nothing may be sent.
    pub fn reserve(&self, count: u32, now: Instant) -> Result<Counters, NotUsable> {
        self.check_usable(now)?;
        let count = u64::from(count);
        let first = self.counter.fetch_add(count, Ordering::Relaxed);
        if first >= REJECT_AFTER_MESSAGES - count {
            return Err(NotUsable::Ended);
        }
        Ok(Counters(first..first + count))
    }

    /// Turns `message` = 16 bytes of room, padded payload, 16 bytes of room into a transport
    /// message, in place.
    ///
    /// # Panics
    /// When `message` is shorter than [`TRANSPORT_OVERHEAD`].
    pub fn seal(&self, counter: Counter, message: &mut [u8]) {
        let (header, body) = message.split_at_mut(TRANSPORT_HEADER_LEN);
        header[..4].copy_from_slice(&[4, 0, 0, 0]);
        header[at::INDEX..at::COUNTER].copy_from_slice(&self.remote_index.to_le_bytes());
        header[at::COUNTER..].copy_from_slice(&counter.0.to_le_bytes());
        seal(&self.send, nonce(counter.0), &[], body);
    }

    /// An empty message, which tells the peer that we live.
    ///
    /// # Errors
    /// Why nothing may be sent.
    pub fn keepalive(&self, now: Instant) -> Result<[u8; KEEPALIVE_LEN], NotUsable> {
        let mut message = [0; KEEPALIVE_LEN];
        let counter = self.reserve(1, now)?.next().expect("one counter was reserved");
        self.seal(counter, &mut message);
        Ok(message)
    }

    /// Decrypts a transport message in place and answers its counter; the payload (with padding)
    /// is `message[16..len - 16]`.
    ///
    /// The caller must ask the [`replay_window`](Self::replay_window) before it uses the payload.
    ///
    /// # Errors
    /// Why the message is worth nothing; its bytes are then undefined.
    pub fn decrypt(&self, message: &mut [u8], now: Instant) -> Result<u64, OpenError> {
        if message.len() < TRANSPORT_OVERHEAD
            || read_u32(message, 0) != 4
            || read_u32(message, at::INDEX) != self.local_index
        {
            return Err(OpenError::Malformed);
        }
        if !self.is_alive(now) {
            return Err(OpenError::Ended);
        }
        let (header, body) = message.split_at_mut(TRANSPORT_HEADER_LEN);
        let counter = u64::from_le_bytes(header[at::COUNTER..].try_into().expect("8 bytes"));
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(OpenError::Ended);
        }
        self.receive.open(nonce(counter), &[], body).map_err(|BadTag| OpenError::NotAuthentic)?;
        Ok(counter)
    }

    /// The window that tells replays; take it once for a batch, after decryption.
    pub fn replay_window(&self) -> MutexGuard<'_, ReplayWindow> {
        self.replay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decrypts one message and checks it for replay; answers the payload with its padding.
    ///
    /// # Errors
    /// Why the message is worth nothing.
    pub fn open<'a>(&self, message: &'a mut [u8], now: Instant) -> Result<&'a mut [u8], OpenError> {
        let counter = self.decrypt(message, now)?;
        if !self.replay_window().accept(counter) {
            return Err(OpenError::Replayed);
        }
        let end = message.len() - TAG_LEN;
        Ok(&mut message[TRANSPORT_HEADER_LEN..end])
    }

    /// Notes that a batch of `bytes` went out, with `data` when any of it was more than a
    /// keepalive. True when the peer's machine wants
    /// [`handle_activity`](crate::Interface::handle_activity).
    #[must_use]
    pub fn record_sent(&self, bytes: u64, data: bool, now: Instant) -> bool {
        let wake = self.activity.sent(bytes, data, now);
        self.ask_for_rekey(bytes, REKEY_AFTER_TIME, now) || wake
    }

    /// Notes that a batch of `bytes` was opened, over any transport, with `data` when any of it
    /// was more than a keepalive; this is what confirms a responder's session. True when the
    /// peer's machine wants [`handle_activity`](crate::Interface::handle_activity).
    #[must_use]
    pub fn record_received(&self, bytes: u64, data: bool, now: Instant) -> bool {
        let confirmed = self.state.confirmed.load(Ordering::Relaxed)
            || self.state.confirmed.swap(true, Ordering::AcqRel);
        let wake = self.activity.received(bytes, data, now);
        self.ask_for_rekey(bytes, REKEY_ON_RECEIVE, now) || wake || !confirmed
    }

    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        !self.state.closed.load(Ordering::Relaxed) && self.age(now) < REJECT_AFTER_TIME
    }

    /// Whether the peer has used the session, as it always has where this side began it: a
    /// responder sends nothing before.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.state.confirmed.load(Ordering::Acquire)
    }

    pub(crate) fn expires(&self) -> Instant {
        self.created + REJECT_AFTER_TIME
    }

    pub(crate) fn created(&self) -> Instant {
        self.created
    }

    pub(crate) fn wants_rekey(&self) -> bool {
        self.state.rekey_wanted.load(Ordering::Relaxed)
    }

    /// Lets traffic ask again after an attempt that nobody answered.
    pub(crate) fn forget_rekey(&self) {
        self.state.rekey_wanted.store(false, Ordering::Relaxed);
    }

    /// Ends the session for all threads that hold it.
    pub(crate) fn close(&self) {
        self.state.closed.store(true, Ordering::Relaxed);
    }

    /// True the first time that one of the limits is reached.
    fn ask_for_rekey(&self, bytes: u64, max_age: Duration, now: Instant) -> bool {
        let total = self.state.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let due = total >= self.state.rekey_after_bytes
            || self.counter.load(Ordering::Relaxed) >= REKEY_AFTER_MESSAGES
            || self.state.renewed_later.is_some_and(|later| self.age(now) >= max_age + later);
        due && !self.wants_rekey() && !self.state.rekey_wanted.swap(true, Ordering::Relaxed)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("role", &self.role)
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FrameSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameSecrets(..)")
    }
}

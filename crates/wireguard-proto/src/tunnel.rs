use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::activity::Activity;
use crate::cookie::CookieJar;
use crate::handshake::{self, PendingInitiation, ProvedInitiation, Role, SessionKeys};
use crate::interface::{Dropped, Event, PeerConfig, Transmit};
use crate::keys::{PresharedKey, PublicKey};
use crate::local::Local;
use crate::message::{COOKIE_REPLY_LEN, INITIATION_LEN, RESPONSE_LEN, at, read_u32};
use crate::session::{Session, SessionParts};
use crate::timers::{
    INITIATION_INTERVAL, KEEPALIVE_TIMEOUT, MAX_JITTER, NEW_HANDSHAKE_TIMEOUT, REKEY_ATTEMPT_TIME,
    REKEY_TIMEOUT,
};
use crate::timestamp::Tai64N;

/// By so much a copy of an initiation may arrive later than its sender may send it.
const COPIES_LATE: Duration = Duration::from_secs(3);

/// The state that an interface keeps for one peer.
///
/// All changes go through the [`Interface`](crate::Interface); this type answers questions.
pub struct Tunnel<E> {
    peer: PublicKey,
    preshared_keys: Vec<PresharedKey>,
    /// The preshared key that the next response uses.
    candidate: usize,
    endpoint: Option<E>,
    persistent_keepalive: Option<Duration>,
    last_persistent: Option<Instant>,
    jar: CookieJar,
    attempt: Option<Attempt>,
    inbound: Inbound,
    last_initiation: Option<Instant>,
    sessions: Sessions,
    activity: Arc<Activity>,
    last_handshake: Option<Duration>,
    deadline: Option<Instant>,
}

/// An effort to get a session: initiations, repeated until a response comes or time is up.
struct Attempt {
    pending: Option<Pending>,
    started: Instant,
    retry_at: Instant,
}

/// An initiation that waits for its response.
struct Pending {
    index: u32,
    keys: PendingInitiation,
    message: [u8; INITIATION_LEN],
}

/// What is remembered of the peer's initiations.
#[derive(Default)]
struct Inbound {
    greatest: Tai64N,
    taken: Option<Instant>,
}

impl Inbound {
    /// What to call an initiation that is not newer than the last. The initiator itself sends
    /// copies of one until it makes another.
    fn refusal(&self, timestamp: Tai64N, now: Instant) -> Dropped {
        let is_recent = self.taken.is_some_and(|taken| now < taken + REKEY_TIMEOUT + COPIES_LATE);
        if timestamp == self.greatest && is_recent {
            Dropped::RepeatedInitiation
        } else {
            Dropped::ReplayedInitiation
        }
    }
}

/// The sessions of section 6.3 of the paper.
#[derive(Default)]
struct Sessions {
    previous: Option<Arc<Session>>,
    current: Option<Arc<Session>>,
    /// A responder's session that the initiator has not used yet.
    next: Option<Arc<Session>>,
    /// Whether both ends began at once: the peer sends over the previous one, which it began, as long as neither has renewed its own.
    crossed: bool,
}

impl Sessions {
    /// Sends over a new one from now on; what is ended by that. What the peer still sends over stays.
    fn replace_current(&mut self, session: Arc<Session>) -> Option<Arc<Session>> {
        let before = self.current.replace(session);
        let is_used = self.previous.as_ref().is_some_and(|previous| previous.is_confirmed());
        if std::mem::take(&mut self.crossed) && is_used {
            before
        } else {
            std::mem::replace(&mut self.previous, before)
        }
    }
}

impl<E: Clone> Tunnel<E> {
    /// The peer's static key.
    #[must_use]
    pub fn peer(&self) -> &PublicKey {
        &self.peer
    }

    /// Where the peer was last heard from, or is configured to be.
    #[must_use]
    pub fn endpoint(&self) -> Option<&E> {
        self.endpoint.as_ref()
    }

    /// The preshared keys in the order in which they are tried; never empty.
    #[must_use]
    pub fn preshared_keys(&self) -> &[PresharedKey] {
        &self.preshared_keys
    }

    /// The interval of keepalives that are sent without need, if any.
    #[must_use]
    pub fn persistent_keepalive(&self) -> Option<Duration> {
        self.persistent_keepalive
    }

    /// Time since the Unix epoch of the last handshake that both ends completed.
    #[must_use]
    pub fn last_handshake(&self) -> Option<Duration> {
        self.last_handshake
    }

    /// Bytes of messages sent to the peer, handshakes included.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.activity.sent_bytes()
    }

    /// Bytes of authentic messages received from the peer, handshakes included.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.activity.received_bytes()
    }

    /// The session to send on, if there is one.
    #[must_use]
    pub fn session(&self, now: Instant) -> Option<&Arc<Session>> {
        self.sessions.current.as_ref().filter(|session| session.check_usable(now).is_ok())
    }

    /// Whether an answer to an initiation is being waited for.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.attempt.is_some()
    }

    /// The same, and nothing came of its first initiation.
    #[must_use]
    pub fn is_repeating(&self, now: Instant) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| now >= attempt.started + REKEY_TIMEOUT)
    }

    pub(crate) fn new(peer: PublicKey, config: PeerConfig<E>, now: Instant) -> Self {
        let mut tunnel = Self {
            peer,
            preshared_keys: Vec::new(),
            candidate: 0,
            endpoint: config.endpoint,
            persistent_keepalive: None,
            last_persistent: None,
            jar: CookieJar::new(&peer),
            attempt: None,
            inbound: Inbound::default(),
            last_initiation: None,
            sessions: Sessions::default(),
            activity: Arc::new(Activity::new(now)),
            last_handshake: None,
            deadline: None,
        };
        tunnel.set_preshared_keys(config.preshared_keys);
        tunnel.set_persistent_keepalive(config.persistent_keepalive);
        tunnel
    }

    pub(crate) fn set_endpoint(&mut self, endpoint: E) {
        self.endpoint = Some(endpoint);
    }

    pub(crate) fn set_preshared_keys(&mut self, mut keys: Vec<PresharedKey>) {
        if keys.is_empty() {
            keys.push(PresharedKey::none());
        }
        if keys != self.preshared_keys {
            self.candidate = 0;
            self.preshared_keys = keys;
        }
    }

    pub(crate) fn set_persistent_keepalive(&mut self, interval: Option<Duration>) {
        self.persistent_keepalive = interval.filter(|interval| !interval.is_zero());
    }

    /// Ends all sessions and attempts, as for a removed peer or a new private key.
    pub(crate) fn reset(&mut self, local: &mut Local<E>) {
        self.cancel_attempt(local);
        let Sessions { previous, current, next, .. } = std::mem::take(&mut self.sessions);
        for session in [previous, current, next].into_iter().flatten() {
            local.remove_session(&session);
        }
        self.activity.forget_unanswered();
        self.activity.forget_unacknowledged();
    }

    /// Starts an attempt unless one is under way.
    pub(crate) fn initiate(&mut self, local: &mut Local<E>, rng: &mut dyn CryptoRng, now: Instant) {
        if self.attempt.is_some() {
            return;
        }
        let retry_at = self.last_initiation.map_or(now, |last| last + REKEY_TIMEOUT).max(now);
        self.attempt = Some(Attempt { pending: None, started: now, retry_at });
        if retry_at <= now {
            self.send_initiation(local, rng, now);
        }
    }

    fn send_initiation(&mut self, local: &mut Local<E>, rng: &mut dyn CryptoRng, now: Instant) {
        let Some(attempt) = &mut self.attempt else { return };
        if let Some(pending) = attempt.pending.take() {
            local.release_pending(pending.index);
        }
        let jitter = MAX_JITTER * (rng.next_u32() >> 16) / (1 << 16);
        attempt.retry_at = now + REKEY_TIMEOUT + jitter;
        self.last_initiation = Some(now);
        let index = local.free_index(rng);
        let timestamp = local.next_timestamp(now);
        let Some((mut message, keys)) =
            handshake::initiate(&local.identity, &self.peer, index, timestamp, rng)
        else {
            return;
        };
        self.jar.stamp(&mut message, now);
        attempt.pending = Some(Pending { index, keys, message });
        local.expect_response(index, self.peer);
        self.transmit_handshake(local, message.to_vec(), now);
    }

    /// Sends the initiation that waits for its response once more, unchanged: whichever copy
    /// arrives second is refused as a replay, so the response to the first still counts.
    pub(crate) fn resend_initiation(&self, local: &mut Local<E>, now: Instant) {
        let pending = self.attempt.as_ref().and_then(|attempt| attempt.pending.as_ref());
        if let Some(pending) = pending {
            self.transmit_handshake(local, pending.message.to_vec(), now);
        }
    }

    /// Answers a proved initiation that came from `from`.
    pub(crate) fn respond(
        &mut self,
        local: &mut Local<E>,
        (initiation, from): (&ProvedInitiation, E),
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<(), Dropped> {
        if initiation.timestamp <= self.inbound.greatest {
            return Err(self.inbound.refusal(initiation.timestamp, now));
        }
        let too_soon = |taken: Instant| now.saturating_duration_since(taken) < INITIATION_INTERVAL;
        if self.inbound.taken.is_some_and(too_soon) {
            return Err(Dropped::TooManyInitiations);
        }
        // An unused session means that the initiator could not read the last response: it has
        // another preshared key.
        if self.sessions.next.as_ref().is_some_and(|next| !next.is_confirmed()) {
            self.candidate = (self.candidate + 1) % self.preshared_keys.len();
        }
        let index = local.free_index(rng);
        let preshared = &self.preshared_keys[self.candidate];
        let (mut message, keys) =
            handshake::respond(initiation, preshared, index, rng).ok_or(Dropped::NotAuthentic)?;
        self.inbound = Inbound { greatest: initiation.timestamp, taken: Some(now) };
        let session =
            self.make_session(local, &keys, (Role::Responder, index, initiation.sender_index), now);
        // The one before the current one stays until the new one is used: if both ends began at once, the peer still sends over it.
        if let Some(old) = self.sessions.next.replace(session) {
            local.remove_session(&old);
        }
        self.endpoint = Some(from);
        let _ = self.activity.received(handshake_bytes(INITIATION_LEN), false, now);
        self.jar.stamp(&mut message, now);
        self.transmit_handshake(local, message.to_vec(), now);
        Ok(())
    }

    /// Finishes the attempt with a response that came from `from`.
    pub(crate) fn finish(
        &mut self,
        local: &mut Local<E>,
        (message, from): (&[u8; RESPONSE_LEN], E),
        now: Instant,
    ) -> Result<(), Dropped> {
        let receiver = read_u32(message, at::RESPONSE_RECEIVER);
        let pending = self.attempt.as_ref().and_then(|attempt| attempt.pending.as_ref());
        let Some(pending) = pending.filter(|pending| pending.index == receiver) else {
            return Err(Dropped::UnknownIndex);
        };
        let keys = handshake::finish(&local.identity, &pending.keys, &self.preshared_keys, message)
            .ok_or(Dropped::NotAuthentic)?;
        self.cancel_attempt(local);
        let remote_index = read_u32(message, at::INDEX);
        let session =
            self.make_session(local, &keys, (Role::Initiator, receiver, remote_index), now);
        let displaced = match self.sessions.next.take() {
            Some(next) => {
                let previous = self.sessions.previous.replace(next);
                let current = self.sessions.current.replace(Arc::clone(&session));
                self.sessions.crossed = true;
                [previous, current]
            }
            None => [self.sessions.replace_current(Arc::clone(&session)), None],
        };
        for old in displaced.into_iter().flatten() {
            local.remove_session(&old);
        }
        self.endpoint = Some(from);
        let _ = self.activity.received(handshake_bytes(RESPONSE_LEN), false, now);
        self.last_handshake = Some(local.clock.at(now));
        local.events.push_back(Event::SessionReady(session));
        self.send_keepalive(local, now);
        Ok(())
    }

    pub(crate) fn take_cookie(&mut self, reply: &[u8; COOKIE_REPLY_LEN], now: Instant) -> bool {
        self.jar.take_cookie(reply, now)
    }

    /// Does everything that is due.
    pub(crate) fn tick(&mut self, local: &mut Local<E>, rng: &mut dyn CryptoRng, now: Instant) {
        self.promote_confirmed(local, now);
        self.expire_sessions(local, now);
        self.tick_attempt(local, rng, now);
        if self.rekey_at().is_some_and(|at| at <= now) {
            self.initiate(local, rng, now);
        }
        if self.new_handshake_at().is_some_and(|at| at <= now) {
            self.activity.forget_unanswered();
            self.initiate(local, rng, now);
        }
        if self.keepalive_at().is_some_and(|at| at <= now) {
            self.activity.forget_unacknowledged();
            self.send_keepalive(local, now);
        }
        if self.persistent_at(now).is_some_and(|at| at <= now) {
            self.last_persistent = Some(now);
            if self.session(now).is_some() {
                self.send_keepalive(local, now);
            } else {
                self.initiate(local, rng, now);
            }
        }
    }

    /// When [`tick`](Self::tick) is due next, with the reason.
    pub(crate) fn next_timeout(&self, now: Instant) -> Option<(Instant, &'static str)> {
        let sessions = &self.sessions;
        let expiry = [&sessions.previous, &sessions.current, &sessions.next]
            .into_iter()
            .flatten()
            .map(|session| session.expires())
            .min();
        [
            (expiry, "session expires"),
            (self.attempt.as_ref().map(|attempt| attempt.retry_at), "handshake retry"),
            (self.rekey_at(), "rekey"),
            (self.new_handshake_at(), "no answer to data"),
            (self.keepalive_at(), "keepalive"),
            (self.persistent_at(now), "persistent keepalive"),
        ]
        .into_iter()
        .filter_map(|(at, reason)| Some((at?, reason)))
        .min()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
        self.activity.arm(deadline);
    }

    /// Makes a responder's session current once the initiator used it.
    fn promote_confirmed(&mut self, local: &mut Local<E>, now: Instant) {
        let Some(next) = self.sessions.next.take_if(|next| next.is_confirmed()) else { return };
        if let Some(old) = self.sessions.replace_current(Arc::clone(&next)) {
            local.remove_session(&old);
        }
        self.cancel_attempt(local);
        self.last_handshake = Some(local.clock.at(now));
        local.events.push_back(Event::SessionReady(next));
    }

    fn expire_sessions(&mut self, local: &mut Local<E>, now: Instant) {
        let Sessions { previous, current, next, .. } = &mut self.sessions;
        for slot in [previous, current, next] {
            if let Some(session) = slot.take_if(|session| session.expires() <= now) {
                local.remove_session(&session);
            }
        }
    }

    fn tick_attempt(&mut self, local: &mut Local<E>, rng: &mut dyn CryptoRng, now: Instant) {
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.retry_at <= now) else {
            return;
        };
        if now.saturating_duration_since(attempt.started) < REKEY_ATTEMPT_TIME {
            return self.send_initiation(local, rng, now);
        }
        self.cancel_attempt(local);
        self.activity.forget_unanswered();
        if let Some(current) = &self.sessions.current {
            current.forget_rekey();
        }
        local.events.push_back(Event::HandshakeGivenUp { peer: self.peer });
    }

    fn cancel_attempt(&mut self, local: &mut Local<E>) {
        if let Some(Attempt { pending: Some(pending), .. }) = self.attempt.take() {
            local.release_pending(pending.index);
        }
    }

    fn rekey_at(&self) -> Option<Instant> {
        let current = self.sessions.current.as_ref().filter(|session| session.wants_rekey())?;
        // The responder leaves the first turn to the initiator, so that not both ask.
        let wait = if current.is_initiator() { REKEY_TIMEOUT } else { 2 * REKEY_TIMEOUT };
        let earliest = current.created() + wait;
        let last = self.last_initiation.map_or(earliest, |last| last + REKEY_TIMEOUT);
        self.attempt.is_none().then(|| earliest.max(last))
    }

    fn new_handshake_at(&self) -> Option<Instant> {
        Some(self.activity.unanswered()? + NEW_HANDSHAKE_TIMEOUT)
    }

    fn keepalive_at(&self) -> Option<Instant> {
        Some(self.activity.unacknowledged()? + KEEPALIVE_TIMEOUT)
    }

    fn persistent_at(&self, now: Instant) -> Option<Instant> {
        let interval = self.persistent_keepalive?;
        let last = self.activity.traversal().max(self.last_persistent);
        Some(last.map_or(now, |last| last + interval))
    }

    fn send_keepalive(&mut self, local: &mut Local<E>, now: Instant) {
        let Some(session) = &self.sessions.current else { return };
        let Ok(message) = session.keepalive(now) else { return };
        // What this asks for is looked at when the caller reschedules the tunnel.
        let _ = session.record_sent(handshake_bytes(message.len()), false, now);
        local.transmits.push_back(Transmit {
            peer: self.peer,
            endpoint: self.endpoint.clone(),
            message: message.to_vec(),
        });
    }

    fn transmit_handshake(&self, local: &mut Local<E>, message: Vec<u8>, now: Instant) {
        let _ = self.activity.sent(handshake_bytes(message.len()), false, now);
        local.transmits.push_back(Transmit {
            peer: self.peer,
            endpoint: self.endpoint.clone(),
            message,
        });
    }

    fn make_session(
        &self,
        local: &mut Local<E>,
        keys: &SessionKeys,
        (role, local_index, remote_index): (Role, u32, u32),
        now: Instant,
    ) -> Arc<Session> {
        // Where both ends began at once, each sends over the session that it began. If both renewed at once too, what is under way over the
        // sessions before would be lost each time.
        let yields = self.sessions.next.is_some() && local.identity.public < self.peer;
        let parts = SessionParts {
            peer: self.peer,
            yields,
            role,
            local_index,
            remote_index,
            rekey_after_bytes: local.rekey_after_bytes,
            activity: Arc::clone(&self.activity),
        };
        let session = Arc::new(Session::new(keys, parts, now));
        local.add_session(&session);
        session
    }
}

fn handshake_bytes(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

impl<E: fmt::Debug> fmt::Debug for Tunnel<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("peer", &self.peer)
            .field("endpoint", &self.endpoint)
            .field("current", &self.sessions.current)
            .finish_non_exhaustive()
    }
}

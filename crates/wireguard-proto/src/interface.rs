use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::gate::{Gate, GateRefusal, LoadLimits, Source};
use crate::handshake::{Identity, open_initiation, prove_initiation};
use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::local::{Local, Slot};
use crate::message::{
    COOKIE_REPLY_LEN, INITIATION_LEN, MessageKind, RESPONSE_LEN, at, read_u32, receiver_index,
};
use crate::session::{OpenError, Session};
use crate::timestamp::{Tai64N, WallClock};
use crate::tunnel::Tunnel;

/// Where messages come from and go to: a socket address, or whatever else carries them.
pub trait Endpoint: Clone + PartialEq + fmt::Debug {
    /// How cookies and budgets tell senders apart.
    fn source(&self) -> Source;
}

impl Endpoint for std::net::SocketAddr {
    fn source(&self) -> Source {
        Source::from(*self)
    }
}

/// What an interface starts with.
#[derive(Clone, Debug)]
pub struct InterfaceConfig {
    /// The interface's static key.
    pub private_key: PrivateKey,
    /// Bytes in both directions after which a session's initiator asks for a new one; `None` for
    /// WireGuard's own limits only.
    pub rekey_after_bytes: Option<u64>,
    /// Limits of the gate before the handshake.
    pub limits: LoadLimits,
    /// The last timestamp that this static key was seen to send
    /// ([`Interface::last_timestamp`]), from storage.
    pub last_timestamp: Tai64N,
    /// Wall-clock time since the Unix epoch.
    pub wall: Duration,
}

/// What a peer starts with.
#[derive(Clone, Debug)]
pub struct PeerConfig<E> {
    /// The preshared keys in the order of preference; none stands for the key of all zeros.
    ///
    /// An initiator tries them all on a response. A responder uses one per response and turns to
    /// the next when the initiator comes back without having used the session.
    pub preshared_keys: Vec<PresharedKey>,
    /// Where to send the first message.
    pub endpoint: Option<E>,
    /// Interval of keepalives that are sent without need.
    pub persistent_keepalive: Option<Duration>,
}

impl<E> Default for PeerConfig<E> {
    fn default() -> Self {
        Self { preshared_keys: Vec::new(), endpoint: None, persistent_keepalive: None }
    }
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit<E> {
    /// The peer it is for; for a cookie reply, this interface's own key, as nobody is known yet.
    pub peer: PublicKey,
    /// Where to; `None` when the peer has not been heard from and none was configured.
    pub endpoint: Option<E>,
    /// The whole message.
    pub message: Vec<u8>,
}

/// What changed and concerns the caller.
#[derive(Clone, Debug)]
pub enum Event {
    /// Messages with this session's local index can be opened from now on.
    SessionAdded(Arc<Session>),
    /// This session is the one to send on from now on; packets that waited for it can go.
    SessionReady(Arc<Session>),
    /// The session has ended; it neither seals nor opens any more.
    SessionRemoved {
        /// Its peer.
        peer: PublicKey,
        /// The index by which it was known.
        local_index: u32,
    },
    /// A peer did not answer for [`REKEY_ATTEMPT_TIME`](crate::REKEY_ATTEMPT_TIME); packets that
    /// wait for it should be dropped.
    HandshakeGivenUp {
        /// The silent peer.
        peer: PublicKey,
    },
}

/// What a datagram turned out to be.
#[derive(Debug)]
pub enum Received<'a> {
    /// A handshake message of this peer.
    Handshake(PublicKey),
    /// A cookie from this peer; the next handshake message carries it.
    Cookie(PublicKey),
    /// A packet with its padding; empty for a keepalive.
    Packet {
        /// The session that opened it, which knows the peer.
        session: Arc<Session>,
        /// The bytes, in place.
        payload: &'a mut [u8],
    },
}

/// Why a datagram was dropped. Only [`UnknownPeer`](Self::UnknownPeer) and
/// [`CookieSent`](Self::CookieSent) are of interest to more than a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// No WireGuard message.
    #[error("the datagram is not a WireGuard message")]
    Malformed,
    /// mac1 is not for this interface.
    #[error("the handshake message is not for this interface")]
    WrongMac1,
    /// The sender must come back with a cookie; the reply is queued.
    #[error("the sender was asked for a cookie")]
    CookieSent,
    /// The budget for handshakes is used up.
    #[error("the handshake budget is used up")]
    OverBudget,
    /// A well-made initiation of a static key that is no peer.
    #[error("the initiator is not a peer")]
    UnknownPeer(PublicKey),
    /// No session or pending handshake has this index.
    #[error("no session has this index")]
    UnknownIndex,
    /// Damaged, forged, or made with other keys.
    #[error("the message is not authentic")]
    NotAuthentic,
    /// A copy of the initiation that was answered last, within the time that its sender waits for
    /// the answer.
    #[error("the initiation was just answered")]
    RepeatedInitiation,
    /// The initiation's timestamp is not newer than the last.
    #[error("the initiation was received before")]
    ReplayedInitiation,
    /// The peer initiates more often than fifty times a second.
    #[error("the peer initiates too often")]
    TooManyInitiations,
    /// A transport message that its session refuses.
    #[error(transparent)]
    Transport(#[from] OpenError),
}

/// A WireGuard interface: its static key, its peers, and the demultiplexer in front of them.
///
/// Driving order: after every call drain [`poll_transmit`](Self::poll_transmit) and
/// [`poll_event`](Self::poll_event), then sleep until [`poll_timeout`](Self::poll_timeout) and
/// call [`handle_timeout`](Self::handle_timeout).
#[derive(Debug)]
pub struct Interface<E> {
    local: Local<E>,
    gate: Arc<Gate>,
    limits: LoadLimits,
    tunnels: BTreeMap<PublicKey, Tunnel<E>>,
    deadlines: BTreeSet<(Instant, PublicKey)>,
    last_now: Instant,
}

impl<E: Endpoint> Interface<E> {
    /// An interface without peers.
    #[must_use]
    pub fn new(config: InterfaceConfig, now: Instant) -> Self {
        let identity = Identity::new(config.private_key);
        let gate = Arc::new(Gate::new(&identity.public, config.limits));
        let clock = WallClock::new(config.wall, now);
        let mut local = Local::new(identity, clock, config.last_timestamp);
        local.rekey_after_bytes = config.rekey_after_bytes;
        Self {
            local,
            gate,
            limits: config.limits,
            tunnels: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            last_now: now,
        }
    }

    /// The interface's static public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.local.identity.public
    }

    /// The interface's static private key.
    #[must_use]
    pub fn private_key(&self) -> &PrivateKey {
        &self.local.identity.private
    }

    /// Changes the static key: every session ends, and a peer with the new public key is removed,
    /// for nobody is a peer of itself.
    pub fn set_private_key(&mut self, key: PrivateKey, now: Instant) {
        self.last_now = now;
        self.local.identity = Identity::new(key);
        self.gate = Arc::new(Gate::new(&self.local.identity.public, self.limits));
        let own = self.local.identity.public;
        self.remove_peer(&own, now);
        for tunnel in self.tunnels.values_mut() {
            tunnel.reset(&mut self.local);
            reschedule(&mut self.deadlines, tunnel, now);
        }
    }

    /// Corrects the wall clock that timestamps are taken from.
    pub fn set_wall_clock(&mut self, wall: Duration, now: Instant) {
        self.local.clock = WallClock::new(wall, now);
    }

    /// The greatest timestamp sent so far. Store it before the process ends, or peers may refuse
    /// us after the wall clock stepped back.
    #[must_use]
    pub fn last_timestamp(&self) -> Tai64N {
        self.local.last_timestamp
    }

    /// The gate before the handshake, for threads that want to turn messages away themselves.
    #[must_use]
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Adds a peer, or replaces what one is configured to be while its sessions go on. The
    /// interface's own key is refused with false.
    pub fn add_peer(&mut self, peer: PublicKey, config: PeerConfig<E>, now: Instant) -> bool {
        self.last_now = now;
        if peer == self.local.identity.public {
            return false;
        }
        if let Some(tunnel) = self.tunnels.get_mut(&peer) {
            tunnel.set_preshared_keys(config.preshared_keys);
            tunnel.set_persistent_keepalive(config.persistent_keepalive);
            if let Some(endpoint) = config.endpoint {
                tunnel.set_endpoint(endpoint);
            }
            reschedule(&mut self.deadlines, tunnel, now);
        } else {
            let mut tunnel = Tunnel::new(peer, config, now);
            reschedule(&mut self.deadlines, &mut tunnel, now);
            self.tunnels.insert(peer, tunnel);
        }
        true
    }

    /// Removes a peer and ends its sessions; false when there was none.
    pub fn remove_peer(&mut self, peer: &PublicKey, now: Instant) -> bool {
        self.last_now = now;
        let Some(mut tunnel) = self.tunnels.remove(peer) else { return false };
        if let Some(deadline) = tunnel.deadline() {
            self.deadlines.remove(&(deadline, *peer));
        }
        tunnel.reset(&mut self.local);
        true
    }

    /// Changes where a peer is; false when there is none.
    pub fn set_endpoint(&mut self, peer: &PublicKey, endpoint: E) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(peer) else { return false };
        tunnel.set_endpoint(endpoint);
        true
    }

    /// Changes the preshared keys; they count from the next handshake on.
    pub fn set_preshared_keys(&mut self, peer: &PublicKey, keys: Vec<PresharedKey>) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(peer) else { return false };
        tunnel.set_preshared_keys(keys);
        true
    }

    /// Changes the persistent keepalive; the first one is due at once.
    pub fn set_persistent_keepalive(
        &mut self,
        peer: &PublicKey,
        interval: Option<Duration>,
        now: Instant,
    ) -> bool {
        self.last_now = now;
        let Some(tunnel) = self.tunnels.get_mut(peer) else { return false };
        tunnel.set_persistent_keepalive(interval);
        reschedule(&mut self.deadlines, tunnel, now);
        true
    }

    /// The peer with this key.
    #[must_use]
    pub fn tunnel(&self, peer: &PublicKey) -> Option<&Tunnel<E>> {
        self.tunnels.get(peer)
    }

    /// All peers in the order of their keys.
    pub fn tunnels(&self) -> impl Iterator<Item = &Tunnel<E>> {
        self.tunnels.values()
    }

    /// The session that transport messages with this receiver index belong to.
    #[must_use]
    pub fn session(&self, local_index: u32) -> Option<&Arc<Session>> {
        match self.local.slot(local_index)? {
            Slot::Session(session) => Some(session),
            Slot::Pending(_) => None,
        }
    }

    /// Asks for a session with a peer, as when a packet waits for one; without effect while an
    /// attempt is under way. False when there is no such peer.
    pub fn initiate(&mut self, peer: &PublicKey, rng: &mut dyn CryptoRng, now: Instant) -> bool {
        self.last_now = now;
        let Some(tunnel) = self.tunnels.get_mut(peer) else { return false };
        tunnel.initiate(&mut self.local, rng, now);
        reschedule(&mut self.deadlines, tunnel, now);
        true
    }

    /// Notes that messages reach a peer another way from now on: an initiation that waits for its
    /// response is sent that way at once, rather than when REKEY_TIMEOUT has passed.
    pub fn handle_path_change(&mut self, peer: &PublicKey, now: Instant) {
        self.last_now = now;
        if let Some(tunnel) = self.tunnels.get(peer) {
            tunnel.resend_initiation(&mut self.local, now);
        }
    }

    /// Takes one datagram of any kind from `from`; packets are opened in place.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn handle_datagram<'a>(
        &mut self,
        datagram: &'a mut [u8],
        from: E,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<Received<'a>, Dropped> {
        self.last_now = now;
        match MessageKind::of(datagram).ok_or(Dropped::Malformed)? {
            MessageKind::Initiation => {
                let message: &[u8; INITIATION_LEN] = exact(datagram)?;
                self.handle_initiation(message, from, rng, now).map(Received::Handshake)
            }
            MessageKind::Response => {
                let message: &[u8; RESPONSE_LEN] = exact(datagram)?;
                self.handle_response(message, from, rng, now).map(Received::Handshake)
            }
            MessageKind::CookieReply => {
                self.handle_cookie(exact(datagram)?, now).map(Received::Cookie)
            }
            MessageKind::Transport => self.handle_transport(datagram, from, rng, now),
        }
    }

    /// Notes that an authentic message of `peer` came from `endpoint`: the peer has roamed when
    /// that is news. [`handle_datagram`](Self::handle_datagram) does it by itself.
    pub fn handle_endpoint(&mut self, peer: &PublicKey, endpoint: &E) {
        if let Some(tunnel) = self.tunnels.get_mut(peer)
            && tunnel.endpoint() != Some(endpoint)
        {
            tunnel.set_endpoint(endpoint.clone());
        }
    }

    /// Looks at a peer whose session answered true to a `record_*` call.
    pub fn handle_activity(&mut self, peer: &PublicKey, rng: &mut dyn CryptoRng, now: Instant) {
        self.last_now = now;
        if let Some(tunnel) = self.tunnels.get_mut(peer) {
            tunnel.tick(&mut self.local, rng, now);
            reschedule(&mut self.deadlines, tunnel, now);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        self.last_now = now;
        while let Some((_, peer)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            self.handle_activity(&peer, rng, now);
        }
    }

    /// The next message to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit<E>> {
        self.local.transmits.pop_front()
    }

    /// The next change to know of.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.local.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), with the reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if !self.local.transmits.is_empty() || !self.local.events.is_empty() {
            return Some((self.last_now, "output is queued"));
        }
        let (at, peer) = self.deadlines.first()?;
        let reason = self.tunnels.get(peer)?.next_timeout(self.last_now)?.1;
        Some((*at, reason))
    }

    fn handle_initiation(
        &mut self,
        message: &[u8; INITIATION_LEN],
        from: E,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<PublicKey, Dropped> {
        self.pass_gate(message, &from, rng, now)?;
        let identity = &self.local.identity;
        let opened = open_initiation(identity, message).ok_or(Dropped::NotAuthentic)?;
        let peer = opened.peer;
        let tunnel = self.tunnels.get_mut(&peer).ok_or(Dropped::UnknownPeer(peer))?;
        let proved = prove_initiation(identity, opened, message).ok_or(Dropped::NotAuthentic)?;
        tunnel.respond(&mut self.local, (&proved, from), rng, now)?;
        reschedule(&mut self.deadlines, tunnel, now);
        Ok(peer)
    }

    fn handle_response(
        &mut self,
        message: &[u8; RESPONSE_LEN],
        from: E,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<PublicKey, Dropped> {
        let index = read_u32(message, at::RESPONSE_RECEIVER);
        let Some(Slot::Pending(peer)) = self.local.slot(index).cloned() else {
            return Err(Dropped::UnknownIndex);
        };
        self.pass_gate(message, &from, rng, now)?;
        let tunnel = self.tunnels.get_mut(&peer).ok_or(Dropped::UnknownIndex)?;
        tunnel.finish(&mut self.local, (message, from), now)?;
        reschedule(&mut self.deadlines, tunnel, now);
        Ok(peer)
    }

    fn handle_cookie(
        &mut self,
        reply: &[u8; COOKIE_REPLY_LEN],
        now: Instant,
    ) -> Result<PublicKey, Dropped> {
        let peer = match self.local.slot(read_u32(reply, at::INDEX)) {
            Some(Slot::Pending(peer)) => *peer,
            Some(Slot::Session(session)) => *session.peer(),
            None => return Err(Dropped::UnknownIndex),
        };
        let tunnel = self.tunnels.get_mut(&peer).ok_or(Dropped::UnknownIndex)?;
        if tunnel.take_cookie(reply, now) { Ok(peer) } else { Err(Dropped::NotAuthentic) }
    }

    fn handle_transport<'a>(
        &mut self,
        datagram: &'a mut [u8],
        from: E,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<Received<'a>, Dropped> {
        let index = receiver_index(datagram).ok_or(Dropped::Malformed)?;
        let session = Arc::clone(self.session(index).ok_or(Dropped::UnknownIndex)?);
        let len = u64::try_from(datagram.len()).unwrap_or(u64::MAX);
        let payload = session.open(datagram, now)?;
        self.handle_endpoint(session.peer(), &from);
        if session.record_received(len, !payload.is_empty(), now) {
            self.handle_activity(session.peer(), rng, now);
        }
        Ok(Received::Packet { session, payload })
    }

    /// Asks the gate, and queues its cookie reply.
    fn pass_gate(
        &mut self,
        message: &[u8],
        from: &E,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<(), Dropped> {
        self.gate.admit(message, &from.source(), rng, now).map_err(|refusal| match refusal {
            GateRefusal::NotAHandshake => Dropped::Malformed,
            GateRefusal::WrongMac1 => Dropped::WrongMac1,
            GateRefusal::OverBudget => Dropped::OverBudget,
            GateRefusal::CookieNeeded(reply) => {
                self.local.transmits.push_back(Transmit {
                    peer: self.local.identity.public,
                    endpoint: Some(from.clone()),
                    message: reply.to_vec(),
                });
                Dropped::CookieSent
            }
        })
    }
}

/// Moves a tunnel to its place among the deadlines.
fn reschedule<E: Endpoint>(
    deadlines: &mut BTreeSet<(Instant, PublicKey)>,
    tunnel: &mut Tunnel<E>,
    now: Instant,
) {
    let peer = *tunnel.peer();
    if let Some(old) = tunnel.deadline() {
        deadlines.remove(&(old, peer));
    }
    let next = tunnel.next_timeout(now).map(|(at, _)| at);
    if let Some(at) = next {
        deadlines.insert((at, peer));
    }
    tunnel.set_deadline(next);
}

fn exact<const N: usize>(datagram: &[u8]) -> Result<&[u8; N], Dropped> {
    datagram.try_into().map_err(|_| Dropped::Malformed)
}

//! The whole of a controller's decisions, in memory.

mod admin;
mod health;
mod hello;
mod keys;
mod logs;
mod message;
mod names;
mod owned;
mod peers;
mod publish;
mod session;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use identity::{
    Authorities, ChannelKey, DeviceId, DeviceName, Epoch, NetworkId, Revocations, ServerAddress,
    Signed, TunnelPublicKey, UnixTime,
};
use noise_channel::{
    Channel, ChannelEvent, ConnectionMask, MessageClass, Now, PathSecret, ReplayGuard,
    ResponderConfig, SendError, Service, StaticSecret,
};
use rand_core::CryptoRng;

use self::health::Health;
use self::logs::EventBudget;
use self::publish::Publication;
use self::session::{Phase, Session};
use crate::limits::{
    CAPABILITY, FRESHNESS_INTERVAL, HELLO_DEADLINE, LOAD_REPORT_DEADLINE, MAX_STRANGERS,
};
use crate::{
    AdminAnswer, AdminError, ConnectionId, ControllerMessage, MapItem, Mode, SecurityEvent,
};

pub use keys::{AuthorityKeys, KeyMismatch};
pub use state::{
    Change, Counters, DeviceRecord, InviteRecord, Retention, Settings, Stored, StoredItem,
};

/// What a [`Controller`] is made of, beside what it keeps.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// The delegated keys.
    pub keys: AuthorityKeys,
    /// The Noise static key.
    pub channel_key: ChannelKey,
    /// Recognises the network's connections.
    pub path_secret: PathSecret,
    /// Where this controller listens, as nodes see it; the settings may say otherwise.
    pub servers: Vec<ServerAddress>,
    /// The newest epoch; none in epoch 0.
    pub epoch: Option<Signed<Epoch>>,
}

/// Names a batch of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// Names a request of an administrator, as its caller likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send one binary message.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// The message.
        message: Vec<u8>,
    },
    /// Close a connection; it is not heard of again.
    Close {
        /// Which one.
        connection: ConnectionId,
    },
    /// Make these changes together, durably, in the order of the batches; then call
    /// [`Controller::handle_persisted`]. Whatever depends on them waits for that. If it cannot be
    /// done, the controller must be dropped and started again from what was kept.
    Persist {
        /// The batch.
        id: PersistId,
        /// Its changes.
        changes: Vec<Change>,
    },
    /// Answer an administrator.
    Answer {
        /// The request.
        ticket: Ticket,
        /// The answer.
        result: Result<AdminAnswer, AdminError>,
    },
}

/// The controller of one network.
///
/// It decides in memory and says what to keep; whatever follows from a change, answers and new
/// maps alike, leaves only when [`Self::handle_persisted`] has confirmed that the change is on
/// disk. After every handler drain [`Self::poll_output`] and arm a timer for
/// [`Self::poll_timeout`].
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
    state: Stored,
    authorities: Authorities,
    revocations: Revocations,
    index: Index,
    publication: Publication,
    relays: BTreeMap<DeviceId, Health>,
    sessions: BTreeMap<ConnectionId, Session>,
    by_device: BTreeMap<DeviceId, ConnectionId>,
    replay: ReplayGuard,
    journal: Journal,
    events: EventBudget,
    outputs: VecDeque<Output>,
    timers: Timers,
    last_now: Instant,
}

/// Who has what only one device can have.
#[derive(Debug, Default)]
struct Index {
    names: BTreeMap<DeviceName, DeviceId>,
    addresses: BTreeMap<Ipv6Addr, DeviceId>,
    leases: BTreeMap<Ipv4Addr, DeviceId>,
    tunnels: BTreeMap<TunnelPublicKey, DeviceId>,
}

/// Changes and what waits for them.
#[derive(Debug, Default)]
struct Journal {
    open: Batch,
    waiting: VecDeque<(PersistId, Batch)>,
    last: u64,
}

#[derive(Debug, Default)]
struct Batch {
    changes: Vec<Change>,
    replies: Vec<Reply>,
    version: u64,
}

/// Something that must not leave before what it follows from is on disk.
#[derive(Debug)]
enum Reply {
    Message(ConnectionId, ControllerMessage),
    Deliver(ConnectionId),
    Freshness(ConnectionId),
    Close(ConnectionId),
    Answer(Ticket, Result<AdminAnswer, AdminError>),
}

#[derive(Debug)]
struct Timers {
    sessions: BTreeSet<(Instant, ConnectionId)>,
    freshness: Instant,
    prune: Instant,
}

impl Controller {
    /// Starts from what was kept.
    #[must_use]
    pub fn new(config: ControllerConfig, stored: Stored, now: Now) -> Self {
        let network = config.keys.network();
        let published = stored.counters.map;
        let mut controller = Self {
            config,
            state: stored,
            authorities: Authorities::new(network),
            revocations: Revocations::new(network),
            index: Index::default(),
            publication: Publication { published, ..Publication::default() },
            relays: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_device: BTreeMap::new(),
            replay: ReplayGuard::default(),
            journal: Journal::default(),
            events: EventBudget::new(now.instant),
            outputs: VecDeque::new(),
            timers: Timers {
                sessions: BTreeSet::new(),
                freshness: now.instant + FRESHNESS_INTERVAL,
                prune: now.instant,
            },
            last_now: now.instant,
        };
        controller.recall(now);
        controller.begin(now);
        controller.commit(now);
        controller
    }

    /// Whether a request's path belongs to this controller, and the mask of its connection.
    #[must_use]
    pub fn recognise(&self, path: &str) -> Option<ConnectionMask> {
        self.config.path_secret.recognise(Service::Control, path)
    }

    /// A connection was accepted. Each id may be used once.
    pub fn handle_opened(&mut self, connection: ConnectionId, mask: ConnectionMask, now: Now) {
        self.last_now = now.instant;
        let strangers = self.sessions.iter().filter(|(_, s)| s.device().is_none());
        if strangers.clone().count() >= MAX_STRANGERS
            && let Some((oldest, _)) = strangers.min_by_key(|(_, session)| session.standing())
        {
            let oldest = *oldest;
            self.close(oldest);
            self.note_crowd(now);
            self.commit(now);
        }
        let config = ResponderConfig {
            static_key: StaticSecret::from_bytes(*self.config.channel_key.to_bytes()),
            prologue: self.network().as_bytes().to_vec(),
            mask,
            capability: CAPABILITY,
            replay: self.replay.clone(),
        };
        let channel = Channel::respond(config, now);
        self.sessions.insert(connection, Session::new(channel, now.instant));
        self.arm(connection);
    }

    /// A binary message came in.
    pub fn handle_message(
        &mut self,
        connection: ConnectionId,
        message: &[u8],
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        self.last_now = now.instant;
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        if session.allow_transport(now.instant) {
            session.channel.handle_message(message, rng, now);
            self.drain(connection, now);
        } else {
            let device = session.device();
            self.event(None, SecurityEvent::RateLimited { device }, now);
            self.close(connection);
        }
        self.commit(now);
    }

    /// A connection was closed by the other side.
    pub fn handle_closed(&mut self, connection: ConnectionId, now: Now) {
        self.last_now = now.instant;
        let lost = self.sessions.get(&connection).filter(|session| session.channel.is_rotating());
        if let Some(device) = lost.map(Session::device) {
            self.event(None, SecurityEvent::RotationFailed { device }, now);
        }
        self.forget(connection);
        self.commit(now);
    }

    /// A batch of changes is on disk.
    pub fn handle_persisted(&mut self, id: PersistId, now: Now) {
        self.last_now = now.instant;
        while let Some((waiting, _)) = self.journal.waiting.front()
            && *waiting <= id
            && let Some((_, batch)) = self.journal.waiting.pop_front()
        {
            let is_new_map = batch.version > self.publication.published;
            self.publication.published = batch.version;
            self.dispatch(batch.replies, now);
            if is_new_map {
                for connection in self.ready_connections() {
                    self.deliver(connection, now);
                }
            }
        }
    }

    /// How many batches are to be confirmed after this one.
    #[must_use]
    pub fn unpersisted_after(&self, id: PersistId) -> u64 {
        self.journal.last.saturating_sub(id.0)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        self.last_now = now.instant;
        while let Some((at, connection)) = self.timers.sessions.first().copied()
            && at <= now.instant
        {
            self.timers.sessions.pop_first();
            let Some(session) = self.sessions.get_mut(&connection) else { continue };
            session.timer = None;
            let is_late = now.instant >= session.opened + HELLO_DEADLINE;
            if session.device().is_none() && is_late {
                self.close(connection);
                continue;
            }
            session.channel.handle_timeout(rng, now);
            self.drain(connection, now);
        }
        if now.instant >= self.timers.freshness {
            self.timers.freshness = now.instant + FRESHNESS_INTERVAL;
            self.refresh(wall(now));
            self.push_freshness(now);
        }
        self.check_relays(now);
        if now.instant >= self.timers.prune {
            self.prune_logs(now);
        }
        self.commit(now);
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called next, and for what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if !self.outputs.is_empty() {
            return Some((self.last_now, "output is queued"));
        }
        let session = self.timers.sessions.first().map(|(at, _)| (*at, "a node's channel"));
        let healthy = self.relays.values().filter(|relay| relay.healthy);
        let relay = healthy
            .map(|relay| (relay.heard + LOAD_REPORT_DEADLINE, "a relay's load report"))
            .min();
        let freshness = (self.timers.freshness, "freshness of revocations");
        let prune = (self.timers.prune, "retention of the logs");
        [Some(freshness), Some(prune), session, relay].into_iter().flatten().min()
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.config.keys.network()
    }

    /// Whether this controller could admit devices by itself.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.config.keys.mode()
    }

    /// What is kept, including changes that are not on disk yet.
    #[must_use]
    pub const fn stored(&self) -> &Stored {
        &self.state
    }

    /// Believes again what was kept.
    fn recall(&mut self, now: Now) {
        let items: Vec<_> =
            self.state.items.iter().map(|(key, item)| (key.clone(), item.clone())).collect();
        for (key, stored) in items {
            match MapItem::from_bytes(&stored.bytes) {
                Some(MapItem::Delegation(signed)) => drop(self.authorities.add(&signed)),
                Some(MapItem::Epoch(signed)) => drop(self.authorities.advance_epoch(&signed)),
                Some(MapItem::Revocation(_, signed)) => {
                    // An entry that does not fit the chain any more revokes nothing.
                    let _ = self.revocations.apply(&signed, &self.authorities);
                }
                Some(MapItem::Relay(device, _)) => {
                    self.relays.insert(device, Health::new(now.instant));
                }
                Some(MapItem::Gone(_)) => {
                    self.publication.tombstones.insert(stored.version);
                }
                Some(
                    MapItem::Info(_)
                    | MapItem::Peer(..)
                    | MapItem::RelayHealth(..)
                    | MapItem::Lease4(..)
                    | MapItem::Name(..)
                    | MapItem::Static(..)
                    | MapItem::Controller(..)
                    | MapItem::Freshness(_),
                )
                | None => {}
            }
            self.publication.log.insert(stored.version, key);
        }
        self.recall_peers();
        let network = self.network();
        for record in self.state.devices.values() {
            self.index.names.insert(record.name.clone(), record.device);
            self.index.addresses.insert(record.address, record.device);
            if let Ok(binding) = record.binding.verify(network, record.device) {
                self.index.tunnels.insert(binding.tunnel_key, record.device);
            }
            if let Some(address) = record.ipv4 {
                self.index.leases.insert(address, record.device);
            }
        }
    }

    /// Publishes what belongs to every map and may be new since the last start.
    fn begin(&mut self, now: Now) {
        let at = wall(now);
        let delegations: Vec<_> =
            self.config.keys.iter().map(|(_, (_, delegation))| delegation.clone()).collect();
        for delegation in delegations {
            if self.authorities.add(&delegation).unwrap_or(false) {
                self.publish(&MapItem::Delegation(delegation));
            }
        }
        if let Some(epoch) = self.config.epoch.clone()
            && self.authorities.advance_epoch(&epoch).unwrap_or(false)
        {
            self.publish(&MapItem::Epoch(epoch));
            self.sign_records_anew(at);
        }
        self.publish_info(at);
        self.publish_controller(at);
        self.publish_health();
        self.refresh(at);
    }

    /// Moves what a channel has to say outwards, until it is silent.
    fn drain(&mut self, connection: ConnectionId, now: Now) {
        loop {
            let Some(session) = self.sessions.get_mut(&connection) else { return };
            while let Some(message) = session.channel.poll_message() {
                self.outputs.push_back(Output::Send { connection, message });
            }
            let Some(event) = session.channel.poll_event() else { break };
            self.handle_channel_event(connection, event, now);
        }
        self.arm(connection);
    }

    fn handle_channel_event(&mut self, connection: ConnectionId, event: ChannelEvent, now: Now) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let device = session.device();
        match event {
            ChannelEvent::Established { remote_static, handshake_hash, .. } => {
                session.phase = Phase::Stranger { remote_static, handshake_hash };
            }
            ChannelEvent::Received(message) => self.handle_payload(connection, &message, now),
            ChannelEvent::Rotated => self.deliver(connection, now),
            ChannelEvent::RotationAbandoned => {
                self.event(None, SecurityEvent::RotationFailed { device }, now);
            }
            // Only an initiator learns that.
            ChannelEvent::ClockSkew { .. } => {}
            ChannelEvent::Failed(error) => {
                if let Some(event) = SecurityEvent::of_channel(error, device) {
                    self.event(None, event, now);
                }
                self.close(connection);
            }
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        self.outputs.push_back(Output::Close { connection });
        self.forget(connection);
    }

    fn forget(&mut self, connection: ConnectionId) {
        let Some(session) = self.sessions.remove(&connection) else { return };
        if let Some(at) = session.timer {
            self.timers.sessions.remove(&(at, connection));
        }
        if let Some(device) = session.device()
            && self.by_device.get(&device) == Some(&connection)
        {
            self.by_device.remove(&device);
        }
    }

    /// Puts a session into the queue of timers where it belongs.
    fn arm(&mut self, connection: ConnectionId) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let channel = session.channel.poll_timeout().map(|(at, _)| at);
        let hello = session.device().is_none().then_some(session.opened + HELLO_DEADLINE);
        let at = channel.into_iter().chain(hello).min();
        if at == session.timer {
            return;
        }
        if let Some(before) = session.timer {
            self.timers.sessions.remove(&(before, connection));
        }
        session.timer = at;
        if let Some(at) = at {
            self.timers.sessions.insert((at, connection));
        }
    }

    /// Sends a message now.
    fn say(&mut self, connection: ConnectionId, message: &ControllerMessage, now: Now) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        match session.channel.send(&message.to_bytes(), MessageClass::Counted, now.instant) {
            // A channel that is not open any more reports why by itself.
            Ok(()) | Err(SendError::NotOpen) => {}
            // What follows must not arrive without this.
            Err(SendError::HeldBack | SendError::TooLong(_)) => return self.close(connection),
        }
        while let Some(message) = session.channel.poll_message() {
            self.outputs.push_back(Output::Send { connection, message });
        }
        self.arm(connection);
    }

    /// Makes a change in memory and notes it for the disk.
    fn change(&mut self, change: Change) {
        self.state.apply(&change);
        self.journal.open.changes.push(change);
    }

    /// Says something once the changes so far are on disk.
    fn reply(&mut self, reply: Reply) {
        self.journal.open.replies.push(reply);
    }

    /// Hands out what the last handler changed, or, if it changed nothing, its replies.
    fn commit(&mut self, now: Now) {
        let mut batch = std::mem::take(&mut self.journal.open);
        batch.version = self.state.counters.map;
        if batch.changes.is_empty() {
            match self.journal.waiting.back_mut() {
                Some((_, last)) => last.replies.append(&mut batch.replies),
                None => self.dispatch(batch.replies, now),
            }
            return;
        }
        self.journal.last += 1;
        let id = PersistId(self.journal.last);
        let mut changes = std::mem::take(&mut batch.changes);
        changes.push(Change::Counters(self.state.counters));
        self.outputs.push_back(Output::Persist { id, changes });
        self.journal.waiting.push_back((id, batch));
    }

    fn dispatch(&mut self, replies: Vec<Reply>, now: Now) {
        for reply in replies {
            match reply {
                Reply::Message(connection, message) => self.say(connection, &message, now),
                Reply::Deliver(connection) => self.deliver(connection, now),
                Reply::Freshness(connection) => self.send_freshness(connection, now),
                Reply::Close(connection) => self.close(connection),
                Reply::Answer(ticket, result) => {
                    self.outputs.push_back(Output::Answer { ticket, result });
                }
            }
        }
    }
}

/// The wall clock in seconds.
const fn wall(now: Now) -> UnixTime {
    UnixTime(now.wall.as_secs())
}

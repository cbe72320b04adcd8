//! The machine that an engine or a relay drives.

use std::collections::VecDeque;
use std::time::Instant;

use identity::{
    Binding, CertificateChain, ChannelProof, Endpoints, Member, Proof, RelayEntry, Signed, UnixTime,
};
use noise_channel::{
    Channel, ChannelEvent, InitiatorConfig, Now, Service, StaticSecret, UnixMillis,
};
use rand_core::CryptoRng;

use super::backoff::{Backoff, jittered};
use super::clock::NetworkClock;
use super::join::Join;
use super::link::{Latest, Link, Phase};
use super::places::Places;
use super::reports::Reports;
use super::succession::Succession;
use super::timers::Timers;
use super::{Admission, ClientConfig, ClientEvent, ClientStatus, StreamAction};
use crate::limits::{CAPABILITY, DIAL_DEADLINE, REFUSED_RETRY, WELCOME_DEADLINE};
use crate::{
    ConnectionId, ControllerMessage, Hello, LoadReport, MapChunk, NetworkMap, NodeMessage, Refusal,
    SecurityEvent, Welcome,
};

/// A node's side of its channel to the controller.
///
/// It joins, comes back after every loss, keeps the map and the membership current, and never gives
/// up unless the device was removed. It starts by itself: drive it from the first
/// [`Self::poll_timeout`]. After every handler and command drain [`Self::poll_action`] and
/// [`Self::poll_event`] and arm a timer for [`Self::poll_timeout`].
#[derive(Debug)]
pub struct ControlClient {
    config: ClientConfig,
    /// What the chain of the configuration proves, if it proves anything.
    proof: Option<Proof>,
    pub(super) map: NetworkMap,
    pub(super) link: Link,
    pub(super) succession: Succession,
    clock: NetworkClock,
    latest: Latest,
    join: Join,
    pub(super) places: Places,
    pub(super) backoff: Backoff,
    timers: Timers,
    reports: Reports,
    next_connection: u64,
    pub(super) actions: VecDeque<StreamAction>,
    pub(super) events: VecDeque<ClientEvent>,
    pub(super) last_now: Instant,
}

impl ControlClient {
    /// A client that dials at once. `map` is the cached one, or a new one.
    #[must_use]
    pub fn new(config: ClientConfig, map: NetworkMap, now: Now) -> Self {
        let clock = NetworkClock::new(config.clock_offset);
        let proof = match &config.admission {
            Admission::Chain(chain) => chain.prove(map.authorities()).ok(),
            Admission::Invite { .. } => None,
        };
        let mut client = Self {
            config,
            proof,
            map,
            link: Link::Waiting { until: now.instant, refusal: None },
            succession: Succession::default(),
            clock,
            latest: Latest::default(),
            join: Join::default(),
            places: Places::default(),
            backoff: Backoff::default(),
            timers: Timers::default(),
            reports: Reports::default(),
            next_connection: 1,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            last_now: now.instant,
        };
        client.plan_renewal(now);
        client.plan_expiry(now);
        client
    }

    /// A connection that was asked for is open.
    pub fn handle_opened(&mut self, connection: ConnectionId, rng: &mut dyn CryptoRng, now: Now) {
        self.last_now = now.instant;
        let Link::Dialling { connection: dialled, mask, .. } = &self.link else { return };
        let Some(channel_key) = self.places.channel_key() else { return };
        if *dialled != connection {
            return;
        }
        let config = InitiatorConfig {
            static_key: StaticSecret::from_bytes(*self.config.channel_key.to_bytes()),
            remote_static: *channel_key.as_bytes(),
            prologue: self.config.controller.network.as_bytes().to_vec(),
            mask: mask.clone(),
            capability: CAPABILITY,
            clock_offset: self.clock.offset(),
        };
        match Channel::initiate(config, rng, now) {
            Ok(channel) => {
                let channel = Box::new(channel);
                self.link = Link::Open { connection, channel, phase: Phase::Handshake };
                self.drain_channel(rng, now);
            }
            Err(_) => self.lose(rng, now),
        }
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
        if let Link::Open { connection: open, channel, .. } = &mut self.link
            && *open == connection
        {
            channel.handle_message(message, rng, now);
            self.drain_channel(rng, now);
        } else if let Some(channel) = self.succession.before_over(connection) {
            channel.handle_message(message, rng, now);
            self.drain_before(rng, now);
        }
    }

    /// A connection was closed, or could not be opened.
    pub fn handle_closed(&mut self, connection: ConnectionId, rng: &mut dyn CryptoRng, now: Now) {
        self.last_now = now.instant;
        if self.connection() == Some(connection) {
            self.succession.handle_cut(now.instant);
            self.retry(rng, now);
        } else if self.succession.before_over(connection).is_some() {
            self.lose_before(now.instant);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        self.last_now = now.instant;
        match &mut self.link {
            Link::Waiting { until, .. } if now.instant >= *until => self.dial(rng, now),
            Link::Dialling { since, .. } if now.instant >= *since + DIAL_DEADLINE => {
                self.lose(rng, now);
            }
            Link::Open { phase: Phase::Hello { since }, .. }
                if now.instant >= *since + WELCOME_DEADLINE =>
            {
                self.lose(rng, now);
            }
            Link::Open { channel, .. } => {
                channel.handle_timeout(rng, now);
                self.drain_channel(rng, now);
            }
            Link::Waiting { .. } | Link::Dialling { .. } | Link::Stopped => {}
        }
        self.succeed(rng, now);
        if self.is_ready() && self.timers.take_renewal(rng, now.instant) {
            self.send(&NodeMessage::Renew, now.instant);
        }
        if self.is_ready()
            && self.timers.take_endpoints(now.instant)
            && let Some(endpoints) = self.latest.endpoints.clone()
        {
            self.send(&NodeMessage::Endpoints(endpoints), now.instant);
        }
        if self.timers.is_expiry_due(now.instant) {
            let applied = self.map.expire(self.wall(now));
            self.plan_expiry(now);
            if !applied.changes.is_empty() {
                self.events.push_back(ClientEvent::MapChanged(applied.changes));
            }
        }
        self.send_reports(now.instant);
    }

    /// Announces endpoints, now and on every later channel.
    pub fn set_endpoints(&mut self, endpoints: Signed<Endpoints>, now: Instant) {
        self.latest.endpoints = Some(endpoints.clone());
        self.latest.are_endpoints_late = !self.is_ready();
        self.timers.forget_endpoints();
        self.send_if_ready(&NodeMessage::Endpoints(endpoints), now);
    }

    /// Announces new keys. The channel key itself stays until the client is made anew.
    pub fn set_binding(&mut self, binding: Signed<Binding>, now: Instant) {
        self.config.binding = binding.clone();
        self.send_if_ready(&NodeMessage::Binding(binding), now);
    }

    /// Asks for a relay's entry to be published, now and on every later channel.
    pub fn offer_relay(&mut self, entry: RelayEntry, now: Instant) {
        self.latest.relay = Some(entry.clone());
        self.send_if_ready(&NodeMessage::Relay(entry), now);
    }

    /// Reports a relay's load, to be called every [`crate::limits::LOAD_REPORT_INTERVAL`].
    pub fn report_load(&mut self, report: LoadReport, now: Instant) {
        self.send_if_ready(&NodeMessage::Load(report), now);
    }

    /// Reports a security event, later if there is no channel now, and again if the channel ends before
    /// the controller has it on disk; of too many the oldest are only counted.
    pub fn report(&mut self, event: SecurityEvent, now: Instant) {
        self.last_now = now;
        self.reports.push(event);
        self.send_reports(now);
    }

    /// Leaves the network for good; done when [`ClientEvent::Removed`] comes.
    pub fn leave(&mut self, now: Instant) {
        self.latest.wants_to_leave = true;
        self.send_if_ready(&NodeMessage::Leave, now);
    }

    /// Dials anew at once: the network underneath or the clock has changed. A connection that is
    /// open may lead nowhere any more, which would show only once it has been silent for long; and
    /// it has been told a time that does not hold.
    pub fn reconnect(&mut self, now: Instant) {
        self.last_now = now;
        self.backoff.reset();
        self.forget_lifetime();
        match &mut self.link {
            Link::Waiting { until, .. } => *until = now,
            Link::Dialling { .. } | Link::Open { .. } => {
                if matches!(self.link, Link::Open { phase: Phase::Ready { .. }, .. }) {
                    self.events.push_back(ClientEvent::Disconnected);
                }
                self.close(now, None);
            }
            Link::Stopped => {}
        }
    }

    /// The next thing to do with connections.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<StreamAction> {
        self.actions.pop_front()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called next, and for what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if !self.actions.is_empty() || !self.events.is_empty() {
            return Some((self.last_now, "output is queued"));
        }
        let link = match &self.link {
            Link::Waiting { until, .. } => Some((*until, "reconnect")),
            Link::Dialling { since, .. } => Some((*since + DIAL_DEADLINE, "dial deadline")),
            Link::Open { channel, phase, .. } => {
                let welcome = match phase {
                    Phase::Hello { since } => Some((*since + WELCOME_DEADLINE, "welcome deadline")),
                    Phase::Handshake | Phase::Ready { .. } => None,
                };
                channel.poll_timeout().into_iter().chain(welcome).min()
            }
            Link::Stopped => None,
        };
        let own = self.timers.poll_timeout(self.is_ready());
        let report = self.reports.poll_timeout().filter(|_| self.is_ready());
        let succession = self.succession.poll_timeout();
        link.into_iter().chain(succession).chain(own).chain(report).min()
    }

    /// The map.
    #[must_use]
    pub const fn map(&self) -> &NetworkMap {
        &self.map
    }

    /// The map, to take over what peers introduce themselves with.
    pub const fn map_mut(&mut self) -> &mut NetworkMap {
        &mut self.map
    }

    /// The device's membership, once it has one.
    #[must_use]
    pub fn chain(&self) -> Option<&CertificateChain> {
        match &self.config.admission {
            Admission::Chain(chain) => Some(chain),
            Admission::Invite { .. } => None,
        }
    }

    /// The same as a member, while it counts by the network's time and by what is known of revocations.
    #[must_use]
    pub fn member(&self, now: Now) -> Option<Member> {
        self.proof.as_ref()?.check(self.wall(now), self.map.revocations()).ok()
    }

    /// How it stands with the controller.
    #[must_use]
    pub fn status(&self) -> ClientStatus {
        if let Some(pending) = self.succession.before_is_pending() {
            return if pending { ClientStatus::Pending } else { ClientStatus::Online };
        }
        match &self.link {
            Link::Waiting { refusal: Some(refusal), .. } => ClientStatus::Refused(refusal.clone()),
            Link::Waiting { refusal: None, .. } => ClientStatus::Offline,
            Link::Open { phase: Phase::Ready { pending: true }, .. } => ClientStatus::Pending,
            Link::Open { phase: Phase::Ready { pending: false }, .. } => ClientStatus::Online,
            Link::Dialling { .. } | Link::Open { .. } => ClientStatus::Connecting,
            Link::Stopped => ClientStatus::Stopped,
        }
    }

    /// The network's time: the local clock with the offset that the controller taught, and never before what the controller
    /// once agreed to.
    #[must_use]
    pub fn wall(&self, now: Now) -> UnixTime {
        self.clock.wall(now)
    }

    /// The least that the network's time can be, to be remembered for [`Self::handle_least_time`]; nothing before a controller
    /// has agreed to any.
    #[must_use]
    pub fn least_time(&self, now: Instant) -> Option<UnixMillis> {
        self.clock.least(now)
    }

    /// What an earlier run of this device knew of the network's time.
    pub fn handle_least_time(&mut self, least: UnixMillis, now: Instant) {
        self.clock.handle_memory(least, now);
    }

    pub(super) fn dial(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        let Some(server) = self.places.next(&self.config.controller, &self.map) else {
            self.link = Link::Waiting { until: now.instant + REFUSED_RETRY, refusal: None };
            return;
        };
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let secret = &self.config.controller.path_secret;
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let path = secret.path(Service::Control, nonce);
        let mask = secret.mask(Service::Control, nonce);
        self.link = Link::Dialling { connection, mask, since: now.instant };
        self.actions.push_back(StreamAction::Dial { connection, server, path });
    }

    /// Moves what the channel has to say outwards, until it is silent.
    fn drain_channel(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        loop {
            let Link::Open { connection, channel, .. } = &mut self.link else { return };
            while let Some(message) = channel.poll_message() {
                self.actions.push_back(StreamAction::Send { connection: *connection, message });
            }
            let Some(event) = channel.poll_event() else { return };
            self.handle_channel_event(event, rng, now);
        }
    }

    fn handle_channel_event(&mut self, event: ChannelEvent, rng: &mut dyn CryptoRng, now: Now) {
        match event {
            ChannelEvent::Established { handshake_hash, .. } => {
                self.say_hello(handshake_hash, rng, now);
            }
            ChannelEvent::Received(message) => {
                // What is not understood is of a later version and passed over.
                if let Ok(message) = ControllerMessage::from_bytes(&message) {
                    self.handle_control(message, rng, now);
                }
            }
            ChannelEvent::ClockSkew { theirs, .. } => {
                self.clock.handle_skew(theirs, now);
                self.events.push_back(ClientEvent::ClockWrong { offset: self.clock.offset() });
                self.plan_renewal(now);
                self.plan_expiry(now);
                self.close(now.instant, None);
            }
            ChannelEvent::Rotated => {}
            ChannelEvent::RotationAbandoned => {
                self.security(SecurityEvent::RotationFailed { device: None });
            }
            ChannelEvent::Failed(error) => {
                if let Some(event) = SecurityEvent::of_channel(error, None) {
                    self.security(event);
                }
                self.lose(rng, now);
            }
        }
    }

    fn say_hello(&mut self, handshake_hash: [u8; 32], rng: &mut dyn CryptoRng, now: Now) {
        let chain = match self.current_chain(now) {
            Ok(chain) => chain,
            Err(reason) => {
                self.refused(Refusal::Chain { reason }, rng, now);
                return;
            }
        };
        self.latest.hello = Some(chain.clone());
        self.latest.are_endpoints_late = false;
        let network = self.config.controller.network;
        let proof = ChannelProof { handshake_hash };
        let hello = Hello {
            chain,
            binding: self.config.binding.clone(),
            presence: Signed::sign(network, &self.config.device_key, &proof),
            have: self.map.version().filter(|_| !self.latest.wants_whole_map),
            endpoints: self.latest.endpoints.clone(),
        };
        // What an older connection still brings of the map is brought again.
        self.map.abandon();
        if let Link::Open { phase, .. } = &mut self.link {
            *phase = Phase::Hello { since: now.instant };
        }
        self.send(&NodeMessage::Hello(Box::new(hello)), now.instant);
    }

    fn current_chain(&self, now: Now) -> Result<CertificateChain, String> {
        match &self.config.admission {
            Admission::Chain(chain) => Ok(chain.as_ref().clone()),
            Admission::Invite { invite, name } => {
                let device = self.config.device_key.id();
                self.join.certify(invite, name, device, self.wall(now))
            }
        }
    }

    pub(super) fn handle_control(
        &mut self,
        message: ControllerMessage,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        match message {
            ControllerMessage::Welcome(welcome) => self.welcomed(&welcome, rng, now),
            ControllerMessage::Refused(refusal) => {
                if self.is_ready() {
                    self.events.push_back(ClientEvent::Refused(refusal));
                } else {
                    self.refused(refusal, rng, now);
                }
            }
            ControllerMessage::Map(chunk) => self.apply(&chunk, now),
            ControllerMessage::Membership(chain) => self.adopt(*chain, now),
            ControllerMessage::Removed => self.stop(),
            ControllerMessage::Noted(number) => self.reports.confirm(number),
        }
    }

    fn welcomed(&mut self, welcome: &Welcome, rng: &mut dyn CryptoRng, now: Now) {
        let Link::Open { phase, .. } = &mut self.link else { return };
        *phase = Phase::Ready { pending: welcome.pending };
        let is_renewal = self.end_before(now.instant);
        self.clock.handle_agreement(now);
        self.backoff.reset();
        self.places.note_answer();
        self.join = Join::default();
        self.latest.wants_whole_map = false;
        if let Some(chain) = self.latest.hello.take()
            && matches!(self.config.admission, Admission::Invite { .. })
        {
            self.adopt(chain, now);
        }
        let pending = welcome.pending;
        let event =
            if is_renewal { ClientEvent::Renewed } else { ClientEvent::Connected { pending } };
        self.events.push_back(event);
        if self.latest.wants_to_leave {
            self.send(&NodeMessage::Leave, now.instant);
        }
        let is_late = std::mem::take(&mut self.latest.are_endpoints_late);
        self.timers.handle_welcome(is_late, rng, now.instant);
        if let Some(entry) = self.latest.relay.clone() {
            self.send(&NodeMessage::Relay(entry), now.instant);
        }
        self.reports.repeat();
        self.send_reports(now.instant);
    }

    /// Takes over a membership of this device.
    fn adopt(&mut self, chain: CertificateChain, now: Now) {
        let own = self.config.device_key.id();
        let proof = chain.prove(self.map.authorities()).ok();
        let Some(proof) = proof.filter(|proof| proof.certificate().device == own) else {
            self.security(SecurityEvent::ForgedCertificate {
                reason: "the controller sent a membership that is not ours".into(),
            });
            return;
        };
        self.proof = Some(proof);
        let approved = self.member(now).is_some();
        self.config.admission = Admission::Chain(Box::new(chain.clone()));
        self.events.push_back(ClientEvent::Membership(Box::new(chain)));
        self.plan_renewal(now);
        if approved {
            self.approve_before();
        }
        if let Link::Open { phase: phase @ Phase::Ready { pending: true }, .. } = &mut self.link
            && approved
        {
            *phase = Phase::Ready { pending: false };
            self.events.push_back(ClientEvent::Connected { pending: false });
        }
    }

    fn apply(&mut self, chunk: &MapChunk, now: Now) {
        let applied = self.map.apply(chunk, self.wall(now));
        applied.events.into_iter().for_each(|event| self.security(event));
        self.plan_expiry(now);
        let is_new = !applied.needs_resync && chunk.base.is_none_or(|base| base != chunk.version);
        if !applied.changes.is_empty() || is_new {
            self.events.push_back(ClientEvent::MapChanged(applied.changes));
        }
        if applied.needs_resync {
            self.latest.wants_whole_map = true;
            self.close(now.instant, None);
        }
    }

    fn refused(&mut self, refusal: Refusal, rng: &mut dyn CryptoRng, now: Now) {
        if self.join.adapt(&refusal, &mut self.config.admission) {
            if let Refusal::Outdated { number } = refusal {
                self.events.push_back(ClientEvent::Outdated { number });
            }
            self.close(now.instant, None);
        } else if refusal == Refusal::Revoked {
            self.stop();
        } else {
            self.events.push_back(ClientEvent::Refused(refusal.clone()));
            let until = now.instant + jittered(REFUSED_RETRY, rng);
            self.close(until, Some(refusal));
        }
    }

    fn stop(&mut self) {
        self.close(self.last_now, None);
        self.link = Link::Stopped;
        self.events.push_back(ClientEvent::Removed);
    }

    fn send_reports(&mut self, now: Instant) {
        while self.is_ready()
            && let Some((number, event)) = self.reports.take(now)
        {
            self.send(&NodeMessage::Security(event, number), now);
        }
    }

    pub(super) fn security(&mut self, event: SecurityEvent) {
        self.events.push_back(ClientEvent::Security(event));
    }

    fn plan_renewal(&mut self, now: Now) {
        let validity = self.proof.as_ref().map(Proof::validity);
        self.timers.plan_renewal(validity, self.clock.wall(now), now.instant);
    }

    fn plan_expiry(&mut self, now: Now) {
        self.timers.plan_expiry(self.map.next_expiry(), self.clock.wall(now), now.instant);
    }
}

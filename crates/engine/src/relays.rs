//! Links to relays: two where this device is at home, others where peers are, and such as lead straight to peers.

mod choice;
mod homes;
mod lacks;
mod policy;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use control_proto::{RelayHealth, SecurityEvent};
use identity::{
    Attachment, Binding, CertificateChain, ChannelPublicKey, DeviceId, GroupName, NetworkId,
    RelayEntry, ServerAddress, Signed,
};
use noise_channel::{ClockOffset, PathSecret, Service, StaticSecret};
use relay_proto::{ClientConfig, ClientEvent, FlowId, RelayClient};

use self::homes::Homes;
pub(crate) use self::lacks::FramesLack;
use self::policy::Policy;
use crate::classes::Classifier;
use crate::context::Context;
use crate::guests::Guests;
use crate::hosts::Host;
use crate::io::{DialTarget, Purpose, StreamId};
use crate::ladder::{Ladder, Rung};
use crate::links::{Line, Link};
use crate::relay_event::RelayEvent;
use crate::streams::{Owner, Streams};

/// Frames kept while a link is being made: the handshakes of a few peers.
const MAX_WAITING: usize = 32;
/// A link to somebody else's relay is closed after this long without a frame.
const VISIT: Duration = Duration::from_secs(300);
/// What is still on its way to a relay that is a home no more, or what shows how far it is.
const LEAVE: Duration = Duration::from_secs(10);
/// Wait before the first further attempt; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// A link that leads straight to a peer has worked, and not only opened, if it stood for so long.
const STEADY: Duration = Duration::from_secs(60);

/// What proves this device to relays.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) chain: CertificateChain,
    pub(crate) binding: Signed<Binding>,
    pub(crate) clock_offset: ClockOffset,
}

/// What never changes about this device.
#[derive(Debug)]
pub(crate) struct RelaySettings {
    pub(crate) network: NetworkId,
    pub(crate) device: DeviceId,
    pub(crate) static_key: StaticSecret,
    pub(crate) path_secret: PathSecret,
}

/// All links to relays.
#[derive(Debug)]
pub(crate) struct Relays {
    settings: RelaySettings,
    entries: BTreeMap<DeviceId, RelayEntry>,
    health: BTreeMap<DeviceId, RelayHealth>,
    homes: Homes,
    /// The groups of this device: some relays serve some groups only.
    groups: Vec<GroupName>,
    /// The peers that listen themselves.
    hosts: BTreeMap<DeviceId, Host>,
    links: BTreeMap<DeviceId, Link>,
    /// The peers that have come here.
    pub(crate) guests: Guests,
    pub(crate) classifier: Classifier,
    policy: Policy,
    /// What a relay last asked to add to the local clock: many relays, and each after every change of the network
    /// underneath, ask for the same.
    asked: Option<ClockOffset>,
    events: VecDeque<RelayEvent>,
}

impl Relays {
    pub(crate) fn new(settings: RelaySettings, clock_offset: ClockOffset) -> Self {
        Self {
            guests: Guests::new(&settings, clock_offset),
            settings,
            entries: BTreeMap::new(),
            health: BTreeMap::new(),
            homes: Homes::default(),
            groups: Vec::new(),
            hosts: BTreeMap::new(),
            links: BTreeMap::new(),
            classifier: Classifier::default(),
            policy: Policy::default(),
            asked: None,
            events: VecDeque::new(),
        }
    }

    /// Takes the relays of the network; [`Self::choose_homes`] has to follow.
    pub(crate) fn handle_entries(
        &mut self,
        entries: impl IntoIterator<Item = (RelayEntry, RelayHealth)>,
        streams: &mut Streams,
    ) {
        let own = self.settings.device;
        let others = entries.into_iter().filter(|(entry, _)| entry.device != own);
        let (entries, health): (BTreeMap<_, _>, BTreeMap<_, _>) = others
            .map(|(entry, health)| ((entry.device, entry.clone()), (entry.device, health)))
            .unzip();
        let is_other = |device: &&DeviceId| entries.get(device) != self.entries.get(device);
        let moved: Vec<_> = self.links.keys().filter(is_other).copied().collect();
        for device in moved {
            self.close(device, streams);
        }
        (self.entries, self.health) = (entries, health);
        self.events.push_back(RelayEvent::Changed);
    }

    /// Whether frames go through this relay, or straight to this peer.
    pub(crate) fn is_attached(&self, relay: DeviceId) -> bool {
        self.links.get(&relay).is_some_and(Link::is_attached)
            || (!self.entries.contains_key(&relay) && self.guests.is_attached(relay))
    }

    /// Whether a stream leads straight to this peer.
    pub(crate) fn is_straight(&self, peer: DeviceId) -> bool {
        !self.entries.contains_key(&peer) && self.is_attached(peer)
    }

    /// Takes over where a peer listens, if it does.
    pub(crate) fn handle_host(
        &mut self,
        peer: DeviceId,
        host: Option<Host>,
        streams: &mut Streams,
    ) {
        let key = |host: &Host| host.channel_key;
        let before = match &host {
            Some(host) => self.hosts.insert(peer, host.clone()),
            None => self.hosts.remove(&peer),
        };
        let is_same = before == host;
        let is_its_key = before.as_ref().map(key) == host.as_ref().map(key);
        // A stream that stands outlives other addresses, but no other key.
        let stands = is_its_key && self.is_attached(peer);
        let leads_there = before.is_some() && !self.entries.contains_key(&peer);
        if leads_there && !is_same && !stands && self.links.contains_key(&peer) {
            self.close(peer, streams);
        }
    }

    /// There is traffic for a peer to which no datagrams get: if it listens, it is dialled, unless a better way is found in time.
    pub(crate) fn want(&mut self, peer: DeviceId, ladder: &Ladder, now: Instant) {
        let listens = self.hosts.contains_key(&peer) && !self.entries.contains_key(&peer);
        if listens && !self.guests.is_attached(peer) {
            let at = now + ladder.stagger(peer, Rung::Stream);
            let link = self.links.entry(peer).or_insert_with(|| Link::dialled_at(at));
            link.keep_until(now + VISIT);
        }
    }

    /// Datagrams get to a peer: what is being dialled is not needed.
    pub(crate) fn spare(&mut self, peer: DeviceId, streams: &mut Streams) {
        if self.hosts.contains_key(&peer)
            && self.links.contains_key(&peer)
            && !self.entries.contains_key(&peer)
            && !self.is_attached(peer)
        {
            self.close(peer, streams);
        }
    }

    /// Nothing comes back over the stream straight to a peer: it ends, and is perhaps tried again.
    pub(crate) fn give_up(&mut self, peer: DeviceId, streams: &mut Streams, cx: &mut Context<'_>) {
        self.guests.give_up(peer, cx.instant());
        if self.links.contains_key(&peer) && !self.entries.contains_key(&peer) {
            self.fail(peer, streams, cx);
        }
        self.drain_guests(streams, cx.instant());
    }

    /// Moves what the guests' machine has to say.
    pub(crate) fn drain_guests(&mut self, streams: &mut Streams, now: Instant) {
        self.guests.drain(streams, &mut self.events, now);
    }

    /// Where a relay, or a peer that listens, is reached.
    fn place(&self, relay: DeviceId) -> Option<(ChannelPublicKey, &[ServerAddress])> {
        let entry = self.entries.get(&relay).map(|entry| (entry.channel_key, &*entry.servers));
        entry.or_else(|| self.hosts.get(&relay).map(|host| (host.channel_key, &*host.servers)))
    }

    /// Tells that a link has opened or ended.
    fn note(&mut self, relay: DeviceId) {
        self.events.push_back(RelayEvent::change(self.entries.contains_key(&relay), relay));
    }

    /// Shows all relays a renewed membership.
    pub(crate) fn renew(&mut self, chain: &CertificateChain, streams: &mut Streams, now: Instant) {
        for line in self.links.values_mut().flat_map(Link::lines_mut) {
            if let Some(client) = &mut line.client {
                client.renew(chain.clone(), now);
                streams.wake(line.stream);
            }
        }
    }

    /// Sends a frame through a relay; dials there if need be.
    pub(crate) fn send(
        &mut self,
        relay: DeviceId,
        (flow, frame): (FlowId, BytesMut),
        streams: &mut Streams,
        now: Instant,
    ) {
        let is_linked = self.links.get(&relay).is_some_and(Link::has_client);
        if !is_linked && self.is_straight(relay) {
            self.guests.send(relay, (flow, frame), now);
            return self.drain_guests(streams, now);
        }
        let link = self.links.entry(relay).or_insert_with(|| Link::dialled_at(now));
        link.keep_until(now + VISIT);
        match &mut link.line {
            Some(Line { client: Some(client), stream, .. }) if client.is_attached() => {
                if client.send(flow, frame, now).is_ok() && client.has_message() {
                    streams.wake(*stream);
                }
            }
            Some(_) | None => {
                if link.waiting.len() == MAX_WAITING {
                    link.waiting.pop_front();
                }
                link.waiting.push_back((flow, frame));
            }
        }
    }

    /// Asks a relay to pass datagrams on between this device and a peer, if it is attached there.
    pub(crate) fn request_circuit(
        &mut self,
        relay: DeviceId,
        peer: DeviceId,
        streams: &mut Streams,
        now: Instant,
    ) {
        let Some(link) = self.links.get_mut(&relay) else { return };
        if let Some(Line { client: Some(client), stream, .. }) = &mut link.line {
            client.request_circuit(peer, now);
            if client.has_message() {
                streams.wake(*stream);
            }
        }
        link.keep_until(now + VISIT);
    }

    pub(crate) fn handle_opened(
        &mut self,
        (relay, stream): (DeviceId, StreamId),
        credentials: Option<(Credentials, Signed<Attachment>)>,
        streams: &mut Streams,
        cx: &mut Context<'_>,
    ) {
        let Some((relay_key, _)) = self.place(relay) else { return };
        let Some(link) = self.links.get_mut(&relay) else { return };
        let clock_offset = link.clock_offset;
        let Some(line) = link.line_mut(stream) else { return };
        let Some((credentials, attachment)) = credentials else {
            return self.end((relay, stream), streams, cx);
        };
        let config = ClientConfig {
            network: self.settings.network,
            relay,
            static_key: self.settings.static_key.clone(),
            relay_key: *relay_key.as_bytes(),
            mask: self.settings.path_secret.mask(Service::Relay, line.nonce),
            capability: control_proto::limits::CAPABILITY,
            clock_offset: clock_offset.unwrap_or(credentials.clock_offset),
            chain: credentials.chain,
            binding: credentials.binding,
            attachment,
            is_relay: false,
        };
        match RelayClient::new(config, cx.rng, cx.now) {
            Ok(mut client) => {
                self.policy.apply(&mut client, cx);
                line.opened_at = Some(cx.instant());
                line.client = Some(client);
                self.drain((relay, stream), streams, cx);
            }
            Err(_) => self.end((relay, stream), streams, cx),
        }
    }

    pub(crate) fn handle_message(
        &mut self,
        (relay, stream): (DeviceId, StreamId),
        message: Bytes,
        streams: &mut Streams,
        cx: &mut Context<'_>,
    ) {
        if let Some(client) = self.client_mut((relay, stream)) {
            client.handle_message(message, cx.rng, cx.now);
            self.drain((relay, stream), streams, cx);
        }
    }

    /// The connection is gone, or never came about.
    pub(crate) fn handle_closed(
        &mut self,
        (relay, stream): (DeviceId, StreamId),
        streams: &mut Streams,
        cx: &mut Context<'_>,
    ) {
        if self.client_mut((relay, stream)).is_some_and(|client| client.is_rotating()) {
            let lost = SecurityEvent::RotationFailed { device: Some(relay) };
            self.events.push_back(RelayEvent::Alarm(lost));
        }
        if let Some(link) = self.links.get_mut(&relay) {
            link.handle_cut(stream, cx.instant());
        }
        self.end((relay, stream), streams, cx);
    }

    fn client_mut(&mut self, (relay, stream): (DeviceId, StreamId)) -> Option<&mut RelayClient> {
        self.links.get_mut(&relay)?.line_mut(stream)?.client.as_mut()
    }

    /// Everything underneath changed: dial anew, at once.
    pub(crate) fn handle_network_change(&mut self, streams: &mut Streams, now: Instant) {
        for (relay, link) in &mut self.links {
            link.take_streams().for_each(|stream| streams.close(stream));
            *link = Link::dialled_at(now);
            self.events.push_back(RelayEvent::Stream(*relay));
        }
        self.homes.handle_network_change(now);
        self.events.push_back(RelayEvent::Changed);
    }

    /// The device can prove more than before, or more is reached: relays that refused it, that it
    /// could prove nothing to, or that did not answer are dialled at once.
    pub(crate) fn retry_now(&mut self, now: Instant) {
        self.homes.pardon(now);
        for link in self.links.values_mut().filter(|link| link.retry_at.is_some()) {
            (link.failures, link.retry_at) = (0, Some(now));
        }
    }

    pub(crate) fn handle_timeout(&mut self, streams: &mut Streams, cx: &mut Context<'_>) {
        self.guests.handle_timeout(streams, cx);
        for relay in self.links.keys().copied().collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(&relay) else { continue };
            let lines = [&link.line, &link.next].map(|line| line.as_ref().map(|line| line.stream));
            for stream in lines.into_iter().flatten() {
                if let Some(client) = self.client_mut((relay, stream)) {
                    client.handle_timeout(cx.rng, cx.now);
                    self.drain((relay, stream), streams, cx);
                }
            }
            let link = self.links.get_mut(&relay);
            if let Some(overdue) = link.and_then(|link| link.take_overdue(cx.instant())) {
                streams.close(overdue);
            }
            self.end_visit(relay, streams, cx.instant());
            self.dial_if_due(relay, streams, cx);
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<RelayEvent> {
        self.events.pop_front()
    }

    /// The next message for a connection that takes one.
    pub(crate) fn poll_message(
        &mut self,
        (relay, stream): (DeviceId, StreamId),
        now: Instant,
    ) -> Option<BytesMut> {
        self.client_mut((relay, stream))?.poll_message(now)
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.links
            .iter()
            .flat_map(|(relay, link)| {
                let client = |line: &Option<Line>| line.as_ref()?.client.as_ref()?.poll_timeout();
                let retry = link.retry_at.map(|at| (at, "dial a relay"));
                let renewal = link.poll_renewal().map(|at| (at, "renew a connection to a relay"));
                let visit = link
                    .kept_until
                    .filter(|_| !self.homes.contains(*relay))
                    .map(|until| (until, "a relay is not used any more"));
                [client(&link.line), client(&link.next), retry, renewal, visit]
            })
            .flatten()
            .chain(self.guests.poll_timeout())
            .chain(self.homes.poll_timeout())
            .min()
    }

    /// Each relay with whether its link works, and whether it is a home.
    pub(crate) fn status(&self) -> impl Iterator<Item = (&RelayEntry, bool, bool)> {
        self.entries
            .values()
            .map(|entry| (entry, self.is_attached(entry.device), self.homes.contains(entry.device)))
    }

    /// Who tells by datagrams how far a relay is, and how far it is as far as streams tell.
    pub(crate) fn distance(&self, relay: DeviceId) -> Option<(&[SocketAddr], Option<Duration>)> {
        Some((&self.entries.get(&relay)?.stun, self.homes.measured(relay)))
    }

    fn dial_if_due(&mut self, relay: DeviceId, streams: &mut Streams, cx: &mut Context<'_>) {
        let Some(link) = self.links.get_mut(&relay) else { return };
        let is_renewal = link.next.is_none() && link.lifetime.take_replacement(cx.instant());
        let is_due = is_renewal || link.retry_at.is_some_and(|at| at <= cx.instant());
        let failures = link.failures + if is_renewal { link.lifetime.failures() } else { 0 };
        let has_client = link.has_client();
        let servers = self.place(relay).map(|(_, servers)| servers).unwrap_or_default();
        let came_itself = !has_client && self.is_straight(relay);
        if servers.is_empty() || came_itself {
            return self.forget(relay, streams);
        }
        if !is_due {
            return;
        }
        let server = servers[failures as usize % servers.len()].clone();
        let is_relay = self.entries.contains_key(&relay);
        let mut nonce = [0; 16];
        cx.rng.fill_bytes(&mut nonce);
        let target = DialTarget {
            server,
            path: self.settings.path_secret.path(Service::Relay, nonce),
            purpose: if is_relay { Purpose::Relay(relay) } else { Purpose::Peer(relay) },
        };
        let Some(link) = self.links.get_mut(&relay) else { return };
        let line = Some(Line::new(streams.dial(Owner::Relay(relay), target), nonce));
        if is_renewal {
            link.next = line;
        } else {
            (link.line, link.retry_at) = (line, None);
        }
    }

    fn end_visit(&mut self, relay: DeviceId, streams: &mut Streams, now: Instant) {
        let over = self.links.get(&relay).is_some_and(|link| {
            !self.homes.contains(relay) && link.kept_until.is_none_or(|until| now >= until)
        });
        if over {
            self.close(relay, streams);
        }
    }

    fn close(&mut self, relay: DeviceId, streams: &mut Streams) {
        self.forget(relay, streams);
        self.note(relay);
    }

    fn forget(&mut self, relay: DeviceId, streams: &mut Streams) {
        let mut link = self.links.remove(&relay).unwrap_or_default();
        link.take_streams().for_each(|stream| streams.close(stream));
    }

    /// Ends one connection of a link, and the link with the last one that frames may go over.
    fn end(
        &mut self,
        (relay, stream): (DeviceId, StreamId),
        streams: &mut Streams,
        cx: &mut Context<'_>,
    ) {
        streams.close(stream);
        let link = self.links.get_mut(&relay);
        if link.is_some_and(|link| link.handle_closed(stream, cx.instant())) {
            self.fail(relay, streams, cx);
        }
    }

    /// Ends the link and plans the next attempt, a little at random so that a relay that comes
    /// back is not met by everybody at once.
    fn fail(&mut self, relay: DeviceId, streams: &mut Streams, cx: &mut Context<'_>) {
        let Some(link) = self.links.get_mut(&relay) else { return };
        let since = link.line.as_ref().and_then(|line| line.since);
        // A link straight to a peer may open and carry nothing.
        if since.is_some_and(|since| cx.instant() >= since + STEADY) {
            link.failures = 0;
        }
        link.take_streams().for_each(|stream| streams.close(stream));
        link.lifetime.handle_ended();
        let wait = RETRY_FIRST.saturating_mul(1 << link.failures.min(7)).min(RETRY_LONGEST);
        let jitter = wait.mul_f64(f64::from(cx.rng.next_u32()) / f64::from(u32::MAX) / 2.0);
        link.failures += 1;
        link.retry_at = Some(cx.instant() + wait + jitter);
        self.homes.handle_failures(relay, link.failures, cx.instant());
        self.note(relay);
    }

    fn drain(
        &mut self,
        (relay, stream): (DeviceId, StreamId),
        streams: &mut Streams,
        cx: &mut Context<'_>,
    ) {
        let mut failed = false;
        while let Some(event) = self.client_mut((relay, stream)).and_then(RelayClient::poll_event) {
            match event {
                ClientEvent::Attached { .. } => {
                    self.handle_attached((relay, stream), streams, cx.instant());
                }
                ClientEvent::Frame(frame) => {
                    self.events.push_back(RelayEvent::Frame(relay, frame));
                }
                ClientEvent::Unreachable(peer) => {
                    self.events.push_back(RelayEvent::Unreachable { relay, peer });
                }
                ClientEvent::Circuit(peer, offer) => {
                    self.events.push_back(RelayEvent::Circuit { relay, peer, offer });
                }
                ClientEvent::ClockSkew { offset, .. } => {
                    self.handle_clock_skew(relay, offset);
                    failed = true;
                }
                ClientEvent::Failed(error) => {
                    self.events.extend(RelayEvent::alarm(relay, error));
                    failed = true;
                }
                ClientEvent::Refused(_) => failed = true,
                ClientEvent::RotationAbandoned => {
                    let failed = SecurityEvent::RotationFailed { device: Some(relay) };
                    self.events.push_back(RelayEvent::Alarm(failed));
                }
                // The last two are for relays.
                ClientEvent::Rotated | ClientEvent::Carried(_) | ClientEvent::Mesh(_) => {}
            }
        }
        if self.client_mut((relay, stream)).is_some_and(|client| client.has_message()) {
            streams.wake(stream);
        }
        if failed {
            self.end((relay, stream), streams, cx);
        }
    }

    fn handle_attached(
        &mut self,
        (relay, stream): (DeviceId, StreamId),
        streams: &mut Streams,
        now: Instant,
    ) {
        let is_relay = self.entries.contains_key(&relay);
        let Some(link) = self.links.get_mut(&relay) else { return };
        if is_relay {
            link.failures = 0;
            self.homes.handle_attached(relay, link.round_trip(stream, now));
        }
        link.handle_attached(stream, now).into_iter().for_each(|stream| streams.close(stream));
        if let Some(Line { client: Some(client), .. }) = &mut link.line {
            for (flow, frame) in link.waiting.drain(..) {
                if client.send(flow, frame, now).is_err() {
                    break;
                }
            }
        }
        self.note(relay);
    }

    fn handle_clock_skew(&mut self, relay: DeviceId, offset: ClockOffset) {
        if let Some(link) = self.links.get_mut(&relay) {
            link.clock_offset = Some(offset);
        }
        let is_known = self.asked.is_some_and(|asked| asked.agrees_with(offset));
        if !is_known {
            self.asked = Some(offset);
            self.events.push_back(RelayEvent::TimeRefused(offset));
        }
    }
}

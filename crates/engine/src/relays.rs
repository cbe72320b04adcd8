//! Links to relays: two where this device is at home, and others where peers are.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use blake2::digest::{FixedOutput, Update};
use blake2::{Blake2s256, Digest};
use bytes::{Bytes, BytesMut};
use control_proto::SecurityEvent;
use frame_proto::FLAG_INTERACTIVE;
use identity::{Attachment, Binding, CertificateChain, DeviceId, NetworkId, RelayEntry, Signed};
use noise_channel::{ClockOffset, PathSecret, Service, StaticSecret};
use relay_proto::{ClientConfig, ClientEvent, FlowId, LinkError, RelayClient};

use crate::context::Context;
use crate::io::{DialTarget, Purpose, StreamId};
use crate::meter::FlowMeter;
use crate::routes::{flow_of, is_expedited};
use crate::streams::{Owner, Streams};

/// Relays at which a device can be reached: one more than is needed, for the day when one dies.
const HOMES: usize = 2;
/// Frames kept while a link is being made: the handshakes of a few peers.
const MAX_WAITING: usize = 32;
/// A link to somebody else's relay is closed after this long without a frame.
const VISIT: Duration = Duration::from_secs(300);
/// Wait before the first further attempt; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const RETRY_LONGEST: Duration = Duration::from_secs(60);

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

/// What the links report to the engine.
#[derive(Debug)]
pub(crate) enum RelayEvent {
    /// The set of links that work has changed.
    Changed,
    /// A frame arrived through this relay.
    Frame(DeviceId, BytesMut),
    /// A link did what somebody who watches over the network should know of.
    Alarm(SecurityEvent),
    /// A relay refused this device's time, and would have had this added to the local clock.
    TimeRefused(ClockOffset),
    /// A peer is not attached to this relay.
    Unreachable { relay: DeviceId, peer: DeviceId },
}

/// All links to relays.
#[derive(Debug)]
pub(crate) struct Relays {
    settings: RelaySettings,
    entries: BTreeMap<DeviceId, RelayEntry>,
    homes: Vec<DeviceId>,
    links: BTreeMap<DeviceId, Link>,
    meter: FlowMeter,
    /// What a relay last asked to add to the local clock: many relays, and each after every change of the network
    /// underneath, ask for the same.
    asked: Option<ClockOffset>,
    events: VecDeque<RelayEvent>,
}

#[derive(Debug, Default)]
struct Link {
    /// What the relay's clock asks for. It stays here: a relay is trusted with no time but its own.
    clock_offset: Option<ClockOffset>,
    stream: Option<StreamId>,
    nonce: [u8; 16],
    client: Option<RelayClient>,
    failures: u32,
    retry_at: Option<Instant>,
    waiting: VecDeque<(FlowId, BytesMut)>,
    used: Option<Instant>,
}

impl Relays {
    pub(crate) fn new(settings: RelaySettings) -> Self {
        Self {
            settings,
            entries: BTreeMap::new(),
            homes: Vec::new(),
            links: BTreeMap::new(),
            meter: FlowMeter::default(),
            asked: None,
            events: VecDeque::new(),
        }
    }

    /// Takes the relays of the network, healthy or not, and chooses homes among them.
    pub(crate) fn handle_entries(
        &mut self,
        entries: impl IntoIterator<Item = (RelayEntry, bool)>,
        streams: &mut Streams,
        now: Instant,
    ) {
        let entries: BTreeMap<_, _> = entries
            .into_iter()
            .filter(|(entry, _)| entry.device != self.settings.device)
            .map(|(entry, healthy)| (entry.device, (entry, healthy)))
            .collect();
        let mut ranked: Vec<_> = entries
            .iter()
            .map(|(device, (_, healthy))| (!healthy, self.affinity(*device), *device))
            .collect();
        ranked.sort_unstable();
        self.homes = ranked.into_iter().map(|(_, _, device)| device).take(HOMES).collect();
        let moved: Vec<_> = self
            .links
            .keys()
            .filter(|device| {
                entries.get(device).map(|(entry, _)| entry) != self.entries.get(device)
            })
            .copied()
            .collect();
        for device in moved {
            self.close(device, streams);
        }
        self.entries = entries.into_iter().map(|(device, (entry, _))| (device, entry)).collect();
        for home in self.homes.clone() {
            self.links
                .entry(home)
                .or_insert_with(|| Link { retry_at: Some(now), ..Link::default() });
        }
        self.events.push_back(RelayEvent::Changed);
    }

    /// Spreads devices over relays without anybody deciding it.
    fn affinity(&self, relay: DeviceId) -> [u8; 32] {
        let hash = Blake2s256::new().chain(self.settings.device.as_bytes());
        hash.chain(relay.as_bytes()).finalize_fixed().into()
    }

    /// The relays at which this device is attached now, the preferred first.
    pub(crate) fn attached_homes(&self) -> Vec<DeviceId> {
        self.homes.iter().filter(|home| self.is_attached(**home)).copied().collect()
    }

    pub(crate) fn is_attached(&self, relay: DeviceId) -> bool {
        self.links
            .get(&relay)
            .and_then(|link| link.client.as_ref())
            .is_some_and(RelayClient::is_attached)
    }

    /// Whether frames for somebody who said to be at these relays have a chance.
    pub(crate) fn reaches(&self, relays: &[DeviceId]) -> bool {
        relays.iter().chain(&self.homes).any(|relay| self.is_promising(relay))
    }

    /// The relay to use for somebody who said to be at `relays`. If none of them can be reached, the
    /// peer will have moved, perhaps without a controller to say so to: the best guess is a relay
    /// where this device is at home, since there are few of them.
    pub(crate) fn route(&self, relays: &[DeviceId]) -> Option<DeviceId> {
        let attached =
            |among: &[DeviceId]| among.iter().find(|relay| self.is_attached(**relay)).copied();
        attached(relays)
            .or_else(|| relays.iter().find(|relay| self.is_promising(relay)).copied())
            .or_else(|| attached(&self.homes))
            .or_else(|| relays.iter().find(|relay| self.entries.contains_key(relay)).copied())
    }

    fn is_promising(&self, relay: &DeviceId) -> bool {
        self.entries.contains_key(relay)
            && self.links.get(relay).is_none_or(|link| link.failures == 0)
    }

    /// Shows all relays a renewed membership.
    pub(crate) fn renew(&mut self, chain: &CertificateChain, streams: &mut Streams, now: Instant) {
        for link in self.links.values_mut() {
            if let (Some(client), Some(stream)) = (&mut link.client, link.stream) {
                client.renew(chain.clone(), now);
                streams.wake(stream);
            }
        }
    }

    /// The flow of a packet, and the flags that its frame gets.
    pub(crate) fn classify(&mut self, packet: &[u8], now: Instant) -> (FlowId, u8) {
        let flow = flow_of(packet);
        let is_little = self.meter.is_little(flow, packet.len(), now);
        let is_interactive = is_little || is_expedited(packet);
        (flow, if is_interactive { FLAG_INTERACTIVE } else { 0 })
    }

    /// Sends a frame through a relay; dials there if need be.
    pub(crate) fn send(
        &mut self,
        relay: DeviceId,
        (flow, frame): (FlowId, BytesMut),
        streams: &mut Streams,
        now: Instant,
    ) {
        let link = self
            .links
            .entry(relay)
            .or_insert_with(|| Link { retry_at: Some(now), ..Link::default() });
        link.used = Some(now);
        match (&mut link.client, link.stream) {
            (Some(client), Some(stream)) if client.is_attached() => {
                if client.send(flow, frame, now).is_ok() {
                    streams.wake(stream);
                }
            }
            (Some(_) | None, _) => {
                if link.waiting.len() == MAX_WAITING {
                    link.waiting.pop_front();
                }
                link.waiting.push_back((flow, frame));
            }
        }
    }

    pub(crate) fn handle_opened(
        &mut self,
        relay: DeviceId,
        credentials: Option<(Credentials, Signed<Attachment>)>,
        streams: &mut Streams,
        cx: &mut Context<'_>,
    ) {
        let (Some(link), Some(entry)) = (self.links.get_mut(&relay), self.entries.get(&relay))
        else {
            return;
        };
        let Some((credentials, attachment)) = credentials else {
            return self.fail(relay, streams, cx);
        };
        let config = ClientConfig {
            network: self.settings.network,
            relay,
            static_key: self.settings.static_key.clone(),
            relay_key: *entry.channel_key.as_bytes(),
            mask: self.settings.path_secret.mask(Service::Relay, link.nonce),
            capability: control_proto::limits::CAPABILITY,
            clock_offset: link.clock_offset.unwrap_or(credentials.clock_offset),
            chain: credentials.chain,
            binding: credentials.binding,
            attachment,
        };
        match RelayClient::new(config, cx.rng, cx.now) {
            Ok(client) => {
                link.client = Some(client);
                self.drain(relay, streams, cx);
            }
            Err(_) => self.fail(relay, streams, cx),
        }
    }

    pub(crate) fn handle_message(
        &mut self,
        relay: DeviceId,
        message: Bytes,
        streams: &mut Streams,
        cx: &mut Context<'_>,
    ) {
        let client = self.links.get_mut(&relay).and_then(|link| link.client.as_mut());
        if let Some(client) = client {
            client.handle_message(message, cx.rng, cx.now);
            self.drain(relay, streams, cx);
        }
    }

    /// The connection is gone, or never came about.
    pub(crate) fn handle_closed(
        &mut self,
        relay: DeviceId,
        streams: &mut Streams,
        cx: &mut Context<'_>,
    ) {
        let client = self.links.get(&relay).and_then(|link| link.client.as_ref());
        if client.is_some_and(RelayClient::is_rotating) {
            let lost = SecurityEvent::RotationFailed { device: Some(relay) };
            self.events.push_back(RelayEvent::Alarm(lost));
        }
        self.fail(relay, streams, cx);
    }

    /// Everything underneath changed: dial anew, at once.
    pub(crate) fn handle_network_change(&mut self, streams: &mut Streams, now: Instant) {
        for link in self.links.values_mut() {
            if let Some(stream) = link.stream.take() {
                streams.close(stream);
            }
            *link = Link { retry_at: Some(now), ..Link::default() };
        }
        self.events.push_back(RelayEvent::Changed);
    }

    /// The device can prove more than before, or more is reached: relays that refused it, that it
    /// could prove nothing to, or that did not answer are dialled at once.
    pub(crate) fn retry_now(&mut self, now: Instant) {
        for link in self.links.values_mut().filter(|link| link.retry_at.is_some()) {
            (link.failures, link.retry_at) = (0, Some(now));
        }
    }

    pub(crate) fn handle_timeout(&mut self, streams: &mut Streams, cx: &mut Context<'_>) {
        for relay in self.links.keys().copied().collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(&relay) else { continue };
            if let Some(client) = &mut link.client {
                client.handle_timeout(cx.rng, cx.now);
                self.drain(relay, streams, cx);
            }
            self.end_visit(relay, streams, cx.instant());
            self.dial_if_due(relay, streams, cx);
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<RelayEvent> {
        self.events.pop_front()
    }

    /// The next message for a connection that takes one.
    pub(crate) fn poll_message(&mut self, relay: DeviceId, now: Instant) -> Option<BytesMut> {
        self.links.get_mut(&relay)?.client.as_mut()?.poll_message(now)
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.links
            .iter()
            .flat_map(|(relay, link)| {
                let client = link.client.as_ref().and_then(RelayClient::poll_timeout);
                let retry = link.retry_at.map(|at| (at, "dial a relay"));
                let visit = link
                    .used
                    .filter(|_| !self.homes.contains(relay))
                    .map(|used| (used + VISIT, "a relay is not used any more"));
                [client, retry, visit]
            })
            .flatten()
            .min()
    }

    /// Each relay with whether its link works and whether it is a home.
    pub(crate) fn status(&self) -> impl Iterator<Item = (&RelayEntry, bool, bool)> {
        self.entries.values().map(|entry| {
            let home = self.homes.contains(&entry.device);
            (entry, self.is_attached(entry.device), home)
        })
    }

    /// The STUN servers beside the relays, homes first.
    pub(crate) fn stun_servers(&self) -> Vec<std::net::SocketAddr> {
        let homes = self.homes.iter().filter_map(|home| self.entries.get(home));
        homes.flat_map(|entry| entry.stun.iter().copied()).collect()
    }

    fn dial_if_due(&mut self, relay: DeviceId, streams: &mut Streams, cx: &mut Context<'_>) {
        let Some(link) = self.links.get_mut(&relay) else { return };
        let Some(entry) = self.entries.get(&relay).filter(|entry| !entry.servers.is_empty()) else {
            self.links.remove(&relay);
            return;
        };
        if link.retry_at.is_none_or(|at| at > cx.instant()) {
            return;
        }
        link.retry_at = None;
        cx.rng.fill_bytes(&mut link.nonce);
        let server = &entry.servers[link.failures as usize % entry.servers.len()];
        let target = DialTarget {
            server: server.clone(),
            path: self.settings.path_secret.path(Service::Relay, link.nonce),
            purpose: Purpose::Relay(relay),
        };
        link.stream = Some(streams.dial(Owner::Relay(relay), target));
    }

    fn end_visit(&mut self, relay: DeviceId, streams: &mut Streams, now: Instant) {
        let over = self.links.get(&relay).is_some_and(|link| {
            !self.homes.contains(&relay) && link.used.is_none_or(|used| now >= used + VISIT)
        });
        if over {
            self.close(relay, streams);
        }
    }

    fn close(&mut self, relay: DeviceId, streams: &mut Streams) {
        if let Some(stream) = self.links.remove(&relay).and_then(|link| link.stream) {
            streams.close(stream);
        }
        self.events.push_back(RelayEvent::Changed);
    }

    /// Ends the link and plans the next attempt, a little at random so that a relay that comes
    /// back is not met by everybody at once.
    fn fail(&mut self, relay: DeviceId, streams: &mut Streams, cx: &mut Context<'_>) {
        let Some(link) = self.links.get_mut(&relay) else { return };
        if let Some(stream) = link.stream.take() {
            streams.close(stream);
        }
        link.client = None;
        let wait = RETRY_FIRST.saturating_mul(1 << link.failures.min(7)).min(RETRY_LONGEST);
        let jitter = wait.mul_f64(f64::from(cx.rng.next_u32()) / f64::from(u32::MAX) / 2.0);
        link.failures += 1;
        link.retry_at = Some(cx.instant() + wait + jitter);
        self.events.push_back(RelayEvent::Changed);
    }

    fn drain(&mut self, relay: DeviceId, streams: &mut Streams, cx: &mut Context<'_>) {
        let mut failed = false;
        let Some(link) = self.links.get_mut(&relay) else { return };
        let (Some(client), Some(stream)) = (&mut link.client, link.stream) else { return };
        while let Some(event) = client.poll_event() {
            match event {
                ClientEvent::Attached { .. } => {
                    link.failures = 0;
                    for (flow, frame) in link.waiting.drain(..) {
                        if client.send(flow, frame, cx.now.instant).is_err() {
                            break;
                        }
                    }
                    self.events.push_back(RelayEvent::Changed);
                }
                ClientEvent::Frame(frame) => {
                    self.events.push_back(RelayEvent::Frame(relay, frame));
                }
                ClientEvent::Unreachable(peer) => {
                    self.events.push_back(RelayEvent::Unreachable { relay, peer });
                }
                ClientEvent::ClockSkew { offset, .. } => {
                    link.clock_offset = Some(offset);
                    let is_known = self.asked.is_some_and(|asked| asked.agrees_with(offset));
                    if !is_known {
                        self.asked = Some(offset);
                        self.events.push_back(RelayEvent::TimeRefused(offset));
                    }
                    failed = true;
                }
                ClientEvent::Failed(error) => {
                    self.events.extend(alarm(relay, error).map(RelayEvent::Alarm));
                    failed = true;
                }
                ClientEvent::Refused(_) => failed = true,
                ClientEvent::RotationAbandoned => {
                    let failed = SecurityEvent::RotationFailed { device: Some(relay) };
                    self.events.push_back(RelayEvent::Alarm(failed));
                }
                ClientEvent::Rotated => {}
            }
        }
        if client.has_message() {
            streams.wake(stream);
        }
        if failed {
            self.fail(relay, streams, cx);
        }
    }
}

/// The security event that the end of a link is, if it is one.
fn alarm(relay: DeviceId, error: LinkError) -> Option<SecurityEvent> {
    let device = Some(relay);
    match error {
        LinkError::Channel(error) => SecurityEvent::of_channel(error, device),
        LinkError::Hop(_) | LinkError::Protocol(_) => {
            Some(SecurityEvent::ProtocolViolation { device, reason: error.to_string() })
        }
    }
}

//! Peers that have come to this device over streams of their own.
//!
//! What serves them is the relay's machine, with the device as its only receiver: whoever comes has to attach as at any
//! relay, and takes as little memory. Frames for a guest wait in its queue there, as those for a relay do at a client.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use control_proto::{NetworkMap, SecurityEvent, limits::CAPABILITY};
use identity::{DeviceId, Padding};
use noise_channel::ClockOffset;
use relay_proto::{ConnectionId, FlowId, RelayNetwork, RelayServer, ServerEvent};
use shaping::Plan;

use crate::context::Context;
use crate::io::StreamId;
use crate::relay_event::RelayEvent;
use crate::relays::RelaySettings;
use crate::streams::{Owner, Streams};

/// A connection that is to be closed may take this long for its last messages.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// The server, and the connections that the shell knows.
#[derive(Debug)]
pub(crate) struct Guests {
    network: identity::NetworkId,
    server: RelayServer,
    streams: BTreeMap<ConnectionId, StreamId>,
    /// Connections that are to be closed, and when at the latest.
    closing: BTreeMap<ConnectionId, Instant>,
}

impl Guests {
    pub(crate) fn new(settings: &RelaySettings, clock_offset: ClockOffset) -> Self {
        let mut server = RelayServer::of_host(CAPABILITY);
        server.add_network(RelayNetwork {
            network: settings.network,
            relay: settings.device,
            static_key: settings.static_key.clone(),
            path_secret: settings.path_secret.clone(),
            revocations: identity::Revocations::new(settings.network),
            clock_offset,
            padding: Padding::Off,
            groups: Vec::new(),
        });
        let (streams, closing) = (BTreeMap::new(), BTreeMap::new());
        Self { network: settings.network, server, streams, closing }
    }

    pub(crate) fn set_clock_offset(&mut self, offset: ClockOffset) {
        self.server.set_clock_offset(self.network, offset);
    }

    pub(crate) fn set_padding(&mut self, padding: Padding) {
        self.server.set_padding(self.network, padding);
    }

    /// Takes over when the network wants messages to leave.
    pub(crate) fn set_plan(&mut self, plan: Option<Plan>, cx: &mut Context<'_>) {
        self.server.set_plan(self.network, plan, cx.rng, cx.now.instant);
    }

    /// Takes note of who is no member any more, and of the bindings of those who are.
    pub(crate) fn handle_map<'a>(
        &mut self,
        map: &NetworkMap,
        changed: impl IntoIterator<Item = &'a DeviceId>,
        now: noise_channel::Now,
    ) {
        self.server.set_revocations(self.network, map.revocations(), now);
        let peers = changed.into_iter().filter_map(|device| map.peer(*device));
        let numbers = peers.map(|peer| (peer.member.device, peer.binding.number));
        self.server.set_bindings(self.network, numbers);
    }

    /// Nobody is served any more.
    pub(crate) fn retire(&mut self, now: noise_channel::Now) {
        self.server.remove_network(self.network, now);
    }

    /// A connection that was asked for by this path, if the path and the limits permit it.
    pub(crate) fn accept(
        &mut self,
        path: &str,
        source: IpAddr,
        streams: &mut Streams,
        now: noise_channel::Now,
    ) -> Option<StreamId> {
        let recognised = self.server.recognise(path)?;
        let connection = self.server.handle_open(recognised, source, now).ok()?;
        let stream = streams.accept(Owner::Guest(connection));
        self.streams.insert(connection, stream);
        Some(stream)
    }

    pub(crate) fn handle_message(
        &mut self,
        connection: ConnectionId,
        message: Bytes,
        cx: &mut Context<'_>,
    ) {
        self.server.handle_message(connection, message, cx.rng, cx.now);
    }

    pub(crate) fn handle_closed(&mut self, connection: ConnectionId, now: Instant) {
        self.streams.remove(&connection);
        self.closing.remove(&connection);
        self.server.handle_closed(connection, now);
    }

    pub(crate) fn handle_timeout(&mut self, streams: &mut Streams, cx: &mut Context<'_>) {
        self.server.handle_timeout(cx.rng, cx.now);
        let is_over = |_: &ConnectionId, at: &mut Instant| *at <= cx.now.instant;
        for (connection, _) in self.closing.extract_if(.., is_over).collect::<Vec<_>>() {
            self.close(connection, streams, cx.now.instant);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let closing = self.closing.values().min().map(|at| (*at, "close a guest's connection"));
        [self.server.poll_timeout(), closing].into_iter().flatten().min()
    }

    /// The next message for a guest; a connection that is to be closed ends after the last one.
    pub(crate) fn poll_message(
        &mut self,
        connection: ConnectionId,
        streams: &mut Streams,
        now: Instant,
    ) -> Option<BytesMut> {
        let message = self.server.poll_message(connection, now);
        if message.is_none() && self.closing.remove(&connection).is_some() {
            self.close(connection, streams, now);
        }
        message
    }

    /// Queues a frame for a device; false if it is no guest.
    pub(crate) fn send(
        &mut self,
        device: DeviceId,
        (flow, frame): (FlowId, BytesMut),
        now: Instant,
    ) -> bool {
        self.server.send((self.network, device), flow, frame, now)
    }

    pub(crate) fn is_attached(&self, device: DeviceId) -> bool {
        self.server.is_attached(self.network, device)
    }

    /// Closes the connection of a guest that does not answer over it.
    pub(crate) fn give_up(&mut self, device: DeviceId, now: Instant) {
        self.server.give_up(self.network, device, now);
    }

    /// Moves what the server has to say.
    pub(crate) fn drain(
        &mut self,
        streams: &mut Streams,
        events: &mut VecDeque<RelayEvent>,
        now: Instant,
    ) {
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Attached { device, .. } | ServerEvent::Detached { device, .. } => {
                    events.push_back(RelayEvent::Stream(device));
                }
                ServerEvent::Misdirected { device, .. } => {
                    events.push_back(RelayEvent::Alarm(SecurityEvent::ProtocolViolation {
                        device: Some(device),
                        reason: "frames for others over a stream to this device".to_owned(),
                    }));
                }
                // Only relays dial others, or pass datagrams on.
                ServerEvent::Dial { .. }
                | ServerEvent::Expelled { .. }
                | ServerEvent::CircuitWanted { .. } => {}
                ServerEvent::Close { connection, .. } => {
                    self.closing.insert(connection, now + CLOSE_DEADLINE);
                }
            }
        }
        while let Some((device, frame)) = self.server.poll_frame() {
            events.push_back(RelayEvent::Frame(device, frame));
        }
        while let Some(connection) = self.server.poll_ready() {
            if let Some(stream) = self.streams.get(&connection) {
                streams.wake(*stream);
            }
        }
    }

    fn close(&mut self, connection: ConnectionId, streams: &mut Streams, now: Instant) {
        if let Some(stream) = self.streams.remove(&connection) {
            streams.close(stream);
        }
        self.server.handle_closed(connection, now);
    }
}

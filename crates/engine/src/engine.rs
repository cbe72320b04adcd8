//! The coordinator: takes input, lets the children work, hands out output.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use control_proto::{Admission, ClientConfig, ControlClient, NetworkMap, limits::CAPABILITY};
use identity::{
    Binding, DeviceId, Endpoints, NetworkId, RelayEntry, ServerAddress, Signed, UnixTime,
};
use noise_channel::{ClockOffset, Now, PathSecret, StaticSecret};
use packet::{Offload, Segments};
use path::{Alias, BASE_MTU, ProbeBudget, StunClient, stun};
use rand_core::CryptoRng;
use wireguard_proto::{Interface, InterfaceConfig, LoadLimits, PrivateKey, Tai64N};

use crate::alarms::Alarms;
use crate::circuits::Circuits;
use crate::config::{DeviceSecrets, EngineConfig};
use crate::context::Context;
use crate::control::Control;
use crate::dataplane::{DataPlaneHandle, Inbound, Notice, Outbound, Way};
use crate::host_packet::HostPacket;
use crate::io::{EngineEvent, InterfaceSettings, StreamCommand, StreamId, Transmit};
use crate::ladder::Ladder;
use crate::peers::{PeerSettings, Peers, overlay};
use crate::psk::End;
use crate::relays::{RelaySettings, Relays};
use crate::saved::Saved;
use crate::scatter::Scatter;
use crate::sockets::Sockets;
use crate::statements::current_binding;
use crate::streams::{Owner, Streams};
use crate::surveys::Surveys;
use crate::timers::{REKEY_AFTER_BYTES, SAVE_DELAY, Schedule};
use crate::turns::Turns;
use crate::via::Via;

/// One network on one device.
///
/// Driving order: after every `handle_*` drain [`Self::poll_transmit`], [`Self::poll_fresh_socket`],
/// [`Self::poll_stream`], [`Self::poll_packet`] and [`Self::poll_event`], then sleep until [`Self::poll_timeout`] and
/// call [`Self::handle_timeout`]. An engine starts by itself: drive it from the first timeout.
#[derive(Debug)]
pub struct Engine {
    pub(crate) own: Own,
    pub(crate) saved: Saved,
    pub(crate) control: Control,
    pub(crate) relays: Relays,
    pub(crate) streams: Streams,
    pub(crate) wireguard: Interface<Via>,
    pub(crate) peers: Peers,
    pub(crate) alarms: Alarms,
    pub(crate) settings: PeerSettings,
    pub(crate) stun: StunClient,
    pub(crate) turns: Turns,
    pub(crate) circuits: Circuits,
    pub(crate) ladder: Ladder,
    pub(crate) sockets: Sockets,
    pub(crate) scatter: Scatter,
    pub(crate) budget: ProbeBudget,
    pub(crate) plane: DataPlaneHandle,
    pub(crate) underlay: Underlay,
    pub(crate) schedule: Schedule,
    pub(crate) output: Output,
}

/// What this device is.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) network: NetworkId,
    pub(crate) network_name: identity::NetworkName,
    pub(crate) secrets: DeviceSecrets,
    pub(crate) end: End,
    pub(crate) bootstrap: Vec<RelayEntry>,
    pub(crate) mtu: usize,
    /// Whether there is a UDP socket.
    pub(crate) has_udp: bool,
    pub(crate) has_aes: bool,
    pub(crate) removed: bool,
    /// What the shell was told of the interface last.
    pub(crate) interface: Option<InterfaceSettings>,
    /// When the binding in use ends.
    pub(crate) binding_ends: UnixTime,
    /// What was announced last.
    pub(crate) endpoints: Option<Signed<Endpoints>>,
}

/// This device's place in the network underneath.
#[derive(Debug, Default)]
pub(crate) struct Underlay {
    pub(crate) interfaces: Vec<SocketAddr>,
    /// Where the NAT in front leads to this device.
    pub(crate) mapped: Option<SocketAddr>,
    /// The relays that were announced last; the candidates are in the peers' settings.
    pub(crate) homes: Vec<DeviceId>,
    /// Where this device listens for its peers, as the shell knows it, and as it was announced last.
    pub(crate) listening: Vec<ServerAddress>,
    pub(crate) servers: Vec<ServerAddress>,
    pub(crate) announced: bool,
    pub(crate) surveys: Surveys,
}

/// What waits to be polled.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) transmits: VecDeque<Transmit>,
    /// What goes by ways that no address says.
    pub(crate) aliased: VecDeque<(Alias, Transmit)>,
    pub(crate) fresh_sockets: VecDeque<Vec<Transmit>>,
    pub(crate) packets: VecDeque<HostPacket>,
    pub(crate) events: VecDeque<EngineEvent>,
}

impl Output {
    /// Queues a datagram for whatever carries what goes there.
    pub(crate) fn send(&mut self, transmit: Transmit) {
        match Alias::of(transmit.to) {
            Some(alias) => self.aliased.push_back((alias, transmit)),
            None => self.transmits.push_back(transmit),
        }
    }

    fn is_queued(&self) -> bool {
        !self.transmits.is_empty()
            || !self.aliased.is_empty()
            || !self.fresh_sockets.is_empty()
            || !self.packets.is_empty()
            || !self.events.is_empty()
    }
}

impl Engine {
    /// An engine that joins, or comes back to, the network of the invite.
    pub fn new(config: EngineConfig, rng: &mut dyn CryptoRng, now: Now) -> Self {
        let network = config.invite.network;
        let own = config.saved.own.as_deref();
        let mut saved = own.and_then(Saved::from_bytes).unwrap_or_default();
        let wall = saved.wall(now);
        let last_timestamp = saved.timestamp();
        let since_epoch = Duration::from_millis(wall.0);
        saved.reserve_timestamps(last_timestamp.max(Tai64N::from_unix(since_epoch)));
        let device = config.secrets.device.id();
        let end = End {
            device,
            tunnel_key: config.secrets.tunnel.public(),
            capability: CAPABILITY.into(),
        };
        let (binding, binding_ends) = current_binding(&mut saved, &config.secrets, network, now);
        let map = (config.saved.map.as_deref())
            .and_then(|bytes| NetworkMap::from_bytes(network, bytes, UnixTime(wall.as_secs())).ok())
            .map_or_else(|| NetworkMap::new(network), |(map, _)| map);
        let client = client_config(&config, &saved, binding);
        let settings =
            PeerSettings::new(overlay(network, &map), (config.udp, config.mtu), config.loopback);
        let relays = RelaySettings {
            network,
            device,
            static_key: StaticSecret::from_bytes(*config.secrets.channel.to_bytes()),
            path_secret: PathSecret::from_bytes(*config.invite.path_secret.0),
        };
        let mut client = ControlClient::new(client, map, now);
        if let Some(least) = saved.least_time() {
            client.handle_least_time(least, now.instant);
        }
        let mut engine = Self {
            control: Control::new(client),
            relays: Relays::new(relays, ClockOffset::between(now.wall, wall)),
            streams: Streams::default(),
            wireguard: Interface::new(
                InterfaceConfig {
                    private_key: PrivateKey::from_bytes(*config.secrets.tunnel.to_bytes()),
                    rekey_after_bytes: Some(REKEY_AFTER_BYTES),
                    limits: LoadLimits::default(),
                    last_timestamp,
                    wall: since_epoch,
                },
                now.instant,
            ),
            peers: Peers::default(),
            alarms: Alarms::default(),
            settings,
            stun: StunClient::new(),
            turns: Turns::new(config.turn, device),
            circuits: Circuits::default(),
            ladder: Ladder::default(),
            sockets: Sockets::default(),
            scatter: Scatter::default(),
            budget: ProbeBudget::new(),
            plane: DataPlaneHandle::default(),
            underlay: Underlay::default(),
            schedule: Schedule::new(now.instant, UnixTime(wall.as_secs())),
            output: Output::default(),
            own: Own {
                network,
                network_name: config.invite.network_name,
                secrets: config.secrets,
                end,
                bootstrap: config.invite.relays,
                mtu: config.mtu.max(BASE_MTU),
                has_udp: config.udp,
                has_aes: config.has_aes,
                removed: false,
                interface: None,
                binding_ends,
                endpoints: None,
            },
            saved,
        };
        let mut cx = Context { rng, now };
        engine.adopt_map(&mut cx);
        // What was read is on the disk, and what could not be read is not to be replaced by nothing.
        engine.schedule.take_save_map(now.instant + SAVE_DELAY);
        engine.schedule.save_now(now.instant);
        engine.drain(&mut cx);
        engine
    }

    /// A datagram came in at the UDP socket.
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        let mut cx = Context { rng, now };
        if stun::is_stun(datagram) {
            if self.stun.handle_response(from, datagram, now.instant) {
                self.schedule.announce_soon(now.instant);
            }
            return self.drain(&mut cx);
        }
        // What comes through an allocation does not come here: nobody else is that address.
        if Alias::of(from).is_none() {
            self.take_datagram(from, datagram, &mut cx);
        }
        self.drain(&mut cx);
    }

    pub(crate) fn take_datagram(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        cx: &mut Context<'_>,
    ) {
        let plane = self.plane.load();
        plane.open(from, [datagram], cx.now.instant, |inbound| match inbound {
            Inbound::Packet(packet) => self.output.packets.push_back(HostPacket::single(packet)),
            Inbound::ToEngine(datagram) => {
                let (from, datagram) = plane.arrival(from, datagram);
                self.receive_datagram(from, datagram, cx);
            }
            Inbound::Passed(to, datagram) => {
                self.output.transmits.push_back(Transmit::new(to, datagram.to_vec()));
            }
            Inbound::Notice(notice) => self.take_notice(notice, cx),
            Inbound::Dropped(_) => {}
        });
    }

    /// A packet or super-packet of this device, from the TUN or what stands in its place.
    pub fn handle_packet(&mut self, packet: HostPacket, rng: &mut dyn CryptoRng, now: Now) {
        let mut cx = Context { rng, now };
        let way = self.plane.load().way(packet.bytes(), packet.longest());
        match way {
            Way::Direct => packet.split(|part| self.send_directly(part, &mut cx)),
            Way::Engine => self.send_packet(packet, &mut cx),
            Way::None => {}
        }
        self.drain(&mut cx);
    }

    fn send_directly(&mut self, packet: &[u8], cx: &mut Context<'_>) {
        let mut payload = Vec::new();
        let Ok(single) = Segments::plan(&Offload::default(), packet) else { return };
        let outbound = self.plane.load().outbound((&single, 0..1), &mut payload, cx.instant());
        match outbound {
            Outbound::Datagrams { to, notice, .. } => {
                self.output.transmits.push_back(Transmit::new(to, payload));
                self.schedule.traffic(cx.instant());
                notice.into_iter().for_each(|notice| self.take_notice(notice, cx));
            }
            Outbound::ToEngine => self.send_packet(HostPacket::single(packet), cx),
            Outbound::NoRoute => {}
        }
    }

    /// A data thread has something to tell.
    pub fn handle_notice(&mut self, notice: Notice, rng: &mut dyn CryptoRng, now: Now) {
        let mut cx = Context { rng, now };
        self.take_notice(notice, &mut cx);
        self.drain(&mut cx);
    }

    /// A connection that was asked for is open.
    pub fn handle_stream_opened(&mut self, stream: StreamId, rng: &mut dyn CryptoRng, now: Now) {
        let mut cx = Context { rng, now };
        match self.streams.owner(stream) {
            Some(Owner::Control) => self.control.handle_opened(stream, &mut cx),
            Some(Owner::Relay(relay)) => {
                let credentials = self.credentials(relay, now);
                let connection = (relay, stream);
                self.relays.handle_opened(connection, credentials, &mut self.streams, &mut cx);
            }
            // A guest's connection is open from the beginning.
            Some(Owner::Guest(_)) | None => {}
        }
        self.drain(&mut cx);
    }

    /// Somebody opened a connection to this device, asking for `path`. Without an answer there is nothing
    /// at this path, or no room. Otherwise the connection is the engine's under this name, and open.
    pub fn handle_stream_accepted(
        &mut self,
        path: &str,
        source: IpAddr,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) -> Option<StreamId> {
        let stream = self.relays.guests.accept(path, source, &mut self.streams, now);
        self.drain(&mut Context { rng, now });
        stream
    }

    /// A binary message came in over a connection; it is not copied if nobody else holds it.
    pub fn handle_stream_message(
        &mut self,
        stream: StreamId,
        message: impl Into<Bytes>,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        let message = message.into();
        let mut cx = Context { rng, now };
        match self.streams.owner(stream) {
            Some(Owner::Control) => self.control.handle_message(stream, &message, &mut cx),
            Some(Owner::Relay(relay)) => {
                let connection = (relay, stream);
                self.relays.handle_message(connection, message, &mut self.streams, &mut cx);
            }
            Some(Owner::Guest(guest)) => self.relays.guests.handle_message(guest, message, &mut cx),
            None => {}
        }
        self.drain(&mut cx);
    }

    /// A connection was closed by the other end, broke, or could not be opened.
    pub fn handle_stream_closed(&mut self, stream: StreamId, rng: &mut dyn CryptoRng, now: Now) {
        let mut cx = Context { rng, now };
        match self.streams.forget(stream) {
            Some(Owner::Control) => self.control.handle_closed(stream, &mut cx),
            Some(Owner::Relay(relay)) => {
                self.relays.handle_closed((relay, stream), &mut self.streams, &mut cx);
            }
            Some(Owner::Guest(guest)) => self.relays.guests.handle_closed(guest, now.instant),
            None => {}
        }
        self.drain(&mut cx);
    }

    /// The addresses of this device's interfaces with the port of the UDP socket. If they differ
    /// from the last ones, the network underneath has changed.
    pub fn handle_local_addresses(
        &mut self,
        addresses: &[SocketAddr],
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        if self.underlay.interfaces == addresses {
            return;
        }
        let first = self.underlay.interfaces.is_empty();
        self.underlay.interfaces = addresses.to_vec();
        self.schedule.announce_soon(now.instant);
        if first {
            self.drain(&mut Context { rng, now });
        } else {
            self.handle_network_change(rng, now);
        }
    }

    /// The NAT in front of this device forwards a port to its UDP socket, or none any more.
    pub fn handle_mapped_address(
        &mut self,
        mapped: Option<SocketAddr>,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        self.underlay.mapped = mapped;
        self.schedule.announce_soon(now.instant);
        self.drain(&mut Context { rng, now });
    }

    /// The network underneath has changed: everything is dialled and probed anew. That the device has woken up shows
    /// in its wall clock.
    pub fn handle_network_change(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        let mut cx = Context { rng, now };
        self.begin_anew(&mut cx);
        self.drain(&mut cx);
    }

    pub(crate) fn begin_anew(&mut self, cx: &mut Context<'_>) {
        let now = cx.instant();
        self.turns.handle_network_change(&mut self.sockets, cx);
        self.close_sockets(now);
        self.circuits.handle_network_change(now);
        self.control.client_mut().reconnect(now);
        self.relays.handle_network_change(&mut self.streams, now);
        self.stun.handle_network_change(now);
        self.for_each_peer(|peer| peer.agent.handle_network_change(now));
    }

    /// Pings a peer over all its paths; each answer is an [`EngineEvent::Pong`].
    pub fn handle_ping_request(&mut self, peer: DeviceId, rng: &mut dyn CryptoRng, now: Now) {
        if let Some(found) = self.peers.touch(peer) {
            found.agent.handle_ping_request(now.instant);
            if !matches!(found.agent.chosen(), path::Path::Direct(_)) {
                self.relays.want(peer, &self.ladder, now.instant);
            }
        }
        self.drain(&mut Context { rng, now });
    }

    /// Leaves the network for good; [`EngineEvent::Removed`] follows when the controller knows.
    pub fn leave(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        self.control.client_mut().leave(now.instant);
        self.drain(&mut Context { rng, now });
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        let mut cx = Context { rng, now };
        self.control.client_mut().handle_timeout(cx.rng, now);
        self.relays.handle_timeout(&mut self.streams, &mut cx);
        if self.relays.take_review(now.instant) {
            self.choose_homes(now);
        }
        self.wireguard.handle_timeout(cx.rng, now.instant);
        if self.stun.handle_timeout(cx.rng, now.instant) {
            self.schedule.announce_soon(now.instant);
        }
        self.peers.touch_due(now.instant);
        if self.schedule.take_tick(now.instant) {
            self.tick(&mut cx);
        }
        self.drain(&mut cx);
    }

    /// The next datagram to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.output.transmits.pop_front()
    }

    /// The next datagrams to send from a socket that was not used before, in this order. What comes back to
    /// it within a second is for [`Self::handle_datagram`].
    #[must_use]
    pub fn poll_fresh_socket(&mut self) -> Option<Vec<Transmit>> {
        self.output.fresh_sockets.pop_front()
    }

    /// The next thing to do with connections.
    #[must_use]
    pub fn poll_stream(&mut self) -> Option<StreamCommand> {
        self.streams.poll()
    }

    /// The next message for a connection that can take one. After nothing, a further
    /// [`StreamCommand::Wake`] says when to ask again.
    #[must_use]
    pub fn poll_message(&mut self, stream: StreamId, now: Instant) -> Option<BytesMut> {
        let message = match self.streams.owner(stream)? {
            Owner::Control => {
                self.control.poll_message(stream).map(|message| message.as_slice().into())
            }
            Owner::Relay(relay) => self.relays.poll_message((relay, stream), now),
            Owner::Guest(guest) => self.relays.guests.poll_message(guest, &mut self.streams, now),
        };
        if message.is_none() {
            self.streams.sleep(stream);
        }
        message
    }

    /// The next packet or super-packet for this device.
    #[must_use]
    pub fn poll_packet(&mut self) -> Option<HostPacket> {
        self.output.packets.pop_front()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<EngineEvent> {
        self.output.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next, and for what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.streams.has_commands() || self.sockets.has_commands() || self.output.is_queued() {
            return Some((self.schedule.last_now(), "output is queued"));
        }
        if self.own.removed {
            return None;
        }
        [
            self.control.poll_timeout(),
            self.relays.poll_timeout(),
            self.wireguard.poll_timeout(),
            self.stun.poll_timeout(),
            self.turns.poll_timeout(),
            self.peers.poll_timeout(),
            Some(self.schedule.poll_timeout()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What data threads need; the handle stays valid for as long as the engine lives.
    #[must_use]
    pub fn data_plane(&self) -> DataPlaneHandle {
        self.plane.clone()
    }

    /// The network's time.
    pub(crate) fn wall(&self, now: Now) -> UnixTime {
        self.control.client().wall(now)
    }

    /// Lets the children work until nothing moves between them any more.
    pub(crate) fn drain(&mut self, cx: &mut Context<'_>) {
        self.schedule.note(cx.instant());
        self.drain_control(cx);
        self.drain_relays(cx);
        self.drain_wireguard(cx);
        self.drain_surveys(cx);
        self.drain_turns(cx);
        while self.peers.is_touched() {
            self.drain_paths(cx);
            self.drain_relays(cx);
            self.drain_wireguard(cx);
            self.drain_surveys(cx);
            self.drain_turns(cx);
        }
        if self.schedule.take_announce(cx.instant()) {
            self.announce(cx);
        }
        self.drain_alarms(cx.instant());
        self.control.drain_actions(&mut self.streams);
        while let Some((to, payload)) = self.stun.poll_transmit() {
            self.output.transmits.push_back(Transmit::new(to, payload));
        }
        if self.schedule.take_dirty() {
            self.publish(cx.now);
        }
        if self.schedule.take_save(cx.instant()) {
            self.save();
        }
        if self.schedule.take_save_map(cx.instant()) {
            self.save_map();
        }
    }

    /// Tells whoever runs this device, and whoever runs the network, what was noticed.
    fn drain_alarms(&mut self, now: Instant) {
        while let Some(event) = self.alarms.poll() {
            self.control.client_mut().report(event.clone(), now);
            self.output.events.push_back(EngineEvent::Security(event));
        }
    }
}

/// What the device shows to the controller: its membership, or the invite by which it gets one.
fn client_config(config: &EngineConfig, saved: &Saved, binding: Signed<Binding>) -> ClientConfig {
    let admission = match &saved.chain {
        Some(chain) => Admission::Chain(Box::new(chain.clone())),
        None => {
            Admission::Invite { invite: Box::new(config.invite.clone()), name: config.name.clone() }
        }
    };
    ClientConfig {
        controller: (&config.invite).into(),
        device_key: config.secrets.device.clone(),
        channel_key: config.secrets.channel.clone(),
        binding,
        admission,
        clock_offset: saved.clock_offset(),
    }
}

//! Paths: candidates, probes, relays and what is announced of them.

use std::net::SocketAddr;
use std::time::Instant;

use control_proto::SecurityEvent;
use frame_proto::FrameType;
use identity::{DeviceId, Endpoints, ServerAddress, Signed, UnixTime};
use noise_channel::{ClockOffset, Now};
use path::{
    CandidateKind::{Local, Mapped, Reflexive, Relayed},
    Path, PathEvent,
};
use rand_core::CryptoRng;

use crate::context::Context;
use crate::engine::Engine;
use crate::hosts::permitted;
use crate::io::{ConnectionState, EngineEvent, Transmit};
use crate::peer::Peer;
use crate::peers::{announced, own_candidates};
use crate::relay_event::RelayEvent;
use crate::timers::Step;

impl Engine {
    /// Where this device listens for WebSocket connections of its peers, if it does.
    pub fn handle_servers(&mut self, servers: &[ServerAddress], rng: &mut dyn CryptoRng, now: Now) {
        if self.underlay.listening != servers {
            self.underlay.listening = servers.to_vec();
            self.schedule.announce_soon(now.instant);
            self.drain(&mut Context { rng, now });
        }
    }

    pub(crate) fn for_each_peer(&mut self, mut act: impl FnMut(&mut Peer)) {
        for device in self.peers.devices() {
            if let Some(peer) = self.peers.touch(device) {
                act(peer);
            }
        }
    }

    pub(crate) fn drain_relays(&mut self, cx: &mut Context<'_>) {
        self.relays.drain_guests(&mut self.streams, cx.instant());
        while let Some(event) = self.relays.poll_event() {
            match event {
                RelayEvent::Changed => {
                    self.refresh_relay_paths(cx);
                    self.doubt_circuits(cx.instant());
                    if self.relays.attached_homes() != self.underlay.homes {
                        self.schedule.announce_soon(cx.instant());
                    }
                }
                RelayEvent::Stream(peer) => self.refresh_stream(peer, cx.instant()),
                RelayEvent::Frame(relay, frame) => self.receive_frame(relay, frame, cx),
                RelayEvent::Alarm(event) => self.alarms.raise(event, cx.instant()),
                RelayEvent::TimeRefused(offset) => self.doubt_clock(offset, cx.instant()),
                RelayEvent::Unreachable { relay, peer } => {
                    if let Some(peer) = self.peers.get_mut(peer) {
                        peer.relays.handle_absent(relay);
                    }
                }
                RelayEvent::Circuit { relay, peer, offer } => {
                    self.handle_circuit_offer((relay, peer), offer, cx);
                }
            }
        }
    }

    /// Tells a peer's machines whether a stream leads straight to it.
    pub(crate) fn refresh_stream(&mut self, peer: DeviceId, now: Instant) {
        let is_open = self.relays.is_straight(peer);
        if let Some(peer) = self.peers.touch(peer) {
            peer.handle_stream(is_open, now);
        }
    }

    /// Tells of a clock that a relay found wrong, unless a controller has the last word on that: it knows
    /// which of the two is wrong, and tells of it itself.
    fn doubt_clock(&mut self, offset: ClockOffset, now: Instant) {
        let known = self.saved.clock_offset();
        let is_alone =
            matches!(self.connection(), ConnectionState::Offline | ConnectionState::Connecting);
        if is_alone && !known.agrees_with(offset) {
            let seconds = known.0.abs_diff(offset.0) / 1_000;
            self.alarms.raise(SecurityEvent::ClockSkew { seconds }, now);
        }
    }

    fn refresh_relay_paths(&mut self, cx: &mut Context<'_>) {
        for device in self.peers.devices() {
            let Some(peer) = self.peers.get(device) else { continue };
            let available = self.relays.reaches(peer.relays.relays());
            if let Some(peer) = self.peers.touch(device) {
                peer.agent.handle_relay(available, cx.instant());
            }
        }
    }

    /// Lets the agents that were touched act, and carries out what they want.
    pub(crate) fn drain_paths(&mut self, cx: &mut Context<'_>) {
        while let Some(device) = self.peers.take_touched() {
            let Some(peer) = self.peers.get_mut(device) else { continue };
            peer.relays.handle_timeout(cx.rng, cx.now.instant);
            while let Some(change) = peer.relays.poll_change() {
                peer.agent.handle_relay_change(change, cx.now.instant);
            }
            if peer.relays.has_stream() && !peer.relays.is_straight() {
                peer.relays.handle_stream_closed();
                self.relays.give_up(device, &mut self.streams, cx);
            }
            peer.tell_counts(cx.now.instant);
            peer.agent.handle_timeout(&mut self.budget, cx.rng, cx.now.instant);
            let mut relayed = Vec::new();
            while let Some(transmit) = peer.agent.poll_transmit() {
                match transmit.path {
                    Path::Direct(to) => {
                        let kind = FrameType::Disco;
                        let payload =
                            peer.frames.seal_hello_direct(kind, &transmit.payload, cx.rng);
                        if let Some(payload) = payload {
                            let whole = transmit.whole;
                            self.output.send(Transmit { to, payload, whole });
                        }
                    }
                    Path::Relay | Path::Stream => relayed.push(transmit.payload),
                    Path::None => {}
                }
            }
            let mut events = Vec::new();
            while let Some(event) = peer.agent.poll_event() {
                events.push(event);
            }
            let mut through = Vec::new();
            while let Some(transmit) = peer.relays.poll_transmit() {
                through.push(transmit);
            }
            self.peers.reschedule(device);
            for (relay, payload) in through {
                self.send_hello_through(relay, device, (FrameType::Disco, &payload), cx);
            }
            for payload in relayed {
                self.send_hello(device, FrameType::Disco, &payload, cx);
            }
            for event in events {
                self.handle_path_event(device, event, cx);
            }
        }
    }

    fn handle_path_event(&mut self, device: DeviceId, event: PathEvent, cx: &mut Context<'_>) {
        match event {
            PathEvent::Chosen(decision) => {
                self.publish(cx.now);
                if let Path::Direct(_) = decision.path {
                    self.relays.spare(device, &mut self.streams);
                }
                if decision.path != Path::None
                    && let Some(key) = self.peers.get(device).map(Peer::key)
                {
                    self.wireguard.handle_path_change(&key, cx.instant());
                    self.send_waiting(device, cx);
                }
                self.output.events.push_back(EngineEvent::Path { peer: device, decision });
                if let Some(rung) = self.rung(device, decision.path) {
                    self.note_winner(device, rung, cx.instant());
                }
            }
            PathEvent::Mtu => {
                self.schedule.publish();
                let is_open =
                    |peer: &Peer| peer.agent.is_trying_largest() && !peer.agent.has_frames();
                if !self.peers.get(device).is_some_and(is_open) {
                    self.send_waiting(device, cx);
                }
            }
            PathEvent::TunnelProbe { to } => self.probe_tunnel(device, to, cx.instant()),
            PathEvent::SocketsWanted { to } => self.open_sockets(device, to, cx),
            PathEvent::SurveyWanted { first } => self.underlay.surveys.want(device, first),
            PathEvent::Pong { path, latency } => {
                self.output.events.push_back(EngineEvent::Pong { peer: device, path, latency });
            }
        }
    }

    /// Sends packets without content, to find out whether any pass.
    fn probe_tunnel(&mut self, device: DeviceId, to: SocketAddr, now: Instant) {
        /// So that it means something if none comes.
        const PACKETS: usize = 3;
        let Some(peer) = self.peers.get_mut(device) else { return };
        let Some(session) = peer.traffic.usable(now) else { return };
        let packets: Vec<_> =
            (0..PACKETS).filter_map(|_| session.keepalive(now).ok()).map(Vec::from).collect();
        peer.traffic.counters.count_sent_straight(packets.len() as u64);
        packets.into_iter().for_each(|payload| self.output.send(Transmit::new(to, payload)));
    }

    /// Tells the controller, and thereby everybody, where this device is reached.
    pub(crate) fn announce(&mut self, cx: &mut Context<'_>) {
        let now = cx.instant();
        let filter = &self.settings.path.filter;
        let candidates = if self.settings.path.udp {
            let local = self.underlay.interfaces.iter().map(|local| (Local, *local));
            let mapped = self.underlay.mapped.map(|mapped| (Mapped, mapped));
            let reflexive =
                self.stun.reflexive().into_iter().map(|reflexive| (Reflexive, reflexive));
            let relayed = self.turns.allocations().map(|allocation| (Relayed, allocation.relayed));
            own_candidates(local.chain(mapped).chain(reflexive).chain(relayed), filter)
        } else {
            Vec::new()
        };
        let homes = self.relays.attached_homes();
        let servers = permitted(&self.underlay.listening, filter);
        if self.underlay.announced
            && candidates == self.settings.local
            && homes == self.underlay.homes
            && servers == self.underlay.servers
        {
            return;
        }
        let (announced, relayed) = announced(&candidates);
        let endpoints = Endpoints {
            number: self.saved.next_number(cx.now),
            candidates: announced,
            relayed,
            relays: homes.clone(),
            servers: servers.clone(),
        };
        let endpoints = Signed::sign(self.own.network, &self.own.secrets.device, &endpoints);
        self.control.client_mut().set_endpoints(endpoints.clone(), now);
        self.own.endpoints = Some(endpoints);
        self.underlay.announced = true;
        (self.underlay.homes, self.underlay.servers) = (homes, servers);
        self.settings.local.clone_from(&candidates);
        self.for_each_peer(|peer| {
            peer.agent.handle_local_candidates(&candidates, now);
            peer.introduced = None;
        });
        self.schedule.save_now(now);
    }

    /// Chooses the relays where this device is at home, and asks STUN servers accordingly.
    pub(crate) fn choose_homes(&mut self, now: Now) {
        let (stun, client) = (&self.stun, self.control.client());
        let groups = client.member(now).map(|member| member.groups).unwrap_or_default();
        let rotation = client.map().info().map_or(0, |info| info.relay_rotation);
        let (distance, times) = (|server| stun.latency(server), (client.wall(now), now.instant));
        self.relays.choose_homes((groups, rotation), distance, times);
        let path = &self.settings.path;
        let is_asked = |server: &SocketAddr| path.udp && path.filter.permits(*server);
        let [homes, others] = self
            .relays
            .stun_servers()
            .map(|servers| servers.into_iter().filter(is_asked).collect::<Vec<_>>());
        self.stun.handle_servers(&homes, &others, now.instant);
    }

    /// Looks at what data threads did, and at what time has ended.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>) {
        let now = cx.instant();
        for device in self.peers.live_devices() {
            let moved = self.peers.get_mut(device).is_some_and(|peer| peer.sample(now));
            if moved {
                self.peers.touch(device);
                self.schedule.traffic(now);
                self.introduce_offline(device, cx);
            }
        }
        for (device, what, count) in self.peers.take_refusals() {
            self.alarms.tally(device, what, count, now);
        }
        self.look_for_lack(now);
        self.tend_circuits(cx);
        self.tend_sockets(cx.instant());
        self.alarms.handle_timeout(now);
        match self.schedule.was_set(UnixTime(cx.now.wall.as_secs())) {
            Some(Step::Ahead) => self.handle_waking(cx),
            // What the clock lacks was learned before; only a new channel tells it.
            Some(Step::Back) => self.control.client_mut().reconnect(now),
            None => {}
        }
        let wall = self.wall(cx.now);
        if self.schedule.has_stepped(wall) {
            let revived = self.control.client_mut().map_mut().revive(wall);
            self.apply(&revived.changes, cx);
        }
        if self.control.client().map().next_expiry().is_some_and(|at| at <= wall) {
            let applied = self.control.client_mut().map_mut().expire(wall);
            for event in applied.events {
                self.alarms.raise(event, now);
            }
            self.apply(&applied.changes, cx);
        }
        if let Some(seconds) = self.revocations_age(cx.now) {
            self.alarms.note_freshness(seconds, now);
        }
        self.renew_binding(cx);
    }

    /// The device may have been asleep for longer than anybody remembers it: relays, translators, and peers, whose
    /// sessions have ended while ours seem young.
    fn handle_waking(&mut self, cx: &mut Context<'_>) {
        let now = cx.instant();
        self.begin_anew(cx);
        let live = self.wireguard.tunnels().filter(|tunnel| tunnel.session(now).is_some());
        for peer in live.map(|tunnel| *tunnel.peer()).collect::<Vec<_>>() {
            self.wireguard.initiate(&peer, cx.rng, now);
        }
    }

    /// How many seconds ago the list of revocations was last known to be current; nothing before there is
    /// a map.
    pub(crate) fn revocations_age(&self, now: Now) -> Option<u64> {
        let map = self.control.client().map();
        map.version()?;
        let fresh_at = map.revocations().fresh_at().unwrap_or(UnixTime(0));
        Some(self.wall(now).since(fresh_at))
    }
}

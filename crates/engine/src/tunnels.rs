//! Tunnels: packets to sessions, sessions to paths.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::BytesMut;
use control_proto::{SecurityEvent, TunnelRefusal};
use frame_proto::{FrameType, OffloadHeader, parse, payload_mut};
use identity::{DeviceId, RevocationTarget};
use packet::{Offload, Packet, Segments, build};
use path::{Alias, Message, Path};
use wireguard_proto::{Dropped, Event, MessageKind, OpenError, PublicKey, Received, Session};

use crate::context::Context;
use crate::dataplane::{DataPlane, Directory, Notice, Route, seal};
use crate::engine::Engine;
use crate::host_packet::HostPacket;
use crate::io::Transmit;
use crate::peer::Peer;
use crate::routes::NO_FLOW;
use crate::via::{Arrival, Via};

/// Whether a packet that is too big for a direct path goes by frames: while it is not known yet whether it really is.
fn goes_by_frames(peer: &Peer, packet: &HostPacket) -> bool {
    peer.agent.is_searching() && peer.agent.has_frames() && !packet.may_be_split()
}

impl Engine {
    /// Acts upon what a data thread, or the data plane in this thread, could not do by itself.
    pub(crate) fn take_notice(&mut self, notice: Notice, cx: &mut Context<'_>) {
        let device = self.peers.device_of(&notice.peer);
        match (device.and_then(|device| self.peers.touch(device)), notice.from) {
            (Some(peer), Some(from)) if notice.data => {
                peer.agent.handle_received(Path::Direct(from), cx.instant());
            }
            (Some(_), Some(_)) => {}
            (None, Some(from)) => self.move_plain(&notice.peer, from),
            (_, None) => {}
        }
        self.wireguard.handle_activity(&notice.peer, cx.rng, cx.now.instant);
    }

    /// Sends a packet that the data plane has no answer for.
    pub(crate) fn send_packet(&mut self, packet: HostPacket, cx: &mut Context<'_>) {
        let now = cx.instant();
        let Some(key) = self.plane.load().directory.receiver(packet.bytes()) else { return };
        let Some(device) = self.peers.device_of(&key) else {
            return self.send_to_plain(&key, packet, cx);
        };
        let Some(peer) = self.peers.touch(device) else { return };
        let (path, carried) = (peer.agent.chosen(), peer.agent.carried());
        let is_too_big = matches!(path, Path::Direct(_)) && packet.longest() > carried;
        if is_too_big && !goes_by_frames(peer, &packet) {
            return self.send_too_big(device, packet, cx);
        }
        peer.agent.handle_sent(now);
        self.schedule.traffic(now);
        let usable = peer.traffic.usable(now).cloned();
        if !matches!(path, Path::Direct(_)) {
            self.relays.want(device, &self.ladder, now);
        }
        match (usable, path) {
            (Some(session), Path::Direct(to)) if !is_too_big => {
                packet.split(|part| self.send_datagram((to, carried), &session, part, cx));
            }
            (Some(session), Path::Direct(_) | Path::Relay | Path::Stream) => {
                self.send_frames(device, &session, packet, cx);
            }
            // The handshake begins when there is a way for it.
            (_, Path::None) => peer.traffic.wait(packet, now),
            (None, Path::Direct(_) | Path::Relay | Path::Stream) => {
                peer.traffic.wait(packet, now);
                self.introduce_offline(device, cx);
                self.wireguard.initiate(&key, cx.rng, now);
            }
        }
    }

    /// Splits a packet that is too big for a direct path, if its sender lets routers do that. Otherwise it waits if the largest
    /// ones may turn out to pass in a moment, and its sender is told if not.
    fn send_too_big(&mut self, device: DeviceId, packet: HostPacket, cx: &mut Context<'_>) {
        let now = cx.instant();
        let Some(peer) = self.peers.get_mut(device) else { return };
        let carried = peer.agent.carried();
        if packet.may_be_split() {
            packet.fragment(carried, |part| self.send_packet(HostPacket::single(part), cx));
        } else if peer.agent.is_trying_largest() {
            peer.agent.handle_need(now);
            peer.traffic.wait(packet, now);
        } else if peer.traffic.may_refuse(now) {
            self.refuse(&packet, carried);
        }
    }

    /// Sends what has waited for a way to a peer.
    pub(crate) fn send_waiting(&mut self, device: DeviceId, cx: &mut Context<'_>) {
        let Some(peer) = self.peers.get_mut(device) else { return };
        for packet in peer.traffic.take_waiting(cx.instant()) {
            self.send_packet(packet, cx);
        }
    }

    /// Tells this device how large packets may be that go where this one was to go.
    fn refuse(&mut self, packet: &HostPacket, mtu: usize) {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        let packet = Packet::parse(packet.bytes()).ok();
        let answer = packet.and_then(|packet| build::too_big(&packet, mtu));
        self.output.packets.extend(answer.map(|answer| HostPacket::single(&answer)));
    }

    /// Sends a super-packet whole, unless that is more than a frame can carry or describe.
    fn send_frames(
        &mut self,
        device: DeviceId,
        session: &Session,
        packet: HostPacket,
        cx: &mut Context<'_>,
    ) {
        match packet.head() {
            Some(head) => self.send_frame(device, session, (packet, &head), cx),
            None => packet.split(|part| {
                let part = HostPacket::single(part);
                self.send_frame(device, session, (part, &OffloadHeader::default()), cx);
            }),
        }
    }

    fn send_frame(
        &mut self,
        device: DeviceId,
        session: &Session,
        (packet, head): (HostPacket, &OffloadHeader),
        cx: &mut Context<'_>,
    ) {
        let now = cx.instant();
        let (parts, bytes) = (packet.parts() as u64, packet.bytes().len() as u64);
        let (flow, flags) = self.relays.classifier.classify(packet.bytes(), now);
        let Some(peer) = self.peers.get_mut(device) else { return };
        let Some(relay) = self.relays.route(peer.relays.relays()) else { return };
        peer.relays.handle_sent(relay, now);
        let Some(frame) = peer.frames.seal_data(session, relay, packet.into_frame(head), flags)
        else {
            return;
        };
        peer.traffic.counters.count_sent(parts, bytes);
        let wake = session.record_sent(frame.len() as u64, true, now);
        let key = peer.key();
        self.relays.send(relay, (flow, frame), &mut self.streams, now);
        if wake {
            self.wireguard.handle_activity(&key, cx.rng, now);
        }
    }

    pub(crate) fn send_datagram(
        &mut self,
        (to, mtu): (SocketAddr, usize),
        session: &Arc<Session>,
        packet: &[u8],
        cx: &mut Context<'_>,
    ) {
        let key = *session.peer();
        let Some(traffic) = self.peers.traffic(&key) else { return };
        let mut payload = Vec::new();
        let with = (&**session, &*traffic.counters);
        let Ok(single) = Segments::plan(&Offload::default(), packet) else { return };
        let sealed = seal(with, (&single, 0..1), (&mut payload, None), mtu, cx.instant());
        let Some((_, wake)) = sealed else { return };
        if wake {
            self.wireguard.handle_activity(&key, cx.rng, cx.now.instant);
        }
        self.output.send(Transmit::new(to, payload));
    }

    /// A datagram that the data plane does not know: a handshake, disco, or noise.
    pub(crate) fn receive_datagram(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        cx: &mut Context<'_>,
    ) {
        if MessageKind::of(datagram).is_some() {
            return self.receive_wireguard(Via::Direct(from), datagram, cx);
        }
        if self.take_bound(from, datagram, cx.instant()) {
            return;
        }
        let Ok(header) = parse(datagram) else {
            return self.alarms.tally(None, TunnelRefusal::Noise, 1, cx.instant());
        };
        // Anybody can write a datagram that names a peer and a new key; peers introduce themselves
        // through relays.
        let peer = self.peers.get(header.peer);
        if peer.is_none_or(|peer| peer.new_key(datagram).is_none()) {
            self.receive_hello(header.peer, Arrival::Direct(from), datagram, cx);
        }
    }

    /// A frame that came through a relay.
    pub(crate) fn receive_frame(
        &mut self,
        relay: DeviceId,
        mut frame: BytesMut,
        cx: &mut Context<'_>,
    ) {
        let Ok(header) = parse(&frame) else { return };
        if !self.relays.may_bring(relay, header.peer) {
            return;
        }
        match self.peers.touch(header.peer) {
            Some(peer) => peer.heard_through(relay, cx.instant()),
            None => return self.receive_from_stranger(header.peer, relay, frame, cx),
        }
        if header.is_hello() {
            let is_new = self.peers.get(header.peer).is_some_and(|p| p.new_key(&frame).is_some());
            let introductions = &mut self.peers.introductions;
            if is_new && !introductions.permit(header.peer, relay, cx.instant()) {
                return;
            }
            return self.receive_hello(header.peer, Arrival::Relay(relay), &mut frame, cx);
        }
        let Some(peer) = self.peers.touch(header.peer) else { return };
        let session = match peer.frames.open_packet(&mut frame) {
            Ok(opened) => opened,
            Err(refusal) => {
                let what = refusal.into_iter();
                return what.for_each(|what| {
                    self.alarms.tally(Some(header.peer), what, 1, cx.now.instant);
                });
            }
        };
        let arrival = Arrival::Relay(relay);
        peer.agent.handle_received(arrival.path(header.peer), cx.instant());
        if self.relays.is_well(relay) {
            peer.relays.handle_received(relay, cx.instant());
        } else {
            peer.relays.handle_received_late(relay, cx.instant());
        }
        self.schedule.traffic(cx.instant());
        let bytes = frame.len() as u64;
        if session.record_received(bytes, true, cx.instant()) {
            self.wireguard.handle_activity(session.peer(), cx.rng, cx.now.instant);
        }
        if let Some(packet) = HostPacket::from_frame(frame) {
            self.deliver(session.peer(), packet);
        }
    }

    /// A frame of a device that is no peer: of one that is none yet, or none any more.
    fn receive_from_stranger(
        &mut self,
        device: DeviceId,
        relay: DeviceId,
        frame: BytesMut,
        cx: &mut Context<'_>,
    ) {
        if !self.report_revoked(device, cx.instant()) {
            self.peers.strangers.keep(device, relay, frame, cx.instant());
        }
    }

    /// Raises an alarm if a device that turned up is revoked.
    fn report_revoked(&mut self, device: DeviceId, now: Instant) -> bool {
        let target = RevocationTarget::Device(device);
        let is_revoked = self.control.client().map().revocations().contains(&target);
        if is_revoked {
            let (device, what) = (Some(device), target.to_string());
            self.alarms.raise(SecurityEvent::Revoked { device, what }, now);
        }
        is_revoked
    }

    /// A device has become a peer: what it sent a moment too early counts now.
    pub(crate) fn receive_kept(&mut self, device: DeviceId, cx: &mut Context<'_>) {
        for (relay, frame) in self.peers.strangers.take(device, cx.instant()) {
            self.receive_frame(relay, frame, cx);
        }
    }

    /// Hands a packet or super-packet of a peer to this device, if it may come from there.
    fn deliver(&mut self, key: &PublicKey, mut packet: HostPacket) {
        let Some(counters) = self.peers.traffic(key).map(|traffic| &traffic.counters) else {
            return;
        };
        match self.plane.load().directory.check(key, packet.bytes()) {
            Ok(len) => {
                packet.truncate(len);
                counters.count_received(packet.parts() as u64, len as u64);
                self.output.packets.push_back(packet);
            }
            Err(reason) => counters.count_undeliverable(reason),
        }
    }

    fn receive_hello(
        &mut self,
        device: DeviceId,
        arrival: Arrival,
        frame: &mut [u8],
        cx: &mut Context<'_>,
    ) {
        let Some(peer) = self.peers.touch(device) else { return };
        let Some(kind) = peer.open_hello(frame, &self.own.secrets.tunnel) else {
            if let Arrival::Relay(_) = arrival {
                // It may know an older tunnel key of this device.
                self.introduce(device, cx);
            }
            return;
        };
        let payload = payload_mut(frame);
        match kind {
            FrameType::Disco => {
                let Ok(message) = Message::decode(payload) else { return };
                let other = self.take_circuit_message((device, arrival), message, cx);
                if let (Some(message), Some(peer)) = (other, self.peers.touch(device)) {
                    peer.receive_disco(arrival, message, cx.instant());
                }
            }
            FrameType::Handshake => {
                let via = match arrival {
                    Arrival::Direct(from) => Via::Direct(from),
                    Arrival::Relay(through) => Via::Relay { peer: device, through },
                };
                peer.agent.handle_received(arrival.path(device), cx.instant());
                self.receive_wireguard(via, payload, cx);
            }
            FrameType::Introduce => self.receive_introduction(device, payload, cx),
            FrameType::Data
            | FrameType::Control
            | FrameType::Marker
            | FrameType::Carried
            | FrameType::Mesh
            | FrameType::Dummy
            | FrameType::Bundle => {}
        }
    }

    fn receive_wireguard(&mut self, via: Via, message: &mut [u8], cx: &mut Context<'_>) {
        let now = cx.instant();
        let received = match self.wireguard.handle_datagram(message, via, cx.rng, now) {
            Ok(received) => received,
            Err(dropped) => return self.note_dropped(via, dropped, now),
        };
        let (key, payload) = match received {
            Received::Handshake(key) | Received::Cookie(key) => (key, None),
            Received::Packet { session, payload } => (*session.peer(), Some(payload)),
        };
        let device = self.peers.device_of(&key);
        match (device.and_then(|device| self.peers.touch(device)), via) {
            (Some(peer), Via::Direct(from)) => {
                let packets = u64::from(payload.is_some());
                peer.traffic.counters.received_straight.fetch_add(packets, Relaxed);
                if payload.as_ref().is_none_or(|payload| !payload.is_empty()) {
                    peer.agent.handle_received(Path::Direct(from), now);
                }
            }
            (Some(_), Via::Relay { .. }) => {}
            // It may have been heard from elsewhere than before.
            (None, _) => self.schedule.publish(),
        }
        if let Some(payload) = payload.filter(|payload| !payload.is_empty()) {
            let packet = HostPacket::single(payload);
            self.drain_wireguard(cx);
            self.deliver(&key, packet);
        }
    }

    /// Counts what a stranger, or a peer that means no good, may have sent.
    fn note_dropped(&mut self, via: Via, dropped: Dropped, now: Instant) {
        let what = match dropped {
            Dropped::UnknownPeer(key) => {
                let former = self.peers.former(&key);
                if former.is_some_and(|device| self.report_revoked(device, now)) {
                    return;
                }
                TunnelRefusal::UnknownPeer
            }
            Dropped::NotAuthentic => TunnelRefusal::FailedHandshake,
            Dropped::ReplayedInitiation => TunnelRefusal::ReplayedHandshake,
            Dropped::Transport(OpenError::NotAuthentic) => TunnelRefusal::ForgedPacket,
            Dropped::Transport(OpenError::Replayed) => TunnelRefusal::ReplayedPacket,
            Dropped::CookieSent | Dropped::OverBudget => TunnelRefusal::Flood,
            Dropped::Malformed | Dropped::WrongMac1 => TunnelRefusal::Noise,
            Dropped::Transport(OpenError::Malformed | OpenError::Ended)
            | Dropped::UnknownIndex
            | Dropped::RepeatedInitiation
            | Dropped::TooManyInitiations => return,
        };
        let device = match via {
            Via::Relay { peer, .. } => Some(peer),
            Via::Direct(_) => None,
        };
        self.alarms.tally(device, what, 1, now);
    }

    /// Moves what the WireGuard interface wants sent, and takes over its sessions.
    pub(crate) fn drain_wireguard(&mut self, cx: &mut Context<'_>) {
        loop {
            while let Some(event) = self.wireguard.poll_event() {
                self.handle_session_event(event, cx);
            }
            let Some(transmit) = self.wireguard.poll_transmit() else { break };
            self.send_wireguard(&transmit.peer, transmit.endpoint, &transmit.message, cx);
        }
        if self.saved.reserve_timestamps(self.wireguard.last_timestamp()) {
            self.schedule.save_soon(cx.instant());
        }
    }

    fn handle_session_event(&mut self, event: Event, cx: &mut Context<'_>) {
        match event {
            Event::SessionAdded(session) => {
                if let Some(peer) = self.member_by_key(session.peer()) {
                    peer.frames.add(&session);
                } else if let Some(peer) = self.peers.plain.get_mut(session.peer()) {
                    peer.sessions.insert(session.local_index(), session.clone());
                }
                self.peers.settle(session.peer());
                self.schedule.publish();
            }
            Event::SessionReady(session) => {
                let key = *session.peer();
                let tunnel = self.wireguard.tunnel(&key);
                let made_over = tunnel.and_then(|tunnel| tunnel.endpoint().copied());
                if let Some(via) = made_over
                    && let Some(peer) = self.peers.device_of(&key).and_then(|d| self.peers.touch(d))
                {
                    peer.agent.handle_session(via.path(), cx.instant());
                }
                let Some(traffic) = self.peers.traffic_mut(&key) else { return };
                traffic.session = Some(session);
                let waiting = traffic.take_waiting(cx.instant());
                self.publish(cx.now);
                for packet in waiting {
                    self.send_packet(packet, cx);
                }
            }
            Event::SessionRemoved { peer: key, local_index } => {
                if let Some(peer) = self.member_by_key(&key) {
                    peer.frames.remove(local_index);
                } else if let Some(peer) = self.peers.plain.get_mut(&key) {
                    peer.sessions.remove(&local_index);
                }
                if let Some(traffic) = self.peers.traffic_mut(&key) {
                    traffic.forget(local_index);
                }
                self.peers.settle(&key);
                self.schedule.publish();
            }
            Event::HandshakeGivenUp { peer } => {
                if let Some(traffic) = self.peers.traffic_mut(&peer) {
                    traffic.drop_waiting();
                }
            }
        }
    }

    fn member_by_key(&mut self, key: &PublicKey) -> Option<&mut Peer> {
        let device = self.peers.device_of(key)?;
        self.peers.get_mut(device)
    }

    /// Sends a WireGuard message: answers the way the question came, through the same relay, since the peer may be at no other yet; all
    /// else over the best path.
    fn send_wireguard(
        &mut self,
        key: &PublicKey,
        endpoint: Option<Via>,
        message: &[u8],
        cx: &mut Context<'_>,
    ) {
        let kind = MessageKind::of(message);
        let is_answer = matches!(kind, Some(MessageKind::Response | MessageKind::CookieReply));
        match endpoint.filter(|_| is_answer) {
            Some(Via::Direct(to)) => {
                // A member that does not know yet that streams alone are used tries them as well.
                if self.settings.path.udp || self.peers.by_key(key).is_none() {
                    self.output.send(Transmit::new(to, message.to_vec()));
                }
                return;
            }
            Some(Via::Relay { peer, through }) => {
                return self.send_hello_through(through, peer, (FrameType::Handshake, message), cx);
            }
            None => {}
        }
        let member = self.peers.by_key(key).map(|peer| (peer.device(), peer.agent.chosen()));
        match (member, self.plain_endpoint(key)) {
            (Some((_, Path::Direct(to))), _) | (None, Some(to)) => {
                self.output.send(Transmit::new(to, message.to_vec()));
                if kind == Some(MessageKind::Initiation) {
                    self.send_copy(key, message, cx);
                }
            }
            (Some((device, Path::Relay | Path::Stream)), _) => {
                self.send_hello(device, FrameType::Handshake, message, cx);
            }
            (Some((_, Path::None)), _) | (None, None) => {}
        }
    }

    /// Sends an initiation that goes straight through a relay as well, while it is not known whether anything like it passes: nothing
    /// came of it the first time, or no packet has come that way. Of two copies the peer takes one.
    fn send_copy(&mut self, key: &PublicKey, initiation: &[u8], cx: &mut Context<'_>) {
        let now = cx.instant();
        let is_repeated = self.wireguard.tunnel(key).is_some_and(|tunnel| tunnel.is_repeating(now));
        let is_in_question = |peer: &&Peer| is_repeated || !peer.agent.carries_tunnel();
        let peer = self.peers.by_key(key).filter(is_in_question);
        if let Some(device) = peer.map(Peer::device) {
            self.send_hello(device, FrameType::Handshake, initiation, cx);
        }
    }

    /// Sends something sealed with the hello key through a relay of the peer.
    pub(crate) fn send_hello(
        &mut self,
        device: DeviceId,
        kind: FrameType,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) {
        let Some(peer) = self.peers.get(device) else { return };
        let Some(relay) = self.relays.route(peer.relays.relays()) else { return };
        self.send_hello_through(relay, device, (kind, payload), cx);
    }

    /// The same through a certain relay.
    pub(crate) fn send_hello_through(
        &mut self,
        relay: DeviceId,
        device: DeviceId,
        (kind, payload): (FrameType, &[u8]),
        cx: &mut Context<'_>,
    ) {
        if kind == FrameType::Handshake
            && let Some(peer) = self.peers.touch(device)
        {
            peer.relays.handle_sent(relay, cx.instant());
        }
        let Some(peer) = self.peers.get(device) else { return };
        let Some(frame) = peer.frames.seal_hello(kind, payload, cx.rng) else { return };
        self.relays.send(relay, (NO_FLOW, frame), &mut self.streams, cx.instant());
    }

    /// Publishes what data threads need to know. Costs what the peers with a session cost, unless
    /// members or addresses have changed.
    pub(crate) fn publish(&mut self, now: noise_channel::Now) {
        let own = self.own_addresses(now);
        let before = Arc::clone(&self.plane.load().directory);
        let is_current = !self.schedule.take_directory_dirty() && before.own() == own;
        let directory = if is_current { before } else { Arc::new(self.directory(own)) };
        let mut plane = DataPlane::new(directory, self.circuits_onward());
        for key in self.peers.live() {
            match self.peers.by_key(key) {
                Some(peer) => {
                    let direct = match peer.agent.chosen() {
                        Path::Direct(path) => self.route(path, peer.agent.carried()),
                        Path::Relay | Path::Stream | Path::None => None,
                    };
                    plane.add(*key, &peer.traffic, direct, peer.frames.sessions());
                }
                None => {
                    let Some(peer) = self.peers.plain.get(key) else { continue };
                    let direct = self.plain_endpoint(key);
                    let direct = direct.map(|to| Route::straight(to, self.own.mtu));
                    plane.add(*key, &peer.traffic, direct, peer.sessions.values());
                }
            }
        }
        self.plane.publish(plane);
    }

    /// Where data threads send what takes this path: what goes through an allocation or another socket goes through the
    /// engine.
    fn route(&self, path: SocketAddr, mtu: usize) -> Option<Route> {
        match Alias::of(path) {
            None => Some(Route::straight(path, mtu)),
            Some(Alias::Circuit(number)) => {
                let (to, head) = self.circuit(number)?;
                Some(Route { path, to, head: Some(head), mtu })
            }
            Some(Alias::Turn(..) | Alias::Socket(..)) => None,
        }
    }

    fn directory(&self, own: Vec<IpAddr>) -> Directory {
        let mut directory = Directory::new(own);
        for peer in self.peers.iter() {
            directory.add(peer.key(), peer.addresses());
        }
        // Members come first: where an address is claimed twice, a certificate proves it.
        for (key, peer) in self.peers.plain.iter() {
            directory.add(*key, peer.addresses.iter().copied());
        }
        directory
    }
}

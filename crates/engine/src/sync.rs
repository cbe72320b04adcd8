//! The map and its changes, turned into peers, relays and settings.

use std::net::IpAddr;
use std::time::Duration;

use control_proto::{
    Applied, ClientEvent, ClientStatus, Gossip, MapChanges, PeerEntry, RelayHealth,
};
use frame_proto::{FrameType, INTRODUCED_KEY_LENGTH};
use identity::{DeviceId, DeviceName, RelayEntry};
use noise_channel::Now;
use wireguard_proto::{PeerConfig, PublicKey};

use crate::context::Context;
use crate::engine::Engine;
use crate::hosts::Host;
use crate::io::{ConnectionState, EngineEvent, InterfaceSettings};
use crate::peer::{Peer, wireguard_key};
use crate::peers::{TunnelChange, overlay};
use crate::psk::preshared_key;

/// Introductions are repeated to the same peer after this long at the earliest.
const INTRODUCE_AGAIN: Duration = Duration::from_secs(60);

impl Engine {
    pub(crate) fn drain_control(&mut self, cx: &mut Context<'_>) {
        while let Some(event) = self.control.poll_event() {
            match event {
                ClientEvent::Connected { .. } => {
                    // The network underneath is there, whatever it was a minute ago.
                    self.relays.retry_now(cx.instant());
                    self.report_connection();
                }
                ClientEvent::Renewed | ClientEvent::Disconnected | ClientEvent::Refused(_) => {
                    self.report_connection();
                }
                ClientEvent::Membership(chain) => {
                    self.choose_homes(cx.now);
                    self.relays.renew(&chain, &mut self.streams, cx.instant());
                    self.schedule.save_now(cx.instant());
                    self.relays.retry_now(cx.instant());
                    self.report_interface(cx.now);
                    self.report_connection();
                }
                ClientEvent::MapChanged(changes) => self.apply(&changes, cx),
                ClientEvent::Removed => self.retire(cx),
                ClientEvent::ClockWrong { offset } => {
                    self.saved.set_clock_offset(offset);
                    let least = self.control.client().least_time(cx.instant());
                    self.saved.set_least_time(least);
                    self.relays.guests.set_clock_offset(offset);
                    let wall = Duration::from_millis(cx.now.wall.with_offset(offset).0);
                    self.wireguard.set_wall_clock(wall, cx.instant());
                    // The next hello needs a binding that counts by this clock.
                    self.state_anew(cx);
                    self.output.events.push_back(EngineEvent::ClockWrong { offset_ms: offset.0 });
                }
                ClientEvent::Outdated { number } => {
                    self.saved.skip_numbers(number);
                    self.state_anew(cx);
                }
                ClientEvent::Security(event) => self.alarms.raise(event, cx.instant()),
            }
        }
    }

    /// Takes over the whole map, as at the start.
    pub(crate) fn adopt_map(&mut self, cx: &mut Context<'_>) {
        let peers = self.control.client().map().peers().map(|(device, _)| device).collect();
        let changes = MapChanges { peers, relays: true, info: true, ..MapChanges::default() };
        self.apply(&changes, cx);
    }

    pub(crate) fn apply(&mut self, changes: &MapChanges, cx: &mut Context<'_>) {
        if changes.info && self.settle_datagrams(cx) {
            return self.adopt_map(cx);
        }
        if changes.info {
            let map = self.control.client().map();
            self.settings.set_overlay(overlay(self.own.network, map));
            let info = map.info();
            let rules = info.map(|info| &info.traffic[..]).unwrap_or_default();
            self.relays.classifier.set_rules(rules);
            self.relays.set_padding(info.map(|info| info.padding).unwrap_or_default());
            if self.settings.path.udp {
                let turn = info.map(|info| &info.turn[..]).unwrap_or_default();
                self.turns.handle_servers(turn, &self.settings.path.filter, &mut self.sockets, cx);
            }
            let shaping = info.map(|info| info.shaping.clone()).unwrap_or_default();
            self.relays.set_shaping(shaping, &mut self.streams, cx);
        }
        if changes.relays {
            let mut entries: Vec<(RelayEntry, RelayHealth)> = self
                .control
                .client()
                .map()
                .relays()
                .map(|(entry, health)| (entry.clone(), health))
                .collect();
            if entries.is_empty() {
                let unknown = |entry| (entry, RelayHealth::default());
                entries = self.own.bootstrap.iter().cloned().map(unknown).collect();
            }
            self.relays.handle_entries(entries, &mut self.streams);
        }
        if changes.relays || changes.info {
            self.choose_homes(cx.now);
        }
        let map = self.control.client().map();
        self.relays.guests.handle_map(map, &changes.peers, cx.now);
        // Most changes of a large network are endpoints, which concern one peer and nobody else.
        let mut has_moved = changes.info || changes.records;
        for device in &changes.peers {
            has_moved |= self.sync_peer(*device, cx);
        }
        if has_moved {
            self.sync_plain(cx);
            self.schedule.publish_directory();
            self.output.events.push_back(EngineEvent::ZoneChanged);
        }
        if has_moved || changes.relays || changes.trust {
            self.schedule.save_map_soon(cx.instant());
        } else {
            self.schedule.save_map_in_time(cx.instant());
        }
        self.report_interface(cx.now);
    }

    /// Members send each other datagrams if there is a socket and the network lets them. Where that changes every session ends, and new ones
    /// begin over what may carry them; true if it does.
    fn settle_datagrams(&mut self, cx: &mut Context<'_>) -> bool {
        let info = self.control.client().map().info();
        let udp = self.own.has_udp && !info.is_some_and(|info| info.streams_only);
        if udp == self.settings.path.udp {
            return false;
        }
        self.settings.path.udp = udp;
        if !udp {
            self.turns.give_back(&mut self.sockets, cx);
        }
        self.cut_all(cx);
        self.schedule.announce_soon(cx.instant());
        true
    }

    /// Takes over what the map says of one device, or cuts it off if it says nothing any more; true if
    /// names, addresses or tunnels are others than before.
    fn sync_peer(&mut self, device: DeviceId, cx: &mut Context<'_>) -> bool {
        if device == self.own.end.device {
            return true;
        }
        let now = cx.instant();
        let map = self.control.client().map();
        let Some(key) = map.peer(device).map(|entry| wireguard_key(&entry.binding.tunnel_key))
        else {
            let was_there = self.peers.get(device).is_some();
            self.cut(device, cx);
            return was_there;
        };
        // The map gives a key to one member, so whoever had it has lost it.
        if let Some(former) = self.peers.device_of(&key).filter(|former| *former != device) {
            self.cut(former, cx);
        }
        let before = self.peers.get(device).map(identity);
        let map = self.control.client().map();
        let Some(entry) = map.peer(device) else { return true };
        let ipv4 = map.ipv4(device);
        let host = Host::of(entry, &self.settings.path.filter);
        self.relays.handle_host(device, host, &mut self.streams);
        let change = self.peers.upsert(entry, &self.settings, &self.own, now);
        match change {
            TunnelChange::None => {}
            TunnelChange::Added(key) => self.add_tunnel(device, &key, cx),
            TunnelChange::Replaced(old, key) => {
                self.wireguard.remove_peer(&old, now);
                self.add_tunnel(device, &key, cx);
            }
        }
        if let Some(peer) = self.peers.touch(device) {
            peer.ipv4 = ipv4;
            let available = self.relays.reaches(peer.relays.relays());
            peer.agent.handle_relay(available, now);
        }
        self.recall(device, now);
        self.refresh_stream(device, now);
        let has_moved = before != self.peers.get(device).map(identity);
        self.receive_kept(device, cx);
        has_moved
    }

    fn add_tunnel(&mut self, device: DeviceId, key: &PublicKey, cx: &mut Context<'_>) {
        // A plain peer of that key has no certificate that could stand against the member's.
        self.cut_plain(key, cx);
        let Some(peer) = self.peers.get(device) else { return };
        let psk = preshared_key(self.own.network, self.own.end, peer.end);
        let config = PeerConfig { preshared_keys: vec![psk], ..PeerConfig::default() };
        self.wireguard.add_peer(*key, config, cx.instant());
    }

    /// Ends everything with a device: it is no member any more.
    pub(crate) fn cut(&mut self, device: DeviceId, cx: &mut Context<'_>) {
        self.relays.handle_host(device, None, &mut self.streams);
        self.ladder.forget(device);
        if let Some(key) = self.peers.remove(device) {
            self.wireguard.remove_peer(&key, cx.instant());
            self.schedule.publish_directory();
        }
    }

    fn cut_all(&mut self, cx: &mut Context<'_>) {
        let devices: Vec<_> = self.peers.iter().map(Peer::device).collect();
        devices.into_iter().for_each(|device| self.cut(device, cx));
    }

    /// The device itself was removed: nothing of the network is served any more.
    fn retire(&mut self, cx: &mut Context<'_>) {
        self.cut_all(cx);
        self.cut_all_plain(cx);
        self.relays.handle_entries([], &mut self.streams);
        self.choose_homes(cx.now);
        self.relays.guests.retire(cx.now);
        self.turns.give_back(&mut self.sockets, cx);
        self.own.removed = true;
        self.output.events.push_back(EngineEvent::Removed);
    }

    /// This device's addresses, as far as they are proved.
    pub(crate) fn own_addresses(&self, now: Now) -> Vec<IpAddr> {
        let client = self.control.client();
        let Some(member) = client.member(now) else { return Vec::new() };
        let ipv4 = client.map().ipv4(self.own.end.device).map(IpAddr::V4);
        std::iter::once(IpAddr::V6(member.address)).chain(ipv4).collect()
    }

    fn report_interface(&mut self, now: Now) {
        let settings = InterfaceSettings {
            addresses: self.own_addresses(now),
            routes: overlay(self.own.network, self.control.client().map()),
            mtu: self.own.mtu,
        };
        if !settings.addresses.is_empty() && self.own.interface.as_ref() != Some(&settings) {
            self.own.interface = Some(settings.clone());
            self.output.events.push_back(EngineEvent::Interface(settings));
            self.schedule.publish();
        }
    }

    /// How the node stands with its network.
    #[must_use]
    pub fn connection(&self) -> ConnectionState {
        match self.control.client().status() {
            ClientStatus::Offline => ConnectionState::Offline,
            ClientStatus::Connecting => ConnectionState::Connecting,
            ClientStatus::Pending => ConnectionState::AwaitingApproval,
            ClientStatus::Online => ConnectionState::Online,
            ClientStatus::Refused(refusal) => {
                ConnectionState::Refused { reason: refusal.to_string() }
            }
            ClientStatus::Stopped => ConnectionState::Refused {
                reason: "this device was removed from the network; ask for a new invite".to_owned(),
            },
        }
    }

    fn report_connection(&mut self) {
        let state = self.connection();
        self.output.events.push_back(EngineEvent::Connection(state));
    }

    /// Brings this device's own proofs to a peer while no controller does, or one that says too little.
    pub(crate) fn introduce_offline(&mut self, device: DeviceId, cx: &mut Context<'_>) {
        if self.connection() != ConnectionState::Online || self.alarms.is_stale() {
            self.introduce(device, cx);
        }
    }

    /// Brings this device's own proofs to a peer, and what it knows of revocations.
    pub(crate) fn introduce(&mut self, device: DeviceId, cx: &mut Context<'_>) {
        let now = cx.instant();
        let Some(peer) = self.peers.get_mut(device) else { return };
        if peer.introduced.is_some_and(|at| now < at + INTRODUCE_AGAIN) {
            return;
        }
        let (Some(chain), Some(binding)) =
            (self.control.client().chain(), self.saved.binding.clone())
        else {
            return;
        };
        peer.introduced = Some(now);
        let endpoints = self.own.endpoints.clone();
        let entry = PeerEntry { chain: chain.clone(), binding, endpoints };
        let mut payload = vec![0; INTRODUCED_KEY_LENGTH];
        let gossip = self.control.client().map().gossip(peer.revocations);
        minicbor::encode(&entry, &mut payload).expect("writing to a vector does not fail");
        minicbor::encode(&gossip, &mut payload).expect("writing to a vector does not fail");
        self.send_hello(device, FrameType::Introduce, &payload, cx);
    }

    /// A peer brought its own proofs: they count as much as the controller's. The frame shows that
    /// it holds the tunnel key that its binding must name.
    pub(crate) fn receive_introduction(
        &mut self,
        device: DeviceId,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) {
        let Some((key, entry)) = payload.split_first_chunk::<INTRODUCED_KEY_LENGTH>() else {
            return;
        };
        let mut decoder = minicbor::Decoder::new(entry);
        let Ok(entry) = decoder.decode::<PeerEntry>() else { return };
        let gossip = decoder.decode::<Gossip>().ok();
        let binding = entry.binding.verify(self.own.network, device);
        if binding.is_ok_and(|binding| binding.tunnel_key.as_bytes() != key) {
            return;
        }
        let wall = self.wall(cx.now);
        let applied = self.control.client_mut().map_mut().introduce(device, &entry, wall);
        self.take_over(applied, cx);
        if let Some(gossip) = gossip {
            self.hear(device, &gossip, cx);
        }
    }

    /// A peer told what it knows of revocations. If one of the two knows more, the peer learns how far
    /// this device is, and with that what it lacks.
    fn hear(&mut self, device: DeviceId, gossip: &Gossip, cx: &mut Context<'_>) {
        let wall = self.wall(cx.now);
        let applied = self.control.client_mut().map_mut().hear(gossip, wall);
        self.take_over(applied, cx);
        if let Some(peer) = self.peers.get_mut(device) {
            peer.revocations = Some(gossip.number);
        }
        if self.control.client().map().differs_from(gossip) {
            self.introduce(device, cx);
        }
    }

    fn take_over(&mut self, applied: Applied, cx: &mut Context<'_>) {
        for event in applied.events {
            self.alarms.raise(event, cx.instant());
        }
        if !applied.changes.is_empty() {
            self.apply(&applied.changes, cx);
        }
    }
}

/// What of a peer routes and names are made of.
fn identity(peer: &Peer) -> (PublicKey, DeviceName, Vec<IpAddr>) {
    (peer.key(), peer.member.name.clone(), peer.addresses().collect())
}

//! Plain WireGuard peers: keys that a record of the network lets in.
//!
//! Such a peer has no certificate, no relay and no preshared key, and nobody probes paths to it. It
//! calls first, from wherever it is, and is answered there until it is heard from elsewhere.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use identity::{DeviceName, StaticPeer};
use wireguard_proto::{PeerConfig, PublicKey, Session};

use crate::context::Context;
use crate::engine::Engine;
use crate::host_packet::HostPacket;
use crate::peer::wireguard_key;
use crate::peers::overlay;
use crate::traffic::Traffic;
use crate::via::Via;

/// Addresses of one peer that count: one of each family, and some for what stands behind it.
const MAX_ADDRESSES: usize = 16;

/// What a record says of a plain peer, and its tunnel.
#[derive(Debug)]
pub(crate) struct PlainPeer {
    pub(crate) name: DeviceName,
    /// Its addresses inside the network, IPv6 first.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) traffic: Traffic,
    /// The sessions that are alive, by local index.
    pub(crate) sessions: BTreeMap<u32, Arc<Session>>,
}

/// All plain peers, by tunnel key.
#[derive(Debug, Default)]
pub(crate) struct PlainPeers(BTreeMap<PublicKey, PlainPeer>);

impl PlainPeers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PublicKey, &PlainPeer)> {
        self.0.iter()
    }

    pub(crate) fn get(&self, key: &PublicKey) -> Option<&PlainPeer> {
        self.0.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &PublicKey) -> Option<&mut PlainPeer> {
        self.0.get_mut(key)
    }
}

impl Engine {
    /// Takes over the plain peers of the map. A key that is a member's stays the member's.
    pub(crate) fn sync_plain(&mut self, cx: &mut Context<'_>) {
        let wall = self.wall(cx.now);
        let map = self.control.client().map();
        let prefixes = overlay(self.own.network, map);
        let inside = |address: &IpAddr| prefixes.iter().any(|prefix| prefix.contains(address));
        let wanted: BTreeMap<PublicKey, (DeviceName, Vec<IpAddr>)> = map
            .static_peers(wall)
            .map(|record| (wireguard_key(&record.tunnel_key), record))
            .filter(|(key, _)| self.peers.device_of(key).is_none())
            .filter(|(key, _)| key != self.wireguard.public_key())
            .map(|(key, record)| (key, (record.name.clone(), addresses(record, inside))))
            .collect();
        let gone: Vec<_> =
            self.peers.plain.0.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            self.cut_plain(&key, cx);
        }
        for (key, (name, addresses)) in wanted {
            if let Some(peer) = self.peers.plain.0.get_mut(&key) {
                (peer.name, peer.addresses) = (name, addresses);
                continue;
            }
            self.wireguard.add_peer(key, PeerConfig::default(), cx.instant());
            let traffic = Traffic::default();
            let peer = PlainPeer { name, addresses, traffic, sessions: BTreeMap::new() };
            self.peers.plain.0.insert(key, peer);
        }
    }

    /// Ends everything with a plain peer: its record has expired or was withdrawn, or a member has
    /// announced its key.
    pub(crate) fn cut_plain(&mut self, key: &PublicKey, cx: &mut Context<'_>) {
        if self.peers.plain.0.remove(key).is_some() {
            self.wireguard.remove_peer(key, cx.instant());
            self.schedule.publish_directory();
        }
    }

    /// The device itself was removed.
    pub(crate) fn cut_all_plain(&mut self, cx: &mut Context<'_>) {
        let keys: Vec<_> = self.peers.plain.0.keys().copied().collect();
        for key in keys {
            self.cut_plain(&key, cx);
        }
    }

    /// Where a plain peer was heard from last, unless nothing may be sent there.
    pub(crate) fn plain_endpoint(&self, key: &PublicKey) -> Option<SocketAddr> {
        self.peers.plain.get(key)?;
        match self.wireguard.tunnel(key)?.endpoint()? {
            Via::Direct(to) => Some(*to).filter(|to| self.settings.path.filter.permits(*to)),
            Via::Relay { .. } => None,
        }
    }

    /// A data thread opened a packet of a plain peer that came from elsewhere than the last.
    pub(crate) fn move_plain(&mut self, key: &PublicKey, from: SocketAddr) {
        let before = self.wireguard.tunnel(key).and_then(|tunnel| tunnel.endpoint().copied());
        if before != Some(Via::Direct(from)) {
            self.wireguard.handle_endpoint(key, &Via::Direct(from));
            self.schedule.publish();
        }
    }

    /// Sends a packet to a plain peer, which must have called first.
    pub(crate) fn send_to_plain(
        &mut self,
        key: &PublicKey,
        packet: HostPacket,
        cx: &mut Context<'_>,
    ) {
        let now = cx.instant();
        let Some(to) = self.plain_endpoint(key) else { return };
        let Some(peer) = self.peers.plain.get_mut(key) else { return };
        match peer.traffic.usable(now).cloned() {
            Some(session) => {
                // What is too large for the way goes in parts: nobody knows how large that is.
                let mtu = self.own.mtu;
                packet.split(|part| self.send_datagram((to, mtu), &session, part, cx));
            }
            None => {
                peer.traffic.wait(packet, now);
                self.wireguard.initiate(key, cx.rng, now);
            }
        }
    }
}

/// The addresses of a record that lie in the network.
fn addresses(record: &StaticPeer, inside: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
    let mut addresses: Vec<_> =
        record.addresses.iter().copied().filter(inside).take(MAX_ADDRESSES).collect();
    addresses.sort_by_key(|address| (address.is_ipv4(), *address));
    addresses.dedup();
    addresses
}

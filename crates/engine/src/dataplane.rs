//! The part of a node that runs on data threads.
//!
//! The engine owns every decision; what data threads need of it is a [`DataPlane`]: an immutable
//! snapshot of routes, sessions and chosen paths. A thread loads the newest one from the
//! [`DataPlaneHandle`] per batch and runs packets to completion on it. What the snapshot cannot
//! answer goes back to the engine, which is also what a node with one thread does for everything.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::ArcSwap;
use wireguard_proto::{
    MessageKind, OpenError, PublicKey, Session, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD,
    padded_len, receiver_index,
};

use crate::routes::{Routes, addresses, packet_len};
use crate::traffic::Traffic;

/// Where data threads find the newest snapshot.
#[derive(Clone, Debug)]
pub struct DataPlaneHandle(Arc<ArcSwap<DataPlane>>);

impl DataPlaneHandle {
    pub(crate) fn new() -> Self {
        Self(Arc::new(ArcSwap::from_pointee(DataPlane::default())))
    }

    pub(crate) fn publish(&self, plane: DataPlane) {
        self.0.store(Arc::new(plane));
    }

    /// The newest snapshot; take it once per batch.
    #[must_use]
    pub fn load(&self) -> arc_swap::Guard<Arc<DataPlane>> {
        self.0.load()
    }
}

/// One consistent view of everything that the bulk of packets needs.
#[derive(Debug, Default)]
pub struct DataPlane {
    pub(crate) routes: Routes<usize>,
    pub(crate) peers: Vec<PeerPlane>,
    /// Sessions that open packets, by local index, with the peer's place in `peers`.
    pub(crate) sessions: HashMap<u32, (Arc<Session>, usize)>,
    pub(crate) own: Vec<IpAddr>,
    pub(crate) mtu: usize,
}

/// What the data plane knows about one peer.
#[derive(Debug)]
pub(crate) struct PeerPlane {
    /// The key of its tunnel.
    pub(crate) key: PublicKey,
    /// The session to seal with and where to send; without a direct path the engine does it.
    pub(crate) direct: Option<(Arc<Session>, SocketAddr)>,
    pub(crate) counters: Arc<PeerCounters>,
}

/// Packets and bytes exchanged with one peer over any path, without overhead.
#[derive(Debug, Default)]
pub struct PeerCounters {
    pub(crate) sent_packets: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_packets: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    /// Packets that the tunnel authenticated but whose source is not the peer's.
    pub(crate) refused_sources: AtomicU64,
    /// Packets that were received before.
    pub(crate) replayed: AtomicU64,
    /// Packets that name a session of the peer but were not sealed in it.
    pub(crate) forged: AtomicU64,
    /// Packets received from where ours are sent to; what proves that the chosen path is alive.
    pub(crate) received_on_chosen: AtomicU64,
}

/// How a packet from this device goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over UDP: split it, and seal the parts with [`DataPlane::outbound`].
    Direct,
    /// Through the engine, as it is: [`Engine::handle_packet`](crate::Engine::handle_packet).
    Engine,
    /// There is no such destination.
    None,
}

/// What became of packets from this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Sealed datagrams were appended to the buffer, each `datagram_len` bytes but the last, which
    /// may be shorter: one `UDP_SEGMENT` send.
    Datagrams {
        /// Where to.
        to: SocketAddr,
        /// Length of each datagram but the last.
        datagram_len: usize,
        /// What the engine must be told, if anything.
        notice: Option<Notice>,
    },
    /// Only the engine can deal with them: [`Engine::handle_packet`](crate::Engine::handle_packet).
    ToEngine,
    /// There is no such destination.
    NoRoute,
}

/// What became of a datagram from the network.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// A packet for this device.
    Packet {
        /// The packet without padding, in place.
        packet: &'a mut [u8],
        /// What the engine must be told, if anything.
        notice: Option<Notice>,
    },
    /// Nothing to deliver: a keepalive.
    Empty {
        /// What the engine must be told, if anything.
        notice: Option<Notice>,
    },
    /// Only the engine can deal with it: [`Engine::handle_datagram`](crate::Engine::handle_datagram).
    /// The bytes are untouched.
    ToEngine(&'a mut [u8]),
    /// It is worth nothing.
    Dropped(DropReason),
}

/// Why an inbound datagram is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// The session refuses it.
    #[error(transparent)]
    Session(#[from] OpenError),
    /// The tunnel's payload is no IP packet.
    #[error("the payload is not an IP packet")]
    NotIp,
    /// The packet's source is not one of the peer's addresses.
    #[error("the source address does not belong to the peer")]
    ForeignSource,
    /// The packet's destination is not this device.
    #[error("the destination address does not belong to this device")]
    ForeignDestination,
}

/// Something that the engine must hear soon: pass it to
/// [`Engine::handle_notice`](crate::Engine::handle_notice).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The key of the tunnel concerned.
    pub peer: PublicKey,
    /// The peer sent from an address that is not the chosen path.
    pub from: Option<SocketAddr>,
}

impl DataPlane {
    /// Adds a peer; answers its place.
    pub(crate) fn add_peer(
        &mut self,
        key: PublicKey,
        traffic: &Traffic,
        direct: Option<SocketAddr>,
    ) -> usize {
        let direct = traffic.session.clone().zip(direct);
        let counters = Arc::clone(&traffic.counters);
        self.peers.push(PeerPlane { key, direct, counters });
        self.peers.len() - 1
    }

    /// Sessions that open packets of the peer at `index`, once they are confirmed: the packet that
    /// confirms one goes through the engine, since its answer must find the session, and the path
    /// that it was made over, already in use.
    pub(crate) fn add_sessions<'a>(
        &mut self,
        index: usize,
        sessions: impl Iterator<Item = &'a Arc<Session>>,
    ) {
        for session in sessions.filter(|session| session.is_confirmed()) {
            self.sessions.insert(session.local_index(), (Arc::clone(session), index));
        }
    }

    /// Addresses of the peer at `index`, but for those that are taken.
    pub(crate) fn add_routes(&mut self, index: usize, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            if !self.own.contains(&address) && self.routes.lookup(address).is_none() {
                self.routes.insert(address.into(), index);
            }
        }
    }

    /// How a packet or super-packet goes on, before it is split.
    #[must_use]
    pub fn way(&self, packet: &[u8]) -> Way {
        match self.peer_of(packet) {
            Some(peer) if peer.direct.is_some() => Way::Direct,
            Some(_) => Way::Engine,
            None => Way::None,
        }
    }

    /// The peer that a packet from this device is for.
    pub(crate) fn peer_of(&self, packet: &[u8]) -> Option<&PeerPlane> {
        let (_, destination) = addresses(packet)?;
        self.routes.lookup(destination).map(|index| &self.peers[index])
    }

    /// Seals the packets of one super-packet (one destination, equal lengths but for the last)
    /// for the direct path, appending to `out`.
    ///
    /// `segments` are complete IP packets of at most the tunnel's MTU.
    pub fn outbound(&self, segments: &[&[u8]], out: &mut Vec<u8>, now: Instant) -> Outbound {
        let Some(peer) = segments.first().and_then(|packet| self.peer_of(packet)) else {
            return Outbound::NoRoute;
        };
        let Some((_, to)) = &peer.direct else { return Outbound::ToEngine };
        let Some(wake) = peer.seal(segments, out, self.mtu, now) else {
            return Outbound::ToEngine;
        };
        let first = segments.first().map_or(0, |packet| packet.len());
        let datagram_len = TRANSPORT_OVERHEAD + padded_len(first, self.mtu);
        let notice = wake.then_some(Notice { peer: peer.key, from: None });
        Outbound::Datagrams { to: *to, datagram_len, notice }
    }

    /// Opens one datagram in place and checks where its packet comes from and goes to.
    pub fn inbound<'a>(
        &self,
        from: SocketAddr,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Inbound<'a> {
        if MessageKind::of(datagram) != Some(MessageKind::Transport) {
            return Inbound::ToEngine(datagram);
        }
        let entry = receiver_index(datagram).and_then(|index| self.sessions.get(&index));
        let Some((session, index)) = entry else { return Inbound::ToEngine(datagram) };
        let bytes = datagram.len() as u64;
        let payload = match session.open(datagram, now) {
            Ok(payload) => payload,
            Err(error) => {
                self.peers[*index].counters.count_refused(error);
                return Inbound::Dropped(error.into());
            }
        };
        let peer = &self.peers[*index];
        let wake = session.record_received(bytes, !payload.is_empty(), now);
        let moved = peer.direct.as_ref().is_none_or(|(_, chosen)| *chosen != from);
        if !moved {
            peer.counters.received_on_chosen.fetch_add(1, Relaxed);
        }
        let notice =
            (wake || moved).then_some(Notice { peer: peer.key, from: moved.then_some(from) });
        if payload.is_empty() {
            return Inbound::Empty { notice };
        }
        match self.check(*index, payload) {
            Ok(len) => {
                peer.counters.count_received(1, len as u64);
                Inbound::Packet { packet: &mut payload[..len], notice }
            }
            Err(reason) => Inbound::Dropped(reason),
        }
    }

    /// The length of a packet from a peer, if it may come from there and is for this device.
    ///
    /// # Errors
    /// Why it must not be delivered.
    pub(crate) fn check(&self, index: usize, packet: &[u8]) -> Result<usize, DropReason> {
        let len = packet_len(packet).ok_or(DropReason::NotIp)?;
        let (source, destination) = addresses(packet).ok_or(DropReason::NotIp)?;
        if self.routes.lookup(source) != Some(index) {
            self.peers[index].counters.refused_sources.fetch_add(1, Relaxed);
            return Err(DropReason::ForeignSource);
        }
        if !self.own.contains(&destination) {
            return Err(DropReason::ForeignDestination);
        }
        Ok(len)
    }
}

impl PeerPlane {
    /// Seals packets with the session of the direct path; answers whether the engine must look at
    /// the peer, or nothing if there is no such path or session.
    pub(crate) fn seal(
        &self,
        packets: &[&[u8]],
        out: &mut Vec<u8>,
        mtu: usize,
        now: Instant,
    ) -> Option<bool> {
        let (session, _) = self.direct.as_ref()?;
        let counters = session.reserve(u32::try_from(packets.len()).ok()?, now).ok()?;
        let before = out.len();
        let mut payload = 0;
        for (packet, counter) in packets.iter().zip(counters) {
            payload += packet.len() as u64;
            let start = out.len();
            out.resize(start + TRANSPORT_OVERHEAD + padded_len(packet.len(), mtu), 0);
            let message = &mut out[start..];
            message[TRANSPORT_HEADER_LEN..TRANSPORT_HEADER_LEN + packet.len()]
                .copy_from_slice(packet);
            session.seal(counter, message);
        }
        self.counters.count_sent(packets.len() as u64, payload);
        Some(session.record_sent((out.len() - before) as u64, true, now))
    }
}

impl PeerCounters {
    pub(crate) fn count_sent(&self, packets: u64, bytes: u64) {
        self.sent_packets.fetch_add(packets, Relaxed);
        self.sent_bytes.fetch_add(bytes, Relaxed);
    }

    fn count_refused(&self, error: OpenError) {
        match error {
            OpenError::Replayed => drop(self.replayed.fetch_add(1, Relaxed)),
            OpenError::NotAuthentic => drop(self.forged.fetch_add(1, Relaxed)),
            OpenError::Malformed | OpenError::Ended => {}
        }
    }

    pub(crate) fn count_received(&self, packets: u64, bytes: u64) {
        self.received_packets.fetch_add(packets, Relaxed);
        self.received_bytes.fetch_add(bytes, Relaxed);
    }

    /// Packets sent.
    #[must_use]
    pub fn sent_packets(&self) -> u64 {
        self.sent_packets.load(Relaxed)
    }

    /// Bytes of packets sent.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Relaxed)
    }

    /// Packets delivered.
    #[must_use]
    pub fn received_packets(&self) -> u64 {
        self.received_packets.load(Relaxed)
    }

    /// Bytes of packets delivered.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }
}

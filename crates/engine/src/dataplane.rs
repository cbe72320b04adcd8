//! The part of a node that runs on data threads.
//!
//! The engine owns every decision; what data threads need of it is a [`DataPlane`]: an immutable
//! snapshot of routes, sessions and chosen paths. A thread loads the newest one from the
//! [`DataPlaneHandle`] per batch and runs packets to completion on it. What the snapshot cannot
//! answer goes back to the engine, which is also what a node with one thread does for everything.

mod inbound;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::ArcSwap;
use packet::Segments;
use relay_proto::{HEAD_LEN, Head};
use wireguard_proto::{
    OpenError, PublicKey, Session, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, padded_len,
};

use crate::routes::{Routes, addresses, packet_len};
use crate::traffic::Traffic;

/// Where data threads find the newest snapshot.
///
/// The default has a snapshot without anybody, and no engine that replaces it.
#[derive(Clone, Debug, Default)]
pub struct DataPlaneHandle(Arc<ArcSwap<DataPlane>>);

impl DataPlaneHandle {
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
///
/// What changes with every session and path holds the peers that have a session, and no others: a
/// network of many silent members costs nothing there.
#[derive(Debug, Default)]
pub struct DataPlane {
    pub(crate) directory: Arc<Directory>,
    /// Peers with a session, by place.
    peers: HashMap<Place, Arc<PeerPlane>>,
    /// Sessions that open packets, by local index.
    sessions: HashMap<u32, (Arc<Session>, Arc<PeerPlane>)>,
    circuits: Circuits,
}

/// What becomes of datagrams on circuits, by where they come from and what stands before them.
pub(crate) type Circuits = HashMap<(SocketAddr, Head), Onward>;

/// Where a datagram goes that came over a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onward {
    /// It is for this device, from this address of its own making.
    Here(SocketAddr),
    /// To this other device.
    There(SocketAddr),
}

/// Where the datagrams of a session go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The chosen path.
    pub(crate) path: SocketAddr,
    /// Where it begins: the peer, or a peer relay.
    pub(crate) to: SocketAddr,
    /// What a peer relay needs to pass them on.
    pub(crate) head: Option<Head>,
    /// The largest packets that it carries.
    pub(crate) mtu: usize,
}

impl Route {
    /// Straight to the peer.
    pub(crate) fn straight(to: SocketAddr, mtu: usize) -> Self {
        Self { path: to, to, head: None, mtu }
    }
}

/// Names a peer within one directory.
pub(crate) type Place = usize;

/// Whose addresses are whose: what changes when members come, go and get other addresses.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    routes: Routes<Place>,
    keys: Vec<PublicKey>,
    places: HashMap<PublicKey, Place>,
    own: Vec<IpAddr>,
}

impl Directory {
    /// A directory of this device alone.
    pub(crate) fn new(own: Vec<IpAddr>) -> Self {
        Self { own, ..Self::default() }
    }

    /// Adds a peer with its addresses, but for those that are taken.
    pub(crate) fn add(&mut self, key: PublicKey, addresses: impl Iterator<Item = IpAddr>) {
        let place = self.keys.len();
        self.keys.push(key);
        self.places.insert(key, place);
        for address in addresses {
            if !self.own.contains(&address) && self.routes.lookup(address).is_none() {
                self.routes.insert(address.into(), place);
            }
        }
    }

    /// This device's addresses.
    pub(crate) fn own(&self) -> &[IpAddr] {
        &self.own
    }

    /// The key of the peer that a packet from this device is for.
    pub(crate) fn receiver(&self, packet: &[u8]) -> Option<PublicKey> {
        self.place_of(packet).map(|place| self.keys[place])
    }

    fn place_of(&self, packet: &[u8]) -> Option<Place> {
        let (_, destination) = addresses(packet)?;
        self.routes.lookup(destination)
    }

    /// The length of a packet from the peer with this key, if it may come from there and is for
    /// this device.
    ///
    /// # Errors
    /// Why it must not be delivered.
    pub(crate) fn check(&self, key: &PublicKey, packet: &[u8]) -> Result<usize, DropReason> {
        let place = self.places.get(key).ok_or(DropReason::ForeignSource)?;
        Gate::new(self, *place).check(packet)
    }
}

/// What lets packets of one peer through to this device.
struct Gate<'d> {
    directory: &'d Directory,
    peer: Place,
    /// Source and destination of the last one that it let through; most that follow have the same.
    passed: Option<(IpAddr, IpAddr)>,
}

impl<'d> Gate<'d> {
    fn new(directory: &'d Directory, peer: Place) -> Self {
        Self { directory, peer, passed: None }
    }

    /// The length that the packet gives itself.
    fn check(&mut self, packet: &[u8]) -> Result<usize, DropReason> {
        let ends = addresses(packet).ok_or(DropReason::NotIp)?;
        if self.passed != Some(ends) {
            let (source, destination) = ends;
            if self.directory.routes.lookup(source) != Some(self.peer) {
                return Err(DropReason::ForeignSource);
            }
            if !self.directory.own.contains(&destination) {
                return Err(DropReason::ForeignDestination);
            }
            self.passed = Some(ends);
        }
        packet_len(packet).ok_or(DropReason::NotIp)
    }
}

/// What the data plane knows about one peer.
#[derive(Debug)]
pub(crate) struct PeerPlane {
    /// The key of its tunnel.
    pub(crate) key: PublicKey,
    pub(crate) place: Place,
    /// The session to seal with and where to send; without a direct path the engine does it.
    pub(crate) direct: Option<(Arc<Session>, Route)>,
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
    /// Packets with content that were received from where ours are sent to; what proves that the chosen path is alive.
    pub(crate) received_on_chosen: AtomicU64,
    /// Packets sent without frames.
    pub(crate) sent_straight: AtomicU64,
    /// Packets of the tunnel that were received without frames, from wherever.
    pub(crate) received_straight: AtomicU64,
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
    /// Sealed datagrams stand in the buffer, each `datagram_len` bytes but the last, which may be
    /// shorter: one `UDP_SEGMENT` send.
    Datagrams {
        /// Where to.
        to: SocketAddr,
        /// Length of all.
        len: usize,
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

/// What comes of datagrams from the network.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// A packet for this device, without padding, in place.
    Packet(&'a mut [u8]),
    /// Only the engine can deal with it: [`Engine::handle_datagram`](crate::Engine::handle_datagram).
    /// The bytes are untouched.
    ToEngine(&'a mut [u8]),
    /// It goes on to another device, as it is now.
    Passed(SocketAddr, &'a mut [u8]),
    /// The engine must be told: [`Engine::handle_notice`](crate::Engine::handle_notice).
    Notice(Notice),
    /// A datagram that is worth nothing.
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
    /// Whether a packet with content came or went. Others are no traffic: they only show that something passes.
    pub data: bool,
}

impl DataPlane {
    pub(crate) fn new(directory: Arc<Directory>, circuits: Circuits) -> Self {
        Self { directory, circuits, ..Self::default() }
    }

    pub(crate) fn circuits(&self) -> &Circuits {
        &self.circuits
    }

    /// Adds a peer of the directory with the sessions that open its packets, once they are
    /// confirmed: the packet that confirms one goes through the engine, since its answer must find
    /// the session, and the path that it was made over, already in use.
    pub(crate) fn add<'a>(
        &mut self,
        key: PublicKey,
        traffic: &Traffic,
        direct: Option<Route>,
        sessions: impl Iterator<Item = &'a Arc<Session>>,
    ) {
        let Some(place) = self.directory.places.get(&key).copied() else { return };
        let direct = traffic.session.clone().zip(direct);
        let counters = Arc::clone(&traffic.counters);
        let peer = Arc::new(PeerPlane { key, place, direct, counters });
        for session in sessions.filter(|session| session.is_confirmed()) {
            let entry = (Arc::clone(session), Arc::clone(&peer));
            self.sessions.insert(session.local_index(), entry);
        }
        self.peers.insert(place, peer);
    }

    /// How a packet or super-packet goes on, before it is split into parts of which none is longer than `longest`.
    #[must_use]
    pub fn way(&self, packet: &[u8], longest: usize) -> Way {
        let Some(place) = self.directory.place_of(packet) else { return Way::None };
        match self.peers.get(&place).and_then(|peer| peer.direct.as_ref()) {
            Some((_, route)) if longest <= route.mtu => Way::Direct,
            Some(_) | None => Way::Engine,
        }
    }

    /// Seals some `parts` of a packet or super-packet for the direct path, each written where it is sealed: at the
    /// beginning of `out`, which grows to what that takes and never shrinks.
    ///
    /// Parts that are larger than the path carries are for the engine.
    pub fn outbound(
        &self,
        (segments, parts): (&Segments<'_>, Range<usize>),
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Outbound {
        let place = self.directory.place_of(segments.whole());
        let Some(place) = place else { return Outbound::NoRoute };
        let Some(peer) = self.peers.get(&place) else { return Outbound::ToEngine };
        let Some((session, route)) = &peer.direct else { return Outbound::ToEngine };
        let first = segments.length(parts.start);
        if first > route.mtu {
            return Outbound::ToEngine;
        }
        let with = (&**session, &*peer.counters);
        let Some((len, wake)) = seal(with, (segments, parts), (out, route.head), route.mtu, now)
        else {
            return Outbound::ToEngine;
        };
        let head_len = if route.head.is_some() { HEAD_LEN } else { 0 };
        let datagram_len = head_len + TRANSPORT_OVERHEAD + padded_len(first, route.mtu);
        let notice = wake.then_some(Notice { peer: peer.key, from: None, data: true });
        Outbound::Datagrams { to: route.to, len, datagram_len, notice }
    }

    /// Where all of these datagrams of one sender go, `segment` bytes each but the last, if they are of one circuit
    /// over this device; they are ready to be sent then, and untouched otherwise.
    #[must_use]
    pub fn pass_on(
        &self,
        from: SocketAddr,
        datagrams: &mut [u8],
        segment: usize,
    ) -> Option<SocketAddr> {
        let head = Head::of(datagrams)?;
        let Some(Onward::There(to)) = self.circuits.get(&(from, head)) else { return None };
        let segment = segment.max(1);
        if !datagrams.chunks(segment).all(|datagram| Head::of(datagram) == Some(head)) {
            return None;
        }
        datagrams.chunks_mut(segment).for_each(Head::descend);
        Some(*to)
    }
}

/// Seals parts of a packet with the session of the direct path, at the beginning of `out`; answers how many bytes that
/// gave and whether the engine must look at the peer, or nothing if the session has ended.
pub(crate) fn seal(
    (session, counters): (&Session, &PeerCounters),
    (segments, parts): (&Segments<'_>, Range<usize>),
    (out, head): (&mut Vec<u8>, Option<Head>),
    mtu: usize,
    now: Instant,
) -> Option<(usize, bool)> {
    let head = head.as_ref().map_or(&[][..], Head::bytes);
    let count = parts.len();
    let numbers = session.reserve(u32::try_from(count).ok()?, now).ok()?;
    let (mut used, mut payload) = (0, 0);
    for (part, number) in parts.zip(numbers) {
        let (len, start) = (segments.length(part), used);
        let padded = padded_len(len, mtu);
        used += head.len() + TRANSPORT_OVERHEAD + padded;
        if out.len() < used {
            out.resize(used, 0);
        }
        let (before, message) = out[start..used].split_at_mut(head.len());
        before.copy_from_slice(head);
        let (packet, padding) = message[TRANSPORT_HEADER_LEN..][..padded].split_at_mut(len);
        segments.write(part, packet);
        padding.fill(0);
        session.seal(number, message);
        payload += len as u64;
    }
    counters.count_sent(count as u64, payload);
    counters.count_sent_straight(count as u64);
    Some((used, session.record_sent(used as u64, true, now)))
}

impl PeerCounters {
    /// Counts packets that go without frames.
    pub(crate) fn count_sent_straight(&self, packets: u64) {
        self.sent_straight.fetch_add(packets, Relaxed);
    }

    pub(crate) fn count_sent(&self, packets: u64, bytes: u64) {
        self.sent_packets.fetch_add(packets, Relaxed);
        self.sent_bytes.fetch_add(bytes, Relaxed);
    }

    fn count_refused(&self, error: OpenError, packets: u64) {
        match error {
            OpenError::Replayed => drop(self.replayed.fetch_add(packets, Relaxed)),
            OpenError::NotAuthentic => drop(self.forged.fetch_add(packets, Relaxed)),
            OpenError::Malformed | OpenError::Ended => {}
        }
    }

    /// Counts a packet that was authentic and yet not to be delivered.
    pub(crate) fn count_undeliverable(&self, reason: DropReason) {
        match reason {
            DropReason::ForeignSource => drop(self.refused_sources.fetch_add(1, Relaxed)),
            DropReason::Session(_) | DropReason::NotIp | DropReason::ForeignDestination => {}
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

//! The other members, as the map has them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use control_proto::{NetworkMap, TunnelRefusal};
use frame_proto::Ends;
use identity::{CandidateKind, DeviceId, NetworkId};
use ipnet::IpNet;
use path::{
    Allocation, Candidate, CandidateFilter, CandidateKind::Relayed, PathAgent, PathConfig,
    RelayChoice,
};
use wireguard_proto::PublicKey;

use crate::engine::Own;
use crate::frames::Frames;
use crate::introductions::Introductions;
use crate::peer::{Peer, wireguard_key};
use crate::plain::PlainPeers;
use crate::psk::End;
use crate::strangers::Strangers;
use crate::traffic::Traffic;

/// Devices that are remembered after they were cut off.
const MAX_FORMER: usize = 64;

/// All peers, by identity and by tunnel key.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// Those without a certificate.
    pub(crate) plain: PlainPeers,
    /// Those that are none yet.
    pub(crate) strangers: Strangers,
    /// Introductions with other tunnel keys than the known ones.
    pub(crate) introductions: Introductions,
    by_device: BTreeMap<DeviceId, Peer>,
    by_key: BTreeMap<PublicKey, DeviceId>,
    /// Members and plain peers that have a session: the only ones that data threads work for.
    live: BTreeSet<PublicKey>,
    /// Peers whose path agents may have something to say.
    touched: BTreeSet<DeviceId>,
    /// When agents want to be called, and the same by device.
    deadlines: BTreeSet<(Instant, DeviceId)>,
    scheduled: BTreeMap<DeviceId, Instant>,
    /// Those that were cut off last, to know them when they try again.
    former: VecDeque<(PublicKey, DeviceId)>,
}

/// What a change of a peer means for its tunnel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TunnelChange {
    /// The tunnel stays as it is.
    None,
    /// There is a new tunnel key.
    Added(PublicKey),
    /// The tunnel key is another one, so the old tunnel ends.
    Replaced(PublicKey, PublicKey),
}

impl Peers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.by_device.values()
    }

    pub(crate) fn get(&self, device: DeviceId) -> Option<&Peer> {
        self.by_device.get(&device)
    }

    pub(crate) fn get_mut(&mut self, device: DeviceId) -> Option<&mut Peer> {
        self.by_device.get_mut(&device)
    }

    /// The peer, whose path agent is looked at before the engine rests.
    pub(crate) fn touch(&mut self, device: DeviceId) -> Option<&mut Peer> {
        let peer = self.by_device.get_mut(&device)?;
        self.touched.insert(device);
        Some(peer)
    }

    pub(crate) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    pub(crate) fn take_touched(&mut self) -> Option<DeviceId> {
        self.touched.pop_first()
    }

    /// Touches the peers whose time has come.
    pub(crate) fn touch_due(&mut self, now: Instant) {
        while let Some((at, device)) = self.deadlines.first().copied() {
            if at > now {
                return;
            }
            self.deadlines.pop_first();
            self.scheduled.remove(&device);
            self.touched.insert(device);
        }
    }

    /// Notes when the peer's agent wants to be called next.
    pub(crate) fn reschedule(&mut self, device: DeviceId) {
        if let Some(at) = self.scheduled.remove(&device) {
            self.deadlines.remove(&(at, device));
        }
        if let Some(at) = self.by_device.get(&device).and_then(Peer::poll_timeout) {
            self.scheduled.insert(device, at);
            self.deadlines.insert((at, device));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.deadlines.first().map(|(at, _)| (*at, "probe paths"))
    }

    pub(crate) fn devices(&self) -> Vec<DeviceId> {
        self.by_device.keys().copied().collect()
    }

    /// The keys of those that have a session.
    pub(crate) fn live(&self) -> impl Iterator<Item = &PublicKey> {
        self.live.iter()
    }

    /// The members that have a session.
    pub(crate) fn live_devices(&self) -> Vec<DeviceId> {
        self.live.iter().filter_map(|key| self.device_of(key)).collect()
    }

    /// The member with this tunnel key.
    pub(crate) fn by_key(&self, key: &PublicKey) -> Option<&Peer> {
        self.by_key.get(key).and_then(|device| self.by_device.get(device))
    }

    /// Notes whether the peer with this key has a session, after one came or went.
    pub(crate) fn settle(&mut self, key: &PublicKey) {
        let is_live = match self.by_key(key) {
            Some(peer) => peer.frames.sessions().next().is_some(),
            None => self.plain.get(key).is_some_and(|peer| !peer.sessions.is_empty()),
        };
        if is_live {
            self.live.insert(*key);
        } else {
            self.live.remove(key);
        }
    }

    pub(crate) fn device_of(&self, key: &PublicKey) -> Option<DeviceId> {
        self.by_key.get(key).copied()
    }

    /// What goes through the tunnel with this key, a member's or a plain peer's.
    pub(crate) fn traffic(&self, key: &PublicKey) -> Option<&Traffic> {
        match self.by_key.get(key) {
            Some(device) => self.by_device.get(device).map(|peer| &peer.traffic),
            None => self.plain.get(key).map(|peer| &peer.traffic),
        }
    }

    /// The same, to change it.
    pub(crate) fn traffic_mut(&mut self, key: &PublicKey) -> Option<&mut Traffic> {
        match self.by_key.get(key) {
            Some(device) => self.by_device.get_mut(device).map(|peer| &mut peer.traffic),
            None => self.plain.get_mut(key).map(|peer| &mut peer.traffic),
        }
    }

    /// What data threads refused since the last call, by member if a member sent it.
    pub(crate) fn take_refusals(&mut self) -> Vec<(Option<DeviceId>, TunnelRefusal, u64)> {
        let mut refusals = Vec::new();
        for key in self.live.iter() {
            let device = self.by_key.get(key).copied();
            let traffic = match device {
                Some(device) => self.by_device.get_mut(&device).map(|peer| &mut peer.traffic),
                None => self.plain.get_mut(key).map(|peer| &mut peer.traffic),
            };
            let of_peer = traffic.into_iter().flat_map(Traffic::take_refusals);
            refusals.extend(of_peer.map(|(what, count)| (device, what, count)));
        }
        refusals
    }

    /// The device that had this tunnel key before it was cut off.
    pub(crate) fn former(&self, key: &PublicKey) -> Option<DeviceId> {
        self.former.iter().find(|(former, _)| former == key).map(|(_, device)| *device)
    }

    /// Takes over what the map says of a peer, whose tunnel key is no other's.
    pub(crate) fn upsert(
        &mut self,
        entry: &control_proto::Peer,
        settings: &PeerSettings,
        own: &Own,
        now: Instant,
    ) -> TunnelChange {
        self.touched.insert(entry.member.device);
        let end = End {
            device: entry.member.device,
            tunnel_key: entry.binding.tunnel_key,
            capability: entry.binding.capability,
        };
        let key = wireguard_key(&end.tunnel_key);
        let before = self.by_device.get(&end.device).map(|peer| peer.end);
        if before == Some(end) {
            let peer = self.by_device.get_mut(&end.device).expect("it was found above");
            peer.member = entry.member.clone();
            settings.announce(peer, entry, now);
            return TunnelChange::None;
        }
        let leads = own.end.device > end.device;
        let agent = PathAgent::new(PathConfig { leads, ..settings.path.clone() });
        let ends = Ends { network: own.network, local: own.end.device, remote: end.device };
        let keys = (&own.secrets.tunnel, &end.tunnel_key);
        let frames = Frames::new(ends, keys, own.has_aes);
        let relays = RelayChoice::new(leads);
        let mut peer = Peer::new(entry.member.clone(), end, agent, relays, frames);
        settings.announce(&mut peer, entry, now);
        let old = self.by_device.insert(end.device, peer);
        self.by_key.insert(key, end.device);
        match old.map(|old| old.key()) {
            Some(old) => {
                if old != key {
                    self.by_key.remove(&old);
                }
                TunnelChange::Replaced(old, key)
            }
            None => TunnelChange::Added(key),
        }
    }

    /// Forgets a peer; answers its tunnel key.
    pub(crate) fn remove(&mut self, device: DeviceId) -> Option<PublicKey> {
        let key = self.by_device.remove(&device)?.key();
        self.by_key.remove(&key);
        self.reschedule(device);
        if self.former.len() == MAX_FORMER {
            self.former.pop_front();
        }
        self.former.push_back((key, device));
        Some(key)
    }
}

/// What is the same for all peers of a node.
#[derive(Clone, Debug)]
pub(crate) struct PeerSettings {
    pub(crate) path: PathConfig,
    pub(crate) local: Vec<Candidate>,
    /// Whether the translator in front gives each destination a port of its own.
    pub(crate) dependent: Option<bool>,
    /// The allocations of this device at TURN servers.
    pub(crate) allocations: Vec<Allocation>,
    loopback: bool,
}

impl PeerSettings {
    /// The settings for a network that routes `overlay`.
    pub(crate) fn new(overlay: Vec<IpNet>, (udp, mtu): (bool, usize), loopback: bool) -> Self {
        let filter = CandidateFilter::new(overlay).with_loopback(loopback);
        Self {
            path: PathConfig { filter, udp, leads: false, mtu },
            local: Vec::new(),
            dependent: None,
            allocations: Vec::new(),
            loopback,
        }
    }

    /// The same settings for a network that routes other prefixes.
    pub(crate) fn set_overlay(&mut self, overlay: Vec<IpNet>) {
        self.path.filter = CandidateFilter::new(overlay).with_loopback(self.loopback);
    }

    fn announce(&self, peer: &mut Peer, entry: &control_proto::Peer, now: Instant) {
        peer.agent.handle_translator(self.dependent);
        peer.agent.handle_local_candidates(&self.local, now);
        peer.agent.handle_allocations(&self.allocations, now);
        let Some(endpoints) = &entry.endpoints else { return };
        peer.relays.handle_announced(&endpoints.relays);
        let candidates: Vec<_> = endpoints
            .candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| {
                let is_relayed = endpoints.is_relayed(index);
                let kind = if is_relayed { Relayed } else { path_kind(candidate.kind) };
                Candidate::new(kind, candidate.address)
            })
            .collect();
        peer.agent.handle_remote_candidates(&candidates, now);
    }
}

/// The prefixes of a network, which are never dialled as an underlay and are routed into it.
pub(crate) fn overlay(network: NetworkId, map: &NetworkMap) -> Vec<IpNet> {
    let (ula, v4) = match map.info() {
        Some(info) => (info.prefix, info.ipv4_prefix),
        None => (identity::ula_prefix(network), identity::ipv4_prefix(network)),
    };
    let ula = ipnet::Ipv6Net::new_assert(ula.network(), 48);
    let v4 = ipnet::Ipv4Net::new_assert(v4.network(), 16);
    vec![ula.into(), v4.into()]
}

fn path_kind(kind: CandidateKind) -> path::CandidateKind {
    match kind {
        CandidateKind::Local => path::CandidateKind::Local,
        CandidateKind::Mapped => path::CandidateKind::Mapped,
        CandidateKind::Reflexive => path::CandidateKind::Reflexive,
    }
}

/// This device's candidates as it announces them, and which of them are at TURN servers.
pub(crate) fn announced(candidates: &[Candidate]) -> (Vec<identity::Candidate>, Option<u16>) {
    let relayed = candidates.iter().zip(0_u32..).filter(|(one, _)| one.kind == Relayed);
    let relayed = relayed.filter_map(|(_, index)| 1_u16.checked_shl(index)).reduce(|a, b| a | b);
    let candidates = candidates
        .iter()
        .map(|candidate| identity::Candidate {
            address: candidate.address,
            kind: match candidate.kind {
                path::CandidateKind::Local => CandidateKind::Local,
                path::CandidateKind::Mapped => CandidateKind::Mapped,
                path::CandidateKind::Reflexive | path::CandidateKind::PeerReflexive | Relayed => {
                    CandidateKind::Reflexive
                }
            },
        })
        .collect();
    (candidates, relayed)
}

/// Where this device is reached, by kind, without what nobody may dial.
pub(crate) fn own_candidates(
    known: impl IntoIterator<Item = (path::CandidateKind, SocketAddr)>,
    filter: &CandidateFilter,
) -> Vec<Candidate> {
    let known = known.into_iter().map(|(kind, address)| Candidate::new(kind, address));
    let mut candidates: Vec<_> =
        known.filter(|candidate| filter.permits(candidate.address)).collect();
    path::order(&mut candidates);
    candidates
}

//! What the command line shows of a node.
//!
//! Plain data: ages and durations instead of instants, text instead of keys, so that it can be
//! serialised as it is. Field names are an interface.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use control_proto::NetworkMap;
use identity::{DeviceId, RelayEntry, RevocationTarget, Scope, TunnelPublicKey, UnixTime};
use noise_channel::{ClockOffset, Now, limits::CLOCK_TOLERANCE};
use path::{Alias, CandidateKind, Hindrance, Path, RemoteStatus};
use serde::{Deserialize, Serialize};

use crate::circuits::Carrier;
use crate::engine::Engine;
use crate::io::ConnectionState;
use crate::peer::Peer;
use crate::relays::FramesLack;
use crate::traffic::Traffic;

/// The state of one network on this device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// The network's name.
    pub network: String,
    /// The NetworkId, z-base-32.
    pub network_id: String,
    /// This device's name; nothing before it has joined.
    pub name: Option<String>,
    /// The DeviceId, z-base-32.
    pub device_id: String,
    /// This device's addresses, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// `online`, `connecting`, `offline`, `awaiting-approval` or `refused`.
    pub connection: String,
    /// More about the connection, with what to do, if there is something to say.
    pub connection_detail: Option<String>,
    /// Seconds until this device's certificate ends; it is renewed before.
    pub certificate_ends_in: Option<u64>,
    /// The version of the map.
    pub map_version: Option<String>,
    /// What inbound packets are let in.
    pub inbound: String,
    /// Whether the controller holds a key that admits devices; nothing before there is a map.
    pub controller_admits: Option<bool>,
    /// The relays of the network.
    pub relays: Vec<RelayStatus>,
    /// The addresses under which this device announces itself.
    pub candidates: Vec<SocketAddr>,
    /// Those of them that STUN servers see.
    pub reflexive: Vec<SocketAddr>,
    /// For which destinations the translator in front uses the same port: `endpoint-independent`,
    /// `address-dependent` or `address-and-port-dependent`, or `none` if there is no translator; nothing if
    /// too few servers have answered.
    pub mapping: Option<String>,
    /// Whom what is in front of IPv4 lets in: a [`path::Filtering`] in words; nothing as long as it is not known.
    pub filtering: Option<String>,
    /// The same of IPv6.
    pub filtering_ipv6: Option<String>,
    /// From one new port of the translator to the next, if it was found to count.
    pub port_step: Option<i16>,
    /// The one at which the router forwards to this device.
    pub mapped: Option<SocketAddr>,
    /// The TURN servers, and what this device has there.
    pub turn: Vec<TurnStatus>,
    /// Between how many pairs of other devices this one passes datagrams on.
    pub passed: usize,
    /// Whether datagrams can be sent at all.
    pub udp: bool,
    /// The other members, then the plain WireGuard peers.
    pub peers: Vec<PeerStatus>,
    /// Seconds that this device's clock lacks, or has too much if below zero, when that is more than
    /// the network tolerates; it is made up for.
    pub clock_offset: Option<i64>,
    /// What the user should know of: a wrong clock, two devices with one address, and the like.
    pub warnings: Vec<String>,
}

/// One relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// The relay's DeviceId.
    pub device_id: String,
    /// Where it stands, as its operator calls it.
    pub region: String,
    /// Whether the link to it is up.
    pub connected: bool,
    /// Whether this device announces that it is reached there.
    pub home: bool,
    /// Milliseconds there and back, as far as that is known.
    pub latency_ms: Option<f64>,
}

/// One TURN server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnStatus {
    /// `udp/ADDRESS` or `tcp/ADDRESS`.
    pub server: String,
    /// `unused` while no traffic lacks a direct path, `asked`, `allocated` or `failed`.
    pub state: String,
    /// The address that peers send to.
    pub relayed: Option<SocketAddr>,
    /// Why it was of no use the last time, with what to do.
    pub problem: Option<String>,
}

/// One other member, or a plain WireGuard peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its DeviceId; for a plain WireGuard peer its key.
    pub device_id: String,
    /// Its addresses, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// `direct ADDRESS`, `turn ADDRESS` where a TURN server passes on what is for that address, `peer-relay NAME` where that
    /// device does, `udp-relay ADDRESS` where a relay does, `stream`, `relay RELAY` or `none`.
    pub path: String,
    /// Round trip of the direct path in milliseconds.
    pub latency_ms: Option<f64>,
    /// Whether there is a session now.
    pub session: bool,
    /// Seconds since the session was made.
    pub session_age: Option<u64>,
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes of packets sent.
    pub sent_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes of packets received.
    pub received_bytes: u64,
}

/// Why packets to a peer go where they go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyStatus {
    /// The peer's name.
    pub name: String,
    /// Its DeviceId.
    pub device_id: String,
    /// The path.
    pub path: String,
    /// The largest packets, in bytes, that it is known to carry; none if it carries any.
    pub mtu: Option<usize>,
    /// The latest decisions, newest first.
    pub decisions: Vec<DecisionStatus>,
    /// The addresses of the peer that are tried.
    pub candidates: Vec<CandidateStatus>,
    /// The ways for frames.
    pub frames: Vec<FramesStatus>,
    /// Why there is no direct path on which nobody passes packets on, if there is none.
    pub hindrance: Option<String>,
}

/// One decision about a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionStatus {
    /// Seconds ago.
    pub age: f64,
    /// The path that was chosen.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// One way for frames to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FramesStatus {
    /// As paths are written: `stream` or `relay RELAY`.
    pub path: String,
    /// Round trip to the relay in milliseconds.
    pub latency_ms: Option<f64>,
    /// What it lacks; none if frames go that way now.
    pub lacks: Option<String>,
}

/// One address of a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateStatus {
    /// The address.
    pub address: SocketAddr,
    /// `local`, `mapped`, `reflexive`, `peer-reflexive`, `relayed` where a TURN server stands in between, or `peer-relay`
    /// or `udp-relay` where the address is the one of the device or relay in between.
    pub kind: String,
    /// Whether it answered lately.
    pub proven: bool,
    /// Round trip in milliseconds.
    pub latency_ms: Option<f64>,
    /// Probes lost, in percent.
    pub loss_percent: u8,
    /// What it lacks; none if it is in use.
    pub lacks: Option<String>,
}

impl Engine {
    /// The state of this network on this device.
    #[must_use]
    pub fn status(&self, now: Now) -> EngineStatus {
        let client = self.control.client();
        let wall = self.wall(now);
        let own = client.map().peer(self.own.end.device).map(|peer| &peer.member);
        let (connection, connection_detail) = connection_text(&self.connection());
        let clock_offset = clock_offset(self.saved.clock_offset());
        let [filtering, filtering_ipv6] = self.stun.filtering();
        let stale = self.revocations_age(now).filter(|_| self.alarms.is_stale());
        EngineStatus {
            network: self.own.network_name.to_string(),
            network_id: self.own.network.to_string(),
            name: own.map(|member| member.name.to_string()),
            device_id: self.own.end.device.to_string(),
            addresses: self.own_addresses(now),
            connection,
            connection_detail,
            certificate_ends_in: own.map(|member| member.not_after.since(wall)),
            map_version: client
                .map()
                .version()
                .map(|version| format!("{}.{}", version.epoch, version.number)),
            inbound: "all members may connect".to_owned(),
            controller_admits: controller_admits(client.map(), wall),
            relays: self.relays.status().map(|relay| self.relay_status(relay)).collect(),
            candidates: self.settings.local.iter().map(|candidate| candidate.address).collect(),
            reflexive: self.stun.reflexive().into_iter().collect(),
            mapping: self.mapping_text(),
            filtering: filtering.map(|filtering| filtering.to_string()),
            filtering_ipv6: filtering_ipv6.map(|filtering| filtering.to_string()),
            port_step: self.underlay.surveys.found().map(|found| found.step),
            mapped: self.underlay.mapped,
            turn: self.turns.statuses().collect(),
            passed: self.circuits.passed(),
            udp: self.settings.path.udp,
            peers: self.peer_statuses(now.instant),
            clock_offset,
            warnings: clock_offset
                .map(clock_warning)
                .into_iter()
                .chain(stale.map(stale_warning))
                .chain(self.turns.statuses().filter_map(|status| turn_warning(&status)))
                .collect(),
        }
    }

    fn relay_status(&self, (entry, connected, home): (&RelayEntry, bool, bool)) -> RelayStatus {
        RelayStatus {
            device_id: entry.device.to_string(),
            region: entry.region.clone(),
            connected,
            home,
            latency_ms: self.relay_latency(entry.device).map(millis),
        }
    }

    /// How far a relay is, by datagrams or else as streams tell.
    fn relay_latency(&self, relay: DeviceId) -> Option<Duration> {
        let (servers, measured) = self.relays.distance(relay)?;
        let answers = servers.iter().filter_map(|server| self.stun.latency(*server));
        answers.min().or(measured)
    }

    fn mapping_text(&self) -> Option<String> {
        let is_own = |seen: &SocketAddr| seen.is_ipv4() && self.underlay.interfaces.contains(seen);
        if self.stun.reflexive().iter().any(is_own) {
            return Some("none".to_owned());
        }
        self.stun.mapping().map(|mapping| mapping.to_string())
    }

    fn peer_statuses(&self, now: Instant) -> Vec<PeerStatus> {
        let members = self.peers.iter().map(|peer| {
            let status = self.peer_status(peer, now);
            match self
                .relays
                .route(peer.relays.relays())
                .filter(|_| peer.agent.chosen() == Path::Relay)
            {
                Some(relay) => PeerStatus { path: format!("relay {relay}"), ..status },
                None => status,
            }
        });
        let plain = self.peers.plain.iter().map(|(key, peer)| {
            let path = self.plain_endpoint(key).map_or(Path::None, Path::Direct);
            let about = About {
                name: peer.name.to_string(),
                device_id: TunnelPublicKey::from_bytes(*key.as_bytes()).to_string(),
                addresses: peer.addresses.clone(),
            };
            traffic_status(about, path, &peer.traffic, now)
        });
        members.chain(plain).collect()
    }

    /// Why packets to a peer go where they go.
    #[must_use]
    pub fn why(&self, peer: DeviceId, now: Now) -> Option<WhyStatus> {
        let peer = self.peers.get(peer)?;
        let decisions = peer.agent.why().map(|decision| DecisionStatus {
            age: now.instant.saturating_duration_since(decision.at).as_secs_f64(),
            path: self.path_text(peer, decision.path),
            reason: decision.reason.to_string(),
        });
        let remotes = peer.agent.remotes(now.instant).into_iter();
        let candidates = remotes.map(|remote| self.candidate_status(&remote));
        let (device, chosen) = (peer.device(), peer.agent.chosen());
        Some(WhyStatus {
            name: peer.member.name.to_string(),
            device_id: device.to_string(),
            path: self.path_text(peer, chosen),
            mtu: peer.agent.mtu(),
            decisions: decisions.collect(),
            candidates: candidates.collect(),
            frames: self.frames_statuses(peer),
            hindrance: peer.agent.hindrance(now.instant).map(|it| self.hindrance_text(it)),
        })
    }

    fn frames_statuses(&self, peer: &Peer) -> Vec<FramesStatus> {
        let (device, chosen) = (peer.device(), peer.agent.chosen());
        let place = (peer.relays.relays(), &*peer.member.groups);
        let route = self.relays.route(place.0);
        let used = match chosen {
            Path::Stream => Some(device),
            Path::Relay => route,
            Path::Direct(_) | Path::None => None,
        };
        let status = |(way, lack): (DeviceId, FramesLack)| FramesStatus {
            path: if way == device { "stream".to_owned() } else { format!("relay {way}") },
            latency_ms: self.relay_latency(way).map(millis),
            lacks: (used != Some(way)).then(|| lack.to_string()),
        };
        self.relays.frames_lacks(device, place).into_iter().map(status).collect()
    }

    fn hindrance_text(&self, hindrance: Hindrance) -> String {
        let is_asked = self.relays.stun_servers().iter().any(|servers| !servers.is_empty());
        let is_blocked = is_asked && self.stun.reflexive().is_empty();
        if hindrance == Hindrance::NoAnswer && is_blocked {
            return "UDP seems to be blocked where this device is: no STUN server answers it either"
                .to_owned();
        }
        hindrance.to_string()
    }

    fn candidate_status(&self, remote: &RemoteStatus) -> CandidateStatus {
        let address = remote.candidate.address;
        let (address, kind) = match Alias::of(address) {
            Some(Alias::Turn(_, peer)) => (peer.into(), kind_text(CandidateKind::Relayed)),
            Some(Alias::Circuit(number)) => {
                let kind = match self.carrier(number) {
                    Some(Carrier::Relay(_)) => "udp-relay",
                    Some(Carrier::Member(_)) | None => "peer-relay",
                };
                (self.circuit(number).map_or(address, |(carrier, _)| carrier), kind)
            }
            Some(Alias::Socket(..)) | None => {
                (Alias::reached(address), kind_text(remote.candidate.kind))
            }
        };
        CandidateStatus {
            address,
            kind: kind.to_owned(),
            proven: remote.proven,
            latency_ms: remote.latency.map(millis),
            loss_percent: remote.loss_percent,
            lacks: remote.lacks.map(|lack| lack.to_string()),
        }
    }

    /// A path to a peer in words: `direct ADDRESS`, `turn ADDRESS`, `peer-relay NAME`, `udp-relay ADDRESS`, `stream`,
    /// `relay` or `none`.
    #[must_use]
    pub fn describe(&self, peer: DeviceId, path: Path) -> String {
        let peer = self.peers.get(peer);
        peer.map_or_else(|| path.to_string(), |peer| self.path_text(peer, path))
    }

    fn path_text(&self, peer: &Peer, path: Path) -> String {
        let way = match path {
            Path::Direct(address) => Alias::of(address),
            Path::Relay | Path::Stream | Path::None => None,
        };
        match way {
            Some(Alias::Circuit(number)) => match self.carrier(number) {
                Some(Carrier::Member(member)) => match self.peers.get(member) {
                    Some(member) => format!("peer-relay {}", member.member.name),
                    None => "peer-relay".to_owned(),
                },
                Some(Carrier::Relay(_)) => match self.circuit(number) {
                    Some((at, _)) => format!("udp-relay {at}"),
                    None => "udp-relay".to_owned(),
                },
                None => "none".to_owned(),
            },
            Some(Alias::Turn(..) | Alias::Socket(..)) | None => peer.agent.describe(path),
        }
    }

    fn peer_status(&self, peer: &Peer, now: Instant) -> PeerStatus {
        let chosen = peer.agent.chosen();
        let about = About {
            name: peer.member.name.to_string(),
            device_id: peer.device().to_string(),
            addresses: peer.addresses().collect(),
        };
        PeerStatus {
            path: self.path_text(peer, chosen),
            latency_ms: peer.agent.latency().map(millis),
            ..traffic_status(about, chosen, &peer.traffic, now)
        }
    }

    /// The peer with this name, DeviceId or address.
    #[must_use]
    pub fn find_peer(&self, text: &str) -> Option<DeviceId> {
        let address: Option<IpAddr> = text.parse().ok();
        self.peers
            .iter()
            .find(|peer| {
                peer.member.name.as_str().eq_ignore_ascii_case(text)
                    || peer.device().to_string() == text
                    || address.is_some_and(|address| peer.addresses().any(|own| own == address))
            })
            .map(Peer::device)
    }
}

/// Whether the controller could admit devices by itself: it publishes the delegation of every key that
/// it holds. One that kept quiet about a key would not be found out here.
fn controller_admits(map: &NetworkMap, wall: UnixTime) -> Option<bool> {
    map.version()?;
    let mut delegations = map.authorities().signed_delegations();
    Some(delegations.any(|signed| {
        map.authorities().verify(signed, Scope::Issue).is_ok_and(|delegation| {
            let revoked = RevocationTarget::Delegated(delegation.key);
            delegation.validity.check(wall).is_ok() && !map.revocations().contains(&revoked)
        })
    }))
}

/// The offset in seconds; nothing while the clock is as right as the network asks.
fn clock_offset(ClockOffset(millis): ClockOffset) -> Option<i64> {
    (u128::from(millis.unsigned_abs()) > CLOCK_TOLERANCE.as_millis()).then_some(millis / 1_000)
}

fn clock_warning(seconds: i64) -> String {
    let direction = if seconds > 0 { "behind" } else { "ahead of" };
    format!(
        "this device's clock is {} s {direction} the network's, which is made up for here but not in \
         other programs; set it, for instance with `timedatectl set-ntp true`",
        seconds.unsigned_abs()
    )
}

fn stale_warning(seconds: u64) -> String {
    format!(
        "nobody has confirmed the list of removed devices for {} minutes, so that a device removed since \
         may still be let in here; check that the controller runs and can be reached",
        seconds / 60
    )
}

fn turn_warning(status: &TurnStatus) -> Option<String> {
    let problem = status.problem.as_ref()?;
    Some(format!("the TURN server {} is of no use: {problem}", status.server))
}

fn connection_text(state: &ConnectionState) -> (String, Option<String>) {
    let (text, detail) = match state {
        ConnectionState::Offline => {
            ("offline", Some("no controller answers; the cached map serves".to_owned()))
        }
        ConnectionState::Connecting => ("connecting", None),
        ConnectionState::AwaitingApproval => (
            "awaiting-approval",
            Some("approve it with `shadowmesh device approve` on the controller".to_owned()),
        ),
        ConnectionState::Online => ("online", None),
        ConnectionState::Refused { reason } => ("refused", Some(reason.clone())),
    };
    (text.to_owned(), detail)
}

/// Who a peer is.
struct About {
    name: String,
    device_id: String,
    addresses: Vec<IpAddr>,
}

fn traffic_status(about: About, path: Path, traffic: &Traffic, now: Instant) -> PeerStatus {
    let session = traffic.usable(now);
    PeerStatus {
        name: about.name,
        device_id: about.device_id,
        addresses: about.addresses,
        path: path.to_string(),
        latency_ms: None,
        session: session.is_some(),
        session_age: session.map(|session| session.age(now).as_secs()),
        sent_packets: traffic.counters.sent_packets(),
        sent_bytes: traffic.counters.sent_bytes(),
        received_packets: traffic.counters.received_packets(),
        received_bytes: traffic.counters.received_bytes(),
    }
}

fn kind_text(kind: CandidateKind) -> &'static str {
    match kind {
        CandidateKind::Local => "local",
        CandidateKind::Mapped => "mapped",
        CandidateKind::Reflexive => "reflexive",
        CandidateKind::PeerReflexive => "peer-reflexive",
        CandidateKind::Relayed => "relayed",
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_proto::{MapChunk, MapItem, MapVersion};
    use identity::{DelegatedKey, Delegation, NetworkKey, Signed, Validity};

    fn map_with(scope: Option<Scope>) -> NetworkMap {
        let root = NetworkKey::from_bytes(&[7; 32]);
        let network = root.id();
        let items = scope.map(|scope| {
            let key = DelegatedKey::from_bytes(&[8; 32]).id();
            let validity = Validity::starting(UnixTime(1_000), 1_000);
            let limits = Default::default();
            let delegation = Delegation { network, key, scope, validity, limits };
            MapItem::Delegation(Signed::sign(network, &root, &delegation)).to_bytes().into()
        });
        let version = MapVersion { epoch: 0, number: 1 };
        let items = items.into_iter().collect();
        let chunk = MapChunk { base: None, version, items, last: true };
        let mut map = NetworkMap::new(network);
        assert!(map.apply(&chunk, UnixTime(1_500)).events.is_empty());
        map
    }

    #[test]
    fn a_controller_admits_if_it_holds_a_key_to_issue() {
        let admits = |map: &NetworkMap, wall| controller_admits(map, UnixTime(wall));
        assert_eq!(admits(&map_with(Some(Scope::Issue)), 1_500), Some(true));
        assert_eq!(admits(&map_with(Some(Scope::Issue)), 2_000), Some(false), "it ended");
        assert_eq!(admits(&map_with(Some(Scope::Renew)), 1_500), Some(false));
        assert_eq!(admits(&map_with(None), 1_500), Some(false));
        let network = NetworkKey::from_bytes(&[7; 32]).id();
        assert_eq!(admits(&NetworkMap::new(network), 1_500), None);
    }

    #[test]
    fn a_clock_within_the_tolerance_is_right() {
        assert_eq!(clock_offset(ClockOffset(0)), None);
        assert_eq!(clock_offset(ClockOffset(-60_000)), None);
        assert_eq!(clock_offset(ClockOffset(60_999)), Some(60));
        assert_eq!(clock_offset(ClockOffset(i64::MIN)), Some(i64::MIN / 1_000));
    }

    #[test]
    fn a_wrong_clock_is_told_with_its_direction_and_what_to_do() {
        let text = clock_warning(7_200);
        assert!(text.contains("7200 s behind") && text.contains("timedatectl set-ntp true"));
        assert!(clock_warning(-90).contains("90 s ahead of"));
    }
}

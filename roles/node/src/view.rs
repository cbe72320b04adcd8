//! What the engine says, in the words of the local API.

use std::net::{IpAddr, SocketAddr};

use engine::{ConnectionState, EngineStatus, RelayStatus, TurnStatus, WhyStatus};
use ipnet::IpNet;

use crate::{
    api::{
        Membership, Netcheck, NetworkStatus, PathKind, PathView, PeerStatus, RelayCheck, TurnCheck,
        Why, WhyEntry, WhyPath,
    },
    fault::Fault,
    host::Host,
};

/// How a device stands with its network.
pub(crate) fn membership(state: &ConnectionState, admitted: bool) -> (Membership, Option<String>) {
    match state {
        ConnectionState::Offline => (Membership::Offline, None),
        ConnectionState::Connecting if admitted => (Membership::Offline, None),
        ConnectionState::Connecting => (Membership::Joining, None),
        ConnectionState::AwaitingApproval => (
            Membership::AwaitingApproval,
            Some("ask whoever runs the network for `shadowmesh device approve`".to_owned()),
        ),
        ConnectionState::Online => (Membership::Online, None),
        ConnectionState::Refused { reason } => (Membership::Refused, Some(reason.clone())),
    }
}

/// A network for `status`.
pub(crate) fn network(
    engine: EngineStatus,
    state: Membership,
    fault: Option<&Fault>,
    taken: &[IpNet],
    host: &Host,
) -> NetworkStatus {
    let mut advice = engine.warnings;
    match fault {
        Some(fault) => advice.push(format!("the controller is not reached: {fault}")),
        None => advice.extend(engine.connection_detail),
    }
    let here = |addresses: Vec<IpAddr>| -> Vec<IpAddr> {
        let is_taken = |address: &IpAddr| taken.iter().any(|prefix| prefix.contains(address));
        addresses.into_iter().filter(|address| !is_taken(address)).collect()
    };
    advice.extend(taken.iter().map(|prefix| {
        format!(
            "another network of this device has addresses of {prefix} too, so here this network goes \
             without; `shadowmesh leave` of the other makes room"
        )
    }));
    NetworkStatus {
        zone: format!("{}.alt", engine.network),
        id: engine.network_id,
        name: engine.network,
        device: engine.device_id,
        device_name: engine.name.unwrap_or_default(),
        addresses: here(engine.addresses),
        interface: host.interface().map(|(name, _)| name.to_owned()),
        membership: state,
        clock_offset_seconds: engine.clock_offset,
        advice,
        inbound: format!("{}, {}", engine.inbound, host.reach()),
        admission: admission(engine.controller_admits).to_owned(),
        controller_admits: engine.controller_admits,
        relays: engine.relays.iter().filter(|relay| relay.connected).map(relay_name).collect(),
        turn: engine.turn.into_iter().map(turn).collect(),
        passed: engine.passed,
        peers: engine
            .peers
            .into_iter()
            .map(peer)
            .map(|peer| PeerStatus { addresses: here(peer.addresses), ..peer })
            .collect(),
    }
}

fn admission(controller_admits: Option<bool>) -> &'static str {
    match controller_admits {
        Some(true) => "by invite; the controller could admit devices by itself (simple mode)",
        Some(false) => {
            "by invite; the controller holds no key to admit devices by itself (strict mode)"
        }
        None => "by invite; whether the controller could admit devices by itself shows in its map",
    }
}

/// A network for `netcheck`.
pub(crate) fn netcheck(engine: EngineStatus, state: Membership) -> Netcheck {
    let relays = engine.relays.iter().map(|relay| RelayCheck {
        name: relay_name(relay),
        attached: relay.connected,
        home: relay.home,
        latency_ms: relay.latency_ms,
    });
    let (seen, mapped) = (&engine.reflexive, engine.mapped);
    let is_relayed =
        |address: &SocketAddr| engine.turn.iter().any(|turn| turn.relayed == Some(*address));
    let is_local = |address: &SocketAddr| {
        !seen.contains(address) && Some(*address) != mapped && !is_relayed(address)
    };
    let local = engine.candidates.into_iter().filter(is_local).collect();
    Netcheck {
        udp: engine.udp && !engine.reflexive.is_empty(),
        controller: state == Membership::Online,
        relays: relays.collect(),
        turn: engine.turn.iter().cloned().map(turn).collect(),
        reflexive: engine.reflexive,
        mapping: engine.mapping,
        filtering: engine.filtering,
        filtering_ipv6: engine.filtering_ipv6,
        port_step: engine.port_step,
        mapped: mapped.into_iter().collect(),
        local,
    }
}

/// The answer to `why`.
pub(crate) fn why(why: WhyStatus) -> Why {
    let candidates = why.candidates.into_iter().map(|candidate| {
        let kind = match candidate.kind.as_str() {
            "relayed" => PathKind::Turn,
            "peer-relay" => PathKind::PeerRelay,
            "udp-relay" => PathKind::UdpRelay,
            _ => PathKind::Direct,
        };
        let (via, latency_ms) = (candidate.address.to_string(), candidate.latency_ms);
        WhyPath {
            path: PathView { kind, via, latency_ms },
            source: Some(candidate.kind),
            loss_percent: Some(candidate.loss_percent),
            lacks: candidate.lacks,
        }
    });
    let frames = why.frames.into_iter().filter_map(|way| {
        Some(WhyPath {
            path: path(&way.path, way.latency_ms)?,
            source: None,
            loss_percent: None,
            lacks: way.lacks,
        })
    });
    let decisions = why.decisions.into_iter().map(|decision| WhyEntry {
        seconds_ago: decision.age as u64,
        text: format!("{}: {}", decision.path, decision.reason),
    });
    Why {
        peer: why.name,
        path: path(&why.path, None),
        mtu: why.mtu,
        decisions: decisions.collect(),
        hindrance: why.hindrance,
        candidates: candidates.chain(frames).collect(),
    }
}

/// A path from the engine's words for it: `direct ADDRESS`, `turn ADDRESS`, `peer-relay NAME`,
/// `udp-relay ADDRESS`, `stream`, `relay`, `relay RELAY` or `none`.
pub(crate) fn path(text: &str, latency_ms: Option<f64>) -> Option<PathView> {
    let (kind, via) = text.split_once(' ').unwrap_or((text, ""));
    let kind = match kind {
        "direct" => PathKind::Direct,
        "turn" => PathKind::Turn,
        "peer-relay" => PathKind::PeerRelay,
        "udp-relay" => PathKind::UdpRelay,
        "stream" => PathKind::Stream,
        "relay" => PathKind::Relay,
        _ => return None,
    };
    Some(PathView { kind, via: via.to_owned(), latency_ms })
}

fn peer(peer: engine::PeerStatus) -> PeerStatus {
    PeerStatus {
        path: path(&peer.path, peer.latency_ms),
        id: peer.device_id,
        name: peer.name,
        addresses: peer.addresses,
        handshake_seconds: peer.session_age,
        received: peer.received_bytes,
        sent: peer.sent_bytes,
    }
}

fn turn(turn: TurnStatus) -> TurnCheck {
    let TurnStatus { server, state, relayed, problem } = turn;
    TurnCheck { server, state, relayed, problem }
}

fn relay_name(relay: &RelayStatus) -> String {
    if relay.region.is_empty() {
        relay.device_id.clone()
    } else {
        format!("{} ({})", relay.device_id, relay.region)
    }
}

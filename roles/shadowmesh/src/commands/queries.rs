//! What asks a running node: status, ping, why, netcheck, leave, down.

use std::time::Duration;

use node::api::{
    Client, Membership, NetworkStatus, PathKind, PathView, PeerStatus, Running, Status, TurnCheck,
    WhyPath,
};
use platform::journal::Journal;

use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output::{
    BAD, BOLD, DIM, GOOD, WARN, bytes, json, line, note, printable, rough, styled, table,
};

/// How long `ping` rests between two.
const PING_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) async fn status(client: &Client, as_json: bool) -> Result<(), Failure> {
    let status = client.status().await?;
    if as_json {
        json(&status);
        return Ok(());
    }
    line(running(&status));
    for network in &status.networks {
        line("");
        show_network(network);
    }
    if status.networks.is_empty() {
        line("In no network yet: `shadowmesh up INVITE` joins one.");
    }
    Ok(())
}

pub(crate) async fn ping(
    client: &Client,
    peer: &str,
    count: u32,
    as_json: bool,
) -> Result<(), Failure> {
    let mut answered = 0;
    let mut last = None;
    for round in 0..count {
        if round > 0 {
            tokio::time::sleep(PING_INTERVAL).await;
        }
        match client.ping(peer).await {
            Ok(reply) if as_json => {
                answered += 1;
                json(&reply);
            }
            Ok(reply) => {
                answered += 1;
                line(format_args!("{}: {}", styled(BOLD, &reply.peer), path(&reply.path)));
            }
            Err(error) => {
                let failure = Failure::from(error);
                if failure.exit != Exit::Timeout {
                    return Err(failure);
                }
                note(styled(WARN, &failure.message));
                last = Some(failure);
            }
        }
    }
    match last {
        Some(failure) if answered == 0 => Err(failure),
        _ => Ok(()),
    }
}

pub(crate) async fn why(client: &Client, peer: &str, as_json: bool) -> Result<(), Failure> {
    let why = client.why(peer).await?;
    if as_json {
        json(&why);
        return Ok(());
    }
    let now = why.path.as_ref().map_or_else(|| "no path yet".to_owned(), path);
    line(format_args!("{}: {now}", styled(BOLD, &why.peer)));
    if let Some(mtu) = why.mtu {
        line(format_args!("  packets of up to {mtu} bytes"));
    }
    if let Some(hindrance) = &why.hindrance {
        line(format_args!("  no direct path: {hindrance}"));
    }
    for decision in &why.decisions {
        let ago = rough(Duration::from_secs(decision.seconds_ago));
        line(format_args!("  {} {}", styled(DIM, format_args!("{ago} ago")), decision.text));
    }
    if !why.candidates.is_empty() {
        line("Known paths:");
        for candidate in &why.candidates {
            let lacks = candidate.lacks.as_deref();
            let standing = lacks.map_or_else(|| styled(GOOD, "in use"), |lacks| styled(DIM, lacks));
            line(format_args!("  {}: {standing}", known(candidate)));
        }
    }
    Ok(())
}

pub(crate) async fn netcheck(client: &Client, as_json: bool) -> Result<(), Failure> {
    let check = client.netcheck().await?;
    if as_json {
        json(&check);
        return Ok(());
    }
    let udp = if check.udp {
        styled(GOOD, "works")
    } else {
        styled(WARN, "no STUN answer: blocked, or off")
    };
    line(format_args!("UDP          {udp}"));
    for address in &check.reflexive {
        line(format_args!("seen as      {address}"));
    }
    if let Some(mapping) = &check.mapping {
        line(format_args!("translator   {}", translator(mapping, check.port_step)));
    }
    for (family, filtering) in [("IPv4", &check.filtering), ("IPv6", &check.filtering_ipv6)] {
        if let Some(filtering) = filtering {
            line(format_args!("filter       {family}: {filtering}"));
        }
    }
    for address in &check.mapped {
        line(format_args!("mapped       {address}"));
    }
    for address in &check.local {
        line(format_args!("local        {address}"));
    }
    let controller =
        if check.controller { styled(GOOD, "connected") } else { styled(WARN, "not connected") };
    line(format_args!("controller   {controller}"));
    for relay in &check.relays {
        let state = match (relay.attached, relay.home) {
            (true, true) => styled(GOOD, "attached"),
            (true, false) => styled(GOOD, "attached for now"),
            (false, true) => styled(WARN, "not reached"),
            (false, false) => styled(DIM, "not attached"),
        };
        let latency =
            relay.latency_ms.map_or_else(String::new, |latency| format!(", {latency:.1} ms"));
        line(format_args!("relay        {} {state}{latency}", printable(&relay.name)));
    }
    for server in &check.turn {
        line(format_args!("turn         {}", turn(server)));
        if let Some(problem) = &server.problem {
            line(format_args!("             {} {problem}", styled(WARN, "!")));
        }
    }
    Ok(())
}

/// A TURN server, and what there is.
fn turn(server: &TurnCheck) -> String {
    let state = match (server.state.as_str(), server.relayed) {
        ("allocated", Some(relayed)) => styled(GOOD, format_args!("allocated {relayed}")),
        ("failed", _) => styled(BAD, "failed"),
        ("unused", _) => styled(DIM, "unused: no traffic lacks a direct path"),
        (state, _) => styled(DIM, state),
    };
    format!("{} {state}", server.server)
}

/// What the translator in front does, and what that means for direct paths.
fn translator(mapping: &str, port_step: Option<i16>) -> String {
    match (mapping, port_step) {
        ("none", _) => "none".to_owned(),
        ("endpoint-independent", _) => format!("{mapping} mapping: good for direct paths"),
        (_, Some(step)) => {
            format!("{mapping} mapping, ports counted by {step}: peers guess the next ones")
        }
        (_, None) => {
            format!(
                "{mapping} mapping, ports at random: direct only to peers that filter by address at most"
            )
        }
    }
}

pub(crate) async fn leave(client: &Client, network: Option<&str>) -> Result<(), Failure> {
    client.leave(network).await?;
    line("Left. The keys of this device in that network are gone; coming back takes a new invite.");
    Ok(())
}

/// Stops the node. One that was killed cannot be stopped any more, but what it changed on this host can be undone.
pub(crate) async fn down(client: &Client, config: &Config) -> Result<(), Failure> {
    let failure = match client.down().await {
        Ok(()) => {
            line("Stopped.");
            return Ok(());
        }
        Err(error) => Failure::from(error),
    };
    let journal = config.node_socket()?.with_file_name(node::JOURNAL);
    if failure.exit != Exit::NotRunning || !journal.exists() {
        return Err(failure);
    }
    Journal::open(&journal).map_err(|error| {
        let text = format!("what a killed node left on this host cannot be undone: {error}");
        Failure::new(Exit::Host, text)
    })?;
    line("No node runs; what a killed one left on this host is undone.");
    Ok(())
}

fn running(status: &Status) -> String {
    let how = match status.running {
        Running::Tun => "with a TUN interface".to_owned(),
        Running::Userspace => "in userspace mode".to_owned(),
        Running::UserspaceWithoutPrivilege => {
            "in userspace mode, for want of the privilege or the device for a TUN interface"
                .to_owned()
        }
    };
    let proxy = status
        .proxy
        .map_or_else(String::new, |proxy| format!(", SOCKS5 and HTTP proxy at {proxy}"));
    let udp = if status.udp { "" } else { ", without UDP" };
    format!("shadowmesh {} runs {how}{proxy}{udp}", status.version)
}

fn show_network(network: &NetworkStatus) {
    let state = match network.membership {
        Membership::Online => styled(GOOD, "online"),
        Membership::Offline => styled(WARN, "controller away; the kept map serves"),
        Membership::Joining => styled(WARN, "joining"),
        Membership::AwaitingApproval => styled(WARN, "waiting for approval"),
        Membership::Refused => styled(BAD, "refused"),
    };
    line(format_args!("{}  {state}", styled(BOLD, &network.zone)));
    let addresses: Vec<String> = network.addresses.iter().map(ToString::to_string).collect();
    line(format_args!("  this device   {}  {}", network.device_name, addresses.join("  ")));
    if let Some(interface) = &network.interface {
        line(format_args!("  interface     {interface}"));
    }
    line(format_args!("  inbound       {}", network.inbound));
    line(format_args!("  admission     {}", network.admission));
    if !network.relays.is_empty() {
        line(format_args!("  relays        {}", network.relays.join(", ")));
    }
    for server in &network.turn {
        line(format_args!("  turn          {}", turn(server)));
    }
    if network.passed > 0 {
        line(format_args!("  passes on     between {} pairs of devices", network.passed));
    }
    for advice in &network.advice {
        line(format_args!("  {} {advice}", styled(WARN, "!")));
    }
    if !network.peers.is_empty() {
        let rows: Vec<Vec<String>> = network.peers.iter().map(peer_row).collect();
        table(&["  PEER", "ADDRESS", "PATH", "HANDSHAKE", "RECEIVED", "SENT"], &rows);
    }
}

fn peer_row(peer: &PeerStatus) -> Vec<String> {
    let handshake =
        peer.handshake_seconds.map(|seconds| rough(Duration::from_secs(seconds)) + " ago");
    vec![
        format!("  {}", peer.name),
        peer.addresses.first().map_or_else(String::new, ToString::to_string),
        peer.path.as_ref().map_or_else(|| "-".to_owned(), path),
        handshake.unwrap_or_else(|| "-".to_owned()),
        bytes(peer.received),
        bytes(peer.sent),
    ]
}

/// A path that is known, with how it became known and what gets lost.
fn known(candidate: &WhyPath) -> String {
    let source = candidate.source.iter().map(|source| format!(" ({source})"));
    let loss = candidate.loss_percent.iter().map(|percent| format!(", {percent} % lost"));
    std::iter::once(path(&candidate.path)).chain(source).chain(loss).collect()
}

fn path(path: &PathView) -> String {
    let kind = match path.kind {
        PathKind::Direct => "direct",
        PathKind::Turn => "turn",
        PathKind::PeerRelay => "through",
        PathKind::UdpRelay => "relay over UDP",
        PathKind::Stream => "stream",
        PathKind::Relay => "relay",
    };
    let latency = path.latency_ms.map_or_else(String::new, |latency| format!(" {latency:.1} ms"));
    let via = if path.via.is_empty() { String::new() } else { format!(" {}", path.via) };
    format!("{kind}{via}{latency}")
}

//! Nodes that find no direct path, and relays that pass their datagrams on over UDP.

use std::time::Duration;

use control_proto::{AdminRequest, SettingsChange};
use engine::CandidateStatus;
use identity::Padding;
use testlab::places::Place;
use testlab::sim::{HostId, RelayHost, World};

use crate::world::{MINUTE, SECOND, at, both_by, ping_both_ways, ping_until};

/// Traffic is lost for so many seconds at most when a relay is gone.
const OUTAGE: u32 = 3;

/// Two nodes behind translators that give each destination a port at random.
fn apart() -> World {
    let mut world = at(1, &[Place::Symmetric; 2]);
    ping_both_ways(&mut world, 10 * SECOND);
    world
}

/// The relay that passes datagrams on from node 0.
fn in_use(world: &World) -> usize {
    let path = world.path(0, 1);
    let is_there =
        |relay: &RelayHost| relay.stun.iter().any(|at| path == format!("udp-relay {at}"));
    world.relays.iter().position(is_there).expect("a relay passes datagrams on")
}

fn circuits(world: &World) -> usize {
    world.relays.iter().map(|relay| relay.circuits.len()).sum()
}

#[test]
fn a_relay_passes_datagrams_on_within_2_s_and_streams_carry_them_no_more() {
    let mut world = apart();
    let took = ping_until(&mut world, 10, both_by("udp-relay")).expect("a relay passes them on");
    assert!(took <= 2, "{took} s");
    let sent = |world: &World| world.relays.iter().map(|relay| relay.sent_bytes).sum::<u64>();
    let before = sent(&world);
    for _ in 0..60 {
        ping_both_ways(&mut world, SECOND);
        // Full packets as well.
        assert!(world.ping_sized(0, 1, 1_280).is_some());
        world.run_for(SECOND);
    }
    assert!(sent(&world) - before < 20_000, "calls, and who asks again");
    assert!(both_by("udp-relay")(&world), "{}", world.path(0, 1));
    let why = world.why(0, 1).expect("they know each other");
    let is_it = |candidate: &&CandidateStatus| candidate.kind == "udp-relay" && candidate.proven;
    assert!(why.candidates.iter().any(|candidate| is_it(&candidate)), "{why:?}");
}

#[test]
fn nodes_of_either_kind_of_address_alone_meet_at_a_relay_over_udp() {
    let mut world = at(1, &[Place::Ipv6Only, Place::PortRestricted]);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(ping_until(&mut world, 10, both_by("udp-relay")).is_some(), "{}", world.path(0, 1));
    assert!(world.path(0, 1).contains('['), "{}", world.path(0, 1));
    assert!(!world.path(1, 0).contains('['), "{}", world.path(1, 0));
}

#[test]
fn a_direct_path_that_comes_up_goes_before_and_circuits_end() {
    let mut world = apart();
    assert!(ping_until(&mut world, 10, both_by("udp-relay")).is_some());
    for node in 0..2 {
        let site = Place::PortRestricted.site(&mut world);
        world.move_node_to_site(node, site);
    }
    assert!(ping_until(&mut world, 20, both_by("direct")).is_some(), "{}", world.path(0, 1));
    for _ in 0..120 {
        world.ping(0, 1);
        world.run_for(SECOND);
    }
    let ended = |world: &mut World| {
        let now = world.now().instant;
        world.relays.iter_mut().for_each(|relay| relay.circuits.expire(now));
        circuits(world)
    };
    assert_eq!(ended(&mut world), 0);
}

#[test]
fn a_relay_that_dies_or_vanishes_is_left_and_whoever_moves_is_found() {
    let mut world = apart();
    for how in 0..3 {
        assert!(ping_until(&mut world, 20, both_by("udp-relay")).is_some(), "{how}");
        let relay = in_use(&world);
        match how {
            0 => world.stop_relay(relay),
            1 => world.cut_off(HostId::Relay(relay)),
            _ => {
                let site = Place::Symmetric.site(&mut world);
                world.move_node_to_site(0, site);
            }
        }
        let took = until_answered(&mut world);
        assert!(took <= OUTAGE * SECOND, "{how}: {took:?}");
        let is_elsewhere = |world: &World| how == 2 || !is_by(world, relay);
        assert!(ping_until(&mut world, 10, is_elsewhere).is_some(), "{how}: {}", world.path(0, 1));
        assert!(ping_until(&mut world, 10, both_by("udp-relay")).is_some(), "{how}");
        match how {
            0 => world.start_relay(relay),
            _ => world.heal(),
        }
        world.run_for(10 * SECOND);
    }
}

/// Lets a node ask the other ten times a second; how long it takes until there is an answer.
fn until_answered(world: &mut World) -> Duration {
    let begin = world.elapsed();
    let mut asked = Vec::new();
    while !asked.iter().any(|question| world.is_answered(0, *question)) {
        assert!(world.elapsed() < begin + MINUTE, "{}", world.path(0, 1));
        asked.push(world.ping(0, 1));
        world.run_for(SECOND / 10);
    }
    world.elapsed() - begin
}

fn is_by(world: &World, relay: usize) -> bool {
    let stun = world.relays[relay].stun;
    let is_it = |path: &str| stun.iter().any(|address| path == format!("udp-relay {address}"));
    is_it(&world.path(0, 1)) || is_it(&world.path(1, 0))
}

#[test]
fn where_udp_is_blocked_frames_go_on_and_nothing_is_passed_on() {
    let mut world = at(1, &[Place::NoUdp, Place::Symmetric]);
    ping_both_ways(&mut world, 10 * SECOND);
    assert_eq!(ping_until(&mut world, 30, |world| world.path(0, 1) != "relay"), None);
    assert!(world.relays.iter().all(|relay| relay.passed_bytes == 0));
    assert!(both_by("relay")(&world));
}

#[test]
fn where_udp_is_blocked_later_frames_take_over_and_give_way_again() {
    let mut world = apart();
    assert!(ping_until(&mut world, 10, both_by("udp-relay")).is_some());
    world.nodes[0].udp_blocked = true;
    let took = ping_until(&mut world, 10, both_by("relay")).expect("frames get through");
    assert!(took <= OUTAGE, "{took} s");
    world.run_for(MINUTE);
    world.nodes[0].udp_blocked = false;
    assert!(ping_until(&mut world, 90, both_by("udp-relay")).is_some(), "{}", world.path(0, 1));
}

#[test]
fn a_member_that_is_removed_is_passed_on_for_no_more() {
    let mut world = apart();
    assert!(ping_until(&mut world, 10, both_by("udp-relay")).is_some());
    world.remove(world.nodes[1].device);
    world.run_for(2 * SECOND);
    assert_eq!(circuits(&world), 0);
}

#[test]
fn relays_that_pass_nothing_on_carry_frames() {
    let mut world = at(1, &[Place::Symmetric; 2]);
    world.relays_pass_on = false;
    ping_both_ways(&mut world, 10 * SECOND);
    assert_eq!(ping_until(&mut world, 30, |world| !both_by("relay")(world)), None);
    assert_eq!(circuits(&world), 0);
}

#[test]
fn what_looks_like_wireguard_may_be_dropped() {
    let mut world = at(1, &[Place::Open; 2]);
    world.censor = |datagram| matches!(datagram, [1..=4, 0, 0, 0, ..]);
    ping_both_ways(&mut world, 20 * SECOND);
    // With a number before it, it does not look so.
    assert!(ping_until(&mut world, 30, both_by("udp-relay")).is_some(), "{}", world.path(0, 1));
}

#[test]
fn where_lengths_or_times_are_hidden_nothing_leaves_the_streams() {
    let mut world = apart();
    assert!(ping_until(&mut world, 10, both_by("udp-relay")).is_some());
    let change = SettingsChange { padding: Some(Padding::Buckets), ..SettingsChange::default() };
    world.admin(AdminRequest::ChangeSettings(change));
    assert!(ping_until(&mut world, 5, both_by("relay")).is_some(), "{}", world.path(0, 1));
    assert_eq!(ping_until(&mut world, 30, |world| !both_by("relay")(world)), None);
}

#[test]
fn who_gets_another_kind_of_address_shows_itself_from_there() {
    let mut world = at(1, &[Place::Ipv6Only, Place::Symmetric]);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(ping_until(&mut world, 10, both_by("udp-relay")).is_some(), "{}", world.path(0, 1));
    let site = Place::Symmetric.site(&mut world);
    world.move_node_to_site(0, site);
    let is_by_ipv4 = |world: &World| both_by("udp-relay")(world) && !world.path(0, 1).contains('[');
    assert!(ping_until(&mut world, 10, is_by_ipv4).is_some(), "{}", world.path(0, 1));
}

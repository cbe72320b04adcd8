//! Streams straight to nodes that listen, on a virtual clock.

use std::time::Duration;

use testlab::sim::{EdgeKind, HostId, INTERNET, Setup, World};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The first node listens, the second has no UDP.
fn world(relays: usize, nodes: usize) -> World {
    let mut world = World::new(Setup { relays, nodes, ..Setup::default() });
    world.listen(0);
    world.nodes[1].udp_blocked = true;
    wait_until_joined(&mut world);
    world
}

fn wait_until_joined(world: &mut World) {
    let have_addresses = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, have_addresses), "every node joins");
    world.run_for(2 * SECOND);
}

fn wait_for_paths(world: &mut World, kind: &str, patience: Duration) {
    let mut waited = Duration::ZERO;
    let are_there =
        |world: &World| world.path(0, 1).starts_with(kind) && world.path(1, 0).starts_with(kind);
    while !are_there(world) {
        assert!(waited < patience, "{} and {}", world.path(0, 1), world.path(1, 0));
        world.ping(1, 0);
        world.run_for(SECOND / 10);
        waited += SECOND / 10;
    }
}

fn through_relays(world: &World) -> u64 {
    world.relays.iter().map(|relay| relay.sent_bytes).sum()
}

/// Asks ten times a second until an answer comes; how long that takes.
fn outage(world: &mut World, patience: Duration) -> Duration {
    let begin = world.elapsed();
    let mut numbers = Vec::new();
    while world.elapsed() - begin < patience {
        numbers.push(world.ping(1, 0));
        let is_answered =
            |world: &World| numbers.iter().any(|number| world.is_answered(1, *number));
        if world.run_until(SECOND / 10, is_answered) {
            return world.elapsed() - begin;
        }
    }
    panic!("nothing is answered for {patience:?}");
}

fn nobody_is_alarmed(world: &World) {
    assert!(world.controller.events.is_empty(), "{:?}", world.controller.events);
    for node in &world.nodes {
        assert!(node.alarms.is_empty(), "{:?}", node.alarms);
    }
}

#[test]
fn without_udp_and_without_any_relay_a_node_that_listens_is_reached() {
    let mut world = world(0, 2);
    assert_eq!(world.path(1, 0), "none");
    assert!(world.ping_until_answered(1, 0, 5 * SECOND), "1 reaches 0");
    assert!(world.ping_until_answered(0, 1, 5 * SECOND), "0 reaches 1 over the same stream");
    assert_eq!((world.path(0, 1), world.path(1, 0)), ("stream".to_owned(), "stream".to_owned()));
    // Idle streams end, and are made again.
    world.run_for(10 * MINUTE);
    assert!(world.ping_until_answered(1, 0, 5 * SECOND));
    nobody_is_alarmed(&world);
}

#[test]
fn the_relay_has_the_first_packets_and_the_stream_the_others() {
    let mut world = world(2, 2);
    let begin = world.elapsed();
    let number = world.ping(1, 0);
    assert!(world.run_until(SECOND, |world| world.is_answered(1, number)));
    let took = world.elapsed() - begin;
    assert!(took <= Duration::from_millis(90), "{took:?} for two round trips over the relay");
    wait_for_paths(&mut world, "stream", 2 * SECOND);
    world.run_for(SECOND);
    let before = through_relays(&world);
    for _ in 0..20 {
        assert!(world.ping_until_answered(1, 0, SECOND));
        assert!(world.ping_until_answered(0, 1, SECOND));
    }
    assert!(through_relays(&world) - before < 500);
    nobody_is_alarmed(&world);
}

#[test]
fn a_listener_that_is_killed_gives_way_to_the_relay_and_is_used_again_when_it_is_back() {
    let mut world = world(2, 2);
    wait_for_paths(&mut world, "stream", 5 * SECOND);
    world.kill_listener(0);
    assert!(outage(&mut world, 3 * SECOND) < SECOND);
    wait_for_paths(&mut world, "relay", SECOND);
    world.run_for(10 * SECOND);
    world.listen(0);
    wait_for_paths(&mut world, "stream", 2 * MINUTE);
    nobody_is_alarmed(&world);
}

#[test]
fn a_stream_that_is_dead_without_saying_so_gives_way_to_the_relay_within_three_seconds() {
    let mut world = world(2, 2);
    wait_for_paths(&mut world, "stream", 5 * SECOND);
    world.cut(HostId::Node(0), HostId::Node(1));
    assert!(outage(&mut world, 10 * SECOND) < 3 * SECOND);
    wait_for_paths(&mut world, "relay", 3 * SECOND);
    world.run_for(20 * SECOND);
    assert!(outage(&mut world, SECOND) < SECOND / 2, "nothing is lost to further attempts");
    world.heal();
    wait_for_paths(&mut world, "stream", 2 * MINUTE);
    nobody_is_alarmed(&world);
}

#[test]
fn a_direct_path_goes_before_a_stream_and_falls_back_to_it() {
    let mut world = world(2, 2);
    wait_for_paths(&mut world, "stream", 5 * SECOND);
    assert_eq!(world.streams_to(0), 1);
    world.nodes[1].udp_blocked = false;
    wait_for_paths(&mut world, "direct", MINUTE);
    world.nodes[1].udp_blocked = true;
    assert!(outage(&mut world, 10 * SECOND) < 3 * SECOND);
    wait_for_paths(&mut world, "stream", 5 * SECOND);
    nobody_is_alarmed(&world);
}

#[test]
fn nobody_is_dialled_who_is_reached_directly() {
    let mut world = world(2, 2);
    world.nodes[1].udp_blocked = false;
    wait_for_paths(&mut world, "direct", 5 * SECOND);
    for _ in 0..20 {
        world.ping(1, 0);
        world.run_for(SECOND);
    }
    assert!(world.path(1, 0).starts_with("direct"));
    assert_eq!(world.streams_to(0), 0);
}

#[test]
fn a_listener_behind_a_firewall_costs_nothing_but_the_attempt() {
    let mut world = World::new(Setup { nodes: 0, ..Setup::default() });
    let home = world.underlay.add_site(INTERNET, EdgeKind::Firewall);
    world.add_node_at(home);
    world.add_node();
    world.listen(0);
    world.nodes[1].udp_blocked = true;
    wait_until_joined(&mut world);
    for _ in 0..100 {
        let number = world.ping(1, 0);
        assert!(world.run_until(SECOND / 5, |world| world.is_answered(1, number)));
        world.run_for(SECOND / 5);
    }
    assert_eq!(world.path(1, 0), "relay");
    nobody_is_alarmed(&world);
}

#[test]
fn both_may_listen_and_dial_each_other_at_the_same_moment() {
    let mut world = world(1, 2);
    world.listen(1);
    world.nodes[0].udp_blocked = true;
    world.run_for(2 * SECOND);
    for _ in 0..50 {
        world.ping(0, 1);
        world.ping(1, 0);
        world.run_for(SECOND / 10);
    }
    wait_for_paths(&mut world, "stream", SECOND);
    assert!(outage(&mut world, SECOND) < SECOND / 2);
    nobody_is_alarmed(&world);
}

#[test]
fn a_removed_device_is_cut_off_at_once_over_its_stream() {
    let mut world = world(0, 3);
    world.nodes[2].udp_blocked = true;
    assert!(world.ping_until_answered(1, 0, 5 * SECOND));
    assert!(world.ping_until_answered(2, 0, 5 * SECOND));
    world.remove(world.nodes[1].device);
    world.run_for(SECOND);
    let received = world.nodes[0].received;
    assert!(!world.ping_until_answered(1, 0, 20 * SECOND));
    assert_eq!(world.nodes[0].received, received);
    assert!(world.ping_until_answered(2, 0, 5 * SECOND), "the others go on");
}

#[test]
fn a_node_that_listens_restarts_and_is_reached_again_without_any_relay() {
    let mut world = world(0, 2);
    assert!(world.ping_until_answered(1, 0, 5 * SECOND));
    world.stop_node(0);
    world.run_for(3 * SECOND);
    world.start_node(0);
    assert!(world.ping_until_answered(1, 0, 30 * SECOND));
}

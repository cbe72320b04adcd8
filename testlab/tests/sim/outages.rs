//! Nodes and controllers that stop, start, move and sleep.

use std::time::Duration;

use testlab::sim::{Setup, World};

use crate::world::{MINUTE, SECOND, joined, ping_both_ways, with_direct_path};

#[test]
fn traffic_goes_on_and_nodes_restart_while_the_controller_is_down() {
    let mut world = joined(Setup { nodes: 3, ..Setup::default() });
    world.run_for(5 * SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    world.stop_controller();
    world.run_for(MINUTE);
    ping_both_ways(&mut world, 5 * SECOND);
    world.stop_node(1);
    world.run_for(SECOND);
    world.start_node(1);
    assert!(world.ping_until_answered(1, 2, 20 * SECOND), "a new session without a controller");
    assert!(world.ping_until_answered(1, 0, 20 * SECOND), "an old peer after a restart");
}

#[test]
fn a_node_that_restarts_is_answered_at_once() {
    for server_is_there in [true, false] {
        let mut world = joined(Setup::default());
        world.run_for(5 * SECOND);
        ping_both_ways(&mut world, 10 * SECOND);
        let is_direct = |world: &World| world.path(1, 0).starts_with("direct");
        assert!(world.run_until(10 * SECOND, is_direct), "{}", world.path(1, 0));
        world.run_for(2 * SECOND);
        if !server_is_there {
            world.stop_controller();
            (0..world.relays.len()).for_each(|relay| world.stop_relay(relay));
        }
        for round in 0..5 {
            world.stop_node(0);
            world.run_for(Duration::from_millis(100));
            world.start_node(0);
            world.run_for(Duration::from_millis(if server_is_there { 200 } else { 0 }));

            let number = world.ping(0, 1);
            let begin = world.elapsed();
            assert!(world.run_until(MINUTE, |world| world.is_answered(0, number)), "{round}");
            let took = world.elapsed() - begin;
            let limit = Duration::from_millis(200);
            assert!(took < limit, "server: {server_is_there}, round {round}: {took:?}");
        }
    }
}

#[test]
fn a_controller_that_restarts_from_its_disk_admits_further_nodes() {
    let mut world = joined(Setup::default());
    world.stop_controller();
    world.run_for(10 * SECOND);
    world.start_controller();
    let new = world.add_node();
    assert!(world.run_until(MINUTE, |world| world.nodes[new].interface.is_some()));
    assert!(world.ping_until_answered(new, 0, MINUTE));
}

#[test]
fn a_peer_that_moves_while_the_controller_is_down_introduces_its_new_addresses() {
    let mut world = with_direct_path();
    world.stop_controller();
    world.run_for(SECOND);
    let to = "198.51.100.77:41641".parse().unwrap();
    world.move_node(1, to);
    assert!(world.ping_until_answered(1, 0, 20 * SECOND));
    let peer = world.nodes[1].device;
    let is_known = |world: &World| {
        let map = world.nodes[0].engine.as_ref().unwrap().map();
        let endpoints = map.peer(peer).and_then(|peer| peer.endpoints.as_ref());
        endpoints.is_some_and(|endpoints| endpoints.candidates.iter().any(|c| c.address == to))
    };
    assert!(world.run_until(20 * SECOND, is_known));
}

#[test]
fn a_peer_with_a_new_tunnel_key_introduces_itself_while_the_controller_is_down() {
    for (asks, answers) in [(1, 0), (0, 1)] {
        let mut world = with_direct_path();
        world.stop_controller();
        world.stop_node(1);
        world.run_for(SECOND);
        world.start_node_with_new_tunnel_key(1);
        assert!(world.ping_until_answered(asks, answers, 30 * SECOND), "{asks} asks first");
        ping_both_ways(&mut world, 10 * SECOND);
        world.start_controller();
        world.run_for(2 * MINUTE);
        ping_both_ways(&mut world, 10 * SECOND);
    }
}

#[test]
fn a_device_that_moves_tells_the_controller_at_once() {
    let mut world = joined(Setup::default());
    ping_both_ways(&mut world, 10 * SECOND);
    let to = "198.51.100.78:41641".parse().unwrap();
    world.move_node(1, to);
    let peer = world.nodes[1].device;
    let is_known = |world: &World| {
        let map = world.nodes[0].engine.as_ref().unwrap().map();
        let endpoints = map.peer(peer).and_then(|peer| peer.endpoints.as_ref());
        endpoints.is_some_and(|endpoints| endpoints.candidates.iter().any(|c| c.address == to))
    };
    assert!(world.run_until(2 * SECOND, is_known), "the old channel leads nowhere");
}

#[test]
fn a_device_that_sleeps_for_a_while_raises_no_alarm() {
    let mut world = joined(Setup { nodes: 4, ..Setup::default() });
    ping_both_ways(&mut world, 10 * SECOND);
    world.put_to_sleep(0);
    world.run_for(80 * SECOND);
    world.wake_up(0);
    world.run_for(MINUTE);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(world.controller.events.is_empty(), "{:?}", world.controller.events);
}

#[test]
fn a_device_that_slept_for_ten_minutes_is_answered_within_two_seconds_whoever_asks() {
    for (asks, udp_blocked) in [(0, false), (0, true), (1, false), (1, true)] {
        let mut world = joined(Setup::default());
        world.nodes[0].udp_blocked = udp_blocked;
        world.run_for(5 * SECOND);
        ping_both_ways(&mut world, 10 * SECOND);
        world.run_for(5 * SECOND);
        ping_both_ways(&mut world, SECOND);
        world.put_to_sleep(0);
        world.run_for(10 * MINUTE);
        world.wake_up(0);
        let mut waited = Duration::ZERO;
        let mut numbers = Vec::new();
        let is_answered = |world: &World, numbers: &[Option<u64>]| {
            numbers.iter().any(|number| world.is_answered(asks, *number))
        };
        while !is_answered(&world, &numbers) {
            assert!(waited < 2 * SECOND, "{asks} asks, UDP blocked: {udp_blocked}");
            numbers.push(world.ping(asks, 1 - asks));
            world.run_for(SECOND / 10);
            waited += SECOND / 10;
        }
    }
}

#[test]
fn where_streams_are_cut_at_one_age_they_are_replaced_before() {
    const AGE: Duration = Duration::from_secs(60);
    const PAUSE: Duration = Duration::from_millis(100);
    let mut world = joined(Setup::default());
    world.nodes[1].udp_blocked = true;
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(world.run_until(10 * SECOND, |world| world.path(0, 1).starts_with("relay")));
    let mut pings = Vec::new();
    while world.elapsed() < 8 * AGE {
        pings.push((world.elapsed(), world.ping(0, 1)));
        world.run_for(PAUSE);
        world.cut_streams_older_than(AGE);
    }
    world.run_for(SECOND);
    let lost = pings.iter().filter(|(_, ping)| !world.is_answered(0, *ping));
    let lost: Vec<_> = lost.map(|(at, _)| *at).collect();
    assert!(!lost.is_empty(), "the first cuts come unexpectedly");
    assert!(lost.iter().all(|at| *at < 3 * AGE), "{lost:?}");
}

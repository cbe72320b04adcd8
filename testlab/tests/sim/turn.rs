//! Nodes that find no direct path, and a TURN server.

use control_proto::{AdminRequest, SettingsChange, TurnText};
use testlab::places::Place;
use testlab::sim::{Setup, TurnHost, World};

use crate::world::{MINUTE, SECOND, both_by, ping_both_ways};

/// Two nodes behind translators with ports at random, in a network that has a TURN server.
fn apart() -> World {
    let mut world = apart_with(Setup::default());
    // What is sent before both are at their relays waits for the next handshake, for which a direct path is lacking, too.
    world.run_for(2 * SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    world
}

/// The same before they have said anything to each other.
fn apart_with(setup: Setup) -> World {
    let mut world = World::new(Setup { nodes: 0, ..setup });
    world.relays_pass_on = false;
    world.turn.running = true;
    name_turn_server(&mut world, true);
    for _ in 0..2 {
        let site = Place::Symmetric.site(&mut world);
        world.add_node_at(site);
    }
    let have_joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, have_joined), "both join");
    world
}

fn name_turn_server(world: &mut World, named: bool) {
    let turn = named.then(|| TurnText(TurnHost::setting().into())).into_iter().collect();
    let change = SettingsChange { turn: Some(turn), ..SettingsChange::default() };
    world.admin(AdminRequest::ChangeSettings(change));
}

/// Lets a node ping the other once a second until something holds for both.
fn ping_until(world: &mut World, seconds: u32, holds: impl Fn(&World) -> bool) -> bool {
    for _ in 0..seconds {
        if holds(world) {
            return true;
        }
        world.ping(0, 1);
        world.run_for(SECOND);
    }
    holds(world)
}

#[test]
fn traffic_that_finds_no_direct_path_goes_over_turn_after_1_s_and_not_sooner() {
    let mut world = apart();
    let begin = world.elapsed();
    assert!(ping_until(&mut world, 20, both_by("turn")), "{}", world.path(0, 1));
    let took = world.elapsed() - begin;
    assert!(took > SECOND && took <= 3 * SECOND, "{took:?}");
    let before: u64 = world.relays.iter().map(|relay| relay.sent_bytes).sum();
    let passed_on = world.turn.passed_on;
    ping_both_ways(&mut world, 10 * SECOND);
    let after: u64 = world.relays.iter().map(|relay| relay.sent_bytes).sum();
    assert!(after - before < 500, "{} bytes over relays", after - before);
    assert!(world.turn.passed_on >= passed_on + 4);
}

#[test]
fn without_any_relay_turn_is_there_for_those_who_have_not_met() {
    let mut world = apart_with(Setup { relays: 0, ..Setup::default() });
    for _ in 0..30 {
        world.ping(0, 1);
        world.ping(1, 0);
        world.run_for(SECOND);
    }
    assert!(both_by("turn")(&world), "{}", world.path(0, 1));
    ping_both_ways(&mut world, 10 * SECOND);
}

#[test]
fn a_peer_that_is_offline_holds_no_allocation_for_ever() {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("turn")));
    world.stop_node(1);
    assert!(ping_until(&mut world, 9 * 60, |world| world.turn.allocations() < 2));
}

#[test]
fn what_was_wrong_with_a_server_is_forgotten_with_the_network_where_it_was() {
    let mut world = apart();
    world.turn.running = false;
    let problem = |world: &World| world.turn_problem(0);
    assert!(ping_until(&mut world, 20, |world| problem(world).is_some()));
    let site = Place::Symmetric.site(&mut world);
    world.move_node_to_site(0, site);
    assert_eq!(problem(&world), None);
    assert!(ping_until(&mut world, 20, |world| problem(world).is_some()));
}

#[test]
fn without_traffic_allocations_are_given_back_and_with_traffic_there_are_new_ones() {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("turn")));
    assert_eq!(world.turn.allocations(), 2);
    world.run_for(4 * MINUTE);
    assert_eq!(world.turn.allocations(), 0);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(ping_until(&mut world, 20, both_by("turn")));
}

#[test]
fn a_turn_server_that_dies_costs_what_a_dead_path_costs_and_is_used_again() {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("turn")));
    world.turn.running = false;
    assert!(ping_until(&mut world, 3, both_by("relay")), "{}", world.path(0, 1));
    world.run_for(MINUTE);
    world.turn.running = true;
    assert!(ping_until(&mut world, 90, both_by("turn")));
}

#[test]
fn whoever_moves_has_another_allocation_and_a_server_that_is_not_named_any_more_is_not_used() {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("turn")));
    let site = Place::Symmetric.site(&mut world);
    world.move_node_to_site(0, site);
    assert!(ping_until(&mut world, 20, both_by("turn")), "{}", world.path(0, 1));
    assert_eq!(world.turn.allocations(), 3, "one is of before the move");
    name_turn_server(&mut world, false);
    assert!(ping_until(&mut world, 5, both_by("relay")), "{}", world.path(0, 1));
    assert!(world.turn.allocations() <= 1, "the one of before the move ends by itself");
}

#[test]
fn a_direct_path_that_comes_up_goes_before_turn() {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("turn")));
    for node in 0..2 {
        let site = Place::PortRestricted.site(&mut world);
        world.move_node_to_site(node, site);
    }
    assert!(ping_until(&mut world, 10, |world| world.turn.allocations() == 4));
    assert!(ping_until(&mut world, 60, both_by("direct")), "{}", world.path(0, 1));
    assert!(ping_until(&mut world, 120, |world| world.turn.allocations() <= 2));
}

#[test]
fn one_node_with_a_server_is_enough_for_two() {
    let mut world = World::new(Setup { nodes: 0, ..Setup::default() });
    world.relays_pass_on = false;
    world.turn.running = true;
    let sites = [(); 2].map(|()| Place::Symmetric.site(&mut world));
    world.add_node_at(sites[0]);
    world.add_node_at(sites[1]);
    world.nodes[0].use_turn_server(&TurnHost::setting());
    world.stop_node(0);
    world.start_node(0);
    let have_joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, have_joined), "both join");
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(ping_until(&mut world, 20, both_by("turn")), "{}", world.path(1, 0));
    assert_eq!(world.turn.allocations(), 1);
}

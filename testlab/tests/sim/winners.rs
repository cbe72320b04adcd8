//! What won in a local network is tried first when a device is there again.

use testlab::places::Place;
use testlab::sim::World;

use crate::world::{SECOND, at, both_by, ping_both_ways, ping_until};

/// A node that starts again has no sessions, and the other has to give up its own.
fn start_again(world: &mut World, index: usize) {
    world.stop_node(index);
    world.run_for(SECOND);
    world.start_node(index);
}

#[test]
fn a_peer_that_was_reached_by_a_stream_is_dialled_at_once() {
    let soon = SECOND / 5;
    let by_stream = |world: &World| world.path(1, 0) == "stream";
    let mut world = at(1, &[Place::Open, Place::NoUdp]);
    world.listen(0);
    world.run_for(10 * SECOND);
    world.ping(1, 0);
    assert!(!world.run_until(soon, by_stream), "others have their moment first");
    assert!(world.run_until(5 * SECOND, by_stream), "{}", world.path(1, 0));

    start_again(&mut world, 1);
    // What is sent before a relay has answered dials the peer at once in any case.
    world.run_for(10 * SECOND);
    world.ping(1, 0);
    assert!(world.run_until(soon, by_stream), "{}", world.path(1, 0));
}

#[test]
fn a_peer_is_found_where_it_was_though_nobody_can_tell_where_that_is() {
    let mut world = at(1, &[Place::Open, Place::FullCone]);
    // Without an answer to STUN, a device does not know its address in front of a translator.
    world.censor = path::stun::is_stun;
    world.move_node_to_site(1, world.nodes[1].site);
    world.run_for(10 * SECOND);
    ping_both_ways(&mut world, 5 * SECOND);
    assert!(ping_until(&mut world, 20, both_by("direct")).is_some(), "{}", world.path(0, 1));
    let place = world.path(0, 1);

    world.stop_controller();
    (0..world.relays.len()).for_each(|relay| world.stop_relay(relay));
    start_again(&mut world, 0);
    assert!(world.ping_until_answered(0, 1, 5 * SECOND));
    assert_eq!(world.path(0, 1), place);

    // Elsewhere that means nothing: it has to hear from the peer again.
    let site = Place::FullCone.site(&mut world);
    world.stop_node(0);
    world.move_node_to_site(0, site);
    world.start_node(0);
    assert!(!world.ping_until_answered(0, 1, 5 * SECOND));
}

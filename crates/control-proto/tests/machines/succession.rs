//! Connections that somebody in between ends at some age.

use std::time::Duration;

use control_proto::{ClientEvent, ClientStatus};

use crate::world::{PORT, World, endpoints, joined};

const AGE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Lets so many seconds pass in front of a node, whose peer moves every seven of them.
fn pass(world: &mut World, seconds: u64, each: impl Fn(&mut World)) {
    for second in 0..seconds {
        if second.is_multiple_of(7) {
            let number = world.now.wall.as_secs();
            let signed = endpoints(world, 0, number, 4_000);
            world.nodes[0].client.set_endpoints(signed, world.now.instant);
        }
        world.pass(SECOND);
        world.cut_older(1, AGE);
        world.settle();
        each(world);
    }
}

fn losses(world: &World) -> usize {
    let is_loss = |event: &&ClientEvent| matches!(event, ClientEvent::Disconnected);
    world.nodes[1].events.iter().filter(is_loss).count()
}

/// Two nodes, the second of which has learnt at which age its connections are cut.
fn aged() -> World {
    let mut world = joined(2);
    pass(&mut world, 130, |_| {});
    assert_eq!(losses(&world), 2, "that is how it learns");
    world
}

#[test]
fn a_node_whose_connections_are_cut_at_one_age_is_never_without() {
    let mut world = aged();
    pass(&mut world, 3_000, |world| {
        assert_eq!(world.status(1), ClientStatus::Online);
        assert_eq!(world.map(0).version(), world.map(1).version());
    });
    assert_eq!(losses(&world), 2);
}

#[test]
fn the_connection_in_use_stays_until_the_controller_has_answered_over_the_next() {
    let mut world = aged();
    // The next one cannot be opened.
    world.port = PORT + 1;
    pass(&mut world, 50, |world| {
        assert_eq!(world.status(1), ClientStatus::Online);
        assert_eq!(world.map(0).version(), world.map(1).version());
    });
    assert_eq!((losses(&world), world.connections(1)), (2, 1));
    pass(&mut world, 10, |_| {});
    assert_eq!(losses(&world), 3, "it reached its age");
    world.port = PORT;
    pass(&mut world, 60, |_| {});
    assert_eq!((losses(&world), world.status(1)), (3, ClientStatus::Online));
    // The answer over the next one is late.
    pass(&mut world, 3 * 54, |_| {});
    world.is_held = true;
    while world.connections(1) == 1 {
        world.pass(SECOND);
    }
    world.is_held = false;
    world.settle();
    assert_eq!((losses(&world), world.connections(1)), (3, 1));
    assert_eq!(world.map(0).version(), world.map(1).version());
}

#[test]
fn both_connections_may_end_between_the_hello_and_its_answer() {
    let mut world = aged();
    world.is_held = true;
    while world.connections(1) == 1 {
        world.pass(SECOND);
    }
    world.cut(1);
    world.is_held = false;
    assert_eq!(world.connections(1), 0);
    pass(&mut world, 10, |_| {});
    assert_eq!((losses(&world), world.status(1)), (3, ClientStatus::Online));
    assert_eq!(world.map(0).version(), world.map(1).version());
}

#[test]
fn a_network_that_changes_ends_both_connections() {
    let mut world = aged();
    world.is_held = true;
    while world.connections(1) == 1 {
        world.pass(SECOND);
    }
    let now = world.now.instant;
    world.nodes[1].client.reconnect(now);
    world.is_held = false;
    world.pass(SECOND);
    assert_eq!((world.connections(1), world.status(1)), (1, ClientStatus::Online));
}

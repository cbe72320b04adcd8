//! A node in a network of ten thousand members, of which hardly any ever talks to it.

use std::time::Duration;

use allocation_counter::measure;
use testlab::sim::{Setup, World};

const MEMBERS: usize = 10_000;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What a member may take in a node's memory: its proofs, as they came and as they read, a tunnel, and
/// what looks for ways to it.
const BYTES_EACH: i64 = 16 * 1024;
/// Allocations of a whole world in a second in which nobody says anything: ticks and keepalives.
const IDLE: u64 = 200;
#[test]
fn members_that_say_nothing_take_bounded_memory_and_no_work() {
    let mut world = World::new(Setup { nodes: 0, relays: 1, ..Setup::default() });
    world.enrol_silent(MEMBERS);
    world.run_for(5 * SECOND);

    let joining = measure(|| {
        world.add_node();
        world.run_for(5 * SECOND);
    });
    assert_eq!(known_to(&world, 0), MEMBERS + 2, "the silent ones, the relay and itself");
    assert!(joining.bytes_current < BYTES_EACH * MEMBERS as i64, "{joining:?}");

    world.add_node();
    world.run_for(MINUTE);
    assert_eq!(known_to(&world, 1), MEMBERS + 3);

    let idle = measure(|| world.run_for(MINUTE));
    assert!(idle.count_total < IDLE * MINUTE.as_secs(), "{idle:?}");
    assert!(world.ping_until_answered(0, 1, 5 * SECOND), "one of them speaks");
    world.run_for(5 * SECOND);
    assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
}

/// Members in the map of a node.
fn known_to(world: &World, node: usize) -> usize {
    let engine = world.nodes[node].engine.as_ref().expect("it runs");
    engine.map().peers().count()
}

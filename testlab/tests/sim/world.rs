//! Worlds whose nodes have joined.

use std::time::Duration;

use engine::{Now, Outbound};
use packet::{Offload, Segments};
use testlab::places::Place;
use testlab::sim::{Setup, World};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A world in which every node has joined.
pub(crate) fn joined(setup: Setup) -> World {
    let mut world = World::new(setup);
    let all_have_addresses =
        |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, all_have_addresses), "every node joins");
    world
}

/// A world with a node at each of these places, whose translators give other ports with each seed.
pub(crate) fn at(seed: u64, places: &[Place]) -> World {
    at_with(Setup { seed, ..Setup::default() }, places)
}

/// The same with another setup.
pub(crate) fn at_with(setup: Setup, places: &[Place]) -> World {
    let mut world = World::new(Setup { nodes: 0, ..setup });
    // What a translator gives depends on its address.
    for _ in 0..setup.seed {
        Place::Symmetric.site(&mut world);
    }
    for place in places {
        let site = place.site(&mut world);
        world.add_node_at(site);
    }
    let have_joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, have_joined), "all join");
    world
}

pub(crate) fn ping_both_ways(world: &mut World, patience: Duration) {
    assert!(world.ping_until_answered(0, 1, patience), "0 reaches 1");
    assert!(world.ping_until_answered(1, 0, patience), "1 reaches 0");
}

/// Lets node 0 ping node 1 four times a second until something holds; how many seconds that took.
pub(crate) fn ping_until(
    world: &mut World,
    seconds: u32,
    holds: impl Fn(&World) -> bool,
) -> Option<u32> {
    for passed in 0..=seconds {
        if holds(world) {
            return Some(passed);
        }
        for _ in 0..4 {
            world.ping(0, 1);
            world.run_for(SECOND / 4);
        }
    }
    None
}

/// Whether nodes 0 and 1 reach each other by paths of this kind.
pub(crate) fn both_by(kind: &'static str) -> impl Fn(&World) -> bool {
    move |world| world.path(0, 1).starts_with(kind) && world.path(1, 0).starts_with(kind)
}

/// A world in which node 0 sends directly to node 1.
pub(crate) fn with_direct_path() -> World {
    let mut world = joined(Setup::default());
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(world.run_until(10 * SECOND, |world| world.path(0, 1).starts_with("direct")));
    world.run_for(SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(matches!(to_node_1(&world, world.now()), Outbound::Datagrams { .. }));
    world
}

/// What the data plane of node 0 makes of a packet to node 1.
pub(crate) fn to_node_1(world: &World, now: Now) -> Outbound {
    sealed_to_node_1(world, now).0
}

/// The same, and the datagram.
pub(crate) fn sealed_to_node_1(world: &World, now: Now) -> (Outbound, Vec<u8>) {
    let mut packet = vec![0; 40];
    (packet[0], packet[6], packet[7]) = (0x60, 59, 64);
    packet[8..24].copy_from_slice(&world.address(0).octets());
    packet[24..40].copy_from_slice(&world.address(1).octets());
    let plane = world.nodes[0].engine.as_ref().expect("it runs").data_plane();
    let single = Segments::plan(&Offload::default(), &packet).expect("it is a packet");
    let mut sealed = Vec::new();
    (plane.load().outbound((&single, 0..1), &mut sealed, now.instant), sealed)
}

/// Two nodes ask each other for a while; how many in a row had no answer within three seconds at most, and how many in all.
pub(crate) fn ask(world: &mut World, time: Duration) -> (usize, usize) {
    let mut asked = Vec::new();
    for _ in 0..time.as_secs() {
        for (from, to) in [(0, 1), (1, 0)] {
            asked.push((world.elapsed(), from, world.ping(from, to)));
            world.run_for(SECOND / 2);
        }
    }
    world.run_for(3 * SECOND);
    let mut worst = [0; 2];
    let (mut row, mut all) = ([0; 2], 0);
    for (at, node, number) in asked {
        let answered = world.answered_at(node, number);
        if answered.is_some_and(|answered| answered <= at + 3 * SECOND) {
            row[node] = 0;
        } else {
            row[node] += 1;
            all += 1;
            worst[node] = worst[node].max(row[node]);
        }
    }
    (worst[0].max(worst[1]), all)
}

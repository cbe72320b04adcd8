//! Many devices whose translators count, at the same time.

use testlab::places::Place;
use testlab::sim::{Quality, World};

use crate::world::{MINUTE, SECOND, at, ping_both_ways};

/// How many pairs have a direct path at both ends.
fn met(world: &World) -> usize {
    let is_direct = |from, to| world.path(from, to).starts_with("direct");
    let pairs = (0..world.nodes.len()).flat_map(|one| (0..one).map(move |other| (one, other)));
    pairs.filter(|(one, other)| is_direct(*one, *other) && is_direct(*other, *one)).count()
}

/// Lets all nodes have traffic with each other; how many pairs have met then.
fn met_within(world: &mut World, seconds: usize) -> usize {
    let nodes = world.nodes.len();
    for _ in 0..seconds {
        for one in 0..nodes {
            for other in 0..one {
                world.ping(one, other);
            }
        }
        world.run_for(SECOND);
        if met(world) == nodes * (nodes - 1) / 2 {
            break;
        }
    }
    met(world)
}

#[test]
fn two_meet_within_3_s() {
    for seed in 1..20 {
        let mut world = at(seed, &[Place::Counting, Place::CountingCarrier]);
        world.run_for(10 * SECOND);
        assert_eq!(met_within(&mut world, 3), 1, "seed {seed}");
    }
}

#[test]
fn eight_that_all_look_for_each_other_at_once_meet_within_a_minute() {
    for seed in 1..4 {
        let mut world = at(seed, &[Place::Counting; 8]);
        assert_eq!(met_within(&mut world, 60), 28, "seed {seed}");
    }
}

#[test]
fn five_over_lines_that_lose_much_mostly_meet_within_a_minute() {
    // Surveys may fail, and are made again after a minute.
    let mut late = 0;
    for seed in 1..8 {
        let mut world = at(seed, &[Place::Counting; 5]);
        for node in &mut world.nodes {
            node.uplink = Some(Quality { loss_permille: 50, ..Quality::HOME });
        }
        late += usize::from(met_within(&mut world, 60) < 10);
        assert_eq!(met_within(&mut world, 60), 10, "seed {seed}");
    }
    assert!(late <= 1, "{late} of 7 took longer than a minute");
}

#[test]
fn two_that_cannot_meet_and_have_no_traffic_any_more_fall_silent() {
    let mut world = at(1, &[Place::Symmetric, Place::Symmetric]);
    let in_a_minute = |world: &mut World| {
        let before = world.nodes[0].stream_bytes;
        world.run_for(MINUTE);
        world.nodes[0].stream_bytes - before
    };
    world.run_for(5 * MINUTE);
    let strangers: u64 = (0..5).map(|_| in_a_minute(&mut world)).sum();
    ping_both_ways(&mut world, 10 * SECOND);
    world.run_for(5 * MINUTE);
    let silent: u64 = (0..5).map(|_| in_a_minute(&mut world)).sum();
    assert!(silent < strangers + 1_000, "{silent} bytes, and {strangers} before they had traffic");
}

//! Two nodes that begin at the same instant.

use testlab::sim::Setup;

use crate::world::{MINUTE, SECOND, joined};

#[test]
fn nodes_that_speak_at_the_same_instants_lose_nothing() {
    let mut world = joined(Setup::default());
    world.run_for(10 * SECOND);
    let mut asked = Vec::new();
    for _ in 0..(10 * MINUTE).as_secs() * 4 {
        for (from, to) in [(0, 1), (1, 0)] {
            asked.push((world.elapsed(), from, world.ping(from, to)));
        }
        world.run_for(SECOND / 4);
    }
    world.run_for(3 * SECOND);
    let is_late = |(at, node, number): &(_, usize, Option<u64>)| {
        world.answered_at(*node, *number).is_none_or(|answered| answered > *at + SECOND / 4)
    };
    let late: Vec<_> = asked
        .iter()
        .filter(|ask| is_late(ask))
        .map(|(at, node, n)| (*at, *node, world.answered_at(*node, *n)))
        .collect();
    assert!(late.is_empty(), "{late:?}");
}

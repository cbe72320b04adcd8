//! Two nodes that begin at the same instant.

use std::time::Duration;

use testlab::sim::{Quality, Setup};

use crate::world::{MINUTE, SECOND, joined};

/// Two nodes speak at the same instants, four times a second, over links that take about so long. Nothing is lost, and nothing late.
fn speak_together(seed: u64, jitter: Duration, time: Duration) {
    let quality = Quality { jitter, ..Quality::GOOD };
    let mut world = joined(Setup { seed, quality, ..Setup::default() });
    world.run_for(10 * SECOND);
    let mut asked = Vec::new();
    for _ in 0..time.as_secs() * 4 {
        for (from, to) in [(0, 1), (1, 0)] {
            asked.push((world.elapsed(), from, world.ping(from, to)));
        }
        world.run_for(SECOND / 4);
    }
    world.run_for(SECOND);
    for (at, node, number) in asked {
        let answered = world.answered_at(node, number);
        let is_in_time = answered.is_some_and(|answered| answered < at + SECOND);
        assert!(is_in_time, "seed {seed}: {node} asks at {at:?} and hears at {answered:?}");
    }
}

#[test]
fn nodes_that_speak_at_the_same_instants_lose_nothing_when_sessions_are_renewed() {
    speak_together(1, Duration::ZERO, 10 * MINUTE);
}

#[test]
fn nodes_that_begin_at_the_same_instant_hear_each_other_at_once() {
    for seed in 0..20 {
        speak_together(seed, Duration::from_millis(10), 10 * SECOND);
    }
}

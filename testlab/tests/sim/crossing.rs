//! Two nodes that begin at the same instant.

use std::time::Duration;

use testlab::sim::{Quality, Setup};

use crate::world::{MINUTE, SECOND, joined};

/// Two nodes speak at the same instants, twenty times a second. Nothing is lost, and nothing late.
fn speak_together(seed: u64, quality: Quality, time: Duration) {
    let mut world = joined(Setup { seed, quality, ..Setup::default() });
    world.run_for(10 * SECOND);
    let (end, mut asked) = (world.elapsed() + time, Vec::new());
    while world.elapsed() < end {
        for (from, to) in [(0, 1), (1, 0)] {
            asked.push((world.elapsed(), from, world.ping(from, to)));
        }
        world.run_for(SECOND / 20);
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
    let latency = Duration::from_millis(100);
    speak_together(1, Quality { latency, ..Quality::GOOD }, 7 * MINUTE);
}

#[test]
fn nodes_that_begin_at_the_same_instant_hear_each_other_at_once() {
    let jitter = Duration::from_millis(10);
    for seed in 0..20 {
        speak_together(seed, Quality { jitter, ..Quality::GOOD }, 10 * SECOND);
    }
}

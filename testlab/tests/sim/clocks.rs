//! Clocks that are wrong, or are set.

use control_proto::SecurityEvent;
use engine::{Now, Outbound, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use testlab::sim::Setup;

use crate::world::{MINUTE, SECOND, joined, ping_both_ways, to_node_1, with_direct_path};

#[test]
fn a_clock_that_is_set_forward_and_back_does_no_harm() {
    let mut world = with_direct_path();
    let (now, mut rng) = (world.now(), ChaCha20Rng::seed_from_u64(1));
    let engine = world.nodes[0].engine.as_mut().unwrap();
    let month = UnixMillis(now.wall.0 + 30 * 24 * 3_600_000);
    engine.handle_timeout(&mut rng, Now { instant: now.instant + SECOND, wall: month });
    assert_eq!(to_node_1(&world, now), Outbound::NoRoute, "by that clock everything is over");
    world.run_for(3 * SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    let now = world.now();
    let (instant, hour_ago) = (now.instant + SECOND, UnixMillis(now.wall.0 - 3_600_000));
    let engine = world.nodes[0].engine.as_mut().unwrap();
    engine.handle_timeout(&mut rng, Now { instant, wall: hour_ago });
    world.run_for(3 * SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
}

#[test]
fn a_clock_that_is_set_back_keeps_no_newcomer_out() {
    let mut world = joined(Setup::default());
    world.run_for(5 * SECOND);
    world.set_clock(0, -300_000);
    world.run_for(5 * SECOND);
    let newcomer = world.add_node();
    assert!(world.run_until(MINUTE, |world| world.nodes[newcomer].interface.is_some()));
    assert!(world.ping_until_answered(newcomer, 0, 10 * SECOND), "the slow clock is made up for");
}

#[test]
fn a_device_that_lost_its_memory_and_has_a_slow_clock_comes_back() {
    let mut world = joined(Setup::default());
    ping_both_ways(&mut world, 10 * SECOND);
    world.stop_node(1);
    world.nodes[1].forget();
    world.set_clock(1, -2 * 24 * 3_600_000);
    world.run_for(SECOND);
    world.start_node(1);
    ping_both_ways(&mut world, 30 * SECOND);
    let is_alarm = |event: &SecurityEvent| !matches!(event, SecurityEvent::ClockSkew { .. });
    let mut events = world.controller.events.iter();
    assert!(!events.any(|record| is_alarm(&record.event)), "{:?}", world.controller.events);
}

#[test]
fn a_clock_that_is_set_back_before_a_start_keeps_no_member_out_while_the_controller_is_away() {
    let mut world = joined(Setup::default());
    world.run_for(5 * SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    world.stop_controller();
    world.stop_node(1);
    world.set_clock(1, -30 * 24 * 3_600_000);
    world.run_for(SECOND);
    world.start_node(1);
    ping_both_ways(&mut world, 30 * SECOND);
}

//! Networks on which datagrams fare worse than streams.

use std::time::Duration;

use testlab::sim::{Quality, Setup};

use crate::world::{MINUTE, ask, joined};

#[test]
fn where_datagrams_are_lost_traffic_takes_the_relay_until_they_are_not() {
    let mut world = joined(Setup::default());
    ask(&mut world, MINUTE);
    assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
    world.quality.loss_permille = 400;
    // Each end finds out for itself, and tries the path again after half a minute, then a minute, then two.
    ask(&mut world, 4 * MINUTE);
    let (worst, all) = ask(&mut world, 10 * MINUTE);
    assert!(worst <= 3 && all <= 6, "{worst} in a row of {all}");
    for (from, to) in [(0, 1), (1, 0)] {
        assert_eq!(world.path(from, to), "relay");
    }
    world.quality.loss_permille = 0;
    let (_, all) = ask(&mut world, 4 * MINUTE);
    assert_eq!(all, 0);
    for (from, to) in [(0, 1), (1, 0)] {
        assert!(world.path(from, to).starts_with("direct"), "{}", world.path(from, to));
    }
}

#[test]
fn where_some_datagrams_are_lost_traffic_stays_on_the_direct_path() {
    let mut world = joined(Setup { quality: Quality::HOME, ..Setup::default() });
    ask(&mut world, 30 * MINUTE);
    for (from, to) in [(0, 1), (1, 0)] {
        assert!(world.path(from, to).starts_with("direct"), "{}", world.path(from, to));
    }
}

#[test]
fn where_datagrams_take_far_longer_than_streams_traffic_takes_the_relay() {
    let mut world = joined(Setup::default());
    ask(&mut world, MINUTE);
    world.quality.latency = Duration::from_millis(300);
    let (_, all) = ask(&mut world, 3 * MINUTE);
    assert_eq!(all, 0);
    assert_eq!(world.path(0, 1), "relay");
    world.quality = Quality::GOOD;
    let (_, all) = ask(&mut world, 3 * MINUTE);
    assert_eq!(all, 0);
    assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
}

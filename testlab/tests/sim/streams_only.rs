//! Networks whose members send each other no datagrams.

use std::sync::atomic::{AtomicUsize, Ordering};

use control_proto::{AdminAnswer, AdminRequest, SettingsChange};
use testlab::places::Place;
use testlab::sim::World;

use crate::world::{SECOND, ask, at, both_by, ping_both_ways, ping_until, with_direct_path};

/// Datagrams that anybody sent anybody.
static DATAGRAMS: AtomicUsize = AtomicUsize::new(0);

fn set(world: &mut World, streams_only: bool) {
    let change = SettingsChange { streams_only: Some(streams_only), ..SettingsChange::default() };
    let answer = world.admin(AdminRequest::ChangeSettings(change));
    assert!(matches!(answer, AdminAnswer::Done), "{answer:?}");
}

#[test]
fn where_streams_alone_are_allowed_nobody_sends_a_datagram_until_they_are_not() {
    let mut world = with_direct_path();
    let count = |datagram: &[u8]| {
        DATAGRAMS.fetch_add(usize::from(!datagram.is_empty()), Ordering::Relaxed);
        false
    };
    world.censor = count;
    set(&mut world, true);
    let (worst, _) = ask(&mut world, 5 * SECOND);
    assert!(worst <= 2, "{worst} in a row are lost");
    assert!(both_by("relay")(&world), "{}", world.path(0, 1));
    DATAGRAMS.store(0, Ordering::Relaxed);
    assert_eq!(ask(&mut world, 120 * SECOND).1, 0);
    assert_eq!(DATAGRAMS.load(Ordering::Relaxed), 0);
    let why = world.why(0, 1).expect("they know each other");
    assert!(why.candidates.is_empty(), "{why:?}");
    assert!(why.hindrance.is_some_and(|it| it.contains("no datagrams")));
    // Who joins later finds it so.
    world.add_node();
    world.run_for(20 * SECOND);
    assert!(world.ping_until_answered(2, 0, 5 * SECOND));
    assert_eq!(world.path(2, 0), "relay");

    set(&mut world, false);
    let (worst, _) = ask(&mut world, 10 * SECOND);
    assert!(worst <= 2, "{worst} in a row are lost");
    assert!(both_by("direct")(&world), "{}", world.path(0, 1));
}

#[test]
fn where_streams_alone_are_allowed_nobody_passes_datagrams_on() {
    let mut world = at(1, &[Place::Symmetric, Place::Symmetric]);
    world.run_for(10 * SECOND);
    assert!(ping_until(&mut world, 20, both_by("udp-relay")).is_some());
    set(&mut world, true);
    ping_both_ways(&mut world, 5 * SECOND);
    assert_eq!(ping_until(&mut world, 60, both_by("udp-relay")), None);
    set(&mut world, false);
    assert!(ping_until(&mut world, 20, both_by("udp-relay")).is_some());
}

//! Relays that hand frames on to each other.

use std::time::Duration;

use testlab::relays::Relays;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Ten milliseconds for each step round a circle of relays.
fn near(one: usize, other: usize) -> Duration {
    10 * MILLISECOND * u32::try_from(one.abs_diff(other)).expect("few relays")
}

fn linked(count: usize) -> Relays {
    let mut relays = Relays::new(count, near);
    relays.run_for(10 * SECOND);
    for relay in 0..count {
        assert_eq!(relays.reach(relay).0, count - 1, "relay {relay} reaches all");
    }
    relays
}

#[test]
fn devices_at_different_relays_reach_each_other() {
    let mut relays = linked(3);
    let (alice, bob) = (relays.device_at(0), relays.device_at(2));
    relays.run_for(SECOND);
    assert_eq!(relays.reach(0), (2, 1));
    relays.send(alice, bob, b"to bob");
    relays.send(bob, alice, b"to alice");
    relays.run_for(SECOND);
    let (a, b) = (relays.id(alice), relays.id(bob));
    assert_eq!(relays.take_received(bob), [(a, b"to bob".to_vec())]);
    assert_eq!(relays.take_received(alice), [(b, b"to alice".to_vec())]);
}

#[test]
fn who_is_nowhere_is_unreachable() {
    let mut relays = linked(2);
    let (alice, bob) = (relays.device_at(0), relays.device_at(1));
    relays.run_for(SECOND);
    assert!(relays.reaches(alice, bob, SECOND));
    relays.kill(1);
    relays.run_for(SECOND);
    assert!(!relays.reaches(alice, bob, SECOND));
    assert_eq!(relays.take_unreachable(alice), [relays.id(bob)]);
}

#[test]
fn frames_go_over_others_where_two_relays_have_no_link() {
    let mut relays = linked(4);
    let (alice, bob) = (relays.device_at(0), relays.device_at(3));
    relays.run_for(SECOND);
    relays.cut(0, 3);
    relays.run_for(SECOND);
    assert!(relays.reaches(alice, bob, SECOND));
    relays.cut(1, 3);
    relays.cut(0, 2);
    relays.run_for(SECOND);
    assert!(relays.reaches(alice, bob, SECOND), "over both of the others");
    relays.cut(2, 3);
    relays.run_for(SECOND);
    assert!(!relays.reaches(alice, bob, SECOND));
    relays.mend(0, 3);
    relays.run_for(70 * SECOND);
    assert!(relays.reaches(alice, bob, SECOND));
}

#[test]
fn a_link_that_carries_nothing_is_gone_round() {
    let mut relays = linked(3);
    let (alice, bob) = (relays.device_at(0), relays.device_at(2));
    relays.run_for(SECOND);
    relays.silence(0, 2);
    relays.run_for(11 * SECOND);
    assert!(relays.reaches(alice, bob, SECOND));
    relays.mend(0, 2);
    relays.run_for(90 * SECOND);
    assert!(relays.reaches(alice, bob, 30 * MILLISECOND), "straight again");
}

#[test]
fn who_is_drained_is_gone_round_but_still_reached() {
    let mut relays = linked(4);
    let devices = [0, 1, 3].map(|relay| relays.device_at(relay));
    relays.cut(0, 3);
    relays.run_for(SECOND);
    relays.set_draining(1, true);
    relays.run_for(SECOND);
    let before = relays.sent_by(1);
    for _ in 0..100 {
        relays.send(devices[0], devices[2], &[7; 1_000]);
    }
    relays.run_for(SECOND);
    assert_eq!(relays.take_received(devices[2]).len(), 100);
    assert!(relays.sent_by(1) - before < 10_000, "they went over another");
    assert!(relays.reaches(devices[0], devices[1], SECOND));
    relays.set_draining(1, false);
    relays.run_for(SECOND);
    assert!(relays.reaches(devices[0], devices[2], SECOND));
}

#[test]
fn who_is_in_no_group_is_no_relay() {
    let mut relays = linked(2);
    let impostor = relays.impostor();
    let alice = relays.device_at(0);
    relays.run_for(60 * SECOND);
    assert_eq!(relays.reach(impostor), (0, 0), "nobody tells it anything");
    assert_eq!(relays.reach(1), (1, 1), "nor believes it");
    let bob = relays.device_at(1);
    relays.run_for(SECOND);
    assert!(relays.reaches(alice, bob, SECOND));
}

#[test]
fn a_relay_that_starts_again_is_believed_anew() {
    let mut relays = linked(3);
    let (alice, bob) = (relays.device_at(0), relays.device_at(1));
    relays.run_for(SECOND);
    relays.kill(1);
    relays.run_for(SECOND);
    relays.start(1);
    relays.run_for(20 * SECOND);
    assert_eq!(relays.reach(0), (2, 0), "nobody is there any more");
    let carol = relays.device_at(1);
    relays.run_for(SECOND);
    assert!(relays.reaches(alice, carol, SECOND));
    assert!(!relays.reaches(alice, bob, SECOND));
}

#[test]
fn many_relays_keep_few_links_and_know_everybody() {
    let mut relays = linked(24);
    assert!(relays.links() <= 24 * 4, "{} links", relays.links());
    let devices: Vec<_> = (0..24).map(|relay| relays.device_at(relay)).collect();
    relays.run_for(5 * SECOND);
    for (relay, device) in devices.iter().enumerate().skip(1) {
        assert_eq!(relays.reach(relay), (23, 23));
        assert!(relays.reaches(devices[0], *device, SECOND / 2), "relay {relay}");
    }
}

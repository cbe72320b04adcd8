//! At which relays devices are at home.

use std::collections::BTreeSet;
use std::time::Duration;

use control_proto::{AdminAnswer, AdminRequest, InviteRequest, LoadReport, SettingsChange};
use identity::GroupName;
use testlab::places::Place;
use testlab::sim::{INTERNET, Setup, World};

use crate::world::{MINUTE, SECOND, at_with, ping_both_ways};

/// The relays that a node announces, by their places.
fn homes(world: &World, node: usize) -> Vec<usize> {
    let engine = world.nodes[node].engine.as_ref().expect("it runs");
    let status = engine.status(world.now());
    let place = |id: &str| world.relays.iter().position(|relay| relay.device.to_string() == id);
    let homes = status.relays.iter().filter(|relay| relay.home && relay.connected);
    let homes: BTreeSet<_> = homes.filter_map(|relay| place(&relay.device_id)).collect();
    homes.into_iter().collect()
}

/// A world of so many relays, each so much farther away than the one before.
fn relays_in_a_row(relays: usize, step: Duration, nodes: usize) -> World {
    let mut world = World::new(Setup { relays, nodes: 0, ..Setup::default() });
    for (relay, place) in world.relays.iter_mut().zip(0..) {
        relay.distance = step * place;
    }
    for _ in 0..nodes {
        world.add_node();
    }
    let all_have_addresses =
        |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, all_have_addresses), "every node joins");
    world
}

fn report(world: &mut World, busy_permille: &[u32]) {
    let now = world.now().instant;
    for (relay, busy_permille) in world.relays.iter_mut().zip(busy_permille) {
        let report = LoadReport { busy_permille: *busy_permille, ..LoadReport::default() };
        relay.client.report_load(report, now);
    }
}

fn rotate(world: &mut World, after: Duration) {
    let seconds = u32::try_from(after.as_secs()).expect("a month at most");
    let change = SettingsChange { relay_rotation: Some(seconds), ..SettingsChange::default() };
    let answer = world.admin(AdminRequest::ChangeSettings(change));
    assert!(matches!(answer, AdminAnswer::Done), "{answer:?}");
}

#[test]
fn devices_are_at_home_at_the_nearest_relays() {
    for udp_blocked in [false, true] {
        let mut world = relays_in_a_row(8, 30 * SECOND / 1_000, 6);
        world.nodes.iter_mut().for_each(|node| node.udp_blocked = udp_blocked);
        // Without UDP streams show how far a relay is, a few in a minute.
        let patience = if udp_blocked { 5 * MINUTE } else { 15 * SECOND };
        for passed in 0..patience.as_secs() {
            world.run_for(SECOND);
            (0..6).for_each(|node| {
                let homes = homes(&world, node);
                assert!(passed < 1 || !homes.is_empty(), "{node} has no home after {passed} s");
            });
            if passed % 60 == 50 {
                report(&mut world, &[0; 8]);
            }
        }
        for node in 0..6 {
            assert_eq!(homes(&world, node), [0, 1], "node {node}, UDP blocked: {udp_blocked}");
        }
    }
}

#[test]
fn among_equals_devices_are_spread_and_stay() {
    let mut world = relays_in_a_row(5, Duration::ZERO, 40);
    world.run_for(10 * SECOND);
    let before: Vec<_> = (0..40).map(|node| homes(&world, node)).collect();
    for relay in 0..5 {
        let at_home = before.iter().filter(|homes| homes.contains(&relay)).count();
        assert!((6..=28).contains(&at_home), "{at_home} of 40 at relay {relay}");
    }
    for load in [0, 900, 300] {
        report(&mut world, &[load, 0, load, 0, 0]);
        world.run_for(MINUTE);
    }
    assert_eq!(before, (0..40).map(|node| homes(&world, node)).collect::<Vec<_>>());
}

#[test]
fn who_comes_later_goes_where_there_is_room() {
    let mut world = relays_in_a_row(4, Duration::ZERO, 2);
    report(&mut world, &[950, 1_000, 0, 0]);
    world.run_for(SECOND);
    let new: Vec<_> = (0..30).map(|_| world.add_node()).collect();
    world.run_for(15 * SECOND);
    let at = |relay| new.iter().filter(|node| homes(&world, **node).contains(&relay)).count();
    let [crowded, full, ..] = [0, 1, 2, 3].map(at);
    assert!(crowded < 16 && full < 4, "{crowded} at the crowded, {full} at the full relay");
}

#[test]
fn a_third_relay_takes_the_place_of_one_that_is_not_reached() {
    let mut world = relays_in_a_row(4, 30 * SECOND / 1_000, 2);
    world.nodes.iter_mut().for_each(|node| node.udp_blocked = true);
    world.run_for(5 * MINUTE);
    report(&mut world, &[0; 4]);
    world.run_for(SECOND);
    assert_eq!([0, 1].map(|node| homes(&world, node)), [[0, 1], [0, 1]]);
    ping_both_ways(&mut world, 5 * SECOND);
    (0..2).for_each(|relay| world.stop_relay(relay));
    assert!(
        world.run_until(8 * SECOND, |world| homes(world, 0) == [2, 3]),
        "{:?}",
        homes(&world, 0)
    );
    ping_both_ways(&mut world, 5 * SECOND);
    // The near ones are better again when they are back and known to be.
    (0..2).for_each(|relay| world.start_relay(relay));
    world.run_for(MINUTE);
    report(&mut world, &[0; 4]);
    assert!(
        world.run_until(5 * MINUTE, |world| homes(world, 0) == [0, 1]),
        "{:?}",
        homes(&world, 0)
    );
}

#[test]
fn without_any_network_no_relay_is_blamed() {
    let mut world = relays_in_a_row(6, 30 * SECOND / 1_000, 1);
    world.run_for(10 * SECOND);
    assert_eq!(homes(&world, 0), [0, 1]);
    let dials = world.dials;
    (0..6).for_each(|relay| world.stop_relay(relay));
    world.run_for(10 * MINUTE);
    assert!(world.dials - dials < 150, "{} dials in ten minutes", world.dials - dials);
    (0..6).for_each(|relay| world.start_relay(relay));
    report(&mut world, &[0; 6]);
    assert!(
        world.run_until(3 * MINUTE, |world| homes(world, 0) == [0, 1]),
        "{:?}",
        homes(&world, 0)
    );
}

#[test]
fn a_private_relay_serves_its_groups_only() {
    let mut world = relays_in_a_row(3, 30 * SECOND / 1_000, 0);
    let ops: GroupName = "ops".parse().expect("a label");
    let now = world.now();
    world.relays[0].offer("", std::slice::from_ref(&ops), now);
    world.run_for(SECOND);
    let invite = world.invite(InviteRequest { groups: vec![ops], ..InviteRequest::default() });
    let member = world.add_node_with(invite, INTERNET);
    let other = world.add_node();
    world.run_for(20 * SECOND);
    assert_eq!(homes(&world, member), [0, 1]);
    assert_eq!(homes(&world, other), [1, 2]);
    // Both are found all the same, by what they have in common.
    ping_both_ways(&mut world, 5 * SECOND);
    assert!(world.controller.events.is_empty(), "{:?}", world.controller.events);
}

#[test]
fn the_second_home_is_in_another_region_if_one_is_near() {
    let mut world = relays_in_a_row(4, 10 * SECOND / 1_000, 0);
    for (relay, region) in [(0, "eu"), (1, "eu"), (2, "us"), (3, "us")] {
        let now = world.now();
        world.relays[relay].offer(region, &[], now);
    }
    let node = world.add_node();
    world.run_for(20 * SECOND);
    assert_eq!(homes(&world, node), [0, 2]);
}

/// Frames through relays, and circuits over them.
#[test]
fn homes_change_when_the_network_wants_it_and_nothing_is_lost() {
    for places in [[Place::NoUdp; 2], [Place::Symmetric; 2]] {
        let mut world = at_with(Setup { relays: 6, ..Setup::default() }, &places);
        rotate(&mut world, 10 * MINUTE);
        world.run_for(5 * SECOND);
        let mut seen = BTreeSet::new();
        let mut asked = Vec::new();
        for second in 0..50 * 60 {
            if second % 50 == 0 {
                report(&mut world, &[0; 6]);
            }
            asked.push((second, world.ping(0, 1)));
            world.run_for(SECOND);
            let homes = homes(&world, 0);
            assert!(!homes.is_empty(), "no home after {second} s");
            seen.insert(homes);
        }
        world.run_for(SECOND);
        assert!(seen.len() >= 4, "{seen:?}");
        let mut lost = asked.iter().filter(|(_, ping)| !world.is_answered(0, *ping));
        assert_eq!(lost.next(), None, "{places:?}");
    }
}

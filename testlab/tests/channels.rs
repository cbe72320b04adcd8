//! What becomes of channels that stall, break or come from a wrong clock: an event that is written down, no
//! silence, and not one packet between nodes.
//!
//! The limits themselves are measured where they are held:
//!
//! | limit | the machine alone | with its events |
//! |---|---|---|
//! | handshake 30 s | `noise-channel/tests/channel` | `control-proto/tests/machines/limits.rs` |
//! | clocks 60 s | the same | the same, and here |
//! | replay 300 s | the same | the same |
//! | rotation at 3,600 s and 100 messages | the same | here |
//! | rotation given up after 5 s | the same | the same, and here |
//! | connection lost in mid-rotation | | the same, and here |

use std::time::Duration;

use control_proto::SecurityEvent;
use identity::DeviceId;
use noise_channel::limits::{ROTATE_AFTER, ROTATION_DEADLINE, SILENCE_DEADLINE};
use testlab::sim::{HostId, Setup, World};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);
/// The first rotation follows within half a minute.
const BEFORE_ROTATION: Duration = ROTATE_AFTER.saturating_sub(Duration::from_secs(30));

/// Two nodes that reach each other, directly unless UDP is blocked.
fn two_nodes(udp_blocked: bool) -> World {
    let mut world = World::new(Setup::default());
    let joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, joined));
    world.nodes[1].udp_blocked = udp_blocked;
    assert!(world.ping_until_answered(0, 1, 10 * SECOND));
    let kind = if udp_blocked { "relay" } else { "direct" };
    let settled = |world: &World| world.path(0, 1).starts_with(kind);
    assert!(world.run_until(30 * SECOND, settled), "{}", world.path(0, 1));
    world
}

/// Asks ten times a second while time passes until something holds; every question has to be answered.
fn talk_until(world: &mut World, patience: Duration, holds: impl Fn(&World) -> bool) -> bool {
    let end = world.elapsed() + patience;
    let mut asked = Vec::new();
    let mut held = false;
    while !held && world.elapsed() < end {
        asked.push(world.ping(0, 1));
        held = world.run_until(TICK, &holds);
    }
    world.run_for(SECOND);
    let lost = asked.iter().filter(|number| !world.is_answered(0, **number)).count();
    assert_eq!(lost, 0, "of {} packets", asked.len());
    held
}

fn talk(world: &mut World, time: Duration) {
    talk_until(world, time, |_| false);
}

fn told(world: &World, reporter: Option<DeviceId>, event: &SecurityEvent) -> bool {
    let mut events = world.controller.events.iter();
    events.any(|record| record.reporter == reporter && record.event == *event)
}

#[test]
fn keys_that_are_replaced_every_hour_cost_no_packet_and_are_no_event() {
    for udp_blocked in [false, true] {
        let mut world = two_nodes(udp_blocked);
        for _ in 0..3 {
            world.run_for(BEFORE_ROTATION);
            talk(&mut world, MINUTE);
        }
        assert_eq!(world.controller.events, []);
    }
}

#[test]
fn a_rotation_that_stalls_is_recorded_and_tried_again_and_costs_no_packet() {
    let mut world = two_nodes(false);
    let node = world.nodes[0].device;
    world.run_for(BEFORE_ROTATION);
    for server in [HostId::Controller, HostId::Relay(0), HostId::Relay(1)] {
        world.stall(HostId::Node(0), server);
    }
    // Long enough for the rotation, and too short for the silence to end the channels.
    talk(&mut world, 40 * SECOND);
    world.heal();
    let relays = [world.relays[0].device, world.relays[1].device];
    let all_told = |world: &World| {
        [None, Some(relays[0]), Some(relays[1])]
            .into_iter()
            .all(|device| told(world, Some(node), &SecurityEvent::RotationFailed { device }))
    };
    assert!(talk_until(&mut world, MINUTE, all_told), "{:?}", world.controller.events);
    let known = world.controller.events.len();
    talk(&mut world, 2 * SILENCE_DEADLINE);
    world.run_for(2 * ROTATE_AFTER - 4 * MINUTE);
    assert_eq!(world.controller.events.len(), known, "{:?}", world.controller.events);
}

/// When a rotation that nobody answers is given up, in a world that is the same each time.
fn when_given_up() -> Duration {
    let mut world = two_nodes(false);
    world.run_for(BEFORE_ROTATION);
    world.stall(HostId::Node(0), HostId::Controller);
    let given_up = |world: &World| {
        world.nodes[0]
            .alarms
            .iter()
            .any(|(_, alarm)| *alarm == SecurityEvent::RotationFailed { device: None })
    };
    assert!(world.run_until(2 * MINUTE, given_up));
    world.elapsed()
}

#[test]
fn a_connection_that_is_lost_in_mid_rotation_is_recorded_and_costs_no_packet() {
    let begun = when_given_up() - ROTATION_DEADLINE;
    for (at, is_lost_meanwhile) in [(begun + 2 * SECOND, true), (begun - SECOND, false)] {
        let mut world = two_nodes(false);
        let node = world.nodes[0].device;
        world.run_for(BEFORE_ROTATION);
        world.stall(HostId::Node(0), HostId::Controller);
        world.run_for(at - world.elapsed());
        world.stop_controller();
        world.heal();
        talk(&mut world, 10 * SECOND);
        world.start_controller();
        let event = SecurityEvent::RotationFailed { device: None };
        let is_told = talk_until(&mut world, MINUTE, |world| told(world, Some(node), &event));
        assert_eq!(is_told, is_lost_meanwhile, "{:?}", world.controller.events);
    }
}

#[test]
fn a_clock_that_goes_wrong_is_recorded_from_the_sixty_first_second_and_costs_no_packet() {
    // In milliseconds; the way of the first message takes a few.
    for (ahead, recorded) in [
        (59_000, None),
        (-59_000, None),
        (61_500, Some(61)),
        (-61_500, Some(61)),
        (3_600_500, Some(3_600)),
    ] {
        let mut world = two_nodes(false);
        world.set_clock(0, ahead);
        world.stop_controller();
        talk(&mut world, 5 * SECOND);
        world.start_controller();
        talk(&mut world, MINUTE);
        let events = world.controller.events.iter().map(|record| record.event.clone());
        let mut events: Vec<_> = events.collect();
        // A relay may find it out while the controller is away, and the controller afterwards.
        events.dedup();
        let expected = recorded.map(|seconds| SecurityEvent::ClockSkew { seconds });
        assert_eq!(events, Vec::from_iter(expected), "{ahead}");
    }
}

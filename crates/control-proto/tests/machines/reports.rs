//! Security events on their way to the controller.

use std::time::{Duration, Instant};

use control_proto::{ClientStatus, Repeats, SecurityEvent};

use crate::world::joined;

#[test]
fn reports_wait_for_the_controller_the_oldest_are_counted_and_long_ones_are_not_kept() {
    let mut world = joined(1);
    let device = world.id(0);
    let report = |number: usize| SecurityEvent::ProtocolViolation {
        device: Some(device),
        reason: format!("violation {number}"),
    };
    world.crash();
    for number in 0..100 {
        world.nodes[0].client.report(report(number), world.now.instant);
    }
    world.start();
    world.pass(Duration::from_secs(180));
    let reports: Vec<_> =
        world.events.iter().filter(|record| record.reporter == Some(device)).collect();
    let suppressed = SecurityEvent::Suppressed { count: 36 };
    let expected: Vec<_> = (36..100).map(report).chain([suppressed]).collect();
    assert!(reports.iter().map(|record| &record.event).eq(&expected), "{reports:?}");

    let known = world.events.len();
    let long = SecurityEvent::HandshakeFailed { reason: "x".repeat(1_000) };
    world.nodes[0].client.report(long, world.now.instant);
    world.nodes[0].client.report(SecurityEvent::Replayed, world.now.instant);
    world.pass(Duration::from_secs(5));
    let new: Vec<_> = world.events[known..].iter().map(|record| &record.event).collect();
    let (device, reason) = (Some(device), "a report is too long".to_owned());
    let said = SecurityEvent::ProtocolViolation { device, reason };
    assert_eq!(new, [&said, &SecurityEvent::Replayed]);
}

#[test]
fn a_report_is_repeated_until_it_is_on_disk_and_not_afterwards() {
    let mut world = joined(1);
    let device = world.id(0);
    world.disk_works = false;
    world.nodes[0].client.report(SecurityEvent::Replayed, world.now.instant);
    world.settle();
    world.crash();
    assert!(world.events.is_empty(), "the process ended before the batch was kept");
    world.disk_works = true;
    world.start();
    world.pass(Duration::from_secs(120));
    world.cut(0);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.status(0), ClientStatus::Online);
    let reports: Vec<_> = world.events.iter().map(|r| (r.reporter, &r.event)).collect();
    assert_eq!(reports, [(Some(device), &SecurityEvent::Replayed)]);
}

#[test]
fn equal_events_are_told_once_a_minute_and_the_others_are_counted() {
    let start = Instant::now();
    let mut repeats = Repeats::default();
    let times = [0, 1, 59, 60].map(|second| start + Duration::from_secs(second));
    let told = times.map(|now| repeats.admit(&SecurityEvent::Replayed, now));
    assert_eq!(told, [true, false, false, true]);
    assert_eq!(repeats.poll_suppressed(start + Duration::from_secs(60)), None);
    let counted = Some(SecurityEvent::Suppressed { count: 2 });
    assert_eq!(repeats.poll_suppressed(start + Duration::from_secs(61)), counted);
    assert_eq!(repeats.poll_suppressed(start + Duration::from_secs(200)), None);
}

//! Members who pretend to be others, and bytes of anybody.

use std::net::Ipv6Addr;

use control_proto::{SecurityEvent, TunnelRefusal};
use engine::HostPacket;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use testlab::places::Place;
use testlab::sim::{Quality, Setup, World};

use crate::world::{MINUTE, SECOND, joined, ping_both_ways};

#[test]
fn no_datagram_and_no_packet_panics_an_engine() {
    let mut world = joined(Setup::default());
    world.run_for(2 * SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let (now, from) = (world.now(), world.nodes[1].address);
    let sender = *world.nodes[1].device.as_bytes();
    let engine = world.nodes[0].engine.as_mut().unwrap();
    for round in 0..4_000_usize {
        let mut bytes = vec![0; rng.next_u32() as usize % 1_400];
        rng.fill_bytes(&mut bytes);
        if bytes.len() >= 40 {
            let kind = (round / 4 % 16) as u8;
            match round % 4 {
                0 => bytes[..4].copy_from_slice(&[kind, 0, 0, 0]),
                1 => bytes[..2].copy_from_slice(&[0x10 | kind, 1]),
                2 => bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]),
                _ => bytes[0] = kind << 4,
            }
            bytes[8..40].copy_from_slice(&sender);
        }
        engine.handle_packet(HostPacket::single(&bytes), &mut rng, now);
        engine.handle_datagram(from, &mut bytes, &mut rng, now);
    }
    assert_eq!(world.nodes[0].received, 2, "nothing of it reaches an application");
    ping_both_ways(&mut world, 10 * SECOND);
}

/// How often the controller was told that a node refused foreign addresses of another, and how
/// many packets that were.
fn foreign_sources(world: &World, reporter: usize, sender: usize) -> (usize, u64) {
    let (reporter, sender) = (world.nodes[reporter].device, world.nodes[sender].device);
    let (sender, kind) = (Some(sender), TunnelRefusal::ForeignSource);
    let events = world.controller.events.iter();
    let of_reporter = events.filter(|record| record.reporter == Some(reporter));
    let counts = of_reporter.filter_map(|record| {
        if let SecurityEvent::TunnelRefusals { device, what, count } = record.event
            && (device, what) == (sender, kind)
        {
            Some(count)
        } else {
            None
        }
    });
    (counts.clone().count(), counts.sum())
}

fn send_from_foreign_address(world: &mut World, packets: usize) {
    let (source, destination) = (Ipv6Addr::LOCALHOST, world.address(0));
    for _ in 0..packets {
        world.send_from(1, source, destination);
    }
}

#[test]
fn a_member_that_sends_from_a_foreign_address_is_reported_to_the_controller() {
    for udp_blocked in [false, true] {
        let mut world = joined(Setup::default());
        world.nodes[1].udp_blocked = udp_blocked;
        ping_both_ways(&mut world, 10 * SECOND);
        world.run_for(10 * SECOND);
        assert_eq!(world.path(1, 0) == "relay", udp_blocked);
        let received = world.nodes[0].received;
        send_from_foreign_address(&mut world, 1);
        let is_told = |world: &World| foreign_sources(world, 0, 1) == (1, 1);
        assert!(world.run_until(5 * SECOND, is_told), "{:?}", world.controller.events);
        for _ in 0..50 {
            send_from_foreign_address(&mut world, 20);
            world.run_for(SECOND);
        }
        world.run_for(2 * MINUTE);
        let (events, packets) = foreign_sources(&world, 0, 1);
        assert_eq!((events, packets), (2, 1_001), "one event a minute, with the number");
        assert_eq!(world.nodes[0].received, received, "nothing of it gets through");
    }
}

#[test]
fn a_member_cannot_send_in_the_name_of_another_whatever_the_path() {
    for udp_blocked in [false, true] {
        let mut world = joined(Setup { nodes: 3, ..Setup::default() });
        world.nodes[1].udp_blocked = udp_blocked;
        ping_both_ways(&mut world, 10 * SECOND);
        world.run_for(10 * SECOND);
        assert_eq!(world.path(1, 0) == "relay", udp_blocked);
        let received = world.nodes[0].received;
        world.send_from(1, world.address(2), world.address(0));
        let is_told = |world: &World| foreign_sources(world, 0, 1) == (1, 1);
        assert!(world.run_until(5 * SECOND, is_told), "{:?}", world.controller.events);
        assert_eq!(world.nodes[0].received, received);
    }
}

#[test]
fn what_is_noticed_while_the_controller_is_down_is_reported_when_it_is_back() {
    let mut world = joined(Setup::default());
    ping_both_ways(&mut world, 10 * SECOND);
    world.stop_controller();
    world.run_for(SECOND);
    send_from_foreign_address(&mut world, 3);
    world.run_for(10 * SECOND);
    assert_eq!(foreign_sources(&world, 0, 1), (0, 0));
    world.start_controller();
    let is_told = |world: &World| foreign_sources(world, 0, 1) == (1, 3);
    assert!(world.run_until(2 * MINUTE, is_told), "{:?}", world.controller.events);
}

#[test]
fn a_member_that_claims_the_tunnel_key_of_another_takes_nothing_from_it() {
    let mut world = joined(Setup { nodes: 3, ..Setup::default() });
    ping_both_ways(&mut world, 10 * SECOND);
    world.stop_node(2);
    world.run_for(SECOND);
    world.start_node_with_tunnel_key_of(2, 1);
    let thief = world.nodes[2].device;
    let is_told = |world: &World| {
        let mut events = world.controller.events.iter().map(|record| &record.event);
        events.any(|event| {
            matches!(event, SecurityEvent::Conflict { device, what }
                if *device == thief && what == "tunnel key")
        })
    };
    assert!(world.run_until(20 * SECOND, is_told), "{:?}", world.controller.events);
    ping_both_ways(&mut world, 10 * SECOND);
    world.run_for(5 * MINUTE);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(!world.ping_until_answered(0, 2, 10 * SECOND));
}

#[test]
fn devices_that_all_look_for_one_at_once_are_no_alarm() {
    // Direct paths are found before what went over the relays is answered, so it goes over them as well.
    let streams = Quality { latency: SECOND, ..Quality::STREAM };
    let mut world = World::new(Setup { nodes: 0, streams, ..Setup::default() });
    for _ in 0..24 {
        let site = Place::PortRestricted.site(&mut world);
        world.add_node_at(site);
    }
    world.run_for(MINUTE);
    for node in 1..world.nodes.len() {
        world.ping(node, 0);
    }
    world.run_for(2 * MINUTE);
    assert!(world.path(1, 0).starts_with("direct"), "{}", world.path(1, 0));
    let alarms: Vec<_> = world.nodes.iter().flat_map(|node| &node.alarms).collect();
    assert!(alarms.is_empty(), "{alarms:?}");
}

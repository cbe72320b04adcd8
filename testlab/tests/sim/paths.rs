//! By what packets go, and how soon.

use std::time::Duration;

use engine::HostPacket;
use packet::{Offload, Segmentation};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use testlab::sim::{Quality, Setup, World};

use crate::world::{MINUTE, SECOND, joined, ping_both_ways};

#[test]
fn two_nodes_reach_each_other_through_a_relay_and_then_directly() {
    let mut world = joined(Setup::default());
    world.run_for(SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    let is_direct = |world: &World| {
        world.path(0, 1).starts_with("direct") && world.path(1, 0).starts_with("direct")
    };
    assert!(world.run_until(10 * SECOND, is_direct), "{} {}", world.path(0, 1), world.path(1, 0));
    let before: u64 = world.relays.iter().map(|relay| relay.sent_bytes).sum();
    ping_both_ways(&mut world, 10 * SECOND);
    let after: u64 = world.relays.iter().map(|relay| relay.sent_bytes).sum();
    assert!(after - before < 500, "{} bytes over relays", after - before);
}

#[test]
fn a_super_packet_crosses_a_relay_in_one_piece_and_a_direct_path_in_parts() {
    const PARTS: u16 = 12;
    for udp_blocked in [true, false] {
        let mut world = joined(Setup::default());
        world.nodes[1].udp_blocked = udp_blocked;
        let kind = if udp_blocked { "relay" } else { "direct" };
        ping_both_ways(&mut world, 10 * SECOND);
        assert!(world.run_until(10 * SECOND, |world| world.path(0, 1).starts_with(kind)));
        let (source, destination) = (world.address(0), world.address(1));
        let data = vec![7; usize::from(PARTS) * 1_220];
        let packet = packet::build::udp((source, 1_000).into(), (destination, 2_000).into(), &data);
        let offload = Offload {
            needs_checksum: true,
            segmentation: Segmentation::Udp,
            header_length: 48,
            segment_size: 1_220,
            checksum_start: 40,
            checksum_offset: 6,
        };
        let relayed =
            |world: &World| world.relays.iter().map(|relay| relay.sent_bytes).sum::<u64>();
        let before = (world.nodes[1].received, relayed(&world));
        let now = world.now();
        let engine = world.nodes[0].engine.as_mut().unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        engine.handle_packet(HostPacket::new(offload, &packet), &mut rng, now);
        world.run_for(SECOND);
        assert_eq!(world.nodes[1].received - before.0, u64::from(PARTS));
        let through_relay = relayed(&world) - before.1;
        if udp_blocked {
            let overhead = through_relay - packet.len() as u64;
            assert!(overhead < 1_000, "{overhead} bytes around one super-packet");
        } else {
            assert!(through_relay < 1_000, "{through_relay} bytes over relays");
        }
    }
}

#[test]
fn the_first_answer_over_a_relay_comes_within_two_round_trips_of_the_handshake() {
    let mut world = joined(Setup::default());
    world.run_for(2 * SECOND);
    let begin = world.elapsed();
    let number = world.ping(0, 1);
    assert!(world.run_until(SECOND, |world| world.is_answered(0, number)));
    // Over a relay a round trip is four times 10 ms: one for the handshake, one for the answer.
    let took = world.elapsed() - begin;
    assert!(took <= Duration::from_millis(2 * 40 + 10), "{took:?}");
}

#[test]
fn whoever_has_just_joined_is_answered_within_a_second() {
    let mut world = joined(Setup::default());
    world.run_for(5 * SECOND);
    let newcomer = world.add_node();
    let has_address = |world: &World| world.nodes[newcomer].interface.is_some();
    assert!(world.run_until(MINUTE, has_address), "the newcomer joins");
    let number = world.ping(newcomer, 0);
    assert!(world.run_until(SECOND, |world| world.is_answered(newcomer, number)));
    world.run_for(2 * MINUTE);
    assert!(world.controller.events.is_empty(), "{:?}", world.controller.events);
}

#[test]
fn a_node_without_udp_is_reached_through_a_relay() {
    let mut world = joined(Setup::default());
    world.nodes[1].udp_blocked = true;
    world.run_for(SECOND);
    ping_both_ways(&mut world, 5 * SECOND);
    world.run_for(20 * SECOND);
    ping_both_ways(&mut world, 5 * SECOND);
    assert_eq!(world.path(0, 1), "relay");
    assert_eq!(world.path(1, 0), "relay");
}

#[test]
fn a_direct_path_that_dies_is_replaced_by_the_relay_and_found_again() {
    let mut world = joined(Setup::default());
    world.run_for(SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(world.run_until(10 * SECOND, |world| world.path(0, 1).starts_with("direct")));
    world.nodes[1].udp_blocked = true;
    assert!(world.ping_until_answered(0, 1, 5 * SECOND), "the relay takes over within 5 s");
    world.nodes[1].udp_blocked = false;
    for _ in 0..60 {
        world.ping(0, 1);
        world.run_for(SECOND);
    }
    assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
}

#[test]
fn the_second_relay_takes_over_when_the_first_dies() {
    let mut world = joined(Setup::default());
    world.nodes[0].udp_blocked = true;
    world.run_for(2 * SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    world.stop_relay(0);
    ping_both_ways(&mut world, 15 * SECOND);
}

#[test]
fn twenty_nodes_with_loss_and_reordering_become_a_complete_mesh() {
    const NODES: usize = 20;
    let mut world = joined(Setup { nodes: NODES, quality: Quality::BAD, ..Setup::default() });
    world.run_for(5 * SECOND);
    for from in 0..NODES {
        for to in (0..NODES).filter(|to| *to != from) {
            assert!(world.ping_until_answered(from, to, MINUTE), "{from} reaches {to}");
        }
    }
}

#[test]
fn a_run_is_the_same_every_time() {
    let run = || {
        let mut world = joined(Setup { quality: Quality::BAD, ..Setup::default() });
        let begin = world.elapsed();
        ping_both_ways(&mut world, MINUTE);
        world.run_for(MINUTE);
        let bytes: Vec<_> = world.relays.iter().map(|relay| relay.sent_bytes).collect();
        (begin, world.elapsed(), bytes, world.path(0, 1))
    };
    assert_eq!(run(), run());
}

#[test]
fn after_hours_over_the_relay_and_after_sleep_there_the_direct_path_is_found_within_half_a_minute()
{
    for asleep in [false, true] {
        let mut world = joined(Setup::default());
        world.run_for(10 * SECOND);
        world.nodes[1].udp_blocked = true;
        let hours = Duration::from_secs(3 * 3_600);
        let end = world.elapsed() + hours;
        while world.elapsed() < end {
            assert!(world.ping_until_answered(0, 1, 5 * SECOND));
            world.run_for(20 * SECOND);
        }
        assert_eq!(world.path(0, 1), "relay");
        if asleep {
            world.put_to_sleep(1);
            world.run_for(hours);
            world.wake_up(1);
        }
        world.nodes[1].udp_blocked = false;
        let begin = world.elapsed();
        while !world.path(0, 1).starts_with("direct") || !world.path(1, 0).starts_with("direct") {
            assert!(world.elapsed() < begin + 31 * SECOND, "{}", world.path(0, 1));
            world.ping(0, 1);
            world.run_for(SECOND);
        }
    }
}

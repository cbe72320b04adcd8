//! Whole networks on a virtual clock.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use control_proto::{MapItem, SecurityEvent, TunnelRefusal};
use engine::{HostPacket, Now, Outbound, UnixMillis};
use identity::{NameEntry, NameTarget, RevocationTarget, UnixTime};
use naming::{Lookup, Namespace};
use packet::{Offload, Segmentation};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use testlab::sim::{Quality, Setup, World};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn joined(setup: Setup) -> World {
    let mut world = World::new(setup);
    let all_have_addresses =
        |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, all_have_addresses), "every node joins");
    world
}

fn ping_both_ways(world: &mut World, patience: Duration) {
    assert!(world.ping_until_answered(0, 1, patience), "0 reaches 1");
    assert!(world.ping_until_answered(1, 0, patience), "1 reaches 0");
}

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
fn traffic_goes_on_and_nodes_restart_while_the_controller_is_down() {
    let mut world = joined(Setup { nodes: 3, ..Setup::default() });
    world.run_for(5 * SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    world.stop_controller();
    world.run_for(MINUTE);
    ping_both_ways(&mut world, 5 * SECOND);
    world.stop_node(1);
    world.run_for(SECOND);
    world.start_node(1);
    assert!(world.ping_until_answered(1, 2, 20 * SECOND), "a new session without a controller");
    assert!(world.ping_until_answered(1, 0, 20 * SECOND), "an old peer after a restart");
}

#[test]
fn a_node_that_restarts_is_answered_at_once() {
    for server_is_there in [true, false] {
        let mut world = joined(Setup::default());
        world.run_for(5 * SECOND);
        ping_both_ways(&mut world, 10 * SECOND);
        let is_direct = |world: &World| world.path(1, 0).starts_with("direct");
        assert!(world.run_until(10 * SECOND, is_direct), "{}", world.path(1, 0));
        world.run_for(2 * SECOND);
        if !server_is_there {
            world.stop_controller();
            (0..world.relays.len()).for_each(|relay| world.stop_relay(relay));
        }
        for round in 0..5 {
            world.stop_node(0);
            world.run_for(Duration::from_millis(100));
            world.start_node(0);
            world.run_for(Duration::from_millis(if server_is_there { 200 } else { 0 }));

            let number = world.ping(0, 1);
            let begin = world.elapsed();
            assert!(world.run_until(MINUTE, |world| world.is_answered(0, number)), "{round}");
            let took = world.elapsed() - begin;
            let limit = Duration::from_millis(200);
            assert!(took < limit, "server: {server_is_there}, round {round}: {took:?}");
        }
    }
}

#[test]
fn a_removed_device_is_cut_off_within_five_seconds() {
    let mut world = joined(Setup { nodes: 3, ..Setup::default() });
    world.run_for(2 * SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    let removed = world.nodes[1].device;
    world.remove(removed);
    world.run_for(5 * SECOND);
    let received = world.nodes[0].received;
    assert!(!world.ping_until_answered(0, 1, 5 * SECOND));
    assert!(!world.ping_until_answered(1, 0, 5 * SECOND));
    assert_eq!(world.nodes[0].received, received, "nothing of the removed device gets through");
    assert!(world.ping_until_answered(0, 2, 5 * SECOND), "the others go on");
}

#[test]
fn a_controller_that_restarts_from_its_disk_admits_further_nodes() {
    let mut world = joined(Setup::default());
    world.stop_controller();
    world.run_for(10 * SECOND);
    world.start_controller();
    let new = world.add_node();
    assert!(world.run_until(MINUTE, |world| world.nodes[new].interface.is_some()));
    assert!(world.ping_until_answered(new, 0, MINUTE));
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

const HOUR: u64 = 3_600;

/// A node and a plain WireGuard peer that a record lets in for an hour.
fn with_plain_peer() -> World {
    let mut world = joined(Setup::default());
    let plain = world.add_plain(0);
    let not_after = UnixTime(world.now().wall.as_secs() + HOUR);
    publish_plain(&mut world, plain, not_after, false);
    world
}

fn publish_plain(world: &mut World, plain: usize, not_after: UnixTime, withdrawn: bool) {
    let record = world.plain[plain].record(not_after);
    let key = record.tunnel_key;
    world.publish(record, withdrawn, |signed| MapItem::Static(key, signed));
    world.run_for(5 * SECOND);
}

fn plain_is_answered(world: &mut World) -> bool {
    let number = world.ping_from_plain(0, 0);
    world.run_until(10 * SECOND, |world| world.plain[0].is_answered(number))
}

#[test]
fn a_plain_wireguard_peer_that_a_record_lets_in_exchanges_packets_with_a_node() {
    let mut world = with_plain_peer();
    assert!(plain_is_answered(&mut world), "the plain peer reaches the node");
    let number = Some(world.ping_plain(0, 0));
    assert!(world.run_until(SECOND, |world| world.is_answered(0, number)), "and the node it");
    let status = world.nodes[0].engine.as_ref().unwrap().status(world.now());
    let shown = status.peers.iter().find(|peer| peer.name == "printer").unwrap();
    assert!(shown.session && shown.path == "direct 192.0.2.77:51820", "{shown:?}");
    assert_eq!(shown.addresses, [world.plain[0].inner]);
}

#[test]
fn a_plain_wireguard_peer_is_answered_where_it_is_heard_from() {
    let mut world = with_plain_peer();
    assert!(plain_is_answered(&mut world));
    world.plain[0].address = "192.0.2.99:4000".parse().unwrap();
    assert!(plain_is_answered(&mut world), "after it has moved");
    let number = Some(world.ping_plain(0, 0));
    assert!(world.run_until(SECOND, |world| world.is_answered(0, number)));
}

#[test]
fn a_plain_wireguard_peer_without_a_record_or_after_it_gets_nothing() {
    let mut world = joined(Setup::default());
    world.add_plain(0);
    assert!(!plain_is_answered(&mut world), "no record, no tunnel");
    let soon = UnixTime(world.now().wall.as_secs() + 60);
    publish_plain(&mut world, 0, soon, false);
    assert!(plain_is_answered(&mut world));
    world.run_for(MINUTE);
    let received = world.nodes[0].received;
    assert!(!plain_is_answered(&mut world), "the record has expired");
    assert_eq!(world.nodes[0].received, received);
    assert!(world.nodes[0].engine.as_ref().unwrap().status(world.now()).peers.len() == 3);
}

#[test]
fn a_plain_wireguard_peer_whose_record_is_withdrawn_is_cut_off() {
    let mut world = with_plain_peer();
    assert!(plain_is_answered(&mut world));
    let not_after = UnixTime(world.now().wall.as_secs() + HOUR);
    publish_plain(&mut world, 0, not_after, true);
    let received = world.nodes[0].received;
    assert!(!plain_is_answered(&mut world));
    assert_eq!(world.nodes[0].received, received);
}

#[test]
fn a_plain_wireguard_peer_cannot_send_from_an_address_that_is_not_its_own() {
    let mut world = with_plain_peer();
    assert!(plain_is_answered(&mut world));
    let received = world.nodes[0].received;
    world.plain[0].inner = "fd00::bad".parse().unwrap();
    assert!(!plain_is_answered(&mut world));
    assert_eq!(world.nodes[0].received, received);
}

#[test]
fn a_packet_for_somebody_else_is_not_delivered() {
    let mut world = with_plain_peer();
    assert!(plain_is_answered(&mut world));
    let received = |world: &World| [world.nodes[0].received, world.nodes[1].received];
    let before = received(&world);
    world.ping_from_plain(0, 1);
    world.run_for(SECOND);
    assert_eq!(received(&world), before, "the tunnel ends at node 0, the packet is for node 1");
}

#[test]
fn names_of_records_stand_beside_the_names_of_devices() {
    let mut world = joined(Setup::default());
    let target = world.nodes[1].device;
    let mut publish = |name: &str, target: NameTarget| {
        let entry = NameEntry { name: name.to_owned(), target };
        world.publish(entry, false, |signed| MapItem::Name(name.to_owned(), signed));
    };
    let fixed: IpAddr = "192.0.2.9".parse().unwrap();
    publish("wiki", NameTarget::Device(target));
    publish("www.home.alt", NameTarget::Alias("wiki.home.alt".to_owned()));
    publish("fixed.lab", NameTarget::Addresses(vec![fixed]));
    publish("one", NameTarget::Alias("two".to_owned()));
    publish("two", NameTarget::Alias("one".to_owned()));
    publish("node-1", NameTarget::Addresses(vec![fixed]));
    world.run_for(10 * SECOND);
    let zone = world.nodes[0].engine.as_ref().unwrap().zone(world.now()).unwrap();
    let names = Namespace::new(vec![zone], 1).unwrap();
    let of_target = Lookup::Addresses(world.nodes[1].interface.as_ref().unwrap().addresses.clone());
    assert_eq!(names.lookup("wiki.home.alt"), of_target);
    assert_eq!(names.lookup("www.home.alt"), of_target, "through an alias");
    assert_eq!(names.lookup("fixed.lab.home.alt"), Lookup::Addresses(vec![fixed]));
    assert_eq!(names.lookup("one.home.alt"), Lookup::NoSuchName, "a ring of aliases");
    assert_eq!(names.lookup("node-1.home.alt"), of_target, "a device keeps its name");
}

/// What the data plane of node 0 makes of a packet to node 1.
fn to_node_1(world: &World, now: Now) -> Outbound {
    let mut packet = vec![0; 40];
    (packet[0], packet[6], packet[7]) = (0x60, 59, 64);
    packet[8..24].copy_from_slice(&world.address(0).octets());
    packet[24..40].copy_from_slice(&world.address(1).octets());
    let plane = world.nodes[0].engine.as_ref().expect("it runs").data_plane();
    plane.load().outbound(&[&packet], &mut Vec::new(), now.instant)
}

fn with_direct_path() -> World {
    let mut world = joined(Setup::default());
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(world.run_until(10 * SECOND, |world| world.path(0, 1).starts_with("direct")));
    world.run_for(SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(matches!(to_node_1(&world, world.now()), Outbound::Datagrams { .. }));
    world
}

#[test]
fn a_certificate_that_expires_ends_the_tunnel_in_the_same_call() {
    let mut world = with_direct_path();
    let peer = world.nodes[1].device;
    let (now, mut rng) = (world.now(), ChaCha20Rng::seed_from_u64(1));
    let engine = world.nodes[0].engine.as_mut().unwrap();
    let end = engine.map().peer(peer).unwrap().member.not_after;
    let wall = UnixMillis(end.0 * 1_000 - 1);
    engine.handle_timeout(&mut rng, Now { instant: now.instant + SECOND, wall });
    let Outbound::Datagrams { .. } = to_node_1(&world, now) else { panic!("it is still valid") };
    let engine = world.nodes[0].engine.as_mut().unwrap();
    let wall = UnixMillis(end.0 * 1_000);
    engine.handle_timeout(&mut rng, Now { instant: now.instant + 2 * SECOND, wall });
    assert_eq!(to_node_1(&world, now), Outbound::NoRoute);
}

#[test]
fn a_revocation_ends_the_tunnel_in_the_same_call() {
    let mut world = with_direct_path();
    let removed = world.nodes[1].device;
    world.remove(removed);
    let knows = |world: &World| {
        let map = world.nodes[0].engine.as_ref().unwrap().map();
        map.revocations().contains(&RevocationTarget::Device(removed))
    };
    assert!(!knows(&world), "the news takes its time");
    assert!(world.run_until(5 * SECOND, knows));
    assert_eq!(to_node_1(&world, world.now()), Outbound::NoRoute);
}

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
fn a_peer_that_moves_while_the_controller_is_down_introduces_its_new_addresses() {
    let mut world = with_direct_path();
    world.stop_controller();
    world.run_for(SECOND);
    let to = "198.51.100.77:41641".parse().unwrap();
    world.move_node(1, to);
    assert!(world.ping_until_answered(1, 0, 20 * SECOND));
    let peer = world.nodes[1].device;
    let is_known = |world: &World| {
        let map = world.nodes[0].engine.as_ref().unwrap().map();
        let endpoints = map.peer(peer).and_then(|peer| peer.endpoints.as_ref());
        endpoints.is_some_and(|endpoints| endpoints.candidates.iter().any(|c| c.address == to))
    };
    assert!(world.run_until(20 * SECOND, is_known));
}

#[test]
fn a_peer_with_a_new_tunnel_key_introduces_itself_while_the_controller_is_down() {
    for (asks, answers) in [(1, 0), (0, 1)] {
        let mut world = with_direct_path();
        world.stop_controller();
        world.stop_node(1);
        world.run_for(SECOND);
        world.start_node_with_new_tunnel_key(1);
        assert!(world.ping_until_answered(asks, answers, 30 * SECOND), "{asks} asks first");
        ping_both_ways(&mut world, 10 * SECOND);
        world.start_controller();
        world.run_for(2 * MINUTE);
        ping_both_ways(&mut world, 10 * SECOND);
    }
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
fn a_device_that_moves_tells_the_controller_at_once() {
    let mut world = joined(Setup::default());
    ping_both_ways(&mut world, 10 * SECOND);
    let to = "198.51.100.78:41641".parse().unwrap();
    world.move_node(1, to);
    let peer = world.nodes[1].device;
    let is_known = |world: &World| {
        let map = world.nodes[0].engine.as_ref().unwrap().map();
        let endpoints = map.peer(peer).and_then(|peer| peer.endpoints.as_ref());
        endpoints.is_some_and(|endpoints| endpoints.candidates.iter().any(|c| c.address == to))
    };
    assert!(world.run_until(2 * SECOND, is_known), "the old channel leads nowhere");
}

#[test]
fn a_device_that_sleeps_for_a_while_raises_no_alarm() {
    let mut world = joined(Setup { nodes: 4, ..Setup::default() });
    ping_both_ways(&mut world, 10 * SECOND);
    world.put_to_sleep(0);
    world.run_for(80 * SECOND);
    world.wake_up(0);
    world.run_for(MINUTE);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(world.controller.events.is_empty(), "{:?}", world.controller.events);
}

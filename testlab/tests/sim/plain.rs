//! A plain WireGuard peer that a record lets in.

use control_proto::MapItem;
use identity::UnixTime;
use testlab::sim::{Setup, World};

use crate::world::{MINUTE, SECOND, joined};

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

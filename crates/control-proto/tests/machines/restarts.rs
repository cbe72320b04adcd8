//! Nodes that were away, and controllers that start from their disk.

use std::time::Duration;

use control_proto::limits::MAX_ITEM;
use control_proto::{
    AdminRequest, ClientEvent, ClientStatus, InviteRequest, ItemKey, NetworkMap, SecurityEvent,
    StoredItem,
};
use identity::{Epoch, Signed};

use crate::world::{World, devices, endpoints, joined};

#[test]
fn a_node_that_was_away_gets_what_it_missed() {
    let mut world = joined(2);
    world.cut(1);
    let signed = endpoints(&world, 0, 1, 4000);
    world.nodes[0].client.set_endpoints(signed, world.now.instant);
    world.pass(Duration::from_secs(90));
    assert_eq!(world.status(1), ClientStatus::Online);
    let peer = world.map(1).peer(world.id(0)).unwrap();
    assert_eq!(peer.endpoints.as_ref().unwrap().number, 1);
    assert_eq!(world.map(0).version(), world.map(1).version());
}

#[test]
fn endpoints_that_are_found_while_the_hello_is_on_its_way_are_told_as_well() {
    let mut world = joined(1);
    let invite = world.invite(InviteRequest::default());
    world.disk_works = false;
    let newcomer = world.join(&invite, "newcomer");
    assert_eq!(world.status(newcomer), ClientStatus::Connecting, "the answer waits for the disk");
    let signed = endpoints(&world, newcomer, 1, 4000);
    world.nodes[newcomer].client.set_endpoints(signed, world.now.instant);
    world.disk_works = true;
    world.invite(InviteRequest::default());
    world.pass(Duration::from_secs(2));
    assert_eq!(world.status(newcomer), ClientStatus::Online);
    let peer = world.map(0).peer(world.id(newcomer)).unwrap();
    assert_eq!(peer.endpoints.as_ref().unwrap().number, 1);
}

#[test]
fn a_node_starts_from_its_cached_map_without_a_controller() {
    let mut world = joined(3);
    let bytes = world.map(0).to_bytes();
    world.crash();
    let (map, applied) =
        NetworkMap::from_bytes(world.network_key.id(), &bytes, world.wall()).unwrap();
    assert!(applied.events.is_empty(), "{:?}", applied.events);
    assert_eq!(map.peers().count(), 3);
    assert_eq!(map.version(), world.map(0).version());
    let later = world.wall().plus(8 * 24 * 3600);
    let (map, applied) = NetworkMap::from_bytes(world.network_key.id(), &bytes, later).unwrap();
    assert_eq!(map.peers().count(), 0);
    assert!(matches!(applied.events[0], SecurityEvent::ExpiredCertificate { .. }));
    let bytes = map.to_bytes();
    let (mut map, _) = NetworkMap::from_bytes(world.network_key.id(), &bytes, later).unwrap();
    assert_eq!(map.revive(world.wall()).changes.peers.len(), 3, "the clock was wrong");
    assert_eq!(map.peers().count(), 3);
}

#[test]
fn nothing_is_promised_before_it_is_on_disk() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    world.disk_works = false;
    let index = world.join(&invite, "node");
    assert_eq!(world.status(index), ClientStatus::Connecting);
    world.crash();
    world.disk_works = true;
    world.start();
    assert!(devices(&mut world).is_empty());
    world.pass(Duration::from_secs(120));
    assert_eq!(world.status(index), ClientStatus::Online);
    assert_eq!(devices(&mut world).len(), 1);
}

#[test]
fn a_map_for_which_the_keys_have_to_change_several_times_arrives_whole() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let early = world.join(&invite, "early");
    let later = world.invite(InviteRequest::default());
    world.crash();
    // Of a later version, so that nothing but their way matters.
    for number in 0..1_000 {
        world.disk.counters.map += 1;
        let version = world.disk.counters.map;
        let bytes = vec![0xff; MAX_ITEM].into_boxed_slice();
        let key = ItemKey::Revocation(1_000_000 + number);
        world.disk.items.insert(key, StoredItem { version, bytes });
    }
    world.start();
    world.pass(Duration::from_secs(60));
    let late = world.join(&later, "late");
    world.pass(Duration::from_secs(1));
    for node in [early, late] {
        assert_eq!(world.status(node), ClientStatus::Online);
        let version = world.map(node).version().expect("the last chunk came");
        assert_eq!(version.number, world.disk.counters.map);
    }
}

#[test]
fn a_restarted_controller_goes_on_where_the_disk_says() {
    let mut world = joined(4);
    let removed = world.id(3);
    world.admin(AdminRequest::RemoveDevice { device: removed }).unwrap();
    let version = world.map(0).version();
    world.crash();
    world.pass(Duration::from_secs(10));
    world.start();
    world.pass(Duration::from_secs(90));
    for index in 0..3 {
        assert_eq!(world.status(index), ClientStatus::Online);
        assert_eq!(world.map(index).peers().count(), 3);
    }
    assert!(world.map(0).version() >= version);
    let invite = world.invite(InviteRequest::default());
    let index = world.join(&invite, "late");
    assert!(world.map(index).revocations().number() == 1);
}

#[test]
fn a_new_epoch_brings_everybody_the_whole_map() {
    let mut world = joined(2);
    let old = world.disk.clone();
    let invite = world.invite(InviteRequest::default());
    world.join(&invite, "forgotten");
    world.crash();
    // The disk is restored from a backup, and the owner signs a new epoch.
    world.disk = old;
    let epoch = Epoch { number: 1, at: world.wall() };
    world.config.epoch = Some(Signed::sign(world.network_key.id(), &world.network_key, &epoch));
    world.start();
    world.pass(Duration::from_secs(120));
    for index in 0..2 {
        assert_eq!(world.status(index), ClientStatus::Online);
        assert_eq!(world.map(index).version().unwrap().epoch, 1);
        assert!(world.map(index).info().is_some());
        assert!(world.map(index).ipv4(world.id(1 - index)).is_some());
    }
    // The forgotten device has a good chain and is taken in again.
    assert_eq!(world.status(2), ClientStatus::Online);
}

#[test]
fn a_device_that_has_lost_its_memory_is_told_which_numbers_it_has_used() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let first = world.join(&invite, "a");
    let (key, channel_key) = (&world.nodes[first].key, &world.nodes[first].channel_key);
    let (key, channel_key) = (key.clone(), channel_key.clone());
    let binding = world.binding(&key, &channel_key, 50);
    let now = world.now.instant;
    let endpoints = endpoints(&world, first, 80, 4000);
    world.nodes[first].client.set_binding(binding, now);
    world.nodes[first].client.set_endpoints(endpoints, now);
    world.settle();
    world.cut(first);
    let again = world.join_as(&invite, "a", key.clone());
    assert!(world.nodes[again].events.contains(&ClientEvent::Outdated { number: 80 }));
    let channel_key = world.nodes[again].channel_key.clone();
    let binding = world.binding(&key, &channel_key, 81);
    world.nodes[again].client.set_binding(binding, world.now.instant);
    world.pass(Duration::from_secs(700));
    assert_eq!(world.status(again), ClientStatus::Online);
    assert_eq!(world.map(again).peer(world.id(again)).unwrap().binding.number, 81);
    assert!(world.events.is_empty(), "{:?}", world.events);
}

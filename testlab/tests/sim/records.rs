//! What the network's records give, and what their end takes.

use std::net::IpAddr;

use control_proto::MapItem;
use engine::{Now, Outbound, UnixMillis};
use identity::{NameEntry, NameTarget, RevocationTarget};
use naming::{Lookup, Namespace};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use testlab::sim::{Setup, World};

use crate::world::{SECOND, joined, ping_both_ways, to_node_1, with_direct_path};

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

#[test]
fn a_certificate_that_expires_ends_the_tunnel_in_the_same_call() {
    let mut world = with_direct_path();
    let peer = world.nodes[1].device;
    let (now, mut rng) = (world.now(), ChaCha20Rng::seed_from_u64(1));
    let engine = world.nodes[0].engine.as_mut().unwrap();
    let end = engine.map().peer(peer).unwrap().member.not_after;
    let wall = UnixMillis(end.0 * 1_000 - 1);
    engine.handle_timeout(&mut rng, Now { instant: now.instant + SECOND, wall });
    assert_ne!(to_node_1(&world, now), Outbound::NoRoute, "it is still valid");
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

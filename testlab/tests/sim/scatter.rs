//! A node behind a translator with ports at random, and one that filters by address and port.

use testlab::places::Place;
use testlab::sim::{HostId, World};

use crate::world::{MINUTE, SECOND, at, both_by, ping_both_ways, ping_until};

/// Node 0 is behind a translator with ports at random, node 1 at another place.
fn beside(seed: u64, place: Place) -> World {
    let mut world = at(seed, &[Place::Symmetric, place]);
    ping_both_ways(&mut world, 10 * SECOND);
    world
}

#[test]
fn most_pairs_with_a_home_meet_within_20_s_and_stay() {
    let mut met = 0;
    for seed in 0..8 {
        let mut world = beside(seed, Place::PortRestricted);
        if ping_until(&mut world, 25, both_by("direct")).is_none() {
            continue;
        }
        met += 1;
        for _ in 0..120 {
            assert!(world.ping_until_answered(0, 1, SECOND), "{}", world.path(0, 1));
            world.run_for(SECOND);
        }
        assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
        assert!(world.nodes[0].sockets() <= 1, "the others are closed");
        // Without traffic the last one is as well.
        world.run_for(5 * MINUTE);
        assert_eq!(world.nodes[0].sockets(), 0);
    }
    assert!(met >= 6, "{met} of 8");
}

/// How many of three pairs meet within so many seconds in which the first of each has something to say, of four worlds.
fn of_twelve(places: [Place; 4], pairs: [(usize, usize); 3], seconds: u32) -> usize {
    let met = |seed| {
        let mut world = at(seed, &places);
        for _ in 0..4 * seconds {
            for (from, to) in pairs {
                world.ping(from, to);
            }
            world.run_for(SECOND / 4);
            assert!(world.nodes.iter().all(|node| node.sockets() <= 256 + pairs.len()));
        }
        assert!(
            world.nodes.iter().all(|node| node.sockets() <= pairs.len()),
            "the others are closed"
        );
        pairs.iter().filter(|(from, to)| world.path(*from, *to).starts_with("direct")).count()
    };
    (0..4).map(met).sum()
}

#[test]
fn guesses_at_one_node_do_not_spoil_those_at_another() {
    let (home, random) = (Place::PortRestricted, Place::Symmetric);
    let met = of_twelve([home, random, random, random], [(1, 0), (2, 0), (3, 0)], 50);
    assert!(met >= 10, "{met} of 12");
}

#[test]
fn one_with_ports_at_random_finds_several_at_home_one_after_the_other() {
    let (home, random) = (Place::PortRestricted, Place::Symmetric);
    let met = of_twelve([random, home, home, home], [(0, 1), (0, 2), (0, 3)], 70);
    assert!(met >= 10, "{met} of 12");
}

#[test]
fn a_short_outage_does_not_end_what_was_found_by_chance() {
    let mut world = beside(1, Place::PortRestricted);
    assert!(ping_until(&mut world, 25, both_by("direct")).is_some());
    for _ in 0..3 {
        world.cut_off(HostId::Node(0));
        for _ in 0..20 {
            world.ping(0, 1);
            world.run_for(SECOND / 4);
        }
        world.heal();
        assert!(ping_until(&mut world, 45, both_by("direct")).is_some(), "{}", world.path(0, 1));
        assert_eq!(world.nodes[0].sockets(), 1);
    }
}

#[test]
fn two_with_ports_at_random_open_no_sockets_for_each_other() {
    let mut world = beside(1, Place::Symmetric);
    assert_eq!(ping_until(&mut world, 60, both_by("direct")), None);
    assert!(world.nodes.iter().all(|node| node.sockets() == 0));
}

#[test]
fn in_another_network_a_node_has_none_of_its_sockets_any_more_and_meets_the_peer_again() {
    let mut met = 0;
    for seed in 0..6 {
        let mut world = beside(seed, Place::PortRestricted);
        if ping_until(&mut world, 25, both_by("direct")).is_none() {
            continue;
        }
        let site = Place::Symmetric.site(&mut world);
        world.move_node_to_site(0, site);
        world.run_for(SECOND);
        assert_eq!(world.nodes[0].sockets(), 0);
        met += u32::from(ping_until(&mut world, 150, both_by("direct")).is_some());
    }
    assert!(met >= 3, "{met} of 6");
}

#[test]
fn it_does_not_matter_which_end_has_something_to_say() {
    let meets = |seed: &u64| {
        let mut world = at(*seed, &[Place::PortRestricted, Place::Symmetric]);
        world.run_for(10 * SECOND);
        ping_until(&mut world, 20, both_by("direct")).is_some()
    };
    let met = (0..20).filter(meets).count();
    assert!(met >= 17, "{met} of 20");
}

//! What nodes find out about what stands in front of them.

use testlab::places::Place;
use testlab::sim::{Quality, Setup, World};

use crate::world::{MINUTE, SECOND};

const EVERYBODY: Option<&str> = Some("endpoint-independent");
const ADDRESS: Option<&str> = Some("address-dependent");
const PORT: Option<&str> = Some("address-and-port-dependent");

/// What a node says of whom it is shielded from, over IPv4 and IPv6.
fn filtering(world: &World, node: usize) -> (Option<String>, Option<String>) {
    let engine = world.nodes[node].engine.as_ref().expect("it runs");
    let status = engine.status(world.node_now(node));
    (status.filtering, status.filtering_ipv6)
}

fn text((ipv4, ipv6): (Option<&str>, Option<&str>)) -> (Option<String>, Option<String>) {
    (ipv4.map(str::to_owned), ipv6.map(str::to_owned))
}

#[test]
fn whom_translators_and_firewalls_let_in_is_known_half_a_minute_after_joining() {
    let expected = |place| match place {
        Place::Open | Place::FullCone => (EVERYBODY, None),
        Place::Restricted => (ADDRESS, None),
        Place::Firewalled | Place::SymmetricWithIpv6 => (PORT, PORT),
        Place::PortRestricted
        | Place::AddressSymmetric
        | Place::Symmetric
        | Place::Carrier
        | Place::Counting
        | Place::CountingCarrier => (PORT, None),
        Place::Ipv6Only => (None, PORT),
        Place::NoUdp | Place::Https | Place::Proxy => (None, None),
    };
    for quality in [Quality::GOOD, Quality::HOME] {
        let mut world = World::new(Setup { nodes: 0, quality, ..Setup::default() });
        for place in Place::ALL {
            let site = place.site(&mut world);
            world.add_node_at(site);
        }
        let have_joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
        assert!(world.run_until(MINUTE, have_joined), "all join");
        world.run_for(30 * SECOND);
        for (node, place) in Place::ALL.into_iter().enumerate() {
            assert_eq!(filtering(&world, node), text(expected(place)), "{place:?}");
        }
    }
}

#[test]
fn another_surrounding_is_asked_anew() {
    let mut world = World::new(Setup { nodes: 0, ..Setup::default() });
    let places = [Place::PortRestricted, Place::FullCone];
    let [strict, open] = places.map(|place| place.site(&mut world));
    world.add_node_at(strict);
    world.run_for(30 * SECOND);
    assert_eq!(filtering(&world, 0), text((PORT, None)));
    world.move_node_to_site(0, open);
    assert_eq!(filtering(&world, 0), text((None, None)), "nothing is known of it");
    world.run_for(30 * SECOND);
    assert_eq!(filtering(&world, 0), text((EVERYBODY, None)));
}

//! How soon a first packet is answered, and a path direct, over links of 50 ms.

use std::time::Duration;

use testlab::places::Place;
use testlab::sim::{Quality, Setup, World};

use crate::world::{MINUTE, SECOND, joined};

/// From one end of a link to the other.
const LINK: Duration = Duration::from_millis(50);
/// Computing takes no time in here, and timers are exact to this.
const EXACT: Duration = Duration::from_millis(10);

#[test]
fn the_first_byte_is_through_the_relay_within_two_round_trips_of_a_standing_attachment() {
    // To the relay and from there to the other, and the same way back.
    let round_trip = 4 * LINK;
    for seed in 0..20 {
        let streams = Quality { latency: LINK, ..Quality::STREAM };
        let mut world = joined(Setup { seed, streams, ..Setup::default() });
        world.nodes.iter_mut().for_each(|node| node.udp_blocked = true);
        world.run_for(2 * SECOND);
        let begin = world.now().instant;
        let number = world.ping(0, 1);
        assert!(world.run_until(SECOND, |world| world.is_answered(0, number)));
        let answered = world.now().instant - begin;
        let arrived = world.arrivals.iter().find(|arrival| arrival.node == 1);
        let arrived = arrived.expect("what was answered has arrived").at - begin;
        assert!(
            arrived <= 2 * round_trip - 2 * LINK + EXACT,
            "seed {seed}: there after {arrived:?}"
        );
        assert!(answered <= 2 * round_trip + EXACT, "seed {seed}: answered after {answered:?}");
    }
}

#[test]
fn paths_are_direct_within_three_seconds_at_the_median_wherever_they_can_be() {
    use Place::{Carrier, Firewalled, FullCone, Open, PortRestricted, Restricted};
    const SEEDS: u64 = 7;
    let places = [Open, Firewalled, FullCone, Restricted, PortRestricted, Carrier];
    for (index, one) in places.into_iter().enumerate() {
        for other in places.into_iter().skip(index) {
            let times = (0..SEEDS).map(|seed| time_to_direct([one, other], seed));
            let mut times: Vec<_> = times.collect();
            times.sort_unstable();
            assert!(times[times.len() / 2] <= 3 * SECOND, "{one:?} to {other:?}: {times:?}");
        }
    }
}

/// From the first packet on, while more of them follow.
fn time_to_direct(places: [Place; 2], seed: u64) -> Duration {
    let quality = Quality {
        latency: LINK,
        jitter: Duration::from_millis(10),
        loss_permille: 10,
        ..Quality::GOOD
    };
    let setup = Setup { seed, nodes: 0, quality, streams: quality, ..Setup::default() };
    let mut world = World::new(setup);
    for place in places {
        let site = place.site(&mut world);
        world.add_node_at(site);
    }
    let have_joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, have_joined), "both join");
    world.run_for(10 * SECOND);
    let begin = world.elapsed();
    let is_direct = |world: &World| {
        world.path(0, 1).starts_with("direct") && world.path(1, 0).starts_with("direct")
    };
    while world.elapsed() < begin + MINUTE {
        world.ping(0, 1);
        if world.run_until(SECOND / 10, is_direct) {
            return world.elapsed() - begin;
        }
    }
    panic!("{places:?}, seed {seed}: {} and {}", world.path(0, 1), world.path(1, 0));
}

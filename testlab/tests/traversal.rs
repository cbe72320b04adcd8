//! Direct paths through translators that give each destination a port of its own.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use testlab::sim::{
    Dependence, EdgeKind, INTERNET, NatBehaviour, Ports, Quality, Setup, SiteId, World,
};

const SECOND: Duration = Duration::from_secs(1);
/// How often it may be that others behind a translator make a mapping.
const SLICE: Duration = Duration::from_millis(50);
/// Traffic flows for this long in the hope of a direct path: three attempts.
const PATIENCE: Duration = Duration::from_secs(70);

/// A translator whose mapping is one for all.
fn cone(filtering: Dependence) -> NatBehaviour {
    NatBehaviour {
        mapping: Dependence::Endpoint,
        ports: Ports::Random,
        filtering,
        hairpin: false,
        expiry: Duration::from_secs(60),
    }
}

/// A translator with a mapping for each destination.
fn symmetric(ports: Ports) -> NatBehaviour {
    NatBehaviour { mapping: Dependence::AddressAndPort, ports, ..cone(Dependence::AddressAndPort) }
}

/// Two nodes behind translators, and others behind the same.
struct Pair {
    world: World,
    sites: [SiteId; 2],
    dice: ChaCha20Rng,
    /// Of a thousand slices, those in which somebody else makes a mapping.
    others_permille: u32,
}

impl Pair {
    fn new(behaviours: [NatBehaviour; 2], seed: u64) -> Self {
        // Half of the pairs have the line for themselves, and half of them a good one.
        let quality = Quality {
            latency: Duration::from_millis(25),
            jitter: Duration::from_millis(5),
            loss_permille: 10,
            ..Quality::GOOD
        };
        let quality = if seed.is_multiple_of(2) { Quality::GOOD } else { quality };
        let mut world = World::new(Setup { seed, nodes: 0, quality, ..Setup::default() });
        let sites = behaviours.map(|nat| world.underlay.add_site(INTERNET, EdgeKind::Nat(nat)));
        for site in sites {
            world.add_node_at(site);
        }
        let others_permille = if seed % 4 < 2 { 0 } else { 500 };
        let mut pair =
            Self { world, sites, dice: ChaCha20Rng::seed_from_u64(seed), others_permille };
        let all_have_addresses =
            |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
        assert!(pair.world.run_until(60 * SECOND, all_have_addresses), "both join");
        pair.run_for(10 * SECOND);
        pair
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.world.elapsed() + time;
        while self.world.elapsed() < end {
            self.world.run_for(SLICE);
            for site in self.sites {
                if self.dice.next_u32() % 1_000 < self.others_permille {
                    self.world.disturb(site);
                }
            }
        }
    }

    fn is_direct(&self) -> bool {
        let path = |from, to| self.world.path(from, to).starts_with("direct");
        path(0, 1) && path(1, 0)
    }

    /// How long it takes until both use a direct path; the relay connects them in any case.
    fn time_to_direct(&mut self) -> Option<Duration> {
        let begin = self.world.elapsed();
        while self.world.elapsed() < begin + PATIENCE {
            let asked = self.world.ping(0, 1);
            for _ in 0..4 {
                self.run_for(SECOND / 4);
                if self.is_direct() {
                    return Some(self.world.elapsed() - begin);
                }
            }
            // Over UDP a relay loses what the lines lose.
            let may_be_lost = self.world.quality.loss_permille > 0;
            assert!(may_be_lost || self.world.is_answered(0, asked), "the relay carries it");
        }
        None
    }
}

#[test]
fn a_port_that_others_moved_out_of_reach_is_found_by_the_next_attempt() {
    let counting = NatBehaviour {
        // As long as Linux remembers what nobody answered.
        expiry: Duration::from_secs(30),
        ..symmetric(Ports::Counted(1))
    };
    for seed in 0..4 {
        let mut pair = Pair::new([counting, cone(Dependence::AddressAndPort)], 2 * seed);
        pair.world.ping(0, 1);
        for _ in 0..20 {
            pair.world.run_for(Duration::from_millis(2));
            (0..20).for_each(|_| pair.world.disturb(pair.sites[0]));
        }
        pair.others_permille = 0;
        let time = pair.time_to_direct().expect("a direct path");
        assert!((10 * SECOND..PATIENCE).contains(&time), "{time:?}");
    }
}

#[test]
fn counted_ports_are_guessed_in_at_least_four_of_five_pairings_of_each_kind() {
    const SEEDS: u64 = 24;
    let counting = |step| symmetric(Ports::Counted(step));
    let kinds = [
        ("endpoint-independent filter", cone(Dependence::Endpoint)),
        ("address-dependent filter", cone(Dependence::Address)),
        ("port-dependent filter", cone(Dependence::AddressAndPort)),
        ("counting by 1", counting(1)),
        ("counting by 2", counting(2)),
        ("counting by 256", counting(256)),
    ];
    for (name, other) in kinds {
        let times: Vec<_> = (0..SEEDS)
            .filter_map(|seed| {
                let mut behaviours = [counting(1), other];
                if seed % 8 < 4 {
                    behaviours.reverse();
                }
                Pair::new(behaviours, seed).time_to_direct()
            })
            .collect();
        let quick = times.iter().filter(|time| **time < 3 * SECOND).count();
        assert!(times.len() as u64 * 5 >= SEEDS * 4, "{name}: {times:?}");
        assert!(quick as u64 * 2 >= SEEDS, "{name}: {times:?}");
    }
}

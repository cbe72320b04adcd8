//! Which neighbour leads to which relay.

use std::collections::{BTreeMap, BTreeSet};

use identity::DeviceId;

use super::origin::Origin;
use crate::limits::MESH_HOPS;

/// What a relay on the way costs beside the distance, in microseconds: of two ways about as long, the one with fewer relays.
const HOP_COST: u64 = 1_000;

/// The way to one relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    /// Microseconds there and back, and what the relays on the way cost.
    pub(crate) cost: u64,
    /// Relays on the way, that one included.
    pub(crate) hops: u8,
    /// The first of them.
    pub(crate) next: DeviceId,
}

/// The links of all relays, and what follows from them.
#[derive(Debug)]
pub(crate) struct Topology {
    links: BTreeMap<DeviceId, BTreeMap<DeviceId, u32>>,
    /// The ways from those relays for which somebody asked.
    ways: BTreeMap<DeviceId, BTreeMap<DeviceId, Way>>,
}

impl Topology {
    /// By the word of each relay.
    pub(crate) fn new(origins: &BTreeMap<DeviceId, Origin>) -> Self {
        let links = |said: &Origin| {
            said.links().iter().map(|distance| (distance.relay, distance.micros)).collect()
        };
        let links = origins.iter().map(|(origin, said)| (*origin, links(said))).collect();
        Self { links, ways: BTreeMap::new() }
    }

    /// The shortest ways from a relay to all others.
    pub(crate) fn ways(&mut self, from: DeviceId) -> &BTreeMap<DeviceId, Way> {
        let links = &self.links;
        self.ways.entry(from).or_insert_with(|| shortest(from, links))
    }
}

/// The shortest ways from `own` to all relays (Dijkstra, 1959). `links` are each relay's neighbours with the microseconds to
/// them, of which only those count that both ends have.
fn shortest(
    own: DeviceId,
    links: &BTreeMap<DeviceId, BTreeMap<DeviceId, u32>>,
) -> BTreeMap<DeviceId, Way> {
    let mut ways: BTreeMap<DeviceId, Way> = BTreeMap::new();
    let mut open: BTreeSet<(Way, DeviceId)> = BTreeSet::new();
    let start = Way { cost: 0, hops: 0, next: own };
    open.insert((start, own));
    while let Some((way, at)) = open.pop_first() {
        if ways.contains_key(&at) {
            continue;
        }
        ways.insert(at, way);
        if way.hops == MESH_HOPS {
            continue;
        }
        for (to, micros) in links.get(&at).into_iter().flatten() {
            let is_mutual = links.get(to).is_some_and(|back| back.contains_key(&at));
            if is_mutual && !ways.contains_key(to) {
                let cost = way.cost + u64::from(*micros) + HOP_COST;
                let next = if at == own { *to } else { way.next };
                open.insert((Way { cost, hops: way.hops + 1, next }, *to));
            }
        }
    }
    ways.remove(&own);
    ways
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn relay(number: u8) -> DeviceId {
        DeviceId::from_bytes([number; 32])
    }

    /// Mutual links.
    fn links(all: &[(u8, u8, u32)]) -> BTreeMap<DeviceId, BTreeMap<DeviceId, u32>> {
        let mut links: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (a, b, micros) in all.iter().copied().filter(|(a, b, _)| a != b) {
            links.entry(relay(a)).or_default().insert(relay(b), micros);
            links.entry(relay(b)).or_default().insert(relay(a), micros);
        }
        links
    }

    #[test]
    fn the_nearest_way_counts_and_of_equals_the_one_with_fewer_relays() {
        let links =
            links(&[(1, 2, 50_000), (1, 3, 10_000), (3, 2, 10_000), (3, 4, 500), (1, 4, 11_000)]);
        let ways = shortest(relay(1), &links);
        let next = |to| ways.get(&relay(to)).map(|way| (way.next, way.hops));
        assert_eq!(next(2), Some((relay(3), 2)));
        assert_eq!(next(4), Some((relay(4), 1)));
        assert_eq!(ways.len(), 3);
    }

    #[test]
    fn a_link_that_one_end_does_not_have_is_none() {
        let mut links = links(&[(1, 2, 5), (2, 3, 5)]);
        links.get_mut(&relay(2)).expect("it has links").remove(&relay(3));
        assert!(!shortest(relay(1), &links).contains_key(&relay(3)));
    }

    #[test]
    fn nobody_is_farther_than_hops_reach() {
        let chain: Vec<_> = (1..20).map(|number| (number, number + 1, 5)).collect();
        assert_eq!(shortest(relay(1), &links(&chain)).len(), usize::from(MESH_HOPS));
    }

    proptest! {
        /// Frames that follow everybody's own ways arrive, if links do not change meanwhile.
        #[test]
        fn whoever_follows_the_ways_arrives(all in prop::collection::vec((0..9_u8, 0..9_u8, 0..90_000_u32), 0..30)) {
            let links = links(&all);
            let ways: BTreeMap<_, _> = (0..9).map(|at| (relay(at), shortest(relay(at), &links))).collect();
            for (from, own) in &ways {
                for (to, way) in own {
                    let (mut at, mut hops) = (*from, way.hops);
                    while at != *to {
                        prop_assert!(hops > 0);
                        hops -= 1;
                        at = ways[&at][to].next;
                    }
                }
            }
        }
    }
}

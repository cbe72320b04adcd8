//! To which relays a relay keeps links.

use std::collections::BTreeSet;

use identity::DeviceId;

/// Up to so many relays, each has a link to each.
const ALL_OF: usize = 16;

/// The relays to which `own` keeps links: of few all, of many those at distances of 1, 2, 4 and so on in both directions
/// round the circle of their ids (Chord, Stoica et al., 2001), so that links grow by the logarithm, every relay is a few
/// away from every other, and the failure of some cuts nobody off. Both ends of a link come to the same answer.
pub(crate) fn partners(own: DeviceId, relays: &BTreeSet<DeviceId>) -> BTreeSet<DeviceId> {
    let mut circle: Vec<_> = relays.iter().copied().filter(|relay| *relay != own).collect();
    if circle.len() < ALL_OF {
        return circle.into_iter().collect();
    }
    let at = circle.partition_point(|relay| *relay < own);
    circle.insert(at, own);
    let steps = std::iter::successors(Some(1), |step| Some(step * 2));
    let steps = steps.take_while(|step| step * 2 <= circle.len());
    steps
        .flat_map(|step| [at + step, at + circle.len() - step])
        .map(|place| circle[place % circle.len()])
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn relays(count: u8) -> BTreeSet<DeviceId> {
        (0..count).map(|number| DeviceId::from_bytes([number; 32])).collect()
    }

    #[test]
    fn few_relays_are_all_linked() {
        let all = relays(16);
        assert!(all.iter().all(|own| partners(*own, &all).len() == 15));
    }

    proptest! {
        #[test]
        fn links_are_mutual_and_their_number_grows_by_the_logarithm(count in 1..200_u8) {
            let all = relays(count);
            for own in &all {
                let partners_of_own = partners(*own, &all);
                prop_assert!(!partners_of_own.contains(own));
                let limit = 2 * usize::from(count).ilog2() as usize;
                prop_assert!(partners_of_own.len() <= limit.max(ALL_OF - 1));
                for other in partners_of_own {
                    prop_assert!(partners(other, &all).contains(own));
                }
            }
        }
    }
}

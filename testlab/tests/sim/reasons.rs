//! What `why` says of paths that are not direct.

use engine::CandidateStatus;
use testlab::places::Place;

use crate::world::{SECOND, at, joined, ping_both_ways};

#[test]
fn each_end_says_why_there_is_no_direct_path() {
    let blocked = "UDP seems to be blocked";
    let silent = "no address of the peer answers";
    let both = "the translators in front of both devices give ports at random";
    for (places, expected) in [
        ([Place::Symmetric, Place::AddressSymmetric], [both, both]),
        ([Place::NoUdp, Place::PortRestricted], [blocked, silent]),
        ([Place::Ipv6Only, Place::PortRestricted], [silent, silent]),
        ([Place::Counting, Place::Symmetric], [silent, both]),
    ] {
        let mut world = at(1, &places);
        ping_both_ways(&mut world, 10 * SECOND);
        for _ in 0..60 {
            world.ping(0, 1);
            world.run_for(SECOND);
        }
        for (from, expected) in expected.into_iter().enumerate() {
            let why = world.why(from, 1 - from).expect("they know each other");
            let hindrance = why.hindrance.unwrap_or_default();
            assert!(hindrance.starts_with(expected), "{places:?} {from}: {hindrance}");
            let is_direct = |candidate: &&CandidateStatus| candidate.kind != "udp-relay";
            let mut direct = why.candidates.iter().filter(is_direct);
            assert!(direct.all(|candidate| candidate.lacks.is_some()));
            let goes_over_udp = why.path.starts_with("udp-relay");
            assert!(goes_over_udp || why.frames.iter().any(|(_, in_use)| *in_use));
        }
    }
}

#[test]
fn without_traffic_that_is_the_reason() {
    let world = joined(testlab::sim::Setup::default());
    let why = world.why(0, 1).expect("they know each other");
    assert!(why.hindrance.is_some_and(|it| it.starts_with("there is no traffic")));
}

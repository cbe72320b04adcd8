//! What `why` says of paths that are not direct.

use engine::CandidateStatus;
use testlab::places::Place;
use testlab::sim::{Setup, World};

use crate::world::{SECOND, at, at_with, joined, ping_both_ways};

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
            assert!(goes_over_udp || why.frames.iter().any(|way| way.lacks.is_none()));
        }
    }
}

#[test]
fn of_each_relay_it_is_said_what_it_lacks() {
    let setup = Setup { relays: 3, ..Setup::default() };
    let mut world = at_with(setup, &[Place::NoUdp, Place::NoUdp]);
    let (private, dead) = (0, 1);
    let relay = |world: &World, index: usize| format!("relay {}", world.relays[index].device);
    let now = world.now();
    world.relays[private].offer("here", &["staff".parse().expect("a name")], now);
    world.run_for(90 * SECOND);
    world.stop_relay(dead);
    world.run_for(90 * SECOND);
    ping_both_ways(&mut world, 10 * SECOND);
    let why = world.why(0, 1).expect("they know each other");
    let lacks = |path: &str| {
        let way = why.frames.iter().find(|way| way.path == path);
        way.map(|way| way.lacks.clone().unwrap_or_default())
    };
    assert_eq!(why.frames.iter().filter(|way| way.lacks.is_none()).count(), 1, "{why:?}");
    assert_eq!(why.path, "relay");
    let private = lacks(&relay(&world, private));
    assert_eq!(private.as_deref(), Some("it serves other groups than this device's"));
    let dead = lacks(&relay(&world, dead)).unwrap_or_default();
    assert!(dead.contains("did not get there") || dead.contains("about to stop"), "{dead}");
    let used = why.frames.iter().find(|way| way.lacks.is_none());
    assert!(used.is_some_and(|way| way.latency_ms.is_some()), "{why:?}");
}

#[test]
fn without_traffic_that_is_the_reason() {
    let world = joined(Setup::default());
    let why = world.why(0, 1).expect("they know each other");
    assert!(why.hindrance.is_some_and(|it| it.starts_with("there is no traffic")));
}

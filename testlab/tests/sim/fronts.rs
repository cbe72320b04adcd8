//! Hours behind something that ends streams: a reverse proxy, a content delivery network, a middlebox, the proxy that leads out.

use std::time::Duration;

use testlab::places::Place;
use testlab::sim::{Quality, Setup, World};

use crate::world::{SECOND, at_with, ping_both_ways};

const TIME: Duration = Duration::from_secs(12 * 3_600);
/// A packet is answered within this, unless a stream was cut as recently as that, or just after.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two packets in every other hour ...
const STEADY: Duration = SECOND;
/// ... and in the others: longer than anything in front lets a stream be idle.
const SPARSE: Duration = Duration::from_secs(97);
/// Streams on which nothing comes one way or the other for so long are cut ...
const IDLE: Duration = Duration::from_secs(25);
/// ... or those of this age.
const AGE: Duration = Duration::from_secs(60);
/// An age at which two streams were cut by chance is followed for so many changes.
const BY_CHANCE: usize = 256;
/// Streams of such a network: two nodes and two relays with a controller, and each node at each relay.
const STREAMS: usize = 8;

/// What ends streams.
#[derive(Clone, Copy, Debug)]
enum Front {
    /// Those that are idle.
    Idle,
    /// Any, every 40 seconds on average.
    Random,
    /// Each at one age.
    Aged,
}

impl Front {
    /// Cuts what is to be cut in this second; how many streams that are.
    fn cut(self, world: &mut World) -> usize {
        match self {
            Self::Idle => world.cut_streams_idle_for(IDLE),
            Self::Random => world.cut_some_streams(1_000 / (40 * STREAMS as u32)),
            Self::Aged => world.cut_streams_older_than(AGE),
        }
    }

    /// How many streams may be dialled in all that time if so many were cut.
    fn dials(self, cut: usize) -> usize {
        // Who has learnt an age opens the next stream before, also where it was the same by chance.
        let rounds = TIME.as_secs().div_ceil(AGE.as_secs() * 8 / 10) as usize;
        let replaced = match self {
            Self::Idle => 0,
            Self::Random => BY_CHANCE,
            Self::Aged => rounds * STREAMS,
        };
        replaced + cut + STREAMS
    }
}

/// Lets one node, behind an HTTP proxy, ask another through relays for hours, often in one and seldom in the next.
fn hours_behind(front: Front) {
    let setup = Setup { streams: Quality::HOME, ..Setup::default() };
    let mut world = at_with(setup, &[Place::Proxy, Place::Https]);
    ping_both_ways(&mut world, 10 * SECOND);
    let (begin, dials) = (world.elapsed(), world.dials);
    let (mut asked, mut cuts, mut cut) = (Vec::new(), Vec::new(), 0);
    let mut next = begin;
    while world.elapsed() < begin + TIME {
        if world.elapsed() >= next {
            asked.push((world.elapsed(), world.ping(0, 1)));
            let hours = (world.elapsed() - begin).as_secs() / 3_600;
            next += if hours.is_multiple_of(2) { STEADY } else { SPARSE };
        }
        world.run_for(SECOND);
        let number = front.cut(&mut world);
        cuts.extend((number > 0).then(|| world.elapsed()));
        cut += number;
    }
    world.run_for(PATIENCE);
    let is_late = |(at, question): &&(Duration, Option<u64>)| {
        world.answered_at(0, *question).is_none_or(|answered| answered > *at + PATIENCE)
    };
    let is_excused = |at: Duration| {
        cuts.iter().any(|cut| (at.saturating_sub(PATIENCE)..=at + SECOND).contains(cut))
    };
    let stuck: Vec<_> = asked.iter().filter(is_late).map(|(at, _)| *at).collect();
    let stuck: Vec<_> = stuck.into_iter().filter(|at| !is_excused(*at)).collect();
    assert!(stuck.is_empty(), "{front:?}: {cut} cut, stuck at {stuck:?}");
    let excused = asked.iter().filter(|(at, _)| is_excused(*at)).count();
    assert!(excused * 3 < asked.len(), "{front:?}: {excused} of {} tell nothing", asked.len());
    // Heartbeats keep every stream busy both ways.
    assert_eq!(cut == 0, matches!(front, Front::Idle), "{front:?}: {cut} cut");
    // What is learnt is doubted every few hours.
    let is_learnt = cut <= 6 * STREAMS;
    assert_eq!(is_learnt, !matches!(front, Front::Random), "{front:?}: {cut} cut");
    let dials = (world.dials - dials) as usize;
    assert!(dials <= front.dials(cut), "{front:?}: {dials} dials, {cut} cut");
    assert!(world.controller.events.is_empty(), "{:?}", world.controller.events);
}

#[test]
fn hours_behind_a_front_that_cuts_what_is_idle_leave_no_tunnel_stuck() {
    hours_behind(Front::Idle);
}

#[test]
fn hours_behind_a_front_that_cuts_streams_at_random_leave_no_tunnel_stuck() {
    hours_behind(Front::Random);
}

#[test]
fn hours_behind_a_front_that_cuts_streams_at_one_age_leave_no_tunnel_stuck() {
    hours_behind(Front::Aged);
}

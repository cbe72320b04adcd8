//! What the presets do to what is sent.

use std::time::Duration;

use identity::Shaping;
use shaping::Content;
use shaping::limits::SHORTEST_WAIT;

use crate::link::{End, Left, MILLISECOND, SECOND};

const TICK: Duration = Duration::from_millis(20);

#[test]
fn a_constant_rate_has_one_message_at_each_tick_whatever_is_queued() {
    let mut end = End::new(&Shaping::Constant, 1);
    end.queue();
    end.run(SECOND);
    for _ in 0..10 {
        end.queue();
    }
    end.run(SECOND);
    // The ticks begin when something is queued.
    assert_eq!(end.left[0], Left { at: SHORTEST_WAIT, queued: Some(Duration::ZERO) });
    let gaps = end.left.windows(2).map(|pair| pair[1].at - pair[0].at);
    assert!(gaps.clone().all(|gap| gap == TICK), "{:?}", gaps.collect::<Vec<_>>());
    assert_eq!(end.left.len() - end.dummies(), 11);
    assert!(!end.is_waiting());
}

#[test]
fn at_a_constant_rate_a_burst_after_a_silence_leaves_like_any_other() {
    let mut end = End::new(&Shaping::Constant, 1);
    (0..3).for_each(|_| end.queue());
    assert_eq!(end.left, []);
    end.run(SECOND);
    let times: Vec<_> = end.left.iter().take(4).map(|left| left.at).collect();
    assert_eq!(times, [0, 1, 2, 3].map(|tick| SHORTEST_WAIT + tick * TICK));
}

#[test]
fn at_a_constant_rate_nothing_shows_after_a_stall() {
    let mut end = End::new(&Shaping::Constant, 1);
    end.queue();
    end.run(SECOND + TICK / 2);
    let before = end.left.len();
    (0..5).for_each(|_| end.queue());
    end.stall(10 * TICK);
    end.run(4 * TICK);
    let times: Vec<_> = end.left[before..].iter().map(|left| left.at).collect();
    let first = SECOND + TICK / 2 + 10 * TICK;
    assert_eq!(times, [0, 1, 2, 3, 4].map(|tick| first + tick * TICK));
}

#[test]
fn a_constant_rate_begins_with_what_is_received_and_ends_after_a_random_while() {
    let ends: Vec<_> = (0..20)
        .map(|seed| {
            let mut end = End::new(&Shaping::Constant, seed);
            end.receive(Content::Frame);
            end.run(60 * SECOND);
            // It ends for good, and begins anew.
            let last = end.left.last().expect("dummies").at;
            end.queue();
            end.run(TICK);
            assert_eq!(end.left.last().map(|left| left.at), Some(60 * SECOND + SHORTEST_WAIT));
            end.run(SECOND);
            assert_eq!(end.left.last().and_then(|left| left.queued), None);
            last
        })
        .collect();
    let (first, last) = (ends.iter().min().expect("some"), ends.iter().max().expect("some"));
    assert!(*first > 4 * SECOND && *last < 16 * SECOND && *last > *first + 4 * SECOND, "{ends:?}");
}

#[test]
fn dummies_and_upkeep_begin_nothing() {
    for policy in [Shaping::Constant, Shaping::Front] {
        let mut end = End::new(&policy, 1);
        for _ in 0..10 {
            end.receive(Content::Dummy);
            end.receive(Content::Upkeep);
            end.run(SECOND);
        }
        assert_eq!((end.left.len(), end.rings), (0, 0));
    }
}

#[test]
fn the_front_has_dummies_that_fade_out_and_delays_nothing() {
    for seed in 0..50 {
        let mut end = End::new(&Shaping::Front, seed);
        for _ in 0..100 {
            end.queue();
            end.run(10 * MILLISECOND);
        }
        end.run(60 * SECOND);
        assert!(end.left.iter().all(|left| left.queued.is_none_or(|queued| queued == left.at)));
        let dummies = end.dummies();
        assert!((50..=300).contains(&dummies), "{dummies} dummies");
        let times: Vec<_> = end.left.iter().filter(|left| left.queued.is_none()).collect();
        let (half, last) = (times[dummies / 2].at, times[dummies - 1].at);
        assert!(last < 24 * SECOND && half < last.mul_f64(0.6), "{half:?} of {last:?}");
        // After a pause it begins anew.
        end.queue();
        end.run(60 * SECOND);
        assert!(end.dummies() >= dummies + 50);
    }
}

#[test]
fn no_two_fronts_are_alike() {
    let times = |seed| {
        let mut end = End::new(&Shaping::Front, seed);
        end.queue();
        end.run(60 * SECOND);
        end.left.len()
    };
    let mut counts: Vec<_> = (0..20).map(times).collect();
    counts.sort_unstable();
    counts.dedup();
    assert!(counts.len() > 10, "{counts:?}");
}

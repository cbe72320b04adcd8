//! Dummies where something begins: the first seconds of a page's load tell most about which it is (FRONT; Gong and Wang,
//! "Zero-delay Lightweight Defenses against Website Fingerprinting", USENIX Security 2020).
//!
//! A window and a budget are drawn each time, and the budget is spent at times of a Rayleigh distribution: seldom at
//! first, mostly at a third of the time, fading out. No message waits. A machine draws no whole list of times, so each window is
//! a row of slices in which dummies go at random distances, as many as the distribution has in it, give or take a half.

use enum_map::enum_map;
use maybenot::action::Action;
use maybenot::dist::{Dist, DistType};
use maybenot::event::Event;
use maybenot::state::{State, Trans};
use maybenot::{Error, Machine};

/// The windows' parameters, in seconds: where dummies are densest. They end at three times that.
const WINDOWS: [f64; 4] = [1.0, 2.0, 3.0, 4.0];

/// How many dummies there are in a window: as many as messages in a page's first seconds, or half of that.
const BUDGETS: [f64; 2] = [100.0, 200.0];

/// The slices of a window.
const SLICES: usize = 8;

/// What ends a slice, where the Rayleigh distribution leaves hardly anything, in parameters of the window.
const LENGTH: f64 = 3.0;

/// Microseconds without a message after which something new can begin.
const PAUSE: f64 = 5_000_000.0;

const IDLE: usize = 0;
/// After a window: waits for a pause.
const SPENT: usize = 1;
/// The first slice of the first window.
const FIRST: usize = 2;

pub(crate) fn machines() -> Result<Vec<Machine>, Error> {
    let kinds: Vec<_> =
        WINDOWS.into_iter().flat_map(|window| BUDGETS.map(|budget| (window, budget))).collect();
    let chance = 1.0 / f32::from(u8::try_from(kinds.len()).unwrap_or(u8::MAX));
    let begin: Vec<_> = (0..kinds.len()).map(|kind| Trans(FIRST + kind * SLICES, chance)).collect();
    let mut states = vec![idle(&begin), spent()];
    for (window, budget) in kinds {
        for slice in 0..SLICES {
            let next = if slice + 1 == SLICES { SPENT } else { states.len() + 1 };
            states.push(sending(states.len(), next, (window, budget, slice)));
        }
    }
    Ok(vec![Machine::new(0, 0.0, 0, 0.0, states)?])
}

fn idle(begin: &[Trans]) -> State {
    State::new(enum_map! {
        Event::NormalSent | Event::NormalRecv => begin.to_vec(),
        _ => Vec::new(),
    })
}

fn spent() -> State {
    let mut spent = State::new(enum_map! {
        Event::NormalSent | Event::NormalRecv => vec![Trans(SPENT, 1.0)],
        Event::TimerEnd => vec![Trans(IDLE, 1.0)],
        _ => Vec::new(),
    });
    spent.action =
        Some(Action::UpdateTimer { replace: true, duration: between(PAUSE, PAUSE), limit: None });
    spent
}

/// A slice of a window: some dummies at random distances, then the next.
fn sending(own: usize, next: usize, (window, budget, slice): (f64, f64, usize)) -> State {
    let edge = |slice: usize| LENGTH * slice as f64 / SLICES as f64;
    // What a Rayleigh distribution has beyond a time.
    let beyond = |time: f64| (-time * time / 2.0).exp();
    let count = budget * (beyond(edge(slice)) - beyond(edge(slice + 1)));
    let distance = 1_000_000.0 * window * edge(1) / count;
    let mut sending = State::new(enum_map! {
        Event::PaddingSent => vec![Trans(own, 1.0)],
        Event::LimitReached => vec![Trans(next, 1.0)],
        _ => Vec::new(),
    });
    sending.action = Some(Action::SendPadding {
        bypass: false,
        replace: false,
        timeout: between(0.0, 2.0 * distance),
        limit: Some(between(count / 2.0, count * 1.5)),
    });
    sending
}

fn between(low: f64, high: f64) -> Dist {
    Dist::new(DistType::Uniform { low, high }, 0.0, 0.0)
}

//! Equal distances: while there is something to send, one message leaves at each tick, a dummy if nothing waits. The first
//! tick is at once, and what is sent together after a silence waits for it and for those that follow.
//!
//! That is BuFLO (Dyer et al., IEEE S&P 2012) with an end of its own: two machines, of which one ticks and the other
//! tells it when nothing has been sent or received for some time. That time is random, since the last message was sent
//! so long before the end.

use enum_map::enum_map;
use maybenot::action::Action;
use maybenot::constants::{MAX_SAMPLED_BLOCK_DURATION, STATE_SIGNAL};
use maybenot::dist::{Dist, DistType};
use maybenot::event::Event;
use maybenot::state::{State, Trans};
use maybenot::{Error, Machine};

/// Microseconds from one tick to the next: what is typed waits half as long on average, and 614 kbit/s go each way.
const TICK: f64 = 20_000.0;

/// The least and the most microseconds for which ticks go on after something was sent or received: the pauses of
/// somebody who types or reads do not show, but those at a meal do.
const QUIET: (f64, f64) = (5_000_000.0, 15_000_000.0);

pub(crate) fn machines() -> Result<Vec<Machine>, Error> {
    Ok(vec![ticking()?, watching()?])
}

/// Holds everything back and lets one message pass at each tick, from the first message on until it is told to end.
fn ticking() -> Result<Machine, Error> {
    const IDLE: usize = 0;
    const HOLD: usize = 1;
    const FIRST: usize = 2;
    const TICKING: usize = 3;
    const END: usize = 4;
    let idle = State::new(enum_map! {
        Event::NormalSent | Event::NormalRecv => to(HOLD),
        _ => Vec::new(),
    });
    let mut hold = State::new(enum_map! {
        Event::BlockingBegin => to(FIRST),
        _ => Vec::new(),
    });
    hold.action = Some(holding_for(MAX_SAMPLED_BLOCK_DURATION));
    let tick_after = |microseconds: f64| {
        let mut ticking = State::new(enum_map! {
            Event::PaddingSent => to(TICKING),
            Event::BlockingEnd => to(HOLD),
            Event::Signal => to(END),
            _ => Vec::new(),
        });
        ticking.action = Some(Action::SendPadding {
            bypass: true,
            replace: true,
            timeout: exactly(microseconds),
            limit: None,
        });
        ticking
    };
    let mut end = State::new(enum_map! {
        Event::BlockingEnd => to(IDLE),
        _ => Vec::new(),
    });
    end.action = Some(holding_for(0.0));
    Machine::new(0, 0.0, 0, 0.0, vec![idle, hold, tick_after(0.0), tick_after(TICK), end])
}

/// Signals when nothing was sent or received for some time.
fn watching() -> Result<Machine, Error> {
    const ACTIVE: usize = 1;
    let quiet = State::new(enum_map! {
        Event::NormalSent | Event::NormalRecv => to(ACTIVE),
        _ => Vec::new(),
    });
    let mut active = State::new(enum_map! {
        Event::NormalSent | Event::NormalRecv => to(ACTIVE),
        Event::TimerEnd => to(STATE_SIGNAL),
        _ => Vec::new(),
    });
    let (low, high) = QUIET;
    active.action = Some(Action::UpdateTimer {
        replace: true,
        duration: Dist::new(DistType::Uniform { low, high }, 0.0, 0.0),
        limit: None,
    });
    Machine::new(0, 0.0, 0, 0.0, vec![quiet, active])
}

/// Blocking from now on, in place of any other, that padding passes.
fn holding_for(microseconds: f64) -> Action {
    Action::BlockOutgoing {
        bypass: true,
        replace: true,
        timeout: exactly(0.0),
        duration: exactly(microseconds),
        limit: None,
    }
}

fn exactly(value: f64) -> Dist {
    Dist::new(DistType::Uniform { low: value, high: value }, 0.0, 0.0)
}

fn to(state: usize) -> Vec<Trans> {
    vec![Trans(state, 1.0)]
}

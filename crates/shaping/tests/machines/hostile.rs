//! Machines that mean no good, and texts that are none.

use std::time::Duration;

use enum_map::enum_map;
use identity::{MAX_MACHINES_LENGTH, Shaping};
use maybenot::Machine;
use maybenot::action::Action;
use maybenot::dist::{Dist, DistType};
use maybenot::state::{State, Trans};
use proptest::prelude::*;
use shaping::limits::{DUMMIES_PER_SECOND, LONGEST_HOLD, SHORTEST_WAIT};
use shaping::{Content, Plan, PlanError};

use crate::link::{End, Left, MILLISECOND, SECOND};
use crate::random::machines;

fn exactly(value: f64) -> Dist {
    Dist::new(DistType::Uniform { low: value, high: value }, 0.0, 0.0)
}

/// A machine of one state that does this again and again.
fn again(action: Action) -> Machine {
    let mut state = State::new(enum_map! { _ => vec![Trans(0, 1.0)] });
    state.action = Some(action);
    Machine::new(10_000, 1.0, 60_000_000, 1.0, vec![state]).expect("it is valid")
}

fn policy(machines: &[Machine]) -> Shaping {
    Shaping::Machines(machines.iter().map(Machine::serialize).collect())
}

/// Keeps an end busy for some seconds.
fn busy(policy: &Shaping) -> End {
    let mut end = End::new(policy, 1);
    for number in 0..1_000 {
        end.queue();
        end.receive(if number % 3 == 0 { Content::Dummy } else { Content::Frame });
        end.run(7 * MILLISECOND);
    }
    end.run(2 * LONGEST_HOLD);
    end
}

/// What no machine may do.
fn check(end: &End) {
    let mut second = 0;
    for (index, left) in end.left.iter().enumerate() {
        while end.left[second].at + SECOND < left.at {
            second += 1;
        }
        let dummies = end.left[second..=index].iter().filter(|left| left.queued.is_none());
        // A second that is none of the clock's may touch two of them.
        assert!(dummies.count() <= 2 * DUMMIES_PER_SECOND as usize);
    }
    // While something waits, something leaves after the longest hold, and all of it in half of all the time.
    let messages: Vec<&Left> = end.left.iter().filter(|left| left.queued.is_some()).collect();
    let mut before = Duration::ZERO;
    for left in messages {
        let queued = left.queued.expect("a message");
        let since = left.at - queued.max(before);
        assert!(since <= LONGEST_HOLD, "{since:?} for one queued at {queued:?}");
        before = left.at;
    }
    let longest = end.elapsed().as_micros() / SHORTEST_WAIT.as_micros();
    assert!(end.rings as u128 <= 10 * longest, "{} rings", end.rings);
}

#[test]
fn a_machine_that_always_holds_back_leaves_half_of_the_time() {
    for bypass in [false, true] {
        let hold = Action::BlockOutgoing {
            bypass,
            replace: true,
            timeout: exactly(0.0),
            duration: exactly(1e11),
            limit: None,
        };
        let end = busy(&policy(&[again(hold)]));
        check(&end);
        assert!(!end.is_waiting());
    }
}

#[test]
fn a_machine_that_always_sends_dummies_sends_so_many_in_a_second() {
    let pad =
        Action::SendPadding { bypass: true, replace: false, timeout: exactly(0.0), limit: None };
    let end = busy(&policy(&[again(pad), again(pad), again(pad), again(pad)]));
    check(&end);
    let most = DUMMIES_PER_SECOND as usize * (1 + end.elapsed().as_secs() as usize);
    assert!(end.dummies() <= most && end.dummies() > most / 2, "{}", end.dummies());
}

#[test]
fn a_machine_that_answers_itself_for_ever_is_not_listened_to_for_ever() {
    let timer = Action::UpdateTimer { replace: true, duration: exactly(0.0), limit: None };
    let end = busy(&policy(&[again(timer), again(timer)]));
    check(&end);
}

#[test]
fn what_allows_itself_too_much_is_no_machine_for_a_network() {
    let nothing = || State::new(enum_map! { _ => vec![] });
    let machine = |padding, blocking| {
        Machine::new(padding, 0.0, blocking, 0.0, vec![nothing()]).expect("it is valid")
    };
    let dist = |kind| {
        let timeout = Dist::new(kind, 0.0, 0.0);
        again(Action::SendPadding { bypass: false, replace: false, timeout, limit: None })
    };
    let many = Machine::new(0, 0.0, 0, 0.0, (0..300).map(|_| nothing()).collect()).expect("valid");
    let branches = State::new(enum_map! { _ => (0..8).map(|to| Trans(to, 0.1)).collect() });
    let wild = Machine::new(0, 0.0, 0, 0.0, vec![branches; 20]).expect("valid");
    for (machine, reason) in [
        (machine(10_001, 0), "it allows itself more than 10000 messages of padding"),
        (machine(0, 60_000_001), "it allows itself more than 60000000 µs of blocking"),
        (many, "it has more than 256 states"),
        (wild, "it has more than 2048 transitions"),
        (
            dist(DistType::Beta { alpha: 1e-9, beta: 1.0 }),
            "a parameter of a distribution is out of bounds",
        ),
        (
            dist(DistType::Uniform { low: 0.0, high: 1e13 }),
            "a parameter of a distribution is out of bounds",
        ),
        (
            dist(DistType::Geometric { probability: 1e-9 }),
            "a parameter of a distribution is out of bounds",
        ),
    ] {
        let good = again(Action::Cancel { timer: maybenot::action::Timer::All });
        let refused = Plan::new(&policy(&[good, machine]));
        let reason = reason.to_owned();
        assert_eq!(refused.map(|_| ()), Err(PlanError { number: 2, reason }));
    }
}

#[test]
fn a_record_with_more_machines_or_text_than_can_be_written_down_is_refused() {
    let good = again(Action::Cancel { timer: maybenot::action::Timer::All }).serialize();
    let long = "0".repeat(MAX_MACHINES_LENGTH + 1 - good.len());
    for (texts, number, reason) in [
        (vec![good.clone(); 5], 5, "a network has 4 machines at most"),
        (vec![good, long], 2, "with it they take more than 2048 characters"),
    ] {
        let reason = reason.to_owned();
        let refused = Plan::new(&Shaping::Machines(texts)).map(|_| ());
        assert_eq!(refused, Err(PlanError { number, reason }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_machine_spins_holds_back_for_long_or_sends_too_much(
        texts in machines(),
        steps in prop::collection::vec((0..4_u8, 0_u32..60_000), 1..80),
        seed: u8,
    ) {
        let policy = Shaping::Machines(texts);
        let mut end = End::new(&policy, seed);
        for (step, pause) in steps {
            match step {
                0 | 1 => end.queue(),
                2 => end.receive(Content::Frame),
                _ => end.receive(Content::Dummy),
            }
            end.run(pause * Duration::from_micros(1));
        }
        end.run(8 * SECOND);
        prop_assert!(!end.is_waiting());
        check(&end);
    }

    #[test]
    fn no_text_panics(text in ".{0,200}", change in 0_usize..100, with: u8, texts in machines()) {
        let _ = Plan::new(&Shaping::Machines(vec![text]));
        let mut bytes = texts[0].clone().into_bytes();
        let at = change % bytes.len();
        bytes[at] = with;
        let changed = String::from_utf8_lossy(&bytes).into_owned();
        let _ = Plan::new(&Shaping::Machines(vec![changed]));
    }
}

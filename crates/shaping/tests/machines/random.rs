//! Machines at random, all of them valid.

use enum_map::{Enum as _, EnumMap};
use identity::MAX_MACHINES_LENGTH;
use maybenot::Machine;
use maybenot::action::{Action, Timer};
use maybenot::constants::{STATE_END, STATE_SIGNAL};
use maybenot::counter::{Counter, Operation};
use maybenot::dist::{Dist, DistType};
use maybenot::event::Event;
use maybenot::state::{State, Trans};
use proptest::prelude::*;

/// Up to four machines, each in its text, as many as may be written down.
pub(crate) fn machines() -> impl Strategy<Value = Vec<String>> {
    let texts = prop::collection::vec(machine().prop_map(|machine| machine.serialize()), 1..=4);
    texts.prop_map(|mut texts| {
        let mut length = 0;
        texts.retain(|text| {
            length += text.len();
            length <= MAX_MACHINES_LENGTH
        });
        texts
    })
}

fn machine() -> impl Strategy<Value = Machine> {
    let limits = (0_u64..=10_000, 0.0..=1.0_f64, 0_u64..=60_000_000, 0.0..=1.0_f64);
    (1_usize..6).prop_flat_map(move |count| {
        (prop::collection::vec(state(count), count), limits.clone()).prop_map(
            |(states, (padding, padding_part, blocking, blocking_part))| {
                Machine::new(padding, padding_part, blocking, blocking_part, states)
                    .expect("all its parts are valid")
            },
        )
    })
}

fn state(count: usize) -> impl Strategy<Value = State> {
    let target = prop_oneof![
        8 => 0..count,
        1 => Just(STATE_SIGNAL),
        1 => Just(STATE_END),
    ];
    let transitions =
        prop::collection::vec((0..Event::LENGTH, target, prop::bool::weighted(0.8)), 1..14);
    (transitions, prop::option::weighted(0.9, action()), counter(), counter()).prop_map(
        |(transitions, action, one, other)| {
            let mut of_event: EnumMap<Event, Vec<Trans>> = EnumMap::default();
            for (event, target, is_certain) in transitions {
                let chance = if is_certain { 1.0 } else { 0.5 };
                of_event[Event::from_usize(event)] = vec![Trans(target, chance)];
            }
            let mut state = State::new(of_event);
            (state.action, state.counter) = (action, (one, other));
            state
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let limit = || prop::option::weighted(0.3, dist());
    prop_oneof![
        prop::sample::select(vec![Timer::Action, Timer::Internal, Timer::All])
            .prop_map(|timer| Action::Cancel { timer }),
        (any::<[bool; 2]>(), dist(), limit()).prop_map(|([bypass, replace], timeout, limit)| {
            Action::SendPadding { bypass, replace, timeout, limit }
        }),
        (any::<[bool; 2]>(), dist(), dist(), limit()).prop_map(
            |([bypass, replace], timeout, duration, limit)| Action::BlockOutgoing {
                bypass,
                replace,
                timeout,
                duration,
                limit
            }
        ),
        (any::<bool>(), dist(), limit()).prop_map(|(replace, duration, limit)| {
            Action::UpdateTimer { replace, duration, limit }
        }),
    ]
}

fn counter() -> impl Strategy<Value = Option<Counter>> {
    let operation =
        prop::sample::select(vec![Operation::Increment, Operation::Decrement, Operation::Set]);
    let counter = (operation, prop::option::of(dist()), any::<bool>());
    let counter = counter.prop_map(|(operation, dist, copy)| Counter { operation, dist, copy });
    prop::option::weighted(0.3, counter)
}

/// Microseconds, or counts: nothing at all, a little, or a long time.
fn dist() -> impl Strategy<Value = Dist> {
    let scale = prop::sample::select(vec![0.01, 1.0, 100.0, 10_000.0, 1e6, 1e9, 1e12]);
    let shape = prop::sample::select(vec![0.01, 0.5, 1.0, 3.0, 1_000.0, 1e12]);
    let chance = prop::sample::select(vec![0.01, 0.5, 1.0]);
    let kind = prop_oneof![
        6 => Just(DistType::Uniform { low: 0.0, high: 0.0 }),
        6 => scale.clone().prop_map(|high| DistType::Uniform { low: 0.0, high }),
        1 => (scale.clone(), scale.clone()).prop_map(|(mean, stdev)| DistType::Normal { mean, stdev }),
        1 => (scale.clone(), shape.clone()).prop_map(|(scale, shape)| DistType::SkewNormal {
            location: 0.0, scale, shape
        }),
        1 => (shape.clone(), shape.clone()).prop_map(|(mu, sigma)| DistType::LogNormal { mu, sigma }),
        1 => (0_u64..1_000_000, chance.clone()).prop_map(|(trials, probability)| {
            DistType::Binomial { trials, probability }
        }),
        1 => chance.prop_map(|probability| DistType::Geometric { probability }),
        1 => (scale.clone(), shape.clone()).prop_map(|(scale, shape)| DistType::Pareto { scale, shape }),
        1 => scale.clone().prop_map(|lambda| DistType::Poisson { lambda }),
        1 => (scale.clone(), shape.clone()).prop_map(|(scale, shape)| DistType::Weibull { scale, shape }),
        1 => (scale, shape.clone()).prop_map(|(scale, shape)| DistType::Gamma { scale, shape }),
        1 => (shape.clone(), shape).prop_map(|(alpha, beta)| DistType::Beta { alpha, beta }),
    ];
    let max = prop::sample::select(vec![0.0, 1_000.0, 1e6]);
    (kind, max).prop_map(|(kind, max)| Dist::new(kind, 0.0, max))
}

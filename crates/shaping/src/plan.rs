//! From the owner's word to machines that run.

use std::fmt;
use std::sync::Arc;

use identity::{MAX_MACHINES, MAX_MACHINES_LENGTH, Shaping};
use maybenot::action::Action;
use maybenot::dist::{Dist, DistType};
use maybenot::state::State;
use maybenot::{Error, Machine};

use crate::limits::{
    BLOCKING_FRACTION, LARGEST_PARAMETER, MAX_ALLOWED_BLOCKING, MAX_ALLOWED_DUMMIES, MAX_STATES,
    MAX_TRANSITIONS, PADDING_FRACTION, SMALLEST_SHAPE,
};
use crate::{constant, front};

/// Machines that every link of a network runs; a copy is as cheap as a pointer.
#[derive(Clone)]
pub struct Plan {
    pub(crate) machines: Arc<[Machine]>,
    /// The parts of messages and of time beyond which the framework takes no further action; zero for no bound.
    pub(crate) fractions: (f64, f64),
}

/// Why a machine is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("machine {number} for shaping cannot be run: {reason}")]
pub struct PlanError {
    /// Its place, from 1 on.
    pub number: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Plan {
    /// What the owner's word comes to; nothing where messages are not shaped.
    ///
    /// # Errors
    ///
    /// [`PlanError`] for the first text that is no machine, one of which too much would have to be feared, or one too many: a
    /// record may say more than what is read from a text.
    pub fn new(policy: &Shaping) -> Result<Option<Self>, PlanError> {
        match policy {
            Shaping::Off => Ok(None),
            Shaping::Front => Ok(Some(Self::of_preset(front::machines()))),
            Shaping::Constant => Ok(Some(Self::of_preset(constant::machines()))),
            Shaping::Machines(texts) => {
                let mut length = 0;
                let read = |(index, text): (usize, &String)| {
                    length += text.len();
                    let machine = if index == MAX_MACHINES {
                        Err(format!("a network has {MAX_MACHINES} machines at most"))
                    } else if length > MAX_MACHINES_LENGTH {
                        Err(format!("with it they take more than {MAX_MACHINES_LENGTH} characters"))
                    } else {
                        read(text)
                    };
                    machine.map_err(|reason| PlanError { number: index + 1, reason })
                };
                let machines = texts.iter().enumerate().map(read).collect::<Result<_, _>>()?;
                let fractions = (PADDING_FRACTION, BLOCKING_FRACTION);
                Ok(Some(Self { machines, fractions }))
            }
        }
    }

    /// The machines of a preset know themselves when it is enough.
    fn of_preset(machines: Result<Vec<Machine>, Error>) -> Self {
        let machines = machines.expect("the machines of a preset are valid");
        Self { machines: machines.into(), fractions: (0.0, 0.0) }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("machines", &self.machines.len()).finish_non_exhaustive()
    }
}

/// A machine from its text, which unpacks to a megabyte at most, if it keeps to our bounds.
fn read(text: &str) -> Result<Machine, String> {
    let machine: Machine = text.parse().map_err(|error: Error| error.to_string())?;
    if machine.states.len() > MAX_STATES {
        return Err(format!("it has more than {MAX_STATES} states"));
    }
    let transitions = machine
        .states
        .iter()
        .map(|state| state.get_transitions().values().map(Vec::len).sum::<usize>());
    if transitions.sum::<usize>() > MAX_TRANSITIONS {
        return Err(format!("it has more than {MAX_TRANSITIONS} transitions"));
    }
    if machine.allowed_padding_packets > MAX_ALLOWED_DUMMIES {
        return Err(format!(
            "it allows itself more than {MAX_ALLOWED_DUMMIES} messages of padding"
        ));
    }
    if machine.allowed_blocked_microsec > MAX_ALLOWED_BLOCKING {
        return Err(format!("it allows itself more than {MAX_ALLOWED_BLOCKING} µs of blocking"));
    }
    if !machine.states.iter().flat_map(distributions).all(|dist| is_tame(&dist)) {
        return Err("a parameter of a distribution is out of bounds".to_owned());
    }
    Ok(machine)
}

/// Everything that a state samples.
fn distributions(state: &State) -> impl Iterator<Item = Dist> + use<> {
    let of_action = match state.action {
        Some(Action::SendPadding { timeout, limit, .. }) => [Some(timeout), limit, None],
        Some(Action::BlockOutgoing { timeout, duration, limit, .. }) => {
            [Some(timeout), limit, Some(duration)]
        }
        Some(Action::UpdateTimer { duration, limit, .. }) => [Some(duration), limit, None],
        Some(Action::Cancel { .. }) | None => [None; 3],
    };
    let counters = [state.counter.0, state.counter.1].map(|counter| counter?.dist);
    of_action.into_iter().chain(counters).flatten()
}

/// Whether a distribution is sampled in a moment and gives numbers that mean something.
fn is_tame(dist: &Dist) -> bool {
    let is_bounded = |value: f64| value.is_finite() && value.abs() <= LARGEST_PARAMETER;
    let is_shape = |value: f64| value >= SMALLEST_SHAPE && is_bounded(value);
    let is_chance = |value: f64| (SMALLEST_SHAPE..=1.0).contains(&value);
    let is_likely = match dist.dist {
        DistType::Uniform { low: one, high: other }
        | DistType::Normal { mean: one, stdev: other }
        | DistType::LogNormal { mu: one, sigma: other } => is_bounded(one) && is_bounded(other),
        DistType::SkewNormal { location, scale, shape } => {
            [location, scale, shape].into_iter().all(is_bounded)
        }
        DistType::Binomial { trials, probability } => {
            trials <= 1_000_000 && (is_chance(probability) || probability == 0.0)
        }
        DistType::Geometric { probability } => is_chance(probability),
        DistType::Poisson { lambda } => is_shape(lambda),
        DistType::Pareto { scale: one, shape: other }
        | DistType::Weibull { scale: one, shape: other }
        | DistType::Gamma { scale: one, shape: other }
        | DistType::Beta { alpha: one, beta: other } => is_shape(one) && is_shape(other),
    };
    is_likely && is_bounded(dist.start) && is_bounded(dist.max)
}

//! Machines on one end of one link, and their timers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maybenot::{Framework, Machine, MachineId, Timer, TriggerAction, TriggerEvent};
use rand_chacha_09::ChaCha12Rng;
use rand_chacha_09::rand_core::SeedableRng;

use crate::gate::{Gate, Hold, Padding, Turn};
use crate::limits::{ROUNDS, SHORTEST_WAIT};
use crate::plan::Plan;

/// What runs a plan on one end of one link.
///
/// It is told what is queued, sent and received. When the stream takes a message, [`Self::take_turn`] says which; after
/// every call arm a timer for [`Self::poll_timeout`]. Everywhere `is_waiting` says whether a message waits in the link's queue.
pub struct Shaper {
    framework: Framework<Arc<[Machine]>, ChaCha12Rng>,
    timers: Box<[Timers]>,
    /// What the machines' own answers cause, in memory that is used again.
    begun: Vec<TriggerEvent>,
    spare: Vec<TriggerEvent>,
    gate: Gate,
}

/// What came in a message, as far as machines tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Something that somebody sent, a bundle of it too.
    Frame,
    /// A dummy.
    Dummy,
    /// What keeps the link going.
    Upkeep,
}

/// The two timers of a machine.
#[derive(Debug, Clone, Copy, Default)]
struct Timers {
    action: Option<(Instant, Due)>,
    internal: Option<Instant>,
}

/// What a machine does when its timer rings.
#[derive(Debug, Clone, Copy)]
enum Due {
    Pad(Padding),
    Close(Hold),
}

impl Shaper {
    /// Runs a plan from now on; machines draw from a generator of their own with this seed.
    #[must_use]
    pub fn new(plan: &Plan, seed: [u8; 32], now: Instant) -> Self {
        let (padding, blocking) = plan.fractions;
        let machines = Arc::clone(&plan.machines);
        let timers = vec![Timers::default(); machines.len()].into();
        let rng = ChaCha12Rng::from_seed(seed);
        let framework = Framework::new(machines, padding, blocking, now, rng)
            .expect("a plan has machines that are valid, and fractions");
        let (begun, spare) = (Vec::new(), Vec::new());
        Self { framework, timers, begun, spare, gate: Gate::open(now) }
    }

    /// A frame was queued.
    pub fn handle_queued(&mut self, now: Instant) {
        self.trigger(&[TriggerEvent::NormalSent], true, now);
        self.gate.note(true, now);
    }

    /// A message has arrived.
    pub fn handle_received(&mut self, content: Content, is_waiting: bool, now: Instant) {
        let all = match content {
            Content::Frame => &[TriggerEvent::TunnelRecv, TriggerEvent::NormalRecv][..],
            Content::Dummy => &[TriggerEvent::TunnelRecv, TriggerEvent::PaddingRecv],
            Content::Upkeep => &[TriggerEvent::TunnelRecv],
        };
        self.trigger(all, true, now);
        self.gate.note(is_waiting, now);
    }

    /// A message has left; `is_waiting` tells of those behind it.
    pub fn handle_sent(&mut self, is_waiting: bool, now: Instant) {
        self.trigger(&[TriggerEvent::TunnelSent], false, now);
        self.gate.note(is_waiting, now);
    }

    /// Something else was queued, or dropped.
    pub fn note(&mut self, is_waiting: bool, now: Instant) {
        self.gate.note(is_waiting, now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, is_waiting: bool, now: Instant) {
        for number in 0..self.timers.len() {
            let machine = MachineId::from_raw(number);
            match self.timers[number].take_action(now) {
                Some(Due::Pad(padding)) => {
                    self.gate.pad(padding, is_waiting, now);
                    self.trigger(&[TriggerEvent::PaddingSent { machine }], false, now);
                }
                Some(Due::Close(hold)) => {
                    self.gate.close(hold, now);
                    self.trigger(&[TriggerEvent::BlockingBegin { machine }], false, now);
                    if !self.gate.is_closed() {
                        self.trigger(&[TriggerEvent::BlockingEnd], false, now);
                    }
                }
                None => {}
            }
            if self.timers[number].take_internal(now) {
                self.trigger(&[TriggerEvent::TimerEnd { machine }], false, now);
            }
        }
        if self.gate.open_if_due(now) {
            self.trigger(&[TriggerEvent::BlockingEnd], false, now);
        }
        self.gate.note(is_waiting, now);
    }

    /// When [`Self::handle_timeout`] must be called next; later than the last call of it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_machine = |timers: &Timers| [timers.action.map(|(at, _)| at), timers.internal];
        let timers = self.timers.iter().flat_map(of_machine).flatten();
        timers.chain(self.gate.poll_timeout()).min()
    }

    /// What would leave if the stream took a message now.
    #[must_use]
    pub const fn turn(&self, is_waiting: bool) -> Turn {
        self.gate.turn(is_waiting)
    }

    /// What leaves now.
    pub const fn take_turn(&mut self, is_waiting: bool) -> Turn {
        self.gate.take_turn(is_waiting)
    }

    /// Tells the machines what has happened, and what follows from their answers at once. Where something has come, they may
    /// hold it back before the stream takes it; else what they hold back anew has a chance to leave first.
    fn trigger(&mut self, events: &[TriggerEvent], has_come: bool, now: Instant) {
        self.run(events, has_come, now);
        for round in 1..ROUNDS {
            if self.begun.is_empty() {
                return;
            }
            let follow = std::mem::take(&mut self.begun);
            self.begun = std::mem::take(&mut self.spare);
            self.run(&follow, has_come && round + 1 < ROUNDS, now);
            self.spare = follow;
            self.spare.clear();
        }
        self.begun.clear();
    }

    /// Tells the machines what has happened; notes whose timers and holds begin by that.
    fn run(&mut self, events: &[TriggerEvent], may_hold: bool, now: Instant) {
        for action in self.framework.trigger_events(events, now) {
            let machine = machine_of(action);
            let Some(timers) = self.timers.get_mut(machine.into_raw()) else { continue };
            let hold = hold_at_once(action).filter(|_| may_hold && self.gate.may_close(now));
            if let Some(hold) = hold {
                timers.action = None;
                self.gate.close(hold, now);
                self.begun.push(TriggerEvent::BlockingBegin { machine });
            } else if timers.apply(action, now) {
                self.begun.push(TriggerEvent::TimerBegin { machine });
            }
        }
    }
}

impl Timers {
    /// Sets or stops a timer; says whether the internal one begins.
    fn apply(&mut self, action: &TriggerAction, now: Instant) -> bool {
        let after = |wait: Duration| now + wait.max(SHORTEST_WAIT);
        match *action {
            TriggerAction::Cancel { timer, .. } => {
                if timer != Timer::Internal {
                    self.action = None;
                }
                if timer != Timer::Action {
                    self.internal = None;
                }
                false
            }
            TriggerAction::SendPadding { timeout, bypass, replace, .. } => {
                self.action = Some((after(timeout), Due::Pad(Padding { bypass, replace })));
                false
            }
            TriggerAction::BlockOutgoing { timeout, duration, bypass, replace, .. } => {
                let hold = Hold { duration, bypass, replace };
                self.action = Some((after(timeout), Due::Close(hold)));
                false
            }
            TriggerAction::UpdateTimer { duration, replace, .. } => {
                let until = after(duration);
                let begins = replace || self.internal.is_none_or(|before| before < until);
                if begins {
                    self.internal = Some(until);
                }
                begins
            }
        }
    }

    fn take_action(&mut self, now: Instant) -> Option<Due> {
        self.action.take_if(|(at, _)| *at <= now).map(|(_, due)| due)
    }

    fn take_internal(&mut self, now: Instant) -> bool {
        self.internal.take_if(|at| *at <= now).is_some()
    }
}

/// What a machine wants held back from now on.
fn hold_at_once(action: &TriggerAction) -> Option<Hold> {
    match *action {
        TriggerAction::BlockOutgoing { timeout, duration, bypass, replace, .. }
            if timeout.is_zero() && !duration.is_zero() =>
        {
            Some(Hold { duration, bypass, replace })
        }
        TriggerAction::BlockOutgoing { .. }
        | TriggerAction::Cancel { .. }
        | TriggerAction::SendPadding { .. }
        | TriggerAction::UpdateTimer { .. } => None,
    }
}

const fn machine_of(action: &TriggerAction) -> MachineId {
    match action {
        TriggerAction::Cancel { machine, .. }
        | TriggerAction::SendPadding { machine, .. }
        | TriggerAction::BlockOutgoing { machine, .. }
        | TriggerAction::UpdateTimer { machine, .. } => *machine,
    }
}

impl fmt::Debug for Shaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shaper").field("gate", &self.gate).finish_non_exhaustive()
    }
}

//! What may leave now: what is held back, what passes all the same, and which dummies are to be sent.

use std::time::{Duration, Instant};

use crate::limits::{DUMMIES_PER_SECOND, DUMMIES_WAITING, LONGEST_HOLD};

const SECOND: Duration = Duration::from_secs(1);

/// What is to leave when the stream takes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing yet.
    Nothing,
    /// What is queued.
    Queued,
    /// A dummy, whatever is queued.
    Dummy,
    /// What is queued, or a dummy if that has come to nothing.
    QueuedOrDummy,
}

/// How a machine wants a dummy sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Padding {
    /// It passes what is held back, if that lets anything pass.
    pub(crate) bypass: bool,
    /// Anything else that is to be sent will do.
    pub(crate) replace: bool,
}

/// How a machine wants messages held back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    pub(crate) duration: Duration,
    /// Padding may pass.
    pub(crate) bypass: bool,
    /// It takes the place of another one that would last longer.
    pub(crate) replace: bool,
}

/// The end of a link's queue.
#[derive(Debug)]
pub(crate) struct Gate {
    closed: Option<Closed>,
    /// A message may pass though the gate is closed, or a dummy in its place.
    is_released: bool,
    /// Dummies that pass though it is closed.
    passing: u32,
    /// Dummies that leave when it is open.
    dummies: u32,
    /// Since when something waits for it and nothing passes.
    held: Option<Instant>,
    /// It does not close before.
    open_until: Option<Instant>,
    budget: Budget,
}

#[derive(Debug)]
struct Closed {
    until: Instant,
    /// Padding that asks for it passes.
    is_passable: bool,
}

/// The dummies of one second, which begins with the first that is taken after the one before.
#[derive(Debug)]
struct Budget {
    since: Instant,
    spent: u32,
}

impl Gate {
    pub(crate) const fn open(now: Instant) -> Self {
        Self {
            closed: None,
            is_released: false,
            passing: 0,
            dummies: 0,
            held: None,
            open_until: None,
            budget: Budget { since: now, spent: 0 },
        }
    }

    /// What would leave now. What is queued and may leave goes before dummies, since a stream may be slower than they come.
    pub(crate) const fn turn(&self, is_waiting: bool) -> Turn {
        let is_open = self.closed.is_none();
        if self.is_released {
            Turn::QueuedOrDummy
        } else if is_open && is_waiting {
            Turn::Queued
        } else if self.passing > 0 || (is_open && self.dummies > 0) {
            Turn::Dummy
        } else {
            Turn::Nothing
        }
    }

    /// What leaves now.
    pub(crate) const fn take_turn(&mut self, is_waiting: bool) -> Turn {
        let turn = self.turn(is_waiting);
        match turn {
            Turn::Dummy if self.passing > 0 => self.passing -= 1,
            Turn::Dummy => self.dummies -= 1,
            Turn::QueuedOrDummy => self.is_released = false,
            Turn::Queued | Turn::Nothing => {}
        }
        turn
    }

    /// Takes a dummy, or what goes in its place.
    pub(crate) fn pad(&mut self, padding: Padding, is_waiting: bool, now: Instant) {
        let is_passing = padding.bypass && self.closed.as_ref().is_some_and(|c| c.is_passable);
        let is_due = self.is_released || self.passing > 0 || (!is_passing && self.dummies > 0);
        let is_replaced = padding.replace && (is_due || (is_waiting && !is_passing));
        let is_message = padding.replace && is_waiting;
        if is_replaced || !(is_message || self.budget.take(now)) {
            return;
        }
        if is_passing && padding.replace {
            self.is_released = true;
        } else if is_passing {
            self.passing = DUMMIES_WAITING.min(self.passing + 1);
        } else {
            self.dummies = DUMMIES_WAITING.min(self.dummies + 1);
        }
    }

    /// Closes, unless it was closed for too long just now.
    pub(crate) fn close(&mut self, hold: Hold, now: Instant) {
        let until = now + hold.duration;
        let is_longer = self.closed.as_ref().is_none_or(|closed| closed.until < until);
        if self.may_close(now) && (is_longer || hold.replace) {
            self.closed = Some(Closed { until, is_passable: hold.bypass });
        }
    }

    /// Whether it was not closed for too long just now.
    pub(crate) fn may_close(&self, now: Instant) -> bool {
        self.open_until.is_none_or(|open| open <= now)
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Opens if it is time to; says whether it did. A message that may pass ends the wait, however late it was let.
    pub(crate) fn open_if_due(&mut self, now: Instant) -> bool {
        let is_held = !self.is_released && self.held.is_some_and(|held| held + LONGEST_HOLD <= now);
        if is_held {
            self.open_until = Some(now + LONGEST_HOLD);
        }
        self.closed.take_if(|closed| is_held || closed.until <= now).is_some()
    }

    /// Takes note of whether something waits.
    pub(crate) fn note(&mut self, is_waiting: bool, now: Instant) {
        let is_held = is_waiting && self.closed.is_some() && !self.is_released;
        self.held = is_held.then(|| self.held.unwrap_or(now));
    }

    /// When [`Self::open_if_due`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let closed = self.closed.as_ref().map(|closed| closed.until);
        [closed, self.held.map(|held| held + LONGEST_HOLD)].into_iter().flatten().min()
    }
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= SECOND {
            (self.since, self.spent) = (now, 0);
        }
        let is_left = self.spent < DUMMIES_PER_SECOND;
        self.spent += u32::from(is_left);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);
    const PASSING: Padding = Padding { bypass: true, replace: true };
    const PLAIN: Padding = Padding { bypass: false, replace: false };

    fn hold(milliseconds: u32, bypass: bool) -> Hold {
        Hold { duration: milliseconds * MILLISECOND, bypass, replace: false }
    }

    #[test]
    fn what_is_queued_leaves_at_once_while_the_gate_is_open() {
        let mut gate = Gate::open(Instant::now());
        assert_eq!((gate.take_turn(false), gate.take_turn(true)), (Turn::Nothing, Turn::Queued));
    }

    #[test]
    fn one_message_passes_for_each_padding_that_it_replaces_and_none_otherwise() {
        let now = Instant::now();
        let mut gate = Gate::open(now);
        gate.close(hold(50, true), now);
        assert_eq!(gate.take_turn(true), Turn::Nothing);
        for _ in 0..3 {
            gate.pad(PASSING, true, now);
        }
        assert_eq!(
            (gate.take_turn(true), gate.take_turn(true)),
            (Turn::QueuedOrDummy, Turn::Nothing)
        );
    }

    #[test]
    fn padding_waits_where_nothing_may_pass() {
        let now = Instant::now();
        let mut gate = Gate::open(now);
        gate.close(hold(50, false), now);
        gate.pad(Padding { bypass: true, replace: false }, false, now);
        assert_eq!(gate.take_turn(false), Turn::Nothing);
        assert!(!gate.open_if_due(now + 49 * MILLISECOND));
        assert!(gate.open_if_due(now + 50 * MILLISECOND));
        assert_eq!((gate.take_turn(false), gate.take_turn(false)), (Turn::Dummy, Turn::Nothing));
    }

    #[test]
    fn padding_that_may_be_replaced_is_none_where_something_waits() {
        let now = Instant::now();
        let mut gate = Gate::open(now);
        gate.close(hold(50, false), now);
        gate.pad(Padding { bypass: false, replace: true }, true, now);
        gate.pad(PLAIN, true, now);
        gate.pad(Padding { bypass: false, replace: true }, true, now);
        assert!(gate.open_if_due(now + 50 * MILLISECOND));
        assert_eq!((gate.take_turn(true), gate.take_turn(false)), (Turn::Queued, Turn::Dummy));
        assert_eq!(gate.take_turn(false), Turn::Nothing);
    }

    #[test]
    fn dummies_leave_to_a_slow_stream_what_it_takes_of_messages() {
        let start = Instant::now();
        let mut gate = Gate::open(start);
        let (mut waiting, mut dummies) = (0, 0);
        // A message is taken every 10 ms; every second time one comes, and three dummies each time.
        for number in 0..1_000 {
            let now = start + number * 10 * MILLISECOND;
            waiting += number % 2;
            (0..3).for_each(|_| gate.pad(PLAIN, waiting > 0, now));
            match gate.take_turn(waiting > 0) {
                Turn::Dummy => dummies += 1,
                Turn::Queued => waiting -= 1,
                turn @ (Turn::Nothing | Turn::QueuedOrDummy) => panic!("{turn:?}"),
            }
            assert_eq!(waiting, 0, "after {number}");
        }
        assert_eq!(dummies, 500);
    }

    #[test]
    fn the_longer_of_two_holds_counts_unless_the_second_takes_its_place() {
        let now = Instant::now();
        for (replace, end) in [(false, 50), (true, 20)] {
            let mut gate = Gate::open(now);
            gate.close(hold(50, false), now);
            gate.close(Hold { replace, ..hold(20, false) }, now);
            assert_eq!(gate.poll_timeout(), Some(now + end * MILLISECOND));
        }
    }

    #[test]
    fn what_waits_is_held_no_longer_than_it_may_be_and_then_left_alone_for_as_long() {
        let start = Instant::now();
        let mut gate = Gate::open(start);
        gate.close(hold(100_000, true), start);
        gate.note(false, start);
        let queued = start + SECOND;
        gate.note(true, queued);
        // Dummies that pass are no progress.
        gate.pad(Padding { bypass: true, replace: false }, true, queued + 50 * MILLISECOND);
        assert_eq!(gate.take_turn(true), Turn::Dummy);
        gate.note(true, queued + 50 * MILLISECOND);
        let end = queued + LONGEST_HOLD;
        assert_eq!(gate.poll_timeout(), Some(end));
        assert!(gate.open_if_due(end));
        gate.close(hold(100, true), end + LONGEST_HOLD / 2);
        assert_eq!(gate.turn(true), Turn::Queued);
        gate.close(hold(100, true), end + LONGEST_HOLD);
        assert_eq!(gate.turn(true), Turn::Nothing);
    }

    #[test]
    fn who_was_late_to_let_a_message_pass_held_nothing_back_for_too_long() {
        let start = Instant::now();
        let mut gate = Gate::open(start);
        gate.close(hold(100_000, true), start);
        gate.note(true, start);
        let late = start + 2 * LONGEST_HOLD;
        gate.pad(PASSING, true, late);
        assert!(!gate.open_if_due(late));
        gate.note(true, late);
        assert_eq!(
            (gate.take_turn(true), gate.take_turn(true)),
            (Turn::QueuedOrDummy, Turn::Nothing)
        );
    }

    #[test]
    fn dummies_have_a_rate_and_a_queue_and_messages_in_their_place_have_none() {
        let now = Instant::now();
        let mut gate = Gate::open(now);
        let mut count = |now| {
            let mut sent = 0;
            for _ in 0..1_000 {
                gate.pad(PLAIN, false, now);
                sent += u32::from(gate.take_turn(false) == Turn::Dummy);
            }
            sent
        };
        assert_eq!(count(now), DUMMIES_PER_SECOND);
        assert_eq!(count(now + SECOND / 2), 0);
        assert_eq!(count(now + SECOND), DUMMIES_PER_SECOND);
        gate.close(hold(100, true), now + SECOND);
        gate.pad(PASSING, true, now + SECOND);
        assert_eq!(gate.take_turn(true), Turn::QueuedOrDummy);
        (0..100).for_each(|_| gate.pad(PLAIN, false, now + 2 * SECOND));
        assert!(gate.open_if_due(now + 3 * SECOND));
        let waiting = (0..100).filter(|_| gate.take_turn(false) == Turn::Dummy).count();
        assert_eq!(waiting, DUMMIES_WAITING as usize);
    }
}

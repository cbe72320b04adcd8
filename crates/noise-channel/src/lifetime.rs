//! How long streams live before somebody in between ends them.

use std::time::{Duration, Instant};

/// Ages are the same if they differ by no more than this, or by a fiftieth.
const ACCURACY: Duration = Duration::from_secs(1);
/// What ends sooner is a fault, and no rule of whoever is in between.
const SHORTEST: Duration = Duration::from_secs(30);
/// A connection that was to take the place of another did not come about: the next attempt, later each time, ...
const AGAIN: Duration = Duration::from_secs(2);
/// ... up to this many times doubled.
const MOST_DOUBLED: u32 = 5;
/// Tenths of the age at which a connection is replaced, ...
const REPLACED: u32 = 9;
/// ... and those after which it has outlived the others.
const OUTLIVED: u32 = 11;
/// After so many connections that were replaced in time one is left alone, to see whether it is still cut.
const TRUSTED: u32 = 256;

/// How old connections to one place become before somebody in between cuts them, and when to replace the one in use: content
/// delivery networks and load balancers cut at a fixed age, whatever goes over them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lifetime {
    last: Option<Duration>,
    known: Option<Duration>,
    replace_at: Option<Instant>,
    failures: u32,
    /// Connections begun since one was cut.
    begun: u32,
}

impl Lifetime {
    /// Somebody else ended a connection at this age.
    pub fn handle_cut(&mut self, age: Duration) {
        if age < SHORTEST {
            return;
        }
        self.begun = 0;
        let last = self.last.replace(age);
        let same = |last: &Duration| last.abs_diff(age) <= ACCURACY.max(age / 50);
        self.known = last.filter(same).map(|last| last.min(age));
    }

    /// A connection is in use from now on.
    pub fn handle_begun(&mut self, now: Instant) {
        self.begun = self.begun.saturating_add(1);
        let share = if self.is_left_alone() { OUTLIVED } else { REPLACED };
        self.replace_at = self.known.map(|known| now + known * share / 10);
        self.failures = 0;
    }

    /// No connection is in use any more.
    pub fn handle_ended(&mut self) {
        self.replace_at = None;
    }

    /// The connection that was to take the place of the one in use since then did not come about.
    pub fn handle_failed(&mut self, since: Instant, now: Instant) {
        if self.known.is_some_and(|known| now > since + known * OUTLIVED / 10) {
            *self = Self::default();
            return;
        }
        let pause = AGAIN.saturating_mul(1 << self.failures.min(MOST_DOUBLED));
        self.replace_at = Some(now + pause);
        self.failures += 1;
    }

    /// When the connection in use is to be replaced.
    #[must_use]
    pub fn replace_at(&self) -> Option<Instant> {
        self.replace_at
    }

    /// Whether to open the next one now; says so once.
    #[must_use]
    pub fn take_replacement(&mut self, now: Instant) -> bool {
        let is_due = self.replace_at.take_if(|at| *at <= now).is_some();
        if is_due && self.is_left_alone() && self.failures == 0 {
            *self = Self::default();
            return false;
        }
        is_due
    }

    fn is_left_alone(&self) -> bool {
        self.begun > TRUSTED
    }

    /// How often in a row the next one did not come about.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_that_are_cut_at_the_same_age_twice_have_a_lifetime() {
        let (now, seconds) = (Instant::now(), Duration::from_secs);
        let mut lifetime = Lifetime::default();
        let mut after = |age| {
            lifetime.handle_cut(age);
            lifetime.handle_begun(now);
            lifetime.replace_at().map(|at| at - now)
        };
        assert_eq!(after(seconds(100)), None);
        assert_eq!(after(seconds(29)), None, "a fault");
        assert_eq!(after(Duration::from_millis(100_900)), Some(seconds(90)));
        assert_eq!(after(seconds(40)), None, "it was chance");
        assert_eq!(after(seconds(3_600)), None);
        assert_eq!(after(seconds(3_650)), Some(seconds(3_240)));
    }

    #[test]
    fn where_nobody_cuts_any_more_that_is_found_out() {
        let (mut now, seconds) = (Instant::now(), Duration::from_secs);
        let mut lifetime = Lifetime::default();
        (0..2).for_each(|_| lifetime.handle_cut(seconds(100)));
        lifetime.handle_begun(now);
        let mut replaced = 0;
        while let Some(at) = lifetime.replace_at() {
            now = at;
            if lifetime.take_replacement(now) {
                replaced += 1;
                lifetime.handle_begun(now);
            }
        }
        assert_eq!(replaced, TRUSTED);
        // And if it is cut, all is as before.
        (0..2).for_each(|_| lifetime.handle_cut(seconds(100)));
        (0..=TRUSTED).for_each(|_| lifetime.handle_begun(now));
        assert_eq!(lifetime.replace_at(), Some(now + seconds(110)));
        lifetime.handle_cut(seconds(100));
        lifetime.handle_begun(now);
        assert_eq!(lifetime.replace_at(), Some(now + seconds(90)));
    }

    #[test]
    fn a_replacement_is_tried_again_later_each_time_until_the_age_is_refuted() {
        let (start, seconds) = (Instant::now(), Duration::from_secs);
        let mut lifetime = Lifetime::default();
        (0..2).for_each(|_| lifetime.handle_cut(seconds(100)));
        lifetime.handle_begun(start);
        let mut tried = Vec::new();
        for second in 0..300 {
            let now = start + seconds(second);
            if lifetime.take_replacement(now) {
                tried.push(second);
                lifetime.handle_failed(start, now);
            }
        }
        assert_eq!(tried, [90, 92, 96, 104, 120]);
    }
}

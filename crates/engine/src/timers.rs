//! What the engine itself does by the clock; its children have their own.

use std::time::{Duration, Instant};

use identity::UnixTime;

/// Bytes in both directions after which a session is made anew.
pub(crate) const REKEY_AFTER_BYTES: u64 = 1 << 30;
/// Seconds for which a binding counts: long enough for peers to survive a week without a
/// controller.
pub(crate) const BINDING_VALIDITY: u64 = 14 * 24 * 3600;
/// Between looks at the traffic of data threads while there is any: half of what may pass before
/// unanswered traffic triggers probes.
const TICK_BUSY: Duration = Duration::from_millis(250);
/// The same while there is none.
const TICK_IDLE: Duration = Duration::from_secs(1);
/// Traffic this long ago counts as none.
const BUSY_FOR: Duration = Duration::from_secs(10);
/// Changes are collected for this long before they are saved.
pub(crate) const SAVE_DELAY: Duration = Duration::from_secs(1);
/// What can be had again from the controller is saved at a hundred kilobytes a second at most: the map
/// of a large network is megabytes, and somebody in it moves all the time.
const SAVE_BYTES_PER_SECOND: u64 = 100_000;
/// Seconds by which a wall clock moves between two ticks only when somebody sets it, or when the
/// device was asleep.
const CLOCK_STEP: u64 = 30;
/// Changes of candidates are collected for this long before they are announced.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(50);

/// Where this device's own clock went at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Set, or gone on while the device was asleep.
    Ahead,
    /// Set.
    Back,
}

/// The engine's own deadlines.
#[derive(Debug)]
pub(crate) struct Schedule {
    tick: Instant,
    busy_until: Option<Instant>,
    save: Option<Instant>,
    save_map: Option<Instant>,
    /// How long it takes to save so large a map as the last time at the pace that there is for it.
    save_pause: Duration,
    announce: Option<Instant>,
    dirty: bool,
    directory_dirty: bool,
    last_now: Instant,
    wall: UnixTime,
    local: Option<UnixTime>,
}

impl Schedule {
    pub(crate) fn new(now: Instant, wall: UnixTime) -> Self {
        Self {
            tick: now,
            busy_until: None,
            save: Some(now),
            save_map: None,
            save_pause: Duration::ZERO,
            announce: None,
            dirty: true,
            directory_dirty: true,
            last_now: now,
            wall,
            local: None,
        }
    }

    /// The time of the latest call.
    pub(crate) fn note(&mut self, now: Instant) {
        self.last_now = now;
    }

    pub(crate) fn last_now(&self) -> Instant {
        self.last_now
    }

    /// Whether the network's time, as this device knows it, has made a step since the last tick.
    pub(crate) fn has_stepped(&mut self, wall: UnixTime) -> bool {
        is_step(std::mem::replace(&mut self.wall, wall), wall)
    }

    /// Whether this device's own clock was set since the last tick, or the device was asleep.
    pub(crate) fn was_set(&mut self, local: UnixTime) -> Option<Step> {
        let before = self.local.replace(local).filter(|before| is_step(*before, local))?;
        Some(if before < local { Step::Ahead } else { Step::Back })
    }

    /// The data plane no longer says what is true.
    pub(crate) fn publish(&mut self) {
        self.dirty = true;
    }

    /// Members or their addresses are others.
    pub(crate) fn publish_directory(&mut self) {
        self.directory_dirty = true;
        self.dirty = true;
    }

    pub(crate) fn take_directory_dirty(&mut self) -> bool {
        std::mem::take(&mut self.directory_dirty)
    }

    pub(crate) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// For what is this device's own.
    pub(crate) fn save_soon(&mut self, now: Instant) {
        let at = now + SAVE_DELAY;
        self.save = Some(self.save.map_or(at, |before| before.min(at)));
    }

    /// For what is not to be had again: an invite counts once, and so does a number, whatever the clock says later.
    pub(crate) fn save_now(&mut self, now: Instant) {
        self.save = Some(now);
    }

    pub(crate) fn take_save(&mut self, now: Instant) -> bool {
        take_due(&mut self.save, now)
    }

    /// For what the device must not forget of the network, such as who was removed.
    pub(crate) fn save_map_soon(&mut self, now: Instant) {
        self.save_map_by(now + SAVE_DELAY);
    }

    /// For what can be had again, and changes often where there is much of it.
    pub(crate) fn save_map_in_time(&mut self, now: Instant) {
        self.save_map_by(now + SAVE_DELAY.max(self.save_pause));
    }

    fn save_map_by(&mut self, at: Instant) {
        self.save_map = Some(self.save_map.map_or(at, |before| before.min(at)));
    }

    /// A map of so many bytes was saved.
    pub(crate) fn map_saved(&mut self, bytes: usize) {
        self.save_pause = Duration::from_millis(bytes as u64 * 1_000 / SAVE_BYTES_PER_SECOND);
    }

    pub(crate) fn take_save_map(&mut self, now: Instant) -> bool {
        take_due(&mut self.save_map, now)
    }

    pub(crate) fn announce_soon(&mut self, now: Instant) {
        self.announce.get_or_insert(now + ANNOUNCE_DELAY);
    }

    /// For what the next channel must not be told any more.
    pub(crate) fn announce_now(&mut self, now: Instant) {
        self.announce = Some(now);
    }

    pub(crate) fn take_announce(&mut self, now: Instant) -> bool {
        take_due(&mut self.announce, now)
    }

    /// There was traffic, so the next looks come sooner.
    pub(crate) fn traffic(&mut self, now: Instant) {
        self.busy_until = Some(now + BUSY_FOR);
        self.tick = self.tick.min(now + TICK_BUSY);
    }

    pub(crate) fn take_tick(&mut self, now: Instant) -> bool {
        if self.tick > now {
            return false;
        }
        let busy = self.busy_until.is_some_and(|until| until > now);
        self.tick = now + if busy { TICK_BUSY } else { TICK_IDLE };
        true
    }

    pub(crate) fn poll_timeout(&self) -> (Instant, &'static str) {
        let tick = (self.tick, "look at traffic and expiry");
        let save = self.save.map(|at| (at, "save what is this device's own"));
        let save_map = self.save_map.map(|at| (at, "save the map"));
        let announce = self.announce.map(|at| (at, "announce endpoints"));
        [save, save_map, announce].into_iter().flatten().fold(tick, Ord::min)
    }
}

fn is_step(before: UnixTime, after: UnixTime) -> bool {
    before.since(after).max(after.since(before)) > CLOCK_STEP
}

fn take_due(at: &mut Option<Instant>, now: Instant) -> bool {
    let due = at.is_some_and(|at| at <= now);
    if due {
        *at = None;
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: usize = 1_000_000;

    #[test]
    fn the_larger_the_map_the_longer_changes_of_the_network_are_collected() {
        let start = Instant::now();
        for (bytes, pause) in [(1_000, SAVE_DELAY), (11 * MEGABYTE, Duration::from_secs(110))] {
            let mut schedule = Schedule::new(start, UnixTime(0));
            schedule.map_saved(bytes);
            schedule.save_map_in_time(start);
            schedule.save_map_in_time(start + pause / 2);
            assert!(!schedule.take_save_map(start + pause - Duration::from_millis(1)));
            assert!(schedule.take_save_map(start + pause));
            assert!(!schedule.take_save_map(start + 2 * pause), "once for both changes");
        }
    }

    #[test]
    fn what_is_not_to_be_had_again_does_not_wait_for_what_is() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, UnixTime(0));
        assert!(schedule.take_save(start), "the first state is saved at once");
        schedule.map_saved(11 * MEGABYTE);
        schedule.save_map_in_time(start);
        schedule.save_soon(start);
        assert!(schedule.take_save(start + SAVE_DELAY));
        assert!(!schedule.take_save_map(start + SAVE_DELAY));
        schedule.save_map_soon(start);
        assert!(schedule.take_save_map(start + SAVE_DELAY));
    }
}

//! One end of a link: a queue, a stream that takes everything at once, and a clock.

use std::time::{Duration, Instant};

use identity::Shaping;
use shaping::{Content, Plan, Shaper, Turn};

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Something that left: when, and for a message, when it was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) at: Duration,
    pub(crate) queued: Option<Duration>,
}

pub(crate) struct End {
    shaper: Shaper,
    start: Instant,
    now: Instant,
    queue: Vec<Duration>,
    pub(crate) left: Vec<Left>,
    /// How often a timer rang.
    pub(crate) rings: usize,
}

impl End {
    pub(crate) fn new(policy: &Shaping, seed: u8) -> Self {
        let plan = Plan::new(policy).expect("it can be run").expect("it is one");
        let now = Instant::now();
        let shaper = Shaper::new(&plan, [seed; 32], now);
        Self { shaper, start: now, now, queue: Vec::new(), left: Vec::new(), rings: 0 }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn queue(&mut self) {
        self.queue.push(self.elapsed());
        self.shaper.handle_queued(self.now);
        self.drain();
    }

    pub(crate) fn receive(&mut self, content: Content) {
        self.shaper.handle_received(content, self.is_waiting(), self.now);
        self.drain();
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Lets time pass; every timer moves on.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.shaper.poll_timeout().filter(|at| *at <= end) {
            assert!(at >= self.now, "a timer is for later");
            self.now = at;
            self.shaper.handle_timeout(self.is_waiting(), self.now);
            let next = self.shaper.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a timer moves on");
            self.rings += 1;
            self.drain();
        }
        self.now = end;
    }

    /// Lets time pass during which nothing runs, and then does what is due.
    pub(crate) fn stall(&mut self, duration: Duration) {
        self.now += duration;
        self.shaper.handle_timeout(self.is_waiting(), self.now);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            let queued = match self.shaper.take_turn(self.is_waiting()) {
                Turn::Nothing => return,
                Turn::Dummy => None,
                Turn::Queued => Some(self.queue.remove(0)),
                Turn::QueuedOrDummy => self.is_waiting().then(|| self.queue.remove(0)),
            };
            self.left.push(Left { at: self.elapsed(), queued });
            self.shaper.handle_sent(self.is_waiting(), self.now);
        }
    }

    pub(crate) fn dummies(&self) -> usize {
        self.left.iter().filter(|left| left.queued.is_none()).count()
    }
}

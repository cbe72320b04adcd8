//! A queue that drops by CoDel (RFC 8289), so that a slow stream does not cost seconds of delay.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;

/// Delay that a standing queue may have (RFC 8289, section 4.3).
const TARGET: Duration = Duration::from_millis(5);

/// How long the delay must exceed the target before anything is dropped (RFC 8289, section 4.3).
const INTERVAL: Duration = Duration::from_millis(100);

/// A queue with less than this is never considered standing (RFC 8289, section 5.2: one MTU; here
/// one super-packet).
const SMALL: usize = 65_535;

/// Items for which an empty queue may keep memory: nobody pays for a burst for ever.
const KEPT: usize = 32;

/// An item that is so many times shorter than those that wait on average is never the one to drop: that would cost a
/// whole flow of its own much, as a ping beside a transfer, and relieve the queue of nothing.
const THIN: usize = 4;

/// What bookkeeping costs for each queued item, counted towards the bound.
const ITEM_OVERHEAD: usize = 64;

/// Items with their time of arrival. Their number is bounded by whoever adds them.
#[derive(Debug, Default)]
pub(crate) struct Codel {
    items: VecDeque<(Instant, BytesMut)>,
    bytes: usize,
    first_above: Option<Instant>,
    drop_next: Option<Instant>,
    count: u32,
    last_count: u32,
    last_drop_next: Option<Instant>,
    dropped: u64,
}

impl Codel {
    /// What an item counts for in [`Self::bytes`].
    pub(crate) fn cost(item: &[u8]) -> usize {
        item.len() + ITEM_OVERHEAD
    }

    /// Queued bytes, with overhead.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Items dropped so far.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Queued items.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it holds little memory for items.
    pub(crate) fn is_small(&self) -> bool {
        self.items.capacity() <= KEPT
    }

    /// A new queue in the memory of this one.
    pub(crate) fn renewed(mut self) -> Self {
        self.items.clear();
        Self { items: self.items, ..Self::default() }
    }

    /// Whether such an item is far shorter than those that wait.
    pub(crate) fn is_thin(&self, item: &[u8]) -> bool {
        Self::cost(item) * THIN * self.items.len() < self.bytes
    }

    /// Queues an item.
    pub(crate) fn push(&mut self, item: BytesMut, now: Instant) {
        self.bytes += Self::cost(&item);
        self.items.push_back((now, item));
    }

    /// The next item that is worth sending (RFC 8289, section 5.5). What is due to be dropped is the next one that is not
    /// thin.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<BytesMut> {
        let (mut item, mut standing) = self.take(now);
        match self.drop_next {
            Some(_) if !standing => self.leave_dropping(),
            Some(mut at) => {
                while now >= at && self.drop_next.is_some() && !self.spares(item.as_ref()) {
                    self.dropped += u64::from(item.is_some());
                    self.count += 1;
                    (item, standing) = self.take(now);
                    if standing {
                        at = control_law(at, self.count);
                        self.drop_next = Some(at);
                    } else {
                        self.leave_dropping();
                    }
                }
            }
            None if standing && !self.spares(item.as_ref()) => {
                self.dropped += u64::from(item.is_some());
                (item, _) = self.take(now);
                self.enter_dropping(now);
            }
            None => {}
        }
        item
    }

    fn spares(&self, item: Option<&BytesMut>) -> bool {
        item.is_some_and(|item| self.is_thin(item))
    }

    /// Takes the head; tells whether the queue has been standing for an interval.
    fn take(&mut self, now: Instant) -> (Option<BytesMut>, bool) {
        let Some((arrived, item)) = self.items.pop_front() else {
            self.first_above = None;
            return (None, false);
        };
        self.bytes -= Self::cost(&item);
        if now.saturating_duration_since(arrived) < TARGET || self.bytes <= SMALL {
            self.first_above = None;
            return (Some(item), false);
        }
        let since = *self.first_above.get_or_insert(now + INTERVAL);
        (Some(item), now >= since)
    }

    /// Starts again near the rate at which dropping worked a moment ago.
    fn enter_dropping(&mut self, now: Instant) {
        let delta = self.count.saturating_sub(self.last_count);
        let recent = self
            .last_drop_next
            .is_some_and(|last| now.saturating_duration_since(last) < 16 * INTERVAL);
        self.count = if recent && delta > 1 { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = Some(control_law(now, self.count));
    }

    fn leave_dropping(&mut self) {
        self.last_drop_next = self.drop_next.take();
    }
}

fn control_law(at: Instant, count: u32) -> Instant {
    at + INTERVAL.div_f64(f64::from(count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: usize = 1_000;

    #[test]
    fn a_short_burst_passes_whole() {
        let start = Instant::now();
        let mut queue = Codel::default();
        for _ in 0..200 {
            queue.push(BytesMut::zeroed(PACKET), start);
        }
        let passed =
            (0..200u32).filter(|n| queue.pop(start + *n * Duration::from_micros(300)).is_some());
        assert_eq!(passed.count(), 200);
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_standing_queue_is_dropped_faster_and_faster_until_its_delay_is_small() {
        let mut now = Instant::now();
        let mut queue = Codel::default();
        let mut worst = Duration::ZERO;
        for round in 0..10_000 {
            now += Duration::from_millis(1);
            queue.push(BytesMut::zeroed(PACKET), now);
            if round % 10 == 0 {
                queue.push(BytesMut::zeroed(PACKET), now);
            }
            let arrived = queue.items.front().map(|(at, _)| *at);
            assert!(queue.pop(now).is_some());
            if round > 5_000 {
                worst = worst.max(now - arrived.unwrap());
            }
        }
        assert!(queue.dropped() > 500, "{}", queue.dropped());
        assert!(worst < Duration::from_millis(300), "{worst:?}");
    }

    /// How many of all that are queued are dropped, and how many of those of this length, while a tenth more comes than goes:
    /// packets, and one of `thin` bytes behind each tenth.
    fn dropped_with(packet: usize, thin: usize) -> (u64, usize) {
        let (mut now, mut queue) = (Instant::now(), Codel::default());
        let (mut sent, mut arrived) = (0, 0);
        for round in 0..10_000 {
            now += Duration::from_millis(1);
            queue.push(BytesMut::zeroed(packet), now);
            if round % 10 == 0 {
                queue.push(BytesMut::zeroed(thin), now);
                sent += 1;
            }
            arrived += usize::from(queue.pop(now).is_some_and(|item| item.len() == thin));
        }
        arrived += std::iter::from_fn(|| queue.pop(now)).filter(|item| item.len() == thin).count();
        (queue.dropped(), sent - arrived)
    }

    #[test]
    fn thin_items_among_long_ones_are_never_dropped_and_among_their_like_they_are() {
        let (all, thin) = dropped_with(PACKET, 100);
        assert!(all > 500 && thin == 0, "{thin} of {all}");
        let (all, thin) = dropped_with(300, 299);
        assert!(all > 500 && thin > 20, "{thin} of {all}");
    }
}

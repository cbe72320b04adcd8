//! Queues of several flows that share one stream (FQ-CoDel, RFC 8290).
//!
//! Each flow waits behind itself only. Flows take turns by bytes, and one that has just begun goes before
//! those that have stood in the queue: whoever sends little hardly waits. CoDel drops from each queue
//! by itself. A flow that its sender calls background has a small part of a turn. A flow may hold as much as is
//! free (Choudhury and Hahne, "Dynamic queue length thresholds"), so that there is always room for another.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::BytesMut;
use frame_proto::HOP_TAG_LENGTH;

use crate::codel::Codel;
use crate::padding::Filling;

/// Bytes that a flow may send before it is the next one's turn: a few packets, less than most
/// super-packets, so that those pay with turns left out.
const QUANTUM: isize = 4_096;

/// What a flow of the background may send meanwhile: little, but never nothing.
const BACKGROUND_QUANTUM: isize = QUANTUM / 8;

/// Flows come and go with every packet where the stream is faster than they are: the memory of the last
/// ones is used again.
const SPARE: usize = 4;

/// Frames that stay in their order and wait behind each other: of one flow of packets at a client, of
/// one sender at a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// What one stream may have waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) frames: usize,
}

/// The frames of all flows, bounded together.
#[derive(Debug)]
pub(crate) struct FairQueue {
    bounds: Bounds,
    flows: BTreeMap<FlowId, Flow>,
    /// Flows that have begun since their last turn.
    fresh: VecDeque<FlowId>,
    /// All others, the next one first.
    standing: VecDeque<FlowId>,
    /// Queues without a flow.
    spare: Vec<Codel>,
    bytes: usize,
    frames: usize,
    dropped: u64,
    filling: Filling,
}

#[derive(Debug)]
struct Flow {
    queue: Codel,
    /// Bytes that it may still send in this turn; it may go below zero by one frame.
    credit: isize,
    /// What each turn adds.
    quantum: isize,
}

impl FairQueue {
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            flows: BTreeMap::new(),
            fresh: VecDeque::new(),
            standing: VecDeque::new(),
            spare: Vec::new(),
            bytes: 0,
            frames: 0,
            dropped: 0,
            filling: Filling::NONE,
        }
    }

    /// Turns are counted in bytes as the stream sees them: this is how frames are filled up.
    pub(crate) const fn set_filling(&mut self, filling: Filling) {
        self.filling = filling;
    }

    /// Queued bytes, with overhead.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames dropped so far.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Queued frames.
    pub(crate) const fn len(&self) -> usize {
        self.frames
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Queues a frame, or drops it if its flow holds too much already: as much as is free, and twice that before a thin
    /// frame is dropped.
    pub(crate) fn push(&mut self, id: FlowId, frame: BytesMut, now: Instant) {
        let queue = self.flows.get(&id).map(|flow| &flow.queue);
        let is_thin = queue.is_some_and(|queue| queue.is_thin(&frame));
        let held = queue.map_or(0, Codel::bytes);
        let room = (self.bounds.bytes - self.bytes) * if is_thin { 2 } else { 1 };
        if held + Codel::cost(&frame) > room || self.frames == self.bounds.frames {
            self.dropped += 1;
            return;
        }
        self.bytes += Codel::cost(&frame);
        self.frames += 1;
        let flow = self.flows.entry(id).or_insert_with(|| {
            let (turns, quantum) = if is_background(&frame) {
                (&mut self.standing, BACKGROUND_QUANTUM)
            } else {
                (&mut self.fresh, QUANTUM)
            };
            turns.push_back(id);
            Flow { queue: self.spare.pop().unwrap_or_default(), credit: quantum, quantum }
        });
        flow.queue.push(frame, now);
    }

    /// The next frame that is worth sending (RFC 8290, section 4.2).
    pub(crate) fn pop(&mut self, now: Instant) -> Option<BytesMut> {
        loop {
            let is_fresh = !self.fresh.is_empty();
            let turns = if is_fresh { &mut self.fresh } else { &mut self.standing };
            let id = turns.pop_front()?;
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            if flow.credit <= 0 {
                let is_alone = self.fresh.is_empty() && self.standing.is_empty();
                // Nobody waits who could be paid with turns left out.
                flow.credit = if is_alone { flow.quantum } else { flow.credit + flow.quantum };
                self.standing.push_back(id);
                continue;
            }
            let before = (flow.queue.bytes(), flow.queue.len(), flow.queue.dropped());
            let frame = flow.queue.pop(now);
            self.bytes -= before.0 - flow.queue.bytes();
            self.frames -= before.1 - flow.queue.len();
            self.dropped += flow.queue.dropped() - before.2;
            match frame {
                Some(frame) => {
                    let length = self.filling.apply(frame.len() + HOP_TAG_LENGTH) - HOP_TAG_LENGTH;
                    flow.credit -= isize::try_from(length).unwrap_or(isize::MAX);
                    turns.push_front(id);
                    return Some(frame);
                }
                // It is forgotten at its next turn only: else it would go first for ever.
                None if is_fresh => self.standing.push_back(id),
                None => self.forget(id),
            }
        }
    }

    /// Forgets a flow of which nothing waits.
    fn forget(&mut self, id: FlowId) {
        let Some(Flow { queue, .. }) = self.flows.remove(&id) else { return };
        if self.spare.len() < SPARE && queue.is_small() {
            self.spare.push(queue.renewed());
        }
    }
}

fn is_background(frame: &[u8]) -> bool {
    frame_proto::parse(frame).is_ok_and(|header| header.is_background())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use frame_proto::{FLAG_BACKGROUND, FrameType, HEADER_LENGTH};
    use identity::DeviceKey;

    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1 << 20, frames: 10_000 };
    const BULK: FlowId = FlowId(1);
    const OTHER: FlowId = FlowId(2);

    fn frame(flow: FlowId, length: usize) -> BytesMut {
        let mut frame = BytesMut::zeroed(length);
        frame[0] = u8::try_from(flow.0).unwrap_or(u8::MAX);
        frame
    }

    fn order(queue: &mut FairQueue, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| queue.pop(now)).map(|frame| frame[0]).collect()
    }

    #[test]
    fn one_flow_keeps_its_order_and_a_part_of_the_room_for_others() {
        let now = Instant::now();
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..100 {
            let mut frame = BytesMut::zeroed(20_000);
            frame[0] = number;
            queue.push(BULK, frame, now);
        }
        assert!(queue.bytes() <= BOUNDS.bytes / 2 && queue.dropped() > 0);
        let (kept, mut other) = (100 - queue.dropped(), frame(OTHER, 20_000));
        other[0] = u8::MAX;
        queue.push(OTHER, other, now);
        let mut numbers = order(&mut queue, now);
        assert!(numbers.contains(&u8::MAX));
        numbers.retain(|number| *number != u8::MAX);
        assert!(numbers.is_sorted() && numbers.len() as u64 == kept);
        assert_eq!((queue.bytes(), queue.is_empty()), (0, true));
    }

    #[test]
    fn a_flow_that_holds_as_much_as_it_may_still_takes_thin_frames_and_others_keep_room() {
        let now = Instant::now();
        let mut queue = FairQueue::new(BOUNDS);
        (0..100).for_each(|_| queue.push(BULK, frame(BULK, 20_000), now));
        let dropped = queue.dropped();
        (0..100).for_each(|_| queue.push(BULK, frame(BULK, 100), now));
        assert_eq!(queue.dropped(), dropped);
        (0..10_000).for_each(|_| queue.push(BULK, frame(BULK, 2_000), now));
        assert!(queue.bytes() <= BOUNDS.bytes * 2 / 3, "{}", queue.bytes());
    }

    #[test]
    fn flows_take_turns_by_bytes_whatever_the_length_of_their_frames() {
        let now = Instant::now();
        let mut queue = FairQueue::new(BOUNDS);
        for _ in 0..6 {
            queue.push(BULK, frame(BULK, 60_000), now);
        }
        for _ in 0..200 {
            queue.push(OTHER, frame(OTHER, 1_200), now);
        }
        let mut sent = [0_usize; 3];
        while sent[1] < 240_000 {
            let frame = queue.pop(now).expect("both have more");
            sent[usize::from(frame[0])] += frame.len();
        }
        assert!(sent[2].abs_diff(sent[1]) <= 70_000, "{sent:?}");
    }

    #[test]
    fn a_flow_that_begins_overtakes_those_that_stand() {
        let now = Instant::now();
        let mut queue = FairQueue::new(BOUNDS);
        for _ in 0..5 {
            queue.push(BULK, frame(BULK, 60_000), now);
        }
        assert_eq!(queue.pop(now).map(|frame| frame[0]), Some(1));
        queue.push(OTHER, frame(OTHER, 100), now);
        assert_eq!(queue.pop(now).map(|frame| frame[0]), Some(2));
        assert_eq!(order(&mut queue, now), [1, 1, 1, 1]);
    }

    #[test]
    fn a_flow_that_stands_is_thinned_out_and_a_thin_one_beside_it_is_not() {
        let mut now = Instant::now();
        let mut queue = FairQueue::new(BOUNDS);
        let mut thin = 0;
        for round in 0..4_000 {
            now += Duration::from_millis(1);
            queue.push(BULK, frame(BULK, 1_500), now);
            if round % 20 == 0 {
                queue.push(BULK, frame(BULK, 1_500), now);
                queue.push(OTHER, frame(OTHER, 100), now);
            }
            let sent = queue.pop(now).expect("more comes than goes");
            thin += u32::from(sent[0] == 2);
        }
        assert!(queue.dropped() > 50, "{}", queue.dropped());
        assert!(thin >= 199, "{thin} of 200");
    }

    #[test]
    fn the_background_has_what_others_leave_and_never_nothing() {
        let now = Instant::now();
        let mut queue = FairQueue::new(BOUNDS);
        let background = || {
            let peer = DeviceKey::from_bytes(&[1; 32]).id();
            let mut frame = BytesMut::zeroed(1_200);
            frame_proto::compose(FrameType::Data, peer, &mut frame).expect("it is long enough");
            frame[1] = FLAG_BACKGROUND;
            frame
        };
        let is_background =
            |frame: &BytesMut| frame[1] == FLAG_BACKGROUND && frame[HEADER_LENGTH] == 0;
        for _ in 0..200 {
            queue.push(BULK, background(), now);
            queue.push(OTHER, frame(OTHER, 1_200), now);
        }
        let first: Vec<_> = (0..100).filter_map(|_| queue.pop(now)).collect();
        let share = first.iter().filter(|frame| is_background(frame)).count();
        assert!((5..=15).contains(&share), "{share} of 100");
        assert_eq!(std::iter::from_fn(|| queue.pop(now)).count(), 300);
    }
}

//! What one side has to send, in the order and at the moment in which the stream takes it.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use frame_proto::{
    FrameType, HEADER_LENGTH, HOP_TAG_LENGTH, HopKey, HopSealer, TAG_LENGTH, compose,
};
use identity::{DeviceId, Padding};
use shaping::{Content, Shaper, Turn};

use crate::bundle::{BACKLOG, OVERHEAD, ROOM};
use crate::fair::{Bounds, FairQueue, FlowId};
use crate::padding::Filling;

/// Everything that waits for one stream.
///
/// Sealing happens when the stream asks for a message, because the hop's counter is implicit and
/// what the queue drops must not be counted.
pub(crate) struct Outbound {
    /// Channel messages as they are, before hop protection begins.
    plain: VecDeque<Vec<u8>>,
    hop: Option<Hop>,
    control: VecDeque<Control>,
    data: FairQueue,
    /// A frame that found no room in the last bundle.
    left: Option<BytesMut>,
    filling: Filling,
    /// Says what leaves when, where the network wishes it.
    shaper: Option<Box<Shaper>>,
    /// Whether the last message that passed a shaper's gate was no data, of which some waited.
    is_data_next: bool,
}

/// Protection of what is sent.
struct Hop {
    sealer: HopSealer,
    /// The other end.
    peer: DeviceId,
}

/// What goes before data.
enum Control {
    Frame(BytesMut),
    /// Send a marker, and seal everything after it with this.
    Switch(HopKey),
}

impl Outbound {
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Self {
            plain: VecDeque::new(),
            hop: None,
            control: VecDeque::new(),
            data: FairQueue::new(bounds),
            left: None,
            filling: Filling::NONE,
            shaper: None,
            is_data_next: false,
        }
    }

    /// Fills messages up as the network wishes.
    pub(crate) const fn set_padding(&mut self, policy: Padding) {
        self.filling.policy = policy;
        self.data.set_filling(self.filling);
    }

    /// The other end passes over padding.
    pub(crate) const fn allow_padding(&mut self) {
        self.filling.is_understood = true;
        self.data.set_filling(self.filling);
    }

    /// Has messages leave when a shaper says it, or as soon as they can.
    pub(crate) fn set_shaper(&mut self, shaper: Option<Shaper>, now: Instant) {
        self.filling.is_shaped = shaper.is_some();
        self.data.set_filling(self.filling);
        self.shaper = shaper.map(Box::new);
        self.tell_waiting(now);
    }

    /// Tells the shaper of what waits and was queued before.
    fn tell_waiting(&mut self, now: Instant) {
        let (is_waiting, frames) =
            (self.is_waiting(), self.data.len() + usize::from(self.left.is_some()));
        if let Some(shaper) = &mut self.shaper {
            (0..frames).for_each(|_| shaper.handle_queued(now));
            shaper.note(is_waiting, now);
        }
    }

    /// Has what is queued leave as soon as it can, as long as before.
    pub(crate) fn release(&mut self) {
        self.shaper = None;
    }

    /// Tells the shaper of a message that has arrived.
    pub(crate) fn handle_received(&mut self, content: Content, now: Instant) {
        let is_waiting = self.is_waiting();
        if let Some(shaper) = &mut self.shaper {
            shaper.handle_received(content, is_waiting, now);
        }
    }

    /// Lets the shaper do what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let is_waiting = self.is_waiting();
        if let Some(shaper) = &mut self.shaper {
            shaper.handle_timeout(is_waiting, now);
        }
    }

    /// When the shaper has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.shaper.as_ref()?.poll_timeout()
    }

    /// How long a message of the channel is to be that is `length` long. Under hop protection that pads.
    pub(crate) fn length_of_plain(&self, length: usize) -> usize {
        if self.hop.is_some() { length } else { self.filling.apply(length) }
    }

    /// Protects everything that is queued from now on.
    pub(crate) fn begin_hop(&mut self, key: &HopKey, peer: DeviceId) {
        self.hop = Some(Hop { sealer: HopSealer::new(key), peer });
    }

    /// Whether hop protection has begun.
    pub(crate) const fn is_protected(&self) -> bool {
        self.hop.is_some()
    }

    /// Changes the hop key after what is queued as control now.
    pub(crate) fn switch_hop(&mut self, key: HopKey) {
        self.control.push_back(Control::Switch(key));
    }

    /// Queues a message of the channel.
    pub(crate) fn push_channel(&mut self, message: Vec<u8>, now: Instant) {
        match &self.hop {
            Some(hop) => {
                let frame = hop.wrap(FrameType::Control, &[message], self.filling);
                self.push_control(frame, now);
            }
            None => self.plain.push_back(message),
        }
    }

    /// Queues what one relay says to another, once hop protection has begun.
    pub(crate) fn push_mesh(&mut self, message: &[u8], now: Instant) {
        if let Some(hop) = &self.hop {
            let frame = hop.wrap(FrameType::Mesh, &[message], self.filling);
            self.push_control(frame, now);
        }
    }

    fn push_control(&mut self, frame: BytesMut, now: Instant) {
        self.control.push_back(Control::Frame(frame));
        if let Some(shaper) = &mut self.shaper {
            shaper.note(true, now);
        }
    }

    /// Queues a frame, which may be dropped.
    pub(crate) fn push_frame(&mut self, flow: FlowId, frame: BytesMut, now: Instant) {
        let dropped = self.data.dropped();
        self.data.push(flow, frame, now);
        if let Some(shaper) = &mut self.shaper
            && self.data.dropped() == dropped
        {
            shaper.handle_queued(now);
        }
    }

    /// Takes over the data that waits for another stream. Only for who has none waiting yet.
    pub(crate) fn take_over(&mut self, other: &mut Self, now: Instant) {
        std::mem::swap(&mut self.data, &mut other.data);
        std::mem::swap(&mut self.left, &mut other.left);
        self.data.set_filling(self.filling);
        other.data.set_filling(other.filling);
        self.tell_waiting(now);
        other.tell_waiting(now);
    }

    /// The next message for the stream.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<BytesMut> {
        if let Some(message) = self.plain.pop_front() {
            return Some(message.as_slice().into());
        }
        if self.shaper.is_some() {
            return self.pop_shaped(now);
        }
        self.pop_queued(now)
    }

    /// The next message, if it is its turn.
    fn pop_shaped(&mut self, now: Instant) -> Option<BytesMut> {
        let is_waiting = self.is_waiting();
        let message = match self.shaper.as_mut()?.take_turn(is_waiting) {
            Turn::Nothing => None,
            Turn::Queued => self.pop_queued(now),
            Turn::Dummy => self.dummy(),
            Turn::QueuedOrDummy => self.pop_bundle(now).or_else(|| self.dummy()),
        };
        let is_waiting = self.is_waiting();
        let shaper = self.shaper.as_mut()?;
        if message.is_some() {
            shaper.handle_sent(is_waiting, now);
        } else {
            shaper.note(is_waiting, now);
        }
        message
    }

    /// The next message that is queued under hop protection, data and all else in turns: a frame with those behind it that
    /// do not make it longer, and more where much waits.
    fn pop_bundle(&mut self, now: Instant) -> Option<BytesMut> {
        let is_data = self.left.is_some() || !self.data.is_empty();
        self.is_data_next = is_data && !self.control.is_empty() && !self.is_data_next;
        if self.is_data_next {
            return self.pop_queued(now);
        }
        let Some(first) = self.pop_frame(now) else { return self.pop_queued(now) };
        let is_much = self.data.bytes() > BACKLOG;
        let own_length = self.filling.apply(first.len() + HOP_TAG_LENGTH);
        let room = if is_much { ROOM } else { own_length.saturating_sub(OVERHEAD) };
        let mut length = first.len();
        let mut frames = vec![first];
        while length < room
            && let Some(next) = self.pop_frame(now)
        {
            length += next.len();
            if length > room {
                self.left = Some(next);
                break;
            }
            frames.push(next);
        }
        let hop = self.hop.as_mut()?;
        let frame = match <[BytesMut; 1]>::try_from(frames) {
            Ok([alone]) => alone,
            Err(frames) => hop.wrap(FrameType::Bundle, &frames, self.filling),
        };
        Some(hop.seal(frame, self.filling))
    }

    fn dummy(&mut self) -> Option<BytesMut> {
        let hop = self.hop.as_mut()?;
        let frame = hop.wrap::<&[u8]>(FrameType::Dummy, &[], self.filling);
        Some(hop.seal(frame, self.filling))
    }

    /// The next message that is queued under hop protection.
    fn pop_queued(&mut self, now: Instant) -> Option<BytesMut> {
        let hop = self.hop.as_mut()?;
        match self.control.pop_front() {
            Some(Control::Frame(frame)) => Some(hop.seal(frame, self.filling)),
            Some(Control::Switch(next)) => {
                let length = self.filling.apply(HEADER_LENGTH + TAG_LENGTH + HOP_TAG_LENGTH);
                Some(hop.sealer.rotate(&next, hop.peer, length).as_slice().into())
            }
            None => {
                let frame = self.pop_frame(now)?;
                Some(self.hop.as_mut()?.seal(frame, self.filling))
            }
        }
    }

    /// The next frame that waits.
    fn pop_frame(&mut self, now: Instant) -> Option<BytesMut> {
        self.left.take().or_else(|| self.data.pop(now))
    }

    /// Whether [`Self::pop`] has something, unless the queue drops it.
    pub(crate) fn has_message(&self) -> bool {
        let is_waiting = self.is_waiting();
        let is_due = match &self.shaper {
            Some(shaper) => shaper.turn(is_waiting) != Turn::Nothing,
            None => is_waiting,
        };
        is_due || !self.plain.is_empty()
    }

    /// Whether something is queued under hop protection.
    fn is_waiting(&self) -> bool {
        !self.control.is_empty() || self.left.is_some() || !self.data.is_empty()
    }

    /// Messages beside data, which are never dropped.
    pub(crate) fn queued_control(&self) -> usize {
        self.plain.len() + self.control.len()
    }

    pub(crate) const fn queued_bytes(&self) -> usize {
        self.data.bytes()
    }

    pub(crate) const fn dropped(&self) -> u64 {
        self.data.dropped()
    }
}

impl Hop {
    /// A frame of this hop around a message in parts, with capacity for the hop tag and padding.
    fn wrap<P: AsRef<[u8]>>(&self, kind: FrameType, parts: &[P], filling: Filling) -> BytesMut {
        let payload: usize = parts.iter().map(|part| part.as_ref().len()).sum();
        let length = HEADER_LENGTH + payload + TAG_LENGTH;
        let mut frame = BytesMut::with_capacity(filling.apply(length + HOP_TAG_LENGTH));
        frame.put_bytes(0, HEADER_LENGTH);
        parts.iter().for_each(|part| frame.put_slice(part.as_ref()));
        frame.put_bytes(0, TAG_LENGTH);
        compose(kind, self.peer, &mut frame).expect("a message of the hop fits a frame");
        frame
    }

    fn seal(&mut self, mut frame: BytesMut, filling: Filling) -> BytesMut {
        frame.resize(filling.apply(frame.len() + HOP_TAG_LENGTH), 0);
        self.sealer.seal(&mut frame).expect("only whole frames are queued");
        frame
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use identity::Shaping;
    use shaping::Plan;
    use shaping::limits::SHORTEST_WAIT;

    use super::*;

    const PEER: DeviceId = DeviceId::from_bytes([1; 32]);
    const BOUNDS: Bounds = Bounds { bytes: 1 << 20, frames: 100 };
    const TICK: Duration = Duration::from_millis(20);

    fn frame(kind: FrameType, length: usize) -> BytesMut {
        let mut frame = BytesMut::zeroed(length);
        compose(kind, PEER, &mut frame).expect("it is long enough");
        frame
    }

    /// The end of a link on which one message leaves at each tick from the next frame on.
    fn shaped_from(mut outbound: Outbound, now: Instant) -> Outbound {
        outbound.begin_hop(&HopKey::from_bytes(&[2; 32]), PEER);
        let plan = Plan::new(&Shaping::Constant).expect("it can be run").expect("it is one");
        outbound.set_shaper(Some(Shaper::new(&plan, [3; 32], now)), now);
        outbound
    }

    /// Lets time pass until a message leaves.
    fn next(outbound: &mut Outbound, now: &mut Instant) -> BytesMut {
        loop {
            if let Some(message) = outbound.pop(*now) {
                return message;
            }
            *now += Duration::from_millis(1);
            outbound.handle_timeout(*now);
        }
    }

    #[test]
    fn what_waited_before_there_was_a_shaper_waits_for_its_turn_too() {
        let now = Instant::now();
        let mut waiting = Outbound::new(BOUNDS);
        waiting.push_frame(FlowId(0), frame(FrameType::Data, 100), now);
        let mut shaped = shaped_from(waiting, now);
        assert!(!shaped.has_message() && shaped.poll_timeout() == Some(now + SHORTEST_WAIT));
        let mut newer = shaped_from(Outbound::new(BOUNDS), now);
        newer.take_over(&mut shaped, now);
        assert!(!newer.has_message() && newer.poll_timeout() == Some(now + SHORTEST_WAIT));
    }

    #[test]
    fn data_has_every_second_turn_however_much_else_there_is_to_say() {
        let mut now = Instant::now();
        let mut outbound = shaped_from(Outbound::new(BOUNDS), now);
        (0..3).for_each(|_| outbound.push_mesh(b"news", now));
        (0..3).for_each(|_| outbound.push_frame(FlowId(0), frame(FrameType::Carried, 1_480), now));
        for waiting in [(2, 3), (2, 2), (1, 2), (1, 1), (0, 1), (0, 0)] {
            next(&mut outbound, &mut now);
            assert_eq!((outbound.queued_control(), outbound.data.len()), waiting);
        }
    }

    #[test]
    fn frames_that_leave_together_make_no_message_longer_than_the_first_is_alone() {
        for kind in [FrameType::Data, FrameType::Carried] {
            // Beyond 1,440 bytes the first frame alone in a bundle would be in the next bucket.
            for length in [100, 700, 1_440, 1_441, 1_480, 1_520, 1_521, 4_050] {
                let mut now = Instant::now();
                let mut outbound = shaped_from(Outbound::new(BOUNDS), now);
                outbound.push_frame(FlowId(0), frame(kind, 100), now);
                next(&mut outbound, &mut now);
                now += TICK / 2;
                (0..2).for_each(|_| outbound.push_frame(FlowId(1), frame(kind, length), now));
                let message = next(&mut outbound, &mut now);
                let alone = outbound.filling.apply(length + HOP_TAG_LENGTH);
                assert_eq!(message.len(), alone, "{kind:?} of {length}");
            }
        }
    }
}

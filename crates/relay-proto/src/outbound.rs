//! What one side has to send, in the order and at the moment in which the stream takes it.

use std::collections::VecDeque;
use std::time::Instant;

use crate::codel::Codel;
use crate::hop::HopSealer;
use crate::wire;

/// Everything that waits for one stream.
///
/// Sealing happens when the stream asks for a message, because the hop's counter is implicit and
/// what the queue drops must not be counted.
pub(crate) struct Outbound {
    /// Channel messages as they are, before hop protection begins.
    plain: VecDeque<Vec<u8>>,
    sealer: Option<HopSealer>,
    control: VecDeque<Control>,
    data: Codel,
}

/// What goes before data.
enum Control {
    Frame(Vec<u8>),
    /// Seal a marker, and everything after it with this.
    Switch(HopSealer),
}

impl Outbound {
    pub(crate) const fn with_capacity(capacity: usize) -> Self {
        Self {
            plain: VecDeque::new(),
            sealer: None,
            control: VecDeque::new(),
            data: Codel::with_capacity(capacity),
        }
    }

    /// Protects everything that is queued from now on.
    pub(crate) fn begin_hop(&mut self, key: &[u8; 32]) {
        self.sealer = Some(HopSealer::new(key));
    }

    /// Whether hop protection has begun.
    pub(crate) const fn is_protected(&self) -> bool {
        self.sealer.is_some()
    }

    /// Changes the hop key after what is queued as control now.
    pub(crate) fn switch_hop(&mut self, key: &[u8; 32]) {
        self.control.push_back(Control::Switch(HopSealer::new(key)));
    }

    /// Queues a message of the channel.
    pub(crate) fn push_channel(&mut self, message: Vec<u8>) {
        if self.is_protected() {
            self.control.push_back(Control::Frame(wire::control(&message)));
        } else {
            self.plain.push_back(message);
        }
    }

    /// Queues a frame, which may be dropped.
    pub(crate) fn push_frame(&mut self, frame: Vec<u8>, now: Instant) {
        self.data.push(frame, now);
    }

    /// The next message for the stream.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(message) = self.plain.pop_front() {
            return Some(message);
        }
        let sealer = self.sealer.as_mut()?;
        match self.control.pop_front() {
            Some(Control::Frame(frame)) => sealer.seal(frame),
            Some(Control::Switch(next)) => {
                let marker = sealer.seal(wire::marker());
                self.sealer = Some(next);
                marker
            }
            None => self.data.pop(now).and_then(|frame| sealer.seal(frame)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.control.is_empty() && self.data.is_empty()
    }

    pub(crate) const fn queued_bytes(&self) -> usize {
        self.data.bytes()
    }

    pub(crate) const fn dropped(&self) -> u64 {
        self.data.dropped()
    }
}

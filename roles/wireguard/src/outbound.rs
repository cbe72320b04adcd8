use std::ops::Range;
use std::time::Instant;

use packet::Segments;
use wireguard_proto::{NotUsable, Session, TRANSPORT_OVERHEAD, padded_len};

use crate::remote::Remote;

/// Segments of one send: what the kernel takes at most (UDP_MAX_SEGMENTS).
const MAX_SEGMENTS: usize = 64;
/// Bytes of one send: below the longest UDP payload over IPv4 and IPv6.
const MAX_SEND: usize = 65_000;
/// Sealed bytes after which a batch is sent before more packets are read.
const ENOUGH: usize = 60_000;

/// Sealed messages back to back, in the order and grouping in which the kernel sends them.
#[derive(Debug)]
pub(crate) struct Outbound {
    buffer: Vec<u8>,
    used: usize,
    sends: Vec<Send>,
}

/// One send: equal messages, of which the last may be shorter.
#[derive(Debug)]
pub(crate) struct Send {
    pub(crate) remote: Remote,
    pub(crate) segment: usize,
    range: Range<usize>,
    count: usize,
}

impl Outbound {
    pub(crate) fn new() -> Self {
        Self { buffer: Vec::new(), used: 0, sends: Vec::new() }
    }

    /// Seals all parts of a packet; true when the peer's machine wants to look.
    pub(crate) fn push(
        &mut self,
        (session, remote): (&Session, Remote),
        parts: &Segments<'_>,
        mtu: usize,
        now: Instant,
    ) -> Result<bool, NotUsable> {
        let count = u32::try_from(parts.count()).map_err(|_| NotUsable::Ended)?;
        let mut bytes = 0;
        for (index, counter) in session.reserve(count, now)?.enumerate() {
            let len = parts.length(index);
            let padded = padded_len(len, mtu);
            let message = self.extend(padded + TRANSPORT_OVERHEAD, remote);
            parts.write(index, &mut message[16..16 + len]);
            message[16 + len..16 + padded].fill(0);
            session.seal(counter, message);
            bytes += message.len();
        }
        Ok(session.record_sent(u64::try_from(bytes).unwrap_or(u64::MAX), true, now))
    }

    /// Adds a message that is ready to go.
    pub(crate) fn push_message(&mut self, remote: Remote, message: &[u8]) {
        self.extend(message.len(), remote).copy_from_slice(message);
    }

    /// Whether it is time to send.
    pub(crate) fn is_enough(&self) -> bool {
        self.used >= ENOUGH
    }

    /// All sends in order.
    pub(crate) fn sends(&self) -> impl Iterator<Item = (&Send, &[u8])> {
        self.sends.iter().map(|send| (send, &self.buffer[send.range.clone()]))
    }

    /// Forgets what was sent.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.sends.clear();
    }

    /// Room for a message of `len` bytes, in the last send if it continues that.
    fn extend(&mut self, len: usize, remote: Remote) -> &mut [u8] {
        let start = self.used;
        self.used += len;
        if self.buffer.len() < self.used {
            self.buffer.resize(self.used.next_multiple_of(1 << 16), 0);
        }
        match self.sends.last_mut().filter(|send| send.takes(len, &remote)) {
            Some(send) => {
                send.range.end = self.used;
                send.count += 1;
            }
            None => {
                let range = start..self.used;
                self.sends.push(Send { remote, segment: len, range, count: 1 });
            }
        }
        &mut self.buffer[start..self.used]
    }
}

impl Send {
    /// Whether a message of `len` bytes can follow: nothing may follow a shorter one.
    fn takes(&self, len: usize, remote: &Remote) -> bool {
        self.remote == *remote
            && len <= self.segment
            && self.range.len() == self.count * self.segment
            && self.count < MAX_SEGMENTS
            && self.range.len() + len <= MAX_SEND
    }
}

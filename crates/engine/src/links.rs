//! One way for frames, to a relay or straight to a peer: the connection in use, and the one that takes its place
//! where connections are cut when they reach some age.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use noise_channel::{ClockOffset, Lifetime};
use relay_proto::{FlowId, RelayClient};

use crate::io::StreamId;

/// The connection that was in use before is closed after this, should the relay not do so.
const LINGER: Duration = Duration::from_secs(5);

/// A connection, and what speaks over it once it is open.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) stream: StreamId,
    pub(crate) nonce: [u8; 16],
    pub(crate) client: Option<RelayClient>,
    pub(crate) opened_at: Option<Instant>,
    /// Since when frames go over it.
    pub(crate) since: Option<Instant>,
}

impl Line {
    pub(crate) const fn new(stream: StreamId, nonce: [u8; 16]) -> Self {
        Self { stream, nonce, client: None, opened_at: None, since: None }
    }

    fn is_attached(&self) -> bool {
        self.client.as_ref().is_some_and(RelayClient::is_attached)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Link {
    /// What the relay's clock asks for. It stays here: a relay is trusted with no time but its own.
    pub(crate) clock_offset: Option<ClockOffset>,
    pub(crate) line: Option<Line>,
    /// Takes the place of `line` when it is attached.
    pub(crate) next: Option<Line>,
    /// Was in use before. Brings what is still in flight, until the relay closes it.
    last: Option<Line>,
    last_ends: Option<Instant>,
    /// Says when to dial `next`, and how often that was in vain.
    pub(crate) lifetime: Lifetime,
    pub(crate) failures: u32,
    pub(crate) retry_at: Option<Instant>,
    pub(crate) waiting: VecDeque<(FlowId, BytesMut)>,
    /// Until when it stays although this device is not at home there.
    pub(crate) kept_until: Option<Instant>,
}

impl Link {
    /// A link that is to be dialled then.
    pub(crate) fn dialled_at(retry_at: Instant) -> Self {
        Self { retry_at: Some(retry_at), ..Self::default() }
    }

    /// It stays at least until then.
    pub(crate) fn keep_until(&mut self, until: Instant) {
        self.kept_until = Some(self.kept_until.map_or(until, |before| before.max(until)));
    }

    /// How long a message and its answer took over a connection that is attached just now: the handshake is a message and its
    /// answer, and so is what attaches.
    pub(crate) fn round_trip(&mut self, stream: StreamId, now: Instant) -> Option<Duration> {
        let opened = self.line_mut(stream)?.opened_at?;
        Some(now.saturating_duration_since(opened) / 2)
    }

    /// Whether frames go over it.
    pub(crate) fn is_attached(&self) -> bool {
        self.line.as_ref().is_some_and(Line::is_attached)
    }

    /// Whether it is open at least.
    pub(crate) fn has_client(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.client.is_some())
    }

    pub(crate) fn line_mut(&mut self, stream: StreamId) -> Option<&mut Line> {
        self.lines_mut().find(|line| line.stream == stream)
    }

    /// The connection in use, and those before and after it.
    pub(crate) fn lines_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        [&mut self.line, &mut self.next, &mut self.last].into_iter().flatten()
    }

    pub(crate) fn is_in_use(&self, stream: StreamId) -> bool {
        self.line.as_ref().is_some_and(|line| line.stream == stream)
    }

    /// Frames go over this connection from now on. What waits for the one before waits for it instead. Returns a
    /// connection that is not needed any more.
    pub(crate) fn handle_attached(&mut self, stream: StreamId, now: Instant) -> Option<StreamId> {
        let is_next = self.next.as_ref().is_some_and(|next| next.stream == stream);
        let mut unneeded = None;
        if is_next {
            let mut before = std::mem::replace(&mut self.line, self.next.take());
            let clients = (&mut self.line, &mut before);
            if let (Some(Line { client: Some(new), .. }), Some(Line { client: Some(old), .. })) =
                clients
            {
                new.take_over(old, now);
            }
            unneeded = std::mem::replace(&mut self.last, before).map(|line| line.stream);
            self.last_ends = Some(now + LINGER);
        }
        if let Some(line) = &mut self.line {
            line.since = Some(now);
        }
        self.lifetime.handle_begun(now);
        unneeded
    }

    /// Somebody else ended a connection: if it was in use, its age may be a rule.
    pub(crate) fn handle_cut(&mut self, stream: StreamId, now: Instant) {
        let line = self.line.as_ref().filter(|line| line.stream == stream);
        if let Some(since) = line.and_then(|line| line.since) {
            self.lifetime.handle_cut(now.saturating_duration_since(since));
        }
    }

    /// A connection is gone. Answers whether frames have no way now.
    pub(crate) fn handle_closed(&mut self, stream: StreamId, now: Instant) -> bool {
        if self.is_in_use(stream) {
            let Some(mut next) = self.next.take_if(|next| next.client.is_some()) else {
                return true;
            };
            let old = self.line.as_mut().and_then(|line| line.client.as_mut());
            if let (Some(new), Some(old)) = (&mut next.client, old) {
                new.take_over(old, now);
            }
            self.line = Some(next);
            return false;
        }
        if self.next.take_if(|next| next.stream == stream).is_some() {
            let since = self.line.as_ref().and_then(|line| line.since);
            self.lifetime.handle_failed(since.unwrap_or(now), now);
        }
        self.last.take_if(|last| last.stream == stream);
        false
    }

    /// The connection that was in use before, if it should have ended by now.
    pub(crate) fn take_overdue(&mut self, now: Instant) -> Option<StreamId> {
        self.last_ends.take_if(|at| *at <= now)?;
        self.last.take().map(|last| last.stream)
    }

    /// When the next connection is to be dialled, or the last one to be closed.
    pub(crate) fn poll_renewal(&self) -> Option<Instant> {
        [self.lifetime.replace_at(), self.last_ends].into_iter().flatten().min()
    }

    /// Ends all its connections.
    pub(crate) fn take_streams(&mut self) -> impl Iterator<Item = StreamId> {
        let lines = [self.line.take(), self.next.take(), self.last.take()];
        lines.into_iter().flatten().map(|line| line.stream)
    }
}

//! Datagrams of one sender, opened in one go.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use arrayvec::ArrayVec;
use path::Alias;
use relay_proto::{HEAD_LEN, Head};
use wireguard_proto::{
    MessageKind, OpenError, Session, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, receiver_index,
};

use super::{DataPlane, Gate, Inbound, Notice, Onward, PeerPlane};

/// Messages that are decrypted before one look at the replay window: what the system joins at most.
const RUN: usize = 64;

impl DataPlane {
    /// Opens datagrams of one sender in place, checks where their packets come from and go to, and gives
    /// `sink` what comes of each: nothing of a keepalive. What goes over circuits is opened, or passed on, the same.
    ///
    /// Of up to 64 messages of one session that follow each other, one lock tells which are replays.
    /// Packets stay in order.
    ///
    /// Nothing comes of what claims to come from an address that only this device makes ([`Alias`]).
    pub fn inbound<'a>(
        &self,
        sender: SocketAddr,
        datagrams: impl IntoIterator<Item = &'a mut [u8]>,
        now: Instant,
        sink: impl FnMut(Inbound<'a>),
    ) {
        if Alias::of(sender).is_none() {
            self.open(sender, datagrams, now, sink);
        }
    }

    /// The same for what came through an allocation, too.
    pub(crate) fn open<'a>(
        &self,
        sender: SocketAddr,
        datagrams: impl IntoIterator<Item = &'a mut [u8]>,
        now: Instant,
        mut sink: impl FnMut(Inbound<'a>),
    ) {
        let mut run: Option<Run<'_>> = None;
        let mut opened = Opened::new();
        for datagram in datagrams {
            let (from, start) = match self.onward(sender, datagram) {
                None => (sender, 0),
                Some(Onward::Here(way)) => (way, HEAD_LEN),
                Some(Onward::There(to)) => {
                    Head::descend(datagram);
                    sink(Inbound::Passed(to, datagram));
                    continue;
                }
            };
            let message = &datagram[start..];
            let index = match MessageKind::of(message) {
                Some(MessageKind::Transport) => receiver_index(message),
                Some(_) | None => None,
            };
            let goes_on = run.as_ref().is_some_and(|run| run.takes(index, from));
            if !goes_on || opened.is_full() {
                self.finish(run, &mut opened, now, &mut sink);
                run = index.and_then(|index| self.run(index, from));
            }
            match &run {
                None => sink(Inbound::ToEngine(datagram)),
                Some(run) => {
                    let message = &mut datagram[start..];
                    match run.session.decrypt(message, now) {
                        Ok(counter) => opened.push((counter, message)),
                        Err(error) => run.refuse(error, 1, &mut sink),
                    }
                }
            }
        }
        self.finish(run, &mut opened, now, &mut sink);
    }

    /// What becomes of a datagram if it goes over a circuit.
    fn onward(&self, from: SocketAddr, datagram: &[u8]) -> Option<Onward> {
        let head = Head::of(datagram)?;
        self.circuits.get(&(from, head)).copied()
    }

    /// A datagram for the engine without what stood before it on a circuit, and where it came from.
    pub(crate) fn arrival<'a>(
        &self,
        from: SocketAddr,
        datagram: &'a mut [u8],
    ) -> (SocketAddr, &'a mut [u8]) {
        match self.onward(from, datagram) {
            Some(Onward::Here(way)) => (way, &mut datagram[HEAD_LEN..]),
            Some(Onward::There(_)) | None => (from, datagram),
        }
    }

    fn run(&self, index: u32, from: SocketAddr) -> Option<Run<'_>> {
        self.sessions.get(&index).map(|(session, peer)| Run { session, peer, from })
    }

    /// Delivers what a run has opened, and leaves nothing of it.
    fn finish<'a>(
        &self,
        run: Option<Run<'_>>,
        opened: &mut Opened<'a>,
        now: Instant,
        sink: &mut impl FnMut(Inbound<'a>),
    ) {
        let Some(run) = run else { return };
        run.refuse_replays(opened, sink);
        if opened.is_empty() {
            return;
        }
        if let Some(notice) = run.record(opened, now) {
            sink(Inbound::Notice(notice));
        }
        let mut gate = Gate::new(&self.directory, run.peer.place);
        let (mut packets, mut bytes) = (0, 0);
        for (_, message) in opened.drain(..) {
            let len = message.len() - TRANSPORT_OVERHEAD;
            let payload = &mut message[TRANSPORT_HEADER_LEN..][..len];
            if payload.is_empty() {
                continue;
            }
            match gate.check(payload) {
                Ok(len) => {
                    (packets, bytes) = (packets + 1, bytes + len as u64);
                    sink(Inbound::Packet(&mut payload[..len]));
                }
                Err(reason) => {
                    run.peer.counters.count_undeliverable(reason);
                    sink(Inbound::Dropped(reason));
                }
            }
        }
        run.peer.counters.count_received(packets, bytes);
    }
}

/// Whose messages follow each other.
struct Run<'p> {
    session: &'p Session,
    peer: &'p PeerPlane,
    /// Where they come from.
    from: SocketAddr,
}

/// The authentic ones among them, with their counters.
type Opened<'a> = ArrayVec<(u64, &'a mut [u8]), RUN>;

impl Run<'_> {
    fn takes(&self, index: Option<u32>, from: SocketAddr) -> bool {
        index == Some(self.session.local_index()) && from == self.from
    }

    fn refuse<'a>(&self, error: OpenError, count: u64, sink: &mut impl FnMut(Inbound<'a>)) {
        self.peer.counters.count_refused(error, count);
        for _ in 0..count {
            sink(Inbound::Dropped(error.into()));
        }
    }

    /// Leaves what was not received before.
    fn refuse_replays<'a>(&self, opened: &mut Opened<'a>, sink: &mut impl FnMut(Inbound<'a>)) {
        let all = opened.len();
        let mut window = self.session.replay_window();
        opened.retain(|(counter, _)| window.accept(*counter));
        drop(window);
        self.refuse(OpenError::Replayed, (all - opened.len()) as u64, sink);
    }

    /// Notes that messages arrived; answers what the engine must be told of it.
    fn record(&self, opened: &[(u64, &mut [u8])], now: Instant) -> Option<Notice> {
        let bytes = opened.iter().map(|(_, message)| message.len() as u64).sum();
        let data = opened.iter().any(|(_, message)| message.len() > TRANSPORT_OVERHEAD);
        let wake = self.session.record_received(bytes, data, now);
        self.peer.counters.received_straight.fetch_add(opened.len() as u64, Relaxed);
        let moved = self.peer.direct.as_ref().is_none_or(|(_, route)| route.path != self.from);
        if data && !moved {
            self.peer.counters.received_on_chosen.fetch_add(opened.len() as u64, Relaxed);
        }
        let from = moved.then_some(self.from);
        (wake || moved).then_some(Notice { peer: self.peer.key, from, data })
    }
}

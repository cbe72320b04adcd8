//! Sockets by which a peer finds this device behind a translator that gives ports at random.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::{Duration, Instant};

use identity::DeviceId;
use path::{Alias, Path, SOCKETS, SOCKETS_KEPT};

use crate::context::Context;
use crate::engine::Engine;
use crate::io::SocketId;

/// Sockets that peers were found by and go on with.
const MAX_KEPT: usize = 64;
/// Over such a one nothing has come for so long before it is closed: translators remember for longer than peers are out of reach
/// mostly.
const LOST_KEPT: Duration = Duration::from_secs(30);

/// The attempt that is on, and what came of others.
#[derive(Debug, Default)]
pub(crate) struct Scatter {
    attempt: Option<Attempt>,
    /// Sockets that lead to peers, by number.
    kept: BTreeMap<u32, Kept>,
}

#[derive(Debug)]
struct Kept {
    lead: Lead,
    /// Since when the peer has not answered.
    lost: Option<Instant>,
}

/// To whom sockets lead.
#[derive(Clone, Copy, Debug)]
struct Lead {
    peer: DeviceId,
    to: SocketAddrV4,
}

/// In a network one attempt is on at a time, so that a device opens no more sockets for it than that takes.
#[derive(Debug)]
struct Attempt {
    lead: Lead,
    sockets: Range<u32>,
    until: Instant,
}

impl Scatter {
    /// To whom a socket leads, if it is one of these.
    fn lead(&self, socket: u32) -> Option<Lead> {
        let tried = self.attempt.as_ref().filter(|one| one.sockets.contains(&socket));
        tried.map(|one| one.lead).or_else(|| self.kept.get(&socket).map(|kept| kept.lead))
    }
}

impl Engine {
    /// A peer may find this device by sockets that lead there.
    pub(crate) fn open_sockets(&mut self, peer: DeviceId, to: SocketAddrV4, cx: &mut Context<'_>) {
        let now = cx.instant();
        let is_busy = self.scatter.attempt.is_some() || self.scatter.kept.len() >= MAX_KEPT;
        let Some(found) = self.peers.touch(peer) else { return };
        if is_busy {
            return found.agent.handle_no_sockets(now);
        }
        let sockets = self.sockets.open_many(SOCKETS, to.into());
        found.agent.handle_sockets(sockets.clone(), to, cx.rng, now);
        let (lead, until) = (Lead { peer, to }, now + SOCKETS_KEPT);
        self.budget.handle_scattered(Some(until));
        self.scatter.attempt = Some(Attempt { lead, sockets, until });
    }

    /// Takes a datagram that came to one of the sockets; false if it is none of them.
    pub(crate) fn take_scattered(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(Lead { to, .. }) = self.scatter.lead(socket.0) else { return false };
        self.take_datagram(Alias::Socket(socket.0, to).into(), &mut bytes.to_vec(), cx);
        true
    }

    /// A socket has failed.
    pub(crate) fn handle_scattered_closed(&mut self, socket: SocketId, now: Instant) {
        if let Some(kept) = self.scatter.kept.remove(&socket.0) {
            self.tell_lost(kept.lead.peer, now);
        }
    }

    /// Closes sockets by which nobody was found, or is any more.
    pub(crate) fn tend_sockets(&mut self, now: Instant) {
        if let Some(attempt) = self.scatter.attempt.take() {
            match self.hit(&attempt) {
                None if attempt.until > now => self.scatter.attempt = Some(attempt),
                hit => self.end_attempt(attempt, hit, now),
            }
        }
        let mut kept = std::mem::take(&mut self.scatter.kept);
        for (number, Kept { lead, lost }) in &mut kept {
            *lost = if self.leads(*lead, *number) { None } else { lost.or(Some(now)) };
        }
        let is_over = |kept: &Kept| kept.lost.is_some_and(|since| now >= since + LOST_KEPT);
        for (number, over) in kept.extract_if(.., |_, kept| is_over(kept)) {
            self.sockets.close(SocketId(number));
            self.tell_lost(over.lead.peer, now);
        }
        self.scatter.kept = kept;
    }

    fn tell_lost(&mut self, peer: DeviceId, now: Instant) {
        if let Some(peer) = self.peers.touch(peer) {
            peer.agent.handle_socket_lost(now);
        }
    }

    /// The socket by which the peer was found: the one in use, if it was by several.
    fn hit(&self, attempt: &Attempt) -> Option<u32> {
        let chosen = self.peers.get(attempt.lead.peer)?.agent.chosen();
        let is_chosen =
            |number: &u32| chosen == Path::Direct(Alias::Socket(*number, attempt.lead.to).into());
        let mut found = attempt.sockets.clone().filter(|number| self.leads(attempt.lead, *number));
        found.clone().find(is_chosen).or_else(|| found.next())
    }

    /// Closes all but the one by which the peer was found.
    fn end_attempt(&mut self, attempt: Attempt, hit: Option<u32>, now: Instant) {
        let Attempt { lead, sockets, .. } = attempt;
        self.budget.handle_scattered(None);
        let others = sockets.filter(|number| Some(*number) != hit);
        others.for_each(|number| self.sockets.close(SocketId(number)));
        self.scatter.kept.extend(hit.map(|number| (number, Kept { lead, lost: None })));
        if let Some(peer) = self.peers.touch(lead.peer) {
            peer.agent.handle_sockets_closed(hit, now);
        }
    }

    /// Closes all of them: in another network none leads anywhere.
    pub(crate) fn close_sockets(&mut self, now: Instant) {
        if let Some(attempt) = self.scatter.attempt.take() {
            self.end_attempt(attempt, None, now);
        }
        for (number, Kept { lead, .. }) in std::mem::take(&mut self.scatter.kept) {
            self.sockets.close(SocketId(number));
            if let Some(peer) = self.peers.touch(lead.peer) {
                peer.agent.handle_sockets_closed(None, now);
            }
        }
    }

    /// Whether a peer answers over a socket.
    fn leads(&self, Lead { peer, to }: Lead, number: u32) -> bool {
        let peer = self.peers.get(peer);
        peer.is_some_and(|peer| peer.agent.is_proven(Alias::Socket(number, to).into()))
    }
}

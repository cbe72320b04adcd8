//! Sockets by which a peer finds this device behind a translator that gives ports at random.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::Instant;

use identity::{DeviceId, Transport};
use path::{Alias, SOCKETS, SOCKETS_KEPT};

use crate::context::Context;
use crate::engine::Engine;
use crate::io::SocketId;

/// Sockets that peers were found by and go on with.
const MAX_KEPT: usize = 64;

/// The attempt that is on, and what came of others.
#[derive(Debug, Default)]
pub(crate) struct Scatter {
    attempt: Option<Attempt>,
    /// Sockets that lead to peers, by number.
    kept: BTreeMap<u32, Lead>,
}

/// To whom sockets lead.
#[derive(Clone, Copy, Debug)]
struct Lead {
    peer: DeviceId,
    to: SocketAddrV4,
}

/// One attempt at a time is on, so that a device opens no more sockets than that takes.
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
        tried.map(|one| one.lead).or_else(|| self.kept.get(&socket).copied())
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
        let opened = (0..SOCKETS).map(|_| self.sockets.open(to.into(), Transport::Udp).0);
        let Some((first, last)) =
            opened.map(|number| (number, number)).reduce(|all, one| (all.0, one.1))
        else {
            return;
        };
        let sockets = first..last + 1;
        found.agent.handle_sockets(sockets.clone(), to, cx.rng, now);
        let lead = Lead { peer, to };
        self.scatter.attempt = Some(Attempt { lead, sockets, until: now + SOCKETS_KEPT });
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

    /// Closes sockets by which nobody was found, or is any more.
    pub(crate) fn tend_sockets(&mut self, now: Instant) {
        if let Some(attempt) = self.scatter.attempt.take() {
            let is_found = |number: &u32| self.leads(attempt.lead, *number);
            let found = attempt.sockets.clone().find(is_found);
            if found.is_none() && attempt.until > now {
                self.scatter.attempt = Some(attempt);
            } else {
                let others = attempt.sockets.filter(|number| Some(*number) != found);
                others.for_each(|number| self.sockets.close(SocketId(number)));
                self.scatter.kept.extend(found.map(|number| (number, attempt.lead)));
                if let Some(peer) = self.peers.touch(attempt.lead.peer) {
                    peer.agent.handle_sockets_closed(found, now);
                }
            }
        }
        let kept = std::mem::take(&mut self.scatter.kept);
        for (number, lead) in kept {
            if self.leads(lead, number) {
                self.scatter.kept.insert(number, lead);
            } else {
                self.close_socket(number, lead.peer, now);
            }
        }
    }

    /// Closes all of them: in another network none leads anywhere.
    pub(crate) fn close_sockets(&mut self, now: Instant) {
        let attempt = self.scatter.attempt.take().into_iter();
        let tried = attempt.flat_map(|one| one.sockets.map(move |number| (number, one.lead)));
        for (number, lead) in tried.chain(std::mem::take(&mut self.scatter.kept)) {
            self.close_socket(number, lead.peer, now);
        }
    }

    fn close_socket(&mut self, number: u32, peer: DeviceId, now: Instant) {
        self.sockets.close(SocketId(number));
        if let Some(peer) = self.peers.touch(peer) {
            peer.agent.handle_sockets_closed(None, now);
        }
    }

    /// Whether a peer answers over a socket.
    fn leads(&self, Lead { peer, to }: Lead, number: u32) -> bool {
        let peer = self.peers.get(peer);
        peer.is_some_and(|peer| peer.agent.is_proven(Alias::Socket(number, to).into()))
    }
}

//! Finds out whom the translator or firewall in front of this device lets in.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::candidate::canonical;
use crate::stun::{self, Reply};
use crate::survey::FreshSocket;

/// Whom a translator or firewall lets answer (RFC 4787 section 5, RFC 6092), as far as a server with one address and two
/// ports can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filtering {
    /// Any port of a host that was sent to, and perhaps everybody; or nothing is in front.
    AddressDependentAtMost,
    /// Only the port that was sent to.
    AddressAndPortDependent,
}

impl fmt::Display for Filtering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressDependentAtMost => "address-dependent at most",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        })
    }
}

/// After the first answer of a server, so that probes to peers, which somebody waits for, have made their mappings.
const SETTLED: Duration = Duration::from_secs(5);
/// From one attempt to the next: as long as a new socket has its answers looked at.
const PATIENCE: Duration = Duration::from_secs(1);
/// Questions that one server gets: of four in a row to get lost is no accident ...
const ATTEMPTS: u32 = 4;
/// ... if so many that have nothing to be let in for were answered.
const LEAST_HEARD: u32 = 2;
/// Where too much got lost it is tried again after this.
const RETRY: Duration = Duration::from_secs(60);

/// Asks servers of one family, from new sockets, to answer from their other port (RFC 5780 section 4.4). The socket that stays has sent to
/// both ports of all servers, so it says nothing.
#[derive(Debug, Default)]
pub(crate) struct FilterTest {
    found: Option<Filtering>,
    next: Option<Instant>,
    attempt: Option<Attempt>,
    /// Servers that have no other port.
    single: BTreeSet<SocketAddr>,
    sockets: VecDeque<FreshSocket>,
}

#[derive(Debug)]
struct Attempt {
    server: SocketAddr,
    number: u32,
    /// Plain questions that were answered.
    heard: u32,
    /// The latest plain question, until it is answered.
    plain: Option<[u8; 12]>,
    changed: [u8; 12],
}

impl FilterTest {
    /// A server answers: it can be asked, unless that was done.
    pub(crate) fn handle_answering(&mut self, now: Instant) {
        if self.found.is_none() && self.next.is_none() {
            self.next = Some(now + SETTLED);
        }
    }

    /// Something else may be in front now.
    pub(crate) fn handle_network_change(&mut self) {
        *self = Self::default();
    }

    /// Asks what is due, of the first of these that answers from two ports.
    pub(crate) fn handle_timeout(
        &mut self,
        servers: impl Iterator<Item = SocketAddr>,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let last = self.attempt.take();
        if let Some(attempt) = last.as_ref().filter(|attempt| attempt.number == ATTEMPTS) {
            let is_certain = attempt.heard >= LEAST_HEARD;
            self.found = is_certain.then_some(Filtering::AddressAndPortDependent);
            self.next = (!is_certain).then(|| now + RETRY);
            return;
        }
        let mut servers = servers.filter(|server| !self.single.contains(server));
        let begun = last.map(|attempt| (attempt.server, attempt.number, attempt.heard));
        let chosen = begun.or_else(|| servers.next().map(|server| (server, 0, 0)));
        let Some((server, number, heard)) = chosen else {
            self.next = None;
            return;
        };
        let (mut plain, mut changed) = ([0; 12], [0; 12]);
        rng.fill_bytes(&mut plain);
        rng.fill_bytes(&mut changed);
        let questions =
            [stun::binding_request_for_other_port(changed), stun::binding_request(plain)];
        self.sockets.push_back(questions.map(|question| (server, question)).into());
        let (number, plain) = (number + 1, Some(plain));
        self.attempt = Some(Attempt { server, number, heard, plain, changed });
        self.next = Some(now + PATIENCE);
    }

    /// Takes an answer; true if it was one to a question of this test.
    pub(crate) fn handle_response(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> bool {
        let Some(attempt) = &mut self.attempt else { return false };
        let Some(reply) = stun::parse_reply(datagram) else { return false };
        let from = canonical(from);
        if from.ip() != attempt.server.ip() {
            return false;
        }
        let is_other_port = from != attempt.server;
        match reply {
            Reply::Address(transaction, _)
                if Some(transaction) == attempt.plain && !is_other_port =>
            {
                attempt.heard += 1;
                attempt.plain = None;
                true
            }
            Reply::Address(transaction, _) if transaction == attempt.changed && is_other_port => {
                self.found = Some(Filtering::AddressDependentAtMost);
                (self.attempt, self.next) = (None, None);
                true
            }
            Reply::Address(transaction, _) | Reply::Error(transaction)
                if transaction == attempt.changed =>
            {
                self.single.insert(attempt.server);
                (self.attempt, self.next) = (None, Some(now));
                true
            }
            Reply::Address(..) | Reply::Error(_) => false,
        }
    }

    pub(crate) fn poll_socket(&mut self) -> Option<FreshSocket> {
        self.sockets.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) fn found(&self) -> Option<Filtering> {
        self.found
    }
}

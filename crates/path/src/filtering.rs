//! Finds out whom the translator or firewall in front of this device lets in.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::candidate::canonical;
use crate::stun::{self, Reply};
use crate::survey::FreshSocket;

/// Whom a translator or firewall lets answer (RFC 4787 section 5, RFC 6092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filtering {
    /// Everybody; or nothing is in front.
    EndpointIndependent,
    /// Any port of a host that was sent to ...
    AddressDependent,
    /// ... and perhaps everybody: the servers have one address together, or do not answer to another port.
    AddressDependentAtMost,
    /// Only the port that was sent to.
    AddressAndPortDependent,
}

impl fmt::Display for Filtering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
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

/// Asks a server of one family, from new sockets, to answer from its other port (RFC 5780 section 4.4), and from the socket that stays a
/// server at another address to send its answer to such a new socket, which has sent nothing there. The socket that stays has sent to
/// both ports of all servers, so what comes to it says nothing.
#[derive(Debug, Default)]
pub(crate) struct FilterTest {
    found: Option<Filtering>,
    next: Option<Instant>,
    attempt: Option<Attempt>,
    /// Servers that have no other port.
    single: BTreeSet<SocketAddr>,
    /// Servers that answer to where the question came from alone.
    unable: BTreeSet<SocketAddr>,
    /// The server whose answers showed so much, while there was no helper.
    alone: Option<SocketAddr>,
    sockets: VecDeque<FreshSocket>,
    transmits: VecDeque<(SocketAddr, Vec<u8>)>,
}

#[derive(Debug)]
struct Attempt {
    server: SocketAddr,
    number: u32,
    /// A server at another address, and how it sees this device.
    helper: Option<(SocketAddr, IpAddr)>,
    /// Plain questions that were answered.
    heard: u32,
    /// How often the helper was asked, and answered to where the question came from.
    asked: u32,
    /// Whether the other port gets through.
    admits_port: bool,
    /// The latest plain question, until it is answered.
    plain: Option<[u8; 12]>,
    changed: [u8; 12],
    from_helper: [u8; 12],
    /// What the helper is asked in a plain way, until it is answered.
    of_helper: Option<[u8; 12]>,
}

impl Attempt {
    /// What all of them together show, if enough was heard.
    fn outcome(&self) -> Option<Filtering> {
        match (self.admits_port, self.asked >= LEAST_HEARD) {
            (true, true) => Some(Filtering::AddressDependent),
            (true, false) => Some(Filtering::AddressDependentAtMost),
            (false, _) => (self.heard >= LEAST_HEARD).then_some(Filtering::AddressAndPortDependent),
        }
    }
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

    /// Asks what is due, of the first of these that answers from two ports. Each comes with how it sees this device.
    pub(crate) fn handle_timeout(
        &mut self,
        servers: &[(SocketAddr, SocketAddr)],
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        if let Some(server) = self.alone
            && self.helper(server, servers).is_some()
        {
            (self.alone, self.next) = (None, Some(now));
        }
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let last = self.attempt.take();
        if let Some(attempt) = last.as_ref().filter(|attempt| attempt.number == ATTEMPTS) {
            self.found = attempt.outcome();
            self.next = self.found.is_none().then(|| now + RETRY);
            return;
        }
        let asked = last.as_ref().map(|attempt| attempt.server);
        let mut able =
            servers.iter().map(|(server, _)| *server).filter(|one| !self.single.contains(one));
        let Some(server) = asked.or_else(|| able.next()) else {
            self.next = None;
            return;
        };
        let helper = self.helper(server, servers);
        let [plain, changed, from_helper, of_helper] = [(); 4].map(|()| {
            let mut transaction = [0; 12];
            rng.fill_bytes(&mut transaction);
            transaction
        });
        let questions =
            [stun::binding_request_for_other_port(changed), stun::binding_request(plain)];
        self.sockets.push_back(questions.map(|question| (server, question)).into());
        self.attempt = Some(Attempt {
            server,
            number: last.as_ref().map_or(0, |last| last.number) + 1,
            helper,
            heard: last.as_ref().map_or(0, |last| last.heard),
            asked: last.as_ref().map_or(0, |last| last.asked),
            admits_port: last.is_some_and(|last| last.admits_port),
            plain: Some(plain),
            changed,
            from_helper,
            of_helper: Some(of_helper),
        });
        self.next = Some(now + PATIENCE);
    }

    /// One of these at another address than the server's, and how it sees this device.
    fn helper(
        &self,
        server: SocketAddr,
        servers: &[(SocketAddr, SocketAddr)],
    ) -> Option<(SocketAddr, IpAddr)> {
        let may_help = |helper: &&(SocketAddr, SocketAddr)| {
            helper.0.ip() != server.ip() && !self.unable.contains(&helper.0)
        };
        servers.iter().find(may_help).map(|(helper, seen)| (*helper, seen.ip()))
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
        let is_helper = attempt.helper.is_some_and(|(helper, _)| helper == from);
        let is_server = from.ip() == attempt.server.ip();
        let is_other_port = is_server && from != attempt.server;
        match reply {
            Reply::Address(transaction, seen)
                if Some(transaction) == attempt.plain && from == attempt.server =>
            {
                attempt.heard += 1;
                attempt.plain = None;
                // Where a translator has several addresses, the new socket may have got another one.
                if let Some((helper, _)) = attempt.helper.filter(|(_, ip)| *ip == seen.ip()) {
                    let question = stun::binding_request_to_port(attempt.from_helper, seen.port());
                    self.transmits.push_back((helper, question));
                    let plain = attempt.of_helper.map(stun::binding_request);
                    self.transmits.extend(plain.map(|plain| (helper, plain)));
                }
            }
            Reply::Address(transaction, _) if transaction == attempt.changed && is_other_port => {
                attempt.admits_port = true;
                if attempt.helper.is_none() {
                    self.end_alone();
                }
            }
            Reply::Address(transaction, _)
                if Some(transaction) == attempt.of_helper && is_helper =>
            {
                (attempt.asked, attempt.of_helper) = (attempt.asked + 1, None);
            }
            Reply::Address(transaction, _) if transaction == attempt.from_helper && is_helper => {
                self.end(Filtering::EndpointIndependent);
            }
            Reply::Error(transaction) if transaction == attempt.from_helper && is_helper => {
                (attempt.helper, attempt.asked) = (None, 0);
                let has_ended = attempt.admits_port;
                self.unable.insert(from);
                if has_ended {
                    self.end_alone();
                }
            }
            Reply::Address(transaction, _) | Reply::Error(transaction)
                if transaction == attempt.changed && is_server =>
            {
                self.single.insert(attempt.server);
                (self.attempt, self.next) = (None, Some(now));
            }
            Reply::Address(..) | Reply::Error(_) => return false,
        }
        true
    }

    /// Nobody can tell more, until there is a helper.
    fn end_alone(&mut self) {
        self.alone = self.attempt.as_ref().map(|attempt| attempt.server);
        self.end(Filtering::AddressDependentAtMost);
    }

    fn end(&mut self, found: Filtering) {
        self.found = Some(found);
        (self.attempt, self.next) = (None, None);
    }

    pub(crate) fn poll_socket(&mut self) -> Option<FreshSocket> {
        self.sockets.pop_front()
    }

    /// The next request that goes from the socket that stays.
    pub(crate) fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) fn found(&self) -> Option<Filtering> {
        self.found
    }
}

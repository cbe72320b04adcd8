//! Finds and keeps the addresses at which STUN servers see this device.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::candidate::canonical;
use crate::filtering::{FilterTest, Filtering};
use crate::stun;
use crate::survey::{FreshSocket, PortSurvey};
use crate::translator::{Mapping, PortSequence};

/// Servers asked at once: two relays with both address families, on two ports each.
const MAX_SERVERS: usize = 8;
/// Waits between transmissions of one request (RFC 8489 section 6.2.1: RTO 500 ms, doubling),
/// shortened to four because another round follows anyway.
const RETRANSMIT: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
    Duration::from_millis(4_000),
];
/// Between rounds: below the 30 s after which the strictest NATs forget a mapping.
const REFRESH: Duration = Duration::from_secs(25);
/// A server that said nothing is asked again after this.
const RETRY: Duration = Duration::from_secs(60);
/// Servers asked for nothing but how far they are: those of a hundred relays with both address families.
const MAX_DISTANT: usize = 256;
/// How far a server is, is asked again after this.
const MEASURE: Duration = Duration::from_secs(1_200);
/// Between the first questions to two of them, so that they are no burst.
const PACE: Duration = Duration::from_millis(10);

/// Asks every server in turn and reports our reflexive addresses and who gets in there, and when asked to, what
/// ports the translator gives to mappings made now.
#[derive(Debug, Default)]
pub struct StunClient {
    servers: BTreeMap<SocketAddr, Server>,
    transmits: VecDeque<(SocketAddr, Vec<u8>)>,
    survey: PortSurvey,
    /// Of IPv4, and of IPv6.
    filters: [FilterTest; 2],
    /// What the answers say together: every packet asks for it, and they hardly ever change.
    mapping: Option<Mapping>,
    /// When the next server is to be asked: every packet asks for that, too.
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Server {
    next: Instant,
    attempt: usize,
    request: Option<([u8; 12], Instant)>,
    reflexive: Option<SocketAddr>,
    latency: Option<Duration>,
    /// Whether it is asked for nothing but how far it is.
    is_distant: bool,
}

impl Server {
    /// One that is to be asked then.
    const fn asked_at(next: Instant, is_distant: bool) -> Self {
        Self { next, attempt: 0, request: None, reflexive: None, latency: None, is_distant }
    }
}

impl StunClient {
    /// A client without servers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the set of servers; those that stay keep their state. `distant` ones are asked for nothing but how far
    /// they are.
    pub fn handle_servers(&mut self, servers: &[SocketAddr], distant: &[SocketAddr], now: Instant) {
        let near = servers.iter().copied().map(canonical).take(MAX_SERVERS);
        let wanted: BTreeSet<_> = near.collect();
        let distant = distant.iter().copied().map(canonical);
        let distant: BTreeSet<_> =
            distant.filter(|address| !wanted.contains(address)).take(MAX_DISTANT).collect();
        self.servers.retain(|address, _| wanted.contains(address) || distant.contains(address));
        for address in wanted {
            self.place(address, Server::asked_at(now, false));
        }
        let mut paced = now;
        for address in distant {
            let is_known = self.servers.get(&address).is_some_and(|known| known.latency.is_some());
            self.place(
                address,
                Server::asked_at(if is_known { now + MEASURE } else { paced }, true),
            );
            paced += PACE;
        }
        self.sum_up();
    }

    /// Adds a server, or takes over that one that is there is asked for more or for less from now on.
    fn place(&mut self, address: SocketAddr, new: Server) {
        let is_distant = new.is_distant;
        let known = self.servers.entry(address).or_insert(new);
        if known.is_distant != is_distant {
            *known = Server { latency: known.latency, ..new };
        }
    }

    /// Asks all servers anew because this device's network changed.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.filters.iter_mut().for_each(FilterTest::handle_network_change);
        let mut paced = now;
        for server in self.servers.values_mut() {
            *server =
                Server::asked_at(if server.is_distant { paced } else { now }, server.is_distant);
            paced += if server.is_distant { PACE } else { Duration::ZERO };
        }
        self.sum_up();
    }

    /// Takes a datagram for which [`stun::is_stun`] holds; true if our reflexive addresses changed.
    pub fn handle_response(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let mut filters = self.filters.iter_mut();
        if self.survey.handle_response(from, datagram)
            || filters.any(|test| test.handle_response(from, datagram, now))
        {
            return false;
        }
        let Some((transaction, reflexive)) = stun::parse_response(datagram) else { return false };
        let Some(server) = self.servers.get_mut(&canonical(from)) else { return false };
        let Some((expected, sent)) = server.request else { return false };
        if expected != transaction {
            return false;
        }
        let latency = Some(now.saturating_duration_since(sent));
        if server.is_distant {
            *server = Server { latency, ..Server::asked_at(now + MEASURE, true) };
            self.sum_up();
            return false;
        }
        let changed = server.reflexive != Some(reflexive);
        let reflexive = Some(reflexive);
        *server = Server { reflexive, latency, ..Server::asked_at(now + REFRESH, false) };
        self.filters[family(from)].handle_answering(now);
        self.sum_up();
        changed
    }

    /// Sends what is due; true if our reflexive addresses changed because a server fell silent.
    pub fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Instant) -> bool {
        self.test_filters(rng, now);
        if self.due.is_none_or(|at| at > now) {
            return false;
        }
        let mut changed = false;
        for (address, server) in &mut self.servers {
            if server.next > now {
                continue;
            }
            let Some(wait) = RETRANSMIT.get(server.attempt) else {
                changed |= server.reflexive.take().is_some();
                let retry = if server.is_distant { MEASURE } else { RETRY };
                *server = Server::asked_at(now + retry, server.is_distant);
                continue;
            };
            let mut transaction = [0; 12];
            rng.fill_bytes(&mut transaction);
            server.request = Some((transaction, now));
            server.attempt += 1;
            server.next = now + *wait;
            self.transmits.push_back((*address, stun::binding_request(transaction)));
        }
        self.sum_up();
        changed
    }

    /// Lets nothing disturb a survey, which looks at mappings as well.
    fn test_filters(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        if self.is_surveying() {
            return;
        }
        for (index, test) in self.filters.iter_mut().enumerate() {
            let answering = self.servers.iter().filter(|(address, _)| family(**address) == index);
            let seen =
                answering.filter_map(|(address, server)| Some((*address, server.reflexive?)));
            test.handle_timeout(&seen.collect::<Vec<_>>(), rng, now);
        }
    }

    /// The next request to send, with its destination.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let tests = || self.filters.iter_mut().find_map(FilterTest::poll_transmit);
        self.transmits.pop_front().or_else(tests)
    }

    /// Begins to find out how the translator counts; false if there is nobody to ask, or a survey is on.
    pub fn survey(&mut self, rng: &mut dyn CryptoRng, now: Instant) -> bool {
        let answering = self.servers.iter().filter(|(_, server)| server.reflexive.is_some());
        self.survey.begin(answering.map(|(address, _)| *address), rng, now)
    }

    /// Whether a survey is on.
    pub fn is_surveying(&self) -> bool {
        self.survey.poll_timeout().is_some()
    }

    /// What is to be sent from one new socket. Answers to that socket are for [`Self::handle_response`].
    #[must_use]
    pub fn poll_fresh_socket(&mut self) -> Option<FreshSocket> {
        let filters = &mut self.filters;
        let tests = || filters.iter_mut().find_map(FilterTest::poll_socket);
        self.survey.poll_socket().or_else(tests)
    }

    /// How the survey ended: with the way in which ports are counted, if they are.
    #[must_use]
    pub fn poll_surveyed(&mut self, now: Instant) -> Option<Option<PortSequence>> {
        self.survey.take_outcome(now)
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let requests = self.due.map(|at| (at, "STUN request"));
        let survey = self.survey.poll_timeout();
        let tests = self.filters.iter().filter_map(FilterTest::poll_timeout);
        // They wait for a survey to end.
        let tests = tests.map(|at| (survey.map_or(at, |end| end.max(at)), "filter test"));
        requests.into_iter().chain(survey.map(|at| (at, "port survey"))).chain(tests).min()
    }

    /// For which destinations the translator uses the same port, if two servers have answered.
    pub fn mapping(&self) -> Option<Mapping> {
        self.mapping
    }

    /// Whom the translator or firewall in front of IPv4 lets in, and the one in front of IPv6, as far as that is known.
    pub fn filtering(&self) -> [Option<Filtering>; 2] {
        self.filters.each_ref().map(FilterTest::found)
    }

    /// Keeps what follows from all servers together.
    fn sum_up(&mut self) {
        self.due = self.servers.values().map(|server| server.next).min();
        let answers =
            self.servers.iter().filter_map(|(address, server)| Some((*address, server.reflexive?)));
        self.mapping = Mapping::of(&answers.collect::<Vec<_>>());
    }

    /// Our addresses as the servers see them.
    pub fn reflexive(&self) -> BTreeSet<SocketAddr> {
        self.servers.values().filter_map(|server| server.reflexive).collect()
    }

    /// Each server with what it told us and how long that took, without those that are asked for nothing but that.
    pub fn servers(
        &self,
    ) -> impl Iterator<Item = (SocketAddr, Option<SocketAddr>, Option<Duration>)> + '_ {
        let near = self.servers.iter().filter(|(_, server)| !server.is_distant);
        near.map(|(address, server)| (*address, server.reflexive, server.latency))
    }

    /// How long a server took to answer, if it has answered.
    pub fn latency(&self, server: SocketAddr) -> Option<Duration> {
        self.servers.get(&canonical(server))?.latency
    }
}

/// Which of the tests is about a server's addresses.
fn family(server: SocketAddr) -> usize {
    usize::from(canonical(server).is_ipv6())
}

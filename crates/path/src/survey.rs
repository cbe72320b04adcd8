//! Finds out what ports the translator gives to mappings made now.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::candidate::canonical;
use crate::stun;
use crate::translator::PortSequence;

/// Mappings that one survey makes: a pattern needs three, and one answer may get lost.
const MAPPINGS: usize = 4;
/// Answers that take longer say nothing of the present.
const PATIENCE: Duration = Duration::from_millis(500);

/// Datagrams to be sent, in order, from a socket that was not used before.
pub type FreshSocket = Vec<(SocketAddr, Vec<u8>)>;

/// Asks servers from new sockets, which makes new mappings, and looks at their ports in order.
#[derive(Debug, Default)]
pub(crate) struct PortSurvey {
    queries: Vec<Query>,
    until: Option<Instant>,
    sockets: VecDeque<FreshSocket>,
}

#[derive(Debug)]
struct Query {
    server: SocketAddr,
    transaction: [u8; 12],
    mapping: Option<SocketAddr>,
}

impl PortSurvey {
    /// Asks IPv4 servers among these; false if there are none or a survey is on already.
    pub(crate) fn begin(
        &mut self,
        servers: impl Iterator<Item = SocketAddr>,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> bool {
        let servers: Vec<_> = servers.filter(SocketAddr::is_ipv4).take(2).collect();
        if servers.is_empty() || self.until.is_some() {
            return false;
        }
        self.queries.clear();
        for _ in 0..MAPPINGS / servers.len() {
            let mut datagrams = FreshSocket::new();
            for server in &servers {
                let mut transaction = [0; 12];
                rng.fill_bytes(&mut transaction);
                datagrams.push((*server, stun::binding_request(transaction)));
                self.queries.push(Query { server: *server, transaction, mapping: None });
            }
            self.sockets.push_back(datagrams);
        }
        self.until = Some(now + PATIENCE);
        true
    }

    /// Takes an answer; true if it was one to this survey.
    pub(crate) fn handle_response(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let Some((transaction, mapping)) = stun::parse_response(datagram) else { return false };
        let asked = |query: &&mut Query| {
            query.transaction == transaction && query.server == canonical(from)
        };
        let Some(query) = self.queries.iter_mut().find(asked) else { return false };
        query.mapping.get_or_insert(mapping);
        true
    }

    /// The outcome, once: when everything is answered, or nothing more is waited for.
    pub(crate) fn take_outcome(&mut self, now: Instant) -> Option<Option<PortSequence>> {
        let is_answered = self.queries.iter().all(|query| query.mapping.is_some());
        self.until.take_if(|until| is_answered || *until <= now)?;
        let queries = std::mem::take(&mut self.queries);
        let mappings: Vec<_> = queries.iter().filter_map(|query| query.mapping).collect();
        Some(PortSequence::of(&mappings))
    }

    pub(crate) fn poll_socket(&mut self) -> Option<FreshSocket> {
        self.sockets.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }
}

//! Finding what lies underneath by name, without asking our own stub.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RData, RecordType},
};
use naming::Limit;
use tokio::{net::lookup_host, time::timeout};
use tracing::debug;

use super::{DnsState, forward::Forwarder};

/// Names that go before those of the network (hosts(5)).
const HOSTS: &str = "/etc/hosts";
/// The host's own resolution may take this long.
const SYSTEM: Duration = Duration::from_secs(10);

/// The addresses of a host; none if it has none. As long as the stub is the only resolver that the
/// system asks, those that it asked before are asked directly.
pub(crate) async fn lookup(state: &DnsState, host: &str, port: u16) -> Vec<SocketAddr> {
    let upstreams = state.upstreams();
    if upstreams.is_empty() {
        return system_lookup(host, port).await;
    }
    let local = tokio::fs::read_to_string(HOSTS).await.unwrap_or_default();
    let mut found = in_hosts(&local, host);
    if found.is_empty() {
        let forwarder = Forwarder::new(None, state.mark);
        let (v6, v4) = tokio::join!(
            ask(&forwarder, &upstreams, host, RecordType::AAAA),
            ask(&forwarder, &upstreams, host, RecordType::A)
        );
        found = [v6, v4].concat();
    }
    found.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

async fn system_lookup(host: &str, port: u16) -> Vec<SocketAddr> {
    match timeout(SYSTEM, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            debug!(%error, "cannot resolve a server's name");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// Addresses of one kind; none when the answer is no or does not come.
async fn ask(
    forwarder: &Forwarder,
    upstreams: &[SocketAddr],
    host: &str,
    kind: RecordType,
) -> Vec<IpAddr> {
    let Some(query) = query(host, kind) else { return Vec::new() };
    // Without the limit of a datagram: it is our own, which a longer reply suits as well.
    let reply = forwarder.forward(&query, Limit::Tcp, upstreams).await;
    let Ok(reply) = Message::from_vec(&reply) else { return Vec::new() };
    // The upstreams follow aliases, so that whatever they answer with belongs to the name.
    let addresses = reply.answers.iter().filter_map(|record| {
        if let RData::A(address) = &record.data {
            Some(IpAddr::V4(address.0))
        } else if let RData::AAAA(address) = &record.data {
            Some(IpAddr::V6(address.0))
        } else {
            None
        }
    });
    addresses.collect()
}

fn query(host: &str, kind: RecordType) -> Option<Vec<u8>> {
    let mut name = Name::from_ascii(host).ok()?;
    name.set_fqdn(true);
    // Each forwarded query gets an id of its own.
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    message.to_vec().ok()
}

/// The addresses that a text in the format of `/etc/hosts` gives a name (hosts(5)).
#[must_use]
pub fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let found = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::StubResolver;
    use naming::{Namespace, Zone};

    #[tokio::test]
    async fn a_server_is_found_at_the_resolvers_that_were_there_before() {
        let all: [IpAddr; 2] = ["fd42::7", "100.99.0.7"].map(|one| one.parse().expect("one"));
        let mut zone = Zone::new("home").expect("a name");
        zone.add_host("server", &all).expect("a name");
        let upstream = DnsState::default();
        upstream.replace_names(Namespace::new(vec![zone], 1).expect("one zone"));
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let stub = StubResolver::bind(listen, upstream).await.expect("a free port");
        let state = DnsState::default();
        state.replace_upstreams(&[stub.local_addr()]);
        tokio::spawn(stub.serve());

        let found = lookup(&state, "server.home.alt", 443).await;
        assert_eq!(found, all.map(|address| SocketAddr::new(address, 443)));
        assert!(lookup(&state, "nobody.home.alt", 443).await.is_empty());
        assert!(lookup(&state, "not a name", 443).await.is_empty());
    }

    #[tokio::test]
    async fn without_a_stub_the_system_is_asked() {
        let found = lookup(&DnsState::default(), "localhost", 443).await;
        assert!(found.iter().any(|address| address.ip().is_loopback()), "{found:?}");
    }

    #[test]
    fn names_of_this_host_go_first() {
        let text = "# mine\n192.0.2.7 server.example server # the\n::1 localhost\nnonsense line\n";
        assert_eq!(in_hosts(text, "SERVER"), ["192.0.2.7".parse::<IpAddr>().expect("one")]);
        assert!(in_hosts(text, "the").is_empty() && in_hosts(text, "line").is_empty());
    }
}

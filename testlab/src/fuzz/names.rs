//! Questions and answers of DNS, and the host's own lists of names and resolvers.

use std::net::{IpAddr, Ipv4Addr};

use naming::{Limit, Namespace, Zone};
use node::dns::in_hosts;
use node::dns::message::{ForwardQuery, Match, is_failure, server_failure};
use platform::resolver::{nameservers, rewritten};

use super::parts;

/// Length of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;

pub(super) fn names(bytes: &[u8]) {
    let mut zone = Zone::new("home").expect("a label");
    zone.add_prefix(IpAddr::from([100, 64, 0, 0]), 16).expect("a prefix");
    let names = Namespace::new(vec![zone], 1).expect("one zone");
    for limit in [Limit::Udp, Limit::Tcp] {
        let _ = names.answer(bytes, limit);
    }
    let _ = names.lookup(&String::from_utf8_lossy(bytes));
}

/// A query of this host, how it is disguised, and what an upstream says to it.
pub(super) fn forward(bytes: &[u8]) {
    let mut parts = parts(bytes);
    let (query, dice, reply) = (parts.next(), parts.next(), parts.next());
    let (query, dice) = (query.unwrap_or_default(), dice.unwrap_or_default());
    let failure = server_failure(query);
    assert!(is_failure(&failure) && failure.len() <= query.len().max(HEADER));
    let Some(original) = ForwardQuery::parse(query) else { return };
    assert_eq!(original.matches(&failure), Match::Whole);

    let disguised = original.disguised(0x1234, dice);
    assert_eq!(disguised.as_bytes().len(), query.len());
    let mut echo = disguised.as_bytes().to_vec();
    assert_eq!(disguised.matches(&echo), Match::None, "a query answers nothing");
    echo[2] |= 0x80;
    take_reply(&original, &disguised, echo);
    if let Some(reply) = reply {
        take_reply(&original, &disguised, reply.to_vec());
    }
}

/// What is given to the client answers what it has asked, also when it is cut down.
fn take_reply(original: &ForwardQuery, disguised: &ForwardQuery, mut reply: Vec<u8>) {
    if disguised.matches(&reply) == Match::None {
        return;
    }
    original.restore(&mut reply);
    assert_eq!(original.matches(&reply), Match::Whole);
    let length = reply.len();
    original.truncate(&mut reply);
    assert_eq!(original.matches(&reply), Match::Whole);
    assert!(reply.len() <= length && reply[6..HEADER].iter().all(|byte| *byte == 0));
}

pub(super) fn resolver(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let host = text.split_whitespace().last().unwrap_or_default();
    let found = in_hosts(&text, host);
    assert!(found.len() <= text.lines().count());

    let stub = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
    assert!(!nameservers(&text, stub).contains(&stub));
    let ours = rewritten(&text, stub);
    assert_eq!(nameservers(&ours, Ipv4Addr::LOCALHOST.into()), [stub], "nobody else is asked");
}

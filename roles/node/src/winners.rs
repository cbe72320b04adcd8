//! By which ways servers and peers were reached from each local network, so that these go first when this device is there again.
//!
//! Nothing of it is trusted: a way that is remembered has to prove itself like all others.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use engine::Rung;
use identity::DeviceId;
use minicbor::{Decode, Encode};
use websocket::Route;

/// Ways to servers that are remembered, of all local networks together ...
const MAX_SERVERS: usize = 64;
/// ... and ways to peers.
const MAX_PEERS: usize = 512;
/// Changes are collected for this long before they are saved.
const SAVE_DELAY: Duration = Duration::from_secs(30);

/// Where this device is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct LocalNetwork {
    /// The router on the way to what is far away, over IPv4 if there is one.
    #[n(0)]
    pub(crate) router: IpAddr,
    /// The length of the prefix that it has in common with this device.
    #[n(1)]
    pub(crate) prefix: u8,
    /// Its link-layer address, if the system knows it yet: many networks have the same numbers.
    #[n(2)]
    pub(crate) hardware: Option<Vec<u8>>,
}

impl LocalNetwork {
    /// Whether nothing speaks against that the two are the same.
    fn may_be(&self, other: &Self) -> bool {
        let are_known = self.hardware.is_some() && other.hardware.is_some();
        self.has_numbers_of(other) && (!are_known || self.hardware == other.hardware)
    }

    /// Whether what is noted for this one takes the place of what was noted for another.
    fn replaces(&self, other: &Self) -> bool {
        self == other || other.hardware.is_none() && self.has_numbers_of(other)
    }

    fn has_numbers_of(&self, other: &Self) -> bool {
        (self.router, self.prefix) == (other.router, other.prefix)
    }
}

/// The ways that won last.
#[derive(Debug, Default, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Winners {
    /// By a server's name or address, with its port.
    #[n(0)]
    servers: Ledger<String, Connected>,
    #[n(1)]
    peers: Ledger<DeviceId, Rung>,
    #[cbor(skip)]
    save_at: Option<Instant>,
}

/// A [`Route`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Connected {
    #[n(0)]
    address: SocketAddr,
    #[n(1)]
    asked: Option<String>,
}

impl Winners {
    /// What an earlier run remembered; a later format or damage is as good as nothing.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        minicbor::decode(bytes).unwrap_or_default()
    }

    /// What is to be saved, if it is time for that, or if this is the `last` time.
    pub(crate) fn take_due(&mut self, last: bool, now: Instant) -> Option<Vec<u8>> {
        self.save_at.take_if(|at| last || *at <= now)?;
        Some(minicbor::to_vec(&*self).expect("writing to a vector does not fail"))
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.save_at
    }

    /// The way by which a server was reached last from there.
    pub(crate) fn route(&self, here: &LocalNetwork, host: &str) -> Option<Route> {
        let mut known = self.servers.of(here).filter(|entry| entry.goal == host);
        let Connected { address, asked } = known.next_back()?.way.clone();
        Some(Route { address, asked })
    }

    /// A server was reached by this way.
    pub(crate) fn note_route(
        &mut self,
        here: &LocalNetwork,
        host: String,
        route: Route,
        now: Instant,
    ) {
        let way = Connected { address: route.address, asked: route.asked };
        if self.servers.note((here, host, way), MAX_SERVERS) {
            self.save_at.get_or_insert(now + SAVE_DELAY);
        }
    }

    /// By what peers were reached last from there.
    pub(crate) fn peers<'a>(
        &'a self,
        here: &'a LocalNetwork,
    ) -> impl Iterator<Item = (DeviceId, Rung)> + 'a {
        self.peers.of(here).map(|entry| (entry.goal, entry.way))
    }

    /// A peer was reached by this.
    pub(crate) fn note_peer(
        &mut self,
        here: &LocalNetwork,
        (peer, rung): (DeviceId, Rung),
        now: Instant,
    ) {
        if self.peers.note((here, peer, rung), MAX_PEERS) {
            self.save_at.get_or_insert(now + SAVE_DELAY);
        }
    }
}

/// Ways to goals of one sort, the latest at the end.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Ledger<G, W> {
    #[n(0)]
    entries: VecDeque<Entry<G, W>>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Entry<G, W> {
    #[n(0)]
    network: LocalNetwork,
    #[n(1)]
    goal: G,
    #[n(2)]
    way: W,
}

impl<G, W> Default for Ledger<G, W> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<G: PartialEq, W: PartialEq> Ledger<G, W> {
    fn of<'a>(
        &'a self,
        here: &'a LocalNetwork,
    ) -> impl DoubleEndedIterator<Item = &'a Entry<G, W>> {
        self.entries.iter().filter(|entry| here.may_be(&entry.network))
    }

    /// Takes the place of what is known of the goal; true if that is something else.
    fn note(&mut self, (here, goal, way): (&LocalNetwork, G, W), max: usize) -> bool {
        let is_same = |entry: &Entry<G, W>| entry.goal == goal && here.replaces(&entry.network);
        let latest = self.entries.iter().rev().find(|entry| is_same(entry));
        let is_news = latest.is_none_or(|latest| latest.way != way || latest.network != *here);
        self.entries.retain(|entry| !is_same(entry));
        while self.entries.len() >= max {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { network: here.clone(), goal, way });
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(router: u8, hardware: Option<u8>) -> LocalNetwork {
        let hardware = hardware.map(|last| vec![2, 0, 0, 0, 0, last]);
        LocalNetwork { router: [192, 0, 2, router].into(), prefix: 24, hardware }
    }

    fn route(port: u16) -> Route {
        Route { address: ([203, 0, 113, 1], port).into(), asked: None }
    }

    const HOST: &str = "example.org:443";

    fn note(winners: &mut Winners, here: &LocalNetwork, port: u16, now: Instant) {
        winners.note_route(here, HOST.to_owned(), route(port), now);
    }

    #[test]
    fn networks_with_the_same_numbers_are_told_apart_by_what_their_routers_are() {
        let (mut winners, now) = (Winners::default(), Instant::now());
        let (home, cafe) = (network(1, Some(1)), network(1, Some(2)));
        note(&mut winners, &home, 1, now);
        note(&mut winners, &cafe, 2, now);
        assert_eq!(winners.route(&home, HOST), Some(route(1)));
        assert_eq!(winners.route(&cafe, HOST), Some(route(2)));
        // Before the router has said anything it may be either.
        assert_eq!(winners.route(&network(1, None), HOST), Some(route(2)));
        assert_eq!(winners.route(&network(2, None), HOST), None);
        let longer = LocalNetwork { prefix: 25, ..network(1, None) };
        assert_eq!(winners.route(&longer, HOST), None);
        // What is noted of either takes nothing from the other, and is that of the one whose router says something.
        note(&mut winners, &network(1, None), 3, now);
        assert_eq!(winners.route(&network(1, None), HOST), Some(route(3)));
        note(&mut winners, &home, 4, now);
        assert_eq!(winners.route(&home, HOST), Some(route(4)));
        assert_eq!(winners.route(&cafe, HOST), Some(route(2)));
    }

    #[test]
    fn the_latest_are_remembered_of_servers_and_peers_apart() {
        let (mut winners, now) = (Winners::default(), Instant::now());
        let here = network(1, Some(1));
        let peer = |number: u16| {
            DeviceId::from_bytes([number.to_be_bytes(); 16].concat().try_into().expect("32"))
        };
        note(&mut winners, &here, 1, now);
        for number in 0..=MAX_PEERS as u16 {
            winners.note_peer(&here, (peer(number), Rung::Stream), now);
        }
        winners.note_peer(&here, (peer(1), Rung::Circuit), now);
        let known: std::collections::BTreeMap<_, _> = winners.peers(&here).collect();
        assert_eq!(known.len(), MAX_PEERS);
        assert_eq!(known.get(&peer(0)), None);
        assert_eq!(known.get(&peer(1)), Some(&Rung::Circuit));
        assert_eq!(winners.route(&here, HOST), Some(route(1)));
    }

    #[test]
    fn what_is_news_is_saved_once_for_all_changes_of_half_a_minute() {
        let (mut winners, now) = (Winners::default(), Instant::now());
        let here = network(1, Some(1));
        assert_eq!(winners.poll_timeout(), None);
        note(&mut winners, &here, 1, now);
        note(&mut winners, &here, 2, now + SAVE_DELAY / 2);
        assert_eq!(winners.poll_timeout(), Some(now + SAVE_DELAY));
        assert_eq!(winners.take_due(false, now), None);
        let saved = winners.take_due(false, now + SAVE_DELAY).expect("it is time");
        note(&mut winners, &here, 2, now);
        assert_eq!(winners.poll_timeout(), None, "that was known");
        assert_eq!(winners.take_due(true, now), None);
        assert_eq!(Winners::from_bytes(&saved).route(&here, HOST), Some(route(2)));
        note(&mut winners, &here, 3, now);
        assert!(winners.take_due(true, now).is_some());
    }

    #[test]
    fn damage_is_as_good_as_nothing_and_never_a_panic() {
        let (mut winners, now) = (Winners::default(), Instant::now());
        let here = network(1, Some(1));
        note(&mut winners, &here, 1, now);
        winners.note_peer(&here, (DeviceId::from_bytes([1; 32]), Rung::Allocation), now);
        let whole = winners.take_due(true, now).expect("there is news");
        for at in 0..whole.len() {
            assert_eq!(Winners::from_bytes(&whole[..at]).route(&here, HOST), None);
            for change in [1, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= change;
                let _ = Winners::from_bytes(&changed).peers(&here).count();
            }
        }
    }
}

//! Paths through TURN servers, of this device's and of the peer's.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use path::{
    Alias, Allocation, Candidate, CandidateFilter, CandidateKind, MAX_CANDIDATES, Message, Path,
    PathAgent, PathConfig, PathEvent, PortSequence, ProbeBudget, Reason, TransactionId,
};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

const PEER: &str = "203.0.113.2:2000";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the test writes addresses")
}

/// A peer's address as it is reached through an allocation.
fn through(allocation: u32, peer: &str) -> SocketAddr {
    Alias::Turn(allocation, peer.parse().expect("the test writes addresses")).into()
}

/// Allocations with these numbers, on the internet.
fn at_servers<const N: usize>(numbers: [u32; N]) -> [Allocation; N] {
    numbers.map(|number| Allocation { number, relayed: address("203.0.113.9:50000") })
}

/// An agent whose pings are answered from these addresses.
struct Side {
    agent: PathAgent,
    budget: ProbeBudget,
    rng: ChaCha20Rng,
    now: Instant,
    reachable: Vec<SocketAddr>,
    probed: Vec<SocketAddr>,
    calls: usize,
    pongs: Vec<(Path, TransactionId)>,
}

impl Side {
    fn new(announced: &[Candidate]) -> Self {
        let now = Instant::now();
        let config = PathConfig { udp: true, leads: true, ..PathConfig::default() };
        let mut side = Self {
            agent: PathAgent::new(config),
            budget: ProbeBudget::new(),
            rng: ChaCha20Rng::seed_from_u64(9),
            now,
            reachable: Vec::new(),
            probed: Vec::new(),
            calls: 0,
            pongs: Vec::new(),
        };
        let own = Candidate::new(CandidateKind::Reflexive, address("198.51.100.1:1000"));
        side.agent.handle_local_candidates(&[own], now);
        side.agent.handle_relay(true, now);
        side.agent.handle_remote_candidates(announced, now);
        side
    }

    /// Lets time pass with traffic in both directions.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(100);
            self.agent.handle_sent(self.now);
            self.agent.handle_timeout(&mut self.budget, &mut self.rng, self.now);
            while let Some(transmit) = self.agent.poll_transmit() {
                match (transmit.path, Message::decode(&transmit.payload)) {
                    (Path::Direct(to), Ok(Message::Ping { transaction })) => {
                        self.probed.push(to);
                        if self.reachable.contains(&to) {
                            let path = transmit.path;
                            let pong = Message::Pong { transaction, arrived: None };
                            self.agent.handle_message(path, pong, self.now);
                        }
                    }
                    (path, Ok(Message::Pong { transaction, .. })) => {
                        self.pongs.push((path, transaction));
                    }
                    (Path::Relay, Ok(Message::CallMeMaybe { .. })) => self.calls += 1,
                    _ => {}
                }
            }
            while let Some(PathEvent::Chosen(_) | PathEvent::Pong { .. }) = self.agent.poll_event()
            {
            }
            match self.agent.chosen() {
                Path::Direct(to) if !self.reachable.contains(&to) => {}
                path @ (Path::Direct(_) | Path::Relay | Path::Stream | Path::None) => {
                    self.agent.handle_received(path, self.now);
                }
            }
        }
    }

    fn ping_from(&mut self, from: SocketAddr) {
        let transaction = TransactionId([1; 12]);
        self.agent.handle_message(Path::Direct(from), Message::Ping { transaction }, self.now);
        self.pass(Duration::from_millis(100));
    }
}

fn reflexive(text: &str) -> Candidate {
    Candidate::new(CandidateKind::Reflexive, address(text))
}

#[test]
fn each_host_of_the_peer_is_tried_through_each_allocation() {
    let mut side = Side::new(&[
        reflexive(PEER),
        reflexive("203.0.113.2:2001"),
        reflexive("192.0.2.5:7"),
        reflexive("[2001:db8::5]:7"),
    ]);
    side.agent.handle_allocations(&at_servers([4, 7]), side.now);
    side.pass(Duration::from_secs(2));
    let mut tried: Vec<_> = side.probed.iter().filter_map(|to| Alias::of(*to)).collect();
    tried.sort();
    tried.dedup();
    let expected = [(4, "192.0.2.5:7"), (4, PEER), (7, "192.0.2.5:7"), (7, PEER)];
    assert_eq!(tried, expected.map(|(n, peer)| Alias::of(through(n, peer)).expect("one")));
}

#[test]
fn a_server_on_the_internet_is_not_sent_to_private_hosts_and_a_private_one_is() {
    for (relayed, tried) in [("203.0.113.9:50000", 1), ("10.0.0.9:50000", 3)] {
        let announced = [PEER, "192.168.1.2:7", "100.64.0.2:7"].map(reflexive);
        let mut side = Side::new(&announced);
        let allocation = Allocation { number: 4, relayed: address(relayed) };
        side.agent.handle_allocations(&[allocation], side.now);
        let remotes = side.agent.remotes(side.now).into_iter();
        let relayed = remotes.filter(|one| one.candidate.kind == CandidateKind::Relayed);
        assert_eq!(relayed.count(), tried);
    }
}

#[test]
fn of_several_ways_through_dead_servers_none_is_waited_for_after_the_first() {
    let mut side = Side::new(&[reflexive(PEER)]);
    side.reachable = vec![through(4, PEER), through(5, PEER)];
    side.agent.handle_allocations(&at_servers([4, 5]), side.now);
    side.pass(Duration::from_secs(2));
    assert!(matches!(side.agent.chosen(), Path::Direct(_)));
    side.reachable.clear();
    side.pass(Duration::from_millis(2_200));
    assert_eq!(side.agent.chosen(), Path::Relay);
}

#[test]
fn a_turn_path_is_kept_an_eye_on_while_a_survey_is_waited_for() {
    let mut side = Side::new(&[reflexive(PEER)]);
    side.agent.handle_translator(Some(true));
    side.reachable = vec![through(4, PEER)];
    side.agent.handle_allocations(&at_servers([4]), side.now);
    side.pass(Duration::from_secs(6));
    assert_eq!(side.agent.chosen(), Path::Direct(through(4, PEER)));
    // The peer counts as well: there is to be a rendezvous, for which this device has to know its own count.
    let ports = Some(PortSequence { last: address(PEER), step: 1 });
    let call = Message::CallMeMaybe { candidates: vec![address(PEER)], ports };
    side.agent.handle_message(Path::Relay, call, side.now);
    side.pass(Duration::from_millis(100));
    side.reachable.clear();
    side.probed.clear();
    side.pass(Duration::from_millis(2_200));
    assert!(side.probed.contains(&through(4, PEER)), "{:?}", side.probed);
    assert!(!side.probed.contains(&address(PEER)), "a mapping was made");
    assert_eq!(side.agent.chosen(), Path::Relay);
}

#[test]
fn a_turn_path_goes_before_the_relay_and_any_other_direct_path_before_it() {
    let mut side = Side::new(&[reflexive(PEER)]);
    let turn = through(4, PEER);
    side.reachable = vec![turn];
    side.agent.handle_allocations(&at_servers([4]), side.now);
    side.pass(Duration::from_secs(2));
    assert_eq!(side.agent.chosen(), Path::Direct(turn));
    assert!(side.agent.lacks_direct(side.now));
    assert_eq!(side.agent.describe(side.agent.chosen()), format!("turn {PEER}"));
    let (probed, calls) = (side.probed.len(), side.calls);
    side.pass(Duration::from_secs(65));
    assert!(side.calls >= calls + 2, "it goes on to look for better ones");
    assert!(side.probed[probed..].contains(&address(PEER)));
    side.reachable.push(address(PEER));
    side.pass(Duration::from_secs(35));
    assert_eq!(side.agent.chosen(), Path::Direct(address(PEER)));
    assert!(!side.agent.lacks_direct(side.now));
    let reason = side.agent.why().next().expect("a decision").reason;
    assert_eq!(reason, Reason::Straighter { latency: Duration::ZERO });
    assert_eq!(side.agent.describe(side.agent.chosen()), format!("direct {PEER}"));
}

#[test]
fn an_address_of_the_peers_at_a_turn_server_is_shown_as_such_and_comes_last() {
    let turn = "203.0.113.9:50000";
    let mut side =
        Side::new(&[reflexive(PEER), Candidate::new(CandidateKind::Relayed, address(turn))]);
    side.reachable = vec![address(turn)];
    side.pass(Duration::from_secs(2));
    assert_eq!(side.agent.describe(side.agent.chosen()), format!("turn {turn}"));
    // A call says only which addresses there are.
    let candidates = vec![address(turn), address(PEER)];
    let call = Message::CallMeMaybe { candidates, ports: None };
    side.agent.handle_message(Path::Relay, call, side.now);
    assert_eq!(side.agent.describe(side.agent.chosen()), format!("turn {turn}"));
    side.reachable.push(address(PEER));
    side.pass(Duration::from_secs(35));
    assert_eq!(side.agent.chosen(), Path::Direct(address(PEER)));
}

#[test]
fn with_an_allocation_all_ways_through_it_are_gone() {
    let mut side = Side::new(&[reflexive(PEER)]);
    side.reachable = vec![through(4, PEER)];
    side.agent.handle_allocations(&at_servers([4]), side.now);
    side.pass(Duration::from_secs(2));
    side.agent.handle_allocations(&at_servers([]), side.now);
    assert_eq!(side.agent.chosen(), Path::Relay);
    assert_eq!(side.agent.why().next().expect("a decision").reason, Reason::AllocationLost);
    let relayed = |side: &Side| {
        let remotes = side.agent.remotes(side.now);
        remotes.iter().filter(|remote| remote.candidate.kind == CandidateKind::Relayed).count()
    };
    assert_eq!(relayed(&side), 0);
    side.agent.handle_allocations(&at_servers([5]), side.now);
    assert_eq!(relayed(&side), 1);
}

#[test]
fn without_relays_a_lost_allocation_leaves_no_path() {
    let mut side = Side::new(&[reflexive(PEER)]);
    side.reachable = vec![through(4, PEER)];
    side.agent.handle_allocations(&at_servers([4]), side.now);
    side.pass(Duration::from_secs(2));
    side.agent.handle_relay(false, side.now);
    assert_eq!(side.agent.chosen(), Path::Direct(through(4, PEER)));
    side.agent.handle_allocations(&at_servers([]), side.now);
    assert_eq!(side.agent.chosen(), Path::None);
}

#[test]
fn a_circuit_is_used_where_nothing_else_is_and_is_gone_at_once() {
    let mut side = Side::new(&[reflexive(PEER)]);
    let circuit = SocketAddr::from(Alias::Circuit(3));
    side.reachable = vec![circuit];
    side.pass(Duration::from_secs(2));
    assert_eq!(side.agent.chosen(), Path::Relay);
    side.agent.handle_circuits(&[3], side.now);
    side.pass(Duration::from_secs(1));
    assert_eq!(side.agent.chosen(), Path::Direct(circuit));
    assert_eq!((side.agent.straight(), side.agent.proven().count()), (None, 0));
    assert!(side.agent.lacks_direct(side.now), "a better one is looked for");
    side.agent.handle_circuits(&[], side.now);
    assert_eq!(side.agent.chosen(), Path::Relay);
    assert_eq!(side.agent.why().next().expect("a decision").reason, Reason::CircuitLost);
    // A ping over a circuit that there is not gets no answer, wherever it says that it came from.
    let pongs = side.pongs.len();
    side.ping_from(circuit);
    assert_eq!(side.pongs.len(), pongs);
    side.reachable.push(address(PEER));
    side.agent.handle_circuits(&[4], side.now);
    side.pass(Duration::from_secs(40));
    assert_eq!(side.agent.straight(), Some(address(PEER)));
    assert_eq!(side.agent.proven().collect::<Vec<_>>(), [address(PEER)]);
}

#[test]
fn nobody_else_can_name_a_way_through_an_allocation() {
    let filter = CandidateFilter::default();
    assert!(!filter.permits(through(4, PEER)));
    let mut side = Side::new(&[Candidate::new(CandidateKind::Local, through(4, "192.0.2.99:1"))]);
    side.agent.handle_allocations(&at_servers([4]), side.now);
    let candidates = vec![through(4, "192.0.2.98:1")];
    let call = Message::CallMeMaybe { candidates, ports: None };
    side.agent.handle_message(Path::Relay, call, side.now);
    // Nor is a ping answered over an allocation that there is not.
    side.ping_from(through(5, PEER));
    side.pass(Duration::from_secs(2));
    assert_eq!((side.probed.len(), side.pongs.len()), (0, 0));
    // What comes through one that there is, is: from wherever datagrams may be sent.
    side.ping_from(through(4, "127.0.0.1:1"));
    assert_eq!(side.pongs.len(), 0);
    side.ping_from(through(4, PEER));
    assert_eq!(side.pongs.len(), 1);
    assert!(side.probed.contains(&through(4, PEER)));
}

#[test]
fn a_host_that_is_named_to_be_flooded_gets_no_more_through_allocations() {
    let mut side = Side::new(&[reflexive(PEER)]);
    side.agent.handle_allocations(&at_servers([1, 2, 3, 4]), side.now);
    side.pass(Duration::from_secs(3));
    let at_peer = |to: &&SocketAddr| Alias::reached(**to) == address(PEER);
    assert!(side.probed.iter().filter(at_peer).count() <= 12 + 3);
}

#[test]
fn the_ways_that_are_tried_have_a_bound() {
    let hosts: Vec<_> = (1..=16).map(|host| reflexive(&format!("192.0.2.{host}:9"))).collect();
    let mut side = Side::new(&hosts);
    side.agent.handle_allocations(&at_servers([1, 2, 3, 4]), side.now);
    for port in 1..100 {
        side.ping_from(through(1, &format!("198.51.100.1:{port}")));
    }
    assert!(side.agent.remotes(side.now).len() <= 2 * MAX_CANDIDATES);
}

proptest! {
    #[test]
    fn an_address_of_its_own_making_says_what_went_in(
        number in 0_u32..1 << 30,
        ip in any::<[u8; 4]>(),
        port in any::<u16>(),
    ) {
        let peer = SocketAddrV4::new(ip.into(), port);
        for way in [Alias::Turn(number, peer), Alias::Circuit(number), Alias::Socket(number, peer)] {
            prop_assert_eq!(Alias::of(way.into()), Some(way));
            prop_assert!(!CandidateFilter::default().permits(way.into()));
        }
        for way in [Alias::Turn(number, peer), Alias::Socket(number, peer)] {
            prop_assert_eq!(Alias::reached(way.into()), SocketAddr::from(peer));
        }
        let circuit = Alias::Circuit(number).into();
        prop_assert_eq!(Alias::reached(circuit), circuit);
    }

    #[test]
    fn no_other_address_is_taken_for_one(ip in any::<u128>(), port in any::<u16>()) {
        let address = SocketAddr::new(std::net::Ipv6Addr::from(ip).into(), port);
        prop_assert_eq!(Alias::of(address).is_some(), ip >> 64 == 0x100 << 48);
        prop_assert_eq!(Alias::of(SocketAddr::from(([192, 0, 2, 1], port))), None);
    }
}

/// How long traffic without an answer goes on over a path that nothing passes any more.
fn time_to_leave(side: &mut Side) -> Duration {
    let (begin, path) = (side.now, side.agent.chosen());
    side.reachable.clear();
    while side.agent.chosen() == path {
        side.pass(Duration::from_millis(100));
        assert!(side.now < begin + Duration::from_secs(10), "it is left");
    }
    side.now - begin
}

#[test]
fn a_detour_that_is_dead_is_left_sooner_than_a_straight_path() {
    let mut side = Side::new(&[reflexive(PEER)]);
    side.agent.handle_allocations(&at_servers([4]), side.now);
    side.reachable = vec![through(4, PEER)];
    side.pass(Duration::from_secs(3));
    assert_eq!(side.agent.chosen(), Path::Direct(through(4, PEER)));
    let left = time_to_leave(&mut side);
    assert!((900..=1_300).contains(&left.as_millis()), "{left:?}");
    side.reachable = vec![address(PEER)];
    side.pass(Duration::from_secs(60));
    assert_eq!(side.agent.chosen(), Path::Direct(address(PEER)));
    let left = time_to_leave(&mut side);
    assert!((1_900..=2_500).contains(&left.as_millis()), "{left:?}");
}

#[test]
fn where_a_path_is_doubted_a_pong_alone_keeps_it() {
    let mut side = Side::new(&[reflexive(PEER)]);
    side.reachable = vec![address(PEER)];
    side.pass(Duration::from_secs(3));
    let direct = Path::Direct(address(PEER));
    assert_eq!(side.agent.chosen(), direct);
    side.agent.handle_doubt(side.now);
    side.pass(Duration::from_secs(2));
    assert_eq!(side.agent.chosen(), direct, "its pings are answered");
    // What was under way still comes, and pings are not answered any more.
    let hear = |side: &mut Side| {
        side.now += Duration::from_millis(100);
        side.agent.handle_received(direct, side.now);
        side.agent.handle_timeout(&mut side.budget, &mut side.rng, side.now);
        while side.agent.poll_transmit().is_some() {}
    };
    (0..10).for_each(|_| hear(&mut side));
    assert_eq!(side.agent.chosen(), direct, "nobody doubts it");
    side.agent.handle_doubt(side.now);
    (0..7).for_each(|_| hear(&mut side));
    assert_eq!(side.agent.chosen(), Path::Relay);
}

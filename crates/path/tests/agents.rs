//! Two agents and the network between them, on a virtual clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use path::{
    BASE_MTU, Candidate, CandidateFilter, CandidateKind, Counts, Message, Path, PathAgent,
    PathConfig, PathEvent, ProbeBudget, Reason,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

const A: &str = "198.51.100.1:1000";
const B: &str = "203.0.113.2:2000";
const RELAY_DELAY: Duration = Duration::from_millis(40);
const DIRECT_DELAY: Duration = Duration::from_millis(10);
/// By how much a probe is shorter than the packets that it stands for.
const SHORTER: usize = 48;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the test writes addresses")
}

fn candidate(text: &str) -> Candidate {
    Candidate::new(CandidateKind::Local, address(text))
}

struct Side {
    agent: PathAgent,
    /// What the tunnel has sent and received straight.
    counts: Counts,
    address: SocketAddr,
    budget: ProbeBudget,
    chosen: Vec<(Duration, Path)>,
}

struct Net {
    start: Instant,
    now: Instant,
    sides: [Side; 2],
    rng: ChaCha20Rng,
    in_flight: BTreeMap<(Instant, u64), (usize, Path, Vec<u8>)>,
    sent: u64,
    direct_works: bool,
    /// The largest packets that the direct path carries.
    widest: usize,
    /// Whether the direct path carries packets of the tunnel, beside pings.
    carries_tunnel: bool,
    has_session: bool,
    probes: BTreeMap<SocketAddr, u64>,
}

impl Net {
    fn new() -> Self {
        Self::for_packets_of(BASE_MTU)
    }

    fn for_packets_of(mtu: usize) -> Self {
        let start = Instant::now();
        let sides = [A, B].map(|own| Side {
            agent: PathAgent::new(PathConfig { udp: true, mtu, ..PathConfig::default() }),
            counts: Counts { sent: u32::MAX - 1, arrived: u32::MAX - 1 },
            address: address(own),
            budget: ProbeBudget::new(),
            chosen: Vec::new(),
        });
        let mut net = Self {
            start,
            now: start,
            sides,
            rng: ChaCha20Rng::seed_from_u64(1),
            in_flight: BTreeMap::new(),
            sent: 0,
            direct_works: true,
            widest: 9_000,
            carries_tunnel: true,
            has_session: true,
            probes: BTreeMap::new(),
        };
        for side in &mut net.sides {
            let own = Candidate::new(CandidateKind::Local, side.address);
            side.agent.handle_local_candidates(&[own], start);
            side.agent.handle_relay(true, start);
        }
        net
    }

    fn drain(&mut self) {
        for index in 0..2 {
            let other = self.sides[1 - index].address;
            let own = self.sides[index].address;
            let side = &mut self.sides[index];
            side.agent.handle_timeout(&mut side.budget, &mut self.rng, self.now);
            while let Some(transmit) = side.agent.poll_transmit() {
                let (path, delay) = match transmit.path {
                    Path::Relay | Path::Stream => (transmit.path, RELAY_DELAY),
                    Path::Direct(to) => {
                        *self.probes.entry(to).or_default() += 1;
                        let passes = transmit.payload.len() + SHORTER <= self.widest;
                        if to != other || !self.direct_works || !passes {
                            continue;
                        }
                        (Path::Direct(own), DIRECT_DELAY)
                    }
                    Path::None => panic!("nothing can be sent over no path"),
                };
                self.sent += 1;
                let key = (self.now + delay, self.sent);
                self.in_flight.insert(key, (1 - index, path, transmit.payload));
            }
            let mut tunnel_probes = 0;
            while let Some(event) = side.agent.poll_event() {
                if let PathEvent::Chosen(decision) = event {
                    side.chosen.push((self.now - self.start, decision.path));
                }
                tunnel_probes += u32::from(matches!(event, PathEvent::TunnelProbe { .. }));
            }
            self.count_straight(index, 3 * tunnel_probes);
        }
    }

    /// Packets of the tunnel go straight to the other side, if they pass.
    fn count_straight(&mut self, index: usize, packets: u32) {
        let counts = &mut self.sides[index].counts;
        counts.sent = counts.sent.wrapping_add(packets);
        if self.direct_works && self.carries_tunnel {
            let counts = &mut self.sides[1 - index].counts;
            counts.arrived = counts.arrived.wrapping_add(packets);
        }
        if self.has_session {
            self.sides.iter_mut().for_each(|side| side.agent.handle_counts(Some(side.counts)));
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.drain();
            let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
            let timers = self.sides.iter().filter_map(|side| side.agent.poll_timeout());
            let next = timers.map(|(at, _)| at).chain(arrival).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = next.max(self.now);
            while let Some(entry) = self.in_flight.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (to, path, payload) = entry.remove();
                let message = Message::decode(&payload).expect("agents encode messages");
                self.sides[to].agent.handle_message(path, message, self.now);
            }
        }
        self.now = end;
        self.drain();
    }

    /// One packet each way over whatever each side has chosen.
    fn exchange_traffic(&mut self) {
        for index in 0..2 {
            let path = self.sides[index].agent.chosen();
            let own = self.sides[index].address;
            let is_direct = matches!(path, Path::Direct(_));
            self.count_straight(index, u32::from(is_direct));
            self.sides[index].agent.handle_sent(self.now);
            let arrival = match path {
                Path::Direct(_) if self.direct_works && self.carries_tunnel => Path::Direct(own),
                Path::Relay | Path::Stream => path,
                Path::Direct(_) | Path::None => continue,
            };
            self.sides[1 - index].agent.handle_received(arrival, self.now);
        }
    }

    fn agent(&self, index: usize) -> &PathAgent {
        &self.sides[index].agent
    }
}

fn connected() -> Net {
    connected_for_packets_of(BASE_MTU)
}

fn connected_for_packets_of(mtu: usize) -> Net {
    let mut net = Net::for_packets_of(mtu);
    net.exchange_traffic();
    net.run(Duration::from_secs(1));
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert_eq!(net.agent(1).chosen(), Path::Direct(address(A)));
    net
}

#[test]
fn the_relay_is_chosen_before_anything_is_proven() {
    let net = Net::new();
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    assert_eq!(net.agent(0).why().next().unwrap().reason, Reason::RelayFirst);
}

#[test]
fn a_stream_goes_before_the_relay_and_a_direct_path_before_the_stream() {
    let mut net = Net::new();
    let now = net.now;
    for side in &mut net.sides {
        side.agent.handle_stream(true, now);
    }
    assert_eq!(net.agent(0).chosen(), Path::Stream);
    assert_eq!(net.agent(0).why().next().unwrap().reason, Reason::StreamOpen);
    // A session over frames says nothing of the way that these take.
    net.sides[0].agent.handle_session(Path::Relay, now);
    assert_eq!(net.agent(0).chosen(), Path::Stream);
    net.exchange_traffic();
    net.run(Duration::from_secs(1));
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    net.direct_works = false;
    net.exchange_traffic();
    net.run(Duration::from_secs(3));
    assert_eq!(net.agent(0).chosen(), Path::Stream);
    let now = net.now;
    net.sides[0].agent.handle_stream(false, now);
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    assert_eq!(net.agent(0).why().next().unwrap().reason, Reason::StreamLost);
    net.sides[0].agent.handle_relay(false, now);
    assert_eq!(net.agent(0).chosen(), Path::None);
    net.sides[0].agent.handle_stream(true, now);
    assert_eq!(net.agent(0).chosen(), Path::Stream);
}

#[test]
fn peers_without_traffic_send_nothing() {
    let mut net = Net::new();
    net.sides[0].agent.handle_remote_candidates(&[candidate(B)], net.now);
    net.run(Duration::from_secs(600));
    assert_eq!(net.sent, 0);
}

#[test]
fn traffic_over_the_relay_leads_both_ends_to_the_direct_path() {
    let net = connected();
    let reason = net.agent(0).why().next().unwrap().reason;
    assert_eq!(reason, Reason::Proven { latency: DIRECT_DELAY * 2 });
}

#[test]
fn a_dead_direct_path_is_left_two_seconds_after_unanswered_traffic() {
    let mut net = connected();
    net.direct_works = false;
    net.exchange_traffic();
    net.run(Duration::from_millis(1_990));
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    net.run(Duration::from_millis(20));
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    let reason = net.agent(0).why().next().unwrap().reason;
    assert_eq!(reason, Reason::Unanswered { since: Duration::from_secs(2) });
}

#[test]
fn a_direct_path_that_lives_again_is_found_again() {
    let mut net = connected();
    net.direct_works = false;
    net.exchange_traffic();
    net.run(Duration::from_secs(10));
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    net.direct_works = true;
    for _ in 0..40 {
        net.exchange_traffic();
        net.run(Duration::from_secs(1));
    }
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert_eq!(net.agent(1).chosen(), Path::Direct(address(A)));
}

#[test]
fn a_path_that_becomes_too_narrow_for_full_packets_is_left_though_small_ones_pass() {
    let mut net = connected();
    let exchange = |net: &mut Net, seconds: u64| {
        for _ in 0..seconds * 10 {
            net.exchange_traffic();
            net.run(Duration::from_millis(100));
        }
    };
    net.widest = BASE_MTU - 1;
    exchange(&mut net, 26);
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    assert_eq!(net.agent(1).chosen(), Path::Relay);
    assert_eq!(net.agent(0).why().next().unwrap().reason, Reason::Narrow);
    let changes = net.sides.each_ref().map(|side| side.chosen.len());
    exchange(&mut net, 120);
    assert_eq!(net.sides.each_ref().map(|side| side.chosen.len()), changes, "and stays left");
    net.widest = BASE_MTU;
    exchange(&mut net, 31);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert_eq!(net.agent(1).chosen(), Path::Direct(address(A)));
}

#[test]
fn larger_packets_are_sent_where_they_pass_and_smaller_ones_where_they_cease_to() {
    let mut net = connected_for_packets_of(1_420);
    assert_eq!((net.agent(0).mtu(), net.agent(0).is_searching()), (Some(1_420), false));
    let pass = |net: &mut Net, seconds: u64| {
        for _ in 0..seconds {
            net.exchange_traffic();
            net.run(Duration::from_secs(1));
        }
    };
    let before = net.sides[0].chosen.len();
    net.widest = 1_350;
    pass(&mut net, 40);
    let mtu = net.agent(0).mtu().expect("it is direct");
    assert!((1_334..=1_350).contains(&mtu), "{mtu}");
    let paths = [Path::Relay, Path::Direct(address(B))];
    let chosen = net.sides[0].chosen[before..].iter().map(|(_, path)| *path);
    assert!(chosen.eq(paths), "what is under way takes the relay");
    net.widest = BASE_MTU - 1;
    pass(&mut net, 40);
    assert_eq!((net.agent(0).chosen(), net.agent(0).mtu()), (Path::Relay, None));
    net.widest = 9_000;
    pass(&mut net, 40);
    assert_eq!(net.agent(0).mtu(), Some(mtu), "what did not pass is not tried at every turn");
    pass(&mut net, 600);
    assert_eq!(net.agent(0).mtu(), Some(1_420));
}

#[test]
fn an_outage_says_nothing_of_the_size_and_the_same_packets_pass_a_round_trip_after_it() {
    for has_relay in [false, true] {
        for has_traffic in [false, true] {
            let mut net = connected_for_packets_of(1_420);
            let now = net.now;
            net.sides.iter_mut().for_each(|side| side.agent.handle_relay(has_relay, now));
            net.direct_works = false;
            for _ in 0..100 {
                if has_traffic {
                    net.exchange_traffic();
                }
                net.run(Duration::from_millis(400));
                assert!(net.agent(0).mtu() != Some(BASE_MTU) || net.agent(0).is_trying_largest());
            }
            net.direct_works = true;
            let is_proven =
                |net: &Net| net.agent(0).remotes(net.now).iter().any(|remote| remote.proven);
            while !is_proven(&net) {
                net.exchange_traffic();
                net.run(Duration::from_millis(5));
            }
            net.run(DIRECT_DELAY * 2);
            assert_eq!(net.agent(0).mtu(), Some(1_420), "{has_relay} {has_traffic}");
        }
    }
}

#[test]
fn while_large_packets_are_sent_it_takes_ten_seconds_at_most_until_they_take_another_way() {
    let mut net = connected_for_packets_of(1_420);
    net.widest = 1_350;
    let mut waited = Duration::ZERO;
    while net.agent(0).mtu() == Some(1_420) {
        let now = net.now;
        net.exchange_traffic();
        net.sides[0].agent.handle_large_sent(now);
        net.run(Duration::from_millis(100));
        waited += Duration::from_millis(100);
    }
    assert!(waited <= Duration::from_secs(10), "{waited:?}");
}

#[test]
fn a_path_that_is_the_only_one_carries_smaller_packets_soon_after_it_ceases_to_carry_large_ones() {
    let mut net = connected_for_packets_of(1_420);
    net.run(Duration::from_secs(1));
    assert_eq!(net.agent(0).mtu(), Some(1_420));
    let now = net.now;
    net.sides.iter_mut().for_each(|side| side.agent.handle_relay(false, now));
    net.widest = 1_350;
    // One end sends large packets, of which none arrives.
    for _ in 0..30 {
        net.sides[0].agent.handle_sent(net.now);
        net.run(Duration::from_millis(100));
    }
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert!(net.agent(0).mtu().is_some_and(|mtu| mtu <= 1_350), "{:?}", net.agent(0).mtu());
    // In another network nothing is known of it either.
    net.widest = 9_000;
    net.run(Duration::from_secs(20));
    let now = net.now;
    net.sides[0].agent.handle_network_change(now);
    assert_eq!(net.agent(0).mtu(), Some(BASE_MTU));
    net.exchange_traffic();
    net.run(Duration::from_secs(1));
    assert_eq!(net.agent(0).mtu(), Some(1_420));
}

#[test]
fn the_size_of_packets_is_looked_for_only_while_there_is_traffic() {
    let mut net = Net::for_packets_of(1_420);
    net.widest = 1_300;
    net.exchange_traffic();
    net.run(Duration::from_secs(60));
    let mtu = net.agent(0).mtu().expect("it is direct");
    assert!((1_284..=1_300).contains(&mtu) && !net.agent(0).is_searching(), "{mtu}");
    net.run(Duration::from_secs(120));
    let before = net.sent;
    net.run(Duration::from_secs(1_200));
    assert_eq!(net.sent, before);
}

#[test]
fn a_path_that_carries_pings_and_no_packets_is_left_within_two_seconds_until_packets_pass() {
    let mut net = Net::new();
    net.carries_tunnel = false;
    let pass = |net: &mut Net, seconds: u64| {
        for _ in 0..seconds * 10 {
            net.exchange_traffic();
            net.run(Duration::from_millis(100));
        }
    };
    pass(&mut net, 1);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)), "it answers");
    pass(&mut net, 2);
    for index in 0..2 {
        assert_eq!(net.agent(index).chosen(), Path::Relay);
        assert_eq!(net.agent(index).why().next().unwrap().reason, Reason::Void);
    }
    let changes = net.sides.each_ref().map(|side| side.chosen.len());
    pass(&mut net, 590);
    assert_eq!(net.sides.each_ref().map(|side| side.chosen.len()), changes);
    net.carries_tunnel = true;
    pass(&mut net, 40);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    // The same after all has been well, and while only one end sends.
    pass(&mut net, 30);
    net.carries_tunnel = false;
    for _ in 0..40 {
        net.count_straight(0, 1);
        net.sides[0].agent.handle_sent(net.now);
        net.run(Duration::from_millis(100));
    }
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    // In another network it may be otherwise.
    let now = net.now;
    net.sides[0].agent.handle_network_change(now);
    net.run(Duration::from_millis(500));
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
}

#[test]
fn a_peer_without_a_session_or_another_path_is_no_reason_to_leave_one() {
    let mut net = connected();
    net.carries_tunnel = false;
    let send = |net: &mut Net| {
        for _ in 0..100 {
            net.count_straight(0, 1);
            net.sides[0].agent.handle_sent(net.now);
            net.run(Duration::from_millis(100));
        }
        assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    };
    // It was started anew and knows no session yet.
    net.has_session = false;
    net.sides[1].agent.handle_counts(None);
    send(&mut net);
    net.has_session = true;
    net.sides.iter_mut().for_each(|side| side.agent.handle_relay(false, net.now));
    send(&mut net);
}

#[test]
fn one_way_traffic_does_not_leave_a_path_that_answers_probes() {
    let mut net = connected();
    for _ in 0..50 {
        net.sides[0].agent.handle_sent(net.now);
        net.run(Duration::from_millis(300));
    }
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert_eq!(net.sides[0].chosen.len(), 2, "relay, then direct, then no change");
}

#[test]
fn keep_alives_hold_the_direct_path_while_there_was_traffic_and_stop_after() {
    let mut net = connected();
    net.run(Duration::from_secs(100));
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    net.run(Duration::from_secs(100));
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    assert_eq!(net.agent(0).why().next().unwrap().reason, Reason::Idle);
    let sent = net.sent;
    net.run(Duration::from_secs(3_600));
    assert_eq!(net.sent, sent, "an idle peer costs nothing");
}

#[test]
fn without_a_relay_announced_addresses_are_enough() {
    let mut net = Net::new();
    for side in &mut net.sides {
        side.agent.handle_relay(false, net.start);
    }
    assert_eq!(net.agent(0).chosen(), Path::None);
    net.sides[0].agent.handle_remote_candidates(&[candidate(B)], net.now);
    net.sides[0].agent.handle_sent(net.now);
    net.run(Duration::from_secs(1));
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
}

#[test]
fn a_network_change_goes_back_to_the_relay_and_probes_at_once() {
    let mut net = connected();
    let now = net.now;
    net.sides[0].agent.handle_network_change(now);
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    assert_eq!(net.agent(0).why().next().unwrap().reason, Reason::NetworkChanged);
    net.run(Duration::from_millis(500));
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
}

#[test]
fn a_session_that_the_peer_makes_another_way_moves_us_there_at_once() {
    let mut net = connected();
    let (now, elsewhere) = (net.now, Path::Direct(address("203.0.113.2:2001")));
    for (path, direct_works, later) in
        [(elsewhere, false, elsewhere), (Path::Relay, true, Path::Direct(address(B)))]
    {
        net.direct_works = direct_works;
        net.sides[0].agent.handle_session(path, now);
        assert_eq!(net.agent(0).chosen(), path);
        assert_eq!(net.agent(0).why().next().unwrap().reason, Reason::PeerMoved);
        net.run(Duration::from_millis(500));
        assert_eq!(net.agent(0).chosen(), later, "the way before comes back if it still works");
    }
}

#[test]
fn a_device_without_udp_stays_on_the_relay_and_never_sends_a_datagram() {
    let mut net = Net::new();
    net.sides[0].agent = PathAgent::new(PathConfig::default());
    net.sides[0].agent.handle_relay(true, net.now);
    for _ in 0..20 {
        net.exchange_traffic();
        net.run(Duration::from_secs(1));
    }
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    assert_eq!(net.agent(1).chosen(), Path::Relay);
    assert!(net.probes.is_empty());
}

#[test]
fn an_announced_victim_receives_a_bounded_number_of_probes() {
    let mut net = Net::new();
    net.direct_works = false;
    let target = address("192.0.2.9:53");
    for _ in 0..600 {
        let victim = Message::CallMeMaybe { candidates: vec![target], ports: None };
        net.sides[0].agent.handle_message(Path::Relay, victim, net.now);
        net.run(Duration::from_millis(100));
    }
    let probes = net.probes[&target];
    assert!((12..=12 + 60).contains(&probes), "{probes} probes in a minute");
}

#[test]
fn addresses_that_must_not_be_dialled_are_refused() {
    let overlay = vec!["fd42:1337:beef::/48".parse().unwrap(), "100.77.0.0/16".parse().unwrap()];
    let filter = CandidateFilter::new(overlay);
    for refused in [
        "[fd42:1337:beef:2::1]:1",
        "100.77.3.4:1",
        "127.0.0.1:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
        "224.0.0.1:1",
        "[ff02::1]:1",
        "[fe80::1]:1",
        "169.254.169.254:80",
        "[fd00:ec2::254]:80",
        "[::ffff:169.254.169.254]:80",
        "255.255.255.255:1",
        "0.0.0.0:1",
        "[::]:1",
        "192.0.2.1:0",
    ] {
        assert!(!filter.permits(address(refused)), "{refused}");
    }
    for permitted in ["192.168.1.2:1", "100.78.0.1:1", "[2001:db8::1]:1", "[fd00::1]:1"] {
        assert!(filter.permits(address(permitted)), "{permitted}");
    }
    assert!(filter.with_loopback(true).permits(address("127.0.0.1:1")));
}

#[test]
fn a_requested_ping_reports_the_relay_and_the_direct_path() {
    let mut net = connected();
    let now = net.now;
    net.sides[0].agent.handle_ping_request(now);
    let side = &mut net.sides[0];
    side.agent.handle_timeout(&mut side.budget, &mut net.rng, now);
    let mut paths = Vec::new();
    while let Some(transmit) = net.sides[0].agent.poll_transmit() {
        paths.push(transmit.path);
        let Ok(Message::Ping { transaction }) = Message::decode(&transmit.payload) else {
            continue;
        };
        let pong = Message::Pong { transaction, arrived: None };
        net.sides[0].agent.handle_message(transmit.path, pong, now + DIRECT_DELAY);
    }
    assert_eq!(paths, [Path::Relay, Path::Direct(address(B))]);
    let mut pongs = Vec::new();
    while let Some(event) = net.sides[0].agent.poll_event() {
        if let PathEvent::Pong { path, latency } = event {
            pongs.push((path, latency));
        }
    }
    assert_eq!(pongs, paths.into_iter().map(|path| (path, DIRECT_DELAY)).collect::<Vec<_>>());
}

#[test]
fn a_ping_is_not_answered_to_an_address_that_is_never_dialled() {
    let mut net = connected();
    let (now, transaction) = (net.now, path::TransactionId([7; 12]));
    let mut answers_to = |from: &str| {
        let agent = &mut net.sides[0].agent;
        while agent.poll_transmit().is_some() {}
        let path = Path::Direct(address(from));
        agent.handle_message(path, Message::Ping { transaction }, now);
        let is_pong = |payload: &[u8]| {
            let pong = Message::decode(payload);
            matches!(pong, Ok(Message::Pong { transaction: same, .. }) if same == transaction)
        };
        std::iter::from_fn(|| agent.poll_transmit()).any(|transmit| is_pong(&transmit.payload))
    };
    for never in ["127.0.0.1:53", "169.254.169.254:80", "[::ffff:127.0.0.1]:53", "224.0.0.1:9"] {
        assert!(!answers_to(never), "{never}");
    }
    assert!(answers_to("192.0.2.99:4000"), "a new address of the peer");
}

#[test]
fn a_link_that_was_dead_for_everything_is_found_alive_within_two_seconds() {
    let mut net = connected();
    let before = net.probes[&address(B)];
    net.direct_works = false;
    for side in &mut net.sides {
        side.agent.handle_relay(false, net.now);
    }
    for _ in 0..100 {
        net.exchange_traffic();
        net.run(Duration::from_millis(300));
    }
    let probes = net.probes[&address(B)] - before;
    // A burst while the path counts as proven, and then what the budget gives.
    assert!(probes <= 5 + 12 + 31, "{probes} probes in 30 s");
    net.direct_works = true;
    net.run(Duration::from_secs(2));
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert_eq!(net.agent(1).chosen(), Path::Direct(address(A)));
    assert!(net.agent(0).remotes(net.now).iter().any(|remote| remote.proven));
}

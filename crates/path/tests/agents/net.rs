//! Two agents and the network between them, on a virtual clock.

#![allow(unreachable_pub, reason = "a module shared by tests is no public API")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use path::{
    BASE_MTU, Candidate, CandidateKind, Counts, Message, Path, PathAgent, PathConfig, PathEvent,
    ProbeBudget,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub const A: &str = "198.51.100.1:1000";
pub const B: &str = "203.0.113.2:2000";
const RELAY_DELAY: Duration = Duration::from_millis(40);
pub const DIRECT_DELAY: Duration = Duration::from_millis(10);
/// By how much a probe is shorter than the packets that it stands for.
const SHORTER: usize = 48;

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("the test writes addresses")
}

pub fn candidate(text: &str) -> Candidate {
    Candidate::new(CandidateKind::Local, address(text))
}

pub struct Side {
    pub agent: PathAgent,
    /// What the tunnel has sent and received straight.
    pub counts: Counts,
    pub address: SocketAddr,
    pub budget: ProbeBudget,
    pub chosen: Vec<(Duration, Path)>,
}

/// A direct path between the two.
pub struct Route {
    /// The address of each.
    pub ends: [SocketAddr; 2],
    pub delay: Duration,
    /// What it takes longer at most, by chance.
    pub jitter: Duration,
    /// How many of a hundred datagrams are lost each way, ...
    pub loss: u32,
    /// ... if not others on the way to the first end.
    pub loss_back: Option<u32>,
}

pub struct Net {
    pub start: Instant,
    pub now: Instant,
    pub sides: [Side; 2],
    pub rng: ChaCha20Rng,
    pub in_flight: BTreeMap<(Instant, u64), (usize, Path, Vec<u8>)>,
    pub sent: u64,
    pub routes: Vec<Route>,
    pub direct_works: bool,
    pub relay_works: bool,
    /// The largest packets that the direct path carries.
    pub widest: usize,
    /// Whether the direct path carries packets of the tunnel, beside pings.
    pub carries_tunnel: bool,
    pub has_session: bool,
    pub probes: BTreeMap<SocketAddr, u64>,
}

impl Route {
    pub fn new(one: &str, other: &str) -> Self {
        let ends = [address(one), address(other)];
        Self { ends, delay: DIRECT_DELAY, jitter: Duration::ZERO, loss: 0, loss_back: None }
    }

    fn loses(&self, sender: usize, rng: &mut ChaCha20Rng) -> bool {
        let loss = self.loss_back.filter(|_| sender == 1).unwrap_or(self.loss);
        rng.next_u32() % 100 < loss
    }
}

impl Net {
    pub fn new() -> Self {
        Self::for_packets_of(BASE_MTU)
    }

    pub fn for_packets_of(mtu: usize) -> Self {
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
            routes: vec![Route::new(A, B)],
            direct_works: true,
            relay_works: true,
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
            let side = &mut self.sides[index];
            side.agent.handle_timeout(&mut side.budget, &mut self.rng, self.now);
            while let Some(transmit) = side.agent.poll_transmit() {
                let (path, delay) = match transmit.path {
                    Path::Relay | Path::Stream if !self.relay_works => continue,
                    Path::Relay | Path::Stream => (transmit.path, RELAY_DELAY),
                    Path::Direct(to) => {
                        *self.probes.entry(to).or_default() += 1;
                        let route = self.routes.iter().find(|route| route.ends[1 - index] == to);
                        let passes = transmit.payload.len() + SHORTER <= self.widest;
                        let Some(route) = route.filter(|_| self.direct_works && passes) else {
                            continue;
                        };
                        let is_lost = route.loses(index, &mut self.rng);
                        let jitter =
                            route.jitter.mul_f64(self.rng.next_u32() as f64 / u32::MAX as f64);
                        if is_lost {
                            continue;
                        }
                        (Path::Direct(route.ends[index]), route.delay + jitter)
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
    pub fn count_straight(&mut self, index: usize, packets: u32) {
        let counts = &mut self.sides[index].counts;
        counts.sent = counts.sent.wrapping_add(packets);
        let chosen = self.sides[index].agent.chosen();
        let route = self.routes.iter().find(|route| chosen == Path::Direct(route.ends[1 - index]));
        if let Some(route) = route.filter(|_| self.direct_works && self.carries_tunnel) {
            let arrived = (0..packets).filter(|_| !route.loses(index, &mut self.rng)).count();
            let counts = &mut self.sides[1 - index].counts;
            counts.arrived = counts.arrived.wrapping_add(arrived as u32);
        }
        if self.has_session {
            self.sides.iter_mut().for_each(|side| side.agent.handle_counts(Some(side.counts)));
        }
    }

    pub fn run(&mut self, duration: Duration) {
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
                if let (Path::Relay, Message::Ping { transaction }) = (path, &message) {
                    // As a choice among relays answers it.
                    let pong = Message::Pong { transaction: *transaction, arrived: None };
                    self.sent += 1;
                    let key = (self.now + RELAY_DELAY, self.sent);
                    self.in_flight.insert(key, (1 - to, path, pong.encode()));
                }
                self.sides[to].agent.handle_message(path, message, self.now);
            }
        }
        self.now = end;
        self.drain();
    }

    /// One packet each way over whatever each side has chosen.
    pub fn exchange_traffic(&mut self) {
        for index in 0..2 {
            let path = self.sides[index].agent.chosen();
            let is_direct = matches!(path, Path::Direct(_));
            let before = self.sides[1 - index].counts.arrived;
            self.count_straight(index, u32::from(is_direct));
            self.sides[index].agent.handle_sent(self.now);
            let has_come = self.sides[1 - index].counts.arrived != before;
            let arrival = match path {
                Path::Direct(to) if has_come => {
                    let route = self.routes.iter().find(|route| route.ends[1 - index] == to);
                    Path::Direct(route.expect("it came that way").ends[index])
                }
                Path::Relay | Path::Stream if self.relay_works => path,
                Path::Direct(_) | Path::Relay | Path::Stream | Path::None => continue,
            };
            self.sides[1 - index].agent.handle_received(arrival, self.now);
        }
    }

    pub fn agent(&self, index: usize) -> &PathAgent {
        &self.sides[index].agent
    }
}

pub fn connected() -> Net {
    connected_for_packets_of(BASE_MTU)
}

pub fn connected_for_packets_of(mtu: usize) -> Net {
    let mut net = Net::for_packets_of(mtu);
    net.exchange_traffic();
    net.run(Duration::from_secs(1));
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert_eq!(net.agent(1).chosen(), Path::Direct(address(A)));
    net
}

//! Two ends of which one is behind a translator that gives ports at random.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use path::{
    Alias, Candidate, CandidateKind, Message, Path, PathAgent, PathConfig, PathEvent, ProbeBudget,
    Reason, SOCKETS, SOCKETS_KEPT,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(5);
/// The end whose translator keeps one port, and filters by address and port.
const STEADY: &str = "198.51.100.1:1000";
/// Where the other's translator is, and the port that a STUN server saw there.
const SEEN: &str = "203.0.113.7:40000";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the test writes addresses")
}

struct End {
    agent: PathAgent,
    budget: ProbeBudget,
    rng: ChaCha20Rng,
}

impl End {
    fn new(seed: u64, own: &str, peer: &str, now: Instant) -> Self {
        let mut agent = PathAgent::new(PathConfig { udp: true, ..PathConfig::default() });
        let candidate = |text| Candidate::new(CandidateKind::Reflexive, address(text));
        agent.handle_local_candidates(&[candidate(own)], now);
        agent.handle_relay(true, now);
        agent.handle_remote_candidates(&[candidate(peer)], now);
        Self { agent, budget: ProbeBudget::new(), rng: ChaCha20Rng::seed_from_u64(seed) }
    }
}

/// Both, a relay, and the translators between them.
struct Pair {
    steady: End,
    random: End,
    now: Instant,
    /// Ports that the translator gave to sockets of the second end, by number; the device's own has none.
    mappings: BTreeMap<Option<u32>, u16>,
    /// What the second end's sockets are now.
    sockets: Range<u32>,
    wanted: usize,
    /// Whether guesses hit what they could.
    is_lucky: bool,
    guessed: Vec<SocketAddr>,
    pings: usize,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let (mut steady, mut random) =
            (End::new(1, STEADY, SEEN, now), End::new(seed, SEEN, STEADY, now));
        steady.agent.handle_translator(Some(false));
        random.agent.handle_translator(Some(true));
        let (mappings, sockets, guessed) = (BTreeMap::new(), 0..0, Vec::new());
        Self {
            steady,
            random,
            now,
            mappings,
            sockets,
            wanted: 0,
            is_lucky: true,
            guessed,
            pings: 0,
        }
    }

    fn path_of_steady(&self) -> Path {
        self.steady.agent.chosen()
    }

    /// Traffic in both directions, for so long.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for end in [&mut self.steady, &mut self.random] {
                end.agent.handle_sent(self.now);
                let path = end.agent.chosen();
                end.agent.handle_received(path, self.now);
                end.agent.handle_timeout(&mut end.budget, &mut end.rng, self.now);
            }
            // What one sends at once arrives at once, and so does what that brings about.
            for _ in 0..4 {
                self.carry_to_random();
                self.carry_to_steady();
            }
        }
    }

    fn carry_to_random(&mut self) {
        while let Some(PathEvent::Chosen(_) | PathEvent::Pong { .. }) =
            self.steady.agent.poll_event()
        {}
        while let Some(transmit) = self.steady.agent.poll_transmit() {
            let message = Message::decode(&transmit.payload).expect("agents encode messages");
            match transmit.path {
                Path::Direct(to) => {
                    self.guessed.push(to);
                    let is_there = |mapping: &(&Option<u32>, &u16)| *mapping.1 == to.port();
                    let hit = self.mappings.iter().find(is_there).map(|(socket, _)| *socket);
                    let from = match hit {
                        Some(Some(number)) if self.is_lucky && self.sockets.contains(&number) => {
                            Alias::Socket(number, STEADY.parse().expect("an address")).into()
                        }
                        Some(None) => address(STEADY),
                        Some(Some(_)) | None => continue,
                    };
                    self.random.agent.handle_message(Path::Direct(from), message, self.now);
                }
                Path::None | Path::Relay | Path::Stream => {
                    self.random.agent.handle_message(Path::Relay, message, self.now)
                }
            }
        }
    }

    fn carry_to_steady(&mut self) {
        while let Some(event) = self.random.agent.poll_event() {
            match event {
                PathEvent::SurveyWanted { .. } => self.random.agent.handle_survey(None, self.now),
                PathEvent::SocketsWanted { to } => {
                    assert_eq!(SocketAddr::V4(to), address(STEADY));
                    self.wanted += 1;
                    self.sockets = self.sockets.end..self.sockets.end + SOCKETS;
                    let End { agent, rng, .. } = &mut self.random;
                    agent.handle_sockets(self.sockets.clone(), to, rng, self.now);
                }
                PathEvent::Chosen(_)
                | PathEvent::Mtu
                | PathEvent::TunnelProbe { .. }
                | PathEvent::Pong { .. } => {}
            }
        }
        while let Some(transmit) = self.random.agent.poll_transmit() {
            let message = Message::decode(&transmit.payload).expect("agents encode messages");
            let socket = match transmit.path {
                Path::Direct(to) => match Alias::of(to) {
                    Some(Alias::Socket(number, _)) => Some(number),
                    _ if to == address(STEADY) => None,
                    _ => continue,
                },
                Path::None | Path::Relay | Path::Stream => {
                    self.steady.agent.handle_message(Path::Relay, message, self.now);
                    continue;
                }
            };
            self.pings += usize::from(socket.is_some());
            let rng = &mut self.random.rng;
            let port = *self.mappings.entry(socket).or_insert_with(|| {
                1_024 + u16::try_from(rng.next_u32() % 64_512).expect("there are fewer ports")
            });
            let from = SocketAddr::new(address(SEEN).ip(), port);
            // Whom the first end has not sent to does not get in there.
            if self.is_lucky && self.guessed.contains(&from) {
                self.steady.agent.handle_message(Path::Direct(from), message, self.now);
            }
        }
    }
}

#[test]
fn one_of_256_sockets_is_found_by_1024_guesses_at_most_and_is_a_path_like_others() {
    let mut found = 0;
    for seed in 0..12 {
        let mut pair = Pair::new(seed);
        pair.run(5 * SECOND);
        assert_eq!((pair.wanted, pair.path_of_steady()), (0, Path::Relay), "others come first");
        pair.run(14 * SECOND);
        assert_eq!(pair.wanted, 1);
        let Path::Direct(to) = pair.path_of_steady() else { continue };
        found += 1;
        let Path::Direct(from) = pair.random.agent.chosen() else { panic!("both ends use it") };
        let Some(Alias::Socket(number, _)) = Alias::of(from) else { panic!("by a socket: {from}") };
        assert_eq!(to.port(), pair.mappings[&Some(number)]);
        assert!(!pair.random.agent.lacks_direct(pair.now), "nothing better is looked for");
        assert_eq!(pair.random.agent.straight(), None, "it is not the device's own socket");
        // The others go; it stays.
        pair.random.agent.handle_sockets_closed(Some(number), pair.now);
        pair.sockets = number..number + 1;
        pair.run(60 * SECOND);
        assert_eq!(pair.random.agent.chosen(), Path::Direct(from));
        // It goes as well.
        pair.random.agent.handle_sockets_closed(None, pair.now);
        assert_eq!(pair.random.agent.chosen(), Path::Relay);
        assert_eq!(pair.random.agent.why().next().expect("one").reason, Reason::SocketLost);
    }
    assert!(found >= 10, "{found} of 12");
}

#[test]
fn an_attempt_has_1024_guesses_at_ports_of_their_own_and_there_are_two_in_an_hour() {
    let mut pair = Pair { is_lucky: false, ..Pair::new(1) };
    let mut attempts = Vec::new();
    for _ in 0..12 {
        let before = pair.guessed.len();
        pair.run(600 * SECOND);
        let guesses: Vec<_> =
            pair.guessed[before..].iter().filter(|to| **to != address(SEEN)).collect();
        assert!(guesses.iter().all(|to| to.ip() == address(SEEN).ip() && to.port() >= 1_024));
        let ports: BTreeSet<_> = guesses.iter().map(|to| to.port()).collect();
        assert_eq!(ports.len(), guesses.len());
        attempts.push(guesses.len());
    }
    for (window, guesses) in attempts.iter().enumerate() {
        // One of the guesses may be at the port that was announced, which is not counted here.
        let expected: &[usize] = if window % 3 == 0 { &[1_023, 1_024] } else { &[0] };
        assert!(expected.contains(guesses), "{attempts:?}");
    }
    assert_eq!((pair.wanted, pair.pings), (4, 4 * SOCKETS as usize), "none for nothing");
}

#[test]
fn guesses_are_made_only_for_a_peer_that_was_let_open_sockets() {
    let at = Ipv4Addr::new(203, 0, 113, 7);
    let made = |question: Option<Ipv4Addr>, dependent: Option<bool>, pause: Duration| {
        let mut pair = Pair::new(1);
        pair.steady.agent.handle_translator(dependent);
        pair.run(SECOND);
        let before = pair.guessed.len();
        if let Some(at) = question {
            let request = Message::MappingRequest { at };
            pair.steady.agent.handle_message(Path::Relay, request, pair.now);
        }
        pair.run(pause);
        pair.steady.agent.handle_message(Path::Relay, Message::Scattered, pair.now);
        pair.run(2 * SECOND);
        pair.guessed[before..].iter().filter(|to| **to != address(SEEN)).count()
    };
    let (soon, late) = (SECOND, 3 * SECOND);
    assert!(made(Some(at), Some(false), soon) > 100);
    assert_eq!(made(None, Some(false), soon), 0, "nobody asked");
    assert_eq!(made(Some(at), Some(false), late), 0, "it took too long");
    assert_eq!(made(Some(at), Some(true), soon), 0, "the sockets lead elsewhere");
    assert_eq!(made(Some(at), None, soon), 0, "nobody knows where they lead");
    assert_eq!(made(Some(Ipv4Addr::new(203, 0, 113, 8)), Some(false), soon), 0, "not announced");
}

#[test]
fn what_a_translator_does_is_told_once_it_is_known() {
    let told = |dependent: Option<bool>| {
        let mut pair = Pair::new(1);
        let End { agent, budget, rng } = &mut pair.steady;
        agent.handle_translator(dependent);
        agent.handle_sent(pair.now);
        let request = Message::MappingRequest { at: Ipv4Addr::new(203, 0, 113, 7) };
        agent.handle_message(Path::Relay, request, pair.now);
        agent.handle_timeout(budget, rng, pair.now);
        let sent = std::iter::from_fn(|| agent.poll_transmit());
        let mut messages = sent.filter_map(|one| Message::decode(&one.payload).ok());
        messages.find_map(|message| {
            if let Message::Mapping { steady } = message { Some(steady) } else { None }
        })
    };
    assert_eq!(told(Some(false)), Some(Some(address(STEADY))));
    assert_eq!(told(Some(true)), Some(None));
    assert_eq!(told(None), None, "the peer asks again");
}

#[test]
fn a_peer_that_asks_on_and_on_gets_one_attempt_in_two_minutes_and_four_in_an_hour() {
    let mut pair = Pair::new(1);
    let mut lets = 0;
    for second in 0..3_000 {
        pair.now += SECOND;
        let End { agent, budget, rng } = &mut pair.steady;
        agent.handle_sent(pair.now);
        let request = Message::MappingRequest { at: Ipv4Addr::new(203, 0, 113, 7) };
        agent.handle_message(Path::Relay, request, pair.now);
        agent.handle_timeout(budget, rng, pair.now);
        while let Some(transmit) = agent.poll_transmit() {
            let message = Message::decode(&transmit.payload).expect("agents encode messages");
            lets += usize::from(matches!(message, Message::Mapping { steady: Some(_) }));
        }
        assert!(lets <= 1 + second / 120, "{lets} after {second} s");
    }
    assert_eq!(lets, 4);
}

#[test]
fn a_peer_that_does_not_answer_is_asked_less_and_less() {
    let mut pair = Pair::new(1);
    let (mut asked, end) = (0, pair.now + 600 * SECOND);
    while pair.now < end {
        pair.now += STEP;
        let End { agent, budget, rng } = &mut pair.random;
        agent.handle_sent(pair.now);
        agent.handle_received(Path::Relay, pair.now);
        agent.handle_timeout(budget, rng, pair.now);
        while let Some(event) = agent.poll_event() {
            if matches!(event, PathEvent::SurveyWanted { .. }) {
                agent.handle_survey(None, pair.now);
            }
        }
        while let Some(transmit) = agent.poll_transmit() {
            let message = Message::decode(&transmit.payload).expect("agents encode messages");
            asked += usize::from(matches!(message, Message::MappingRequest { .. }));
        }
    }
    assert!((8..=12).contains(&asked), "{asked} questions in ten minutes");
}

#[test]
fn sockets_are_opened_only_when_asked_for_and_only_towards_an_announced_address() {
    /// What comes of answers, one after the other, by an end that waits for one.
    fn wanted(answers: &[&str]) -> Vec<PathEvent> {
        let mut pair = Pair::new(1);
        pair.run(4 * SECOND);
        for _ in 0..400 {
            pair.now += STEP;
            let End { agent, budget, rng } = &mut pair.random;
            agent.handle_sent(pair.now);
            agent.handle_timeout(budget, rng, pair.now);
            if matches!(agent.poll_event(), Some(PathEvent::SurveyWanted { .. })) {
                agent.handle_survey(None, pair.now);
            }
        }
        let agent = &mut pair.random.agent;
        for steady in answers {
            let mapping = Message::Mapping { steady: Some(address(steady)) };
            agent.handle_message(Path::Relay, mapping, pair.now);
        }
        std::iter::from_fn(|| agent.poll_event()).collect()
    }
    let to = STEADY.parse().expect("an address");
    assert_eq!(wanted(&[STEADY]), [PathEvent::SocketsWanted { to }]);
    assert_eq!(wanted(&["198.51.100.2:1000"]), [], "it is not among the peer's");
    assert_eq!(wanted(&["198.51.100.2:1000", STEADY]), [], "one question, one answer");
}

#[test]
fn the_sockets_stay_for_longer_than_guesses_take() {
    // With two seconds for what the peer has to be told.
    assert!(SOCKETS_KEPT > Duration::from_millis(1_024 * 10) + 2 * SECOND);
}

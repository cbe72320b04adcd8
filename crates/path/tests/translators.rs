//! Translators: their kinds, how they count, and guesses at their ports.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use path::{
    Candidate, CandidateKind, Mapping, Message, Path, PathAgent, PathConfig, PathEvent,
    PortSequence, ProbeBudget, StunClient, stun,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the test writes addresses")
}

fn mappings(ports: &[u16]) -> Vec<SocketAddr> {
    ports.iter().map(|port| SocketAddr::from(([203, 0, 113, 7], *port))).collect()
}

#[test]
fn the_kind_of_mapping_shows_in_what_servers_on_two_addresses_and_two_ports_see() {
    use Mapping::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    let servers = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478"].map(address);
    let of = |ports: [u16; 3]| {
        let answers: Vec<_> = servers.into_iter().zip(mappings(&ports)).collect();
        Mapping::of(&answers)
    };
    assert_eq!(of([5_000, 5_000, 5_000]), Some(EndpointIndependent));
    assert_eq!(of([5_000, 5_000, 5_001]), Some(AddressDependent));
    assert_eq!(of([5_000, 5_001, 5_002]), Some(AddressAndPortDependent));
    assert_eq!(Mapping::of(&[(servers[0], address("203.0.113.7:1"))]), None);
    let ipv6 = [("[2001:db8::1]:1", 1), ("[2001:db8::2]:1", 2)];
    let ipv6 =
        ipv6.map(|(server, port)| (address(server), SocketAddr::from(([203, 0, 113, 7], port))));
    assert_eq!(Mapping::of(&ipv6), None);
}

#[test]
fn counted_ports_are_told_from_others_even_if_somebody_else_took_some_in_between() {
    let step = |ports: &[u16]| PortSequence::of(&mappings(ports)).map(|found| found.step);
    assert_eq!(step(&[5_000, 5_001, 5_002, 5_003]), Some(1));
    assert_eq!(step(&[5_000, 5_003, 5_004, 5_009]), Some(1));
    assert_eq!(step(&[5_000, 5_002, 5_006]), Some(2));
    assert_eq!(step(&[30_000, 30_256, 30_512]), Some(256));
    assert_eq!(step(&[5_003, 5_002, 5_001]), Some(-1));
    for others in [
        &[5_000, 5_001][..],
        &[5_000, 5_000, 5_000],
        &[5_000, 5_000, 5_001],
        &[5_000, 5_001, 5_000],
        &[5_000, 5_001, 5_010],
        &[41_004, 20_177, 63_922, 1_030],
        &[10_000, 20_000, 30_000],
    ] {
        assert_eq!(step(others), None, "{others:?}");
    }
}

#[test]
fn a_sequence_ends_where_ports_do() {
    let up = PortSequence { last: address("203.0.113.7:65534"), step: 1 };
    assert_eq!(up.nth(1), Some(address("203.0.113.7:65535")));
    assert_eq!(up.nth(2), None);
    let down = PortSequence { last: address("203.0.113.7:1025"), step: -1 };
    assert_eq!(down.nth(1), Some(address("203.0.113.7:1024")));
    assert_eq!(down.nth(2), None, "a port of a service");
    assert_eq!(PortSequence { step: i16::MIN, ..up }.nth(u16::MAX), None);
}

/// A client that knows two servers, which have answered.
fn client(now: Instant, rng: &mut ChaCha20Rng) -> StunClient {
    let servers = ["192.0.2.1:3478", "192.0.2.2:3478"].map(address);
    let mut client = StunClient::new();
    client.handle_servers(&servers, &[], now);
    client.handle_timeout(rng, now);
    let mut port = 5_000;
    while let Some((server, request)) = client.poll_transmit() {
        let source = SocketAddr::from(([203, 0, 113, 7], port));
        let answer = stun::answer(&request, source, true).expect("a request").bytes;
        assert!(client.handle_response(server, &answer, now));
        port += 1;
    }
    client
}

#[test]
fn a_survey_asks_from_two_new_sockets_and_finds_how_ports_are_counted() {
    let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let mut client = client(now, &mut rng);
    assert_eq!(client.mapping(), Some(Mapping::AddressDependent));
    assert!(client.survey(&mut rng, now));
    assert!(!client.survey(&mut rng, now), "one at a time");
    let mut port = 5_010;
    for _ in 0..2 {
        let datagrams = client.poll_fresh_socket().expect("two sockets");
        assert_eq!(datagrams.len(), 2);
        for (server, request) in datagrams {
            assert_eq!(client.poll_surveyed(now), None);
            let mapping = SocketAddr::from(([203, 0, 113, 7], port));
            let answer = stun::answer(&request, mapping, true).expect("a request").bytes;
            let forged = client.handle_response(address("192.0.2.9:3478"), &answer, now);
            assert!(!forged && client.poll_surveyed(now).is_none(), "only the server counts");
            assert!(!client.handle_response(server, &answer, now), "our own addresses stay");
            port += 3;
        }
    }
    assert!(client.poll_fresh_socket().is_none());
    let found = PortSequence { last: address("203.0.113.7:5019"), step: 3 };
    assert_eq!(client.poll_surveyed(now), Some(Some(found)));
    assert_eq!(client.poll_surveyed(now), None);
}

#[test]
fn a_survey_that_nobody_answers_ends_after_half_a_second() {
    let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let mut client = client(now, &mut rng);
    assert!(client.survey(&mut rng, now));
    let (at, reason) = client.poll_timeout().expect("a deadline");
    assert_eq!((at, reason), (now + SECOND / 2, "port survey"));
    assert_eq!(client.poll_surveyed(at - SECOND / 100), None);
    assert_eq!(client.poll_surveyed(at), Some(None));
    assert!(!client.is_surveying());
    assert!(!StunClient::new().survey(&mut rng, now), "there is nobody to ask");
}

/// An agent with traffic for a peer that does not answer.
struct Side {
    agent: PathAgent,
    budget: ProbeBudget,
    rng: ChaCha20Rng,
    now: Instant,
    sent: Vec<(Instant, Path, Message)>,
    surveys: usize,
}

impl Side {
    fn new() -> Self {
        Self::with(false)
    }

    fn with(leads: bool) -> Self {
        let now = Instant::now();
        let mut agent = PathAgent::new(PathConfig { udp: true, leads, ..PathConfig::default() });
        let own = Candidate::new(CandidateKind::Reflexive, address("198.51.100.1:1000"));
        agent.handle_local_candidates(&[own], now);
        agent.handle_relay(true, now);
        let (budget, rng) = (ProbeBudget::new(), ChaCha20Rng::seed_from_u64(1));
        let mut side = Self { agent, budget, rng, now, sent: Vec::new(), surveys: 0 };
        side.drain();
        side
    }

    fn drain(&mut self) {
        self.agent.handle_timeout(&mut self.budget, &mut self.rng, self.now);
        while let Some(transmit) = self.agent.poll_transmit() {
            let message = Message::decode(&transmit.payload).expect("agents encode messages");
            self.sent.push((self.now, transmit.path, message));
        }
        while let Some(event) = self.agent.poll_event() {
            self.surveys += usize::from(matches!(event, PathEvent::SurveyWanted { .. }));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.agent.poll_timeout().filter(|(at, _)| *at <= end) {
            assert!(at > self.now || !self.sent.is_empty(), "time goes on");
            self.now = at.max(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn call(&mut self, candidates: &[&str], last: &str, step: i16) {
        let candidates = candidates.iter().map(|text| address(text)).collect();
        let ports = Some(PortSequence { last: address(last), step });
        let call = Message::CallMeMaybe { candidates, ports };
        self.agent.handle_message(Path::Relay, call, self.now);
        self.drain();
    }

    /// Where pings went beside these addresses, with their times.
    fn guesses(&self, announced: &[&str]) -> Vec<(Instant, SocketAddr)> {
        let announced: Vec<_> = announced.iter().map(|text| address(text)).collect();
        let direct = self.sent.iter().filter_map(|(at, path, _)| match path {
            Path::Direct(to) => Some((*at, *to)),
            Path::Relay | Path::Stream | Path::None => None,
        });
        direct.filter(|(_, to)| !announced.contains(to)).collect()
    }
}

const PEER: &str = "203.0.113.7:5000";

#[test]
fn a_call_from_behind_a_counting_translator_leads_to_64_guesses_within_a_second() {
    let mut side = Side::new();
    side.call(&[PEER], "203.0.113.7:6000", 2);
    side.run(SECOND);
    let guesses = side.guesses(&[PEER]);
    let ports: Vec<_> = guesses.iter().map(|(_, to)| to.port()).collect();
    let expected: Vec<_> = (1..=64).map(|number| 6_000 + 2 * number).collect();
    assert_eq!(ports, expected);
    assert!(guesses.windows(2).all(|two| two[1].0 - two[0].0 >= Duration::from_millis(10)));
    // The same call again is none; much later it goes on with the ports behind.
    side.call(&[PEER], "203.0.113.7:6000", 2);
    side.run(20 * SECOND);
    assert_eq!(side.guesses(&[PEER]).len(), 64);
    side.run(5 * SECOND);
    side.call(&[PEER], "203.0.113.7:6000", 2);
    side.run(SECOND);
    assert_eq!(side.guesses(&[PEER])[64].1.port(), 6_000 + 2 * 65);
}

#[test]
fn guesses_go_only_to_addresses_that_the_same_call_announces_and_that_may_be_dialled() {
    let mut side = Side::new();
    for (announced, guessed) in [
        (PEER, "203.0.113.8:6000"),
        ("127.0.0.1:5000", "127.0.0.1:6000"),
        ("[2001:db8::1]:5000", "[2001:db8::1]:6000"),
    ] {
        side.call(&[announced], guessed, 1);
        side.agent.handle_sent(side.now);
        side.run(30 * SECOND);
        assert_eq!(side.guesses(&[PEER, "[2001:db8::1]:5000"]), []);
    }
    // Nor to ports of services.
    side.call(&[PEER], "203.0.113.7:1030", -1);
    side.run(SECOND);
    let guesses = side.guesses(&[PEER, "[2001:db8::1]:5000"]);
    let ports: BTreeSet<_> = guesses.iter().map(|(_, to)| to.port()).collect();
    assert_eq!(ports, (1_024..1_030).collect());
}

#[test]
fn one_address_receives_at_most_384_guesses_an_hour_whatever_is_announced() {
    let mut side = Side::new();
    let begin = side.now;
    let mut round = 0_u16;
    while side.now < begin + HOUR {
        // Each call says something else, so that each is worth an attempt.
        side.call(&[PEER], &format!("203.0.113.7:{}", 2_000 + round), 1);
        side.agent.handle_sent(side.now);
        side.run(3 * SECOND);
        round += 1;
    }
    let guesses = side.guesses(&[PEER]);
    assert!((320..=384).contains(&guesses.len()), "{} guesses", guesses.len());
    assert!(guesses.windows(2).all(|two| two[1].0 - two[0].0 >= Duration::from_millis(10)));
    side.call(&[PEER], "203.0.113.7:60000", 1);
    side.run(3 * SECOND);
    assert!(side.guesses(&[PEER]).len() > guesses.len(), "the next hour has its own");
}

#[test]
fn one_attempt_at_a_time_is_on_for_all_peers_of_a_device() {
    let (mut one, mut other) = (Side::new(), Side::new());
    other.now = one.now;
    one.call(&[PEER], "203.0.113.7:6000", 1);
    other.call(&["203.0.113.8:5000"], "203.0.113.8:6000", 1);
    // Both work with one budget, in turns.
    for _ in 0..400 {
        one.run(SECOND / 200);
        std::mem::swap(&mut one.budget, &mut other.budget);
        other.run(SECOND / 200);
        std::mem::swap(&mut one.budget, &mut other.budget);
    }
    let (first, second) = (one.guesses(&[PEER]), other.guesses(&["203.0.113.8:5000"]));
    assert_eq!((first.len(), second.len()), (64, 64));
    assert!(first[63].0 <= second[0].0, "one after the other");
}

#[test]
fn behind_a_dependent_translator_nothing_is_sent_before_the_survey_and_the_call_tells_its_outcome()
{
    let mut side = Side::new();
    side.agent.handle_translator(Some(true));
    let peer = Candidate::new(CandidateKind::Reflexive, address(PEER));
    side.agent.handle_remote_candidates(&[peer], side.now);
    side.agent.handle_sent(side.now);
    side.drain();
    side.run(SECOND / 10);
    assert_eq!((side.surveys, side.sent.len()), (1, 0));
    let ports = Some(PortSequence { last: address("198.51.100.1:7000"), step: 1 });
    side.agent.handle_survey(ports, side.now);
    side.drain();
    let candidates = vec![address("198.51.100.1:1000")];
    assert_eq!(side.sent[0].2, Message::CallMeMaybe { candidates, ports });
    assert_eq!(side.sent[1].1, Path::Direct(address(PEER)));
    // The mapping stays, and so does what is said of it.
    side.run(31 * SECOND);
    side.agent.handle_sent(side.now);
    side.run(31 * SECOND);
    assert_eq!(side.surveys, 1);
}

#[test]
fn a_survey_without_an_outcome_delays_a_call_by_3_s_at_most() {
    let mut side = Side::new();
    side.agent.handle_translator(Some(true));
    side.agent.handle_sent(side.now);
    let begin = side.now;
    side.drain();
    side.run(4 * SECOND);
    let (at, path, message) = &side.sent[0];
    assert_eq!((*at, *path), (begin + 3 * SECOND, Path::Relay));
    assert!(matches!(message, Message::CallMeMaybe { ports: None, .. }));
}

/// Where the peer's count stands.
fn told(last: &str) -> Message {
    Message::Rendezvous { ports: PortSequence { last: address(last), step: 1 } }
}

#[test]
fn who_is_asked_for_a_rendezvous_tells_its_own_count_and_guesses_from_there() {
    let mut side = Side::new();
    side.agent.handle_translator(Some(true));
    side.call(&[PEER], "203.0.113.7:6000", 1);
    let own =
        |port: u16| PortSequence { last: SocketAddr::from(([198, 51, 100, 1], port)), step: 1 };
    side.agent.handle_survey(Some(own(7_000)), side.now);
    side.drain();
    side.run(3 * SECOND);
    assert_eq!(side.guesses(&[PEER]), [], "the peer leads, and has not asked");
    side.agent.handle_message(Path::Relay, told("203.0.113.7:6100"), side.now);
    side.drain();
    side.sent.clear();
    assert_eq!(side.surveys, 2);
    side.agent.handle_survey(Some(own(7_100)), side.now);
    side.drain();
    side.run(SECOND);
    assert_eq!(side.sent[0].2, Message::Rendezvous { ports: own(7_100) });
    let ports: Vec<_> = side.guesses(&[PEER]).iter().map(|(_, to)| to.port()).collect();
    assert_eq!(ports, (6_101..6_165).collect::<Vec<_>>());
}

#[test]
fn who_is_asked_for_one_rendezvous_after_the_other_makes_six_an_hour() {
    let mut side = Side::new();
    side.agent.handle_translator(Some(true));
    side.call(&[PEER], "203.0.113.7:6000", 1);
    let end = side.now + HOUR - SECOND;
    let mut port = 6_000;
    while side.now < end {
        for last in [format!("203.0.113.7:{port}"), format!("203.0.113.8:{port}")] {
            side.agent.handle_message(Path::Relay, told(&last), side.now);
            side.drain();
        }
        let found = PortSequence { last: address("198.51.100.1:7000"), step: 1 };
        side.agent.handle_survey(Some(found), side.now);
        side.drain();
        side.run(SECOND / 2);
        port += 1;
    }
    let guesses = side.guesses(&[PEER]);
    assert_eq!((guesses.len(), side.surveys), (384, 7));
    assert!(guesses.iter().all(|(_, to)| to.ip() == address(PEER).ip()), "which was announced");
}

#[test]
fn who_asks_for_a_rendezvous_guesses_at_no_other_address_than_it_has_asked_for() {
    let mut side = Side::with(true);
    side.agent.handle_translator(Some(true));
    let (asked, other) = ("192.0.2.7", "203.0.113.9");
    let candidates = [format!("{asked}:5000"), format!("{other}:5000")];
    let candidates = [&*candidates[0], &*candidates[1]];
    side.call(&candidates, &format!("{asked}:6000"), 1);
    let mut surveys = 0;
    for _ in 0..600 {
        if side.surveys > surveys {
            surveys = side.surveys;
            // Between the question and the survey the peer names another one, too.
            side.call(&candidates, &format!("{other}:6000"), 1);
            let found = PortSequence { last: address("198.51.100.1:7000"), step: 1 };
            side.agent.handle_survey(Some(found), side.now);
            side.drain();
            side.agent.handle_message(Path::Relay, told(&format!("{other}:6000")), side.now);
            side.drain();
            side.call(&candidates, &format!("{asked}:6000"), 1);
        }
        side.run(SECOND / 10);
    }
    let asks =
        side.sent.iter().filter(|(_, _, message)| matches!(message, Message::Rendezvous { .. }));
    assert!(asks.count() > 3, "it asks again");
    assert_eq!(side.guesses(&candidates).len(), 0);
}

#[test]
fn a_survey_that_failed_is_made_again_if_the_peer_counts() {
    let mut side = Side::new();
    side.agent.handle_translator(Some(true));
    side.call(&[PEER], "203.0.113.7:6000", 1);
    side.agent.handle_survey(None, side.now);
    side.drain();
    side.run(20 * SECOND);
    side.call(&[PEER], "203.0.113.7:6000", 1);
    assert_eq!(side.surveys, 1);
    side.run(10 * SECOND);
    side.call(&[PEER], "203.0.113.7:6000", 1);
    side.run(30 * SECOND);
    assert!(side.surveys > 1);
}

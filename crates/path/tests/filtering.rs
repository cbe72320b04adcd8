//! Whom a translator or firewall lets in, as a client finds out.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use path::stun::{self, Port};
use path::{Filtering, StunClient};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

const MINUTE: Duration = Duration::from_secs(60);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the test writes addresses")
}

/// Whom what is in front of a client lets in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Admits {
    Ports,
    Hosts,
    Everybody,
}

/// What stands in front of a client, and the servers behind it.
#[derive(Clone, Copy)]
struct Front {
    /// Whether the servers have a second port, one further.
    has_two_ports: bool,
    /// Whether they answer to another port than they were asked from.
    answers_elsewhere: bool,
    admits: Admits,
    /// Whether each new socket gets another address of the translator.
    changes_address: bool,
    /// Whether the second server answers once and never again.
    is_second_gone: bool,
    /// Which of the datagrams that come back get lost.
    loses: fn(u32) -> bool,
    came_back: u32,
}

impl Front {
    /// What a server says to a request from the socket that stays, or from a new one.
    fn answer(
        &mut self,
        (is_new, server): (bool, SocketAddr),
        request: &[u8],
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let number = if is_new && self.changes_address { 8 } else { 7 };
        let ip: IpAddr = if server.is_ipv4() {
            [203, 0, 113, number].into()
        } else {
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()].into()
        };
        let source = SocketAddr::new(ip, if is_new { NEW_PORT } else { 9 });
        let mut answer = stun::answer(request, source, self.has_two_ports)?;
        if answer.to != source && !self.answers_elsewhere {
            let mut unknown = request.to_vec();
            unknown[21] = 0x7f;
            answer = stun::answer(&unknown, source, true)?;
        }
        self.came_back += 1;
        // Each server is asked once before anything else.
        let is_gone = self.is_second_gone && self.came_back > 2 && server == address(TWO[1]);
        let needed = match (answer.to == source, answer.port) {
            (true, Port::Asked) => Admits::Ports,
            (true, Port::Other) => Admits::Hosts,
            (false, _) => Admits::Everybody,
        };
        let is_lost = is_gone || (self.loses)(self.came_back) || self.admits < needed;
        let port = server.port() + u16::from(answer.port == Port::Other);
        (!is_lost).then_some((SocketAddr::new(server.ip(), port), answer.bytes))
    }
}

const NEW_PORT: u16 = 10;

/// What a client knows after a time, and how many new sockets it opened.
fn find_out(servers: &[&str], mut front: Front, time: Duration) -> ([Option<Filtering>; 2], usize) {
    let (mut now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let servers: Vec<_> = servers.iter().map(|server| address(server)).collect();
    let mut client = StunClient::new();
    client.handle_servers(&servers, &[], now);
    let sockets = run(&mut client, &mut front, (&mut now, time), &mut rng);
    (client.filtering(), sockets)
}

/// Lets a client go on for a time; how many new sockets it opened.
fn run(
    client: &mut StunClient,
    front: &mut Front,
    (now, time): (&mut Instant, Duration),
    rng: &mut ChaCha20Rng,
) -> usize {
    let (end, mut sockets) = (*now + time, 0);
    while *now <= end {
        client.handle_timeout(rng, *now);
        while let Some(datagrams) = client.poll_fresh_socket() {
            sockets += 1;
            for (server, request) in datagrams {
                if let Some((from, answer)) = front.answer((true, server), &request) {
                    assert!(!client.handle_response(from, &answer, *now), "our addresses stay");
                }
            }
        }
        while let Some((server, request)) = client.poll_transmit() {
            if let Some((from, answer)) = front.answer((false, server), &request) {
                client.handle_response(from, &answer, *now);
            }
        }
        *now = client.poll_timeout().expect("servers are asked again").0.max(*now);
    }
    sockets
}

const OPEN: Front = Front {
    has_two_ports: true,
    answers_elsewhere: true,
    admits: Admits::Everybody,
    changes_address: false,
    is_second_gone: false,
    loses: |_| false,
    came_back: 0,
};
const ONE: &[&str] = &["192.0.2.1:3478"];
const TWO: &[&str] = &["192.0.2.1:3478", "192.0.2.2:3478"];

#[test]
fn an_answer_of_a_server_that_was_not_asked_shows_that_everybody_gets_in() {
    assert_eq!(find_out(TWO, OPEN, MINUTE), ([Some(Filtering::EndpointIndependent), None], 1));
}

#[test]
fn where_only_hosts_that_were_asked_get_in_four_questions_show_it() {
    let front = Front { admits: Admits::Hosts, ..OPEN };
    assert_eq!(find_out(TWO, front, MINUTE), ([Some(Filtering::AddressDependent), None], 4));
}

#[test]
fn without_a_second_server_that_can_it_remains_open_whether_everybody_gets_in() {
    let at_most = [Some(Filtering::AddressDependentAtMost), None];
    assert_eq!(find_out(ONE, OPEN, MINUTE), (at_most, 1));
    let front = Front { answers_elsewhere: false, ..OPEN };
    assert_eq!(find_out(TWO, front, MINUTE), (at_most, 1));
    let front = Front { changes_address: true, ..OPEN };
    assert_eq!(find_out(TWO, front, MINUTE), (at_most, 4));
}

#[test]
fn whether_everybody_gets_in_is_found_out_once_there_is_a_second_server() {
    let (mut now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let (mut client, mut front) = (StunClient::new(), OPEN);
    for (servers, expected) in
        [(ONE, Filtering::AddressDependentAtMost), (TWO, Filtering::EndpointIndependent)]
    {
        let servers: Vec<_> = servers.iter().map(|server| address(server)).collect();
        client.handle_servers(&servers, &[], now);
        run(&mut client, &mut front, (&mut now, MINUTE), &mut rng);
        assert_eq!(client.filtering()[0], Some(expected));
    }
}

#[test]
fn a_helper_that_says_nothing_shows_nothing() {
    let front = Front { admits: Admits::Hosts, is_second_gone: true, ..OPEN };
    assert_eq!(find_out(TWO, front, MINUTE), ([Some(Filtering::AddressDependentAtMost), None], 4));
}

#[test]
fn four_questions_without_an_answer_from_the_other_port_show_that_ports_matter() {
    let front = Front { admits: Admits::Ports, ..OPEN };
    let found = find_out(&["192.0.2.1:3478", "[2001:db8::1]:3478"], front, MINUTE);
    assert_eq!(found, ([Some(Filtering::AddressAndPortDependent); 2], 8));
    assert_eq!(find_out(TWO, front, MINUTE), ([Some(Filtering::AddressAndPortDependent), None], 4));
}

#[test]
fn what_gets_lost_is_asked_again() {
    // The first answer of all tells the address; then each attempt has two, of which the first matters.
    let front = Front { loses: |number| [2, 4].contains(&number), ..OPEN };
    let found = find_out(ONE, front, MINUTE);
    assert_eq!(found, ([Some(Filtering::AddressDependentAtMost), None], 3));
}

#[test]
fn where_nothing_at_all_comes_back_any_more_nothing_is_concluded() {
    let front = Front { loses: |number| number > 2, ..OPEN };
    let (found, sockets) = find_out(TWO, front, 2 * MINUTE);
    assert_eq!(found, [None; 2]);
    assert!(sockets <= 8, "{sockets}");
}

#[test]
fn servers_with_one_port_say_nothing_and_are_asked_once() {
    let front = Front { has_two_ports: false, admits: Admits::Hosts, ..OPEN };
    assert_eq!(find_out(TWO, front, 10 * MINUTE), ([None, None], 2));
}

#[test]
fn what_the_network_was_before_a_change_is_forgotten() {
    let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let mut client = StunClient::new();
    client.handle_servers(&[address("192.0.2.1:3478")], &[], now);
    client.handle_timeout(&mut rng, now);
    let mut front = OPEN;
    let (server, request) = client.poll_transmit().expect("a request");
    let (from, answer) = front.answer((false, server), &request).expect("an answer");
    client.handle_response(from, &answer, now);
    client.handle_timeout(&mut rng, now + Duration::from_secs(10));
    let datagrams = client.poll_fresh_socket().expect("a test");
    let (server, request) = &datagrams[0];
    let (from, answer) = front.answer((true, *server), request).expect("an answer");
    let stranger = address("192.0.2.9:3479");
    client.handle_response(stranger, &answer, now);
    assert_eq!(client.filtering(), [None; 2], "only the server counts");
    client.handle_response(from, &answer, now);
    assert_eq!(client.filtering()[0], Some(Filtering::AddressDependentAtMost));
    client.handle_network_change(now);
    assert_eq!(client.filtering(), [None; 2]);
}

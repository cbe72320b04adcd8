//! Whom a translator or firewall lets in, as a client finds out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use path::stun::{self, Port};
use path::{Filtering, StunClient};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

const MINUTE: Duration = Duration::from_secs(60);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the test writes addresses")
}

/// What stands in front of a client, and the servers behind it.
struct Front {
    /// Whether the servers have a second port, one further.
    has_two_ports: bool,
    /// Whether a server's other port gets through.
    admits_other_port: bool,
    /// Which of the datagrams that come back get lost.
    loses: fn(u32) -> bool,
    came_back: u32,
}

impl Front {
    fn answer(&mut self, server: SocketAddr, request: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let ip = if server.is_ipv4() { "203.0.113.7:9" } else { "[2001:db8::7]:9" };
        let (port, answer) = if self.has_two_ports {
            stun::answer_from_two_ports(request, address(ip))?
        } else {
            (Port::Asked, stun::answer(request, address(ip))?)
        };
        self.came_back += 1;
        let is_lost = (self.loses)(self.came_back);
        let from = match port {
            Port::Asked => server,
            Port::Other if !self.admits_other_port => return None,
            Port::Other => SocketAddr::new(server.ip(), server.port() + 1),
        };
        (!is_lost).then_some((from, answer))
    }
}

/// What a client knows after a time, and how many new sockets it opened.
fn find_out(servers: &[&str], mut front: Front, time: Duration) -> ([Option<Filtering>; 2], usize) {
    let (mut now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let end = now + time;
    let servers: Vec<_> = servers.iter().map(|server| address(server)).collect();
    let (mut client, mut sockets) = (StunClient::new(), 0);
    client.handle_servers(&servers, &[], now);
    while now <= end {
        client.handle_timeout(&mut rng, now);
        while let Some((server, request)) = client.poll_transmit() {
            if let Some((from, answer)) = front.answer(server, &request) {
                client.handle_response(from, &answer, now);
            }
        }
        while let Some(datagrams) = client.poll_fresh_socket() {
            sockets += 1;
            for (server, request) in datagrams {
                if let Some((from, answer)) = front.answer(server, &request) {
                    assert!(!client.handle_response(from, &answer, now), "our addresses stay");
                }
            }
        }
        now = client.poll_timeout().expect("servers are asked again").0.max(now);
    }
    (client.filtering(), sockets)
}

const TWO_PORTS: Front =
    Front { has_two_ports: true, admits_other_port: true, loses: |_| false, came_back: 0 };

#[test]
fn an_answer_from_the_other_port_shows_that_ports_do_not_matter() {
    let found = find_out(&["192.0.2.1:3478"], TWO_PORTS, MINUTE);
    assert_eq!(found, ([Some(Filtering::AddressDependentAtMost), None], 1));
}

#[test]
fn four_questions_without_an_answer_from_the_other_port_show_that_ports_matter() {
    let front = Front { admits_other_port: false, ..TWO_PORTS };
    let found = find_out(&["192.0.2.1:3478", "[2001:db8::1]:3478"], front, MINUTE);
    assert_eq!(found, ([Some(Filtering::AddressAndPortDependent); 2], 8));
}

#[test]
fn what_gets_lost_is_asked_again() {
    // The first answer of all tells the address; then each attempt has two, of which the first matters.
    let front = Front { loses: |number| [2, 4].contains(&number), ..TWO_PORTS };
    let found = find_out(&["192.0.2.1:3478"], front, MINUTE);
    assert_eq!(found, ([Some(Filtering::AddressDependentAtMost), None], 3));
}

#[test]
fn where_nothing_at_all_comes_back_any_more_nothing_is_concluded() {
    let front = Front { loses: |number| number > 1, ..TWO_PORTS };
    let (found, sockets) = find_out(&["192.0.2.1:3478"], front, 2 * MINUTE);
    assert_eq!(found, [None; 2]);
    assert!(sockets <= 8, "{sockets}");
}

#[test]
fn servers_with_one_port_say_nothing_and_are_asked_once() {
    let front = Front { has_two_ports: false, ..TWO_PORTS };
    let found = find_out(&["192.0.2.1:3478", "192.0.2.2:3478"], front, 10 * MINUTE);
    assert_eq!(found, ([None, None], 2));
}

#[test]
fn what_the_network_was_before_a_change_is_forgotten() {
    let (now, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
    let mut client = StunClient::new();
    client.handle_servers(&[address("192.0.2.1:3478")], &[], now);
    client.handle_timeout(&mut rng, now);
    let mut front = TWO_PORTS;
    let (server, request) = client.poll_transmit().expect("a request");
    let (from, answer) = front.answer(server, &request).expect("an answer");
    client.handle_response(from, &answer, now);
    client.handle_timeout(&mut rng, now + Duration::from_secs(10));
    let datagrams = client.poll_fresh_socket().expect("a test");
    let (server, request) = &datagrams[0];
    let (from, answer) = front.answer(*server, request).expect("an answer");
    let stranger = address("192.0.2.9:3479");
    client.handle_response(stranger, &answer, now);
    assert_eq!(client.filtering(), [None; 2], "only the server counts");
    client.handle_response(from, &answer, now);
    assert_eq!(client.filtering()[0], Some(Filtering::AddressDependentAtMost));
    client.handle_network_change(now);
    assert_eq!(client.filtering(), [None; 2]);
}

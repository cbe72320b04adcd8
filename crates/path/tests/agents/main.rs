//! Which path two agents choose.

mod delivery;
mod net;
mod quality;
mod reasons;
mod sizes;

use std::time::Duration;

use path::{CandidateFilter, Message, Path, PathAgent, PathConfig, PathEvent, Reason};

use crate::net::{A, B, DIRECT_DELAY, Net, address, candidate, connected};

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

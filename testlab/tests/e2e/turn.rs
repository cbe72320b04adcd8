//! TURN servers, with coturn as the other end.

use std::time::{Duration, Instant};

use serde_json::Value;
use testlab::netns::{Nat, wait_for};
use testlab::network::{Device, Lab, Turn, TurnUsers};
use testlab::probes::Probes;

use crate::apart::Apart;
use crate::translators::netcheck;
use crate::{PATIENCE, files_arrive_whole, traffic_goes_on_within_3_s};

/// A device waits for a second before it asks a TURN server, and longer while it looks for another path.
const TO_TURN: Duration = Duration::from_secs(20);

/// Names a server to every member.
fn announce(lab: &Lab, turn: &Turn, transport: &str) {
    lab.administer(&["network", "set", "--turn", &turn.setting(transport)]);
}

/// What a device has at its only TURN server.
fn allocation(device: &Device) -> Value {
    netcheck(device)["turn"][0].clone()
}

fn between_random_ports_files_arrive_over_turn(users: TurnUsers) {
    let mut lab = Lab::with_frames_only();
    let mut turn = lab.turn(users);
    announce(&lab, &turn, "udp");
    let mut pair = Apart::by_random_ports(&mut lab);
    pair.wait_for_path("relay", PATIENCE);
    pair.wait_for_path("turn", TO_TURN);
    files_arrive_whole(&pair.alice, &pair.bob);
    // Both ends show it, and that the server stands in between.
    for (one, other) in [(&pair.alice, &pair.bob), (&pair.bob, &pair.alice)] {
        let why = one.why(other);
        assert_eq!(why["path"]["kind"], "turn", "{why}");
        let decision = why["decisions"][0]["text"].as_str().unwrap_or_default();
        assert!(decision.starts_with("turn "), "{why}");
    }
    let there = allocation(&pair.alice);
    let server = format!("udp/{}:3478", turn.address());
    assert_eq!((&there["state"], &there["server"]), (&"allocated".into(), &server.into()));
    assert!(there["relayed"].as_str().is_some_and(|it| it.starts_with(turn.address())), "{there}");
    assert_eq!(lab.warnings(), Vec::<String>::new());
    // What is not needed any more is given back, also by a device that leaves while nobody takes note of it.
    pair.alice.down();
    turn.wait_for_output("lifetime=0", PATIENCE);
    lab.kill_server();
    let left = pair.bob.ask(&["leave"]);
    assert!(left.status.success(), "{left:?}");
    wait_for("the other farewell", PATIENCE, || {
        (turn.output().matches("lifetime=0").count() == 2).then_some(())
    });
}

#[test]
fn between_random_ports_files_arrive_over_turn_with_a_username() {
    between_random_ports_files_arrive_over_turn(TurnUsers::LongTerm);
}

#[test]
fn between_random_ports_files_arrive_over_turn_with_a_shared_secret() {
    between_random_ports_files_arrive_over_turn(TurnUsers::Shared);
}

#[test]
fn a_turn_server_that_dies_or_vanishes_is_replaced_by_the_relay_within_3_s_and_used_again() {
    let mut lab = Lab::with_frames_only();
    let mut turn = lab.turn(TurnUsers::LongTerm);
    announce(&lab, &turn, "udp");
    let pair = Apart::by_random_ports(&mut lab);
    pair.wait_for_path("turn", PATIENCE + TO_TURN);
    for vanishes in [false, true] {
        traffic_goes_on_within_3_s((&pair.alice, &pair.bob), || match vanishes {
            true => turn.unplug(),
            false => turn.kill(),
        });
        pair.wait_for_path("relay", PATIENCE);
        if !vanishes {
            turn.start();
            pair.wait_for_path("turn", Duration::from_secs(60));
        }
    }
}

#[test]
fn wrong_credentials_are_told_with_what_to_do_and_hurt_nothing_else() {
    let mut lab = Lab::with_frames_only();
    let turn = lab.turn(TurnUsers::LongTerm);
    let wrong = format!("udp/{}:3478,username=alice,password=wrong", turn.address());
    lab.administer(&["network", "set", "--turn", &wrong]);
    let shown = lab.administer(&["network", "show"]);
    assert!(shown["turn"][0].as_str().is_some_and(|it| it.contains("password set")), "{shown}");
    assert!(!shown.to_string().contains("wrong"), "{shown}");
    let audit = lab.administer(&["log", "audit"]).to_string();
    assert!(audit.contains("password set") && !audit.contains("wrong"), "{audit}");

    let pair = Apart::by_random_ports(&mut lab);
    pair.wait_for_path("relay", PATIENCE);
    let there = wait_for("the refusal", PATIENCE, || {
        // Without traffic nobody asks the server.
        let _ = pair.alice.reaches(&pair.bob.full_name());
        Some(allocation(&pair.alice)).filter(|there| there["state"] == "failed")
    });
    let problem = there["problem"].as_str().unwrap_or_default();
    assert!(problem.contains("refuses the credentials; check username and password"), "{there}");
    let status = pair.alice.status().expect("it answers").to_string();
    assert!(status.contains(problem) && !status.contains("wrong"), "{status}");
    pair.alice.wait_until_reaches(&pair.bob.full_name(), PATIENCE);
    pair.wait_for_path("relay", PATIENCE);

    // Right ones are tried at once.
    announce(&lab, &turn, "udp");
    pair.wait_for_path("turn", TO_TURN);
    lab.administer(&["network", "set", "--turn", "none"]);
    pair.wait_for_path("relay", PATIENCE);
}

#[test]
fn a_device_with_a_turn_server_of_its_own_reaches_one_without() {
    let mut lab = Lab::with_frames_only();
    let turn = lab.turn(TurnUsers::Shared);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("config.yaml");
    let setting = format!("node:\n  turn: ['{}']\n", turn.setting("udp"));
    std::fs::write(&config, setting).expect("a temporary file");
    let routers = [(); 2].map(|()| lab.router(Nat::Symmetric, None));
    let mut alice = lab.host_behind(&routers[0], "alice");
    alice.up(&["--config", &config.to_string_lossy(), &lab.invite(&[])]);
    let mut bob = lab.host_behind(&routers[1], "bob");
    bob.up(&[&lab.invite(&[])]);
    bob.wait_for_path(&alice, "turn", PATIENCE + TO_TURN);
    alice.wait_for_path(&bob, "turn", PATIENCE);
    assert_eq!(netcheck(&bob)["turn"], Value::Array(Vec::new()));
    files_arrive_whole(&bob, &alice);
}

#[test]
fn where_udp_is_blocked_turn_over_tcp_leads_out() {
    for other in [Nat::PortRestricted, Nat::UdpBlocked] {
        let mut lab = Lab::with_frames_only();
        let turn = lab.turn(TurnUsers::LongTerm);
        announce(&lab, &turn, "tcp");
        let pair = Apart::new(&mut lab, [Nat::UdpBlocked, other]);
        pair.wait_for_path("turn", PATIENCE + TO_TURN);
        files_arrive_whole(&pair.alice, &pair.bob);
    }
}

/// Who has no direct path for a second asks a TURN server: a pair that met before that, with the server.
fn met_in_time(lab: &mut Lab) -> Option<(Apart, Turn)> {
    let turn = lab.turn(TurnUsers::LongTerm);
    announce(lab, &turn, "udp");
    let pair = Apart::new(lab, [Nat::PortRestricted, Nat::PortRestricted]);
    let begin = Instant::now();
    pair.wait_for_path("direct", PATIENCE);
    (begin.elapsed() < Duration::from_millis(700)).then_some((pair, turn))
}

#[test]
fn where_there_is_a_direct_path_nobody_asks_a_turn_server() {
    let mut labs = (0..5).map(|_| Lab::with_frames_only());
    let found =
        labs.find_map(|mut lab| met_in_time(&mut lab).map(|(pair, turn)| (lab, pair, turn)));
    let (_lab, pair, turn) = found.expect("one pair of five meets within a second");
    let probes = Probes::start(&pair.alice, &pair.bob.addresses()[0]);
    probes.watch(Duration::from_secs(8));
    assert_eq!(probes.stop().lost(), 0);
    assert_eq!(allocation(&pair.alice)["state"], "unused");
    assert!(!turn.output().contains("session"), "{}", turn.output());
}

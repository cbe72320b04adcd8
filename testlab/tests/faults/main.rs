//! What users feel when parts of a network fail: pings through the tunnel, ten a second, and how long none is answered. Needs root.

mod full_disk;
mod killing;

use std::time::{Duration, SystemTime};

use testlab::netns::{Conditions, wait_for};
use testlab::network::{Device, Lab, Relay};
use testlab::probes::{Probes, Trace};

/// How long anything may take that is not the subject of a test.
const PATIENCE: Duration = Duration::from_secs(20);
/// A process that shares its machine with others may be late by this much.
const LATE: Duration = Duration::from_millis(250);

#[test]
fn a_good_run_loses_no_ping_and_warns_of_nothing() {
    let mut lab = Lab::new();
    let (mut alice, mut bob) = direct_pair(&mut lab);
    let probes = probe(&alice, &bob);
    probes.watch(Duration::from_secs(5));
    let trace = probes.stop();
    alice.down();
    bob.down();
    assert_eq!(trace.lost(), 0, "{trace:?}");
    assert_eq!(lab.warnings(), Vec::<String>::new());
}

#[test]
fn a_controller_that_dies_costs_one_ping_at_most() {
    let mut lab = Lab::new();
    let (alice, bob) = direct_pair(&mut lab);
    let probes = probe(&alice, &bob);
    lab.kill_server();
    probes.watch(Duration::from_secs(8));
    let trace = probes.stop();
    assert!(trace.lost() <= 1, "{trace:?}");
}

#[test]
fn without_udp_another_relay_takes_over_within_3_s() {
    let mut lab = Lab::new();
    let mut relay = lab.relay("second");
    let (alice, bob) = relayed_pair(&mut lab);
    let probes = probe(&alice, &bob);
    if is_used(&relay, &alice, &bob) {
        relay.kill();
    } else {
        lab.kill_server();
    }
    probes.watch(Duration::from_secs(8));
    assert_gap(&probes.stop(), Duration::from_secs(3));
}

#[test]
fn a_relay_that_is_stopped_loses_nothing() {
    let mut lab = Lab::new();
    let mut relays = ["second", "third"].map(|name| lab.relay(name));
    let (alice, bob) = relayed_pair(&mut lab);
    let probes = probe(&alice, &bob);
    match relays.iter_mut().find(|relay| is_used(relay, &alice, &bob)) {
        Some(relay) => relay.stop(),
        None => lab.stop_server(),
    }
    probes.watch(Duration::from_secs(4));
    let trace = probes.stop();
    assert!(trace.lost() <= 1, "{trace:?}");
    assert_eq!(lab.warnings(), Vec::<String>::new());
}

#[test]
fn a_relay_that_was_drained_is_missed_by_nobody() {
    let mut lab = Lab::new();
    let mut relays = ["second", "third"].map(|name| lab.relay(name));
    let (alice, bob) = relayed_pair(&mut lab);
    let probes = probe(&alice, &bob);
    let drain = ["relay", "drain"];
    let used = relays.iter_mut().find(|relay| is_used(relay, &alice, &bob));
    let drained = match &used {
        Some(relay) => relay.ask(&drain),
        None => lab.administer(&drain),
    };
    assert_eq!(drained[0]["devices"], "elsewhere");
    assert!(used.as_ref().is_none_or(|relay| !is_used(relay, &alice, &bob)));
    match used {
        Some(relay) => relay.kill(),
        None => lab.kill_server(),
    }
    probes.watch(Duration::from_secs(4));
    let trace = probes.stop();
    assert!(trace.lost() <= 1, "{trace:?}");
}

#[test]
fn a_relay_that_is_drained_may_be_used_again() {
    let mut lab = Lab::new();
    let relay = lab.relay("second");
    let health = |lab: &Lab| {
        let relays = lab.administer(&["network", "relays"]);
        let relays = relays.as_array().cloned().unwrap_or_default();
        let own = relays.into_iter().find(|one| one["id"] == relay.id()).expect("it is listed");
        own["healthy"].as_bool()
    };
    let becomes = |lab: &Lab, healthy: bool| {
        wait_for("the relay's health", PATIENCE, || (health(lab) == Some(healthy)).then_some(()));
    };
    relay.ask(&["relay", "drain"]);
    assert_eq!(health(&lab), Some(false));
    // A controller that has forgotten it hears it again.
    lab.kill_server();
    lab.start_server();
    becomes(&lab, false);
    relay.ask(&["relay", "drain", "--undo"]);
    becomes(&lab, true);
}

#[test]
fn a_relay_whose_host_vanishes_is_replaced_within_3_s() {
    let mut lab = Lab::new();
    let relay = lab.relay("second");
    let (alice, bob) = relayed_pair(&mut lab);
    let probes = probe(&alice, &bob);
    if is_used(&relay, &alice, &bob) {
        relay.namespace().blackhole("eth0");
    } else {
        lab.server().blackhole("eth0");
    }
    probes.watch(Duration::from_secs(15));
    assert_gap(&probes.stop(), Duration::from_secs(3));
}

#[test]
fn a_device_that_moves_is_back_within_3_s() {
    let mut lab = Lab::new();
    let (alice, bob) = direct_pair(&mut lab);
    let probes = probe(&alice, &bob);
    let ip = |args: &[&str]| alice.namespace().run("ip", args);
    ip(&["address", "flush", "dev", "eth0", "scope", "global"]);
    ip(&["address", "add", "11.1.0.77/24", "dev", "eth0"]);
    probes.watch(Duration::from_secs(8));
    assert_gap(&probes.stop(), Duration::from_secs(3));
}

#[test]
fn when_udp_ends_in_a_black_hole_the_relay_takes_over_within_4_s() {
    let mut lab = Lab::new();
    let (alice, bob) = direct_pair(&mut lab);
    let probes = probe(&alice, &bob);
    alice.namespace().block_udp();
    probes.watch(Duration::from_secs(10));
    assert_gap(&probes.stop(), Duration::from_secs(4));
}

#[test]
fn a_device_that_slept_is_back_within_3_s() {
    let mut lab = Lab::new();
    let (alice, bob) = direct_pair(&mut lab);
    let probes = probe(&bob, &alice);
    alice.node().signal("STOP");
    probes.watch(asleep());
    alice.node().signal("CONT");
    let woken = SystemTime::now();
    probes.watch(Duration::from_secs(5));
    let after = probes.stop().answered_after(woken);
    assert!(after <= Duration::from_secs(3), "{after:?}");
}

#[test]
fn a_link_that_works_again_is_used_within_3_s() {
    let mut lab = Lab::new();
    let (alice, bob) = direct_pair(&mut lab);
    let probes = probe(&bob, &alice);
    let host = alice.namespace();
    let flap = |dead: &dyn Fn(), alive: &dyn Fn()| {
        dead();
        probes.watch(Duration::from_secs(10));
        alive();
        let alive = SystemTime::now();
        probes.watch(Duration::from_secs(5));
        let after = probes.trace().answered_after(alive);
        assert!(after <= Duration::from_secs(3) + LATE, "{after:?}");
    };
    flap(&|| host.blackhole("eth0"), &|| host.end_blackhole("eth0"));
    flap(&|| host.set_link("eth0", false), &|| host.set_link("eth0", true));
}

#[test]
fn a_link_that_becomes_slow_and_lossy_costs_no_more_than_it_loses() {
    let mut lab = Lab::new();
    let bob = lab.device("bob");
    let (mut alice, wire) = lab.far_host("alice", Conditions::delay(Duration::from_millis(20)));
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_path(&bob, "direct", PATIENCE);
    let probes = probe(&alice, &bob);
    let (delay, jitter) = (Duration::from_millis(150), Duration::from_millis(20));
    wire.set(Conditions { delay, jitter, loss_permille: 50 });
    probes.watch(Duration::from_secs(20));
    let trace = probes.stop();
    // A ping and its answer are lost in 98 of 1,000 cases: 20 of 200, give or take 4.
    assert!(trace.lost() <= 40, "{} lost", trace.lost());
    assert_gap(&trace, Duration::from_secs(1));
}

#[test]
fn a_clock_that_jumps_by_a_day_costs_no_ping_and_keeps_nobody_out() {
    let mut lab = Lab::new();
    let mut bob = lab.device("bob");
    let mut alice = lab.host("alice");
    alice.use_own_clock();
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);
    let probes = probe(&alice, &bob);
    for offset in ["+1d", "-1d", "+0"] {
        alice.set_clock(offset);
        probes.watch(Duration::from_secs(3));
    }
    let trace = probes.stop();
    assert!(trace.lost() <= 1, "{trace:?}");

    alice.set_clock("-1d");
    bob.kill();
    bob.up(&[]);
    alice.wait_until_reaches(&bob.full_name(), PATIENCE);
}

/// How long a device sleeps.
fn asleep() -> Duration {
    let seconds = std::env::var("SHADOWMESH_ASLEEP").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Two devices that reach each other directly.
fn direct_pair(lab: &mut Lab) -> (Device, Device) {
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);
    (alice, bob)
}

/// Two devices without UDP, each at both relays of the network.
fn relayed_pair(lab: &mut Lab) -> (Device, Device) {
    let mut join = |name: &str| {
        let mut device = lab.host(name);
        device.namespace().block_udp();
        device.up(&[&lab.invite(&[])]);
        device.wait_for_relays(2);
        device
    };
    let (alice, bob) = (join("alice"), join("bob"));
    alice.wait_for_path(&bob, "relay", PATIENCE);
    bob.wait_for_path(&alice, "relay", PATIENCE);
    (alice, bob)
}

/// Whether packets between two devices, in either direction, go through this relay.
fn is_used(relay: &Relay, alice: &Device, bob: &Device) -> bool {
    let ways = [alice.path_to(bob), bob.path_to(alice)].map(|way| way.expect("there is a path"));
    assert!(ways.iter().all(|way| !way.is_empty()), "{ways:?}");
    ways.iter().any(|way| way == relay.id())
}

fn probe(from: &Device, to: &Device) -> Probes {
    let probes = Probes::start(from, &to.addresses()[0]);
    probes.watch(Duration::from_secs(1));
    probes
}

/// Holds the longest gap against a budget, and says how long it was.
fn assert_gap(trace: &Trace, budget: Duration) {
    let gap = trace.longest_gap();
    #[expect(clippy::print_stderr, reason = "the figure that the test is about")]
    {
        eprintln!("longest gap {gap:?} of {budget:?}");
    }
    assert!(gap <= budget + LATE, "{gap:?} without an answer; {budget:?} are allowed");
}

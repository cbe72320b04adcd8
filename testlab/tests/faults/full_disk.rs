//! Disks that take nothing more.

use std::time::Duration;

use testlab::netns::wait_for;
use testlab::network::{Lab, Relay};

use super::{assert_gap, probe};

const PATIENCE: Duration = Duration::from_secs(20);
/// The states of a small network and what SQLite writes beside them.
const MEBIBYTES: u32 = 16;
/// Waiting for what must not happen: some attempts of everybody.
const LONG_ENOUGH: Duration = Duration::from_secs(8);

#[test]
fn a_server_whose_disk_is_full_grants_nothing_keeps_traffic_going_and_forgets_nothing() {
    let mut lab = Lab::without_server();
    let disk = lab.server_disk(MEBIBYTES);
    lab.start_server();
    let mut join = |name: &str| {
        let mut device = lab.host(name);
        device.namespace().block_udp();
        device.up(&[&lab.invite(&[])]);
        device.wait_for_membership("online", PATIENCE);
        device
    };
    let (alice, bob) = (join("alice"), join("bob"));
    alice.wait_for_path(&bob, "relay", PATIENCE);
    let invite = lab.invite(&[]);
    let probes = probe(&alice, &bob);

    disk.fill();
    let refused = lab.ask_server(&["invite", "create"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot keep"), "{text}");
    let mut carol = lab.host("carol");
    carol.up(&[&invite]);
    probes.watch(LONG_ENOUGH);
    let status = carol.status().expect("the node answers");
    assert_eq!(status["networks"][0]["membership"], "joining", "{status}");
    assert!(lab.server_output().contains("a change cannot be kept"));

    disk.free();
    carol.wait_for_membership("online", PATIENCE * 2);
    alice.wait_for_membership("online", PATIENCE * 2);
    carol.wait_until_reaches(&alice.full_name(), PATIENCE);
    assert_gap(&probes.stop(), Duration::from_secs(1));

    disk.fill();
    wait_for("the controller to notice", PATIENCE, || {
        (!lab.ask_server(&["invite", "create"]).status.success()).then_some(())
    });
    lab.kill_server();
    disk.free();
    lab.start_server();
    let dave = lab.device("dave");
    dave.wait_until_reaches(&carol.full_name(), PATIENCE);
    let devices = lab.administer(&["device", "list"]);
    let names = devices.as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    assert_eq!(names, ["alice", "bob", "carol", "dave", "relay"]);
    lab.administer(&["log", "verify"]);
}

#[test]
fn a_server_that_has_no_room_to_begin_says_so_and_begins_when_there_is() {
    let mut lab = Lab::without_server();
    let disk = lab.server_disk(MEBIBYTES);
    disk.fill();
    lab.spawn_server();
    assert_eq!(lab.wait_for_server_to_end().code(), Some(8), "{}", lab.server_output());
    assert!(lab.server_output().contains("No space left"), "{}", lab.server_output());
    disk.free();
    lab.start_server();
    lab.device("alice");
}

#[test]
fn a_device_whose_disk_is_full_goes_on_says_so_and_saves_when_there_is_room() {
    let mut lab = Lab::new();
    let mut alice = lab.host("alice");
    let disk = alice.disk(MEBIBYTES);
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_membership("online", PATIENCE);
    alice.wait_until_saved();

    disk.fill();
    let bob = lab.device("bob");
    alice.wait_until_reaches(&bob.full_name(), PATIENCE);
    let advice = || {
        alice
            .status()
            .map_or_else(String::new, |status| status["networks"][0]["advice"].to_string())
    };
    wait_for("alice to say so", PATIENCE, || advice().contains("make room").then_some(()));
    assert!(alice.output().contains("WARN"), "{}", alice.output());

    disk.free();
    wait_for("alice to save", PATIENCE, || (!advice().contains("make room")).then_some(()));
    lab.kill_server();
    alice.kill();
    alice.up(&[]);
    let status = alice.status().expect("the node answers");
    let peers = status["networks"][0]["peers"].as_array().expect("peers are a list");
    assert!(peers.iter().any(|peer| peer["name"] == "bob"), "{status}");
}

#[test]
fn a_relay_whose_disk_is_full_goes_on_says_so_and_starts_again() {
    let mut lab = Lab::new();
    let mut relay = lab.relay_host("second");
    let disk = relay.disk(MEBIBYTES);
    lab.admit(&mut relay);
    disk.fill();
    let mut alice = lab.host("alice");
    alice.namespace().block_udp();
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_relays(2);
    let says = |relay: &Relay, text: &str, times: usize| {
        let count = || relay.output().matches(text).count();
        wait_for(text, PATIENCE, || (count() == times).then_some(()));
    };
    says(&relay, "state cannot be kept", 1);

    relay.kill();
    alice.wait_for_relays(1);
    relay.start(&[]);
    alice.wait_for_relays(2);
    says(&relay, "state cannot be kept", 2);
    disk.free();
    says(&relay, "state is kept again", 1);
}

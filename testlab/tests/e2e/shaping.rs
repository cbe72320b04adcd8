//! Messages on streams that leave at equal distances.

use std::path::Path;
use std::time::{Duration, Instant};

use testlab::netns::{Process, wait_for};
use testlab::network::{Device, Lab};

use crate::{MEGABYTE, PATIENCE, digest, file_of_noise, web_server};

/// Messages in a second where they leave at equal distances.
const RATE: usize = 50;
/// A dummy takes more than one packet, of which one is longer than this.
const LONG: &str = "1000";

#[test]
fn a_file_arrives_whole_at_a_constant_rate_and_gaps_are_filled_while_something_goes_on() {
    let mut lab = Lab::new();
    lab.administer(&["network", "set", "--shaping", "constant"]);
    assert_eq!(lab.administer(&["network", "show"])["shaping"], "constant");
    let bob = lab.device("bob");
    let mut alice = lab.host("alice");
    alice.namespace().block_udp();
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_path(&bob, "relay", PATIENCE);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent = file_of_noise(folder.path(), 4 * MEGABYTE);
    let _server = web_server(bob.namespace(), folder.path());
    let began = Instant::now();
    let fetched = folder.path().join("fetched");
    let url = format!("http://{}:8000/noise", bob.full_name());
    let target = fetched.display().to_string();
    alice.namespace().run("curl", &["-sS", "--max-time", "100", "-o", &target, &url]);
    assert_eq!(digest(&fetched), sent);
    say(&format!("4 MB in {:.1} s", began.elapsed().as_secs_f64()));

    // Something goes on for five seconds after a ping at least, though nobody sends anything.
    for (policy, log) in [("constant", "shaped"), ("off", "plain")] {
        lab.administer(&["network", "set", "--shaping", policy]);
        wait_for("the policy to be followed", PATIENCE, || {
            let count = seen_after_a_ping(&alice, &bob, &folder.path().join(log));
            say(&format!("{policy}: {count} messages in 4 s of silence"));
            let is_filled = count > 4 * RATE * 3 / 4;
            let is_silent = count < RATE / 2;
            assert!(count <= 4 * RATE * 5 / 4, "{count} messages");
            (if policy == "constant" { is_filled } else { is_silent }).then_some(())
        });
    }
    assert_eq!(lab.warnings(), Vec::<String>::new());
}

/// How many messages alice sends in the four seconds after a ping.
fn seen_after_a_ping(alice: &Device, bob: &Device, log: &Path) -> usize {
    alice.wait_until_reaches(&bob.full_name(), PATIENCE);
    let recording = record(alice, log);
    let before = recording.output().lines().count();
    std::thread::sleep(Duration::from_secs(4));
    recording.output().lines().count() - before
}

/// Writes a line for each long packet that a host sends over TCP.
fn record(host: &Device, log: &Path) -> Process {
    let filter = ["tcp", "and", "greater", LONG];
    let options = ["-i", "eth0", "-Q", "out", "-n", "-q", "-l", "--immediate-mode"];
    let _ = std::fs::remove_file(log);
    let mut recording = host.namespace().spawn("tcpdump", &[&options[..], &filter].concat(), log);
    recording.wait_for_output("listening on", Duration::from_secs(5));
    recording
}

#[expect(clippy::print_stderr, reason = "the figures that the test is about")]
fn say(text: &str) {
    eprintln!("{text}");
}

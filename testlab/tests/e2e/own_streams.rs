//! Streams straight to a device that listens.

use std::time::Duration;

use testlab::network::{Device, Lab, server_address};

use crate::stream::{Fetch, files_arrive_whole};
use crate::{MEGABYTE, PATIENCE, file_of_noise, web_server};

/// Where one device takes streams of the other.
const PORT: &str = "8444";
/// A listener that is back is dialled again within this time: attempts become rarer the longer it is away.
const BACK: Duration = Duration::from_secs(60);

/// Alice without UDP, and bob who listens.
fn alice_and_bob(lab: &mut Lab, listen: &[&str]) -> (Device, Device) {
    let (mut alice, mut bob) = (lab.host("alice"), lab.host("bob"));
    alice.namespace().block_udp();
    let address = format!("0.0.0.0:{PORT}");
    bob.up(&[&["--listen", &address], listen, &[&lab.invite(&[])]].concat());
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_path(&bob, "stream", PATIENCE);
    bob.wait_for_path(&alice, "stream", PATIENCE);
    let why = alice.why(&bob);
    let used = why["candidates"].as_array().into_iter().flatten().find(|it| it["lacks"].is_null());
    assert_eq!(used.map(|it| &it["kind"]), Some(&"stream".into()), "{why}");
    (alice, bob)
}

/// Decides what becomes of alice's TCP segments to `target`.
fn treat(alice: &Device, target: &str, verdict: &str) {
    let nft = |args: &[&str]| alice.namespace().run("nft", args);
    nft(&["add", "table", "inet", "way"]);
    nft(&["add", "chain", "inet", "way", "out", "{ type filter hook output priority 0; }"]);
    let rule: Vec<&str> = target.split(' ').chain(verdict.split(' ')).collect();
    nft(&[&["add", "rule", "inet", "way", "out"], &rule[..]].concat());
}

fn treat_all_alike(alice: &Device) {
    alice.namespace().run("nft", &["delete", "table", "inet", "way"]);
}

#[test]
fn without_udp_and_without_a_relay_a_file_arrives_whole_over_tls_and_without() {
    for listen in [&[][..], &["--no-tls"]] {
        let mut lab = Lab::new();
        let (mut alice, bob) = alice_and_bob(&mut lab, listen);
        alice.wait_until_saved();
        alice.kill();
        treat(&alice, &format!("ip daddr {} meta l4proto tcp", server_address()), "drop");
        alice.up(&[]);
        let address = bob.addresses().swap_remove(0);
        alice.wait_until_reaches(&address, PATIENCE);
        alice.wait_for_path(&bob, "stream", PATIENCE);

        files_arrive_whole(&alice, &bob);
        alice.wait_for_path(&bob, "stream", PATIENCE);
    }
}

#[test]
fn a_listener_that_is_gone_gives_way_to_the_relay_within_3_s_and_is_used_again() {
    let mut lab = Lab::new();
    let (alice, bob) = alice_and_bob(&mut lab, &[]);
    let address = bob.addresses().swap_remove(0);
    for verdict in ["drop", "reject with tcp reset"] {
        treat(&alice, &format!("tcp dport {PORT}"), verdict);
        alice.wait_until_reaches(&address, Duration::from_secs(3));
        alice.wait_for_path(&bob, "relay", PATIENCE);
        treat_all_alike(&alice);
        alice.wait_for_path(&bob, "stream", BACK);
        bob.wait_for_path(&alice, "stream", PATIENCE);
    }
}

#[test]
fn a_transfer_survives_the_loss_and_the_return_of_the_stream() {
    let mut lab = Lab::new();
    let (alice, bob) = alice_and_bob(&mut lab, &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent = file_of_noise(folder.path(), 200 * MEGABYTE);
    let _server = web_server(bob.namespace(), folder.path());
    let mut fetching = Fetch::start(&alice, &bob, &["--limit-rate", "10M"], folder.path());
    fetching.advance(10 * MEGABYTE);
    treat(&alice, &format!("tcp dport {PORT}"), "drop");
    fetching.advance(20 * MEGABYTE);
    alice.wait_for_path(&bob, "relay", PATIENCE);
    treat_all_alike(&alice);
    alice.wait_for_path(&bob, "stream", BACK);
    fetching.advance(20 * MEGABYTE);
    assert_eq!(fetching.finish(), sent);
}

#[test]
fn strangers_find_a_web_server_and_the_revoked_are_cut_off() {
    let mut lab = Lab::new();
    let (alice, bob) = alice_and_bob(&mut lab, &[]);
    let stranger = lab.host("stranger");
    let url = format!("https://{}:{PORT}/api/v1/ws/AAAA", bob.underlay_address());
    let page = ["-sk", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", &url];
    assert_eq!(stranger.namespace().run("curl", &page), "404");

    let address = bob.addresses().swap_remove(0);
    lab.administer(&["device", "remove", "alice"]);
    testlab::netns::wait_for("alice to be cut off", Duration::from_secs(5), || {
        (!alice.reaches(&address)).then_some(())
    });
}

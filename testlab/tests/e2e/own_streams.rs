//! Streams straight to a device that listens.

use std::time::Duration;

use noise_channel::{PathSecret, Service};
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

/// Every byte, but for the time of day, of what a listener answers to a browser, to who asks for a WebSocket anywhere, and to who does so
/// at paths as members make them, by a secret of their own.
fn answers_to_strangers(stranger: &Device, listener: &str) -> Vec<String> {
    let secret = PathSecret::from_bytes([8; 32]);
    let paths = [Service::Relay, Service::Control].map(|service| secret.path(service, [1; 16]));
    let upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"];
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let ask = |path: &str, headers: &[&str]| {
        let url = format!("https://{listener}{path}");
        let headers = headers.iter().flat_map(|header| ["-H", header]);
        let args = ["-ski", "--http1.1", "--max-time", "5", &url].into_iter().chain(headers);
        let answer = stranger.namespace().run("curl", &args.collect::<Vec<_>>());
        let is_date = |line: &&str| line.starts_with("Date: ");
        answer.split_inclusive('\n').filter(|line| !is_date(line)).collect::<String>()
    };
    let upgrade = [&upgrade[..], &[key]].concat();
    let plain = ["/", "/favicon.ico"].map(|path| ask(path, &[]));
    let upgrades = ["/", "/chat", &paths[0], &paths[1]].map(|path| ask(path, &upgrade));
    [&plain[..], &upgrades].concat()
}

#[test]
fn strangers_find_a_web_server_and_the_revoked_are_cut_off() {
    let mut lab = Lab::new();
    let (alice, bob) = alice_and_bob(&mut lab, &[]);
    let stranger = lab.host("stranger");
    let device = format!("{}:{PORT}", bob.underlay_address());
    for listener in [device, format!("{}:8443", server_address())] {
        let answers = answers_to_strangers(&stranger, &listener);
        assert!(answers[0].starts_with("HTTP/1.1 404 Not Found"), "{answers:?}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    }

    let address = bob.addresses().swap_remove(0);
    lab.administer(&["device", "remove", "alice"]);
    testlab::netns::wait_for("alice to be cut off", Duration::from_secs(5), || {
        (!alice.reaches(&address)).then_some(())
    });
}

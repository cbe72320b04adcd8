//! Real binaries and TUN devices in namespaces. Needs root; a missing tool is a failure.

mod apart;
mod censors;
mod checksums;
mod fronts;
mod intruders;
mod ipv6;
mod mappings;
mod mesh;
mod narrowing;
mod observers;
mod own_streams;
mod peer_relays;
mod places;
mod plain;
mod proxies;
mod shaping;
mod stream;
mod streams_only;
mod threads;
mod throttling;
mod translators;
mod turn;
mod udp_relays;
mod underlays;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testlab::netns::{Namespace, Process, wait_for};
use testlab::network::{Device, Lab};
use testlab::probes::Probes;

/// How long anything may take that is not the subject of a test.
const PATIENCE: Duration = Duration::from_secs(20);
const MEGABYTE: usize = 1_000_000;

#[test]
fn members_reach_each_other_by_name_over_ipv6_and_ipv4() {
    let mut lab = Lab::new();
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));

    alice.wait_until_reaches(&bob.full_name(), PATIENCE);
    bob.wait_until_reaches(&alice.full_name(), PATIENCE);
    let addresses = bob.addresses();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in &addresses {
        alice.wait_until_reaches(address, PATIENCE);
    }
    alice.wait_for_path(&bob, "direct", PATIENCE);

    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("page.html"), "a page of bob's").expect("a temporary file");
    let _server = web_server(bob.namespace(), folder.path());
    for family in ["-4", "-6"] {
        let url = format!("http://{}:8000/page.html", bob.full_name());
        assert_eq!(
            alice.namespace().run("curl", &["-sS", "--max-time", "10", family, &url]),
            "a page of bob's"
        );
    }
}

#[test]
fn names_are_answered_for_the_network_and_nothing_of_alt_leaves_the_host() {
    let mut lab = Lab::new();
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));
    alice.wait_until_reaches(&bob.full_name(), PATIENCE);

    let dig =
        |args: &[&str]| alice.namespace().run("dig", &[&["+time=2", "+tries=1"], args].concat());
    let address = bob.addresses().swap_remove(0);
    assert_eq!(dig(&["+short", "AAAA", &bob.full_name()]).trim(), address);
    assert_eq!(dig(&["+short", "-x", &address]).trim(), format!("{}.", bob.full_name()));
    lab.administer(&["name", "add", "wiki.office", "bob"]);
    wait_for("a name that was given to be known", PATIENCE, || {
        (dig(&["+short", "AAAA", "wiki.office.lab.alt"]).trim() == address).then_some(())
    });
    lab.administer(&["name", "remove", "wiki.office"]);
    wait_for("a name that was withdrawn to be forgotten", PATIENCE, || {
        dig(&["AAAA", "wiki.office.lab.alt"]).contains("status: NXDOMAIN").then_some(())
    });
    assert!(dig(&["AAAA", "nobody.lab.alt"]).contains("status: NXDOMAIN"));
    assert!(dig(&["AAAA", "somebody.else.alt"]).contains("status: NXDOMAIN"));
}

#[test]
fn without_udp_a_device_is_on_the_relay_within_5_s() {
    let mut lab = Lab::new();
    let bob = lab.device("bob");
    let mut alice = lab.host("alice");
    alice.namespace().block_udp();

    let started = Instant::now();
    alice.up(&[&lab.invite(&[])]);
    alice.wait_until_reaches(&bob.full_name(), Duration::from_secs(5));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    alice.wait_for_path(&bob, "relay", Duration::from_secs(1));
}

#[test]
fn traffic_goes_on_and_a_node_restarts_while_the_controller_is_away() {
    let mut lab = Lab::new();
    let (mut alice, bob) = (lab.device("alice"), lab.device("bob"));
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);
    alice.wait_until_saved();

    lab.kill_server();
    assert!(alice.reaches(&bob.full_name()));
    alice.kill();
    alice.up(&[]);
    alice.wait_until_reaches(&bob.full_name(), PATIENCE);

    lab.start_server();
    alice.wait_for_membership("online", Duration::from_secs(30));
    bob.wait_for_membership("online", Duration::from_secs(30));
    let carol = lab.device("carol");
    carol.wait_until_reaches(&alice.full_name(), PATIENCE);
}

#[test]
fn a_revoked_device_gets_nothing_within_5_s() {
    let mut lab = Lab::new();
    let (alice, bob, mallory) = (lab.device("alice"), lab.device("bob"), lab.device("mallory"));
    mallory.wait_until_reaches(&bob.full_name(), PATIENCE);
    let address = bob.addresses().swap_remove(0);

    lab.administer(&["device", "remove", "mallory"]);
    wait_for("mallory to be cut off", Duration::from_secs(5), || {
        (!mallory.reaches(&address)).then_some(())
    });
    assert!(!mallory.reaches(&address));
    alice.wait_until_reaches(&bob.full_name(), PATIENCE);
}

#[test]
fn an_invite_admits_one_device_and_the_second_is_told_why_not() {
    let mut lab = Lab::new();
    let invite = lab.invite(&[]);
    let mut alice = lab.host("alice");
    alice.up(&[&invite]);
    alice.wait_for_membership("online", PATIENCE);

    let thief = lab.host("thief");
    let output = thief.ask(&["up", "--name", "thief", &invite]);
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ask for a new one"));
}

#[test]
fn a_node_that_was_killed_leaves_no_resolver_behind_once_it_has_run_again() {
    let mut lab = Lab::new();
    let mut alice = lab.host("alice");
    std::fs::write(alice.namespace().resolv_conf(), "nameserver 192.0.2.53\n").expect("writable");
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_membership("online", PATIENCE);
    let resolver = || std::fs::read_to_string(alice.namespace().resolv_conf()).expect("readable");
    wait_for("the resolver to be set", PATIENCE, || {
        (!resolver().contains("192.0.2.53")).then_some(())
    });

    alice.kill();
    alice.up(&[]);
    alice.down();
    let after = std::fs::read_to_string(alice.namespace().resolv_conf()).expect("readable");
    assert_eq!(after, "nameserver 192.0.2.53\n");
    let links = alice.namespace().run("ip", &["-o", "link"]);
    assert!(!links.contains("shadowmesh"), "{links}");
}

#[test]
fn a_device_that_changes_its_address_is_back_within_5_s_and_directly_soon_after() {
    let mut lab = Lab::new();
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);

    let ip = |args: &[&str]| alice.namespace().run("ip", args);
    ip(&["address", "flush", "dev", "eth0", "scope", "global"]);
    ip(&["address", "add", "11.1.0.77/24", "dev", "eth0"]);
    alice.wait_until_reaches(&bob.full_name(), Duration::from_secs(5));
    wait_for("bob to use alice's new address", PATIENCE, || {
        if !bob.reaches(&alice.full_name()) {
            return None;
        }
        let status = bob.status()?;
        let peers = status["networks"][0]["peers"].as_array()?;
        let path = &peers.iter().find(|peer| peer["name"] == "alice")?["path"];
        (path["kind"] == "direct" && path["via"].as_str()?.starts_with("11.1.0.77:")).then_some(())
    });
}

#[test]
fn all_that_goes_underneath_bears_the_mark() {
    let mut lab = Lab::new();
    let bob = lab.device("bob");
    let mut alice = lab.host("alice");
    let nft = |args: &[&str]| alice.namespace().run("nft", args);
    nft(&["add", "table", "inet", "lab"]);
    nft(&["add", "chain", "inet", "lab", "out", "{ type filter hook output priority 0; }"]);
    let unmarked = "oifname eth0 meta l4proto { tcp, udp } meta mark != 0x53 drop";
    nft(&["add", "rule", "inet", "lab", "out", unmarked]);

    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_membership("online", PATIENCE);
    alice.wait_for_path(&bob, "direct", PATIENCE);
}

fn web_server(host: &Namespace, folder: &Path) -> Process {
    let log = folder.with_extension("http.log");
    let folder = folder.to_string_lossy();
    let args = ["-u", "-m", "http.server", "--bind", "::", "--directory", &folder, "8000"];
    let mut server = host.spawn("python3", &args, &log);
    server.wait_for_output("Serving HTTP", PATIENCE);
    server
}

/// Writes `noise`, which no compression shrinks, and returns its SHA-256.
fn file_of_noise(folder: &Path, len: usize) -> String {
    let file = folder.join("noise");
    let make = format!("head -c {len} /dev/urandom > {}", file.display());
    let made = Command::new("sh").args(["-c", &make]).status().expect("a shell");
    assert!(made.success());
    digest(&file)
}

/// The SHA-256 of a file.
fn digest(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().expect("a shell tool");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().next().expect("sha256sum prints a digest").to_owned()
}

/// Fetches a file of one device from the other, over both IP versions. What overtakes a socket on the way is lost, as by any
/// datagrams.
fn files_arrive_whole(to: &Device, from: &Device) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent = file_of_noise(folder.path(), 10 * MEGABYTE);
    let _server = web_server(from.namespace(), folder.path());
    let arrived = folder.path().join("arrived");
    for family in ["-6", "-4"] {
        let url = format!("http://{}:8000/noise", from.full_name());
        let file = arrived.display().to_string();
        let options = ["-sS", "--max-time", "120", family, "-o", &file, &url];
        to.namespace().run("curl", &options);
        assert_eq!(digest(&arrived), sent);
    }
}

/// Does something to what lies between two devices that have a path, and looks for how long nothing gets through.
fn traffic_goes_on_within_3_s((from, to): (&Device, &Device), act: impl FnOnce()) {
    /// As for a relay that dies.
    const OUTAGE: Duration = Duration::from_secs(3);
    /// A process that shares its machine with others may be late by this much.
    const LATE: Duration = Duration::from_millis(250);
    let probes = Probes::start(from, &to.addresses()[0]);
    probes.watch(Duration::from_secs(1));
    act();
    probes.watch(Duration::from_secs(8));
    let gap = probes.stop().longest_gap();
    #[expect(clippy::print_stderr, reason = "the figure that the test is about")]
    {
        eprintln!("longest gap {gap:?} of {OUTAGE:?}");
    }
    assert!(gap <= OUTAGE + LATE, "{gap:?} without an answer");
}

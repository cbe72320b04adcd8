//! Paths that carry less than others, or than they did.

use std::time::Duration;

use testlab::netns::{Nat, wait_for};
use testlab::network::{Device, Lab};

use crate::stream::Fetch;
use crate::{MEGABYTE, PATIENCE, file_of_noise, web_server};

/// While large packets are sent a path is asked every 5 s whether they pass, and left 5 s after they do not.
const LEFT: Duration = Duration::from_secs(15);
/// TCP has doubled its timeout meanwhile, so it waits once more for as long as that took, and a while for the ways there.
const RESUMED: Duration = Duration::from_secs(15);
/// One that was left is asked again every 30 s.
const FOUND_AGAIN: Duration = Duration::from_secs(45);
/// That large packets do not pass any more is found out after 25 s where none are sent; then a few sizes are tried ...
const SMALLER: Duration = Duration::from_secs(60);
/// ... each for at most this long.
const TRIES: Duration = Duration::from_secs(4);

#[test]
fn a_transfer_survives_when_its_path_stops_carrying_full_packets() {
    let mut lab = Lab::new();
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent = file_of_noise(folder.path(), 100 * MEGABYTE);
    let _server = web_server(bob.namespace(), folder.path());
    let mut fetching = Fetch::start(&alice, &bob, &["--limit-rate", "2M"], folder.path());
    fetching.advance(4 * MEGABYTE);
    bob.namespace().nft(
        "table inet narrow {
            chain out { type filter hook output priority 0; oifname eth0 meta l4proto udp meta length > 1300 drop; }
        }",
    );
    bob.wait_for_path(&alice, "relay", LEFT);
    let why = bob.why(&alice);
    assert!(why.to_string().contains("loses packets of full size"), "{why}");
    fetching.resume(RESUMED);
    fetching.advance(10 * MEGABYTE);

    bob.namespace().run("nft", &["delete", "table", "inet", "narrow"]);
    bob.wait_for_path(&alice, "direct", FOUND_AGAIN);
    assert_eq!(fetching.finish(), sent);
}

/// The largest packets that a device sends directly to another.
fn packet_size(from: &Device, to: &Device) -> Option<u64> {
    let _ = from.ping(&to.full_name());
    from.why(to)["mtu"].as_u64()
}

#[test]
fn packets_are_as_large_as_the_path_carries_and_the_system_is_told_how_large() {
    let mut lab = Lab::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let router = lab.router(Nat::FullCone, None);
    let (mut alice, bob) = (lab.host_behind(&router, "alice"), lab.device("bob"));
    alice.up(&[&lab.invite(&[])]);
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        from.wait_for_path(to, "direct", PATIENCE);
        wait_for("packets of full size", PATIENCE, || {
            packet_size(from, to).filter(|size| *size == 1_420)
        });
    }
    let passes = |size: u64, address: &str| {
        // Without the headers of IPv6 or IPv4, and of ICMP.
        let data = size - if address.contains(':') { 48 } else { 28 };
        let args = ["-n", "-c", "1", "-W", "1", "-M", "do", "-s", &data.to_string(), address];
        alice.namespace().attempt("ping", &args).status.success()
    };
    for address in bob.addresses() {
        assert!(passes(1_420, &address), "{address}");
    }

    // With 28 bytes for IPv4 and UDP, and 32 for the tunnel.
    router.namespace().run("ip", &["link", "set", "eth0", "mtu", "1400"]);
    let settled = |from: &Device, to: &Device| {
        wait_for("smaller packets", SMALLER, || {
            let size = packet_size(from, to).filter(|size| (1_324..=1_348).contains(size))?;
            // It grows no more.
            std::thread::sleep(TRIES);
            (packet_size(from, to) == Some(size)).then_some(size)
        })
    };
    // A virtual wire takes a little more than its far end sends.
    let (size, _) = (settled(&alice, &bob), settled(&bob, &alice));
    assert!(size <= 1_340, "{size}");
    // What its sender lets routers split is split, and nobody is told.
    let ipv4 = bob.addresses().into_iter().find(|address| !address.contains(':'));
    let ipv4 = ipv4.expect("it has one");
    let splittable = ["-n", "-c", "3", "-W", "2", "-M", "dont", "-s", "1392", &ipv4];
    let pings = alice.namespace().run("ping", &splittable);
    assert!(pings.contains(" 0% packet loss"), "{pings}");
    let route = alice.namespace().run("ip", &["route", "get", &ipv4]);
    assert!(!route.contains("mtu"), "{route}");
    assert_eq!(alice.path_kind(&bob).as_deref(), Some("direct"));
    for address in bob.addresses() {
        assert!(passes(size, &address) && !passes(size + 1, &address), "{address}");
        let route = alice.namespace().run("ip", &["route", "get", &address]);
        assert!(route.contains(&format!("mtu {size}")), "{route}");
    }
    let sent = file_of_noise(folder.path(), 20 * MEGABYTE);
    let _server = web_server(alice.namespace(), folder.path());
    let arrived = tempfile::tempdir().expect("a folder");
    assert_eq!(Fetch::start(&bob, &alice, &[], arrived.path()).finish(), sent);
    assert_eq!(alice.path_kind(&bob).as_deref(), Some("direct"));
}

//! Devices behind routers that translate addresses.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use serde_json::Value;
use testlab::netns::{Conditions, Nat, wait_for};
use testlab::network::{Device, Home, Lab};
use testlab::places::Place;

use crate::{PATIENCE, files_arrive_whole};

/// Guesses at ports that fail, as when many peers are new at once, are made again after half a minute.
const GUESSING: Duration = Duration::from_secs(90);

/// A device at a place, in the network.
fn joined(lab: &mut Lab, place: Place, name: &str) -> Home {
    let mut home = lab.at(place, name);
    home.device.up(&[&lab.invite(&[])]);
    home
}

#[test]
fn ports_that_both_routers_count_are_guessed_within_5_s() {
    let mut lab = Lab::new();
    for (left, right) in [
        (Nat::SymmetricSequential, Nat::PortRestricted),
        (Nat::PortRestricted, Nat::SymmetricSequential),
        (Nat::SymmetricSequential, Nat::SymmetricSequential),
    ] {
        let (home, office) = (lab.router(left, None), lab.router(right, None));
        let name = |side: &str| format!("{side}-{left:?}-{right:?}").to_lowercase();
        let mut alice = lab.host_behind(&home, &name("alice"));
        let mut bob = lab.host_behind(&office, &name("bob"));
        for device in [&mut alice, &mut bob] {
            device.up(&[&lab.invite(&[])]);
        }
        alice.wait_until_reaches(&bob.full_name(), PATIENCE);
        let began = Instant::now();
        alice.wait_for_path(&bob, "direct", GUESSING);
        bob.wait_for_path(&alice, "direct", GUESSING);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        for (nat, device) in [(left, alice), (right, bob)] {
            let check = netcheck(&device);
            let (mapping, step) = if matches!(nat, Nat::SymmetricSequential) {
                ("address-and-port-dependent", Value::from(1))
            } else {
                ("endpoint-independent", Value::Null)
            };
            assert_eq!((&check["mapping"], &check["port_step"]), (&mapping.into(), &step));
        }
    }
}

#[test]
fn one_port_in_hundreds_at_random_is_hit_by_a_device_at_home() {
    let mut lab = Lab::new();
    let Home { device: alice, .. } = &joined(&mut lab, Place::Symmetric, "alice");
    let Home { device: carol, .. } = &joined(&mut lab, Place::Symmetric, "carol");
    let Home { device: bob, .. } = &joined(&mut lab, Place::PortRestricted, "bob");
    // Two of a hundred attempts fail, and each device has one: at least one of them is to succeed.
    let found = wait_for("a direct path by chance", GUESSING, || {
        [alice, carol].into_iter().find(|device| {
            let _ = device.ping(&bob.full_name());
            device.path_kind(bob).as_deref() == Some("direct")
        })
    });
    bob.wait_for_path(found, "direct", PATIENCE);
    let via = found.path_to(bob).unwrap_or_default();
    assert!(via.parse().is_ok_and(|to: SocketAddrV4| !to.ip().is_private()), "{via}");
    files_arrive_whole(bob, found);
    assert_eq!(found.path_kind(bob).as_deref(), Some("direct"));
    assert_eq!(lab.warnings(), Vec::<String>::new());
}

/// What a device says of its surroundings.
pub(crate) fn netcheck(device: &Device) -> Value {
    serde_json::from_slice(&device.ask(&["netcheck"]).stdout).unwrap_or_default()
}

#[test]
fn netcheck_tells_whom_a_router_lets_in() {
    let mut lab = Lab::new();
    // One server alone cannot tell whether a router lets everybody in.
    let _relay = lab.relay("relay");
    let places = [
        (Place::FullCone, "endpoint-independent"),
        (Place::Restricted, "address-dependent"),
        (Place::PortRestricted, "address-and-port-dependent"),
        (Place::Symmetric, "address-and-port-dependent"),
    ];
    let homes = places.map(|(place, expected)| {
        (joined(&mut lab, place, &format!("{place:?}").to_lowercase()), expected)
    });
    for (home, expected) in &homes {
        wait_for(&format!("{} to be found {expected}", home.device.full_name()), PATIENCE, || {
            (netcheck(&home.device)["filtering"] == *expected).then_some(())
        });
    }
}

#[test]
fn a_carrier_that_translates_once_more_is_no_hindrance() {
    let mut lab = Lab::new();
    let carrier = lab.carrier(Nat::PortRestricted);
    let customer = lab.router_behind(&carrier, Nat::PortRestricted);
    let home = lab.router(Nat::PortRestricted, None);
    let mut alice = lab.host_behind(&customer, "alice");
    let mut bob = lab.host_behind(&home, "bob");
    for device in [&mut alice, &mut bob] {
        device.up(&[&lab.invite(&[])]);
    }
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);
}

#[test]
fn a_router_that_forgets_its_mappings_is_asked_again() {
    let mut lab = Lab::new();
    let (home, office) =
        (lab.router(Nat::PortRestricted, None), lab.router(Nat::PortRestricted, None));
    let (mut alice, mut bob) = (lab.host_behind(&home, "alice"), lab.host_behind(&office, "bob"));
    for device in [&mut alice, &mut bob] {
        device.up(&[&lab.invite(&[])]);
    }
    alice.wait_for_path(&bob, "direct", PATIENCE);
    home.forget_mappings();
    office.forget_mappings();
    // Nothing gets in to a device that happens to be silent, over relay or path, until it sends by itself: a path's keep-alive does so
    // every 20 s.
    bob.wait_until_reaches(&alice.full_name(), Duration::from_secs(25));
    alice.wait_for_path(&bob, "direct", 2 * PATIENCE);
}

#[test]
fn over_slow_and_lossy_links_devices_meet_directly_within_3_s() {
    let mut lab = Lab::new();
    let conditions = Conditions {
        delay: Duration::from_millis(25),
        jitter: Duration::from_millis(5),
        loss_permille: 10,
    };
    let homes = [(); 2].map(|()| lab.router(Nat::PortRestricted, Some(conditions)));
    let [alice, bob] = ["alice", "bob"];
    let mut alice = lab.host_behind(&homes[0], alice);
    let mut bob = lab.host_behind(&homes[1], bob);
    for device in [&mut alice, &mut bob] {
        device.up(&[&lab.invite(&[])]);
    }
    wait_for("both to be there", PATIENCE, || alice.reaches(&bob.full_name()).then_some(()));
    let started = Instant::now();
    alice.wait_for_path(&bob, "direct", PATIENCE);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn a_peer_is_found_where_it_was_though_nobody_is_there_to_say_where() {
    let mut lab = Lab::new();
    let routers = [(); 2].map(|()| lab.router(Nat::FullCone, None));
    let mut alice = lab.host_behind(&routers[0], "alice");
    let mut bob = lab.host_behind(&routers[1], "bob");
    // Without STUN he does not know his address in front of the translator, and cannot announce it.
    bob.namespace().nft(
        "table inet deaf {
            chain in { type filter hook input priority 0; udp sport { 3478, 3479 } drop; }
        }",
    );
    for device in [&mut alice, &mut bob] {
        device.up(&[&lab.invite(&[])]);
        device.wait_for_membership("online", PATIENCE);
    }
    alice.wait_for_path(&bob, "direct", PATIENCE);
    let (address, place) = (bob.addresses().swap_remove(0), alice.path_to(&bob));
    alice.down();
    lab.kill_server();
    // He answers, and says nothing by himself.
    bob.namespace().nft(
        "table inet silent {
            chain out { type filter hook output priority 0; oifname \"eth*\" meta l4proto udp ct direction original drop; }
        }",
    );
    alice.up(&[]);
    alice.wait_until_reaches(&address, PATIENCE);
    assert_eq!(alice.path_to(&bob), place);
}

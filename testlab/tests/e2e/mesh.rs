//! Relays that hand frames on to each other.

use std::thread::sleep;
use std::time::Duration;

use testlab::netns::wait_for;
use testlab::network::{Device, Lab, server_address};

use crate::PATIENCE;
use crate::translators::netcheck;

#[test]
fn devices_that_have_no_relay_in_common_reach_each_other() {
    let mut lab = Lab::new();
    let second = lab.relay("second");
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));
    for device in [&alice, &bob] {
        device.namespace().block_udp();
        device.wait_for_relays(2);
    }
    alice.wait_for_path(&bob, "relay", PATIENCE);
    let only = |host: &str| format!("ip daddr {host} meta l4proto tcp");
    alice.namespace().confine(&only(&server_address().to_string()));
    bob.namespace().confine(&only(second.address()));
    let address = bob.addresses().swap_remove(0);
    alice.wait_until_reaches(&address, 2 * PATIENCE);
    assert!((0..5).all(|_| alice.reaches(&address)), "and goes on to");
}

/// After 130 s without a report a relay counts as ill.
#[test]
fn relays_report_for_as_long_as_they_run() {
    let mut lab = Lab::new();
    let _second = lab.relay("second");
    for _ in 0..14 {
        sleep(Duration::from_secs(10));
        let relays = lab.administer(&["network", "relays"]);
        let relays = relays.as_array().expect("relays are a list");
        assert_eq!(relays.iter().filter(|relay| relay["healthy"] == true).count(), 2, "{relays:?}");
    }
}

#[test]
fn a_private_relay_serves_its_group_and_is_reached_by_everybody() {
    let mut lab = Lab::new();
    let options = ["--region", "attic", "--for-group", "ops"];
    let private = lab.relay_with("private", &options);
    let mut alice = lab.host("alice");
    alice.up(&[&lab.invite(&["--group", "ops"])]);
    let bob = lab.device("bob");
    let name = format!("{} (attic)", private.id());
    let seen = |device: &Device| {
        let relays = netcheck(device)["relays"].as_array().cloned().unwrap_or_default();
        relays.into_iter().find(|relay| relay["name"] == name.as_str())
    };
    let at_home = wait_for("alice to be at home at the private relay", PATIENCE, || {
        seen(&alice).filter(|relay| relay["attached"] == true && relay["home"] == true)
    });
    let latency = at_home["latency_ms"].as_f64().expect("STUN has told");
    assert!(latency < 1_000.0, "{latency} ms");
    bob.wait_for_relays(1);

    for device in [&alice, &bob] {
        device.namespace().block_udp();
    }
    alice.wait_for_path(&bob, "relay", PATIENCE);
    alice.namespace().confine(&format!("ip daddr {} meta l4proto tcp", private.address()));
    let address = bob.addresses().swap_remove(0);
    alice.wait_until_reaches(&address, 2 * PATIENCE);
    let by_bob = seen(&bob).expect("it is in the map");
    assert!(by_bob["attached"] == false && by_bob["home"] == false, "{by_bob}");
    let refused = lab.events().into_iter().filter(|event| event["kind"] == "connections-refused");
    assert_eq!(refused.count(), 0, "nobody asked in vain");
}

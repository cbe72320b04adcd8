//! Relays that hand frames on to each other.

use std::time::Duration;

use testlab::network::{Lab, server_address};

const PATIENCE: Duration = Duration::from_secs(20);

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

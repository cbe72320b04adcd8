//! Relays that hand frames on to each other.

use std::time::Duration;

use testlab::network::{Device, Lab, server_address};

const PATIENCE: Duration = Duration::from_secs(20);

/// Lets nothing out but TCP to one host.
fn confine(device: &Device, host: &str) {
    device.namespace().nft(&format!(
        "table inet confined {{
            chain out {{
                type filter hook output priority 0; policy drop;
                oif lo accept
                oifname \"shadowmesh*\" accept
                meta l4proto icmpv6 accept
                ip daddr {host} meta l4proto tcp accept
            }}
        }}"
    ));
}

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
    confine(&alice, &server_address().to_string());
    confine(&bob, second.address());
    let address = bob.addresses().swap_remove(0);
    alice.wait_until_reaches(&address, 2 * PATIENCE);
    assert!((0..5).all(|_| alice.reaches(&address)), "and goes on to");
}

//! Hosts that have no IPv4.

use std::time::Duration;

use testlab::netns::wait_for;
use testlab::network::{Device, IPV6, Lab};

use crate::PATIENCE;
use crate::translators::netcheck;

/// A host whose only address underneath is an IPv6 one.
fn without_ipv4(lab: &mut Lab, name: &str, number: u8) -> Device {
    let device = lab.host(name);
    device.namespace().run("ip", &["-4", "address", "flush", "dev", "eth0"]);
    let address = format!("{IPV6}{number:x}/64");
    device.namespace().run("ip", &["address", "add", &address, "dev", "eth0", "nodad"]);
    device
}

#[test]
fn a_host_without_ipv4_is_reached_directly_by_its_like_and_by_one_without_ipv6_through_the_relay() {
    let mut lab = Lab::with_ipv6();
    let (mut alice, mut bob) =
        (without_ipv4(&mut lab, "alice", 2), without_ipv4(&mut lab, "bob", 3));
    let mut carol = lab.host("carol");
    for device in [&mut alice, &mut bob, &mut carol] {
        device.up(&[&lab.invite(&[])]);
        device.wait_for_membership("online", PATIENCE);
    }
    for (one, other, number) in [(&alice, &bob, 3), (&bob, &alice, 2)] {
        for address in other.addresses() {
            one.wait_until_reaches(&address, PATIENCE);
        }
        one.wait_for_path(other, "direct", PATIENCE);
        let via = one.path_to(other).expect("there is a path");
        assert!(via.starts_with(&format!("[{IPV6}{number}]:")), "{via}");
    }
    for (one, other) in [(&carol, &alice), (&alice, &carol)] {
        one.wait_until_reaches(&other.full_name(), PATIENCE);
        one.wait_for_path(other, "udp-relay", PATIENCE);
    }
    let filtering = wait_for("alice to know whom her host lets in", PATIENCE, || {
        netcheck(&alice)["filtering_ipv6"].as_str().map(str::to_owned)
    });
    assert_eq!(filtering, "address-dependent at most", "nothing is in front of it");
    // What could have been found out by then was not a direct path to where there is none.
    carol.wait_for_path(&alice, "udp-relay", Duration::from_secs(1));
    assert_eq!(lab.warnings(), Vec::<String>::new());
}

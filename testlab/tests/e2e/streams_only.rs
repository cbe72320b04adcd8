//! Networks whose members send each other no datagrams.

use testlab::network::{Device, Lab, server_address};

use crate::{PATIENCE, files_arrive_whole};

/// Begins to count the datagrams between a device and these hosts.
fn count_datagrams(device: &Device, hosts: &[String]) {
    let hosts = hosts.join(", ");
    device.namespace().nft(&format!(
        "table inet seen {{
            counter datagrams {{ }}
            chain out {{ type filter hook output priority 0; ip daddr {{ {hosts} }} meta l4proto udp counter name datagrams; }}
            chain in {{ type filter hook input priority 0; ip saddr {{ {hosts} }} meta l4proto udp counter name datagrams; }}
        }}"
    ));
}

#[test]
fn where_streams_alone_are_allowed_files_arrive_and_no_datagram_is_seen() {
    let mut lab = Lab::new();
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));
    let both_take = |kind: &str| {
        alice.wait_for_path(&bob, kind, PATIENCE);
        bob.wait_for_path(&alice, kind, PATIENCE);
    };
    both_take("direct");
    lab.administer(&["network", "set", "--streams-only", "true"]);
    both_take("relay");
    count_datagrams(&alice, &[bob.underlay_address(), server_address().to_string()]);
    files_arrive_whole(&alice, &bob);
    both_take("relay");
    assert_eq!(alice.namespace().count("datagrams"), 0);
    assert_eq!(lab.warnings(), Vec::<String>::new());

    lab.administer(&["network", "set", "--streams-only", "false"]);
    both_take("direct");
    assert!(alice.namespace().count("datagrams") > 0, "what is counted is what goes between them");
}

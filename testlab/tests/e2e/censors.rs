//! Networks that drop what looks like WireGuard.

use std::time::Duration;

use serde_json::Value;
use testlab::network::Lab;
use testlab::probes::Probes;

use crate::PATIENCE;

/// Drops UDP whose payload begins as WireGuard's messages do.
const CENSOR: &str = "table inet censor {
    chain out { type filter hook output priority 0;
        meta l4proto udp @th,64,32 { 0x01000000, 0x02000000, 0x03000000, 0x04000000 } drop
    }
}";
/// Two ends find out within two seconds each, on a machine that is busy with other tests.
const OUTAGE: Duration = Duration::from_secs(6);
/// How long it may take until such a path is used again, which is tried every 20 seconds.
const AGAIN: Duration = Duration::from_secs(60);

#[test]
fn where_wireguard_is_dropped_traffic_takes_the_relay_until_it_passes_again() {
    let mut lab = Lab::with_frames_only();
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);

    let probes = Probes::start(&alice, &bob.addresses()[0]);
    probes.watch(Duration::from_secs(1));
    for device in [&alice, &bob] {
        device.namespace().nft(CENSOR);
    }
    probes.watch(Duration::from_secs(12));
    let gap = probes.stop().longest_gap();
    assert!(gap <= OUTAGE, "{gap:?} without an answer");
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        assert_eq!(from.path_kind(to).as_deref(), Some("relay"));
        let why = from.why(to);
        let candidates = why["candidates"].as_array().expect("there are some");
        let is_void = |path: &Value| path["lacks"] == "drops the tunnel's packets";
        assert!(candidates.iter().any(is_void), "{why}");
    }

    for device in [&alice, &bob] {
        device.namespace().run("nft", &["delete", "table", "inet", "censor"]);
    }
    alice.wait_for_path(&bob, "direct", AGAIN);
    bob.wait_for_path(&alice, "direct", AGAIN);
}

//! Networks that let few datagrams pass, and any stream.

use std::time::Duration;

use testlab::network::Lab;

use crate::{MEGABYTE, PATIENCE, digest, file_of_noise, web_server};

/// Lets 60 kB of UDP pass in a second, and drops the rest.
const THROTTLE: &str = "table inet throttle {
    chain out { type filter hook output priority 0;
        meta l4proto udp limit rate over 60 kbytes/second burst 20 kbytes drop
    }
}";
/// In seconds; by datagrams it would take ten times as long.
const SOON: &str = "60";
/// After half a minute the path is tried again, if ten pings, 3 s apart, say that it is well; after a whole one the next time.
const AGAIN: Duration = Duration::from_secs(120);

#[test]
fn where_datagrams_are_throttled_traffic_takes_the_relay_until_they_are_not() {
    let mut lab = Lab::with_frames_only();
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);
    for device in [&alice, &bob] {
        device.namespace().nft(THROTTLE);
    }

    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent = file_of_noise(folder.path(), 36 * MEGABYTE);
    let _server = web_server(bob.namespace(), folder.path());
    let arrived = folder.path().join("arrived");
    let (file, url) = (arrived.to_string_lossy(), format!("http://{}:8000/noise", bob.full_name()));
    alice.namespace().run("curl", &["-sS", "--max-time", SOON, "-o", &file, &url]);
    assert_eq!(digest(&arrived), sent);
    assert_eq!(bob.path_kind(&alice).as_deref(), Some("relay"));
    let why = bob.why(&alice);
    assert!(why.to_string().contains("% of the tunnel's packets"), "{why}");

    for device in [&alice, &bob] {
        device.namespace().run("nft", &["delete", "table", "inet", "throttle"]);
    }
    bob.wait_for_path(&alice, "direct", AGAIN);
    alice.wait_for_path(&bob, "direct", AGAIN);
}

//! A path that carries less than it did.

use std::time::Duration;

use testlab::network::Lab;

use crate::stream::Fetch;
use crate::{MEGABYTE, PATIENCE, file_of_noise, web_server};

/// A path is asked every 20 s whether full packets pass, and left 5 s after they do not.
const LEFT: Duration = Duration::from_secs(35);
/// One that was left is asked again every 30 s.
const FOUND_AGAIN: Duration = Duration::from_secs(45);

#[test]
fn a_transfer_survives_when_its_path_stops_carrying_full_packets() {
    let mut lab = Lab::new();
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent = file_of_noise(folder.path(), 100 * MEGABYTE);
    let _server = web_server(&bob, folder.path());
    let mut fetching = Fetch::start(&alice, &bob, &["--limit-rate", "2M"], folder.path());
    fetching.advance(4 * MEGABYTE);
    bob.namespace().nft(
        "table inet narrow {
            chain out { type filter hook output priority 0; oifname eth0 meta l4proto udp meta length > 1300 drop; }
        }",
    );
    bob.wait_for_path(&alice, "relay", LEFT);
    let why = String::from_utf8_lossy(&bob.ask(&["why", "alice"]).stdout).into_owned();
    assert!(why.contains("loses packets of full size"), "{why}");
    fetching.advance(10 * MEGABYTE);

    bob.namespace().run("nft", &["delete", "table", "inet", "narrow"]);
    bob.wait_for_path(&alice, "direct", FOUND_AGAIN);
    assert_eq!(fetching.finish(), sent.split_whitespace().next().unwrap_or_default());
}

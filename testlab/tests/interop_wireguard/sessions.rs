//! Handshakes, and the sessions that come of them.

use std::time::Duration;

use crate::node::{Kind, Node, OTHER_AT, OTHERS, OURS_AT, PATIENCE, pair, pair_with};

#[test]
fn we_begin_and_the_other_answers() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        other.peer(&ours, None);
        ours.peer(&other, Some(OTHER_AT));
        ours.ping(&other);
        ours.ping_address(&other.inner6);
        assert_eq!(other.show("endpoints")[0], OURS_AT, "{kind:?}");
    }
}

#[test]
fn the_other_begins_and_we_answer() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        ours.peer(&other, None);
        other.peer(&ours, Some("[2001:db8::1]:51820"));
        other.ping(&ours);
        other.ping_address(&ours.inner6);
        assert_eq!(ours.show("endpoints")[0], "[2001:db8::2]:51820", "{kind:?}");
    }
}

#[test]
fn wg_reads_handshake_time_and_counters() {
    let (ours, other) = pair(Kind::WireguardGo);
    other.peer(&ours, None);
    ours.peer(&other, Some(OTHER_AT));
    assert_eq!(ours.latest_handshake(), 0);
    let begun = std::time::SystemTime::now();
    ours.ping(&other);
    let handshake = std::time::UNIX_EPOCH + Duration::from_secs(ours.latest_handshake());
    let second = Duration::from_secs(1);
    assert!(handshake + second >= begun && handshake <= std::time::SystemTime::now() + second);
    let before = ours.transfer();
    let args = ["-c", "5", "-i", "0.2", "-s", "1000", "-n", &other.inner];
    ours.namespace.run("ping", &args);
    let after = ours.transfer();
    // Five packets of 1,028 bytes, padded to 1,040, with 32 bytes around each.
    assert_eq!((after.0 - before.0, after.1 - before.1), (5 * 1072, 5 * 1072));
}

#[test]
fn a_preshared_key_is_needed_by_both() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        let psk = ours.folder.path().join("psk");
        std::fs::write(&psk, ours.namespace.run("wg", &["genpsk"])).expect("a temporary file");
        let psk = psk.display().to_string();
        ours.peer(&other, Some(OTHER_AT));
        other.peer(&ours, None);
        ours.wg(&["peer", &other.public, "preshared-key", &psk]);
        ours.namespace.attempt("ping", &["-c", "1", "-W", "2", &other.inner]);
        assert_eq!(ours.latest_handshake(), 0, "{kind:?}: not without the key");
        // boringtun does not change peers.
        other.wg(&["peer", &ours.public, "remove"]);
        let allowed = format!("{}/32", ours.inner);
        other.wg(&["peer", &ours.public, "preshared-key", &psk, "allowed-ips", &allowed]);
        ours.ping(&other);
        assert_ne!(ours.latest_handshake(), 0);
    }
}

#[test]
fn a_session_is_renewed_under_traffic_without_loss() {
    for kind in OTHERS {
        let (ours, other) = pair_with(kind, &[("WG_REKEY_AFTER_BYTES", "100000")]);
        other.peer(&ours, None);
        ours.peer(&other, Some(OTHER_AT));
        ours.ping(&other);
        let first = ours.latest_handshake();
        let seen = other.latest_handshake();
        let args = ["-c", "400", "-i", "0.02", "-s", "1200", "-q", "-n", &other.inner];
        let out = ours.namespace.run("ping", &args);
        assert!(out.contains(" 0% packet loss"), "{kind:?}: {out}");
        assert!(ours.latest_handshake() >= first + 5, "{kind:?}: after REKEY_TIMEOUT");
        if kind == Kind::WireguardGo {
            assert!(other.latest_handshake() >= seen + 5, "the other end knows of it");
        }
    }
}

#[test]
fn a_restarted_other_is_found_again() {
    let (ours, other) = pair(Kind::WireguardGo);
    other.peer(&ours, None);
    ours.peer(&other, Some(OTHER_AT));
    ours.ping(&other);
    let Node { namespace, process, .. } = other;
    process.stop(PATIENCE);
    let other = Node::start(Kind::WireguardGo, namespace, 2);
    other.peer(&ours, None);
    ours.wg(&["peer", &other.public, "allowed-ips", "10.77.0.2/32", "endpoint", OTHER_AT]);
    ours.ping(&other);
}

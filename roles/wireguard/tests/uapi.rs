//! The text protocol of `wg`.

#![allow(clippy::unwrap_used, reason = "a test may end where it stands")]

use std::time::Duration;

use proptest::prelude::*;
use wireguard::uapi::{Request, UapiError, answer};

const KEY: &str = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";

fn changes(lines: &str) -> wireguard::uapi::Changes {
    let Request::Set(changes) = Request::parse(&format!("set=1\n{lines}")).unwrap() else {
        panic!("a set")
    };
    changes
}

#[test]
fn a_get_is_a_get() {
    assert!(matches!(Request::parse("get=1\n"), Ok(Request::Get)));
}

#[test]
fn lines_before_the_first_peer_concern_the_interface() {
    let changes = changes(&format!(
        "private_key={KEY}\nlisten_port=51820\nfwmark=0x20\nreplace_peers=true\n"
    ));
    assert_eq!(changes.listen_port, Some(51820));
    assert_eq!(changes.fwmark, Some(32));
    assert!(changes.replace_peers && changes.private_key.unwrap().is_some());
    assert!(changes.peers.is_empty());
}

#[test]
fn a_key_of_zeros_takes_the_private_key_away() {
    let changes = changes(&format!("private_key={}\n", "0".repeat(64)));
    assert!(changes.private_key.unwrap().is_none());
}

#[test]
fn lines_after_a_public_key_concern_that_peer() {
    let changes = changes(&format!(
        "public_key={KEY}\nendpoint=[fe80::1%1]:51820\npersistent_keepalive_interval=25\n\
         replace_allowed_ips=true\nallowed_ip=10.0.0.0/8\nallowed_ip=-fd00::/8\n\
         protocol_version=1\npublic_key={}\nremove=true\nupdate_only=true\n",
        KEY.replace("01", "ff")
    ));
    let [first, second] = &changes.peers[..] else { panic!("two peers") };
    assert_eq!(first.endpoint.unwrap().port(), 51820);
    assert_eq!(first.persistent_keepalive, Some(Duration::from_secs(25)));
    assert!(first.replace_allowed_ips && !first.remove);
    assert_eq!(
        first.allowed_ips,
        [(true, "10.0.0.0/8".parse().unwrap()), (false, "fd00::/8".parse().unwrap())]
    );
    assert!(second.remove && second.update_only);
}

#[test]
fn what_is_not_understood_is_refused_with_the_number_that_wg_expects() {
    for (request, error) in [
        ("", UapiError::Invalid),
        ("get=2", UapiError::Invalid),
        ("set=1\nlisten_port=70000", UapiError::Invalid),
        ("set=1\nprivate_key=00", UapiError::Invalid),
        ("set=1\nno_such_key=1", UapiError::Invalid),
        ("set=1\nallowed_ip=10.0.0.0/8", UapiError::Invalid),
    ] {
        assert_eq!(Request::parse(request).unwrap_err(), error, "{request}");
    }
    let version = format!("set=1\npublic_key={KEY}\nprotocol_version=2");
    assert_eq!(Request::parse(&version).unwrap_err(), UapiError::Version);
    assert_eq!(*answer("", Err(UapiError::Invalid)), "errno=-22\n\n");
    assert_eq!(*answer("listen_port=1\n", Ok(())), "listen_port=1\nerrno=0\n\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics_the_parser(text in ".{0,300}") {
        let _ = Request::parse(&text);
        let _ = Request::parse(&format!("set=1\n{text}"));
    }

    #[test]
    fn no_value_panics_the_parser(
        key in prop::sample::select(&[
            "private_key", "listen_port", "fwmark", "replace_peers", "remove", "update_only",
            "preshared_key", "endpoint", "persistent_keepalive_interval", "replace_allowed_ips",
            "allowed_ip", "protocol_version", "public_key",
        ][..]),
        value in "[-0-9a-fx:./\\[\\]%]{0,70}",
    ) {
        let _ = Request::parse(&format!("set=1\n{key}={value}"));
        let _ = Request::parse(&format!("set=1\npublic_key={KEY}\n{key}={value}"));
    }
}

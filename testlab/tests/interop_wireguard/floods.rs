//! Cookies under a flood of initiations.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use testlab::netns::{Process, wait_for};
use wireguard_proto::{
    Interface, InterfaceConfig, LoadLimits, PeerConfig, PrivateKey, PublicKey, Tai64N,
};

use crate::helper::{helper, helper_argument};
use crate::node::{Kind, Node, OTHER_AT, OTHERS, OURS_AT, PATIENCE, pair};

#[test]
fn under_load_we_ask_for_cookies_and_let_in_who_brings_one() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        ours.peer(&other, None);
        let flood = flood(&other, &ours.public, OURS_AT);
        wait_for("the flood", PATIENCE, || (received_datagrams(&ours) > 500).then_some(()));
        let capture = capture(&ours, "udp[8] == 3 and src port 51820 and not dst port 9");
        other.peer(&ours, Some(OURS_AT));
        wait_for("a handshake with a cookie", PATIENCE, || {
            other.namespace.attempt("ping", &["-c", "1", "-W", "1", &ours.inner]);
            (other.latest_handshake() != 0).then_some(())
        });
        assert!(
            capture.output().contains("192.0.2.2.51820: UDP"),
            "{kind:?} was sent a cookie:\n{}",
            capture.output()
        );
        flood.kill();
    }
}

#[test]
fn asked_for_a_cookie_we_bring_one() {
    let (ours, other) = pair(Kind::Boringtun);
    other.peer(&ours, None);
    let flood = flood(&ours, &other.public, OTHER_AT);
    wait_for("the flood", PATIENCE, || (received_datagrams(&other) > 500).then_some(()));
    let capture = capture(&other, "udp[8] == 3 and src port 51820 and not dst port 9");
    ours.peer(&other, Some(OTHER_AT));
    wait_for("a handshake with a cookie", PATIENCE, || {
        ours.namespace.attempt("ping", &["-c", "1", "-W", "1", &other.inner]);
        (ours.latest_handshake() != 0).then_some(())
    });
    assert!(
        capture.output().contains("192.0.2.1.51820: UDP"),
        "we were sent a cookie:\n{}",
        capture.output()
    );
    flood.kill();
}

/// A capture that is ready, of what `filter` lets through.
fn capture(node: &Node, filter: &str) -> Process {
    let log = node.folder.path().join("capture");
    let args = ["-i", "eth0", "-n", "-l", "--immediate-mode", filter];
    let mut capture = node.namespace.spawn("tcpdump", &args, &log);
    capture.wait_for_output("listening on", PATIENCE);
    capture
}

fn received_datagrams(node: &Node) -> u64 {
    let out = node.namespace.run("cat", &["/proc/net/snmp"]);
    let line = out.lines().filter(|line| line.starts_with("Udp:")).nth(1).expect("counters");
    line.split_whitespace().nth(1).expect("InDatagrams").parse().expect("a number")
}

/// Well-made initiations of nobody, from the node's namespace, until it is killed.
pub(crate) fn flood(from: &Node, public: &str, to: &str) -> Process {
    helper(from, "floods::flooding", &format!("{public} {to}"), &from.folder.path().join("flood"))
}

#[test]
#[ignore = "runs inside a namespace on behalf of another test"]
fn flooding() {
    let (key, at) = helper_argument();
    let key = data_encoding::BASE64.decode(key.as_bytes()).expect("base64");
    let peer = PublicKey::from_bytes(key.try_into().expect("32 bytes"));
    let at: SocketAddr = at.parse().expect("an address");
    let socket = UdpSocket::bind("0.0.0.0:9").expect("port 9 is free");
    let now = Instant::now();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let messages: Vec<Vec<u8>> = (0..200)
        .map(|_| {
            let config = InterfaceConfig {
                private_key: PrivateKey::generate(&mut rng),
                rekey_after_bytes: None,
                limits: LoadLimits::default(),
                last_timestamp: Tai64N::default(),
                wall: Duration::from_secs(1_700_000_000),
            };
            let mut interface = Interface::new(config, now);
            let config = PeerConfig { endpoint: Some(at), ..PeerConfig::default() };
            interface.add_peer(peer, config, now);
            interface.initiate(&peer, &mut rng, now);
            interface.poll_transmit().expect("an initiation").message
        })
        .collect();
    for message in messages.iter().cycle() {
        let _ = socket.send_to(message, at);
        // A pace, not a wait: a thousand a second.
        std::thread::sleep(Duration::from_millis(1));
    }
}

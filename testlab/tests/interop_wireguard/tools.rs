//! What `wg`, `wg-quick` and `ip` do to an interface.

use testlab::netns::{Namespace, shadowmesh, wait_for};

use crate::floods::flood;
use crate::node::{Kind, Node, OTHER_AT, PATIENCE, hosts, pair, socket_of, unique_interface};

#[test]
fn configuration_survives_showconf_and_syncconf() {
    let (ours, other) = pair(Kind::WireguardGo);
    other.peer(&ours, None);
    ours.peer(&other, Some(OTHER_AT));
    ours.wg(&["fwmark", "0x42", "peer", &other.public, "persistent-keepalive", "21"]);
    ours.ping(&other);
    let shown = ours.namespace.run("wg", &["showconf", &ours.interface]);
    for expected in [
        "ListenPort = 51820",
        "FwMark = 0x42",
        &format!("PrivateKey = {}", ours.private),
        &format!("PublicKey = {}", other.public),
        "Endpoint = 192.0.2.2:51820",
        "PersistentKeepalive = 21",
    ] {
        assert!(shown.contains(expected), "{expected} in\n{shown}");
    }
    let handshake = ours.latest_handshake();
    let file = ours.folder.path().join("conf");
    std::fs::write(&file, &shown).expect("a temporary file");
    ours.namespace.run("wg", &["syncconf", &ours.interface, &file.display().to_string()]);
    assert_eq!(ours.latest_handshake(), handshake, "the session goes on");
    assert_eq!(ours.namespace.run("wg", &["showconf", &ours.interface]), shown);

    let without = shown.split("[Peer]").next().expect("a first section");
    std::fs::write(&file, without).expect("a temporary file");
    ours.namespace.run("wg", &["syncconf", &ours.interface, &file.display().to_string()]);
    assert_eq!(ours.namespace.run("wg", &["show", &ours.interface, "peers"]).trim(), "");
}

#[test]
fn a_taken_port_is_an_error_of_wg_set() {
    let (ours, _other) = pair(Kind::WireguardGo);
    let holder = flood(&ours, &ours.public, "192.0.2.2:1");
    wait_for("the port to be taken", PATIENCE, || {
        let listed = ours.namespace.run("cat", &["/proc/net/udp"]);
        listed.contains("00000000:0009 ").then_some(())
    });
    let out = ours.namespace.attempt("wg", &["set", &ours.interface, "listen-port", "9"]);
    assert!(!out.status.success(), "the port is taken");
    assert_eq!(ours.namespace.run("wg", &["show", &ours.interface, "listen-port"]).trim(), "51820");
    holder.kill();
}

#[test]
fn wg_quick_brings_it_up_and_down() {
    let (a, b) = hosts();
    let other = Node::start(Kind::WireguardGo, b, 2);
    let interface = unique_interface();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let private = a.run("wg", &["genkey"]).trim().to_owned();
    let public = a.run("sh", &["-c", &format!("echo {private} | wg pubkey")]).trim().to_owned();
    let conf = folder.path().join(format!("{interface}.conf"));
    let text = format!(
        "[Interface]\nPrivateKey = {private}\nListenPort = 51820\nAddress = 10.77.0.1/24\n\
         MTU = 1400\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.2/32\nEndpoint = {OTHER_AT}\n",
        other.public
    );
    std::fs::write(&conf, text).expect("a temporary file");
    other.wg(&["peer", &public, "allowed-ips", "10.77.0.1/32"]);

    let wrapper = folder.path().join("implementation");
    let script = format!("#!/bin/sh\nexec {} wireguard \"$@\"\n", shadowmesh().display());
    std::fs::write(&wrapper, script).expect("a temporary file");
    a.run("chmod", &["+x", &wrapper.display().to_string()]);
    let quick = |verb: &str| {
        let mut command = a.command("wg-quick");
        command.args([verb, &conf.display().to_string()]);
        command.env("WG_QUICK_USERSPACE_IMPLEMENTATION", &wrapper);
        let out = command.output().expect("wg-quick runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    quick("up");
    let link = a.run("ip", &["link", "show", &interface]);
    assert!(link.contains("mtu 1400"), "{link}");
    wait_for("an answer", PATIENCE, || {
        let args = ["-c", "1", "-W", "1", "10.77.0.2"];
        a.attempt("ping", &args).status.success().then_some(())
    });
    quick("down");
    let socket = socket_of(&interface);
    wait_for("the end of the process", PATIENCE, || (!socket.exists()).then_some(()));
}

#[test]
fn an_interface_moved_to_another_namespace_keeps_its_sockets() {
    let (ours, other) = pair(Kind::WireguardGo);
    other.peer(&ours, None);
    ours.peer(&other, Some(OTHER_AT));
    let inside = Namespace::new("inside");
    let args = ["link", "set", &ours.interface, "netns", &inside.id()];
    ours.namespace.run("ip", &args);
    inside.run("ip", &["addr", "add", "10.77.0.1/24", "dev", &ours.interface]);
    inside.run("ip", &["link", "set", &ours.interface, "mtu", "1300", "up"]);
    wait_for("an answer", PATIENCE, || {
        let args = ["-c", "1", "-W", "1", &other.inner];
        inside.attempt("ping", &args).status.success().then_some(())
    });
    // Padding keeps to the MTU, which is seen where the interface is now: a packet of 1,300
    // bytes is not padded to 1,312.
    wait_for("the new MTU", PATIENCE, || {
        let before = ours.transfer();
        inside.attempt("ping", &["-c", "1", "-W", "1", "-s", "1272", &other.inner]);
        (ours.transfer().1 - before.1 == 1332).then_some(())
    });
}

#[test]
fn it_ends_with_its_interface_its_socket_or_a_signal() {
    for (what, end) in
        [("the interface", "ip link del IF"), ("the socket", "rm /var/run/wireguard/IF.sock")]
    {
        let (a, _b) = hosts();
        let ours = Node::start(Kind::Ours, a, 1);
        let command = end.replace("IF", &ours.interface);
        ours.namespace.run("sh", &["-c", &command]);
        let socket = socket_of(&ours.interface);
        let gone = || !socket.exists();
        wait_for(what, PATIENCE, || gone().then_some(()));
        wait_for("the interface to be gone", PATIENCE, || {
            let shown = ours.namespace.attempt("ip", &["link", "show", &ours.interface]);
            (!shown.status.success()).then_some(())
        });
    }
    let (a, _b) = hosts();
    let ours = Node::start(Kind::Ours, a, 1);
    let socket = socket_of(&ours.interface);
    assert!(ours.process.stop(PATIENCE).success());
    assert!(!socket.exists());
}

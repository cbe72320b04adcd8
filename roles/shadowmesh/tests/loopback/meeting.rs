//! A server and its nodes, from the first invite to the server's return.

use crate::processes::{Network, PAGE, run, web_server};

#[test]
fn two_nodes_meet_by_invite_and_outlive_their_server() {
    let (network, mut server, _) = Network::create(&[]);
    let first = server.wait_for("shadowmesh up ");
    let second = network.ask("server", &["invite", "create"]);

    let publish = format!("80={}", web_server());
    let mut nas = network.node("nas", &[&first, "--publish", &publish]);
    nas.wait_for("Joined home");
    let mut b = network.node("b", &[&second]);
    b.wait_for("Joined home");
    network.ping("b", "nas");
    assert_eq!(network.fetch("b", "nas.home.alt"), PAGE);

    let used = run(&network.state("c"), &["up", "--mode", "userspace", &second]);
    assert_eq!(used.status.code(), Some(5), "{}", String::from_utf8_lossy(&used.stderr));

    server.kill();
    assert_eq!(network.fetch("b", "nas.home.alt"), PAGE);

    network.wait_until_kept("b", "nas");
    b.kill();
    let _b = network.node("b", &[]);
    network.ping("b", "nas");
    assert_eq!(network.fetch("b", "nas.home.alt"), PAGE);

    let mut server = network.serve("server", &[]);
    server.wait_for("wss://127.0.0.1:");
    let third = network.ask("server", &["invite", "create"]);
    let mut d = network.node("d", &[&third]);
    d.wait_for("Joined home");
    network.ping("d", "nas");
    assert_eq!(network.fetch("d", "nas.home.alt"), PAGE);
}

#[test]
fn nodes_without_udp_meet_over_a_server_without_tls() {
    let (network, mut server, _) = Network::create(&["--no-tls"]);
    let first = server.wait_for("shadowmesh up ");
    let second = network.ask("server", &["invite", "create"]);
    let mut nas = network.node("nas", &[&first, "--no-udp"]);
    nas.wait_for("Joined home");
    let mut b = network.node("b", &[&second, "--no-udp"]);
    b.wait_for("Joined home");
    network.ping("b", "nas");
}

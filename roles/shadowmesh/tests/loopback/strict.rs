//! Strict mode: the owner's key makes invites and signs, the server does neither.

use std::path::Path;
use std::process::Command;

use crate::processes::{Network, answer, command, run};

/// A command that is given the network's key.
fn with_key(state: &Path, arguments: &[&str], passphrase: &str) -> Command {
    let mut command = command(state, arguments);
    command.env("SHADOWMESH_KEY_PASSPHRASE", passphrase);
    command
}

#[test]
fn in_strict_mode_the_owner_invites_and_the_server_cannot() {
    let (network, mut server, passphrase) = Network::create(&["--strict"]);
    let first = server.wait_for("shadowmesh up ");
    let state = network.state("server");
    let key_file = state.join("network.key");
    let key = key_file.to_str().expect("a path in UTF-8");
    let mut nas = network.node("nas", &[&first]);
    nas.wait_for("Joined home");
    assert_eq!(run(&state, &["invite", "create"]).status.code(), Some(5));

    let create = ["invite", "create", "--key-file", key];
    let wrong = with_key(&state, &create, "another passphrase").output().expect("it starts");
    assert_eq!(wrong.status.code(), Some(5), "{}", String::from_utf8_lossy(&wrong.stderr));
    let second = answer(&mut with_key(&state, &create, &passphrase));
    let mut b = network.node("b", &[&second]);
    b.wait_for("Joined home");
    network.ping("b", "nas");

    // Where the owner is, no controller can be asked; the server's relay was signed at its first start.
    let outline = network.folder.path().join("outline");
    std::fs::write(&outline, network.ask("server", &["network", "outline"])).expect("it is kept");
    let outline = outline.to_str().expect("a path in UTF-8");
    let create = ["invite", "create", "--key-file", key, "--outline", outline];
    let third = answer(&mut with_key(&network.state("owner"), &create, &passphrase));
    let mut c = network.node("c", &["--no-udp", &third]);
    c.wait_for("Joined home");
    network.ping("c", "nas");
    assert_eq!(network.show("server")["mode"], "strict");
    assert_eq!(network.show("server")["unsigned"], 0);

    let set = run(&state, &["network", "set", "--approval", "true"]);
    let reminder = String::from_utf8_lossy(&set.stderr).into_owned();
    assert!(reminder.contains("network sign"), "{reminder}");
    assert_eq!(network.show("server")["unsigned"], 1);
    let sign = ["network", "sign", "--key-file", key];
    let unasked = with_key(&state, &sign, &passphrase).output().expect("it starts");
    assert_eq!(unasked.status.code(), Some(2));
    let signed = answer(&mut with_key(&state, &[&sign[..], &["--yes"]].concat(), &passphrase));
    assert!(signed.contains("approval needed"), "{signed}");
    assert_eq!(network.show("server")["unsigned"], 0);

    server.kill();
    let mut server = network.serve("server", &["--strict"]);
    server.wait_for("wss://127.0.0.1:");
    let devices = network.ask("server", &["--json", "device", "list"]);
    for name in ["nas", "b", "c", "relay"] {
        assert!(devices.contains(&format!("\"name\": \"{name}\"")), "{name} in {devices}");
    }
}

#[test]
fn strict_is_decided_when_a_network_is_created() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = folder.path().join("key");
    let key = key.to_str().expect("a path in UTF-8");
    let strict = folder.path().join("strict");
    let create = ["network", "create", "home", "--key-file", key, "--strict"];
    answer(&mut with_key(&strict, &create, "a passphrase"));
    // Its relay needs an invite that only the owner can make.
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    assert_eq!(run(&strict, &serve).status.code(), Some(2));

    let simple = folder.path().join("simple");
    let key = folder.path().join("other key");
    let key = key.to_str().expect("a path in UTF-8");
    answer(&mut with_key(&simple, &["network", "create", "home", "--key-file", key], "another"));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--strict"];
    assert_eq!(run(&simple, &serve).status.code(), Some(2));
}

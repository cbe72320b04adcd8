//! Backups: restored under a new epoch they count again, put back by hand they do not.

use std::path::Path;

use crate::processes::{Network, answer, command, run};

const PASSPHRASE: &str = "of the backup";

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("it is there").map_while(Result::ok) {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("it has one") {
            kind if kind.is_dir() => copy(&entry.path(), &target),
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), target).expect("room")),
            // Sockets are made anew.
            _ => {}
        }
    }
}

#[test]
fn nodes_refuse_an_old_state_unless_it_was_restored_with_the_networks_key() {
    let (network, mut server, key_passphrase) = Network::create(&[]);
    let first = server.wait_for("shadowmesh up ");
    let mut nas = network.node("nas", &[&first]);
    nas.wait_for("Joined home");
    let path = |name: &str| network.folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (backup, key) = (path("backup"), path("server/network.key"));

    let mut take = command(&network.state("server"), &["network", "backup", &backup]);
    answer(take.env("SHADOWMESH_BACKUP_PASSPHRASE", PASSPHRASE));
    let again = take.output().expect("it starts");
    assert_eq!(again.status.code(), Some(2), "a backup is never written over");
    server.kill();
    copy(&network.state("server"), &network.state("copied"));
    let mut server = network.serve("server", &[]);
    server.wait_for("wss://127.0.0.1:");
    // More changes than the copy will make: it has no map that is as new as this one.
    for approval in ["true", "false"].into_iter().cycle().take(21) {
        network.ask("server", &["network", "set", "--approval", approval]);
    }
    let second = network.ask("server", &["invite", "create", "--approval", "false"]);
    let mut b = network.node("b", &[&second]);
    b.wait_for("Joined home");
    network.ping("b", "nas");
    server.kill();

    let mut copied = network.serve("copied", &[]);
    copied.wait_for("wss://127.0.0.1:");
    // It came in after the change, so it has seen it.
    b.wait_for("RollbackRefused");
    copied.kill();

    let restore = ["network", "restore", &backup, "--key-file", &key];
    let mut restore = command(&network.state("restored"), &restore);
    restore.env("SHADOWMESH_KEY_PASSPHRASE", &key_passphrase);
    let wrong = restore.env("SHADOWMESH_BACKUP_PASSPHRASE", "another").output().expect("it starts");
    assert_eq!(wrong.status.code(), Some(5), "{}", String::from_utf8_lossy(&wrong.stderr));
    answer(restore.env("SHADOWMESH_BACKUP_PASSPHRASE", PASSPHRASE));
    let mut restored = network.serve("restored", &[]);
    restored.wait_for("wss://127.0.0.1:");
    assert!(network.show("restored")["epoch"].as_u64() > Some(0));
    // Who came after the backup is a member by its certificate, and is taken in again.
    let third = network.ask("restored", &["invite", "create"]);
    let mut c = network.node("c", &[&third]);
    c.wait_for("Joined home");
    network.ping("c", "b");
    network.ping("c", "nas");
    let full =
        run(&network.state("restored"), &["network", "restore", &backup, "--key-file", &key]);
    assert_eq!(full.status.code(), Some(2), "a network is never written over");
}

//! Devices that see each other in another overlay network, and nowhere else.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testlab::netns::{Process, wait_for};
use testlab::network::{Device, Lab};

const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 9001;

/// Makes a host a node of Yggdrasil that listens, and dials `peer` if there is one; returns its address there.
fn yggdrasil(device: &Device, peer: Option<&Device>, folder: &Path) -> (Process, String) {
    let host = device.namespace();
    let generated = host.run("yggdrasil", &["-genconf", "-json"]);
    let mut settings: Value = serde_json::from_str(&generated).expect("yggdrasil writes JSON");
    let at = |device: &Device| format!("tcp://{}:{PORT}", device.underlay_address());
    settings["Listen"] = json!([format!("tcp://0.0.0.0:{PORT}")]);
    settings["Peers"] = json!(peer.map(at).into_iter().collect::<Vec<_>>());
    settings["MulticastInterfaces"] = json!([]);
    settings["AdminListen"] = json!("none");
    settings["IfName"] = json!("ygg0");
    let file = folder.join(format!("{}.conf", device.full_name()));
    std::fs::write(&file, settings.to_string()).expect("a temporary file");
    let args = ["-useconffile", &*file.to_string_lossy()];
    let process = host.spawn("yggdrasil", &args, &file.with_extension("log"));
    let address = wait_for("an address of Yggdrasil", PATIENCE, || {
        let shown =
            host.attempt("ip", &["-6", "-o", "addr", "show", "dev", "ygg0", "scope", "global"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        Some(shown.split_whitespace().nth(3)?.split('/').next()?.to_owned())
    });
    (process, address)
}

/// Lets no datagram through underneath.
fn forbid_udp_underneath(device: &Device) {
    device.namespace().nft(
        "table inet underneath {
            chain in { type filter hook input priority 0; iifname eth0 meta l4proto udp drop; }
            chain out { type filter hook output priority 0; oifname eth0 meta l4proto udp drop; }
        }",
    );
}

#[test]
fn an_address_of_yggdrasil_is_a_candidate_like_any_other() {
    let mut lab = Lab::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| lab.host(name));
    let (_first, at_alice) = yggdrasil(&alice, None, folder.path());
    let (_second, at_bob) = yggdrasil(&bob, Some(&alice), folder.path());
    wait_for("Yggdrasil to connect both", PATIENCE, || {
        let ping = alice.namespace().attempt("ping", &["-6", "-c", "1", "-W", "1", &at_bob]);
        ping.status.success().then_some(())
    });
    for device in [&mut alice, &mut bob] {
        forbid_udp_underneath(device);
        device.up(&[&lab.invite(&[])]);
    }
    for (from, to, address) in [(&alice, &bob, &at_bob), (&bob, &alice, &at_alice)] {
        from.wait_until_reaches(&to.full_name(), PATIENCE);
        from.wait_for_path(to, "direct", PATIENCE);
        let via = from.path_to(to).expect("there is a path");
        assert!(via.contains(&format!("[{address}]:")), "{via} is not by {address}");
    }
}

#[test]
fn an_address_as_cjdns_gives_it_is_a_candidate_like_any_other() {
    let mut lab = Lab::new();
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| lab.host(name));
    let [at_alice, at_bob] = ["fc12::a", "fc12::b"];
    for (device, address) in [(&mut alice, at_alice), (&mut bob, at_bob)] {
        let host = device.namespace();
        host.run("ip", &["address", "add", &format!("{address}/8"), "dev", "eth0", "nodad"]);
        host.nft(
            "table ip underneath {
                chain in { type filter hook input priority 0; iifname eth0 meta l4proto udp drop; }
                chain out { type filter hook output priority 0; oifname eth0 meta l4proto udp drop; }
            }",
        );
        device.up(&[&lab.invite(&[])]);
    }
    for (from, to, address) in [(&alice, &bob, at_bob), (&bob, &alice, at_alice)] {
        from.wait_until_reaches(&to.full_name(), PATIENCE);
        from.wait_for_path(to, "direct", PATIENCE);
        let via = from.path_to(to).expect("there is a path");
        assert!(via.contains(&format!("[{address}]:")), "{via} is not by {address}");
    }
}

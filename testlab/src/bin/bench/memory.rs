//! What an idle node holds in memory.

use std::time::Duration;

use testlab::network::{Device, Lab};

use crate::report::{Row, Table};

const PEERS: usize = 10;
const IDLE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);

/// `VmRSS` of a node that has talked to every peer, and then to nobody.
pub(crate) fn of_an_idle_node() -> Table {
    let mut lab = Lab::new();
    let node = lab.device("node");
    let peers: Vec<Device> = (0..PEERS).map(|index| lab.device(&format!("peer{index}"))).collect();
    for peer in &peers {
        node.wait_for_path(peer, "direct", PATIENCE);
    }
    std::thread::sleep(IDLE);
    let (of_node, of_server) = (resident(node.node().id()), resident(lab.serving().id()));
    Table {
        title: "Memory of an idle node",
        method: format!(
            "VmRSS of a node with a TUN interface that has a session with each of its {PEERS} \
             peers, and of the server of these {} devices, after {} s of silence.",
            PEERS + 1,
            IDLE.as_secs()
        ),
        unit: "MiB",
        digits: 1,
        groups: vec![vec![
            Row { name: "shadowmesh serve", runs: vec![of_server] },
            Row { name: "shadowmesh up", runs: vec![of_node] },
        ]],
    }
}

/// Resident memory of a process in MiB.
fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel says so");
    let kibibytes = line.split_whitespace().nth(1).and_then(|text| text.parse::<f64>().ok());
    kibibytes.expect("kibibytes") / 1024.0
}

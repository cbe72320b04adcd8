//! How long the first connection to a peer takes.

use std::time::Duration;

use testlab::network::{Device, Lab};

use crate::report::{Row, Table};

const RUNS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// From the first SYN, for which a path has to be found and a session made, to the first byte of the answer.
pub(crate) fn without_a_session() -> Table {
    Table {
        title: "First byte without a session",
        method: format!(
            "From the first SYN to the first byte of the HTTP answer, as curl measures it: the \
             node was started anew before each of the {RUNS} runs, so it has neither a path nor a \
             session, and connects to the peer by address. Members of one network on a bridge \
             without delay."
        ),
        unit: "ms",
        digits: 1,
        groups: vec![vec![
            Row { name: "relay and UDP", runs: runs(Underlay::Open) },
            Row { name: "relayed: UDP is blocked", runs: runs(Underlay::NoUdp) },
            Row { name: "direct: the server is dead", runs: runs(Underlay::NoServer) },
        ]],
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Underlay {
    Open,
    NoUdp,
    NoServer,
}

fn runs(underlay: Underlay) -> Vec<f64> {
    let mut lab = Lab::new();
    let (mut a, b) = (lab.host("a"), lab.device("b"));
    if underlay == Underlay::NoUdp {
        a.namespace().block_udp();
    }
    a.up(&[&lab.invite(&[])]);
    a.wait_for_path(&b, if underlay == Underlay::NoUdp { "relay" } else { "direct" }, PATIENCE);
    a.wait_until_saved();
    if underlay == Underlay::NoServer {
        lab.kill_server();
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let args = ["-u", "-m", "http.server", "--bind", "::", "8000"];
    let mut server = b.namespace().spawn("python3", &args, &log);
    server.wait_for_output("Serving HTTP", PATIENCE);
    let url = format!("http://[{}]:8000/", b.addresses().swap_remove(0));
    (0..RUNS).map(|_| run(&mut a, &url, underlay)).collect()
}

fn run(a: &mut Device, url: &str, underlay: Underlay) -> f64 {
    a.kill();
    a.up(&[]);
    if underlay != Underlay::NoServer {
        a.wait_for_membership("online", PATIENCE);
    }
    let args = ["-sS", "-o", "/dev/null", "--max-time", "30", "-w", "%{time_starttransfer}", url];
    let seconds = a.namespace().run("curl", &args);
    seconds.trim().parse::<f64>().expect("curl prints seconds") * 1e3
}

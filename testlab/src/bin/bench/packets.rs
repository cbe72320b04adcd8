//! How many small packets a second a tunnel carries.

use std::path::Path;

use crate::iperf::iperf;
use crate::report::{Row, Table, runs};
use crate::variants::{Link, MTU, Tunnel};

const RUNS: usize = 3;
/// Bytes of each datagram, headers apart.
const LENGTH: f64 = 64.0;
/// Packets a second between which the rate is looked for, and in how many steps: 8 % apart at the end.
const RATES: (f64, f64) = (2_000.0, 300_000.0);
const STEPS: usize = 6;
/// What may be lost, in percent.
const LOSS: f64 = 1.0;

const TUNNELS: [Tunnel; 7] = [
    Tunnel::BARE,
    Tunnel::LIMIT,
    Tunnel::OURS,
    Tunnel::WIREGUARD_GO,
    Tunnel::NEBULA,
    Tunnel::BORINGTUN,
    Tunnel::GOTATUN,
];

/// The highest rate at which hardly anything is lost.
pub(crate) fn of_64_bytes() -> Vec<Table> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut rows = TUNNELS.map(|tunnel| Row { name: tunnel.name, runs: Vec::new() });
    let runs = runs(RUNS);
    for _ in 0..runs {
        for (row, tunnel) in rows.iter_mut().zip(TUNNELS) {
            tunnel.with(MTU, &mut |link| row.runs.push(highest_rate(link, folder.path())));
        }
    }
    vec![Table {
        title: "UDP datagrams of 64 bytes",
        method: format!(
            "Highest rate, in thousands a second, at which iperf3 loses less than {LOSS} %: found \
             in {STEPS} halvings of a second each, {runs} runs in turns. iperf3 itself, on the same \
             cores, sends and receives every datagram by a system call."
        ),
        unit: "k/s",
        digits: 1,
        groups: vec![rows.into()],
    }]
}

fn highest_rate(link: &Link<'_>, folder: &Path) -> f64 {
    let (mut low, mut high) = RATES;
    for _ in 0..STEPS {
        let rate = (low * high).sqrt();
        let (sent, lost) = probe(link, folder, rate);
        // A sender that cannot keep up says nothing about the tunnel at this rate.
        if lost < LOSS && sent > 0.9 * rate { low = rate } else { high = rate }
    }
    low / 1e3
}

/// Packets sent a second, and percent lost of them.
fn probe(link: &Link<'_>, folder: &Path, rate: f64) -> (f64, f64) {
    let bits = format!("{:.0}", rate * LENGTH * 8.0);
    let args = ["-u", "-l", "64", "-b", &bits, "-t", "1"];
    let sum = &iperf(link, folder, &args)["sum"];
    let field = |name: &str| sum[name].as_f64().expect("iperf3 says");
    (field("packets") / field("seconds"), field("lost_percent"))
}

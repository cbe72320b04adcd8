//! The instruments: iperf3, ping, and the kernel's count of processor time.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::report::Row;
use crate::variants::Link;

const PATIENCE: Duration = Duration::from_secs(30);
/// `USER_HZ` of `/proc/stat` on every architecture that is supported.
const TICKS_PER_SECOND: f64 = 100.0;

/// What iperf3 says at the end of one run from the first host to the second.
pub(crate) fn iperf(link: &Link<'_>, folder: &Path, args: &[&str]) -> Value {
    let log = folder.join("iperf");
    let _ = std::fs::remove_file(&log);
    let mut server = link.b.spawn("iperf3", &["-s", "-1", "--forceflush"], &log);
    server.wait_for_output("Server listening", PATIENCE);
    let args = [&["-c", link.address, "-J"], args].concat();
    let printed = link.a.run("iperf3", &args);
    let measured: Value = serde_json::from_str(&printed).expect("iperf3 prints JSON");
    assert!(measured["error"].is_null(), "iperf3: {}", measured["error"]);
    measured["end"].clone()
}

/// Gbit that arrived, and Gbit/s after the warm-up.
pub(crate) fn gigabits(link: &Link<'_>, folder: &Path, args: &[&str]) -> (f64, f64) {
    let end = iperf(link, folder, args);
    let arrived = |field: &str| end["sum_received"][field].as_f64().expect("iperf3 says");
    (arrived("bytes") * 8.0 / 1e9, arrived("bits_per_second") / 1e9)
}

/// Milliseconds, of all answers that `ping` has printed.
pub(crate) fn median_round_trip(printed: &str) -> f64 {
    let times = printed.lines().filter_map(|line| line.split("time=").nth(1));
    let runs = times.filter_map(|time| time.split(' ').next()?.parse().ok()).collect();
    Row { name: "", runs }.median()
}

/// What all cores have worked since the machine started.
pub(crate) fn busy_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("a running kernel");
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .into_iter()
        .flat_map(str::split_whitespace)
        .flat_map(str::parse)
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    (fields.iter().take(7).sum::<f64>() - idle) / TICKS_PER_SECOND
}

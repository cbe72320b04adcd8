//! TCP through tunnels between two namespaces: throughput, processor time, and round trips beside it.

use std::path::Path;
use std::time::Duration;

use testlab::netns::{shadowmesh, tool};

use crate::report::{Row, Table};
use crate::variants::{Link, Measure, Members, bare, wireguard};

const RUNS: usize = 5;
const SECONDS: &str = "4";
const PATIENCE: Duration = Duration::from_secs(30);
/// `USER_HZ` of `/proc/stat` on every architecture that is supported.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one run of one variant gives.
struct Figures {
    one_stream: f64,
    four_streams: f64,
    processor: f64,
    idle: f64,
    loaded: f64,
}

/// A name, and what makes such a link for as long as it is measured.
type Variant<'v> = (&'static str, &'v dyn Fn(&mut Measure<'_>));
type Column = (&'static str, &'static str, usize, fn(&Figures) -> f64);

const COLUMNS: [Column; 5] = [
    ("TCP, one stream", "Gbit/s", 2, |figures| figures.one_stream),
    ("TCP, four streams", "Gbit/s", 2, |figures| figures.four_streams),
    ("Processor time, one stream", "s/Gbit", 3, |figures| figures.processor),
    ("Round trip, idle", "ms", 3, |figures| figures.idle),
    ("Round trip under one stream", "ms", 2, |figures| figures.loaded),
];

/// Every variant in turns, so that a noisy moment hits all; the last is what the others are compared with.
pub(crate) fn through_tunnels() -> Vec<Table> {
    let (members, cut_off) = (Members::new(true), Members::new(false));
    let alone = ["--disable-drop-privileges", "-f"];
    let variants: [Variant<'_>; 7] = [
        ("the bare wire", &bare),
        ("shadowmesh wireguard", &|measure| {
            wireguard(&shadowmesh(), &["wireguard", "-f"], measure)
        }),
        ("shadowmesh up, direct", &|measure| members.with(measure)),
        ("shadowmesh up, through the relay", &|measure| cut_off.with(measure)),
        ("wireguard-go 2026-05-22", &|measure| wireguard(&tool("wireguard-go"), &["-f"], measure)),
        ("boringtun-cli 0.7.1", &|measure| wireguard(&tool("boringtun-cli"), &alone, measure)),
        ("gotatun-cli 0.10.2", &|measure| wireguard(&tool("gotatun"), &alone, measure)),
    ];
    let mut runs: Vec<Vec<Figures>> = variants.iter().map(|_| Vec::new()).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    for _ in 0..RUNS {
        for (runs, (_, with)) in runs.iter_mut().zip(&variants) {
            with(&mut |link| runs.push(figures(link, folder.path())));
        }
    }
    let method = format!(
        "Two namespaces joined by a veth (the members of a network: by a bridge), both ends and \
         iperf3 on the same {} cores, {SECONDS} s after 1 s of warm-up, {RUNS} runs in turns. \
         Tunnels of WireGuard over UDP have an inner MTU of 1420, the network its own of 1280; the \
         relay runs on the same cores, and its stream is WebSocket over TLS 1.3. Processor time is \
         that of the whole machine.",
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    let table = |(title, unit, digits, pick): &Column| Table {
        title,
        method: method.clone(),
        unit,
        digits: *digits,
        rows: variants
            .iter()
            .zip(&runs)
            .map(|((name, _), runs)| Row { name, runs: runs.iter().map(pick).collect() })
            .collect(),
    };
    COLUMNS.iter().map(table).collect()
}

fn figures(link: &Link<'_>, folder: &Path) -> Figures {
    let idle = ["-i", "0.01", "-c", "100", link.address];
    let idle = median_round_trip(&link.a.run("ping", &idle));
    let one_stream = gigabits(link, folder, &["-t", SECONDS, "-O", "1"]).1;
    let four_streams = gigabits(link, folder, &["-t", SECONDS, "-O", "1", "-P", "4"]).1;

    let log = folder.join("ping");
    let _ = std::fs::remove_file(&log);
    let args = ["-i", "0.05", "-w", SECONDS, link.address];
    let pings = link.a.spawn("ping", &args, &log);
    let before = busy_seconds();
    let (total, _) = gigabits(link, folder, &["-t", SECONDS]);
    let processor = (busy_seconds() - before) / total;
    let loaded = median_round_trip(&pings.output());
    Figures { one_stream, four_streams, processor, idle, loaded }
}

/// Gbit that arrived, and Gbit/s after the warm-up.
fn gigabits(link: &Link<'_>, folder: &Path, args: &[&str]) -> (f64, f64) {
    let log = folder.join("iperf");
    let _ = std::fs::remove_file(&log);
    let mut server = link.b.spawn("iperf3", &["-s", "-1", "--forceflush"], &log);
    server.wait_for_output("Server listening", PATIENCE);
    let args = [&["-c", link.address, "-J"], args].concat();
    let measured: serde_json::Value =
        serde_json::from_str(&link.a.run("iperf3", &args)).expect("iperf3 prints JSON");
    let arrived = |field: &str| measured["end"]["sum_received"][field].as_f64();
    let (bytes, rate) = (arrived("bytes"), arrived("bits_per_second"));
    (bytes.expect("iperf3 says") * 8.0 / 1e9, rate.expect("iperf3 says") / 1e9)
}

/// Milliseconds, of all answers that `ping` has printed.
fn median_round_trip(printed: &str) -> f64 {
    let times = printed.lines().filter_map(|line| line.split("time=").nth(1));
    let runs = times.filter_map(|time| time.split(' ').next()?.parse().ok()).collect();
    Row { name: "", runs }.median()
}

/// What all cores have worked since the machine started.
fn busy_seconds() -> f64 {
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

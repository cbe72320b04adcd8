//! TCP through tunnels between two namespaces: throughput, processor time, and round trips beside it;
//! throughput at other MTUs, and without a TUN interface.

use std::path::Path;

use crate::iperf::{busy_seconds, gigabits, median_round_trip};
use crate::report::{Row, Table, is_wanted, runs};
use crate::variants::{Link, MTU, Measure, Members, Tunnel};

const RUNS: usize = 5;
/// Runs of tables that only compare one variant with itself under other circumstances.
const FEW_RUNS: usize = 3;
const SECONDS: &str = "3";
/// Inner MTUs: the least of IPv6, WireGuard's own, and that of jumbo frames.
const MTUS: [(u16, &str); 3] =
    [(1280, "TCP, MTU 1280"), (MTU, "TCP, MTU 1420"), (8920, "TCP, MTU 8920")];

/// What one run of one variant gives.
struct Figures {
    one_stream: f64,
    four_streams: f64,
    sixteen_streams: f64,
    processor: f64,
    idle: f64,
    loaded: f64,
}

/// A name, and what makes such a link for as long as it is measured.
type Variant<'v> = (&'static str, &'v dyn Fn(&mut Measure<'_>));
type Column = (&'static str, &'static str, usize, fn(&Figures) -> f64);

const COLUMNS: [Column; 6] = [
    ("TCP, one stream", "Gbit/s", 2, |figures| figures.one_stream),
    ("TCP, four streams", "Gbit/s", 2, |figures| figures.four_streams),
    ("TCP, sixteen streams", "Gbit/s", 2, |figures| figures.sixteen_streams),
    ("Processor time, one stream", "s/Gbit", 3, |figures| figures.processor),
    ("Round trip, idle", "ms", 3, |figures| figures.idle),
    ("Round trip under one stream", "ms", 2, |figures| figures.loaded),
];

/// Runs every variant that is wanted in turns, so that a noisy moment hits all.
fn in_turns<T>(
    runs: usize,
    variants: &[Variant<'_>],
    measure: impl Fn(&Link<'_>) -> T,
) -> Vec<(&'static str, Vec<T>)> {
    let variants: Vec<_> = variants.iter().filter(|(name, _)| is_wanted(name)).collect();
    let mut rows: Vec<_> = variants.iter().map(|(name, _)| (*name, Vec::new())).collect();
    for _ in 0..runs {
        for ((_, results), (_, with)) in rows.iter_mut().zip(&variants) {
            with(&mut |link| results.push(measure(link)));
        }
    }
    rows
}

/// Every implementation; the last is what the others are compared with.
pub(crate) fn through_tunnels() -> Vec<Table> {
    let members = Members::new(&[]);
    let (wss, ws) = (Members::over_stream(&[]), Members::over_stream(&["--no-tls"]));
    let (relay_wss, relay_ws) =
        (Members::through_relay(&[]), Members::through_relay(&["--no-tls"]));
    let padded = Members::through_relay(&[]).padded();
    let relay_udp = Members::through_relay_by_udp();
    let (two_relays, peer_relay) = (Members::through_two_relays(), Members::through_peer());
    let variants: [Variant<'_>; 16] = [
        (Tunnel::BARE.name, &|measure| Tunnel::BARE.with(MTU, measure)),
        (Tunnel::LIMIT.name, &|measure| Tunnel::LIMIT.with(MTU, measure)),
        (Tunnel::OURS.name, &|measure| Tunnel::OURS.with(MTU, measure)),
        ("shadowmesh up, direct", &|measure| members.with(measure)),
        ("shadowmesh up, direct stream (WSS)", &|measure| wss.with(measure)),
        ("shadowmesh up, direct stream (WS)", &|measure| ws.with(measure)),
        ("shadowmesh up, relay (WSS), padded", &|measure| padded.with(measure)),
        ("shadowmesh up, through the relay (WSS)", &|measure| relay_wss.with(measure)),
        ("shadowmesh up, through the relay (WS)", &|measure| relay_ws.with(measure)),
        ("shadowmesh up, through the relay (UDP)", &|measure| relay_udp.with(measure)),
        ("shadowmesh up, through two relays (WSS)", &|measure| two_relays.with(measure)),
        ("shadowmesh up, through a third device", &|measure| peer_relay.with(measure)),
        (Tunnel::WIREGUARD_GO.name, &|measure| Tunnel::WIREGUARD_GO.with(MTU, measure)),
        (Tunnel::NEBULA.name, &|measure| Tunnel::NEBULA.with(MTU, measure)),
        (Tunnel::BORINGTUN.name, &|measure| Tunnel::BORINGTUN.with(MTU, measure)),
        (Tunnel::GOTATUN.name, &|measure| Tunnel::GOTATUN.with(MTU, measure)),
    ];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runs = runs(RUNS);
    let rows = in_turns(runs, &variants, |link| figures(link, folder.path()));
    let method = format!(
        "Two namespaces joined by a veth (the members of a network: by a bridge), both ends and \
         iperf3 on the same {} cores, {SECONDS} s after 1 s of warm-up, {runs} runs in turns; idle, a ping every 2 ms. \
         Tunnels have an inner MTU of {MTU}; the \
         relay runs on the same cores. WSS is WebSocket over TLS 1.3, WS without; over a direct stream \
         one end listens itself, and the other has no UDP. Padded: after `network set --padding buckets`. Processor \
         time is that of the whole machine.",
        cores()
    );
    let table = |(title, unit, digits, pick): &Column| Table {
        title,
        method: method.clone(),
        unit,
        digits: *digits,
        groups: vec![
            rows.iter()
                .map(|(name, runs)| Row { name, runs: runs.iter().map(pick).collect() })
                .collect(),
        ],
    };
    COLUMNS.iter().map(table).collect()
}

fn figures(link: &Link<'_>, folder: &Path) -> Figures {
    let idle = ["-i", "0.002", "-c", "300", link.address];
    let idle = median_round_trip(&link.a.run("ping", &idle));
    let streams = |count| gigabits(link, folder, &["-t", SECONDS, "-O", "1", "-P", count]).1;
    let [one_stream, four_streams, sixteen_streams] = ["1", "4", "16"].map(streams);

    let log = folder.join("ping");
    let _ = std::fs::remove_file(&log);
    let args = ["-i", "0.05", "-w", SECONDS, link.address];
    let pings = link.a.spawn("ping", &args, &log);
    let before = busy_seconds();
    let (total, _) = gigabits(link, folder, &["-t", SECONDS]);
    let processor = (busy_seconds() - before) / total;
    let loaded = median_round_trip(&pings.output());
    Figures { one_stream, four_streams, sixteen_streams, processor, idle, loaded }
}

/// One stream at other inner MTUs.
pub(crate) fn at_other_mtus() -> Vec<Table> {
    let tunnels = [Tunnel::LIMIT, Tunnel::OURS, Tunnel::WIREGUARD_GO];
    let table = |(mtu, title): (u16, &'static str)| tunnels_beside(title, mtu, tunnels);
    MTUS.into_iter().map(table).collect()
}

/// One stream through this program beside what it must be faster than.
pub(crate) fn beside_gotatun() -> Table {
    tunnels_beside("TCP, one stream", MTU, [Tunnel::OURS, Tunnel::GOTATUN])
}

/// One stream between members through a relay, in both ways in which it passes on, beside the direct path.
pub(crate) fn beside_direct() -> Table {
    let (wss, udp) = (Members::through_relay(&[]), Members::through_relay_by_udp());
    let direct = Members::new(&[]);
    beside(
        "TCP, one stream, through a relay",
        &[
            ("shadowmesh up, through the relay (WSS)", &|measure| wss.with(measure)),
            ("shadowmesh up, through the relay (UDP)", &|measure| udp.with(measure)),
            ("shadowmesh up, direct", &|measure| direct.with(measure)),
        ],
    )
}

/// One stream through each tunnel.
fn tunnels_beside<const N: usize>(title: &'static str, mtu: u16, tunnels: [Tunnel; N]) -> Table {
    let start = tunnels.map(|tunnel| move |measure: &mut Measure<'_>| tunnel.with(mtu, measure));
    let variants: Vec<Variant<'_>> =
        tunnels.iter().zip(&start).map(|(tunnel, start)| (tunnel.name, start as _)).collect();
    beside(title, &variants)
}

/// One stream through each of the variants.
fn beside(title: &'static str, variants: &[Variant<'_>]) -> Table {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runs = runs(FEW_RUNS);
    let rows = in_turns(runs, variants, |link| one_stream(link, folder.path(), &[]));
    Table {
        title,
        method: format!("One stream for {SECONDS} s, {runs} runs in turns, over a wire that fits."),
        unit: "Gbit/s",
        digits: 2,
        groups: vec![rows.into_iter().map(|(name, runs)| Row { name, runs }).collect()],
    }
}

/// One stream of a node that has TCP/IP in its process, beside one with a TUN interface.
pub(crate) fn in_userspace() -> Vec<Table> {
    // The port on which iperf3 listens at the other end.
    let forward = ["--mode", "userspace", "--forward", "127.0.0.1:5201=b.lab.alt:5201"];
    let (members, inside) = (Members::new(&[]), Members::new(&forward));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let through = |args: &'static [&'static str]| {
        let (folder, inside) = (folder.path(), &inside);
        move || {
            let mut result = f64::NAN;
            inside.at("127.0.0.1", &mut |link| result = one_stream(link, folder, args));
            result
        }
    };
    let (sending, receiving) = (through(&[]), through(&["-R"]));
    let direct = || {
        let mut result = f64::NAN;
        members.with(&mut |link| result = one_stream(link, folder.path(), &[]));
        result
    };
    let mut rows = [
        Row { name: "userspace, sending", runs: Vec::new() },
        Row { name: "userspace, receiving", runs: Vec::new() },
        Row { name: "TUN interface", runs: Vec::new() },
    ];
    for _ in 0..runs(FEW_RUNS) {
        rows[0].runs.push(sending());
        rows[1].runs.push(receiving());
        rows[2].runs.push(direct());
    }
    vec![Table {
        title: "TCP, one stream, in userspace mode",
        method: "The node has no TUN interface and forwards a local port; the other end has one. The path \
                 is direct."
            .to_owned(),
        unit: "Gbit/s",
        digits: 2,
        groups: vec![rows.into()],
    }]
}

fn one_stream(link: &Link<'_>, folder: &Path, args: &[&str]) -> f64 {
    gigabits(link, folder, &[&["-t", SECONDS, "-O", "1"], args].concat()).1
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

//! What a relay carries, what it costs and how long it takes, beside other relays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testlab::netns::{Namespace, Process, tool, wait_for};

use crate::report::{Row, Table, runs};

const RUNS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);
const ADDRESS: &str = "127.0.0.1:9000";
/// A file for each connection of ten thousand, and some.
const FILES: &str = "--nofile=20000:20000";
/// Memory is read when a relay has had this long to give back what connecting took.
const SETTLED: Duration = Duration::from_secs(3);

/// How, pairs, and bytes of payload of each frame: packets of many, super-packets of one and of some.
const LOADS: [[&str; 3]; 3] =
    [["rate", "100", "1400"], ["bulk", "1", "64000"], ["bulk", "10", "64000"]];
const IDLE: [usize; 2] = [1_000, 10_000];
/// Connections that one process of the load keeps, with up to three files for each.
const OF_ONE_LOAD: usize = 5_000;

/// How all of it is measured.
const HOW: &str = "On loopback, relay and load on the same cores, relays in turns, over WebSocket as it is, over TLS 1.3 and over UDP; for coturn \
    with an allocation for each end. The load is one program with the same TCP, TLS, WebSocket and UDP code for all; a sender makes each frame by \
    itself and writes 32 at once, or one of 64,000 bytes, which over UDP is 46 datagrams in one call.";

/// What one run says of a relay.
struct Figures {
    loads: Vec<Value>,
    /// Kilobytes of an idle connection.
    idle: [Option<f64>; IDLE.len()],
}

/// A program that is a relay.
struct Variant {
    name: &'static str,
    /// What the load calls it.
    kind: &'static str,
    /// What carries payloads: `tcp`, `tls` or `udp`.
    way: &'static str,
    start: fn(&Lab, way: &str) -> Process,
}

impl Variant {
    /// coturn has two files for each connection over TCP: for ten thousand more than [`FILES`].
    fn may_idle(&self, count: usize) -> bool {
        count < 10_000 || (self.kind, self.way) != ("turn", "tcp")
    }
}

/// Those without TLS, those with it, and those over UDP; the last of each is what the others are compared with.
const GROUPS: [&[Variant]; 3] = [
    &[
        Variant { name: "shadowmesh relay", kind: "ours", way: "tcp", start: Lab::ours },
        Variant { name: "coturn 4.6.1, TURN", kind: "turn", way: "tcp", start: Lab::coturn },
        Variant { name: "iroh-relay 1.4.1", kind: "iroh", way: "tcp", start: Lab::iroh },
    ],
    &[
        Variant { name: "TLS: shadowmesh relay", kind: "ours", way: "tls", start: Lab::ours },
        Variant { name: "TLS: iroh-relay 1.4.1", kind: "iroh", way: "tls", start: Lab::iroh },
    ],
    &[
        Variant { name: "UDP: shadowmesh relay", kind: "ours", way: "udp", start: Lab::ours },
        Variant { name: "UDP: coturn 4.6.1, TURN", kind: "turn", way: "udp", start: Lab::coturn },
    ],
];

/// One figure of all relays.
struct Column {
    title: &'static str,
    method: &'static str,
    unit: &'static str,
    digits: usize,
    /// None where a relay does not do it.
    pick: fn(&Figures) -> Option<f64>,
}

const COLUMNS: [Column; 12] = [
    Column {
        title: "Frames of 1,400 bytes, 100 pairs",
        method: "Highest rate, in thousands a second, at which less than 1 % of the frames are lost or are not there \
                 100 ms after the last was sent; who loses more at 10,000 has no row.",
        unit: "k/s",
        digits: 1,
        pick: |figures| Some(figures.of_load(0, "rate")? / 1e3),
    },
    Column {
        title: "Latency, median",
        method: "From sender to receiver, 100 pairs, at half of the relay's own highest rate.",
        unit: "ms",
        digits: 2,
        pick: |figures| figures.of_load(0, "median"),
    },
    Column {
        title: "Latency, 99th percentile",
        method: "The same.",
        unit: "ms",
        digits: 2,
        pick: |figures| figures.of_load(0, "slowest"),
    },
    Column {
        title: "Latency at 50,000 frames a second, median",
        method: "From sender to receiver, 100 pairs, frames of 1,400 bytes.",
        unit: "ms",
        digits: 2,
        pick: |figures| figures.of_load(0, "equal_median"),
    },
    Column {
        title: "Latency at 50,000 frames a second, 99th percentile",
        method: "The same.",
        unit: "ms",
        digits: 2,
        pick: |figures| figures.of_load(0, "equal_slowest"),
    },
    Column {
        title: "Processor time",
        method: "Of the relay's process, for a GB of payload, 100 pairs, at its highest rate.",
        unit: "s/GB",
        digits: 2,
        pick: |figures| figures.of_load(0, "processor"),
    },
    Column {
        title: "Frames of 64,000 bytes, one pair",
        method: "Payload that arrives when the sender has 1 MiB of it under way.",
        unit: "Gbit/s",
        digits: 2,
        pick: |figures| figures.of_load(1, "gigabits"),
    },
    Column {
        title: "Frames of 64,000 bytes, 10 pairs",
        method: "The same.",
        unit: "Gbit/s",
        digits: 2,
        pick: |figures| figures.of_load(2, "gigabits"),
    },
    Column {
        title: "Processor time, frames of 64,000 bytes, one pair",
        method: "Of the relay's process, for a GB of payload.",
        unit: "s/GB",
        digits: 2,
        pick: |figures| figures.of_load(1, "processor"),
    },
    Column {
        title: "Processor time, frames of 64,000 bytes, 10 pairs",
        method: "The same.",
        unit: "s/GB",
        digits: 2,
        pick: |figures| figures.of_load(2, "processor"),
    },
    Column {
        title: "Memory of each of 1,000 idle connections",
        method: "By how much the resident memory of the relay's process has grown.",
        unit: "kB",
        digits: 1,
        pick: |figures| figures.idle[0],
    },
    Column {
        title: "Memory of each of 10,000 idle connections",
        method: "The same.",
        unit: "kB",
        digits: 1,
        pick: |figures| figures.idle[1],
    },
];
/// What the runs of each variant say, by group.
type Seen = [Vec<Vec<Figures>>; 3];

/// All tables, in each the groups of variants.
pub(crate) fn beside_others() -> Vec<Table> {
    let lab = Lab::new();
    let mut seen: Seen = GROUPS.map(|group| group.iter().map(|_| Vec::new()).collect());
    for _ in 0..runs(RUNS) {
        for (group, seen) in GROUPS.iter().zip(&mut seen) {
            for (variant, seen) in group.iter().zip(seen) {
                seen.push(lab.measure(variant));
            }
        }
    }
    COLUMNS.iter().map(|column| column.table(&seen)).collect()
}

impl Figures {
    fn of_load(&self, load: usize, name: &str) -> Option<f64> {
        self.loads[load][name].as_f64()
    }
}

impl Column {
    fn table(&self, seen: &Seen) -> Table {
        let row = |(variant, runs): (&Variant, &Vec<Figures>)| {
            let runs: Vec<f64> = runs.iter().filter_map(self.pick).collect();
            (!runs.is_empty()).then_some(Row { name: variant.name, runs })
        };
        let groups = GROUPS.iter().zip(seen);
        Table {
            title: self.title,
            method: format!("{} {HOW}", self.method),
            unit: self.unit,
            digits: self.digits,
            groups: groups
                .map(|(group, seen)| group.iter().zip(seen).filter_map(row).collect())
                .collect(),
        }
    }
}

/// A host on whose loopback everything happens.
struct Lab {
    host: Namespace,
    folder: TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { host: Namespace::new("relays"), folder: temporary() };
        let (key, certificate) = (lab.path("key.pem"), lab.path("certificate.pem"));
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let to = ["-subj", "/CN=localhost", "-keyout", &key, "-out", &certificate];
        lab.host.run("openssl", &[&["req", "-x509"], &curve[..], &to].concat());
        lab
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A program with room for so many files, and its output in a file of its own.
    fn spawn(&self, program: &Path, args: &[&str], name: &str) -> Process {
        let _ = std::fs::remove_file(self.path(name));
        let program = program.display().to_string();
        let args = [&[FILES, &program], args].concat();
        self.host.spawn("prlimit", &args, Path::new(&self.path(name)))
    }

    fn ours(&self, way: &str) -> Process {
        self.spawn(&beside("relay_load"), &["serve", ADDRESS, way], "ours")
    }

    /// As many threads as the others have, and ports for ten thousand allocations beside those of the load.
    fn coturn(&self, _way: &str) -> Process {
        let (database, pid) = (self.path("turn.sqlite"), self.path("turn.pid"));
        let (address, port) = ADDRESS.split_once(':').expect("an address has a port");
        let listen = ["-n", "-m", "2", "-L", address, "-p", port, "-E", address, "--no-cli"];
        let user = ["--lt-cred-mech", "-u", "bench:bench", "-r", "bench"];
        let open = ["--allow-loopback-peers", "--log-file=stdout", "--userdb", &database];
        let ports = ["--min-port=10000", "--max-port=65535"];
        let args = [&listen[..], &user, &open, &ports, &["--pidfile", &pid]].concat();
        self.spawn(&tool("turnserver"), &args, "turnserver")
    }

    fn iroh(&self, way: &str) -> Process {
        let (key, certificate) = (self.path("key.pem"), self.path("certificate.pem"));
        let address = if way == "tls" {
            format!(
                "http_bind_addr = '127.0.0.1:0'\n[tls]\nhttps_bind_addr = '{ADDRESS}'\ncert_mode = 'Manual'\n\
                 manual_cert_path = '{certificate}'\nmanual_key_path = '{key}'\n"
            )
        } else {
            format!("http_bind_addr = '{ADDRESS}'\n")
        };
        let config = self.path("iroh.toml");
        std::fs::write(&config, format!("enable_metrics = false\n{address}"))
            .expect("a temporary file");
        self.spawn(&tool("iroh-relay"), &["--config-path", &config], "iroh")
    }

    /// All figures of a relay; each load meets a fresh one.
    fn measure(&self, variant: &Variant) -> Figures {
        let loads = LOADS.map(|load| self.load(variant, load));
        let idle = IDLE.map(|count| variant.may_idle(count).then(|| self.idle(variant, count)));
        Figures { loads: loads.into(), idle }
    }

    fn start(&self, variant: &Variant) -> Process {
        let relay = (variant.start)(self, variant.way);
        wait_for("the relay to listen", PATIENCE, || {
            let connect = format!("exec 3<>/dev/tcp/{}", ADDRESS.replace(':', "/"));
            self.host.attempt("bash", &["-c", &connect]).status.success().then_some(())
        });
        relay
    }

    fn load(&self, variant: &Variant, [how, pairs, bytes]: [&str; 3]) -> Value {
        let relay = self.start(variant);
        let process = relay.id().to_string();
        let args = [how, variant.kind, ADDRESS, variant.way, &process, pairs, bytes];
        let mut load = self.spawn(&beside("relay_load"), &args, variant.name);
        let line = load.wait_for_output("}", PATIENCE);
        serde_json::from_str(line.trim()).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn idle(&self, variant: &Variant, count: usize) -> f64 {
        let relay = self.start(variant);
        let before = relay.resident_memory();
        let mut loads = Vec::new();
        for from in (0..count).step_by(OF_ONE_LOAD) {
            let [from, to] = [from, count.min(from + OF_ONE_LOAD)].map(|at| at.to_string());
            let args = ["idle", variant.kind, ADDRESS, variant.way, &from, &to];
            let mut load = self.spawn(
                &beside("relay_load"),
                &args,
                &format!("{}, idle, {from}", variant.name),
            );
            load.wait_for_output("connected", PATIENCE);
            loads.push(load);
        }
        std::thread::sleep(SETTLED);
        let grown = relay.resident_memory().saturating_sub(before);
        grown as f64 / 1e3 / count as f64
    }
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A program that was built with this one.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().expect("a program knows its path").with_file_name(name)
}

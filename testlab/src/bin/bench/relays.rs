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
const IDLE: [&str; 2] = ["1000", "10000"];

/// How all of it is measured.
const HOW: &str = "On loopback, relay and load on the same cores, relays in turns, over WebSocket as it is and over TLS 1.3, for coturn over TCP \
    with an allocation for each end. The load is one program with the same TCP, TLS and WebSocket code for all; a sender makes each frame by \
    itself and writes 32 at once, or one of 64,000 bytes.";

/// What one run says of a relay.
struct Figures {
    loads: Vec<Value>,
    /// Kilobytes of an idle connection.
    idle: Vec<f64>,
}

/// A program that is a relay.
struct Variant {
    name: &'static str,
    /// What the load calls it.
    kind: &'static str,
    tls: bool,
    start: fn(&Lab, tls: bool) -> Process,
}

/// Those without TLS, and those with it; the last of each is what the others are compared with.
const GROUPS: [&[Variant]; 2] = [
    &[
        Variant { name: "shadowmesh relay", kind: "ours", tls: false, start: Lab::ours },
        Variant { name: "coturn 4.6.1, TURN", kind: "turn", tls: false, start: Lab::coturn },
        Variant { name: "iroh-relay 1.4.1", kind: "iroh", tls: false, start: Lab::iroh },
    ],
    &[
        Variant { name: "TLS: shadowmesh relay", kind: "ours", tls: true, start: Lab::ours },
        Variant { name: "TLS: iroh-relay 1.4.1", kind: "iroh", tls: true, start: Lab::iroh },
    ],
];

/// One figure of all relays.
struct Column {
    title: &'static str,
    method: &'static str,
    unit: &'static str,
    digits: usize,
    pick: fn(&Figures) -> f64,
}

const COLUMNS: [Column; 12] = [
    Column {
        title: "Frames of 1,400 bytes, 100 pairs",
        method: "Highest rate, in thousands a second, at which less than 1 % of the frames are lost or are not there \
                 100 ms after the last was sent.",
        unit: "k/s",
        digits: 1,
        pick: |figures| figures.of_load(0, "rate") / 1e3,
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
type Seen = [Vec<Vec<Figures>>; 2];

/// All tables, in each the variants without TLS and those with it.
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
    fn of_load(&self, load: usize, name: &str) -> f64 {
        self.loads[load][name].as_f64().unwrap_or(f64::NAN)
    }
}

impl Column {
    fn table(&self, seen: &Seen) -> Table {
        let row = |(variant, runs): (&Variant, &Vec<Figures>)| Row {
            name: variant.name,
            runs: runs.iter().map(self.pick).collect(),
        };
        let groups = GROUPS.iter().zip(seen);
        Table {
            title: self.title,
            method: format!("{} {HOW}", self.method),
            unit: self.unit,
            digits: self.digits,
            groups: groups.map(|(group, seen)| group.iter().zip(seen).map(row).collect()).collect(),
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

    fn ours(&self, tls: bool) -> Process {
        self.spawn(&beside("relay_load"), &["serve", ADDRESS, scheme(tls)], "ours")
    }

    /// As many threads as the others have.
    fn coturn(&self, _tls: bool) -> Process {
        let (database, pid) = (self.path("turn.sqlite"), self.path("turn.pid"));
        let (address, port) = ADDRESS.split_once(':').expect("an address has a port");
        let listen = ["-n", "-m", "2", "-L", address, "-p", port, "-E", address, "--no-cli"];
        let user = ["--lt-cred-mech", "-u", "bench:bench", "-r", "bench"];
        let open = ["--allow-loopback-peers", "--log-file=stdout", "--userdb", &database];
        let args = [&listen[..], &user, &open, &["--pidfile", &pid]].concat();
        self.spawn(&tool("turnserver"), &args, "turnserver")
    }

    fn iroh(&self, tls: bool) -> Process {
        let (key, certificate) = (self.path("key.pem"), self.path("certificate.pem"));
        let address = if tls {
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
        let idle = IDLE.map(|count| self.idle(variant, count));
        Figures { loads: loads.into(), idle: idle.into() }
    }

    fn start(&self, variant: &Variant) -> Process {
        let relay = (variant.start)(self, variant.tls);
        wait_for("the relay to listen", PATIENCE, || {
            let connect = format!("exec 3<>/dev/tcp/{}", ADDRESS.replace(':', "/"));
            self.host.attempt("bash", &["-c", &connect]).status.success().then_some(())
        });
        relay
    }

    fn load(&self, variant: &Variant, [how, pairs, bytes]: [&str; 3]) -> Value {
        let relay = self.start(variant);
        let process = relay.id().to_string();
        let args = [how, variant.kind, ADDRESS, scheme(variant.tls), &process, pairs, bytes];
        let mut load = self.spawn(&beside("relay_load"), &args, "load");
        let line = load.wait_for_output("}", PATIENCE);
        serde_json::from_str(line.trim()).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn idle(&self, variant: &Variant, count: &str) -> f64 {
        let relay = self.start(variant);
        let before = relay.resident_memory();
        let args = ["idle", variant.kind, ADDRESS, scheme(variant.tls), count];
        let mut load = self.spawn(&beside("relay_load"), &args, "idle");
        load.wait_for_output("connected", PATIENCE);
        std::thread::sleep(SETTLED);
        let grown = relay.resident_memory().saturating_sub(before);
        grown as f64 / 1e3 / count.parse::<f64>().expect("a number")
    }
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn scheme(tls: bool) -> &'static str {
    if tls { "wss" } else { "ws" }
}

/// A program that was built with this one.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().expect("a program knows its path").with_file_name(name)
}

//! What a relay carries, what it costs and how long it takes, beside other relays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testlab::netns::{Namespace, Process, processor_seconds, tool, wait_for};

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

/// How all of it is measured but coturn, whose own client is its load.
const HOW: &str = "On loopback, relay and load on the same cores, relays in turns, over WebSocket as it is and over TLS 1.3. The load is \
    one program with the same TCP, TLS and WebSocket code for either relay; a sender makes each frame by itself and writes 32 at once, or \
    one of 64,000 bytes.";

/// What one run says of a relay.
struct Figures {
    loads: Vec<Value>,
    /// Kilobytes of an idle connection.
    idle: Vec<f64>,
}

/// A program that is a relay.
struct Variant {
    /// Its name, without and with TLS.
    names: [&'static str; 2],
    /// What the load calls it.
    kind: &'static str,
    start: fn(&Lab, tls: bool) -> Process,
}

const VARIANTS: [Variant; 2] = [
    Variant {
        names: ["shadowmesh relay", "TLS: shadowmesh relay"],
        kind: "ours",
        start: Lab::ours,
    },
    Variant {
        names: ["iroh-relay 1.4.1", "TLS: iroh-relay 1.4.1"],
        kind: "iroh",
        start: Lab::iroh,
    },
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
/// The column in which the other relay stands too.
const PROCESSOR: usize = 5;

/// All tables, in each the variants without TLS and those with it.
pub(crate) fn beside_others() -> Vec<Table> {
    let lab = Lab::new();
    let runs = runs(RUNS);
    let mut figures: [[Vec<Figures>; 2]; 2] = Default::default();
    let mut coturn = Vec::new();
    for _ in 0..runs {
        for (of_transport, tls) in figures.iter_mut().zip([false, true]) {
            for (of_variant, variant) in of_transport.iter_mut().zip(&VARIANTS) {
                of_variant.push(lab.measure(variant, tls));
            }
        }
        coturn.push(lab.coturn());
    }
    let mut tables: Vec<Table> = COLUMNS.iter().map(|column| column.table(&figures)).collect();
    // What it carries says nothing: its client is the limit.
    tables[PROCESSOR].groups[0]
        .insert(1, Row { name: "coturn 4.6.1, TURN over TCP", runs: coturn });
    tables
}

impl Figures {
    fn of_load(&self, load: usize, name: &str) -> f64 {
        self.loads[load][name].as_f64().unwrap_or(f64::NAN)
    }
}

impl Column {
    fn table(&self, figures: &[[Vec<Figures>; 2]; 2]) -> Table {
        let group = |(transport, of_transport): (usize, &[Vec<Figures>; 2])| {
            let row = |(variant, runs): (&Variant, &Vec<Figures>)| Row {
                name: variant.names[transport],
                runs: runs.iter().map(self.pick).collect(),
            };
            VARIANTS.iter().zip(of_transport).map(row).collect()
        };
        Table {
            title: self.title,
            method: format!("{} {HOW}", self.method),
            unit: self.unit,
            digits: self.digits,
            groups: figures.iter().enumerate().map(group).collect(),
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
    fn measure(&self, variant: &Variant, tls: bool) -> Figures {
        let loads = LOADS.map(|load| self.load(variant, tls, load));
        let idle = IDLE.map(|count| self.idle(variant, tls, count));
        Figures { loads: loads.into(), idle: idle.into() }
    }

    fn start(&self, variant: &Variant, tls: bool) -> Process {
        let relay = (variant.start)(self, tls);
        wait_for("the relay to listen", PATIENCE, || {
            let connect = format!("exec 3<>/dev/tcp/{}", ADDRESS.replace(':', "/"));
            self.host.attempt("bash", &["-c", &connect]).status.success().then_some(())
        });
        relay
    }

    fn load(&self, variant: &Variant, tls: bool, [how, pairs, bytes]: [&str; 3]) -> Value {
        let relay = self.start(variant, tls);
        let process = relay.id().to_string();
        let args = [how, variant.kind, ADDRESS, scheme(tls), &process, pairs, bytes];
        let mut load = self.spawn(&beside("relay_load"), &args, "load");
        let line = load.wait_for_output("}", PATIENCE);
        serde_json::from_str(line.trim()).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn idle(&self, variant: &Variant, tls: bool, count: &str) -> f64 {
        let relay = self.start(variant, tls);
        let before = relay.resident_memory();
        let args = ["idle", variant.kind, ADDRESS, scheme(tls), count];
        let mut load = self.spawn(&beside("relay_load"), &args, "idle");
        load.wait_for_output("connected", PATIENCE);
        std::thread::sleep(SETTLED);
        let grown = relay.resident_memory().saturating_sub(before);
        grown as f64 / 1e3 / count.parse::<f64>().expect("a number")
    }

    /// Processor seconds of coturn's server for a GB that it relays.
    fn coturn(&self) -> f64 {
        let (database, pid) = (self.path("turn.sqlite"), self.path("turn.pid"));
        let listen = ["-n", "-m", "2", "-L", "127.0.0.1", "-E", "127.0.0.1", "--no-cli"];
        let user = ["--lt-cred-mech", "-u", "bench:bench", "-r", "bench"];
        let open = ["--allow-loopback-peers", "--log-file=stdout", "--userdb", &database];
        let args = [&listen[..], &user, &open, &["--pidfile", &pid]].concat();
        let server = self.spawn(&tool("turnserver"), &args, "turnserver");
        let _peer = self.spawn(&tool("turnutils_peer"), &["-L", "127.0.0.1"], "peer");
        wait_for("coturn to listen", PATIENCE, || {
            let connect = "exec 3<>/dev/tcp/127.0.0.1/3478";
            self.host.attempt("bash", &["-c", connect]).status.success().then_some(())
        });
        let before = processor_seconds(&server.id().to_string());
        let user = ["-t", "-c", "-u", "bench", "-w", "bench", "-e", "127.0.0.1"];
        let load = ["-m", "10", "-n", "3000", "-l", "1400", "-z", "0", "127.0.0.1"];
        let output = self.host.run("turnutils_uclient", &[&user[..], &load].concat());
        let used = processor_seconds(&server.id().to_string()) - before;
        // To the peer, which answers, and back.
        let bytes = total(&output, "tot_send_bytes ~ ") + total(&output, "tot_recv_bytes ~ ");
        used / (bytes / 1e9)
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

/// The last number that stands behind a text.
fn total(output: &str, text: &str) -> f64 {
    let rest = output.rsplit_once(text).map_or("", |(_, rest)| rest);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().expect("the client says how much it sent")
}

//! One TCP stream through a WireGuard tunnel between two namespaces.

use std::path::{Path, PathBuf};
use std::time::Duration;

use testlab::netns::{Namespace, Process, shadowmesh, tool, wait_for, wire};
use testlab::network::{Device, Lab};

use crate::report::{Row, Table};

const RUNS: usize = 5;
const SECONDS: &str = "4";
const PATIENCE: Duration = Duration::from_secs(30);

/// Ours and the peer in turns, so that a noisy moment hits both.
pub(crate) fn one_tcp_stream() -> Table {
    let (members, cut_off) = (Members::new(true), Members::new(false));
    let variants: [(&'static str, &dyn Fn() -> f64); 7] = [
        ("the bare wire", &run_bare),
        ("shadowmesh wireguard", &|| run(&shadowmesh(), &["wireguard", "-f"])),
        ("shadowmesh up, direct", &|| members.run()),
        ("shadowmesh up, through the relay", &|| cut_off.run()),
        ("wireguard-go 2026-05-22", &|| run(&tool("wireguard-go"), &["-f"])),
        ("boringtun-cli 0.7.1", &|| {
            run(&tool("boringtun-cli"), &["--disable-drop-privileges", "-f"])
        }),
        ("gotatun-cli 0.10.2", &|| run(&tool("gotatun"), &["--disable-drop-privileges", "-f"])),
    ];
    let mut rows: Vec<Row> =
        variants.iter().map(|(name, _)| Row { name, runs: Vec::new() }).collect();
    for _ in 0..RUNS {
        for (row, (_, measure)) in rows.iter_mut().zip(&variants) {
            row.runs.push(measure());
        }
    }
    Table {
        title: "TCP, one stream, two namespaces",
        method: format!(
            "Two namespaces joined by a veth (the members of a network: by a bridge), both ends and \
             iperf3 on the same {} cores, {SECONDS} s after 1 s of warm-up, {RUNS} runs in turns. \
             Tunnels of WireGuard over UDP have an inner MTU of 1420, the network its own of 1280; \
             the relay runs on the same cores, and its stream is WebSocket over TLS 1.3.",
            std::thread::available_parallelism().map_or(0, usize::from)
        ),
        unit: "Gbit/s",
        digits: 2,
        rows,
    }
}

/// Two members of a network.
struct Members {
    _lab: Lab,
    a: Device,
    b: Device,
    folder: tempfile::TempDir,
}

impl Members {
    /// Two members with a direct path, or with UDP forbidden.
    fn new(udp: bool) -> Self {
        let mut lab = Lab::new();
        let (mut a, b) = (lab.host("a"), lab.device("b"));
        if !udp {
            a.namespace().block_udp();
        }
        a.up(&[&lab.invite(&[])]);
        a.wait_for_path(&b, if udp { "direct" } else { "relay" }, PATIENCE);
        Self { _lab: lab, a, b, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn run(&self) -> f64 {
        let address = self.b.addresses().swap_remove(0);
        measure(self.a.namespace(), self.b.namespace(), &address, self.folder.path())
    }
}

/// One end of the tunnel.
struct End {
    namespace: Namespace,
    interface: String,
    key_file: PathBuf,
    public: String,
    _process: Process,
}

/// The veth without a tunnel: the measure of the machine.
fn run_bare() -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (a, b) = hosts();
    measure(&a, &b, "192.0.2.2", folder.path())
}

fn hosts() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    wire((&a, "eth0", &["192.0.2.1/24"]), (&b, "eth0", &["192.0.2.2/24"]));
    (a, b)
}

fn run(program: &Path, args: &[&str]) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (a, b) = hosts();
    let a = start(program, args, a, &folder.path().join("a"));
    let b = start(program, args, b, &folder.path().join("b"));
    configure(&a, &b, "10.77.0.1/24", "192.0.2.2:51820");
    configure(&b, &a, "10.77.0.2/24", "192.0.2.1:51820");
    wait_for("an answer through the tunnel", PATIENCE, || {
        let ping = ["-c", "1", "-W", "1", "10.77.0.2"];
        a.namespace.attempt("ping", &ping).status.success().then_some(())
    });
    measure(&a.namespace, &b.namespace, "10.77.0.2", folder.path())
}

/// Gbit/s that arrive at `address` of b.
fn measure(a: &Namespace, b: &Namespace, address: &str, folder: &Path) -> f64 {
    let mut server = b.spawn("iperf3", &["-s", "-1", "--forceflush"], &folder.join("iperf"));
    server.wait_for_output("Server listening", PATIENCE);
    let args = ["-c", address, "-t", SECONDS, "-O", "1", "-J"];
    let measured: serde_json::Value =
        serde_json::from_str(&a.run("iperf3", &args)).expect("iperf3 prints JSON");
    let bits = measured["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.expect("iperf3 says how much arrived") / 1e9
}

fn start(program: &Path, args: &[&str], namespace: Namespace, folder: &Path) -> End {
    std::fs::create_dir(folder).expect("a temporary folder");
    // Interface names are unique on the machine, since their control sockets are.
    let label = namespace.name().trim_start_matches("sm");
    let interface = format!("b{}", &label[..label.len().min(14)]).replace('-', "x");
    let mut command = namespace.command(program);
    command.args(args).arg(&interface);
    let process = Process::start(&mut command, &folder.join("log"));
    let socket = format!("/var/run/wireguard/{interface}.sock");
    wait_for("the control socket", PATIENCE, || {
        std::os::unix::net::UnixStream::connect(&socket).ok()
    });
    let key_file = folder.join("key");
    std::fs::write(&key_file, namespace.run("wg", &["genkey"])).expect("a temporary file");
    let script = format!("wg pubkey < {}", key_file.display());
    let public = namespace.run("sh", &["-c", &script]).trim().to_owned();
    End { namespace, interface, key_file, public, _process: process }
}

fn configure(end: &End, other: &End, address: &str, endpoint: &str) {
    let key_file = end.key_file.display().to_string();
    let own = ["set", &end.interface, "private-key", &key_file, "listen-port", "51820"];
    let peer = ["peer", &other.public, "allowed-ips", "10.77.0.0/24", "endpoint", endpoint];
    end.namespace.run("wg", &[&own[..], &peer].concat());
    end.namespace.run("ip", &["addr", "add", address, "dev", &end.interface]);
    end.namespace.run("ip", &["link", "set", &end.interface, "mtu", "1420", "up"]);
}

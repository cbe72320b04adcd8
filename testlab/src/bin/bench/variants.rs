//! What is measured: two hosts and what joins them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use testlab::netns::{Namespace, Process, wait_for, wire};
use testlab::network::{Device, Lab};

const PATIENCE: Duration = Duration::from_secs(30);

/// Two hosts, and the address at which the first reaches the second.
pub(crate) struct Link<'a> {
    pub(crate) a: &'a Namespace,
    pub(crate) b: &'a Namespace,
    pub(crate) address: &'a str,
}

/// What is done with a link while it stands.
pub(crate) type Measure<'m> = dyn FnMut(&Link<'_>) + 'm;

/// Two members of a network.
pub(crate) struct Members {
    _lab: Lab,
    a: Device,
    b: Device,
}

impl Members {
    /// Two members with a direct path, or with UDP forbidden.
    pub(crate) fn new(udp: bool) -> Self {
        let mut lab = Lab::new();
        let (mut a, b) = (lab.host("a"), lab.device("b"));
        if !udp {
            a.namespace().block_udp();
        }
        a.up(&[&lab.invite(&[])]);
        a.wait_for_path(&b, if udp { "direct" } else { "relay" }, PATIENCE);
        Self { _lab: lab, a, b }
    }

    pub(crate) fn with(&self, measure: &mut Measure<'_>) {
        let address = self.b.addresses().swap_remove(0);
        measure(&Link { a: self.a.namespace(), b: self.b.namespace(), address: &address });
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
pub(crate) fn bare(measure: &mut Measure<'_>) {
    let (a, b) = hosts();
    measure(&Link { a: &a, b: &b, address: "192.0.2.2" });
}

fn hosts() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    wire((&a, "eth0", &["192.0.2.1/24"]), (&b, "eth0", &["192.0.2.2/24"]));
    (a, b)
}

/// A plain WireGuard tunnel, both ends by this program.
pub(crate) fn wireguard(program: &Path, args: &[&str], measure: &mut Measure<'_>) {
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
    measure(&Link { a: &a.namespace, b: &b.namespace, address: "10.77.0.2" });
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

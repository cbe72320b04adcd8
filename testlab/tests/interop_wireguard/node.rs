//! Two hosts on one wire, each with a WireGuard interface.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use testlab::netns::{Namespace, Process, shadowmesh, tool, wait_for, wire};

/// Long enough for one repeated initiation, with room for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

static COUNTER: AtomicU32 = AtomicU32::new(0);

pub(crate) const OURS_AT: &str = "192.0.2.1:51820";
pub(crate) const OTHER_AT: &str = "192.0.2.2:51820";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    WireguardGo,
    Boringtun,
}

pub(crate) const OTHERS: [Kind; 2] = [Kind::WireguardGo, Kind::Boringtun];

/// One WireGuard interface in a namespace of its own.
pub(crate) struct Node {
    pub(crate) namespace: Namespace,
    pub(crate) interface: String,
    pub(crate) private: String,
    pub(crate) public: String,
    pub(crate) inner: String,
    pub(crate) inner6: String,
    pub(crate) process: Process,
    pub(crate) folder: tempfile::TempDir,
    _socket: SocketFile,
}

/// A control socket's file; a process that is killed leaves it behind.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Node {
    /// Starts an implementation in the foreground.
    pub(crate) fn start(kind: Kind, namespace: Namespace, number: u8) -> Self {
        Self::start_with(kind, namespace, number, &[])
    }

    fn start_with(
        kind: Kind,
        namespace: Namespace,
        number: u8,
        environment: &[(&str, &str)],
    ) -> Self {
        let interface = unique_interface();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = match kind {
            Kind::Ours => {
                let mut command = namespace.command(shadowmesh());
                command.args(["wireguard", "-f"]);
                command
            }
            Kind::WireguardGo => {
                let mut command = namespace.command(tool("wireguard-go"));
                command.arg("-f");
                command
            }
            Kind::Boringtun => {
                let mut command = namespace.command(tool("boringtun-cli"));
                command.args(["--disable-drop-privileges", "--disable-connected-udp", "-f"]);
                command
            }
        };
        command.arg(&interface).envs(environment.iter().copied());
        let process = Process::start(&mut command, &folder.path().join("log"));
        let socket = socket_of(&interface);
        wait_for("the control socket", PATIENCE, || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        let private = namespace.run("wg", &["genkey"]).trim().to_owned();
        std::fs::write(folder.path().join("key"), &private).expect("a temporary file");
        let key_file = folder.path().join("key").display().to_string();
        let public = {
            let script = format!("wg pubkey < {key_file}");
            namespace.run("sh", &["-c", &script]).trim().to_owned()
        };
        let node = Self {
            namespace,
            interface,
            private,
            public,
            inner: format!("10.77.0.{number}"),
            inner6: format!("fd77::{number}"),
            process,
            folder,
            _socket: SocketFile(socket),
        };
        node.wg(&["private-key", &key_file, "listen-port", "51820"]);
        node.address();
        node
    }

    /// Addresses and link state.
    fn address(&self) {
        for address in [format!("{}/24", self.inner), format!("{}/64", self.inner6)] {
            let mut args = vec!["addr", "add", &address, "dev", &self.interface];
            if address.contains(':') {
                args.push("nodad");
            }
            self.namespace.run("ip", &args);
        }
        self.namespace.run("ip", &["link", "set", &self.interface, "mtu", "1420", "up"]);
    }

    /// `wg set` on this interface.
    pub(crate) fn wg(&self, args: &[&str]) {
        self.namespace.run("wg", &[&["set", &self.interface], args].concat());
    }

    /// Adds `other` as a peer; without an endpoint only the other can begin.
    pub(crate) fn peer(&self, other: &Self, endpoint: Option<&str>) {
        let allowed = format!("{}/32,{}/128", other.inner, other.inner6);
        let mut args = vec!["peer", &other.public, "allowed-ips", &allowed];
        if let Some(endpoint) = endpoint {
            args.extend(["endpoint", endpoint]);
        }
        self.wg(&args);
    }

    pub(crate) fn ping(&self, other: &Self) {
        self.ping_address(&other.inner);
    }

    pub(crate) fn ping_address(&self, address: &str) {
        wait_for(&format!("an answer from {address}\n{}", self.state()), PATIENCE, || {
            let args = ["-c", "1", "-W", "1", "-n", address];
            self.namespace.attempt("ping", &args).status.success().then_some(())
        });
    }

    /// A field of the only peer as `wg show IF FIELD` prints it.
    pub(crate) fn show(&self, field: &str) -> Vec<String> {
        let out = self.namespace.run("wg", &["show", &self.interface, field]);
        out.split_whitespace().skip(1).map(str::to_owned).collect()
    }

    pub(crate) fn latest_handshake(&self) -> u64 {
        self.show("latest-handshakes")[0].parse().expect("seconds")
    }

    /// Bytes (received, sent).
    pub(crate) fn transfer(&self) -> (u64, u64) {
        let fields = self.show("transfer");
        (fields[0].parse().expect("bytes"), fields[1].parse().expect("bytes"))
    }

    fn state(&self) -> String {
        let shown = self.namespace.attempt("wg", &["show", &self.interface]);
        format!("{}{}", String::from_utf8_lossy(&shown.stdout), self.process.output())
    }
}

pub(crate) fn unique_interface() -> String {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("smw{:x}x{number}", std::process::id())
}

pub(crate) fn socket_of(interface: &str) -> PathBuf {
    PathBuf::from(format!("/var/run/wireguard/{interface}.sock"))
}

/// Two hosts on one wire, each with an interface; ours is the first.
pub(crate) fn pair(other: Kind) -> (Node, Node) {
    pair_with(other, &[])
}

pub(crate) fn pair_with(other: Kind, environment: &[(&str, &str)]) -> (Node, Node) {
    let (a, b) = hosts();
    let ours = Node::start_with(Kind::Ours, a, 1, environment);
    (ours, Node::start(other, b, 2))
}

pub(crate) fn hosts() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    wire(
        (&a, "eth0", &["192.0.2.1/24", "2001:db8::1/64"]),
        (&b, "eth0", &["192.0.2.2/24", "2001:db8::2/64"]),
    );
    (a, b)
}

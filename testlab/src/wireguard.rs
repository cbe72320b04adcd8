//! One end of a plain WireGuard tunnel, served by any program that is configured with `wg`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::netns::{Namespace, Process, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);
const PORT: &str = "51820";

/// A host with a WireGuard interface.
#[derive(Debug)]
pub struct End {
    namespace: Namespace,
    interface: String,
    key_file: PathBuf,
    public: String,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl End {
    /// Starts `program` with `args` and the interface's name, and makes a key for it.
    pub fn start(program: &Path, args: &[&str], namespace: Namespace) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Interface names are unique on the machine, since their control sockets are.
        let label = namespace.label();
        let interface = format!("b{}", &label[..label.len().min(14)]).replace('-', "x");
        let mut command = namespace.command(program);
        command.args(args).arg(&interface);
        let process = Process::start(&mut command, &folder.path().join("log"));
        let socket = format!("/var/run/wireguard/{interface}.sock");
        wait_for("the control socket", PATIENCE, || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        let key_file = folder.path().join("key");
        std::fs::write(&key_file, namespace.run("wg", &["genkey"])).expect("a temporary file");
        let script = format!("wg pubkey < {}", key_file.display());
        let public = namespace.run("sh", &["-c", &script]).trim().to_owned();
        Self { namespace, interface, key_file, public, _process: process, _folder: folder }
    }

    /// Gives the interface its address, and lets in the other end with what it may send: where it is
    /// underneath, and its addresses inside.
    pub fn configure(&self, address: &str, (other, host, allowed): (&Self, &str, &str)) {
        let key_file = self.key_file.display().to_string();
        let own = ["set", &self.interface, "private-key", &key_file, "listen-port", PORT];
        let endpoint = format!("{host}:{PORT}");
        let peer = ["peer", &other.public, "allowed-ips", allowed, "endpoint", &endpoint];
        self.namespace.run("wg", &[&own[..], &peer].concat());
        self.add_address(address);
        self.namespace.run("ip", &["link", "set", &self.interface, "mtu", "1420", "up"]);
    }

    /// Takes up what stands in a file for `wg-quick` that lacks the private key, with another MTU. Returns its addresses.
    pub fn adopt(&self, configuration: &str, mtu: u16) -> Vec<String> {
        let is_of_interface = |line: &&str| line.starts_with("Address") || line.starts_with("MTU");
        let rest: Vec<_> = configuration.lines().filter(|line| !is_of_interface(line)).collect();
        let file = self.key_file.with_extension("conf");
        std::fs::write(&file, rest.join("\n")).expect("a temporary file");
        self.namespace.run("wg", &["setconf", &self.interface, &file.display().to_string()]);
        let key_file = self.key_file.display().to_string();
        self.namespace.run("wg", &["set", &self.interface, "private-key", &key_file]);
        let listed = |field: &str| -> Vec<String> {
            let lines = configuration.lines().filter_map(|line| line.strip_prefix(field));
            let values = lines.filter_map(|line| line.trim_start().strip_prefix('='));
            values.flat_map(|list| list.split(',')).map(|one| one.trim().to_owned()).collect()
        };
        self.namespace.run("ip", &["link", "set", &self.interface, "mtu", &mtu.to_string(), "up"]);
        let addresses = listed("Address");
        addresses.iter().for_each(|address| self.add_address(address));
        for to in listed("AllowedIPs") {
            self.namespace.run("ip", &["route", "replace", &to, "dev", &self.interface]);
        }
        let bare = |address: &String| address.split('/').next().unwrap_or(address).to_owned();
        addresses.iter().map(bare).collect()
    }

    /// Its public key.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// A further address of the interface.
    pub fn add_address(&self, address: &str) {
        self.namespace.run("ip", &["addr", "add", address, "dev", &self.interface]);
    }

    /// Waits until an address answers through the tunnel.
    pub fn wait_until_reaches(&self, address: &str, within: Duration) {
        wait_for(&format!("an answer from {address}"), within, || {
            let ping = ["-c", "1", "-W", "1", address];
            self.namespace.attempt("ping", &ping).status.success().then_some(())
        });
    }

    /// The host.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }
}

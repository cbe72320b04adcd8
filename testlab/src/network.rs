//! A whole network of real binaries: a server and devices, each in a namespace of its own on one switch.
//!
//! [`Lab`] is the scenario's root: it owns the switch, the folder of states and logs, and the server. [`Lab::device`] joins a device with
//! a TUN interface; [`Lab::router`] and [`Lab::host_behind`] put devices behind translators. Everything ends with the lab.

mod device;
mod places;
mod relay;
mod turn;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::netns::{
    Conditions, Disk, Namespace, Nat, Process, Router, SlowWire, Switch, shadowmesh, wait_for,
};

pub use device::Device;
pub use places::{Home, IPV6};
pub use relay::Relay;
pub use turn::{Turn, TurnUsers};

/// The network's name; devices are `<name>.lab.alt`.
pub const NETWORK: &str = "lab";
/// The port of controller and relay.
const PORT: u16 = 8443;
/// How long anything may take that is not the subject of a test.
const PATIENCE: Duration = Duration::from_secs(20);
/// The first three numbers of every home's addresses.
const HOME: &str = "192.168.1";
/// The same for a carrier's customers. Not from 100.64.0.0/10, where a network may have its own addresses.
const CARRIER: &str = "10.64.0";

/// A switch, a server, and a folder for everybody's state.
#[derive(Debug)]
pub struct Lab {
    folder: TempDir,
    switch: Switch,
    server: Namespace,
    serving: Option<Process>,
    hosts: u8,
    /// Whether relays pass no datagrams on.
    frames_only: bool,
    /// Where an HTTP proxy listens, and its URL with user and password.
    proxy: Option<(SocketAddr, String)>,
}

impl Lab {
    /// A lab whose server runs and has a network.
    #[must_use]
    pub fn new() -> Self {
        let mut lab = Self::without_server();
        lab.start_server();
        lab
    }

    /// The same where relays carry frames over streams alone.
    #[must_use]
    pub fn with_frames_only() -> Self {
        let mut lab = Self::without_server();
        lab.frames_only = true;
        lab.start_server();
        lab
    }

    /// A lab whose server is to be started.
    #[must_use]
    pub fn without_server() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let switch = Switch::new();
        let server = Namespace::new("server");
        switch.plug(&server, &[&format!("{}/24", server_address())]);
        Self { folder, switch, server, serving: None, hosts: 1, frames_only: false, proxy: None }
    }

    /// Gives the server, before its first start, a disk of so many mebibytes for its state.
    #[must_use]
    pub fn server_disk(&self, mebibytes: u32) -> Disk {
        Disk::mount(&self.server, Path::new(&self.state("server")), mebibytes)
    }

    /// Starts `shadowmesh serve` and waits until it answers.
    pub fn start_server(&mut self) {
        self.spawn_server();
        self.wait_for_server();
    }

    /// The same with other options about where it listens.
    pub fn start_server_with(&mut self, options: &[&str]) {
        self.serve(options);
        self.wait_for_server();
    }

    /// Lets devices at [`Place::Proxy`](crate::places::Place::Proxy) out through a proxy for a user with a password.
    pub fn use_proxy(&mut self, at: SocketAddr, user: &str, password: &str) {
        self.proxy = Some((at, format!("http://{user}:{password}@{at}")));
    }

    fn relay_options(&self) -> &'static [&'static str] {
        if self.frames_only { &["--no-datagrams"] } else { &[] }
    }

    fn wait_for_server(&self) {
        wait_for("the controller to answer", PATIENCE, || {
            self.ask_server(&["network", "show"]).status.success().then_some(())
        });
    }

    /// Starts `shadowmesh serve`.
    pub fn spawn_server(&mut self) {
        let (listen, host) = (format!("0.0.0.0:{PORT}"), server_address().to_string());
        self.serve(&["--listen", &listen, "--host", &host]);
    }

    fn serve(&mut self, options: &[&str]) {
        let state = self.state("server");
        let args = ["--state-dir", &state, "serve", "--network", NETWORK];
        let args = [&args, self.relay_options(), options].concat();
        // The soft limit of open files that most systems start programs with.
        let program = shadowmesh().to_string_lossy().into_owned();
        let limited = [&["--nofile=1024:20000", &program][..], &args].concat();
        self.serving = Some(self.server.spawn("prlimit", &limited, &self.log("server")));
    }

    /// Waits until the server ends by itself.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub fn wait_for_server_to_end(&mut self) -> ExitStatus {
        self.serving.take().expect("the server runs").wait(PATIENCE)
    }

    /// What the server has logged.
    #[must_use]
    pub fn server_output(&self) -> String {
        std::fs::read_to_string(self.log("server")).unwrap_or_default()
    }

    /// Ends the server as a service manager does, and waits until it has ended.
    pub fn stop_server(&mut self) {
        if let Some(process) = self.serving.take() {
            process.stop(PATIENCE);
        }
    }

    /// Ends the server as a power cut would.
    pub fn kill_server(&mut self) {
        if let Some(process) = self.serving.take() {
            process.kill();
        }
    }

    /// The server's namespace.
    #[must_use]
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The server's process.
    ///
    /// # Panics
    /// When the server does not run.
    #[must_use]
    pub fn serving(&self) -> &Process {
        self.serving.as_ref().expect("the server runs")
    }

    /// Runs an administrator's command on the server's host and returns what it answered.
    pub fn ask_server(&self, args: &[&str]) -> Output {
        let state = self.state("server");
        let program = shadowmesh();
        let all = [&["--json", "--state-dir", &state], args].concat();
        self.server.attempt(&program.to_string_lossy(), &all)
    }

    /// Runs an administrator's command that must succeed.
    pub fn administer(&self, args: &[&str]) -> Value {
        let output = self.ask_server(args);
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?}: {}\n{out}{err}", output.status);
        serde_json::from_str(&out).unwrap_or(Value::Null)
    }

    /// Lets a plain WireGuard peer in; what stands in its file for `wg-quick`, but for the private key.
    pub fn add_peer(&self, name: &str, key: &str) -> String {
        let state = self.state("server");
        let args = ["--state-dir", &state, "peer", "add", name, key];
        self.server.run(&shadowmesh().to_string_lossy(), &args)
    }

    /// A new invite.
    pub fn invite(&self, args: &[&str]) -> String {
        let invites = self.administer(&[&["invite", "create"], args].concat());
        invites[0]["invite"].as_str().expect("an invite is text").to_owned()
    }

    /// A host on the switch that is in no network yet.
    pub fn host(&mut self, name: &str) -> Device {
        let namespace = Namespace::new(name);
        let address = format!("{}/24", self.next_address());
        self.switch.plug(&namespace, &[&address]);
        Device::new(self, name, namespace)
    }

    /// The same over a wire that delays and loses, which comes with the host and may be changed.
    pub fn far_host(&mut self, name: &str, conditions: Conditions) -> (Device, SlowWire) {
        let namespace = Namespace::new(name);
        let address = format!("{}/24", self.next_address());
        let wire = self.switch.plug_slow(&namespace, &[&address], conditions);
        (Device::new(self, name, namespace), wire)
    }

    /// A host behind a router.
    pub fn host_behind(&self, router: &Router, name: &str) -> Device {
        let namespace = Namespace::new(name);
        router.plug(&namespace);
        Device::new(self, name, namespace)
    }

    /// A router on the switch. All routers' inner nets have the same addresses, as at most people's homes.
    pub fn router(&mut self, nat: Nat, conditions: Option<Conditions>) -> Router {
        let outside = format!("{}/24", self.next_address());
        Router::new(&self.switch, &outside, HOME, nat, conditions)
    }

    /// A router whose outer net is the inner net of a carrier's router.
    pub fn router_behind(&mut self, carrier: &Router, nat: Nat) -> Router {
        let router = Router::new(carrier.inner(), &carrier.next_address(), HOME, nat, None);
        carrier.serve(&router);
        router
    }

    /// A router as a carrier runs it, whose customers' routers translate once more.
    pub fn carrier(&mut self, nat: Nat) -> Router {
        let outside = format!("{}/24", self.next_address());
        Router::new(&self.switch, &outside, CARRIER, nat, None)
    }

    /// A relay on a host of its own that has joined and is known to the controller.
    pub fn relay(&mut self, name: &str) -> Relay {
        self.relay_with(name, &[])
    }

    /// The same with options of its own.
    pub fn relay_with(&mut self, name: &str, options: &[&str]) -> Relay {
        let mut relay = self.relay_host(name);
        self.admit_with(&mut relay, options);
        relay
    }

    /// A host on the switch for a relay that is in no network yet.
    pub fn relay_host(&mut self, name: &str) -> Relay {
        let address = self.next_address();
        let namespace = Namespace::new(name);
        self.switch.plug(&namespace, &[&format!("{address}/24")]);
        let (state, log) = (self.state(name), self.log(name));
        let id = String::new();
        Relay { id, namespace, address, state, log, process: None }
    }

    /// Starts a relay with an invite of its own and waits until the controller knows it.
    pub fn admit(&self, relay: &mut Relay) {
        self.admit_with(relay, &[]);
    }

    fn admit_with(&self, relay: &mut Relay, options: &[&str]) {
        // The server's own relay must not be taken for this one.
        let known = wait_for("the server's relay to be published", PATIENCE, || {
            Some(self.relays()).filter(|relays| !relays.is_empty())
        });
        let invite = self.invite(&["--relay"]);
        relay.start(&[self.relay_options(), options, &[&invite]].concat());
        relay.id = wait_for("the relay to be published", PATIENCE, || {
            self.relays().into_iter().find(|id| !known.contains(id))
        });
    }

    /// The ids of the network's relays.
    fn relays(&self) -> Vec<String> {
        let relays = self.administer(&["network", "relays"]);
        let ids = relays.as_array().into_iter().flatten().filter_map(|relay| relay["id"].as_str());
        ids.map(str::to_owned).collect()
    }

    /// The security events that the controller has written down, the newest first.
    pub fn events(&self) -> Vec<Value> {
        let events = self.administer(&["log", "events", "--limit", "1000"]);
        let events = events.as_array().expect("events are a list");
        events.iter().map(|row| row["entry"]["event"].clone()).collect()
    }

    /// Everybody's lines in the logs that are warnings or worse.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("the lab's folder is there");
        let paths = entries.flatten().map(|entry| entry.path());
        let logs = paths.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
        let text: Vec<_> = logs.filter_map(|log| std::fs::read_to_string(log).ok()).collect();
        let lines = text.iter().flat_map(|text| text.lines());
        let is_warning = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        lines.filter(is_warning).map(str::to_owned).collect()
    }

    /// A host that joins by an invite of its own and is online.
    pub fn device(&mut self, name: &str) -> Device {
        let mut device = self.host(name);
        device.up(&[&self.invite(&[])]);
        device.wait_for_membership("online", PATIENCE);
        device
    }

    /// An address on the switch that nobody has.
    fn next_address(&mut self) -> String {
        self.hosts += 1;
        format!("11.1.0.{}", self.hosts)
    }

    fn state(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "log") {
                    let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                    let tail: Vec<&str> = text.lines().rev().take(40).collect();
                    let tail: Vec<&str> = tail.into_iter().rev().collect();
                    #[expect(clippy::print_stderr, reason = "what a failed test leaves to read")]
                    {
                        eprintln!("--- {}\n{}", entry.path().display(), tail.join("\n"));
                    }
                }
            }
        }
    }
}

/// The server's address on the switch, where addresses are such as the Internet's: behind others no router maps ports.
#[must_use]
pub fn server_address() -> Ipv4Addr {
    Ipv4Addr::new(11, 1, 0, 1)
}

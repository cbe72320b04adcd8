//! A host with a node, and what is asked of it.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use super::{Lab, NETWORK, PATIENCE};
use crate::netns::{Disk, Namespace, Process, shadowmesh, wait_for};

/// Longer than a node puts off writing to disk.
const SAVING: Duration = Duration::from_millis(1500);

/// A host with a node.
#[derive(Debug)]
pub struct Device {
    name: String,
    namespace: Namespace,
    state: String,
    log: PathBuf,
    environment: Vec<(&'static str, String)>,
    node: Option<Process>,
}

impl Device {
    pub(super) fn new(lab: &Lab, name: &str, namespace: Namespace) -> Self {
        Self {
            name: name.to_owned(),
            namespace,
            state: lab.state(name),
            log: lab.log(name),
            environment: Vec::new(),
            node: None,
        }
    }

    /// Its name in the network, as long as nobody renames it.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{NETWORK}.alt", self.name)
    }

    /// Its host.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The IPv4 address of its host.
    ///
    /// # Panics
    /// When the host has none.
    #[must_use]
    pub fn underlay_address(&self) -> String {
        let shown = self.namespace().run("ip", &["-4", "-o", "addr", "show", "dev", "eth0"]);
        let address = shown.split_whitespace().nth(3).and_then(|address| address.split('/').next());
        address.expect("the host has an address").to_owned()
    }

    /// The folder of its state.
    #[must_use]
    pub fn state_dir(&self) -> &str {
        &self.state
    }

    /// Its node's process.
    ///
    /// # Panics
    /// When the node does not run.
    #[must_use]
    pub fn node(&self) -> &Process {
        self.node.as_ref().expect("the node runs")
    }

    /// Gives it, before its first start, a disk of so many mebibytes for its state.
    #[must_use]
    pub fn disk(&self, mebibytes: u32) -> Disk {
        Disk::mount(&self.namespace, Path::new(&self.state), mebibytes)
    }

    /// What its node has logged.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Gives the node, from its next start on, a clock of its own, which [`Self::set_clock`] changes.
    pub fn use_own_clock(&mut self) {
        self.environment = vec![
            ("LD_PRELOAD", libfaketime().to_string_lossy().into_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.clock_file()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        self.set_clock("+0");
    }

    /// Sets the node's own clock by an offset such as `+1d` to the machine's.
    pub fn set_clock(&self, offset: &str) {
        let new = format!("{}.new", self.clock_file());
        std::fs::write(&new, offset).expect("a temporary file");
        std::fs::rename(&new, self.clock_file()).expect("a temporary file");
    }

    fn clock_file(&self) -> String {
        format!("{}.clock", self.state)
    }

    /// Gives its node a variable of the environment, from its next start on.
    pub fn set_variable(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    /// Starts its node and waits until it answers.
    pub fn up(&mut self, args: &[&str]) {
        let all = [&["--state-dir", &self.state, "up", "--name", &self.name], args].concat();
        let mut command = self.namespace.command(shadowmesh());
        // Whatever proxy leads out of the machine does not lead to the lab.
        for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.args(all).envs(self.environment.iter().cloned());
        self.node = Some(Process::start(&mut command, &self.log));
        wait_for(&format!("{} to answer", self.name), PATIENCE, || self.status());
    }

    /// Waits until the node has written down what it knows: its disk has been quiet for longer than it puts writing off.
    pub fn wait_until_saved(&self) {
        wait_for(&format!("{} to write down what it knows", self.name), PATIENCE, || {
            let state = self.namespace.path(Path::new(&self.state));
            let entries = std::fs::read_dir(state.join("node")).ok()?;
            let changed =
                entries.flatten().filter_map(|entry| entry.metadata().ok()?.modified().ok());
            let quiet = changed.max()?.elapsed().unwrap_or_default();
            (quiet > SAVING).then_some(())
        });
    }

    /// Ends its node as a power cut would.
    pub fn kill(&mut self) {
        if let Some(node) = self.node.take() {
            node.kill();
        }
    }

    /// Ends its node politely.
    pub fn down(&mut self) {
        if let Some(node) = self.node.take() {
            let status = node.stop(PATIENCE);
            assert!(status.success(), "{}: {status}\n{}", self.name, self.output());
        }
    }

    /// Runs a command of the program here.
    pub fn ask(&self, args: &[&str]) -> Output {
        let all = [&["--json", "--state-dir", &self.state], args].concat();
        self.namespace.attempt(&shadowmesh().to_string_lossy(), &all)
    }

    /// What `why` says of the paths to another device.
    #[must_use]
    pub fn why(&self, peer: &Self) -> Value {
        let output = self.ask(&["why", &peer.full_name()]);
        serde_json::from_slice(&output.stdout).expect("why is JSON")
    }

    /// What `status` says, if the node answers.
    #[must_use]
    pub fn status(&self) -> Option<Value> {
        let output = self.ask(&["status"]);
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).expect("status is JSON"))
    }

    /// Waits until the device stands so with its only network.
    pub fn wait_for_membership(&self, membership: &str, within: Duration) {
        wait_for(&format!("{} to be {membership}", self.name), within, || {
            let status = self.status()?;
            (status["networks"][0]["membership"] == membership).then_some(())
        });
    }

    /// Waits until traffic to a peer takes a path of this kind, such as `direct` or `relay`.
    pub fn wait_for_path(&self, peer: &Self, kind: &str, within: Duration) {
        wait_for(&format!("a {kind} path from {} to {}", self.name, peer.name), within, || {
            let _ = self.ping(&peer.full_name());
            self.path_kind(peer).filter(|found| found == kind)
        });
    }

    /// Of which kind the path to a peer is.
    #[must_use]
    pub fn path_kind(&self, peer: &Self) -> Option<String> {
        self.path(peer)?["kind"].as_str().map(str::to_owned)
    }

    /// Waits until the device is attached to so many relays.
    pub fn wait_for_relays(&self, count: usize) {
        wait_for(&format!("{} to be at {count} relays", self.name), PATIENCE, || {
            let status = self.status()?;
            (status["networks"][0]["relays"].as_array()?.len() == count).then_some(())
        });
    }

    /// By what the traffic to a peer goes: an address, or a relay's id.
    #[must_use]
    pub fn path_to(&self, peer: &Self) -> Option<String> {
        self.path(peer)?["via"].as_str().map(str::to_owned)
    }

    /// What it says of the path to a peer.
    fn path(&self, peer: &Self) -> Option<Value> {
        let status = self.status()?;
        let peers = status["networks"][0]["peers"].as_array()?;
        let found = peers.iter().find(|entry| entry["name"] == peer.name.as_str())?;
        Some(found["path"].clone())
    }

    /// Its addresses in the network, IPv6 first.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let status = self.status().expect("the node answers");
        let addresses = status["networks"][0]["addresses"].as_array().cloned().unwrap_or_default();
        addresses.iter().filter_map(|address| address.as_str().map(str::to_owned)).collect()
    }

    /// Whether one ICMP echo is answered within a second.
    #[must_use]
    pub fn reaches(&self, target: &str) -> bool {
        self.ping(target)
    }

    /// Waits until ICMP echo is answered.
    pub fn wait_until_reaches(&self, target: &str, within: Duration) {
        wait_for(&format!("{} to reach {target}", self.name), within, || {
            self.ping(target).then_some(())
        });
    }

    /// Whether a target answers within a second.
    #[must_use]
    pub fn ping(&self, target: &str) -> bool {
        self.namespace.attempt("ping", &["-n", "-c", "1", "-W", "1", target]).status.success()
    }
}

/// The library that shows a process another time of day.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let places = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    places
        .into_iter()
        .find(|library| library.exists())
        .expect("libfaketime is missing: run `make tools`")
}

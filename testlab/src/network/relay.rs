//! Relays beside the server's own.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{PATIENCE, PORT};
use crate::netns::{Disk, Namespace, Process, shadowmesh};

/// A relay on a host of its own.
#[derive(Debug)]
pub struct Relay {
    pub(super) id: String,
    pub(super) namespace: Namespace,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) log: PathBuf,
    pub(super) process: Option<Process>,
}

impl Relay {
    /// Its id, by which devices name it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its host.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its address on the switch.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Gives it, before its first start, a disk of so many mebibytes for its state.
    #[must_use]
    pub fn disk(&self, mebibytes: u32) -> Disk {
        Disk::mount(&self.namespace, Path::new(&self.state), mebibytes)
    }

    /// What it has logged.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts it, with an invite or for the networks joined before.
    pub fn start(&mut self, invite: &[&str]) {
        let listen = format!("0.0.0.0:{PORT}");
        let args = ["--state-dir", &self.state, "relay", "--listen", &listen, "--host"];
        let args = [&args[..], &[&self.address], invite].concat();
        self.process = Some(self.namespace.spawn(shadowmesh(), &args, &self.log));
    }

    /// Ends it as a service manager does, and waits until it has ended.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop(PATIENCE);
        }
    }

    /// Runs a command on its host that asks it, which must succeed.
    pub fn ask(&self, args: &[&str]) -> Value {
        let program = shadowmesh();
        let all = [&["--json", "--state-dir", &self.state], args].concat();
        let answer = self.namespace.run(&program.to_string_lossy(), &all);
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    /// Ends it as a power cut would, but for the host, which closes its connections.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }
}

//! A node as a process of its own, started as a user would start it.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ::node::api::Client;

use super::failed;
use crate::exit::{Exit, Failure};

/// Lines of a node's log that an error shows.
const LAST_LINES: usize = 5;

/// A running node; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct DemoNode {
    name: &'static str,
    folder: PathBuf,
    client: Client,
    proxy: Option<SocketAddr>,
    process: Child,
}

impl DemoNode {
    /// Starts `shadowmesh up -` in userspace mode with the invite on its standard input.
    pub(super) fn start(
        name: &'static str,
        folder: &Path,
        invite: &str,
        more: &[&str],
    ) -> Result<Self, Failure> {
        fs::create_dir_all(folder).map_err(failed)?;
        let config = folder.join("config.yaml");
        fs::write(&config, "# the defaults\n").map_err(failed)?;
        let log = File::create(folder.join("log")).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("SHADOWMESH_") {
                command.env_remove(variable);
            }
        }
        let mut process = command
            .arg("--config")
            .arg(&config)
            .arg("--state-dir")
            .arg(folder)
            .args(["up", "-", "--mode", "userspace", "--no-dns", "--proxy", "127.0.0.1:0"])
            .args(["--name", name])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let mut input = process.stdin.take().expect("standard input is a pipe");
        input.write_all(invite.as_bytes()).map_err(failed)?;
        drop(input);
        let client = Client::new(folder.join("node.sock"));
        Ok(Self { name, folder: folder.to_owned(), client, proxy: None, process })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn set_proxy(&mut self, proxy: Option<SocketAddr>) {
        self.proxy = proxy;
    }

    pub(super) fn proxy(&self) -> Result<SocketAddr, Failure> {
        self.proxy.ok_or_else(|| Failure::new(Exit::Other, format!("{} has no proxy", self.name)))
    }

    /// Fails when the process has ended.
    pub(super) fn check_alive(&mut self) -> Result<(), Failure> {
        match self.process.try_wait().map_err(failed)? {
            None => Ok(()),
            Some(status) => {
                let text = format!("{} has ended ({status}); {}", self.name, self.last_words());
                Err(Failure::new(Exit::Other, text))
            }
        }
    }

    /// The end of the node's log.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        format!("its log ends with:\n{}", last.join("\n"))
    }
}

impl Drop for DemoNode {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

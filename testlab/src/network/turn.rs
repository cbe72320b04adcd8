//! TURN servers of somebody else's make.

use std::path::PathBuf;
use std::time::Duration;

use super::{Lab, PATIENCE};
use crate::netns::{Namespace, Process};

/// The port that IANA has for TURN.
const PORT: u16 = 3_478;
/// The user that a server with users has, and its password.
const USER: (&str, &str) = ("alice", "right, of course");
/// The secret that a server shares which has no users.
const SECRET: &str = "shared=secret";

/// By what a server knows who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnUsers {
    /// Usernames and passwords.
    LongTerm,
    /// A shared secret that makes logins which end.
    Shared,
}

/// coturn on a host of its own.
#[derive(Debug)]
pub struct Turn {
    users: TurnUsers,
    address: String,
    namespace: Namespace,
    folder: PathBuf,
    process: Option<Process>,
}

impl Lab {
    /// A TURN server on the switch that runs.
    pub fn turn(&mut self, users: TurnUsers) -> Turn {
        let address = self.next_address();
        let namespace = Namespace::new("turn");
        self.switch.plug(&namespace, &[&format!("{address}/24")]);
        let folder = PathBuf::from(self.state(&format!("turn-{address}")));
        std::fs::create_dir(&folder).expect("a temporary folder");
        let mut turn = Turn { users, address, namespace, folder, process: None };
        turn.start();
        turn
    }
}

impl Turn {
    /// Starts it and waits until it listens.
    pub fn start(&mut self) {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let (database, pid) = (path("users.sqlite"), path("pid"));
        let listen = ["-n", "-m", "1", "-L", &self.address, "-E", &self.address, "--no-cli"];
        let kept = ["--userdb", &database, "--pidfile", &pid, "--log-file=stdout", "--simple-log"];
        let ports = ["--min-port=50000", "--max-port=50999", "--no-tls", "--no-dtls", "-v"];
        let (user, secret) =
            (format!("--user={}:{}", USER.0, USER.1), format!("--static-auth-secret={SECRET}"));
        let login = match self.users {
            TurnUsers::LongTerm => ["--lt-cred-mech", &user],
            TurnUsers::Shared => ["--use-auth-secret", &secret],
        };
        let args = [&listen[..], &kept, &ports, &["--realm=lab.test"], &login].concat();
        let log = self.folder.join("output");
        self.process = Some(self.namespace.spawn("turnserver", &args, &log));
        self.namespace.wait_until_listens(PORT, PATIENCE);
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Takes its host off the switch, so that nothing says that it is gone.
    pub fn unplug(&self) {
        self.namespace.set_link("eth0", false);
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How settings name it, with what it knows its users by.
    #[must_use]
    pub fn setting(&self, transport: &str) -> String {
        let login = match self.users {
            TurnUsers::LongTerm => format!("username={},password={}", USER.0, USER.1),
            TurnUsers::Shared => format!("secret={SECRET}"),
        };
        format!("{transport}/{}:{PORT},{login}", self.address)
    }

    /// What it has logged.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.as_ref().expect("it runs").output()
    }

    /// Waits until it has logged a text.
    ///
    /// # Panics
    /// When it does not run.
    pub fn wait_for_output(&mut self, text: &str, within: Duration) {
        self.process.as_mut().expect("it runs").wait_for_output(text, within);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(process) = &self.process
        {
            let output = process.output();
            let tail: Vec<&str> = output.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            #[expect(clippy::print_stderr, reason = "what a failed test leaves to read")]
            {
                eprintln!("--- coturn\n{}", tail.join("\n"));
            }
        }
    }
}

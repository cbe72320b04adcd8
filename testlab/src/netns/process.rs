//! Programs that run on hosts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{command, wait_for};

/// Processor time that a process, or `self`, has used so far, in seconds.
///
/// # Panics
/// When there is no such process.
pub fn processor_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    // utime and stime, in hundredths of a second.
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|field| field.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// A child process that is ended, by its own id, when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let out =
            File::options().create(true).append(true).open(log).expect("the log can be written");
        let err = out.try_clone().expect("a file can be shared");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// When the process has ended.
    pub fn resident_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.expect("a running process has memory") * 1024
    }

    /// What the process has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the output contains `text`.
    pub fn wait_for_output(&mut self, text: &str, within: Duration) -> String {
        wait_for(&format!("{text:?} in {}", self.log.display()), within, || {
            let output = self.output();
            let ended = self.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none() || output.contains(text), "ended with {ended:?}:\n{output}");
            output.contains(text).then_some(output)
        })
    }

    /// Sends a signal by name (`TERM`, `KILL`, `STOP`, ...).
    pub fn signal(&self, name: &str) {
        command("kill", &[&format!("-{name}"), &self.child.id().to_string()]);
    }

    /// Asks the process to end, and waits for it.
    pub fn stop(mut self, within: Duration) -> ExitStatus {
        self.signal("TERM");
        let child = &mut self.child;
        wait_for("the process to end", within, || child.try_wait().expect("a child can be asked"))
    }

    /// Waits until the process ends by itself.
    pub fn wait(mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the process to end", within, || child.try_wait().expect("a child can be asked"))
    }

    /// Ends the process at once, as a power cut would.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

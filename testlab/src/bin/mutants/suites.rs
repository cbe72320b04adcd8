//! Building the tests of the copy, and running some of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cargo_metadata::Message;

use crate::copy::VARIABLE;
use crate::faults::{self, Suite, UNITS};

/// A fault may turn a test into an endless one; the slowest of those named takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
}

/// The tests of the copy, by package and target.
pub(crate) struct Executables(BTreeMap<(String, String), Executable>);

struct Executable {
    path: PathBuf,
    package: PathBuf,
}

impl Executables {
    /// Compiles every test that a fault names, with the features that the whole workspace has.
    pub(crate) fn build(copy: &Path) -> Result<Self, String> {
        let suites = faults::all().flat_map(|fault| fault.tests);
        let targets: BTreeSet<&str> =
            suites.map(|suite| suite.target).filter(|target| *target != UNITS).collect();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(copy).args(["test", "--no-run", "--workspace", "--locked", "--quiet"]);
        cargo.args(["--message-format=json-render-diagnostics", "--lib"]);
        cargo.args(targets.into_iter().flat_map(|target| ["--test", target]));
        let mut built = cargo
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cargo does not start: {error}"))?;
        let output = std::io::BufReader::new(built.stdout.take().expect("the output is piped"));
        let messages = Message::parse_stream(output).map_while(Result::ok);
        let executables = messages.filter_map(executable).collect();
        match built.wait() {
            Ok(status) if status.success() => Ok(Self(executables)),
            Ok(_) => Err("the copy with the faults does not compile".into()),
            Err(error) => Err(format!("cargo cannot be waited for: {error}")),
        }
    }

    /// Runs the tests of a suite while `fault` is awake, and says how each ended.
    pub(crate) fn run(
        &self,
        suite: &Suite,
        fault: Option<&str>,
    ) -> Result<BTreeMap<String, Verdict>, String> {
        let Suite { package, target, tests } = suite;
        let key = ((*package).to_owned(), (*target).to_owned());
        let Some(Executable { path, package: folder }) = self.0.get(&key) else {
            return Err(format!("{package} has no tests {target}"));
        };
        let mut command = Command::new(path);
        command.current_dir(folder).env("CARGO_MANIFEST_DIR", folder).env_remove(VARIABLE);
        command.arg("--exact").args(*tests);
        command.envs(fault.map(|fault| (VARIABLE, fault)));
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = child.spawn().map_err(|error| format!("{}: {error}", path.display()))?;
        let report = report(child).ok_or_else(|| {
            format!("{package}: {target} took longer than {} seconds", PATIENCE.as_secs())
        })?;
        Ok(verdicts(&report))
    }
}

fn executable(message: Message) -> Option<((String, String), Executable)> {
    let Message::CompilerArtifact(artifact) = message else { return None };
    let path = artifact.executable.filter(|_| artifact.profile.test)?;
    let package = artifact.manifest_path.parent()?;
    let units = UNITS.to_owned();
    let target = if artifact.target.is_test() { artifact.target.name } else { units };
    let executable =
        Executable { path: path.into_std_path_buf(), package: package.as_std_path().to_owned() };
    Some(((package.file_name()?.to_owned(), target), executable))
}

/// What the process prints until its end; nothing if that does not come in time.
fn report(mut child: Child) -> Option<String> {
    let mut output = child.stdout.take().expect("the output is piped");
    let (send, receive) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let _ = output.read_to_string(&mut text);
        let _ = send.send(text);
    });
    let text = receive.recv_timeout(PATIENCE).ok();
    let _ = child.kill();
    let _ = child.wait();
    let _ = reader.join();
    text
}

fn verdicts(report: &str) -> BTreeMap<String, Verdict> {
    let verdict = |line: &str| {
        let (test, end) = line.strip_prefix("test ")?.split_once(" ... ")?;
        match end {
            "ok" => Some((test.to_owned(), Verdict::Passed)),
            "FAILED" => Some((test.to_owned(), Verdict::Failed)),
            _ => None,
        }
    };
    report.lines().filter_map(verdict).collect()
}

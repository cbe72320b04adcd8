//! Namespaces, wires between them, and processes inside them.
//!
//! A [`Namespace`] is a host of its own: interfaces, routes, sockets, firewall. [`wire`] joins two of them by a veth pair. A [`Process`]
//! runs inside one and is ended by its own id when it goes out of scope. Names are unique per process and counter, so tests run
//! side by side; nothing in a namespace has a link to the machine's own network, so nothing can leak out of the lab.
//!
//! Needs root and `ip` from iproute2. Every failure is a panic that quotes the command and what it printed: this is test equipment.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// How long [`wait_for`] rests between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A network namespace, removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback up and duplicate address detection off; `label` helps to read logs.
    ///
    /// The namespace has an `/etc/resolv.conf` of its own, empty at first: see [`Self::resolv_conf`].
    pub fn new(label: &str) -> Self {
        let name =
            format!("sm{}-{}-{label}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let namespace = Self { name };
        let etc = namespace.etc();
        std::fs::create_dir_all(&etc).expect("/etc/netns is writable");
        File::create(etc.join("resolv.conf")).expect("/etc/netns is writable");
        command("ip", &["netns", "add", &namespace.name]);
        for setting in [
            "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv4.ping_group_range=0 2147483647",
        ] {
            namespace.run("sysctl", &["-qw", setting]);
        }
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// The name as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that programs in here see as `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> PathBuf {
        self.etc().join("resolv.conf")
    }

    /// A command that will run in here.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a command to its end and returns what it printed; panics when it fails.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        finish(self.command(program).args(args))
    }

    /// Runs a command to its end, whatever it answers.
    pub fn attempt(&self, program: &str, args: &[&str]) -> Output {
        self.command(program)
            .args(args)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Starts a process in here whose output goes to `log`.
    pub fn spawn(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        args: &[&str],
        log: &Path,
    ) -> Process {
        Process::start(self.command(program).args(args), log)
    }

    /// Forbids UDP in both directions, as many guest networks do; TCP goes on.
    pub fn block_udp(&self) {
        self.run("nft", &["add", "table", "inet", "udpblock"]);
        for (hook, interface) in [("input", "iif"), ("output", "oif")] {
            let chain = format!("{{ type filter hook {hook} priority 0; }}");
            self.run("nft", &["add", "chain", "inet", "udpblock", hook, &chain]);
            let rule = [interface, "!=", "lo", "meta", "l4proto", "udp", "drop"];
            self.run("nft", &[&["add", "rule", "inet", "udpblock", hook][..], &rule].concat());
        }
    }

    /// Allows UDP again after [`Self::block_udp`].
    pub fn allow_udp(&self) {
        self.run("nft", &["delete", "table", "inet", "udpblock"]);
    }

    /// Drops everything on an interface in both directions while the link stays up, as behind a router that died.
    pub fn blackhole(&self, interface: &str) {
        let table = format!("hole_{interface}");
        self.run("nft", &["add", "table", "netdev", &table]);
        for hook in ["ingress", "egress"] {
            let chain = format!(
                "{{ type filter hook {hook} device \"{interface}\" priority -10; policy drop; }}"
            );
            self.run("nft", &["add", "chain", "netdev", &table, hook, &chain]);
        }
    }

    /// Runs `work` on a thread in here; the sockets that it opens stay in here.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = Path::new("/run/netns").join(&self.name);
        let namespace = platform::process::Namespace::open(&path).expect("the namespace is there");
        namespace.run(work).expect("a namespace can be entered")
    }

    fn etc(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
        let _ = std::fs::remove_dir_all(self.etc());
    }
}

/// Joins two namespaces by a veth pair and gives each end its addresses (`ip addr` notation, IPv4 or IPv6).
pub fn wire(a: (&Namespace, &str, &[&str]), b: (&Namespace, &str, &[&str])) {
    let (namespace_a, interface_a, addresses_a) = a;
    let (namespace_b, interface_b, addresses_b) = b;
    let veth = ["link", "add", interface_a, "netns", namespace_a.name(), "type", "veth"];
    command(
        "ip",
        &[&veth[..], &["peer", "name", interface_b, "netns", namespace_b.name()]].concat(),
    );
    for (namespace, interface, addresses) in
        [(namespace_a, interface_a, addresses_a), (namespace_b, interface_b, addresses_b)]
    {
        for address in addresses {
            let mut args = vec!["addr", "add", address, "dev", interface];
            if address.contains(':') {
                args.push("nodad");
            }
            namespace.run("ip", &args);
        }
        namespace.run("ip", &["link", "set", interface, "up"]);
    }
}

/// A switch in the middle: a namespace with a bridge to which [`Switch::plug`] joins hosts on one subnet.
#[derive(Debug)]
pub struct Switch {
    namespace: Namespace,
    ports: AtomicU32,
}

impl Switch {
    /// A switch without any host.
    pub fn new() -> Self {
        let namespace = Namespace::new("switch");
        namespace.run("ip", &["link", "add", "bridge0", "type", "bridge"]);
        namespace.run("ip", &["link", "set", "bridge0", "up"]);
        namespace.attempt("sysctl", &["-qw", "net.bridge.bridge-nf-call-iptables=0"]);
        Self { namespace, ports: AtomicU32::new(0) }
    }

    /// Joins a host by its interface `eth0` with these addresses.
    pub fn plug(&self, host: &Namespace, addresses: &[&str]) {
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        wire((host, "eth0", addresses), (&self.namespace, &port, &[]));
        self.namespace.run("ip", &["link", "set", &port, "master", "bridge0"]);
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
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

/// Looks again and again until `look` finds something; panics with `what` when the time is over.
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} for {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The program under test, built by the test command beside the test binaries.
///
/// `SHADOWMESH_BIN` names another one.
pub fn shadowmesh() -> PathBuf {
    if let Some(path) = std::env::var_os("SHADOWMESH_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a program knows its own path");
    // Binaries stand in the profile's folder, tests one below it.
    let candidates = own.ancestors().skip(1).take(2).map(|folder| folder.join("shadowmesh"));
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.expect("shadowmesh is missing: cargo build --workspace --bin shadowmesh")
}

/// A tool of another project below the tools folder, or on the path; panics with what to do when it is missing.
pub fn tool(name: &str) -> PathBuf {
    let folder = std::env::var_os("SHADOWMESH_TOOLS").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| {
            Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache")
        });
        cache.join("shadowmesh/tools")
    });
    let own = folder.join("bin").join(name);
    if own.exists() {
        return own;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.exists())
        .unwrap_or_else(|| panic!("{name} is missing: run `make tools`"))
}

fn command(program: &str, args: &[&str]) -> String {
    finish(Command::new(program).args(args))
}

fn finish(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

//! Hosts.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::{Process, finish, wait_for};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// What keeps a namespace alive: it ends with its standard input, and so with the program that holds the other end, however that ends.
const HOLDER: &str = "mount --bind \"$0\" /etc/resolv.conf && echo ready && exec cat";

/// A network namespace without a name on the machine, removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    label: String,
    holder: Child,
    folder: TempDir,
}

impl Namespace {
    /// Makes a namespace with its loopback up and duplicate address detection off; `label` helps to read logs.
    ///
    /// The namespace has an `/etc/resolv.conf` of its own, empty at first: see [`Self::resolv_conf`].
    pub fn new(label: &str) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let resolv_conf = folder.path().join("resolv.conf");
        std::fs::write(&resolv_conf, "").expect("a temporary file");
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", HOLDER]).arg(resolv_conf);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().expect("unshare is there: run `make tools`");
        let said = BufReader::new(holder.stdout.take().expect("it is piped")).lines().next();
        assert!(matches!(said, Some(Ok(_))), "namespaces take root: see `scripts/as-root`");
        let label = format!("{}-{number}-{label}", std::process::id());
        let namespace = Self { label, holder, folder };
        for setting in [
            "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
        ] {
            namespace.run("sysctl", &["-qw", setting]);
        }
        // Groups that a user namespace does not map cannot be named in it; root may ping in any case.
        namespace.attempt("sysctl", &["-qw", "net.ipv4.ping_group_range=0 2147483647"]);
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// What tells it from every other one on the machine.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A process in it, by which `ip` knows it.
    pub fn id(&self) -> String {
        self.holder.id().to_string()
    }

    /// The file that programs in here see as `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> PathBuf {
        self.folder.path().join("resolv.conf")
    }

    /// A path as programs in here see it, for who is outside.
    pub fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.id()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A command that will run in here.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.id(), "--"]).arg(program);
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

    /// Waits until a program in here takes TCP connections at a port.
    pub fn wait_until_listens(&self, port: u16, within: Duration) {
        let (what, at) = (format!("somebody to listen at port {port}"), format!(":{port}"));
        wait_for(&what, within, || {
            let listeners = self.run("ss", &["-Hltn", "sport", "=", &at]);
            (!listeners.is_empty()).then_some(())
        });
    }

    /// Forbids UDP in both directions, as many guest networks do; TCP goes on.
    pub fn block_udp(&self) {
        let chain = |hook, interface| {
            format!(
                "chain {hook} {{ type filter hook {hook} priority 0;
                {interface} != lo meta l4proto udp drop
                }}\n"
            )
        };
        let chains = [chain("input", "iif"), chain("output", "oif")].concat();
        self.nft(&format!("table inet udpblock {{\n{chains}}}"));
    }

    /// Lets nothing out but tunnels' own packets and what an nftables expression describes, `tcp dport 443` for example.
    pub fn confine(&self, allowed: &str) {
        self.nft(&format!(
            "table inet confined {{
                chain out {{
                    type filter hook output priority 0; policy drop;
                    oif lo accept
                    oifname \"shadowmesh*\" accept
                    meta l4proto icmpv6 accept
                    {allowed} accept
                }}
            }}"
        ));
    }

    /// Lets nothing in but what belongs to something that went out, as a firewall in front of a host does.
    pub fn shield(&self) {
        self.nft(
            "table inet shield {
                chain in {
                    type filter hook input priority 0;
                    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, packet-too-big } accept
                    iifname \"eth*\" ct state new drop
                }
            }",
        );
    }

    /// Allows UDP again after [`Self::block_udp`].
    pub fn allow_udp(&self) {
        self.run("nft", &["delete", "table", "inet", "udpblock"]);
    }

    /// Drops everything on an interface in both directions while the link stays up, as behind a router that died.
    pub fn blackhole(&self, interface: &str) {
        let chain = |hook| {
            format!(
                "chain {hook} {{ type filter hook {hook} device \"{interface}\" priority -10; policy drop; }}\n"
            )
        };
        let chains = [chain("ingress"), chain("egress")].concat();
        self.nft(&format!("table netdev hole_{interface} {{\n{chains}}}"));
    }

    /// Lets everything pass again after [`Self::blackhole`].
    pub fn end_blackhole(&self, interface: &str) {
        self.run("nft", &["delete", "table", "netdev", &format!("hole_{interface}")]);
    }

    /// Loads rules into the firewall.
    pub fn nft(&self, rules: &str) {
        let mut command = self.command("nft");
        let piped = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("nft is there: run `make tools`");
        child.stdin.take().expect("it is piped").write_all(rules.as_bytes()).expect("nft reads");
        let output = child.wait_with_output().expect("a child can be waited for");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nft: {error}\n{rules}");
    }

    /// How many packets a counter of the firewall's table `inet seen` has seen.
    pub fn count(&self, counter: &str) -> u64 {
        let listed = self.run("nft", &["list", "counter", "inet", "seen", counter]);
        let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|count| count.parse().ok()).expect("nft tells the count")
    }

    /// Takes an interface down, as when its cable is pulled, or up.
    pub fn set_link(&self, interface: &str, up: bool) {
        self.run("ip", &["link", "set", interface, if up { "up" } else { "down" }]);
    }

    /// Makes a gateway the way to everywhere.
    pub fn set_default_route(&self, gateway: &str) {
        self.run("ip", &["route", "replace", "default", "via", gateway]);
    }

    /// Runs `work` on a thread in here; the sockets that it opens stay in here.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()));
        let namespace = platform::process::Namespace::open(&path).expect("the namespace is there");
        namespace.run(work).expect("a namespace can be entered")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left in it keeps it alive until it ends.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

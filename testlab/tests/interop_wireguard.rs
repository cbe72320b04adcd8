//! Our plain WireGuard interface against other implementations, in real namespaces.
//!
//! Needs root, `wg`, `wg-quick`, `iperf3`, `ping`, wireguard-go and boringtun-cli.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use testlab::netns::{Namespace, Process, shadowmesh, tool, wait_for, wire};
use wireguard_proto::{
    Interface, InterfaceConfig, LoadLimits, PeerConfig, PrivateKey, PublicKey, Tai64N,
};

/// Long enough for one repeated initiation, with room for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

static COUNTER: AtomicU32 = AtomicU32::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    WireguardGo,
    Boringtun,
}

const OTHERS: [Kind; 2] = [Kind::WireguardGo, Kind::Boringtun];

/// One WireGuard interface in a namespace of its own.
struct Node {
    namespace: Namespace,
    interface: String,
    private: String,
    public: String,
    inner: String,
    inner6: String,
    process: Process,
    folder: tempfile::TempDir,
    _socket: SocketFile,
}

/// A control socket's file; a process that is killed leaves it behind.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Node {
    /// Starts an implementation in the foreground.
    fn start(kind: Kind, namespace: Namespace, number: u8) -> Self {
        Self::start_with(kind, namespace, number, &[])
    }

    fn start_with(
        kind: Kind,
        namespace: Namespace,
        number: u8,
        environment: &[(&str, &str)],
    ) -> Self {
        let interface = unique_interface();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = match kind {
            Kind::Ours => {
                let mut command = namespace.command(shadowmesh());
                command.args(["wireguard", "-f"]);
                command
            }
            Kind::WireguardGo => {
                let mut command = namespace.command(tool("wireguard-go"));
                command.arg("-f");
                command
            }
            Kind::Boringtun => {
                let mut command = namespace.command(tool("boringtun-cli"));
                command.args(["--disable-drop-privileges", "--disable-connected-udp", "-f"]);
                command
            }
        };
        command.arg(&interface).envs(environment.iter().copied());
        let process = Process::start(&mut command, &folder.path().join("log"));
        let socket = socket_of(&interface);
        wait_for("the control socket", PATIENCE, || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        let private = namespace.run("wg", &["genkey"]).trim().to_owned();
        std::fs::write(folder.path().join("key"), &private).expect("a temporary file");
        let key_file = folder.path().join("key").display().to_string();
        let public = {
            let script = format!("wg pubkey < {key_file}");
            namespace.run("sh", &["-c", &script]).trim().to_owned()
        };
        let node = Self {
            namespace,
            interface,
            private,
            public,
            inner: format!("10.77.0.{number}"),
            inner6: format!("fd77::{number}"),
            process,
            folder,
            _socket: SocketFile(socket),
        };
        node.wg(&["private-key", &key_file, "listen-port", "51820"]);
        node.address();
        node
    }

    /// Addresses and link state.
    fn address(&self) {
        for address in [format!("{}/24", self.inner), format!("{}/64", self.inner6)] {
            let mut args = vec!["addr", "add", &address, "dev", &self.interface];
            if address.contains(':') {
                args.push("nodad");
            }
            self.namespace.run("ip", &args);
        }
        self.namespace.run("ip", &["link", "set", &self.interface, "mtu", "1420", "up"]);
    }

    /// `wg set` on this interface.
    fn wg(&self, args: &[&str]) {
        self.namespace.run("wg", &[&["set", &self.interface], args].concat());
    }

    /// Adds `other` as a peer; without an endpoint only the other can begin.
    fn peer(&self, other: &Self, endpoint: Option<&str>) {
        let allowed = format!("{}/32,{}/128", other.inner, other.inner6);
        let mut args = vec!["peer", &other.public, "allowed-ips", &allowed];
        if let Some(endpoint) = endpoint {
            args.extend(["endpoint", endpoint]);
        }
        self.wg(&args);
    }

    fn ping(&self, other: &Self) {
        self.ping_address(&other.inner);
    }

    fn ping_address(&self, address: &str) {
        wait_for(&format!("an answer from {address}\n{}", self.state()), PATIENCE, || {
            let args = ["-c", "1", "-W", "1", "-n", address];
            self.namespace.attempt("ping", &args).status.success().then_some(())
        });
    }

    /// A field of the only peer as `wg show IF FIELD` prints it.
    fn show(&self, field: &str) -> Vec<String> {
        let out = self.namespace.run("wg", &["show", &self.interface, field]);
        out.split_whitespace().skip(1).map(str::to_owned).collect()
    }

    fn latest_handshake(&self) -> u64 {
        self.show("latest-handshakes")[0].parse().expect("seconds")
    }

    /// Bytes (received, sent).
    fn transfer(&self) -> (u64, u64) {
        let fields = self.show("transfer");
        (fields[0].parse().expect("bytes"), fields[1].parse().expect("bytes"))
    }

    fn state(&self) -> String {
        let shown = self.namespace.attempt("wg", &["show", &self.interface]);
        format!("{}{}", String::from_utf8_lossy(&shown.stdout), self.process.output())
    }
}

fn unique_interface() -> String {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("smw{:x}x{number}", std::process::id())
}

fn socket_of(interface: &str) -> PathBuf {
    PathBuf::from(format!("/var/run/wireguard/{interface}.sock"))
}

/// Two hosts on one wire, each with an interface; ours is the first.
fn pair(other: Kind) -> (Node, Node) {
    pair_with(other, &[])
}

fn pair_with(other: Kind, environment: &[(&str, &str)]) -> (Node, Node) {
    let (a, b) = hosts();
    let ours = Node::start_with(Kind::Ours, a, 1, environment);
    (ours, Node::start(other, b, 2))
}

fn hosts() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    wire(
        (&a, "eth0", &["192.0.2.1/24", "2001:db8::1/64"]),
        (&b, "eth0", &["192.0.2.2/24", "2001:db8::2/64"]),
    );
    (a, b)
}

const OURS_AT: &str = "192.0.2.1:51820";
const OTHER_AT: &str = "192.0.2.2:51820";

#[test]
fn we_begin_and_the_other_answers() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        other.peer(&ours, None);
        ours.peer(&other, Some(OTHER_AT));
        ours.ping(&other);
        ours.ping_address(&other.inner6);
        assert_eq!(other.show("endpoints")[0], OURS_AT, "{kind:?}");
    }
}

#[test]
fn the_other_begins_and_we_answer() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        ours.peer(&other, None);
        other.peer(&ours, Some("[2001:db8::1]:51820"));
        other.ping(&ours);
        other.ping_address(&ours.inner6);
        assert_eq!(ours.show("endpoints")[0], "[2001:db8::2]:51820", "{kind:?}");
    }
}

#[test]
fn wg_reads_handshake_time_and_counters() {
    let (ours, other) = pair(Kind::WireguardGo);
    other.peer(&ours, None);
    ours.peer(&other, Some(OTHER_AT));
    assert_eq!(ours.latest_handshake(), 0);
    let begun = std::time::SystemTime::now();
    ours.ping(&other);
    let handshake = std::time::UNIX_EPOCH + Duration::from_secs(ours.latest_handshake());
    let second = Duration::from_secs(1);
    assert!(handshake + second >= begun && handshake <= std::time::SystemTime::now() + second);
    let before = ours.transfer();
    let args = ["-c", "5", "-i", "0.2", "-s", "1000", "-n", &other.inner];
    ours.namespace.run("ping", &args);
    let after = ours.transfer();
    // Five packets of 1,028 bytes, padded to 1,040, with 32 bytes around each.
    assert_eq!((after.0 - before.0, after.1 - before.1), (5 * 1072, 5 * 1072));
}

#[test]
fn a_file_arrives_unchanged_in_both_directions() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        other.peer(&ours, None);
        ours.peer(&other, Some(OTHER_AT));
        ours.ping(&other);
        transfer_file(&ours, &other);
        transfer_file(&other, &ours);
    }
}

/// Sends 20 MB of random bytes over TCP and compares.
fn transfer_file(from: &Node, to: &Node) {
    let (sent, got) = (from.folder.path().join("sent"), to.folder.path().join("got"));
    let make = format!("head -c 20000000 /dev/urandom > {}", sent.display());
    from.namespace.run("sh", &["-c", &make]);
    let log = to.folder.path().join("receiving");
    let _ = std::fs::remove_file(&log);
    let at = format!("{}:4000", to.inner);
    let mut receiver = helper(to, "receiving_a_file", &format!("{} {at}", got.display()), &log);
    receiver.wait_for_output("listening", PATIENCE);
    let log = from.folder.path().join("sending");
    let sender = helper(from, "sending_a_file", &format!("{} {at}", sent.display()), &log);
    receiver.wait_for_output("test result: ok", PATIENCE);
    drop(sender);
    let read = |path| std::fs::read(path).expect("the file is there");
    assert!(read(&sent) == read(&got), "the bytes that were sent");
}

/// Runs one of the ignored tests below in a node's namespace.
fn helper(node: &Node, name: &str, argument: &str, log: &Path) -> Process {
    let myself = std::env::current_exe().expect("a test knows its own path");
    let mut command = node.namespace.command(myself);
    command.args(["--exact", name, "--ignored", "--nocapture"]).env("HELPER", argument);
    Process::start(&mut command, log)
}

fn helper_argument() -> (String, String) {
    let argument = std::env::var("HELPER").expect("set by the test that starts this one");
    let (first, second) = argument.split_once(' ').expect("two words");
    (first.to_owned(), second.to_owned())
}

#[test]
#[ignore = "runs inside a namespace on behalf of another test"]
fn receiving_a_file() {
    let (path, at) = helper_argument();
    let listener = TcpListener::bind(at).expect("the address is there");
    writeln!(std::io::stderr(), "listening").expect("the log is open");
    let (mut stream, _) = listener.accept().expect("a sender");
    let mut file = File::create(path).expect("a temporary file");
    std::io::copy(&mut stream, &mut file).expect("the whole file");
}

#[test]
#[ignore = "runs inside a namespace on behalf of another test"]
fn sending_a_file() {
    let (path, at) = helper_argument();
    let mut stream = TcpStream::connect(at).expect("a receiver");
    std::io::copy(&mut File::open(path).expect("the file"), &mut stream).expect("room");
}

#[test]
fn a_preshared_key_is_needed_by_both() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        let psk = ours.folder.path().join("psk");
        std::fs::write(&psk, ours.namespace.run("wg", &["genpsk"])).expect("a temporary file");
        let psk = psk.display().to_string();
        ours.peer(&other, Some(OTHER_AT));
        other.peer(&ours, None);
        ours.wg(&["peer", &other.public, "preshared-key", &psk]);
        ours.namespace.attempt("ping", &["-c", "1", "-W", "2", &other.inner]);
        assert_eq!(ours.latest_handshake(), 0, "{kind:?}: not without the key");
        // boringtun does not change peers.
        other.wg(&["peer", &ours.public, "remove"]);
        let allowed = format!("{}/32", ours.inner);
        other.wg(&["peer", &ours.public, "preshared-key", &psk, "allowed-ips", &allowed]);
        ours.ping(&other);
        assert_ne!(ours.latest_handshake(), 0);
    }
}

#[test]
fn a_session_is_renewed_under_traffic_without_loss() {
    for kind in OTHERS {
        let (ours, other) = pair_with(kind, &[("WG_REKEY_AFTER_BYTES", "100000")]);
        other.peer(&ours, None);
        ours.peer(&other, Some(OTHER_AT));
        ours.ping(&other);
        let first = ours.latest_handshake();
        let seen = other.latest_handshake();
        let args = ["-c", "400", "-i", "0.02", "-s", "1200", "-q", "-n", &other.inner];
        let out = ours.namespace.run("ping", &args);
        assert!(out.contains(" 0% packet loss"), "{kind:?}: {out}");
        assert!(ours.latest_handshake() >= first + 5, "{kind:?}: after REKEY_TIMEOUT");
        if kind == Kind::WireguardGo {
            assert!(other.latest_handshake() >= seen + 5, "the other end knows of it");
        }
    }
}

#[test]
fn a_restarted_other_is_found_again() {
    let (ours, other) = pair(Kind::WireguardGo);
    other.peer(&ours, None);
    ours.peer(&other, Some(OTHER_AT));
    ours.ping(&other);
    let Node { namespace, process, .. } = other;
    process.stop(PATIENCE);
    let other = Node::start(Kind::WireguardGo, namespace, 2);
    other.peer(&ours, None);
    ours.wg(&["peer", &other.public, "allowed-ips", "10.77.0.2/32", "endpoint", OTHER_AT]);
    ours.ping(&other);
}

#[test]
fn roaming_is_followed_in_both_directions() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        ours.peer(&other, Some(OTHER_AT));
        other.peer(&ours, Some(OURS_AT));
        ours.ping(&other);
        change_address(&other, "192.0.2.2/24", "192.0.2.22/24");
        other.ping(&ours);
        wait_for("the other's new address", PATIENCE, || {
            other.ping(&ours);
            (ours.show("endpoints")[0] == "192.0.2.22:51820").then_some(())
        });
        ours.ping(&other);
        change_address(&ours, "192.0.2.1/24", "192.0.2.11/24");
        wait_for("our new address", PATIENCE, || {
            ours.ping(&other);
            (other.show("endpoints")[0] == "192.0.2.11:51820").then_some(())
        });
    }
}

fn change_address(node: &Node, old: &str, new: &str) {
    node.namespace.run("ip", &["addr", "del", old, "dev", "eth0"]);
    node.namespace.run("ip", &["addr", "add", new, "dev", "eth0"]);
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let (a, b) = hosts();
    a.run("ip", &["addr", "add", "192.0.2.100/24", "dev", "eth0"]);
    let ours = Node::start(Kind::Ours, a, 1);
    let other = Node::start(Kind::WireguardGo, b, 2);
    ours.peer(&other, None);
    other.peer(&ours, Some("192.0.2.100:51820"));
    other.ping(&ours);
    ours.ping(&other);
    assert_eq!(other.show("endpoints")[0], "192.0.2.100:51820");
}

#[test]
fn under_load_we_ask_for_cookies_and_let_in_who_brings_one() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        ours.peer(&other, None);
        let flood = flood(&other, &ours.public, OURS_AT);
        wait_for("the flood", PATIENCE, || (received_datagrams(&ours) > 500).then_some(()));
        let capture = capture(&ours, "udp[8] == 3 and src port 51820 and not dst port 9");
        other.peer(&ours, Some(OURS_AT));
        wait_for("a handshake with a cookie", PATIENCE, || {
            other.namespace.attempt("ping", &["-c", "1", "-W", "1", &ours.inner]);
            (other.latest_handshake() != 0).then_some(())
        });
        assert!(
            capture.output().contains("192.0.2.2.51820: UDP"),
            "{kind:?} was sent a cookie:\n{}",
            capture.output()
        );
        flood.kill();
    }
}

#[test]
fn asked_for_a_cookie_we_bring_one() {
    let (ours, other) = pair(Kind::Boringtun);
    other.peer(&ours, None);
    let flood = flood(&ours, &other.public, OTHER_AT);
    wait_for("the flood", PATIENCE, || (received_datagrams(&other) > 500).then_some(()));
    let capture = capture(&other, "udp[8] == 3 and src port 51820 and not dst port 9");
    ours.peer(&other, Some(OTHER_AT));
    wait_for("a handshake with a cookie", PATIENCE, || {
        ours.namespace.attempt("ping", &["-c", "1", "-W", "1", &other.inner]);
        (ours.latest_handshake() != 0).then_some(())
    });
    assert!(
        capture.output().contains("192.0.2.1.51820: UDP"),
        "we were sent a cookie:\n{}",
        capture.output()
    );
    flood.kill();
}

/// A capture that is ready, of what `filter` lets through.
fn capture(node: &Node, filter: &str) -> Process {
    let log = node.folder.path().join("capture");
    let args = ["-i", "eth0", "-n", "-l", "--immediate-mode", filter];
    let mut capture = node.namespace.spawn("tcpdump", &args, &log);
    capture.wait_for_output("listening on", PATIENCE);
    capture
}

fn received_datagrams(node: &Node) -> u64 {
    let out = node.namespace.run("cat", &["/proc/net/snmp"]);
    let line = out.lines().filter(|line| line.starts_with("Udp:")).nth(1).expect("counters");
    line.split_whitespace().nth(1).expect("InDatagrams").parse().expect("a number")
}

/// Well-made initiations of nobody, from the node's namespace, until it is killed.
fn flood(from: &Node, public: &str, to: &str) -> Process {
    helper(from, "flooding", &format!("{public} {to}"), &from.folder.path().join("flood"))
}

#[test]
#[ignore = "runs inside a namespace on behalf of another test"]
fn flooding() {
    let (key, at) = helper_argument();
    let key = data_encoding::BASE64.decode(key.as_bytes()).expect("base64");
    let peer = PublicKey::from_bytes(key.try_into().expect("32 bytes"));
    let at: SocketAddr = at.parse().expect("an address");
    let socket = UdpSocket::bind("0.0.0.0:9").expect("port 9 is free");
    let now = Instant::now();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let messages: Vec<Vec<u8>> = (0..200)
        .map(|_| {
            let config = InterfaceConfig {
                private_key: PrivateKey::generate(&mut rng),
                rekey_after_bytes: None,
                limits: LoadLimits::default(),
                last_timestamp: Tai64N::default(),
                wall: Duration::from_secs(1_700_000_000),
            };
            let mut interface = Interface::new(config, now);
            let config = PeerConfig { endpoint: Some(at), ..PeerConfig::default() };
            interface.add_peer(peer, config, now);
            interface.initiate(&peer, &mut rng, now);
            interface.poll_transmit().expect("an initiation").message
        })
        .collect();
    for message in messages.iter().cycle() {
        let _ = socket.send_to(message, at);
        // A pace, not a wait: a thousand a second.
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn configuration_survives_showconf_and_syncconf() {
    let (ours, other) = pair(Kind::WireguardGo);
    other.peer(&ours, None);
    ours.peer(&other, Some(OTHER_AT));
    ours.wg(&["fwmark", "0x42", "peer", &other.public, "persistent-keepalive", "21"]);
    ours.ping(&other);
    let shown = ours.namespace.run("wg", &["showconf", &ours.interface]);
    for expected in [
        "ListenPort = 51820",
        "FwMark = 0x42",
        &format!("PrivateKey = {}", ours.private),
        &format!("PublicKey = {}", other.public),
        "Endpoint = 192.0.2.2:51820",
        "PersistentKeepalive = 21",
    ] {
        assert!(shown.contains(expected), "{expected} in\n{shown}");
    }
    let handshake = ours.latest_handshake();
    let file = ours.folder.path().join("conf");
    std::fs::write(&file, &shown).expect("a temporary file");
    ours.namespace.run("wg", &["syncconf", &ours.interface, &file.display().to_string()]);
    assert_eq!(ours.latest_handshake(), handshake, "the session goes on");
    assert_eq!(ours.namespace.run("wg", &["showconf", &ours.interface]), shown);

    let without = shown.split("[Peer]").next().expect("a first section");
    std::fs::write(&file, without).expect("a temporary file");
    ours.namespace.run("wg", &["syncconf", &ours.interface, &file.display().to_string()]);
    assert_eq!(ours.namespace.run("wg", &["show", &ours.interface, "peers"]).trim(), "");
}

#[test]
fn a_taken_port_is_an_error_of_wg_set() {
    let (ours, _other) = pair(Kind::WireguardGo);
    let holder = flood(&ours, &ours.public, "192.0.2.2:1");
    wait_for("the port to be taken", PATIENCE, || {
        let listed = ours.namespace.run("cat", &["/proc/net/udp"]);
        listed.contains("00000000:0009 ").then_some(())
    });
    let out = ours.namespace.attempt("wg", &["set", &ours.interface, "listen-port", "9"]);
    assert!(!out.status.success(), "the port is taken");
    assert_eq!(ours.namespace.run("wg", &["show", &ours.interface, "listen-port"]).trim(), "51820");
    holder.kill();
}

#[test]
fn wg_quick_brings_it_up_and_down() {
    let (a, b) = hosts();
    let other = Node::start(Kind::WireguardGo, b, 2);
    let interface = unique_interface();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let private = a.run("wg", &["genkey"]).trim().to_owned();
    let public = a.run("sh", &["-c", &format!("echo {private} | wg pubkey")]).trim().to_owned();
    let conf = folder.path().join(format!("{interface}.conf"));
    let text = format!(
        "[Interface]\nPrivateKey = {private}\nListenPort = 51820\nAddress = 10.77.0.1/24\n\
         MTU = 1400\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.2/32\nEndpoint = {OTHER_AT}\n",
        other.public
    );
    std::fs::write(&conf, text).expect("a temporary file");
    other.wg(&["peer", &public, "allowed-ips", "10.77.0.1/32"]);

    let wrapper = folder.path().join("implementation");
    let script = format!("#!/bin/sh\nexec {} wireguard \"$@\"\n", shadowmesh().display());
    std::fs::write(&wrapper, script).expect("a temporary file");
    a.run("chmod", &["+x", &wrapper.display().to_string()]);
    let quick = |verb: &str| {
        let mut command = a.command("wg-quick");
        command.args([verb, &conf.display().to_string()]);
        command.env("WG_QUICK_USERSPACE_IMPLEMENTATION", &wrapper);
        let out = command.output().expect("wg-quick runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    quick("up");
    let link = a.run("ip", &["link", "show", &interface]);
    assert!(link.contains("mtu 1400"), "{link}");
    wait_for("an answer", PATIENCE, || {
        let args = ["-c", "1", "-W", "1", "10.77.0.2"];
        a.attempt("ping", &args).status.success().then_some(())
    });
    quick("down");
    let socket = socket_of(&interface);
    wait_for("the end of the process", PATIENCE, || (!socket.exists()).then_some(()));
}

#[test]
fn an_interface_moved_to_another_namespace_keeps_its_sockets() {
    let (ours, other) = pair(Kind::WireguardGo);
    other.peer(&ours, None);
    ours.peer(&other, Some(OTHER_AT));
    let inside = Namespace::new("inside");
    let args = ["link", "set", &ours.interface, "netns", &inside.id()];
    ours.namespace.run("ip", &args);
    inside.run("ip", &["addr", "add", "10.77.0.1/24", "dev", &ours.interface]);
    inside.run("ip", &["link", "set", &ours.interface, "mtu", "1300", "up"]);
    wait_for("an answer", PATIENCE, || {
        let args = ["-c", "1", "-W", "1", &other.inner];
        inside.attempt("ping", &args).status.success().then_some(())
    });
    // Padding keeps to the MTU, which is seen where the interface is now: a packet of 1,300
    // bytes is not padded to 1,312.
    wait_for("the new MTU", PATIENCE, || {
        let before = ours.transfer();
        inside.attempt("ping", &["-c", "1", "-W", "1", "-s", "1272", &other.inner]);
        (ours.transfer().1 - before.1 == 1332).then_some(())
    });
}

#[test]
fn it_ends_with_its_interface_its_socket_or_a_signal() {
    for (what, end) in
        [("the interface", "ip link del IF"), ("the socket", "rm /var/run/wireguard/IF.sock")]
    {
        let (a, _b) = hosts();
        let ours = Node::start(Kind::Ours, a, 1);
        let command = end.replace("IF", &ours.interface);
        ours.namespace.run("sh", &["-c", &command]);
        let socket = socket_of(&ours.interface);
        let gone = || !socket.exists();
        wait_for(what, PATIENCE, || gone().then_some(()));
        wait_for("the interface to be gone", PATIENCE, || {
            let shown = ours.namespace.attempt("ip", &["link", "show", &ours.interface]);
            (!shown.status.success()).then_some(())
        });
    }
    let (a, _b) = hosts();
    let ours = Node::start(Kind::Ours, a, 1);
    let socket = socket_of(&ours.interface);
    assert!(ours.process.stop(PATIENCE).success());
    assert!(!socket.exists());
}

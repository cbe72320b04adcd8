//! What is measured: two hosts and what joins them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use testlab::netns::{Namespace, Process, shadowmesh, tool, wait_for, wire};
use testlab::network::{Device, Lab, Relay, server_address};
use testlab::wireguard::End;

const PATIENCE: Duration = Duration::from_secs(30);
/// The MTU of a tunnel where nothing else is said: what WireGuard leaves of 1500 bytes over IPv6.
pub(crate) const MTU: u16 = 1420;

/// Two hosts, and the address at which the first reaches the second.
pub(crate) struct Link<'a> {
    pub(crate) a: &'a Namespace,
    pub(crate) b: &'a Namespace,
    pub(crate) address: &'a str,
}

/// What is done with a link while it stands.
pub(crate) type Measure<'m> = dyn FnMut(&Link<'_>) + 'm;

/// A tunnel between two hosts that stands for as long as it is measured.
#[derive(Clone, Copy)]
pub(crate) struct Tunnel {
    pub(crate) name: &'static str,
    start: fn(mtu: u16, &mut Measure<'_>),
}

impl Tunnel {
    /// The wire itself: the measure of the machine.
    pub(crate) const BARE: Self = Self { name: "the bare wire", start: bare };
    /// Everything but the cipher: what a tunnel can reach on this machine.
    pub(crate) const LIMIT: Self = Self { name: "a tunnel without a cipher", start: limit };
    pub(crate) const OURS: Self = Self {
        name: "shadowmesh wireguard",
        start: |mtu, measure| wireguard(&shadowmesh(), &["wireguard", "-f"], mtu, measure),
    };
    pub(crate) const WIREGUARD_GO: Self = Self {
        name: "wireguard-go 2026-05-22",
        start: |mtu, measure| wireguard(&tool("wireguard-go"), &["-f"], mtu, measure),
    };
    pub(crate) const BORINGTUN: Self = Self {
        name: "boringtun-cli 0.7.1",
        start: |mtu, measure| wireguard(&tool("boringtun-cli"), &ALONE, mtu, measure),
    };
    pub(crate) const NEBULA: Self = Self { name: "nebula 1.6.1", start: nebula };
    pub(crate) const GOTATUN: Self = Self {
        name: "gotatun-cli 0.10.2",
        start: |mtu, measure| wireguard(&tool("gotatun"), &ALONE, mtu, measure),
    };

    /// Makes the tunnel with an inner MTU, and measures it.
    pub(crate) fn with(&self, mtu: u16, measure: &mut Measure<'_>) {
        (self.start)(mtu, measure);
    }
}

/// boringtun and what comes from it, in the foreground and with their privileges.
const ALONE: [&str; 2] = ["--disable-drop-privileges", "-f"];

/// Two members of a network.
pub(crate) struct Members {
    lab: Lab,
    a: Device,
    b: Device,
    /// Who passes on between them, beside the server's relay.
    _between: Between,
}

/// Who passes on between two members.
#[derive(Default)]
struct Between {
    _peer_relay: Option<Device>,
    _relay: Option<Relay>,
}

impl Members {
    /// Two members with a direct path; `up` is what the first starts with.
    pub(crate) fn new(up: &[&str]) -> Self {
        let mut lab = Lab::new();
        let a = lab.host("a");
        Self::joined(lab, a, up, "direct")
    }

    /// Two members of which one has no UDP, and a relay; `serve` is what its server starts with.
    pub(crate) fn through_relay(serve: &[&str]) -> Self {
        let mut lab = with_server(serve);
        let a = lab.host("a");
        a.namespace().block_udp();
        Self::joined(lab, a, &[], "relay")
    }

    /// Two members without UDP that have no relay in common, and the two linked relays that they have.
    pub(crate) fn through_two_relays() -> Self {
        let mut lab = with_server(&[]);
        let second = lab.relay("second");
        let (a, b) = (lab.device("a"), lab.device("b"));
        for end in [&a, &b] {
            end.namespace().block_udp();
            end.wait_for_relays(2);
        }
        for (end, relay) in [(&a, &*server_address().to_string()), (&b, second.address())] {
            end.namespace().confine(&format!("ip daddr {relay} meta l4proto tcp"));
        }
        a.wait_until_reaches(&b.addresses()[0], PATIENCE);
        Self { lab, a, b, _between: Between { _relay: Some(second), ..Between::default() } }
    }

    /// Has the network hide the lengths of messages.
    pub(crate) fn padded(self) -> Self {
        self.lab.administer(&["network", "set", "--padding", "buckets"]);
        self
    }

    fn joined(mut lab: Lab, mut a: Device, up: &[&str], path: &str) -> Self {
        let b = lab.device("b");
        let invite = lab.invite(&[]);
        a.up(&[up, &[&invite]].concat());
        // From the second, which has a TUN interface and so something to send in any case.
        b.wait_for_path(&a, path, PATIENCE);
        Self { lab, a, b, _between: Between::default() }
    }

    /// Two members that get no datagrams to each other, and a third one that passes them on.
    pub(crate) fn through_peer() -> Self {
        let mut lab = Lab::with_frames_only();
        lab.administer(&["network", "set", "--peer-relay", "gateways"]);
        let mut gateway = lab.host("gateway");
        gateway.up(&[&lab.invite(&["--group", "gateways"])]);
        Self::apart(lab, "peer-relay", Some(gateway))
    }

    /// Two members that get no datagrams to each other, which the relay passes on.
    pub(crate) fn through_relay_by_udp() -> Self {
        Self::apart(Lab::new(), "udp-relay", None)
    }

    fn apart(mut lab: Lab, path: &str, peer_relay: Option<Device>) -> Self {
        let (mut a, mut b) = (lab.host("a"), lab.host("b"));
        let to = b.underlay_address();
        a.namespace().nft(&format!(
            "table inet apart {{\nchain out {{ type filter hook output priority 0; ip daddr {to} drop; }}\n}}"
        ));
        for end in [&mut a, &mut b] {
            end.up(&[&lab.invite(&[])]);
        }
        a.wait_for_path(&b, path, PATIENCE);
        b.wait_for_path(&a, path, PATIENCE);
        Self { lab, a, b, _between: Between { _peer_relay: peer_relay, ..Between::default() } }
    }

    /// Two members of which one has no UDP, and the other listens, as `listen` says besides.
    pub(crate) fn over_stream(listen: &[&str]) -> Self {
        let mut lab = Lab::new();
        let (mut a, mut b) = (lab.host("a"), lab.host("b"));
        a.namespace().block_udp();
        b.up(&[&["--listen", "0.0.0.0:8444"], listen, &[&lab.invite(&[])]].concat());
        a.up(&[&lab.invite(&[])]);
        a.wait_for_path(&b, "stream", PATIENCE);
        b.wait_for_path(&a, "stream", PATIENCE);
        Self { lab, a, b, _between: Between::default() }
    }

    pub(crate) fn with(&self, measure: &mut Measure<'_>) {
        let address = self.b.addresses().swap_remove(0);
        self.at(&address, measure);
    }

    /// Measures what the first reaches at another address.
    pub(crate) fn at(&self, address: &str, measure: &mut Measure<'_>) {
        measure(&Link { a: self.a.namespace(), b: self.b.namespace(), address });
    }
}

/// A network whose server takes streams over TLS, unless `serve` says otherwise.
fn with_server(serve: &[&str]) -> Lab {
    let mut lab = Lab::without_server();
    let address = server_address().to_string();
    lab.start_server_with(&[&["--listen", "0.0.0.0:8443", "--host", &address], serve].concat());
    lab
}

fn bare(mtu: u16, measure: &mut Measure<'_>) {
    let [a, b] = hosts(mtu);
    measure(&Link { a: &a, b: &b, address: "192.0.2.2" });
}

/// Two hosts on a wire that carries what a tunnel with this MTU makes of a packet.
fn hosts(mtu: u16) -> [Namespace; 2] {
    let [a, b] = ["a", "b"].map(Namespace::new);
    wire((&a, "eth0", &["192.0.2.1/24"]), (&b, "eth0", &["192.0.2.2/24"]));
    let mtu = 1500.max(mtu + 80).to_string();
    for host in [&a, &b] {
        host.run("ip", &["link", "set", "eth0", "mtu", &mtu]);
    }
    [a, b]
}

/// A plain WireGuard tunnel, both ends by this program.
fn wireguard(program: &Path, args: &[&str], mtu: u16, measure: &mut Measure<'_>) {
    let [a, b] = hosts(mtu).map(|host| End::start(program, args, host));
    a.configure("10.77.0.1/24", (&b, "192.0.2.2", "10.77.0.0/24"));
    b.configure("10.77.0.2/24", (&a, "192.0.2.1", "10.77.0.0/24"));
    for end in [&a, &b] {
        set_mtu(end.namespace(), end.interface(), mtu);
    }
    ready([a.namespace(), b.namespace()], measure);
}

fn set_mtu(host: &Namespace, interface: &str, mtu: u16) {
    host.run("ip", &["link", "set", interface, "mtu", &mtu.to_string(), "up"]);
}

/// Measures a tunnel whose second end is 10.77.0.2, once it works.
fn ready([a, b]: [&Namespace; 2], measure: &mut Measure<'_>) {
    wait_for("an answer through the tunnel", PATIENCE, || {
        let ping = a.attempt("ping", &["-c", "1", "-W", "1", "10.77.0.2"]);
        ping.status.success().then_some(())
    });
    measure(&Link { a, b, address: "10.77.0.2" });
}

fn limit(mtu: u16, measure: &mut Measure<'_>) {
    let program = std::env::current_exe().expect("a program knows its path");
    let program = program.with_file_name("limit");
    let (hosts, folder) = (hosts(mtu), tempfile::tempdir().expect("a temporary folder"));
    let start = |host: &Namespace, own: u8, other: u8| {
        let addresses = [own, other].map(|end| format!("192.0.2.{end}:51820"));
        let args = ["limit0", &addresses[0], &addresses[1]];
        let process = host.spawn(&program, &args, &folder.path().join(own.to_string()));
        wait_for("the interface", PATIENCE, || {
            host.attempt("ip", &["link", "show", "limit0"]).status.success().then_some(())
        });
        host.run("ip", &["addr", "add", &format!("10.77.0.{own}/24"), "dev", "limit0"]);
        set_mtu(host, "limit0", mtu);
        process
    };
    let _ends = [start(&hosts[0], 1, 2), start(&hosts[1], 2, 1)];
    ready([&hosts[0], &hosts[1]], measure);
}

fn nebula(mtu: u16, measure: &mut Measure<'_>) {
    let (hosts, folder) = (hosts(mtu), tempfile::tempdir().expect("a temporary folder"));
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (ca, ca_key) = (path("ca.crt"), path("ca.key"));
    let certify = |args: &[&str]| hosts[0].run("nebula-cert", args);
    certify(&["ca", "-name", "lab", "-out-crt", &ca, "-out-key", &ca_key]);
    let start = |host: &Namespace, own: u8, other: u8| -> Process {
        let (name, address) = (format!("host{own}"), format!("10.77.0.{own}/24"));
        let (crt, key) = (path(&format!("{name}.crt")), path(&format!("{name}.key")));
        let who = ["sign", "-name", &name, "-ip", &address, "-ca-crt", &ca, "-ca-key", &ca_key];
        certify(&[&who[..], &["-out-crt", &crt, "-out-key", &key]].concat());
        let any = serde_json::json!([{ "port": "any", "proto": "any", "host": "any" }]);
        // YAML is a superset of JSON.
        let config = serde_json::json!({
            "pki": { "ca": ca, "cert": crt, "key": key },
            "static_host_map": { format!("10.77.0.{other}"): [format!("192.0.2.{other}:4242")] },
            "lighthouse": { "am_lighthouse": false },
            "listen": { "host": "0.0.0.0", "port": 4242, "batch": 64 },
            "cipher": "chachapoly",
            "tun": { "dev": "nebula1", "mtu": mtu },
            "firewall": { "outbound": any, "inbound": any },
        });
        let file = PathBuf::from(path(&format!("{name}.yml")));
        std::fs::write(&file, config.to_string()).expect("a temporary file");
        let args = ["-config", &file.display().to_string()];
        host.spawn("nebula", &args, &folder.path().join(format!("{name}.log")))
    };
    let _ends = [start(&hosts[0], 1, 2), start(&hosts[1], 2, 1)];
    ready([&hosts[0], &hosts[1]], measure);
}

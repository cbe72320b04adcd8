//! What comes out of a tunnel, packet by packet, with the host's offloads on and off.

use testlab::netns::{Namespace, shadowmesh, wait_for, wire};
use testlab::wireguard::End;

use crate::PATIENCE;

/// Answers with what it gets, over TCP.
const ECHO: &str = "
import socket
server = socket.create_server(('::', 9000), family=socket.AF_INET6, dualstack_ipv6=True)
print('ready', flush=True)
while True:
    stream, _ = server.accept()
    while data := stream.recv(65536):
        stream.sendall(data)
";

/// Sends four megabytes there and back over TCP, and super-packets of datagrams that nobody answers,
/// not more at once than the queue of an interface holds.
const TALK: &str = "
import os, socket, sys, threading, time
sent = os.urandom(4_000_001)
stream = socket.create_connection((sys.argv[1], 9000), timeout=60)
writer = threading.Thread(target=stream.sendall, args=(sent,))
writer.start()
received = bytearray()
while len(received) < len(sent):
    received += stream.recv(65536)
writer.join()
assert received == sent
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
datagrams = socket.socket(family, socket.SOCK_DGRAM)
SOL_UDP, UDP_SEGMENT = 17, 103
for size in (1200, 1201, 333):
    datagrams.setsockopt(SOL_UDP, UDP_SEGMENT, size)
    for _ in range(20):
        datagrams.sendto(os.urandom(size * 12 + 77), (sys.argv[1], 9001))
        time.sleep(0.005)
";
/// What it sends over both IP versions: three sizes, each 20 times, twelve full ones and a rest.
const DATAGRAMS: usize = 2 * 3 * 20 * 13;

/// `a` and `b` have a tunnel, `c` stands behind `b` on a wire that leaves nothing to a network card.
struct Chain {
    a: End,
    _b: End,
    c: Namespace,
}

impl Chain {
    fn new() -> Self {
        let [a, b, c] = ["a", "b", "c"].map(Namespace::new);
        wire((&a, "eth0", &["192.0.2.1/24"]), (&b, "eth0", &["192.0.2.2/24"]));
        let at_c = (&c, "eth0", &["10.88.0.2/24", "fd88::2/64"][..]);
        wire((&b, "eth1", &["10.88.0.1/24", "fd88::1/64"]), at_c);
        without_offloads(&b, "eth1");
        without_offloads(&c, "eth0");
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            b.run("sysctl", &["-qw", setting]);
        }
        let ours = shadowmesh();
        let [a, b] = [a, b].map(|host| End::start(&ours, &["wireguard", "-f"], host));
        a.configure("10.77.0.1/24", (&b, "192.0.2.2", "0.0.0.0/0,::/0"));
        b.configure("10.77.0.2/24", (&a, "192.0.2.1", "10.77.0.1/32,fd77::1/128"));
        a.add_address("fd77::1/64");
        b.add_address("fd77::2/64");
        for (namespace, prefix, via) in [
            (a.namespace(), "10.88.0.0/24", ["dev", a.interface()]),
            (a.namespace(), "fd88::/64", ["dev", a.interface()]),
            (&c, "10.77.0.0/24", ["via", "10.88.0.1"]),
            (&c, "fd77::/64", ["via", "fd88::1"]),
        ] {
            namespace.run("ip", &[&["route", "add", prefix], &via[..]].concat());
        }
        a.wait_until_reaches("10.88.0.2", PATIENCE);
        a.wait_until_reaches("fd88::2", PATIENCE);
        Self { a, _b: b, c }
    }
}

/// The host splits, and sums up, everything by itself.
fn without_offloads(namespace: &Namespace, interface: &str) {
    let off = ["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
    namespace.run("ethtool", &off);
}

#[test]
fn every_packet_that_left_a_tunnel_has_good_checksums_with_offloads_and_without() {
    let chain = Chain::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut echo = chain.c.spawn("python3", &["-c", ECHO], &folder.path().join("echo"));
    echo.wait_for_output("ready", PATIENCE);
    for offloads in [true, false] {
        if !offloads {
            without_offloads(chain.a.namespace(), chain.a.interface());
        }
        let file = folder.path().join(format!("capture{offloads}")).display().to_string();
        let args = ["-i", "eth0", "-s", "0", "-U", "-B", "65536", "-w", &file];
        let log = folder.path().join(format!("tcpdump{offloads}"));
        let mut capture = chain.c.spawn("tcpdump", &args, &log);
        capture.wait_for_output("listening on", PATIENCE);
        for address in ["10.88.0.2", "fd88::2"] {
            chain.a.namespace().run("python3", &["-c", TALK, address]);
        }
        let packets = wait_for("the datagrams with good checksums", PATIENCE, || {
            let packets = chain.c.attempt("tcpdump", &["-nn", "-vv", "-r", &file]).stdout;
            let packets = String::from_utf8_lossy(&packets).into_owned();
            (packets.matches("[udp sum ok]").count() == DATAGRAMS).then_some(packets)
        });
        capture.stop(PATIENCE);
        let count = |text: &str| packets.matches(text).count();
        assert!(count("(correct)") > 4 * 4_000_000 / 1_400, "two families, there and back");
        assert_eq!((count("incorrect"), count("bad udp cksum"), count("bad cksum")), (0, 0, 0));
    }
    for counter in ["TcpInErrs", "TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors"] {
        for namespace in [chain.a.namespace(), &chain.c] {
            let counters = namespace.run("nstat", &["-asz", counter]);
            let value = counters.lines().find_map(|line| line.strip_prefix(counter));
            let value = value.and_then(|line| line.split_whitespace().next());
            assert_eq!(value.unwrap_or("0"), "0", "{counters}");
        }
    }
}

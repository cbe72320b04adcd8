//! Bulk traffic through a relay, and between the relay and the direct path.

use std::path::Path;
use std::time::{Duration, Instant};

use testlab::netns::{Process, wait_for};
use testlab::network::{Device, Lab};

use crate::{MEGABYTE, PATIENCE, digest, file_of_noise, web_server};

/// How long a transfer may take on a machine that is busy with other tests.
const TRANSFER: Duration = Duration::from_secs(120);
/// A dead path is given up after 2 s; then TCP, which has doubled its timeout meanwhile, tries again.
const STALL: Duration = Duration::from_secs(8);

#[test]
fn without_udp_a_file_arrives_whole_over_ipv6_and_ipv4_beside_pings() {
    let mut lab = Lab::new();
    let alice = lab.host("alice");
    alice.namespace().block_udp();
    let bob = files_arrive_over("relay", &mut lab, alice);
    // What stands in a queue for long is thinned out, which is all that is lost.
    let (repeated, bound) =
        (counter(&bob, "TcpRetransSegs"), segments(2 * megabytes() * MEGABYTE) / 100);
    assert!(repeated <= bound, "{repeated} sent again, of {bound}");
}

#[test]
fn over_a_clean_wire_a_file_arrives_whole_and_nothing_of_it_is_lost() {
    let mut lab = Lab::new();
    let alice = lab.host("alice");
    let bob = files_arrive_over("direct", &mut lab, alice);
    // What a sender repeats only because the machine was busy was there already, and is told so (RFC 2883).
    let (repeated, needless) =
        (counter(&bob, "TcpRetransSegs"), counter(&bob, "TcpExtTCPDSACKRecvSegs"));
    assert!(repeated <= needless, "{repeated} sent again, {needless} of them in vain");
}

#[test]
fn what_a_device_without_an_interface_sends_arrives_whole_on_either_path() {
    let mut lab = Lab::new();
    let bob = lab.device("bob");
    for (name, path) in [("near", "direct"), ("far", "relay")] {
        let mut device = lab.host(name);
        if path == "relay" {
            device.namespace().block_udp();
        }
        let service = "8000=127.0.0.1:8000";
        device.up(&["--mode", "userspace", "--publish", service, &lab.invite(&[])]);
        bob.wait_for_path(&device, path, PATIENCE);

        let folder = tempfile::tempdir().expect("a temporary folder");
        let sent = file_of_noise(folder.path(), megabytes() * MEGABYTE);
        let _server = web_server(device.namespace(), folder.path());
        for family in ["-6", "-4"] {
            let mut fetching = Fetch::start(&bob, &device, &[family], folder.path());
            assert_eq!(fetching.finish(), sent);
        }
    }
    assert_eq!(counter(&bob, "TcpInErrs"), 0);
}

#[test]
fn on_a_slow_line_pings_do_not_wait_behind_what_the_stream_has_taken() {
    let mut lab = Lab::new();
    let bob = lab.device("bob");
    let mut alice = lab.host("alice");
    alice.namespace().block_udp();
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_path(&bob, "relay", PATIENCE);
    // The line itself keeps 20 ms at most; a super-packet takes it 120 ms.
    let line = ["root", "tbf", "rate", "4mbit", "burst", "16kb", "latency", "20ms"];
    alice.namespace().run("tc", &[&["qdisc", "add", "dev", "eth0"], &line[..]].concat());

    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("iperf");
    let mut server = bob.namespace().spawn("iperf3", &["-s", "-1", "--forceflush"], &log);
    server.wait_for_output("Server listening", PATIENCE);
    let address = bob.addresses().swap_remove(0);
    let upload = ["-c", &address, "-t", "6", "-P", "8"];
    let mut upload = alice.namespace().spawn("iperf3", &upload, &folder.path().join("upload"));
    upload.wait_for_output("connected", PATIENCE);
    let ping = ["-n", "-q", "-c", "40", "-i", "0.1", "-W", "5", &address];
    let pings = alice.namespace().run("ping", &ping);
    let mean = pings.split('/').nth(4).and_then(|text| text.parse::<f64>().ok());
    assert!(mean.expect("ping prints the mean") < 300.0, "{pings}");
}

#[test]
fn a_flow_that_changes_paths_repeats_no_more_than_was_in_flight() {
    let mut lab = Lab::new();
    let (alice, bob) = (lab.device("alice"), lab.device("bob"));
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent = file_of_noise(folder.path(), 300 * MEGABYTE);
    let _server = web_server(bob.namespace(), folder.path());
    let mut fetching = Fetch::start(&alice, &bob, &["--limit-rate", "25M"], folder.path());
    let in_flight = in_flight(&bob, &fetching);
    let mut watch = Watch::new(&bob, &alice);
    alice.namespace().block_udp();
    bob.wait_for_path(&alice, "relay", PATIENCE);
    fetching.advance(20 * MEGABYTE);
    watch.assert_at_most(in_flight + A_FEW, "from the direct path to the relay");

    fetching.advance(50 * MEGABYTE);
    // A burst may find a queue full while the machine is busy with other tests.
    watch.assert_at_most(segments(50 * MEGABYTE) / 50, "on the relay");

    alice.namespace().allow_udp();
    bob.wait_for_path(&alice, "direct", PATIENCE);
    fetching.advance(20 * MEGABYTE);
    watch.assert_at_most(in_flight + A_FEW, "from the relay to the direct path");

    assert_eq!(fetching.finish(), sent);
    assert_eq!(counter(&alice, "TcpInErrs"), 0);
}

/// Segments of a few super-packets: what a full queue may have dropped.
const A_FEW: u64 = 4 * 50;

/// As how many segments so many bytes cross the network.
fn segments(bytes: usize) -> u64 {
    bytes as u64 / 1_208
}

/// How many segments a web server may have sent that nobody has acknowledged: the largest congestion window
/// of a while, since some senders close theirs for a moment.
fn in_flight(server: &Device, fetching: &Fetch) -> u64 {
    let window = || {
        fetching.advance(2 * MEGABYTE);
        let filter = ["-tinOH", "state", "established", "sport", "=", ":8000"];
        let sockets = server.namespace().run("ss", &filter);
        let field = sockets.split_whitespace().find_map(|field| field.strip_prefix("cwnd:"));
        field.and_then(|count| count.parse().ok()).expect("ss tells the window")
    };
    std::iter::repeat_with(window).take(8).max().unwrap_or_default()
}

/// Looks at what a change of paths does to a TCP flow.
struct Watch<'d> {
    sender: &'d Device,
    receiver: &'d Device,
    before: [u64; 2],
}

impl<'d> Watch<'d> {
    fn new(sender: &'d Device, receiver: &'d Device) -> Self {
        let mut watch = Self { sender, receiver, before: [0; 2] };
        watch.before = watch.counters();
        watch
    }

    /// Segments sent again, and packets that arrived before one that was sent earlier.
    fn counters(&self) -> [u64; 2] {
        [counter(self.sender, "TcpRetransSegs"), counter(self.receiver, "TcpExtTCPOFOQueue")]
    }

    /// Holds what was counted since the last time against a bound, and says how much it was.
    fn assert_at_most(&mut self, bound: u64, when: &str) {
        let after = self.counters();
        let [repeated, early] = [0, 1].map(|index| after[index] - self.before[index]);
        self.before = after;
        let text = format!("{when}: {repeated} sent again, {early} out of order, of {bound}");
        #[expect(clippy::print_stderr, reason = "the figures that the test is about")]
        {
            eprintln!("{text}");
        }
        assert!(repeated <= bound && early <= bound, "{text}");
    }
}

/// Joins alice to bob by a path of this kind, over which files arrive whole.
fn files_arrive_over(path: &str, lab: &mut Lab, mut alice: Device) -> Device {
    let bob = lab.device("bob");
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_path(&bob, path, PATIENCE);
    bob.wait_for_path(&alice, path, PATIENCE);
    files_arrive_whole(&alice, &bob);
    bob
}

/// Fetches a file of bob's over both IP versions, with pings beside it.
pub(super) fn files_arrive_whole(alice: &Device, bob: &Device) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent = file_of_noise(folder.path(), megabytes() * MEGABYTE);
    let _server = web_server(bob.namespace(), folder.path());
    for family in ["-6", "-4"] {
        let mut fetching = Fetch::start(alice, bob, &[family], folder.path());
        let ping = ["-n", family, "-q", "-c", "10", "-i", "0.05", "-W", "5", &bob.full_name()];
        let pings = alice.namespace().run("ping", &ping);
        assert!(pings.contains(" 0% packet loss"), "{pings}");
        assert_eq!(fetching.finish(), sent);
    }
    assert_eq!((counter(alice, "TcpInErrs"), counter(bob, "TcpInErrs")), (0, 0));
}

/// How large the files are; `SHADOWMESH_FILE=1000` makes it a gigabyte.
fn megabytes() -> usize {
    std::env::var("SHADOWMESH_FILE").map_or(100, |text| text.parse().expect("megabytes"))
}

/// A running transfer of `noise` into a file.
pub(super) struct Fetch {
    process: Process,
    received: std::path::PathBuf,
}

impl Fetch {
    pub(super) fn start(device: &Device, server: &Device, options: &[&str], folder: &Path) -> Self {
        let label = options.concat();
        let (received, log) = (folder.join(format!("to{label}")), format!("fetch{label}.log"));
        std::fs::write(&received, "").expect("a temporary file");
        let url = format!("http://{}:8000/noise", server.full_name());
        let script = "to=$1; shift; curl -sS --max-time 120 -o $to \"$@\" && echo complete";
        let to = received.to_string_lossy();
        let args = [&["-c", script, "fetch", &to], options, &[&url]].concat();
        let process = device.namespace().spawn("sh", &args, &folder.join(log));
        Self { process, received }
    }

    fn len(&self) -> usize {
        let len = self.received.metadata().expect("the file is there").len();
        usize::try_from(len).expect("a small file")
    }

    /// Waits until something has arrived.
    pub(super) fn resume(&self, patience: Duration) {
        let len = self.len();
        wait_for("the transfer to go on", patience, || (self.len() > len).then_some(()));
    }

    /// Waits until `more` bytes have arrived; fails when none does for longer than [`STALL`].
    pub(super) fn advance(&self, more: usize) {
        let goal = self.len() + more;
        let (mut len, mut since) = (self.len(), Instant::now());
        wait_for("the transfer to go on", TRANSFER, || {
            if self.len() > len {
                (len, since) = (self.len(), Instant::now());
            }
            assert!(since.elapsed() < STALL, "nothing has arrived after {len} bytes");
            (len >= goal).then_some(())
        });
    }

    /// Waits for the end; answers the SHA-256 of what has arrived.
    pub(super) fn finish(&mut self) -> String {
        self.process.wait_for_output("complete", TRANSFER);
        digest(&self.received)
    }
}

/// What a host has counted: `TcpInErrs` for segments that it has refused, bad checksums among them.
pub(super) fn counter(device: &Device, name: &str) -> u64 {
    let counters = device.namespace().run("nstat", &["-asz", name]);
    let line = counters.lines().find(|line| line.starts_with(name));
    let count = line.and_then(|line| line.split_whitespace().nth(1));
    count.and_then(|count| count.parse().ok()).expect("nstat prints the counter")
}

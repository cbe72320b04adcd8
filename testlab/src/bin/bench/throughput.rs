//! TCP, one stream, between two namespaces: ours and gotatun in turns, and the bare wire as the measure of the machine.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use testlab::netns::{Namespace, Process, shadowmesh, tool, wait_for, wire};

use crate::median;

/// Runs of each variant, taken in turns so that drift of the machine hits all alike.
const RUNS: usize = 5;
/// Length of one iperf3 run in seconds, after one second that does not count.
const SECONDS: &str = "4";
const MTU: &str = "1420";

struct Variant {
    name: &'static str,
    /// The program and the arguments before the interface name; none for the bare wire.
    program: Option<(PathBuf, &'static [&'static str])>,
}

/// Measures and prints the table.
pub(crate) fn table() -> String {
    let variants = [
        Variant { name: "raw veth", program: None },
        Variant {
            name: "shadowmesh wireguard",
            program: Some((shadowmesh(), &["wireguard", "-f"])),
        },
        Variant {
            name: "gotatun-cli 0.10.2",
            program: Some((tool("gotatun"), &["-f", "--disable-drop-privileges"])),
        },
    ];
    let mut figures = vec![Vec::new(); variants.len()];
    for run in 0..RUNS {
        for (variant, figures) in variants.iter().zip(&mut figures) {
            let gbits = measure(variant, run);
            eprintln!("{} run {}: {gbits:.2} Gbit/s", variant.name, run + 1);
            figures.push(gbits);
        }
    }

    let medians: Vec<f64> = figures.iter().map(|figures| median(figures)).collect();
    let reference = medians[variants.len() - 1];
    let mut page = String::from(
        "| variant | Gbit/s, median | min | max | against gotatun |\n|---|---|---|---|---|\n",
    );
    for ((variant, figures), median) in variants.iter().zip(&figures).zip(&medians) {
        let min = figures.iter().copied().fold(f64::INFINITY, f64::min);
        let max = figures.iter().copied().fold(0.0, f64::max);
        writeln!(
            page,
            "| {} | {median:.2} | {min:.2} | {max:.2} | {:.2} |",
            variant.name,
            median / reference
        )
        .expect("a string grows");
    }
    page
}

fn measure(variant: &Variant, run: usize) -> f64 {
    let (a, b) = (Namespace::new("bench-a"), Namespace::new("bench-b"));
    wire((&a, "eth0", &["192.0.2.1/24"]), (&b, "eth0", &["192.0.2.2/24"]));
    let Some((program, args)) = &variant.program else {
        return iperf(&a, &b, "192.0.2.2");
    };

    let folder = tempfile::tempdir().expect("a temporary folder");
    let ends = [(&a, "192.0.2.1", "10.99.0.1"), (&b, "192.0.2.2", "10.99.0.2")];
    let keys = ends.map(|(namespace, ..)| namespace.run("wg", &["genkey"]).trim().to_owned());
    let mut processes = Vec::new();
    for (index, (namespace, _, inner)) in ends.iter().enumerate() {
        let interface = format!("smb{}-{run}{index}", std::process::id() % 10_000);
        let log = folder.path().join(format!("{index}.log"));
        let args: Vec<&str> = args.iter().copied().chain([interface.as_str()]).collect();
        processes.push((namespace.spawn(program, &args, &log), interface.clone()));
        let socket = PathBuf::from(format!("/var/run/wireguard/{interface}.sock"));
        wait_for("the control socket", Duration::from_secs(10), || socket.exists().then_some(()));

        let key_file = folder.path().join(format!("{index}.key"));
        std::fs::write(&key_file, &keys[index]).expect("a temporary file");
        let (_, remote, remote_inner) = ends[1 - index];
        let peer = public_key(namespace, &keys[1 - index]);
        let (endpoint, allowed) = (format!("{remote}:51820"), format!("{remote_inner}/32"));
        namespace.run(
            "wg",
            &[
                "set",
                &interface,
                "listen-port",
                "51820",
                "private-key",
                &key_file.to_string_lossy(),
                "peer",
                &peer,
                "endpoint",
                &endpoint,
                "allowed-ips",
                &allowed,
            ],
        );
        namespace.run("ip", &["addr", "add", &format!("{inner}/24"), "dev", &interface]);
        namespace.run("ip", &["link", "set", &interface, "mtu", MTU, "up"]);
    }
    a.run("ping", &["-c", "3", "-i", "0.2", "-W", "5", "10.99.0.2"]);
    let gbits = iperf(&a, &b, "10.99.0.2");
    for (process, _) in processes {
        let _ = process.stop(Duration::from_secs(5));
    }
    gbits
}

fn public_key(namespace: &Namespace, private: &str) -> String {
    namespace.run("sh", &["-c", &format!("echo {private} | wg pubkey")]).trim().to_owned()
}

fn iperf(client: &Namespace, server: &Namespace, address: &str) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut listener: Process =
        server.spawn("iperf3", &["-s", "-1", "--forceflush"], &folder.path().join("server.log"));
    listener.wait_for_output("Server listening", Duration::from_secs(5));
    let report = client.run("iperf3", &["-c", address, "-t", SECONDS, "-O", "1", "-J"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("iperf3 prints JSON");
    report["end"]["sum_received"]["bits_per_second"].as_f64().expect("iperf3 reports a rate") / 1e9
}

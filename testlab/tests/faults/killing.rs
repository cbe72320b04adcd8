//! Everybody is killed in turn while a file moves.

use std::path::Path;
use std::time::Duration;

use testlab::netns::{Process, wait_for};
use testlab::network::{Device, Lab};

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough to be killed in the middle.
const FILE: usize = 60_000_000;
/// A round with its kill, the new start and the rest of the file.
const ROUND: Duration = Duration::from_secs(90);

#[test]
fn files_arrive_whole_while_everybody_is_killed_in_turn() {
    let mut lab = Lab::new();
    let mut relay = lab.relay("second");
    let mut alice = lab.host("alice");
    alice.namespace().block_udp();
    alice.up(&[&lab.invite(&[])]);
    let mut bob = lab.device("bob");
    alice.wait_for_path(&bob, "relay", PATIENCE);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent = noise(folder.path());
    let server = web_server(&bob, folder.path());
    for round in 0..rounds() {
        let received = folder.path().join(format!("received-{round}"));
        let download = download(&alice, &bob, &received);
        let size = || std::fs::metadata(&received).map_or(0, |found| found.len());
        wait_for("the file to be under way", PATIENCE, || (size() > 1_000_000).then_some(()));
        let was = size();
        assert!(was < FILE as u64, "the file is too short to be interrupted");
        match round % 4 {
            0 => {
                alice.kill();
                alice.up(&[]);
            }
            1 => {
                bob.kill();
                bob.up(&[]);
            }
            2 => {
                lab.kill_server();
                lab.start_server();
            }
            _ => {
                relay.kill();
                relay.start(&[]);
            }
        }
        let status = download.wait(ROUND);
        assert!(status.success(), "round {round}: {status}");
        assert_eq!(digest(&received), sent, "round {round}");
        std::fs::remove_file(&received).expect("a temporary file");
        for device in [&alice, &bob] {
            device.wait_for_membership("online", PATIENCE * 2);
        }
    }
    drop(server);
    lab.administer(&["log", "verify"]);
    let devices = lab.administer(&["device", "list"]);
    assert_eq!(devices.as_array().map(Vec::len), Some(4), "{devices}");
}

fn rounds() -> usize {
    let rounds = std::env::var("SHADOWMESH_ROUNDS").ok();
    rounds.map_or(50, |rounds| rounds.parse().expect("SHADOWMESH_ROUNDS is a number"))
}

/// Fetches the file as a person would: what broke off is taken up again.
fn download(to: &Device, from: &Device, file: &Path) -> Process {
    let url = format!("http://[{}]:8000/noise", from.addresses()[0]);
    let file = file.to_string_lossy();
    let stubborn = ["--retry", "60", "--retry-delay", "1", "--retry-all-errors", "-C", "-"];
    let slow = ["--speed-limit", "1", "--speed-time", "5", "--connect-timeout", "3"];
    let args = [&["-sS", "-o", &*file, &url][..], &stubborn, &slow].concat();
    to.namespace().spawn("curl", &args, Path::new(&format!("{file}.curl")))
}

fn web_server(device: &Device, folder: &Path) -> Process {
    let script = folder.join("serve.py");
    std::fs::write(&script, RANGE_SERVER).expect("a temporary file");
    let (script, log) = (script.to_string_lossy().into_owned(), folder.join("serve.txt"));
    let args = ["-u", &script, &folder.to_string_lossy()];
    let mut server = device.namespace().spawn("python3", &args, &log);
    server.wait_for_output("serving", PATIENCE);
    server
}

/// Python's own server does not know ranges, without which nothing can be taken up again.
const RANGE_SERVER: &str = r#"
import http.server, os, socket, sys
os.chdir(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        size = os.path.getsize("noise")
        start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        with open("noise", "rb") as noise:
            noise.seek(start)
            while chunk := noise.read(65536):
                self.wfile.write(chunk)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
print("serving")
Server(("::", 8000), Handler).serve_forever()
"#;

/// Writes `noise`, which no compression shrinks.
fn noise(folder: &Path) -> String {
    let file = folder.join("noise");
    let make = format!("head -c {FILE} /dev/urandom > {}", file.display());
    let output = std::process::Command::new("sh").args(["-c", &make]).output().expect("a shell");
    assert!(output.status.success());
    digest(&file)
}

fn digest(file: &Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(file).output().expect("sha256sum");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split(' ').next().expect("sha256sum prints a digest").to_owned()
}

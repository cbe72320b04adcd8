//! The program as processes, and what tests do with them.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_shadowmesh");
/// What takes longer than this has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const PAGE: &str = "a page of the nas";

/// A process whose lines on standard error can be waited for.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Receiver<String>,
    /// The lines that nobody has waited for yet: those of the two outputs come in any order.
    seen: Vec<String>,
}

impl Running {
    pub(crate) fn start(state: &Path, arguments: &[&str]) -> Self {
        let mut child = command(state, arguments)
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (sender, lines) = mpsc::channel();
        let outputs: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stderr.take().expect("it is piped")),
            Box::new(child.stdout.take().expect("it is piped")),
        ];
        for output in outputs {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    /// The part of a line that follows `marker`.
    pub(crate) fn wait_for(&mut self, marker: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.seen.iter().enumerate().find_map(|(index, line)| {
                let (_, rest) = line.split_once(marker)?;
                Some((index, rest.trim().to_owned()))
            });
            if let Some((index, rest)) = found {
                self.seen.remove(index);
                return rest;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {marker:?} in\n{}", self.seen.join("\n"));
            };
            self.seen.push(line);
        }
    }

    /// As `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is ours");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn command(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--state-dir").arg(state).args(arguments).env_remove("SHADOWMESH_CONFIG");
    command.stdin(Stdio::null());
    command
}

pub(crate) fn run(state: &Path, arguments: &[&str]) -> Output {
    command(state, arguments).output().expect("the program starts")
}

/// What a command prints, when it succeeds.
pub(crate) fn answer(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Tries until it works; each try takes its own time.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("{what}: {error}"),
            Err(_) => thread::yield_now(),
        }
    }
}

pub(crate) struct Network {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Network {
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A network whose server runs, and the passphrase of its key.
    pub(crate) fn create(more: &[&str]) -> (Self, Running, String) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut network = Self { folder, port: 0 };
        let mut server = network.serve("server", more);
        server.wait_for("under the passphrase");
        let passphrase = server.wait_for("  ");
        let place = server.wait_for("://127.0.0.1:");
        network.port = place.trim_end_matches('.').parse().expect("a port");
        (network, server, passphrase)
    }

    pub(crate) fn serve(&self, name: &str, more: &[&str]) -> Running {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).to_string();
        let mut arguments =
            vec!["serve", "--listen", &listen, "--host", "127.0.0.1", "--network", "home"];
        arguments.extend(more);
        Running::start(&self.state(name), &arguments)
    }

    /// What a command at the server prints.
    pub(crate) fn ask(&self, server: &str, arguments: &[&str]) -> String {
        answer(&mut command(&self.state(server), arguments))
    }

    /// What the server says about the network.
    pub(crate) fn show(&self, server: &str) -> serde_json::Value {
        let text = self.ask(server, &["--json", "network", "show"]);
        serde_json::from_str(&text).expect("it is JSON")
    }

    pub(crate) fn node(&self, name: &str, more: &[&str]) -> Running {
        let mut arguments =
            vec!["up", "--mode", "userspace", "--name", name, "--proxy", "127.0.0.1:0"];
        arguments.extend(more);
        Running::start(&self.state(name), &arguments)
    }

    /// Changes are collected for a moment before they reach the disk.
    pub(crate) fn wait_until_kept(&self, node: &str, name: &str) {
        until("state on disk", || {
            let folder = self.state(node).join("node");
            let files = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
            let states = files
                .filter_map(Result::ok)
                .filter(|file| file.file_name().to_string_lossy().starts_with("map-"));
            let holds =
                |bytes: Vec<u8>| bytes.windows(name.len()).any(|part| part == name.as_bytes());
            let kept = states.filter_map(|file| std::fs::read(file.path()).ok()).any(holds);
            kept.then_some(()).ok_or_else(|| format!("{name} is not in it"))
        });
    }

    pub(crate) fn ping(&self, from: &str, to: &str) {
        until("ping", || {
            let output = run(&self.state(from), &["ping", "--count", "1", to]);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then_some(()).ok_or(error)
        });
    }

    /// Fetches by name through a node's SOCKS5 proxy.
    pub(crate) fn fetch(&self, from: &str, host: &str) -> String {
        until("fetch", || {
            let output = run(&self.state(from), &["--json", "status"]);
            let status: serde_json::Value =
                serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
            let proxy = status["proxy"].as_str().ok_or("no proxy")?;
            let proxy: SocketAddr = proxy.parse().map_err(|_| "no address")?;
            fetch_through(proxy, host).map_err(|error| error.to_string())
        })
    }
}

/// SOCKS5 with a name (RFC 1928), then HTTP/1.0.
fn fetch_through(proxy: SocketAddr, host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&[5, 1, 0])?;
    let mut method = [0; 2];
    stream.read_exact(&mut method)?;
    let mut request = vec![5, 1, 0, 3, u8::try_from(host.len()).expect("a short name")];
    request.extend_from_slice(host.as_bytes());
    request.extend_from_slice(&80_u16.to_be_bytes());
    stream.write_all(&request)?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply)?;
    if reply[1] != 0 {
        return Err(std::io::Error::other(format!("SOCKS5 reply {}", reply[1])));
    }
    let mut bound = vec![0; if reply[3] == 4 { 18 } else { 6 }];
    stream.read_exact(&mut bound)?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(body.to_owned())
}

/// Serves one page for ever.
pub(crate) fn web_server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut head = BufReader::new(&stream).lines().map_while(Result::ok);
            let _ = head.by_ref().take_while(|line| !line.is_empty()).count();
            let page = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{PAGE}", PAGE.len());
            // A client that has gone away wants no page.
            let _ = (&stream).write_all(page.as_bytes());
        }
    });
    address
}

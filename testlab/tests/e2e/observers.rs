//! What somebody sees who records a stream that goes without TLS.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use relay_proto::BUCKETS;
use testlab::netns::Process;
use testlab::network::{Device, Lab};

use crate::{MEGABYTE, PATIENCE, web_server};

/// Where bob takes streams.
const PORT: &str = "8444";
/// All that may be recognised; `data` is tshark's word for what it does not know, and `tcp.segments` for what TCP put
/// together.
const RECOGNISED: [&str; 7] = ["eth", "ip", "tcp", "tcp.segments", "http", "websocket", "data"];
/// Messages that each side sends before frames flow.
const OPENING: usize = 2;
/// A value of chi-square over the 256 bytes that random ones exceed once in a billion times.
const FLAT: f64 = 415.0;
/// The same for a few kilobytes, where the values spread a little wider.
const FLAT_OPENING: f64 = 480.0;

#[test]
fn a_recorded_stream_is_http_and_websocket_and_nothing_else_that_anybody_knows() {
    for padding in ["off", "buckets"] {
        let mut lab = Lab::new();
        lab.administer(&["network", "set", "--padding", padding]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let capture = folder.path().join("capture");
        talk_over_a_recorded_stream(&mut lab, folder.path(), &capture);

        let known = BTreeSet::from(RECOGNISED.map(String::from));
        assert_eq!(&protocols(&capture) - &known, BTreeSet::new());
        let streams = streams(&capture);
        assert!(!streams.is_empty());
        let sides: Vec<_> = streams.iter().flatten().collect();
        let openings: Vec<_> = sides.iter().flat_map(|side| side.iter().take(OPENING)).collect();
        let frames: Vec<_> = sides.iter().flat_map(|side| side.iter().skip(OPENING)).collect();
        assert!(frames.iter().map(|message| message.len()).sum::<usize>() > 8 * MEGABYTE);
        let (opening, bulk) = (chi_square(&openings), chi_square(&frames));
        assert!(opening < FLAT_OPENING, "{opening}");
        assert!(bulk < FLAT, "{bulk}");
        let short: Vec<_> = frames.into_iter().filter(|message| message.len() < 1_000).collect();
        assert!(short.len() > 10);
        assert!(chi_square(&short) < FLAT_OPENING, "{}", chi_square(&short));

        // What comes first on each side has a random length.
        let others = sides.iter().flat_map(|side| side.iter().skip(1)).map(Vec::len);
        let lengths: BTreeSet<_> = others.collect();
        let are_hidden = lengths.is_subset(&BUCKETS.into());
        assert_eq!(are_hidden, padding == "buckets", "{padding}: {lengths:?}");
    }
}

/// Alice, without UDP, fetches zeros from bob and pings him, over a stream that is recorded from its beginning.
fn talk_over_a_recorded_stream(lab: &mut Lab, folder: &Path, capture: &Path) {
    let (mut alice, mut bob) = (lab.host("alice"), lab.host("bob"));
    alice.namespace().block_udp();
    let address = format!("0.0.0.0:{PORT}");
    bob.up(&["--listen", &address, "--no-tls", &lab.invite(&[])]);
    let recording = record(&bob, capture, &folder.join("tcpdump"));
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_path(&bob, "stream", PATIENCE);
    bob.wait_for_path(&alice, "stream", PATIENCE);

    std::fs::write(folder.join("zeros"), vec![0; 10 * MEGABYTE]).expect("a temporary file");
    let _server = web_server(bob.namespace(), folder);
    let url = format!("http://{}:8000/zeros", bob.full_name());
    let fetch = ["-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{size_download}", &url];
    let fetched = alice.namespace().run("curl", &fetch);
    assert_eq!(fetched.trim(), (10 * MEGABYTE).to_string());
    let ping = ["-n", "-q", "-c", "20", "-i", "0.05", "-W", "5", &bob.full_name()];
    alice.namespace().run("ping", &ping);
    alice.wait_for_path(&bob, "stream", PATIENCE);
    alice.kill();

    let log = folder.join("tcpdump");
    recording.stop(PATIENCE);
    let said = std::fs::read_to_string(log).expect("tcpdump says what it did");
    assert!(said.contains("\n0 packets dropped by kernel"), "{said}");
}

fn record(device: &Device, capture: &Path, log: &Path) -> Process {
    let file = capture.display().to_string();
    let args = ["-i", "eth0", "-s", "0", "-U", "-B", "65536", "-w", &file, "tcp", "port", PORT];
    let mut recording = device.namespace().spawn("tcpdump", &args, log);
    recording.wait_for_output("listening on", Duration::from_secs(5));
    recording
}

/// What tshark says about a capture, where it looks for HTTP at our port too.
fn tshark(capture: &Path, args: &[&str]) -> String {
    let output = Command::new("tshark")
        .args(["-n", "-d", &format!("tcp.port=={PORT},http"), "-r"])
        .arg(capture)
        .args(args)
        .output()
        .expect("tshark is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("tshark writes text")
}

/// The protocols that tshark recognises.
fn protocols(capture: &Path) -> BTreeSet<String> {
    let hierarchy = tshark(capture, &["-q", "-z", "io,phs"]);
    let lines = hierarchy.lines().filter(|line| line.contains("frames:"));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    // Dots stand for what is too deep: several messages in one segment are counted as nested.
    let names: BTreeSet<_> = names.map(|name| name.trim_start_matches('.').to_owned()).collect();
    assert!(names.contains("websocket"), "{hierarchy}");
    names
}

/// The WebSocket messages of each connection, those of who dialled and those of who listened.
fn streams(capture: &Path) -> Vec<[Vec<Vec<u8>>; 2]> {
    let begun = tshark(capture, &["-Y", "websocket", "-T", "fields", "-e", "tcp.stream"]);
    let numbers: BTreeSet<_> = begun.lines().collect();
    let bytes = |number: &&str| {
        let follow = format!("follow,tcp,raw,{number}");
        let text = tshark(capture, &["-q", "-z", &follow]);
        let mut sides = [Vec::new(), Vec::new()];
        for line in text.lines() {
            let side = usize::from(line.starts_with('\t'));
            if let Ok(bytes) = data_encoding::HEXLOWER.decode(line.trim().as_bytes()) {
                sides[side].extend(bytes);
            }
        }
        sides.map(|side| messages(&side))
    };
    numbers.iter().map(bytes).collect()
}

/// The payloads of the binary messages in one direction of a connection (RFC 6455, section 5.2).
fn messages(stream: &[u8]) -> Vec<Vec<u8>> {
    let head = stream.windows(4).position(|window| window == b"\r\n\r\n").expect("an HTTP head");
    let (mut rest, mut messages) = (&stream[head + 4..], Vec::new());
    while let Some((kind, length, mask, after)) = frame(rest) {
        if after.len() < length {
            break;
        }
        let (payload, next) = after.split_at(length);
        if kind == BINARY {
            let unmasked = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]);
            messages.push(unmasked.collect());
        }
        rest = next;
    }
    messages
}

/// The last, or only, frame of a binary message.
const BINARY: u8 = 0x82;

/// The first byte of a WebSocket frame, the length of its payload, its mask, and what follows its head.
fn frame(bytes: &[u8]) -> Option<(u8, usize, [u8; 4], &[u8])> {
    let (&[kind, length], rest) = bytes.split_first_chunk()?;
    let (length_here, is_masked) = (length & 0x7f, length & 0x80 != 0);
    let (length, rest) = match length_here {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
        }
        short => (usize::from(short), rest),
    };
    if !is_masked {
        return Some((kind, length, [0; 4], rest));
    }
    let (mask, rest) = rest.split_first_chunk()?;
    Some((kind, length, *mask, rest))
}

/// How far bytes are from all values being as likely as each other.
fn chi_square(messages: &[&Vec<u8>]) -> f64 {
    let mut counts = [0_u32; 256];
    messages.iter().copied().flatten().for_each(|byte| counts[usize::from(*byte)] += 1);
    let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
    counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}

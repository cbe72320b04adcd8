//! Files over a tunnel.

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};

use crate::helper::{helper, helper_argument};
use crate::node::{Node, OTHER_AT, OTHERS, PATIENCE, pair};

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
    let mut receiver =
        helper(to, "files::receiving_a_file", &format!("{} {at}", got.display()), &log);
    receiver.wait_for_output("listening", PATIENCE);
    let log = from.folder.path().join("sending");
    let sender = helper(from, "files::sending_a_file", &format!("{} {at}", sent.display()), &log);
    receiver.wait_for_output("test result: ok", PATIENCE);
    drop(sender);
    let read = |path| std::fs::read(path).expect("the file is there");
    assert!(read(&sent) == read(&got), "the bytes that were sent");
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

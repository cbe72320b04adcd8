//! Several data threads in one node.

use std::path::Path;

use testlab::network::{Device, Lab};

use crate::stream::{Fetch, counter};
use crate::{MEGABYTE, PATIENCE, file_of_noise, web_server};

/// Peers, so many that hardly ever all of them fall to one thread.
const PEERS: usize = 8;
/// What a thread that moves packets has of the work of all of them, at least: one in so many parts.
const SHARE: u64 = 20;

#[test]
fn peers_are_spread_over_data_threads_and_everything_arrives_whole() {
    let mut lab = Lab::new();
    let mut hub = lab.host("hub");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "node:\n  data-threads: 4\n").expect("a temporary file");
    hub.up(&["--config", &config.to_string_lossy(), &lab.invite(&[])]);
    hub.wait_for_membership("online", PATIENCE);
    let peers: Vec<Device> = (0..PEERS).map(|peer| lab.device(&format!("peer{peer}"))).collect();
    for peer in &peers {
        peer.wait_for_path(&hub, "direct", PATIENCE);
        hub.wait_for_path(peer, "direct", PATIENCE);
    }

    let sent = file_of_noise(folder.path(), 20 * MEGABYTE);
    let _server = web_server(hub.namespace(), folder.path());
    let folders: Vec<_> = peers.iter().map(|_| tempfile::tempdir().expect("a folder")).collect();
    let fetch =
        |(peer, to): (&Device, &tempfile::TempDir)| Fetch::start(peer, &hub, &[], to.path());
    let mut fetching: Vec<Fetch> = peers.iter().zip(&folders).map(fetch).collect();
    for one in &mut fetching {
        assert_eq!(one.finish(), sent);
    }
    assert_eq!(counter(&hub, "TcpInErrs"), 0);
    let ran = data_threads(hub.node().id());
    assert_eq!(ran.len(), 4);
    let all: u64 = ran.iter().sum();
    assert!(ran.iter().filter(|ran| **ran > all / SHARE).count() > 1, "{ran:?} ns");
}

/// How long each data thread of a process has run, in nanoseconds of processor time.
fn data_threads(process: u32) -> Vec<u64> {
    let threads = Path::new("/proc").join(process.to_string()).join("task");
    let ran = |thread: std::fs::DirEntry| {
        let read = |file| std::fs::read_to_string(thread.path().join(file)).ok();
        (read("comm")?.trim() == "data").then_some(())?;
        read("schedstat")?.split(' ').next()?.parse().ok()
    };
    std::fs::read_dir(threads).expect("it runs").flatten().filter_map(ran).collect()
}

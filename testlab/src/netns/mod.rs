//! Hosts, wires, routers and processes in network namespaces.
//!
//! A [`Namespace`] is a host of its own: interfaces, routes, sockets, firewall. [`wire`] joins two of them by a
//! veth pair, [`SlowWire`] by one that delays and loses, a [`Switch`] joins many, and a [`Router`] stands
//! between two nets and translates as one [`Nat`] does. A [`Disk`] can be full. A [`Process`] runs inside a
//! namespace and is ended by its own id when it goes out of scope. Namespaces have no names, so tests run side
//! by side; nothing in a namespace has a link to the machine's own network, so nothing can leak out of the lab.
//!
//! Needs root, be it of a user namespace only, `ip` from iproute2 and `nft`. Every failure is a panic that
//! quotes the command and what it printed: this is test equipment.

mod disk;
mod namespace;
mod process;
mod router;
mod slow_wire;
mod switch;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub use disk::Disk;
pub use namespace::Namespace;
pub use process::{Process, processor_seconds};
pub use router::{Nat, Router};
pub use slow_wire::{Conditions, SlowWire};
pub use switch::{Switch, wire};

/// How long [`wait_for`] rests between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks again and again until `look` finds something; panics with `what` when the time is over.
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} for {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The program under test, built by the test command beside the test binaries.
///
/// `SHADOWMESH_BIN` names another one.
pub fn shadowmesh() -> PathBuf {
    if let Some(path) = std::env::var_os("SHADOWMESH_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a program knows its own path");
    // Binaries stand in the profile's folder, tests one below it.
    let candidates = own.ancestors().skip(1).take(2).map(|folder| folder.join("shadowmesh"));
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.expect("shadowmesh is missing: cargo build --workspace --bin shadowmesh")
}

/// A tool of another project below the tools folder, or on the path; panics with what to do when it is missing.
pub fn tool(name: &str) -> PathBuf {
    let folder = std::env::var_os("SHADOWMESH_TOOLS").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| {
            Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache")
        });
        cache.join("shadowmesh/tools")
    });
    let own = folder.join("bin").join(name);
    if own.exists() {
        return own;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.exists())
        .unwrap_or_else(|| panic!("{name} is missing: run `make tools`"))
}

fn command(program: &str, args: &[&str]) -> String {
    finish(Command::new(program).args(args))
}

fn finish(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

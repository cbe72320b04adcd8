//! Changing `resolv.conf`, and what is left of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, net::IpAddr, os::unix::fs::symlink, path::PathBuf};

use platform::{
    journal::Journal,
    resolver::{Resolver, Setup},
};

const ORIGINAL: &str =
    "# by hand\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example.org\noptions edns0\n";

struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(host.path("resolv.conf"), ORIGINAL).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path("resolv.conf")).unwrap()
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.path("journal")).unwrap()
    }

    fn setup(&self) -> Setup {
        let stub = "127.0.0.77:53".parse().unwrap();
        let mut setup = Setup::new(stub, vec!["alt".into()], 1);
        setup.file = self.path("resolv.conf");
        setup
    }
}

fn block_on<F: Future>(work: F) -> F::Output {
    zbus::block_on(work)
}

#[test]
fn the_stub_is_the_only_server_and_the_rest_comes_back() {
    let host = Host::new();
    let mut journal = host.journal();
    let resolver = block_on(Resolver::install(&host.setup(), &mut journal)).unwrap();
    assert_eq!(
        resolver.upstreams(),
        ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]
    );
    let text = host.text();
    let servers: Vec<_> = text.lines().filter(|line| line.starts_with("nameserver")).collect();
    assert_eq!(servers, ["nameserver 127.0.0.77"]);
    assert!(text.contains("search example.org\noptions edns0\n"));
    assert!(!resolver.splits());
    block_on(resolver.revert(&mut journal)).unwrap();
    assert_eq!(host.text(), ORIGINAL);
    assert!(!host.path("journal").exists());
}

#[test]
fn the_next_start_undoes_what_a_crash_left() {
    let host = Host::new();
    let mut journal = host.journal();
    let resolver = block_on(Resolver::install(&host.setup(), &mut journal)).unwrap();
    drop((resolver, journal));
    assert_ne!(host.text(), ORIGINAL);
    drop(host.journal());
    assert_eq!(host.text(), ORIGINAL);
    assert!(!host.path("journal").exists());
}

#[test]
fn a_file_that_somebody_else_changed_stays_as_they_left_it() {
    let host = Host::new();
    let mut journal = host.journal();
    let resolver = block_on(Resolver::install(&host.setup(), &mut journal)).unwrap();
    fs::write(host.path("resolv.conf"), "nameserver 198.51.100.9\n").unwrap();
    block_on(resolver.revert(&mut journal)).unwrap();
    assert_eq!(host.text(), "nameserver 198.51.100.9\n");
}

#[test]
fn settings_that_somebody_else_replaced_come_back_with_the_new_servers() {
    let host = Host::new();
    let mut journal = host.journal();
    let mut resolver = block_on(Resolver::install(&host.setup(), &mut journal)).unwrap();
    assert!(!resolver.keep(&host.setup(), &mut journal).unwrap());
    let leased = "nameserver 198.51.100.9\nsearch example.net\n";
    fs::write(host.path("resolv.conf"), leased).unwrap();

    assert!(resolver.keep(&host.setup(), &mut journal).unwrap());
    assert_eq!(resolver.upstreams(), ["198.51.100.9".parse::<IpAddr>().unwrap()]);
    assert!(host.text().contains("nameserver 127.0.0.77\nsearch example.net\n"));
    block_on(resolver.revert(&mut journal)).unwrap();
    assert_eq!(host.text(), leased);
    assert!(!host.path("journal").exists());
}

#[test]
fn a_link_stays_a_link() {
    let host = Host::new();
    fs::rename(host.path("resolv.conf"), host.path("target")).unwrap();
    symlink("target", host.path("resolv.conf")).unwrap();
    let mut journal = host.journal();
    let resolver = block_on(Resolver::install(&host.setup(), &mut journal)).unwrap();
    assert!(fs::symlink_metadata(host.path("resolv.conf")).unwrap().is_symlink());
    assert!(fs::read_to_string(host.path("target")).unwrap().contains("127.0.0.77"));
    block_on(resolver.revert(&mut journal)).unwrap();
    assert_eq!(host.text(), ORIGINAL);
}

#[test]
fn a_port_that_the_file_cannot_say_is_refused() {
    let host = Host::new();
    let mut setup = host.setup();
    setup.stub.set_port(5353);
    let error = block_on(Resolver::install(&setup, &mut host.journal())).unwrap_err();
    assert!(error.to_string().contains("port 53"));
    assert_eq!(host.text(), ORIGINAL);
}

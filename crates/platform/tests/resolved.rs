//! systemd-resolved's side of its D-Bus interface, on a bus of the test's own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use platform::{
    journal::Journal,
    resolver::{Resolver, ResolverError, Setup},
};
use zbus::{Connection, connection::Builder, fdo};

const INTERFACE: u32 = 7;

/// A bus that ends with this value.
struct Bus {
    daemon: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Bus {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("--address=unix:path={}", folder.path().join("bus").display());
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address", &address])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`scripts/install-test-tools` installs dbus-daemon");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { daemon, address: address.trim().to_owned(), folder }
    }

    fn setup(&self) -> Setup {
        let file = self.folder.path().join("resolv.conf");
        fs::write(&file, "nameserver 127.0.0.53\noptions edns0 trust-ad\n").unwrap();
        let stub = "127.0.83.77:53".parse().unwrap();
        let zones = vec!["alt".to_owned()];
        Setup { file, bus: Some(self.address.clone()), ..Setup::new(stub, zones, INTERFACE) }
    }

    fn journal(&self) -> Journal {
        Journal::open(&self.folder.path().join("journal")).unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// What was asked of systemd-resolved, in order. The types of the arguments are those of
/// org.freedesktop.resolve1(5): a call with others fails.
#[derive(Clone, Default)]
struct Resolved {
    calls: Arc<Mutex<Vec<String>>>,
    refuses_domains: bool,
}

impl Resolved {
    async fn serve(self, bus: &Bus) -> Connection {
        let builder = Builder::address(bus.address.as_str()).name("org.freedesktop.resolve1");
        builder.serve_at("/org/freedesktop/resolve1", self).build().await.unwrap()
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

#[zbus::interface(name = "org.freedesktop.resolve1.Manager")]
impl Resolved {
    #[zbus(name = "SetLinkDNSEx")]
    fn set_link_dns_ex(&self, index: i32, servers: Vec<(i32, Vec<u8>, u16, String)>) {
        self.note(format!("dns {index} {servers:?}"));
    }

    fn set_link_domains(&self, index: i32, domains: Vec<(String, bool)>) -> fdo::Result<()> {
        if self.refuses_domains {
            return Err(fdo::Error::AccessDenied("not today".into()));
        }
        self.note(format!("domains {index} {domains:?}"));
        Ok(())
    }

    fn set_link_default_route(&self, index: i32, enable: bool) {
        self.note(format!("default route {index} {enable}"));
    }

    #[zbus(name = "SetLinkDNSOverTLS")]
    fn set_link_dns_over_tls(&self, index: i32, mode: String) {
        self.note(format!("tls {index} {mode}"));
    }

    #[zbus(name = "SetLinkDNSSEC")]
    fn set_link_dnssec(&self, index: i32, mode: String) {
        self.note(format!("dnssec {index} {mode}"));
    }

    fn flush_caches(&self) {
        self.note("flush".to_owned());
    }

    fn revert_link(&self, index: i32) {
        self.note(format!("revert {index}"));
    }
}

#[test]
fn resolved_asks_the_stub_for_our_zones_only_and_is_left_as_it_was() {
    let bus = Bus::start();
    zbus::block_on(async {
        let resolved = Resolved::default();
        let _serving = resolved.clone().serve(&bus).await;
        let mut journal = bus.journal();
        let resolver = Resolver::install(&bus.setup(), &mut journal).await.unwrap();
        assert!(resolver.splits());
        assert_eq!(
            resolved.take(),
            [
                "dns 7 [(2, [127, 0, 83, 77], 53, \"\")]",
                "domains 7 [(\"alt\", true)]",
                "default route 7 false",
                "tls 7 no",
                "dnssec 7 no",
                "flush",
            ]
        );
        let text = fs::read_to_string(&bus.setup().file).unwrap();
        assert!(text.starts_with("nameserver 127.0.0.53"), "the file stays: {text}");
        resolver.revert(&mut journal).await.unwrap();
        assert_eq!(resolved.take(), ["revert 7"]);
    });
}

#[test]
fn half_a_setting_is_taken_back() {
    let bus = Bus::start();
    zbus::block_on(async {
        let resolved = Resolved { refuses_domains: true, ..Resolved::default() };
        let _serving = resolved.clone().serve(&bus).await;
        let error = Resolver::install(&bus.setup(), &mut bus.journal()).await.unwrap_err();
        assert!(matches!(error, ResolverError::Resolved(_)), "{error}");
        assert_eq!(resolved.take(), ["dns 7 [(2, [127, 0, 83, 77], 53, \"\")]", "revert 7"]);
    });
}

#[test]
fn without_resolved_on_the_bus_the_file_names_the_stub() {
    let bus = Bus::start();
    zbus::block_on(async {
        let setup = bus.setup();
        let mut journal = bus.journal();
        let resolver = Resolver::install(&setup, &mut journal).await.unwrap();
        assert!(!resolver.splits());
        assert!(fs::read_to_string(&setup.file).unwrap().contains("nameserver 127.0.83.77"));
        resolver.revert(&mut journal).await.unwrap();
    });
}

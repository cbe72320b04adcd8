//! Devices that only an HTTP proxy lets out.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use testlab::netns::{Namespace, Nat, Process, wait_for};
use testlab::network::{Device, Lab};
use testlab::probes::Probes;

use crate::PATIENCE;

/// Longer than a proxy lets a tunnel be idle.
const IDLE: Duration = Duration::from_secs(65);
/// Within this time traffic flows again after a proxy was killed and has come back.
const BACK: Duration = Duration::from_secs(6);
/// Where proxies listen.
pub(crate) const PORT: u16 = 3128;

/// Starts a proxy on a host, for the user `alice` with the password `secret`.
type Start = fn(&Namespace, &Path) -> Process;

/// Starts tinyproxy, in the same way.
pub(crate) fn tinyproxy(host: &Namespace, folder: &Path) -> Process {
    let settings = format!("Port {PORT}\nListen 0.0.0.0\nTimeout 60\nBasicAuth alice secret\n");
    let file = folder.join("tinyproxy.conf");
    std::fs::write(&file, settings).expect("a temporary file");
    host.spawn("tinyproxy", &["-d", "-c", &file.to_string_lossy()], &folder.join("log"))
}

fn squid(host: &Namespace, folder: &Path) -> Process {
    let passwords = folder.join("passwords");
    let hash = host.run("openssl", &["passwd", "-apr1", "secret"]);
    std::fs::write(&passwords, format!("alice:{hash}")).expect("a temporary file");
    let settings = format!(
        "http_port {PORT}\nvisible_hostname proxy\npid_filename none\ncoredump_dir none\n\
         cache_log {0}/cache.log\naccess_log none\nread_timeout 60 seconds\n\
         auth_param basic program /usr/lib/squid/basic_ncsa_auth {1}\n\
         acl known proxy_auth REQUIRED\nhttp_access allow known\nhttp_access deny all\n",
        folder.display(),
        passwords.display()
    );
    let file = folder.join("squid.conf");
    std::fs::write(&file, settings).expect("a temporary file");
    // Squid gives up root, and reads its files as whom it becomes.
    set_permissions(folder, Permissions::from_mode(0o777)).expect("the folder is ours");
    // What it leaves in shared memory when it is killed keeps out the next one.
    let script = "mount -t tmpfs tmpfs /dev/shm && exec squid -N -f \"$0\"";
    let args = ["--mount", "sh", "-c", script, &file.to_string_lossy()];
    host.spawn("unshare", &args, &folder.join("log"))
}

fn only_a_proxy_leads_out(start: Start) {
    let mut lab = Lab::new();
    let (bob, proxy) = (lab.device("bob"), lab.host("proxy"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut serving = start(proxy.namespace(), folder.path());
    proxy.namespace().wait_until_listens(PORT, PATIENCE);
    let at = proxy.underlay_address();
    let mut alice = lab.host("alice");
    alice.namespace().confine(&format!("ip daddr {at} tcp dport {PORT}"));

    let url = |password: &str| format!("http://alice:{password}@{at}:{PORT}");
    alice.up(&[&lab.invite(&[]), "--http-proxy", &url("guess")]);
    wait_for("the proxy's refusal to be told", PATIENCE, || {
        let status = alice.status()?.to_string();
        status.contains("give a user and password that the proxy knows").then_some(())
    });
    alice.kill();

    alice.set_variable("HTTPS_PROXY", &url("secret"));
    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_membership("online", PATIENCE);
    alice.wait_until_reaches(&bob.full_name(), PATIENCE);
    bob.wait_until_reaches(&alice.full_name(), PATIENCE);
    alice.wait_for_path(&bob, "relay", PATIENCE);
    assert!(!alice.output().contains("secret"), "{}", alice.output());

    let was = [&alice, &bob].map(Device::output);
    sleep(IDLE);
    assert!(alice.reaches(&bob.full_name()), "after a while in which nothing was sent");
    assert_eq!([&alice, &bob].map(Device::output), was, "no connection was lost meanwhile");

    let probes = Probes::start(&alice, &bob.addresses()[0]);
    for _ in 0..2 {
        serving.kill();
        serving = start(proxy.namespace(), folder.path());
        proxy.namespace().wait_until_listens(PORT, PATIENCE);
        probes.watch(2 * BACK);
    }
    let trace = probes.stop();
    assert!(trace.longest_gap() <= BACK, "{trace:?}");
    drop(serving);
}

#[test]
fn a_device_gets_out_through_tinyproxy() {
    only_a_proxy_leads_out(tinyproxy);
}

#[test]
fn a_device_gets_out_through_squid() {
    only_a_proxy_leads_out(squid);
}

#[test]
fn where_a_proxy_does_not_answer_it_is_not_asked_first_another_time() {
    let mut lab = Lab::new();
    let (bob, proxy) = (lab.device("bob"), lab.host("proxy"));
    let deaf = format!(
        "table inet seen {{
            counter asked {{ }}
            chain in {{ type filter hook input priority 0; tcp dport {PORT} counter name asked drop; }}
        }}"
    );
    proxy.namespace().nft(&deaf);
    let router = lab.router(Nat::PortRestricted, None);
    let mut alice = lab.host_behind(&router, "alice");
    alice.set_variable("HTTPS_PROXY", &format!("http://{}:{PORT}", proxy.underlay_address()));
    alice.up(&[&lab.invite(&[])]);
    alice.wait_until_reaches(&bob.full_name(), PATIENCE);
    assert!(proxy.namespace().count("asked") > 0, "what is counted is what comes to the proxy");

    // A machine that is busy may need longer than the proxy waits for its turn, but not each time.
    let is_asked_first = |alice: &mut Device| {
        alice.down();
        proxy.namespace().run("nft", &["reset", "counters"]);
        alice.up(&[]);
        alice.wait_for_membership("online", PATIENCE);
        alice.wait_until_reaches(&bob.full_name(), PATIENCE);
        proxy.namespace().count("asked") > 0
    };
    assert!(!(0..3).all(|_| is_asked_first(&mut alice)));
}

//! A server behind a reverse proxy that ends TLS, and cuts what is idle for 60 s.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use testlab::netns::{Namespace, Process, wait_for};
use testlab::network::{Device, Lab, server_address};
use testlab::probes::Probes;

use crate::PATIENCE;

/// Longer than a proxy lets a connection be idle.
const IDLE: Duration = Duration::from_secs(65);
/// Within this time traffic flows again after a proxy has cut every connection.
const BACK: Duration = Duration::from_secs(3);
const PAGE: &str = "<h1>A page about gardening</h1>";

/// A reverse proxy: how it is started, and how it ends all connections and goes on.
struct Kind {
    start: fn(&Namespace, &Path) -> Process,
    cut: fn(&Namespace, &Path, Process) -> Process,
}

const NGINX: Kind = Kind {
    start: |host, folder| {
        let file = folder.join("nginx.conf");
        host.spawn("nginx", &["-c", &file.to_string_lossy()], &folder.join("log"))
    },
    cut: |host, folder, process| {
        let file = folder.join("nginx.conf");
        host.run("nginx", &["-c", &file.to_string_lossy(), "-s", "reload"]);
        process
    },
};

const HAPROXY: Kind = Kind {
    start: |host, folder| {
        let file = folder.join("haproxy.cfg");
        host.spawn("haproxy", &["-db", "-f", &file.to_string_lossy()], &folder.join("log"))
    },
    cut: |host, folder, process| {
        process.kill();
        (HAPROXY.start)(host, folder)
    },
};

/// Writes the settings of both, and a certificate as each wants it.
fn write_settings(host: &Namespace, folder: &Path) -> PathBuf {
    let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
    let (key_path, path) = (key.to_string_lossy(), certificate.to_string_lossy());
    let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let about = ["-days", "2", "-subj", "/CN=front", "-keyout", &key_path, "-out", &path];
    host.run("openssl", &[&make[..], &about].concat());
    let read = |file: &Path| std::fs::read_to_string(file).expect("openssl has written it");
    let both = read(&certificate) + &read(&key);
    let at = folder.display();
    let files = [
        ("both.pem", both),
        ("page.html", PAGE.to_owned()),
        (
            "nginx.conf",
            format!(
                "user root; daemon off; pid {at}/pid; error_log {at}/error.log; worker_processes 1;
                 worker_shutdown_timeout 1s;
                 events {{}}
                 http {{
                     access_log off;
                     client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
                     uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
                     server {{
                         listen 443 ssl;
                         ssl_certificate {at}/certificate.pem; ssl_certificate_key {at}/key.pem;
                         ssl_protocols TLSv1.3;
                         location / {{
                             proxy_pass http://127.0.0.1:8080;
                             proxy_http_version 1.1;
                             proxy_set_header Host $host;
                             proxy_set_header Upgrade $http_upgrade;
                             proxy_set_header Connection \"upgrade\";
                             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                             proxy_read_timeout 60s; proxy_send_timeout 60s;
                         }}
                     }}
                 }}"
            ),
        ),
        (
            "haproxy.cfg",
            format!(
                "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
                 timeout tunnel 60s\n  option forwardfor\nfrontend front\n  bind :443 ssl crt {at}/both.pem alpn http/1.1\n  \
                 default_backend mesh\nbackend mesh\n  server mesh 127.0.0.1:8080\n"
            ),
        ),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text).expect("a temporary file");
    }
    certificate
}

/// Starts the server behind a proxy that was started on its host.
fn serve_behind(lab: &mut Lab, folder: &Path, certificate: &Path) {
    lab.server().wait_until_listens(443, PATIENCE);
    let (server, page) = (server_address().to_string(), folder.join("page.html"));
    lab.start_server_with(
        &[
            &["--listen", "127.0.0.1:8080", "--front", &server, "--trusted-proxy", "127.0.0.1"][..],
            &["--front-certificate", &certificate.to_string_lossy()],
            &["--page", &page.to_string_lossy()],
        ]
        .concat(),
    );
}

fn a_network_lives_behind(kind: &Kind) {
    let mut lab = Lab::without_server();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let certificate = write_settings(lab.server(), folder.path());
    let mut front = (kind.start)(lab.server(), folder.path());
    serve_behind(&mut lab, folder.path(), &certificate);
    let server = server_address().to_string();
    let [alice, bob] = ["alice", "bob"].map(|name| {
        let mut device = lab.host(name);
        device.namespace().block_udp();
        device.up(&[&lab.invite(&[])]);
        device.wait_for_membership("online", PATIENCE);
        device
    });
    alice.wait_until_reaches(&bob.full_name(), PATIENCE);
    alice.wait_for_path(&bob, "relay", PATIENCE);
    let url = format!("https://{server}/api/v1/ws/anything");
    assert_eq!(alice.namespace().run("curl", &["-sk", &url]), PAGE);

    let was = [&alice, &bob].map(Device::output);
    sleep(IDLE);
    assert!(alice.reaches(&bob.full_name()), "after a while in which nothing was sent");
    assert_eq!([&alice, &bob].map(Device::output), was, "no connection was lost meanwhile");

    let probes = Probes::start(&alice, &bob.addresses()[0]);
    for _ in 0..3 {
        front = (kind.cut)(lab.server(), folder.path(), front);
        probes.watch(Duration::from_secs(6));
    }
    let trace = probes.stop();
    assert!(trace.longest_gap() <= BACK, "{trace:?}");
    drop(front);
}

#[test]
fn a_network_lives_behind_nginx() {
    a_network_lives_behind(&NGINX);
}

#[test]
fn a_network_lives_behind_haproxy() {
    a_network_lives_behind(&HAPROXY);
}

#[test]
fn a_front_without_tls_1_3_is_not_used_and_named_as_the_fault() {
    let mut lab = Lab::without_server();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let certificate = write_settings(lab.server(), folder.path());
    let file = folder.path().join("nginx.conf");
    let settings = std::fs::read_to_string(&file).expect("it was written");
    std::fs::write(&file, settings.replace("TLSv1.3", "TLSv1.2")).expect("a temporary file");
    let _front = (NGINX.start)(lab.server(), folder.path());
    serve_behind(&mut lab, folder.path(), &certificate);
    let mut alice = lab.host("alice");
    alice.up(&[&lab.invite(&[])]);
    wait_for("the fault to be told", PATIENCE, || {
        let status = alice.status()?.to_string();
        status.contains("let what ends TLS before the server offer version 1.3").then_some(())
    });
}

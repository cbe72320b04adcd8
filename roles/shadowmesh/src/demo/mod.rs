//! A whole network on this machine: a server, three nodes without root, a page that they share.
//!
//! Everything runs on loopback and in a folder of its own, which is removed at the end. The server
//! (controller and relay) is in this process, since it keeps what the relay receives in order to
//! search it; each node is a process of its own, started as a user would start it, and asked
//! through its local API and its SOCKS5 proxy.

mod fetch;
mod node;
mod progress;
mod report;
mod server;
mod site;

use std::time::{Duration, Instant};

use ::node::api::{Membership, NetworkStatus, PathKind, PathView};

use crate::exit::{Exit, Failure};
use crate::output::note;
use crate::stop;
use node::DemoNode;
use progress::Progress;
use report::{Leg, Summary};
use server::DemoServer;
use site::Site;

/// The network's name. Its zone and the devices' names are long enough never to occur by chance in
/// what the relay receives.
const NETWORK: &str = "demonstration";
/// Publishes the page.
const PUBLISHER: &str = "bookshelf";
/// Has UDP.
const READER: &str = "armchair";
/// Has no UDP.
const SHUT_IN: &str = "greenhouse";
/// How long the network may take to become whole.
const MESH_DEADLINE: Duration = Duration::from_secs(40);
/// How long two nodes with UDP may take to find each other directly.
const DIRECT_DEADLINE: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Pings of which the median counts.
const PINGS: usize = 5;
/// How long a download is measured.
const DOWNLOAD: Duration = Duration::from_secs(2);

/// Shows it; `once` ends with the summary instead of running until Ctrl-C.
pub(crate) async fn run(once: bool) -> Result<(), Failure> {
    let stop = stop::requested().map_err(failed)?;
    let demonstration = async {
        let demo = Demo::start().await?;
        let summary = demo.measure().await?;
        report::print(&summary);
        if !once {
            report::print_commands(&demo);
            std::future::pending::<()>().await;
        }
        demo.end().await;
        summary.verdict()
    };
    tokio::select! {
        result = demonstration => result,
        () = stop => {
            note("Stopped; nothing is left behind.");
            Ok(())
        }
    }
}

/// The running network. Dropping it ends the nodes and removes the folder.
struct Demo {
    started: Instant,
    server: DemoServer,
    site: Site,
    publisher: DemoNode,
    reader: DemoNode,
    shut_in: DemoNode,
    folder: tempfile::TempDir,
}

impl Demo {
    async fn start() -> Result<Self, Failure> {
        let started = Instant::now();
        let folder =
            tempfile::Builder::new().prefix("shadowmesh-demo-").tempdir().map_err(failed)?;
        let progress = Progress::new("starting controller and relay");
        let server = DemoServer::start(&folder.path().join("server"), NETWORK).await?;
        progress.done("controller and relay run on one port of loopback: WSS with TLS 1.3");

        let progress = Progress::new("starting three nodes, each by an invite of its own");
        let site = Site::start().await.map_err(failed)?;
        let publish = format!("80={}", site.address());
        let start = async |name: &'static str, more: &[&str]| {
            let invite = server.invite(name).await?;
            DemoNode::start(name, &folder.path().join(name), &invite, more)
        };
        let publisher = start(PUBLISHER, &["--publish", &publish]).await?;
        let reader = start(READER, &[]).await?;
        let shut_in = start(SHUT_IN, &["--no-udp"]).await?;
        let mut demo = Self { started, server, site, publisher, reader, shut_in, folder };
        demo.wait_until_whole().await?;
        progress.done(format_args!(
            "{PUBLISHER}, {READER} and {SHUT_IN} have joined; {SHUT_IN} has no UDP"
        ));
        Ok(demo)
    }

    /// Waits until every node is a member and knows the other two.
    async fn wait_until_whole(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + MESH_DEADLINE;
        for node in [&mut self.publisher, &mut self.reader, &mut self.shut_in] {
            loop {
                node.check_alive()?;
                if let Ok(status) = node.client().status().await
                    && let Some(network) = status.networks.first()
                    && network.membership == Membership::Online
                    && knows_the_others(network)
                {
                    node.set_proxy(status.proxy);
                    break;
                }
                if Instant::now() >= deadline {
                    let text =
                        format!("{} did not join in time; {}", node.name(), node.last_words());
                    return Err(Failure::new(Exit::Timeout, text));
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }

    async fn measure(&self) -> Result<Summary, Failure> {
        let url_host = format!("{PUBLISHER}.{NETWORK}.alt");
        let mut legs = Vec::new();
        for (node, direct) in [(&self.reader, true), (&self.shut_in, false)] {
            let progress =
                Progress::new(format_args!("{} fetches http://{url_host}/", node.name()));
            let page = fetch::page(node.proxy()?, &url_host, "/").await.map_err(failed)?;
            progress.done(format_args!(
                "{} fetched http://{url_host}/ in {:.0} ms",
                node.name(),
                page.milliseconds()
            ));
            let progress = Progress::new(format_args!("measuring {} to {PUBLISHER}", node.name()));
            let path = settled_path(node, PUBLISHER, direct).await?;
            let download = fetch::measured(node.proxy()?, &url_host, site::NOISE, DOWNLOAD)
                .await
                .map_err(failed)?;
            progress.done(format_args!("measured {} to {PUBLISHER}", node.name()));
            legs.push(Leg {
                from: node.name(),
                to: PUBLISHER,
                as_expected: is_direct(&path) == direct,
                path,
                first_page: Some(page.milliseconds()),
                megabits: Some(download),
                intact: page.body == site::PAGE.as_bytes(),
            });
        }
        let path = settled_path(&self.shut_in, READER, false).await?;
        legs.push(Leg {
            from: SHUT_IN,
            to: READER,
            as_expected: !is_direct(&path),
            path,
            first_page: None,
            megabits: None,
            intact: true,
        });
        Ok(Summary { legs, relay: self.search_relay(&url_host), took: self.started.elapsed() })
    }

    /// Looks for what the nodes said to each other in what the relay received.
    fn search_relay(&self, url_host: &str) -> report::RelaySearch {
        let sentence = site::PAGE.lines().find(|line| line.starts_with("<p>")).unwrap_or_default();
        let needles =
            [sentence, url_host, PUBLISHER, READER, SHUT_IN, NETWORK, "HTTP/1.1", "<html"];
        let capture = self.server.capture();
        report::RelaySearch {
            received: capture.seen(),
            searched: capture.len() as u64,
            found: needles
                .into_iter()
                .filter(|needle| capture.contains(needle.as_bytes()))
                .map(str::to_owned)
                .collect(),
            looked_for: needles.len(),
        }
    }

    fn nodes(&self) -> [&DemoNode; 3] {
        [&self.publisher, &self.reader, &self.shut_in]
    }

    async fn end(&self) {
        for node in self.nodes() {
            // A node that does not listen any more is ended when it is dropped.
            let _ = node.client().down().await;
        }
    }
}

/// Whether both other nodes are there; the relay is a member besides.
fn knows_the_others(network: &NetworkStatus) -> bool {
    let named = |name: &str| network.peers.iter().any(|peer| peer.name == name);
    [PUBLISHER, READER, SHUT_IN].into_iter().filter(|name| named(name)).count() == 2
}

fn is_direct(path: &PathView) -> bool {
    path.kind == PathKind::Direct
}

/// Pings until the path is of the expected kind, and measures it.
async fn settled_path(node: &DemoNode, peer: &str, direct: bool) -> Result<PathView, Failure> {
    let deadline = Instant::now() + DIRECT_DEADLINE;
    loop {
        let path = ping_path(node, peer).await;
        if let Some(path) = path
            && (is_direct(&path) == direct || Instant::now() >= deadline)
        {
            return Ok(path);
        }
        if Instant::now() >= deadline {
            let text = format!("{} gets no answer from {peer}", node.name());
            return Err(Failure::new(Exit::Timeout, text));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The path to a peer with the median latency of a few pings; nothing if none is answered.
async fn ping_path(node: &DemoNode, peer: &str) -> Option<PathView> {
    let mut last = None;
    let mut latencies = Vec::new();
    for _ in 0..PINGS {
        if let Ok(reply) = node.client().ping(peer).await {
            latencies.extend(reply.path.latency_ms);
            last = Some(reply.path);
        }
    }
    latencies.sort_by(f64::total_cmp);
    let median = latencies.get(latencies.len() / 2).copied();
    last.map(|path| PathView { latency_ms: median, ..path })
}

fn failed(error: impl Into<anyhow::Error>) -> Failure {
    Failure::from(error.into())
}

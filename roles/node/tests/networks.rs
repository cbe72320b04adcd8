//! Nodes in process: controllers and devices on loopback, userspace mode, asked over the local API.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "test equipment: a panic is a failed test"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control_proto::{AdminAnswer, AdminRequest, InviteRequest};
use controller::network::{NetworkFolder, NewNetwork};
use controller::{AdminClient, Config, Controller};
use getrandom::SysRng;
use identity::{DeviceId, NetworkKey, ServerAddress, TlsMode, UnixTime, ipv4_prefix};
use keystore::{FileKeystore, Keystore};
use node::api::{
    ApiError, Client, ClientError, Event, Events, Membership, NetworkStatus, PathKind, Problem,
};
use node::{Clock, Mode, Node, NodeConfig, NodeSettings, StartError};
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, SeedableRng, UnwrapErr};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use websocket::Listener;

/// What takes longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(30);
const TWO_HOURS: Duration = Duration::from_secs(7_200);

/// A network's controller behind a listener of its own.
struct Server {
    _folder: TempDir,
    task: JoinHandle<()>,
    admin: AdminClient,
}

impl Server {
    async fn start(network: &str) -> Self {
        Self::with_randomness(network, &mut UnwrapErr(SysRng)).await
    }

    async fn with_randomness(network: &str, rng: &mut dyn CryptoRng) -> Self {
        let folder = TempDir::new().unwrap();
        let state = NetworkFolder::new(folder.path().join("state"));
        let key_file = &folder.path().join("network.key");
        let name = network.parse().unwrap();
        let new = NewNetwork {
            name,
            mode: control_proto::Mode::Simple,
            key_file,
            passphrase: b"correct horse",
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        state.create(new, rng, UnixTime(now)).await.unwrap();

        let mut listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = ServerAddress {
            host: address.ip().to_string(),
            port: address.port(),
            addresses: vec![address.ip()],
            tls: TlsMode::Plain,
        };
        let socket = folder.path().join("admin.sock");
        let admin = AdminClient::new(socket.clone());
        let config = Config { folder: state, servers: vec![server], socket };
        let controller = Controller::start(config).await.unwrap();
        let task = tokio::spawn(async move {
            loop {
                let upgrade = listener.accept().await;
                controller.handle(upgrade).await;
            }
        });
        Self { _folder: folder, task, admin }
    }

    async fn invite(&self) -> String {
        let request = AdminRequest::CreateInvite(InviteRequest::default());
        match self.admin.request(&request).await.unwrap() {
            AdminAnswer::InvitesCreated { invites } => invites[0].invite.clone(),
            other => panic!("not the answer to an invite: {other:?}"),
        }
    }

    async fn remove(&self, device: &str) {
        let device: DeviceId = device.parse().unwrap();
        self.admin.request(&AdminRequest::RemoveDevice { device }).await.unwrap();
    }

    /// Ends at once, with its port.
    async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// A device with its node.
struct Device {
    folder: TempDir,
    client: Client,
    node: JoinHandle<()>,
}

impl Device {
    async fn start(name: &str) -> Self {
        Self::with_clock(name, Clock::default()).await
    }

    async fn with_clock(name: &str, clock: Clock) -> Self {
        Self::in_folder(TempDir::new().unwrap(), name, clock).await
    }

    async fn in_folder(folder: TempDir, name: &str, clock: Clock) -> Self {
        let node = Node::start(config(folder.path(), settings(name), clock)).await.unwrap();
        Self::run(folder, node)
    }

    fn run(folder: TempDir, node: Node) -> Self {
        let client = Client::new(folder.path().join("node.sock"));
        let node = tokio::spawn(node.run(std::future::pending()));
        Self { folder, client, node }
    }

    async fn join(&self, server: &Server) -> NetworkStatus {
        let joined = self.client.join(&server.invite().await).await.unwrap();
        assert_eq!(joined.membership, Membership::Online);
        self.status().await.into_iter().find(|one| one.id == joined.network).unwrap()
    }

    async fn status(&self) -> Vec<NetworkStatus> {
        self.client.status().await.unwrap().networks
    }

    /// Waits until the device has so many addresses in a network.
    async fn addresses(&self, network: &str, count: usize) -> NetworkStatus {
        let found = async {
            loop {
                let found = self.status().await.into_iter().find(|one| one.name == network);
                if let Some(status) = found.filter(|status| status.addresses.len() == count) {
                    return status;
                }
            }
        };
        timeout(DEADLINE, found).await.expect("the addresses come in time")
    }

    async fn names(&self) -> Vec<String> {
        self.status().await.into_iter().map(|network| network.name).collect()
    }

    /// Waits until a peer answers; an unanswered ping takes its own time.
    async fn ping(&self, peer: &str) {
        let answered = async {
            loop {
                match self.client.ping(peer).await {
                    Ok(reply) => return reply,
                    Err(error) => drop(refusal(error)),
                }
            }
        };
        let reply = timeout(DEADLINE, answered).await.expect("the peer answers in time");
        assert_eq!(reply.path.kind, PathKind::Direct);
    }

    /// Whatever the device keeps.
    fn kept(&self) -> Vec<String> {
        keys(self.folder.path()).list().unwrap()
    }

    async fn stop(self) -> TempDir {
        self.client.down().await.unwrap();
        timeout(DEADLINE, self.node).await.expect("it ends in time").unwrap();
        self.folder
    }
}

fn settings(name: &str) -> NodeSettings {
    let device_name = Some(name.to_owned());
    NodeSettings { mode: Mode::Userspace, device_name, proxy: None, ..NodeSettings::default() }
}

fn config(folder: &Path, settings: NodeSettings, clock: Clock) -> NodeConfig {
    let (socket, version) = (folder.join("node.sock"), "test".to_owned());
    let keys = Arc::new(keys(folder));
    NodeConfig { keys, socket, settings, version, clock, listening: None }
}

fn keys(folder: &Path) -> FileKeystore {
    FileKeystore::open(folder.join("node"), None).unwrap()
}

fn refusal(error: ClientError) -> ApiError {
    match error {
        ClientError::Refused(refusal) => refusal,
        other => panic!("not a refusal: {other}"),
    }
}

async fn event(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let found = async {
        loop {
            let event = events.next().await.unwrap().expect("the node runs");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(DEADLINE, found).await.expect("the event comes in time")
}

#[tokio::test]
async fn a_device_in_two_networks_leaves_one_and_goes_on_in_the_other() {
    let (home, work) = (Server::start("home").await, Server::start("work").await);
    let (laptop, nas) = (Device::start("laptop").await, Device::start("nas").await);
    let status = laptop.join(&home).await;
    assert_eq!((status.name.as_str(), status.device_name.as_str()), ("home", "laptop"));
    assert_eq!(status.controller_admits, Some(true));
    assert!(status.inbound.contains("no port is published"), "{}", status.inbound);
    assert_eq!(status.clock_offset_seconds, None);
    laptop.join(&work).await;
    nas.join(&work).await;
    laptop.ping("nas").await;
    let check = laptop.client.netcheck().await.unwrap();
    assert!(check.controller && !check.udp, "nobody here serves STUN: {check:?}");
    assert!(check.reflexive.is_empty() && check.local.iter().any(|one| one.ip().is_loopback()));
    let mut names = laptop.names().await;
    names.sort_unstable();
    assert_eq!(names, ["home", "work"]);

    let error = refusal(laptop.client.leave(None).await.unwrap_err());
    assert_eq!(error.problem, Problem::Usage, "which one is not said");
    laptop.client.leave(Some("home")).await.unwrap();
    assert_eq!(laptop.names().await, ["work"]);
    assert!(laptop.kept().iter().all(|name| !name.contains(&status.id)), "{:?}", laptop.kept());
    laptop.ping("nas").await;

    let folder = laptop.stop().await;
    let laptop = Device::in_folder(folder, "laptop", Clock::default()).await;
    assert_eq!(laptop.names().await, ["work"]);
    laptop.ping("nas").await;
    let error = refusal(laptop.client.leave(Some("home")).await.unwrap_err());
    assert_eq!(error.problem, Problem::NotFound);
}

#[tokio::test]
async fn a_second_network_of_the_same_name_is_refused_and_nothing_of_it_is_kept() {
    let (one, other) = (Server::start("home").await, Server::start("home").await);
    let laptop = Device::start("laptop").await;
    laptop.join(&one).await;
    let kept = laptop.kept();
    let error = refusal(laptop.client.join(&other.invite().await).await.unwrap_err());
    assert_eq!(error.problem, Problem::System);
    assert!(error.message.contains("`shadowmesh leave home`"), "{error}");
    assert_eq!((laptop.names().await, laptop.kept()), (vec!["home".to_owned()], kept));
}

/// Randomness for two networks whose ids lead to the same IPv4 prefix.
fn clashing() -> [ChaCha20Rng; 2] {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0_u64.. {
        let root = NetworkKey::generate(&mut ChaCha20Rng::seed_from_u64(seed));
        let prefix = ipv4_prefix(root.id()).network();
        if let Some(other) = seen.insert(prefix, seed) {
            return [other, seed].map(ChaCha20Rng::seed_from_u64);
        }
    }
    unreachable!("there are 64 prefixes")
}

#[tokio::test]
async fn of_two_networks_with_the_same_ipv4_addresses_the_later_has_ipv6_only_until_there_is_room()
{
    let [mut one, mut other] = clashing();
    let home = Server::with_randomness("home", &mut one).await;
    let work = Server::with_randomness("work", &mut other).await;
    let laptop = Device::start("laptop").await;
    let first = laptop.join(&home).await;
    laptop.addresses("home", 2).await;
    laptop.join(&work).await;
    let second = laptop.addresses("work", 1).await;
    assert!(second.addresses[0].is_ipv6());
    let prefix = second.advice.iter().find(|advice| advice.contains("goes without"));
    assert!(prefix.is_some_and(|advice| advice.contains("/16")), "{:?}", second.advice);
    assert_eq!(laptop.addresses("home", 2).await.id, first.id);

    laptop.client.leave(Some("home")).await.unwrap();
    let alone = laptop.addresses("work", 2).await;
    assert!(alone.advice.is_empty(), "{:?}", alone.advice);
}

#[tokio::test]
async fn a_removed_device_is_told_and_its_keys_are_erased() {
    let home = Server::start("home").await;
    let laptop = Device::start("laptop").await;
    let mut events = laptop.client.events().await.unwrap();
    let status = laptop.join(&home).await;
    let is = |wanted: Membership| {
        let id = status.id.clone();
        move |event: &Event| {
            matches!(event, Event::Membership { network, membership, .. }
                if *network == id && *membership == wanted)
        }
    };
    event(&mut events, is(Membership::Online)).await;
    assert!(!laptop.kept().is_empty());
    home.remove(&status.device).await;
    event(&mut events, is(Membership::Refused)).await;
    let Device { client, node, folder } = laptop;
    client.down().await.unwrap();
    timeout(DEADLINE, node).await.expect("it ends in time").unwrap();
    assert!(keys(folder.path()).list().unwrap().is_empty());
}

#[tokio::test]
async fn a_used_invite_is_refused_and_leaves_no_keys() {
    let home = Server::start("home").await;
    let (laptop, thief) = (Device::start("laptop").await, Device::start("thief").await);
    let invite = home.invite().await;
    laptop.client.join(&invite).await.unwrap();
    let error = refusal(thief.client.join(&invite).await.unwrap_err());
    assert_eq!(error.problem, Problem::Refused);
    assert!(error.message.ends_with("ask for a new one"), "{error}");
    let folder = thief.stop().await;
    assert!(keys(folder.path()).list().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_in_the_way_on_this_host_is_said_with_what_to_do() {
    let start = async |folder: &Path, settings: NodeSettings| {
        Node::start(config(folder, settings, Clock::default())).await
    };
    let folder = TempDir::new().unwrap();
    let no_tun = NodeSettings {
        mode: Mode::Tun,
        tun_path: folder.path().join("no-tun"),
        ..settings("laptop")
    };
    let error = start(folder.path(), no_tun).await.unwrap_err();
    assert!(matches!(error, StartError::Tun(_)), "{error}");
    assert!(error.to_string().contains("`--mode userspace`"), "{error}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Some(taken.local_addr().unwrap());
    let error = start(folder.path(), NodeSettings { proxy, ..settings("laptop") }).await;
    let error = error.unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
    assert!(error.to_string().contains("--proxy"), "{error}");

    let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let listen_port = taken.local_addr().unwrap().port();
    let node = start(folder.path(), NodeSettings { listen_port, ..settings("laptop") }).await;
    let laptop = Device::run(folder, node.unwrap());
    let second = start(laptop.folder.path(), settings("laptop")).await.unwrap_err();
    assert!(matches!(second, StartError::AlreadyRunning(_)), "{second}");
    let home = Server::start("home").await;
    let error = refusal(laptop.client.join(&home.invite().await).await.unwrap_err());
    assert_eq!(error.problem, Problem::System);
    assert!(error.message.contains("--listen-port"), "{error}");
    assert!(laptop.kept().is_empty() && laptop.names().await.is_empty());
}

#[tokio::test]
async fn what_is_no_invite_is_told_apart() {
    let home = Server::start("home").await;
    let laptop = Device::start("laptop").await;
    let mut damaged = home.invite().await;
    damaged.truncate(damaged.len() - 9);
    for text in ["hello", &damaged] {
        let error = refusal(laptop.client.join(text).await.unwrap_err());
        assert_eq!(error.problem, Problem::Usage, "{error}");
    }
    assert!(laptop.kept().is_empty());
}

#[tokio::test]
async fn why_the_controller_is_not_reached_is_said_with_what_to_do() {
    let home = Server::start("home").await;
    let invite = home.invite().await;
    home.stop().await;
    let laptop = Device::start("laptop").await;
    let mut events = laptop.client.events().await.unwrap();
    let client = laptop.client.clone();
    let joining = tokio::spawn(async move { client.join(&invite).await });
    let told =
        event(&mut events, |event| matches!(event, Event::Membership { reason: Some(_), .. }));
    let Event::Membership { membership, reason: Some(reason), .. } = told.await else {
        panic!("it was chosen so")
    };
    assert_eq!(membership, Membership::Joining);
    assert!(reason.contains("refused") && reason.contains("`shadowmesh serve` runs"), "{reason}");
    let advice = laptop.status().await.remove(0).advice;
    assert!(advice.iter().any(|advice| advice.contains(&reason)), "{advice:?}");
    joining.abort();
}

#[tokio::test]
async fn a_device_with_a_wrong_clock_joins_and_is_told_to_set_it() {
    let home = Server::start("home").await;
    let slow = Clock(|| SystemTime::now() - TWO_HOURS);
    let laptop = Device::with_clock("laptop", slow).await;
    let mut events = laptop.client.events().await.unwrap();
    let joined = laptop.client.join(&home.invite().await).await.unwrap();
    assert_eq!(joined.membership, Membership::Online);
    let advice = joined.advice.join("\n");
    assert!(advice.contains("behind") && advice.contains("timedatectl set-ntp true"), "{advice}");
    let told = event(&mut events, |event| matches!(event, Event::Clock { .. })).await;
    let Event::Clock { offset_seconds: Some(offset), advice: Some(_), .. } = told else {
        panic!("the clock is wrong")
    };
    assert!((7_100..7_300).contains(&offset), "{offset}");
    assert_eq!(laptop.status().await.remove(0).clock_offset_seconds, Some(offset));

    // Once it is right, the kept offset is what is wrong, and it is learnt anew.
    let laptop = Device::in_folder(laptop.stop().await, "laptop", Clock::default()).await;
    let mut events = laptop.client.events().await.unwrap();
    if laptop.status().await.remove(0).clock_offset_seconds.is_some() {
        let told = event(&mut events, |event| matches!(event, Event::Clock { .. })).await;
        assert!(
            matches!(told, Event::Clock { offset_seconds: None, advice: None, .. }),
            "{told:?}"
        );
    }
    assert_eq!(laptop.status().await.remove(0).clock_offset_seconds, None);
}

#[tokio::test]
async fn what_a_crashed_run_changed_is_undone_by_the_next_in_any_mode() {
    use platform::{
        journal::Journal,
        resolver::{Resolver, Setup},
    };
    let folder = TempDir::new().unwrap();
    let file: PathBuf = folder.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
    let mut journal = Journal::open(&folder.path().join("node.journal")).unwrap();
    let stub = "127.0.0.77:53".parse().unwrap();
    let setup = Setup { file: file.clone(), ..Setup::new(stub, vec!["alt".to_owned()], 1) };
    let resolver = Resolver::install(&setup, &mut journal).await.unwrap();
    std::mem::forget((resolver, journal));
    assert!(std::fs::read_to_string(&file).unwrap().contains("127.0.0.77"));

    let _device = Device::in_folder(folder, "laptop", Clock::default()).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "nameserver 192.0.2.1\n");
}

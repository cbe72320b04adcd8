//! A running controller, its sockets and its disk.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "test equipment: a panic is a failed test"
)]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use control_proto::{
    AdminAnswer, AdminError, AdminRequest, Admission, ClientConfig, ClientStatus, ClockOffset,
    ControlClient, ControllerAddress, InviteRequest, Mode, NetworkMap, Now, StreamAction,
    UnixMillis,
};
use controller::network::{NetworkFolder, NewNetwork};
use controller::store::{Page, SqliteStore, Store as _};
use controller::{AdminClient, AdminClientError, Config, Controller};
use getrandom::SysRng;
use identity::{
    Binding, ChannelKey, DeviceKey, Invite, ServerAddress, Signed, TlsMode, TunnelKey, UnixTime,
};
use rand_core::UnwrapErr;
use tempfile::TempDir;
use tokio::time::{sleep_until, timeout};
use websocket::{Endpoint, Listener, Receiver, Sender, Tls};

const DEADLINE: Duration = Duration::from_secs(20);
const PAGE: Page = Page { before: None, limit: 100 };

fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Now { instant: Instant::now(), wall: UnixMillis(wall.as_millis().try_into().unwrap()) }
}

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

async fn created(folder: &Path) -> NetworkFolder {
    let network = NetworkFolder::new(folder.join("state"));
    let new = NewNetwork {
        name: "home".parse().unwrap(),
        mode: Mode::Simple,
        key_file: &folder.join("network.key"),
        passphrase: b"correct horse",
    };
    network.create(new, &mut rng(), UnixTime(now().wall.as_secs())).await.unwrap();
    network
}

fn config(folder: &Path, servers: Vec<ServerAddress>) -> Config {
    let socket = folder.join("admin.sock");
    Config { folder: NetworkFolder::new(folder.join("state")), servers, socket }
}

/// A controller behind a listener of its own.
async fn serving(folder: &Path) -> (tokio::task::JoinHandle<()>, AdminClient) {
    let mut listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = ServerAddress {
        host: "127.0.0.1".into(),
        port,
        addresses: Vec::new(),
        tls: TlsMode::Plain,
    };
    let config = config(folder, vec![server]);
    let admin = AdminClient::new(config.socket.clone());
    let controller = Controller::start(config).await.unwrap();
    let task = tokio::spawn(async move {
        loop {
            let upgrade = listener.accept().await;
            controller.handle(upgrade).await;
        }
    });
    (task, admin)
}

async fn invite(admin: &AdminClient) -> Invite {
    let request = AdminRequest::CreateInvite(InviteRequest::default());
    match admin.request(&request).await.unwrap() {
        AdminAnswer::InvitesCreated { invites } => invites[0].invite.parse().unwrap(),
        other => panic!("not the answer to an invite: {other:?}"),
    }
}

fn client(invite: &Invite, name: &str) -> ControlClient {
    let device_key = DeviceKey::generate(&mut rng());
    let channel_key = ChannelKey::generate(&mut rng());
    let binding = Binding {
        device: device_key.id(),
        tunnel_key: TunnelKey::generate(&mut rng()).public(),
        channel_key: channel_key.public(),
        number: 1,
        not_after: UnixTime(now().wall.as_secs()).plus(3600),
        capability: 1,
    };
    let config = ClientConfig {
        controller: ControllerAddress::from(invite),
        binding: Signed::sign(invite.network, &device_key, &binding),
        device_key,
        channel_key,
        admission: Admission::Invite {
            invite: Box::new(invite.clone()),
            name: name.parse().unwrap(),
        },
        clock_offset: ClockOffset(0),
    };
    ControlClient::new(config, NetworkMap::new(invite.network), now())
}

/// Drives a client over real sockets until `done` says so.
async fn drive(client: &mut ControlClient, done: impl Fn(&ControlClient) -> bool) {
    let mut socket: Option<(Sender, Receiver)> = None;
    let mut current = None;
    let end = Instant::now() + DEADLINE;
    while !done(client) {
        assert!(Instant::now() < end, "not in time; status {:?}", client.status());
        client.handle_timeout(&mut rng(), now());
        while let Some(action) = client.poll_action() {
            match action {
                StreamAction::Dial { connection, server, path } => {
                    let endpoint = Endpoint {
                        addresses: server.socket_addresses().collect(),
                        host: server.host.clone(),
                        tls: Tls::Plain,
                        path,
                        mark: None,
                        detour: None,
                    };
                    current = Some(connection);
                    match websocket::dial(&endpoint).await {
                        Ok(open) => {
                            socket = Some(open.split());
                            client.handle_opened(connection, &mut rng(), now());
                        }
                        Err(_) => client.handle_closed(connection, &mut rng(), now()),
                    }
                }
                StreamAction::Send { message, .. } => {
                    if let Some((sender, _)) = &mut socket {
                        sender.send(message.into()).await.unwrap();
                    }
                }
                StreamAction::Close { .. } => socket = None,
            }
        }
        while client.poll_event().is_some() {}
        if done(client) {
            return;
        }
        let timer = client.poll_timeout().map_or(end, |(at, _)| at.min(end));
        let (Some((_, receiver)), Some(connection)) = (&mut socket, current) else {
            sleep_until(timer.into()).await;
            continue;
        };
        tokio::select! {
            message = receiver.receive() => match message {
                Ok(Some(bytes)) => client.handle_message(connection, &bytes, &mut rng(), now()),
                Ok(None) | Err(_) => {
                    socket = None;
                    client.handle_closed(connection, &mut rng(), now());
                }
            },
            () = sleep_until(timer.into()) => {}
        }
    }
}

fn is_complete(peers: usize) -> impl Fn(&ControlClient) -> bool {
    move |client| client.status() == ClientStatus::Online && client.map().peers().count() == peers
}

#[tokio::test]
async fn nodes_join_over_websockets_and_are_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    created(folder.path()).await;
    let (task, admin) = serving(folder.path()).await;
    let mut first = client(&invite(&admin).await, "first");
    drive(&mut first, is_complete(1)).await;
    let mut second = client(&invite(&admin).await, "second");
    drive(&mut second, is_complete(2)).await;
    // The process ends as it stands; what was promised is on disk.
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let (_task, admin) = serving(folder.path()).await;
    let AdminAnswer::Devices { devices } = admin.request(&AdminRequest::Devices).await.unwrap()
    else {
        panic!("not a list of devices")
    };
    let mut names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["first", "second"]);
    let audit = admin.audit(PAGE).await.unwrap();
    assert_eq!(audit.len(), 4, "two invites and two devices: {audit:?}");
    assert!(admin.events(PAGE).await.unwrap().is_empty());
    admin.verify_logs().await.unwrap();
}

#[tokio::test]
async fn a_refusal_reaches_the_administrator_with_its_reason() {
    let folder = TempDir::new().unwrap();
    created(folder.path()).await;
    let (_task, admin) = serving(folder.path()).await;
    let device = DeviceKey::generate(&mut rng()).id();
    let refused = admin.request(&AdminRequest::RemoveDevice { device }).await;
    assert!(matches!(refused, Err(AdminClientError::Refused(AdminError::UnknownDevice))));
}

#[tokio::test]
async fn the_socket_of_a_running_controller_is_not_taken_over() {
    let folder = TempDir::new().unwrap();
    created(folder.path()).await;
    let (_task, _admin) = serving(folder.path()).await;
    let second = Controller::start(config(folder.path(), Vec::new())).await;
    assert!(matches!(second, Err(controller::StartError::Socket { .. })));
}

#[tokio::test]
async fn without_a_controller_the_client_says_so() {
    let folder = TempDir::new().unwrap();
    let admin = AdminClient::new(folder.path().join("admin.sock"));
    let answer = timeout(DEADLINE, admin.request(&AdminRequest::Network)).await.unwrap();
    assert!(matches!(answer, Err(AdminClientError::NotRunning { .. })));
}

#[tokio::test]
async fn what_an_administrator_was_told_is_on_disk_after_the_process_was_killed() {
    let folder = TempDir::new().unwrap();
    created(folder.path()).await;
    let controller = Controller::start(config(folder.path(), Vec::new())).await.unwrap();
    let request = AdminRequest::CreateInvite(InviteRequest::default());
    assert!(controller.admin(request).await.unwrap().is_ok());
    // Copied as a crash leaves it: the controller runs, nothing is closed or checkpointed.
    let crashed = folder.path().join("crashed");
    std::fs::create_dir(&crashed).unwrap();
    for file in ["controller.db", "controller.db-wal"] {
        std::fs::copy(folder.path().join("state").join(file), crashed.join(file)).unwrap();
    }
    let store = SqliteStore::open(&crashed.join("controller.db")).await.unwrap();
    assert_eq!(store.load().await.unwrap().unwrap().invites.len(), 1);
    store.verify_logs().await.unwrap();
    controller.stop().await.unwrap();
}

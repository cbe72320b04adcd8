//! Controller and relay in this process, so that what the relay receives can be searched.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::controller::AdminClient;
use ::controller::network::NewNetwork;
use ::relay::Capture;
use control_proto::{AdminAnswer, AdminRequest, InviteRequest, Mode};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{LOOK_AGAIN, failed};
use crate::cli::{ListenSettings, ServerArgs};
use crate::clock;
use crate::commands::serve::{Parts, Server, network_folder};
use crate::config::Config;
use crate::exit::{Exit, Failure};

/// What the relay received is kept up to here: all of the page and much of the measurements.
const CAPTURE: usize = 48 << 20;
/// How long the relay may take to become a member.
const RELAY_DEADLINE: Duration = Duration::from_secs(20);
/// The network's key is in a folder that is about to be removed.
const PASSPHRASE: &[u8] = b"of no use beyond this demonstration";

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct DemoServer {
    folder: PathBuf,
    admin: AdminClient,
    capture: Capture,
    /// The server ends when this is dropped.
    _running: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Failure>>,
}

impl DemoServer {
    /// Creates a network in `folder` and serves it on a free port of loopback, as `serve` does.
    pub(super) async fn start(folder: &Path, network: &str) -> Result<Self, Failure> {
        fs::create_dir_all(folder).map_err(failed)?;
        let config = Config { state_dir: Some(folder.to_owned()), ..Config::default() };
        let new = NewNetwork {
            mode: Mode::Simple,
            name: network.parse().map_err(failed)?,
            key_file: &folder.join("network.key"),
            passphrase: PASSPHRASE,
        };
        network_folder(&config).create(new, &mut clock::rng(), clock::unix_time()).await?;
        let listener = ListenSettings {
            listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
            hosts: vec![IpAddr::from(Ipv4Addr::LOCALHOST).into()],
            ..ListenSettings::default()
        };
        let args = ServerArgs {
            network: None,
            strict: false,
            region: None,
            no_datagrams: false,
            listener,
        };
        let admin = AdminClient::new(config.controller_socket()?);
        let capture = Capture::with_limit(CAPTURE);
        let server = Server::start(args, config, Parts::All, Some(capture.clone())).await?;
        let (running, stop) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            // Nothing is ever sent: it is the end of the sender that counts.
            let _ = stop.await;
        }));
        let server = Self { folder: folder.to_owned(), admin, capture, _running: running, task };
        server.wait_for_relay().await?;
        Ok(server)
    }

    /// Makes an invite for a device of this name.
    pub(super) async fn invite(&self, name: &str) -> Result<String, Failure> {
        let name = name.parse().map_err(failed)?;
        let request = InviteRequest { name: Some(name), ..InviteRequest::default() };
        let none = Failure::new(Exit::Other, "the controller made no invite");
        let AdminAnswer::InvitesCreated { invites } =
            self.ask(AdminRequest::CreateInvite(request)).await?
        else {
            return Err(none);
        };
        invites.into_iter().next().map(|created| created.invite).ok_or(none)
    }

    /// What the relay has received.
    pub(super) fn capture(&self) -> &Capture {
        &self.capture
    }

    /// The state folder, for commands that administrate.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until nodes can be told of the relay.
    async fn wait_for_relay(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + RELAY_DEADLINE;
        while Instant::now() < deadline && !self.task.is_finished() {
            if let AdminAnswer::Relays { relays } = self.ask(AdminRequest::Relays).await?
                && !relays.is_empty()
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(Failure::new(Exit::Timeout, "the relay did not join its network in time"))
    }

    async fn ask(&self, request: AdminRequest) -> Result<AdminAnswer, Failure> {
        self.admin.request(&request).await.map_err(failed)
    }
}

impl Drop for DemoServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

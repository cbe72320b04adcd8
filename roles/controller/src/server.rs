//! A running controller.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use control_proto::{AdminAnswer, AdminError, AdminRequest, ConnectionId, ControllerConfig};
use identity::{NetworkId, ServerAddress};
use local_api::BindError;
use noise_channel::{PathSecret, Service};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::debug;
use websocket::{Receiver, Sender, Upgrade};

use crate::admin;
use crate::driver::Command;
use crate::network::{NetworkError, NetworkFolder};
use crate::store::{SqliteStore, Store as _, StoreError};
use crate::supervisor::Supervisor;

/// Commands that wait for the loop; connections wait beyond that.
const COMMANDS: usize = 1_024;

/// Messages that wait for one node: the largest map in chunks, with room.
const MESSAGES: usize = 2_048;

/// What a controller needs to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where its network is.
    pub folder: NetworkFolder,
    /// Where nodes reach it, for invites.
    pub servers: Vec<ServerAddress>,
    /// Where administrators reach it: a unix socket for its owner alone.
    pub socket: PathBuf,
}

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The network cannot be read.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The administration socket cannot be had.
    #[error("{0}; another controller may be running, or name another --state-dir")]
    Socket(#[from] BindError),
}

/// The controller cannot keep changes now and so grants none, or it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the controller grants nothing now, since it cannot keep it, or is ending; its log says why, and `df` whether its disk is full"
)]
pub struct Ended;

/// The controller of one network. Several of them fit into one process and behind one listener:
/// each recognises its own connections by their path.
#[derive(Debug)]
pub struct Controller {
    network: NetworkId,
    path_secret: PathSecret,
    commands: mpsc::Sender<Command>,
    next: AtomicU64,
    driver: JoinHandle<Result<(), StoreError>>,
    api: AbortHandle,
    store: SqliteStore,
}

impl Controller {
    /// Starts the controller of the network in a folder. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let missing = || NetworkError::Missing(config.folder.path().to_owned());
        let secrets = config.folder.secrets()?.ok_or_else(missing)?;
        let store = SqliteStore::open(&config.folder.database()).await?;
        let stored = store.load().await?.ok_or_else(missing)?;
        let path_secret = PathSecret::from_bytes(*secrets.path_secret.0);
        let network = secrets.keys.network();
        let machine = ControllerConfig {
            keys: secrets.keys.clone(),
            channel_key: secrets.channel.clone(),
            path_secret: path_secret.clone(),
            servers: config.servers,
            epoch: secrets.epoch.clone(),
        };
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let api = admin::serve(&config.socket, commands.clone(), store.clone()).await?;
        let supervisor = Supervisor { config: machine, store: store.clone(), commands: inbox };
        let driver = tokio::spawn(supervisor.run(stored));
        Ok(Self { network, path_secret, commands, next: AtomicU64::new(1), driver, api, store })
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// Whether a request's path belongs to this controller.
    #[must_use]
    pub fn claims(&self, path: &str) -> bool {
        self.path_secret.recognise(Service::Control, path).is_some()
    }

    /// Serves a client that asked for a path of this controller; any other is turned away.
    pub async fn handle(&self, upgrade: Upgrade) {
        let Some(mask) = self.path_secret.recognise(Service::Control, upgrade.path()) else {
            upgrade.reject_not_found().await;
            return;
        };
        let connection = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        let commands = self.commands.clone();
        tokio::spawn(async move {
            let socket = match upgrade.accept().await {
                Ok(socket) => socket,
                Err(error) => {
                    debug!(%error, "a connection ended before it began");
                    return;
                }
            };
            let (sender, receiver) = socket.split();
            let (messages, outbox) = mpsc::channel(MESSAGES);
            if commands.send(Command::Opened(connection, mask, messages)).await.is_err() {
                return;
            }
            tokio::select! {
                () = write(sender, outbox) => {}
                () = read(connection, receiver, &commands) => {}
            }
            // If the loop has ended, so has the connection.
            let _ = commands.send(Command::Closed(connection)).await;
        });
    }

    /// Asks for something on behalf of an administrator.
    ///
    /// # Errors
    /// [`Ended`] if the controller cannot keep changes or does not run any more; inside, why it was not done.
    pub async fn admin(
        &self,
        request: AdminRequest,
    ) -> Result<Result<AdminAnswer, AdminError>, Ended> {
        ask(&self.commands, request).await
    }

    /// Waits until the controller ends by itself.
    ///
    /// # Errors
    /// If what it keeps makes no sense.
    pub async fn ended(&mut self) -> Result<(), StoreError> {
        (&mut self.driver).await.unwrap_or(Ok(()))
    }

    /// Ends the controller once everything under way is kept.
    ///
    /// # Errors
    /// If the last changes cannot be kept.
    pub async fn stop(mut self) -> Result<(), StoreError> {
        self.api.abort();
        // If the loop has ended already, its result is there.
        let _ = self.commands.send(Command::Stop).await;
        let result = if self.driver.is_finished() { Ok(()) } else { self.ended().await };
        self.store.close().await;
        result
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.api.abort();
        self.driver.abort();
    }
}

/// Sends a request to the loop and waits for its answer.
pub(crate) async fn ask(
    commands: &mpsc::Sender<Command>,
    request: AdminRequest,
) -> Result<Result<AdminAnswer, AdminError>, Ended> {
    let (answer, answered) = oneshot::channel();
    commands.send(Command::Admin(request, answer)).await.map_err(|_| Ended)?;
    answered.await.map_err(|_| Ended)
}

async fn write(mut sender: Sender, mut outbox: mpsc::Receiver<Bytes>) {
    while let Some(message) = outbox.recv().await {
        if sender.feed(message).await.is_err() {
            return;
        }
        while let Ok(message) = outbox.try_recv() {
            if sender.feed(message).await.is_err() {
                return;
            }
        }
        if sender.flush().await.is_err() {
            return;
        }
    }
    sender.close().await;
}

async fn read(connection: ConnectionId, mut receiver: Receiver, commands: &mpsc::Sender<Command>) {
    while let Ok(Some(message)) = receiver.receive().await {
        if commands.send(Command::Message(connection, message)).await.is_err() {
            return;
        }
    }
}

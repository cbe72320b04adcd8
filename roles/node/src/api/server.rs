//! Serving the local API.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::Listener,
};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream, unix::SocketAddr},
    sync::{broadcast, mpsc, oneshot},
    time::sleep,
};
use tracing::{debug, warn};

use super::{
    ApiError, Event, JoinRequest, Joined, LeaveRequest, Netcheck, PingReply, PingRequest, Problem,
    Status, Why,
};

/// An invite is the longest thing in any request.
const MAX_BODY: usize = 64 * 1024;
/// Without file descriptors there is no point in asking for a connection again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the answer to a command goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// What the API asks of the node.
#[derive(Debug)]
pub(crate) enum Command {
    Status(Reply<Status>),
    Netcheck(Reply<Netcheck>),
    Why(String, Reply<Why>),
    Ping(PingRequest, Reply<PingReply>),
    Join(JoinRequest, Reply<Joined>),
    Leave(LeaveRequest, Reply<()>),
    Down(Reply<()>),
}

/// The API's socket, which disappears with it.
#[derive(Debug)]
pub(crate) struct Server {
    socket: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Takes the socket's path, which must not be in use by a running node.
    pub(crate) async fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let socket = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Serves until the future is dropped.
    pub(crate) async fn run(
        self,
        commands: mpsc::Sender<Command>,
        events: broadcast::Sender<Event>,
    ) {
        let Self { socket, path } = self;
        let _removed_at_the_end = SocketFile(path);
        let own_uid = socket.local_addr().ok().and_then(|_| own_uid(&_removed_at_the_end.0));
        let listener = OwnerOnly { socket, own_uid };
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/netcheck", get(netcheck))
            .route("/v1/why", get(why))
            .route("/v1/ping", post(ping))
            .route("/v1/join", post(join))
            .route("/v1/leave", post(leave))
            .route("/v1/down", post(down))
            .route("/v1/events", get(follow))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(Shared { commands, events });
        if let Err(error) = axum::serve(listener, router).await {
            warn!(%error, "the local API ended");
        }
    }
}

/// The socket file belongs to the user who runs the node.
fn own_uid(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|found| std::os::unix::fs::MetadataExt::uid(&found))
}

struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it stays, the next start finds that nobody answers on it and replaces it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Accepts root and the user who runs the node, whatever the socket's permissions say.
struct OwnerOnly {
    socket: UnixListener,
    own_uid: Option<u32>,
}

impl Listener for OwnerOnly {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == 0 || Some(peer.uid()) == self.own_uid => {
                        return (stream, address);
                    }
                    Ok(peer) => debug!(uid = peer.uid(), "another user asked the local API"),
                    Err(error) => warn!(%error, "cannot tell who asks the local API"),
                },
                Err(error) => {
                    warn!(%error, "cannot accept on the local API");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.socket.local_addr()
    }
}

#[derive(Clone)]
struct Shared {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
}

impl Shared {
    async fn ask<T: Serialize>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Response {
        let (reply, answer) = oneshot::channel();
        let stopping = || ApiError {
            problem: Problem::System,
            message: "the node is stopping; start it again with `shadowmesh up`".to_owned(),
        };
        if self.commands.send(command(reply)).await.is_err() {
            return refusal(&stopping());
        }
        match answer.await.unwrap_or_else(|_| Err(stopping())) {
            Ok(value) => Json(value).into_response(),
            Err(error) => refusal(&error),
        }
    }
}

fn refusal(error: &ApiError) -> Response {
    let status = match error.problem {
        Problem::Usage => StatusCode::BAD_REQUEST,
        Problem::NotFound => StatusCode::NOT_FOUND,
        Problem::Refused => StatusCode::FORBIDDEN,
        Problem::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Problem::Clock => StatusCode::CONFLICT,
        Problem::System => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(error)).into_response()
}

async fn status(State(node): State<Shared>) -> Response {
    node.ask(Command::Status).await
}

async fn netcheck(State(node): State<Shared>) -> Response {
    node.ask(Command::Netcheck).await
}

#[derive(Deserialize)]
struct WhyQuery {
    peer: String,
}

async fn why(State(node): State<Shared>, Query(query): Query<WhyQuery>) -> Response {
    node.ask(|reply| Command::Why(query.peer, reply)).await
}

async fn ping(State(node): State<Shared>, Json(request): Json<PingRequest>) -> Response {
    node.ask(|reply| Command::Ping(request, reply)).await
}

async fn join(State(node): State<Shared>, Json(request): Json<JoinRequest>) -> Response {
    node.ask(|reply| Command::Join(request, reply)).await
}

async fn leave(State(node): State<Shared>, Json(request): Json<LeaveRequest>) -> Response {
    node.ask(|reply| Command::Leave(request, reply)).await
}

async fn down(State(node): State<Shared>) -> Response {
    node.ask(Command::Down).await
}

async fn follow(State(node): State<Shared>) -> Response {
    let lines = stream::unfold(node.events.subscribe(), async |mut events| {
        loop {
            match events.recv().await {
                Ok(event) => {
                    let line = serde_json::to_string(&event).map(|line| line + "\n");
                    return Some((line, events));
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    Body::from_stream(lines).into_response()
}

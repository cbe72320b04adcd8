//! Serving the local API.

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use local_api::OwnerListener;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::warn;

use super::{
    ApiError, Event, JoinRequest, Joined, LeaveRequest, Netcheck, PingReply, PingRequest, Problem,
    Status, Why,
};

/// An invite is the longest thing in any request.
const MAX_BODY: usize = 64 * 1024;

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

/// Serves until `stop`, and then until requests under way are answered.
pub(crate) async fn serve(
    listener: OwnerListener,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
    stop: oneshot::Receiver<()>,
) {
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
    let stopped = async {
        // Whoever drops the sender wants the same.
        let _ = stop.await;
    };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
        warn!(%error, "the local API ended");
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

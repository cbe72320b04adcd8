//! Serving administrators.

use std::path::Path;

use axum::extract::{DefaultBodyLimit, Path as Segment, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use control_proto::{
    AdminError, AdminRequest, InviteRequest, NameView, PeerRequest, SettingsChange,
};
use local_api::{BindError, OwnerListener};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::warn;

use crate::driver::Command;
use crate::server::{Ended, ask};
use crate::store::{MAX_PAGE, Page, SqliteStore, Store as _, StoreError};

/// The largest request: as many signed items as are published at once.
const MAX_BODY: usize = 64 * 1024;

/// Rows of a log unless asked otherwise.
const PAGE: u32 = 100;

#[derive(Debug, Clone)]
struct Shared {
    commands: mpsc::Sender<Command>,
    store: SqliteStore,
}

/// Serves until aborted.
pub(crate) async fn serve(
    socket: &Path,
    commands: mpsc::Sender<Command>,
    store: SqliteStore,
) -> Result<AbortHandle, BindError> {
    let listener = OwnerListener::bind(socket).await?;
    let router = Router::new()
        .route("/v1/network", get(network).patch(change_settings))
        .route("/v1/invites", get(invites).post(create_invite))
        .route("/v1/invites/{key}", delete(revoke_invite))
        .route("/v1/devices", get(devices))
        .route("/v1/devices/{id}", patch(rename).delete(remove))
        .route("/v1/devices/{id}/approve", post(approve))
        .route("/v1/outline", get(outline))
        .route("/v1/unsigned", get(unsigned))
        .route("/v1/records", post(publish))
        .route("/v1/peers", get(peers).post(add_peer))
        .route("/v1/peers/{name}", delete(remove_peer))
        .route("/v1/names", get(names).post(add_name))
        .route("/v1/names/{name}", delete(remove_name))
        .route("/v1/relays", get(relays))
        .route("/v1/relays/{id}", delete(withdraw))
        .route("/v1/events", get(events))
        .route("/v1/audit", get(audit))
        .route("/v1/logs/verify", post(verify))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Shared { commands, store });
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            warn!(%error, "administration ended");
        }
    });
    Ok(task.abort_handle())
}

/// The body of a renaming.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewName {
    pub(crate) name: String,
}

/// The body of a publication.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SignedItems {
    pub(crate) items: Vec<String>,
}

/// Which part of a log is asked for.
#[derive(Debug, Deserialize)]
struct Part {
    before: Option<u64>,
    limit: Option<u32>,
}

impl From<Part> for Page {
    fn from(part: Part) -> Self {
        Self { before: part.before, limit: part.limit.unwrap_or(PAGE).min(MAX_PAGE) }
    }
}

async fn network(State(shared): State<Shared>) -> Response {
    shared.answer(AdminRequest::Network).await
}

async fn change_settings(
    State(shared): State<Shared>,
    Json(change): Json<SettingsChange>,
) -> Response {
    shared.answer(AdminRequest::ChangeSettings(change)).await
}

async fn invites(State(shared): State<Shared>) -> Response {
    shared.answer(AdminRequest::Invites).await
}

async fn create_invite(
    State(shared): State<Shared>,
    Json(request): Json<InviteRequest>,
) -> Response {
    shared.answer(AdminRequest::CreateInvite(request)).await
}

async fn revoke_invite(State(shared): State<Shared>, Segment(key): Segment<String>) -> Response {
    match key.parse() {
        Ok(invite) => shared.answer(AdminRequest::RevokeInvite { invite }).await,
        Err(_) => refusal(&AdminError::UnknownInvite),
    }
}

async fn devices(State(shared): State<Shared>) -> Response {
    shared.answer(AdminRequest::Devices).await
}

async fn rename(
    State(shared): State<Shared>,
    Segment(id): Segment<String>,
    Json(new): Json<NewName>,
) -> Response {
    match (id.parse(), new.name.parse()) {
        (Ok(device), Ok(name)) => shared.answer(AdminRequest::RenameDevice { device, name }).await,
        (Err(_), _) => refusal(&AdminError::UnknownDevice),
        (Ok(_), Err(error)) => refusal(&AdminError::OutOfBounds { what: error.to_string() }),
    }
}

async fn remove(State(shared): State<Shared>, Segment(id): Segment<String>) -> Response {
    match id.parse() {
        Ok(device) => shared.answer(AdminRequest::RemoveDevice { device }).await,
        Err(_) => refusal(&AdminError::UnknownDevice),
    }
}

async fn approve(State(shared): State<Shared>, Segment(id): Segment<String>) -> Response {
    match id.parse() {
        Ok(device) => shared.answer(AdminRequest::ApproveDevice { device }).await,
        Err(_) => refusal(&AdminError::UnknownDevice),
    }
}

async fn outline(State(shared): State<Shared>) -> Response {
    shared.answer(AdminRequest::Outline).await
}

async fn unsigned(State(shared): State<Shared>) -> Response {
    shared.answer(AdminRequest::Unsigned).await
}

async fn publish(State(shared): State<Shared>, Json(signed): Json<SignedItems>) -> Response {
    shared.answer(AdminRequest::Publish { items: signed.items }).await
}

async fn peers(State(shared): State<Shared>) -> Response {
    shared.answer(AdminRequest::Peers).await
}

async fn add_peer(State(shared): State<Shared>, Json(request): Json<PeerRequest>) -> Response {
    shared.answer(AdminRequest::AddPeer(request)).await
}

async fn remove_peer(State(shared): State<Shared>, Segment(name): Segment<String>) -> Response {
    match name.parse() {
        Ok(name) => shared.answer(AdminRequest::RemovePeer { name }).await,
        Err(_) => refusal(&AdminError::UnknownPeer),
    }
}

async fn names(State(shared): State<Shared>) -> Response {
    shared.answer(AdminRequest::Names).await
}

async fn add_name(State(shared): State<Shared>, Json(request): Json<NameView>) -> Response {
    shared.answer(AdminRequest::AddName(request)).await
}

async fn remove_name(State(shared): State<Shared>, Segment(name): Segment<String>) -> Response {
    shared.answer(AdminRequest::RemoveName { name }).await
}

async fn relays(State(shared): State<Shared>) -> Response {
    shared.answer(AdminRequest::Relays).await
}

async fn withdraw(State(shared): State<Shared>, Segment(id): Segment<String>) -> Response {
    match id.parse() {
        Ok(device) => shared.answer(AdminRequest::WithdrawRelay { device }).await,
        Err(_) => refusal(&AdminError::UnknownRelay),
    }
}

async fn events(State(shared): State<Shared>, Query(part): Query<Part>) -> Response {
    rows(shared.store.events(part.into()).await)
}

async fn audit(State(shared): State<Shared>, Query(part): Query<Part>) -> Response {
    rows(shared.store.audit(part.into()).await)
}

async fn verify(State(shared): State<Shared>) -> Response {
    rows(shared.store.verify_logs().await)
}

impl Shared {
    async fn answer(&self, request: AdminRequest) -> Response {
        match ask(&self.commands, request).await {
            Ok(Ok(answer)) => Json(answer).into_response(),
            Ok(Err(error)) => refusal(&error),
            Err(Ended) => (StatusCode::SERVICE_UNAVAILABLE, Ended.to_string()).into_response(),
        }
    }
}

fn refusal(error: &AdminError) -> Response {
    let status = match error {
        AdminError::UnknownDevice
        | AdminError::UnknownInvite
        | AdminError::UnknownPeer
        | AdminError::UnknownName
        | AdminError::UnknownRelay => StatusCode::NOT_FOUND,
        AdminError::NameTaken { .. } | AdminError::Full { .. } => StatusCode::CONFLICT,
        AdminError::KeyNotHeld { .. }
        | AdminError::NotBelieved { .. }
        | AdminError::OtherNetwork => StatusCode::FORBIDDEN,
        AdminError::OutOfBounds { .. } | AdminError::NameForMany => StatusCode::BAD_REQUEST,
    };
    (status, Json(error)).into_response()
}

fn rows(result: Result<impl Serialize, StoreError>) -> Response {
    match result {
        Ok(rows) => Json(rows).into_response(),
        Err(error) => {
            warn!(%error, "a log cannot be read");
            (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

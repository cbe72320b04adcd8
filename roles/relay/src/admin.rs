//! Asking a relay on the same host: HTTP with JSON on a unix socket, for its owner alone.
//!
//! | request | what |
//! |---|---|
//! | `POST /v1/drain` | sends devices to other relays, and answers when nothing passes any more |
//! | `DELETE /v1/drain` | lets them come back |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use futures_util::future::join_all;
use local_api::{BindError, Bytes, Client, Method, OwnerListener, RequestError};
use serde::Deserialize;
use tokio::task::AbortHandle;
use tracing::warn;

use crate::draining::{Drained, Draining};
use crate::membership::Membership;

/// Answers at a relay's socket until it is dropped.
#[derive(Debug)]
pub struct AdminListener {
    task: AbortHandle,
}

impl AdminListener {
    /// Takes the socket's path, for what concerns these memberships.
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn start(socket: &Path, memberships: &[Membership]) -> Result<Self, BindError> {
        let listener = OwnerListener::bind(socket).await?;
        let draining: Arc<[_]> = memberships.iter().map(Membership::draining).cloned().collect();
        let router =
            Router::new().route("/v1/drain", post(drain).delete(undo)).with_state(draining);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                warn!(%error, "administration ended");
            }
        });
        Ok(Self { task: task.abort_handle() })
    }
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn drain(State(all): State<Arc<[Draining]>>) -> Json<Vec<Drained>> {
    Json(join_all(all.iter().map(Draining::begin)).await)
}

async fn undo(State(all): State<Arc<[Draining]>>) -> Json<()> {
    join_all(all.iter().map(Draining::undo)).await;
    Json(())
}

/// Speaks to the relay behind a socket.
#[derive(Clone, Debug)]
pub struct AdminClient {
    client: Client,
}

/// Why a request to a relay failed.
pub type AdminClientError = RequestError<Never>;

/// A relay refuses nothing.
#[derive(Debug, Deserialize, thiserror::Error)]
pub enum Never {}

impl AdminClient {
    /// A client for the relay whose socket is at this path.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { client: Client::new(socket) }
    }

    /// Sends devices to other relays and waits until nothing passes any more.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub async fn drain(&self) -> Result<Vec<Drained>, AdminClientError> {
        self.client.ask(Method::POST, "/v1/drain", Bytes::new()).await
    }

    /// Lets devices come back.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub async fn undo_drain(&self) -> Result<(), AdminClientError> {
        self.client.ask(Method::DELETE, "/v1/drain", Bytes::new()).await
    }
}

//! Asking a running controller.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use control_proto::{AdminAnswer, AdminError, AdminRequest, AuditEntry, EventRecord};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::api::NewName;
use crate::store::{Logged, Page};

/// The list of all devices of the largest network stays below this.
const MAX_ANSWER: usize = 64 << 20;

/// Nothing that an administrator asks takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Speaks to the controller behind a socket.
#[derive(Debug, Clone)]
pub struct AdminClient {
    socket: PathBuf,
}

/// Why a request to a controller failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminClientError {
    /// Nobody answers at the socket.
    #[error("no controller answers at {}: {source}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The controller refuses.
    #[error(transparent)]
    Refused(AdminError),
    /// The answer is not what a controller of this version gives.
    #[error("the controller's answer is not understood; is it of another version?")]
    Protocol,
    /// The controller failed; its words.
    #[error("the controller failed: {0}")]
    Failed(String),
    /// No answer came in time.
    #[error("the controller did not answer in time; its log may say why")]
    Timeout,
}

impl AdminClient {
    /// A client for the controller whose socket is at this path.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where the controller is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes a request.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub async fn request(&self, request: &AdminRequest) -> Result<AdminAnswer, AdminClientError> {
        let (method, path, body) = route(request)?;
        self.ask(method, &path, body).await
    }

    /// Security events, newest first.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub async fn events(&self, page: Page) -> Result<Vec<Logged<EventRecord>>, AdminClientError> {
        self.ask(Method::GET, &paged("events", page), Bytes::new()).await
    }

    /// Audit entries, newest first.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub async fn audit(&self, page: Page) -> Result<Vec<Logged<AuditEntry>>, AdminClientError> {
        self.ask(Method::GET, &paged("audit", page), Bytes::new()).await
    }

    /// Checks that neither log was changed after the fact.
    ///
    /// # Errors
    /// [`AdminClientError::Failed`] names the row that does not follow; see there for the others.
    pub async fn verify_logs(&self) -> Result<(), AdminClientError> {
        self.ask(Method::POST, "/v1/logs/verify", Bytes::new()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, AdminClientError> {
        let exchange = self.exchange(method, path, body);
        timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or(Err(AdminClientError::Timeout))
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, AdminClientError> {
        let socket = self.socket.clone();
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| AdminClientError::NotRunning { socket, source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(protocol)?;
        let response = sender.send_request(request).await.map_err(protocol)?;
        let succeeded = response.status().is_success();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| AdminClientError::Protocol)?.to_bytes();
        if succeeded {
            return serde_json::from_slice(&body).map_err(protocol);
        }
        match serde_json::from_slice(&body) {
            Ok(refusal) => Err(AdminClientError::Refused(refusal)),
            Err(_) => Err(AdminClientError::Failed(String::from_utf8_lossy(&body).into_owned())),
        }
    }
}

fn protocol<E>(_: E) -> AdminClientError {
    AdminClientError::Protocol
}

fn paged(log: &str, page: Page) -> String {
    let before = page.before.map(|before| format!("&before={before}")).unwrap_or_default();
    format!("/v1/{log}?limit={}{before}", page.limit)
}

fn route(request: &AdminRequest) -> Result<(Method, String, Bytes), AdminClientError> {
    let plain = |method, path: &str| Ok((method, path.to_owned(), Bytes::new()));
    match request {
        AdminRequest::Network => plain(Method::GET, "/v1/network"),
        AdminRequest::ChangeSettings(change) => {
            Ok((Method::PATCH, "/v1/network".to_owned(), json(change)?))
        }
        AdminRequest::CreateInvite(invite) => {
            Ok((Method::POST, "/v1/invites".to_owned(), json(invite)?))
        }
        AdminRequest::Invites => plain(Method::GET, "/v1/invites"),
        AdminRequest::RevokeInvite { invite } => {
            plain(Method::DELETE, &format!("/v1/invites/{invite}"))
        }
        AdminRequest::Devices => plain(Method::GET, "/v1/devices"),
        AdminRequest::ApproveDevice { device } => {
            plain(Method::POST, &format!("/v1/devices/{device}/approve"))
        }
        AdminRequest::RenameDevice { device, name } => {
            let body = json(&NewName { name: name.to_string() })?;
            Ok((Method::PATCH, format!("/v1/devices/{device}"), body))
        }
        AdminRequest::RemoveDevice { device } => {
            plain(Method::DELETE, &format!("/v1/devices/{device}"))
        }
        AdminRequest::Relays => plain(Method::GET, "/v1/relays"),
        AdminRequest::WithdrawRelay { device } => {
            plain(Method::DELETE, &format!("/v1/relays/{device}"))
        }
    }
}

fn json(body: &impl Serialize) -> Result<Bytes, AdminClientError> {
    Ok(serde_json::to_vec(body).map_err(protocol)?.into())
}

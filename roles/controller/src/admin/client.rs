//! Asking a running controller.

use std::path::{Path, PathBuf};

use control_proto::{AdminAnswer, AdminError, AdminRequest, AuditEntry, EventRecord};
use local_api::{Bytes, Client, Method, RequestError};
use serde::Serialize;

use super::api::{NewName, SignedItems};
use crate::store::{Logged, Page};

/// Speaks to the controller behind a socket.
#[derive(Debug, Clone)]
pub struct AdminClient {
    client: Client,
}

/// Why a request to a controller failed.
pub type AdminClientError = RequestError<AdminError>;

impl AdminClient {
    /// A client for the controller whose socket is at this path.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { client: Client::new(socket) }
    }

    /// Where the controller is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.client.socket()
    }

    /// Makes a request.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub async fn request(&self, request: &AdminRequest) -> Result<AdminAnswer, AdminClientError> {
        let (method, path, body) = route(request)?;
        self.client.ask(method, &path, body).await
    }

    /// Security events, newest first.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub async fn events(&self, page: Page) -> Result<Vec<Logged<EventRecord>>, AdminClientError> {
        self.client.ask(Method::GET, &paged("events", page), Bytes::new()).await
    }

    /// Audit entries, newest first.
    ///
    /// # Errors
    /// See [`AdminClientError`].
    pub async fn audit(&self, page: Page) -> Result<Vec<Logged<AuditEntry>>, AdminClientError> {
        self.client.ask(Method::GET, &paged("audit", page), Bytes::new()).await
    }

    /// Checks that neither log was changed after the fact.
    ///
    /// # Errors
    /// [`AdminClientError::Failed`] names the row that does not follow; see there for the others.
    pub async fn verify_logs(&self) -> Result<(), AdminClientError> {
        self.client.ask(Method::POST, "/v1/logs/verify", Bytes::new()).await
    }
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
        AdminRequest::Outline => plain(Method::GET, "/v1/outline"),
        AdminRequest::Unsigned => plain(Method::GET, "/v1/unsigned"),
        AdminRequest::Publish { items } => {
            let body = json(&SignedItems { items: items.clone() })?;
            Ok((Method::POST, "/v1/records".to_owned(), body))
        }
        AdminRequest::Peers => plain(Method::GET, "/v1/peers"),
        AdminRequest::AddPeer(peer) => Ok((Method::POST, "/v1/peers".to_owned(), json(peer)?)),
        AdminRequest::RemovePeer { name } => plain(Method::DELETE, &format!("/v1/peers/{name}")),
        AdminRequest::Names => plain(Method::GET, "/v1/names"),
        AdminRequest::AddName(name) => Ok((Method::POST, "/v1/names".to_owned(), json(name)?)),
        AdminRequest::RemoveName { name } => plain(Method::DELETE, &format!("/v1/names/{name}")),
        AdminRequest::Relays => plain(Method::GET, "/v1/relays"),
        AdminRequest::WithdrawRelay { device } => {
            plain(Method::DELETE, &format!("/v1/relays/{device}"))
        }
    }
}

fn json(body: &impl Serialize) -> Result<Bytes, AdminClientError> {
    Ok(serde_json::to_vec(body).map_err(|_| RequestError::Protocol)?.into())
}

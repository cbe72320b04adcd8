//! Asking a running node.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{Method, body::Incoming};
use local_api::RequestError;

use super::{
    ApiError, Event, JoinRequest, Joined, LeaveRequest, Netcheck, PingReply, PingRequest, Status,
    Why,
};

/// No event is longer.
const MAX_EVENT: usize = 64 * 1024;

/// Speaks to the node behind a socket.
#[derive(Clone, Debug)]
pub struct Client {
    api: local_api::Client,
}

impl Client {
    /// A client for the node whose API is at this path.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { api: local_api::Client::new(socket) }
    }

    /// Where the node's API is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.api.socket()
    }

    /// How the node and its networks are.
    ///
    /// # Errors
    /// When no node runs there or it does not serve the request.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.api.get("/v1/status").await
    }

    /// What the node's surroundings allow.
    ///
    /// # Errors
    /// When no node runs there or it does not serve the request.
    pub async fn netcheck(&self) -> Result<Netcheck, ClientError> {
        self.api.get("/v1/netcheck").await
    }

    /// Why traffic to a peer takes the path it takes.
    ///
    /// # Errors
    /// When no node runs there or it knows no such peer.
    pub async fn why(&self, peer: &str) -> Result<Why, ClientError> {
        self.api.get(&format!("/v1/why?peer={}", percent_encode(peer))).await
    }

    /// Measures the round trip to a peer.
    ///
    /// # Errors
    /// When no node runs there, it knows no such peer, or the peer does not answer.
    pub async fn ping(&self, peer: &str) -> Result<PingReply, ClientError> {
        self.api.post("/v1/ping", &PingRequest { peer: peer.to_owned() }).await
    }

    /// Joins a network by invite.
    ///
    /// # Errors
    /// When no node runs there or the invite does not let it in.
    pub async fn join(&self, invite: &str) -> Result<Joined, ClientError> {
        self.api.post("/v1/join", &JoinRequest { invite: invite.to_owned() }).await
    }

    /// Leaves a network and forgets its keys; the only one when none is named.
    ///
    /// # Errors
    /// When no node runs there or it is in no such network.
    pub async fn leave(&self, network: Option<&str>) -> Result<(), ClientError> {
        self.api.post("/v1/leave", &LeaveRequest { network: network.map(str::to_owned) }).await
    }

    /// Stops the node.
    ///
    /// # Errors
    /// When no node runs there.
    pub async fn down(&self) -> Result<(), ClientError> {
        self.api.post("/v1/down", &()).await
    }

    /// Follows what happens from now on.
    ///
    /// # Errors
    /// When no node runs there.
    pub async fn events(&self) -> Result<Events, ClientError> {
        let response = self.api.send(Method::GET, "/v1/events", Bytes::new()).await?;
        Ok(Events { body: response.into_body(), buffer: BytesMut::new() })
    }
}

/// What happens at a node, as it happens.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: BytesMut,
}

impl Events {
    /// The next event; `None` when the node has stopped.
    ///
    /// # Errors
    /// When what comes is not an event.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(|_| ClientError::Protocol);
            }
            if self.buffer.len() > MAX_EVENT {
                return Err(ClientError::Protocol);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

/// Why a node did not answer as wished.
pub type ClientError = RequestError<ApiError>;

/// Everything but unreserved characters (RFC 3986 section 2.3).
fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

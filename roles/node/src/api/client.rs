//! Asking a running node.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::{
    ApiError, Event, JoinRequest, Joined, LeaveRequest, Netcheck, PingReply, PingRequest, Status,
    Why,
};

/// A status of the largest network stays below this.
const MAX_ANSWER: usize = 64 << 20;
/// Joining may have to wait for a controller; nothing takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Speaks to the node behind a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the node whose API is at this path.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where the node's API is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How the node and its networks are.
    ///
    /// # Errors
    /// When no node runs there or it does not serve the request.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// What the node's surroundings allow.
    ///
    /// # Errors
    /// When no node runs there or it does not serve the request.
    pub async fn netcheck(&self) -> Result<Netcheck, ClientError> {
        self.get("/v1/netcheck").await
    }

    /// Why traffic to a peer takes the path it takes.
    ///
    /// # Errors
    /// When no node runs there or it knows no such peer.
    pub async fn why(&self, peer: &str) -> Result<Why, ClientError> {
        self.get(&format!("/v1/why?peer={}", percent_encode(peer))).await
    }

    /// Measures the round trip to a peer.
    ///
    /// # Errors
    /// When no node runs there, it knows no such peer, or the peer does not answer.
    pub async fn ping(&self, peer: &str) -> Result<PingReply, ClientError> {
        self.post("/v1/ping", &PingRequest { peer: peer.to_owned() }).await
    }

    /// Joins a network by invite.
    ///
    /// # Errors
    /// When no node runs there or the invite does not let it in.
    pub async fn join(&self, invite: &str) -> Result<Joined, ClientError> {
        self.post("/v1/join", &JoinRequest { invite: invite.to_owned() }).await
    }

    /// Leaves a network and forgets its keys; the only one when none is named.
    ///
    /// # Errors
    /// When no node runs there or it is in no such network.
    pub async fn leave(&self, network: Option<&str>) -> Result<(), ClientError> {
        self.post("/v1/leave", &LeaveRequest { network: network.map(str::to_owned) }).await
    }

    /// Stops the node.
    ///
    /// # Errors
    /// When no node runs there.
    pub async fn down(&self) -> Result<(), ClientError> {
        self.post("/v1/down", &()).await
    }

    /// Follows what happens from now on.
    ///
    /// # Errors
    /// When no node runs there.
    pub async fn events(&self) -> Result<Events, ClientError> {
        let response = self.send(Method::GET, "/v1/events", Bytes::new()).await?;
        Ok(Events { body: response.into_body(), buffer: BytesMut::new() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|_| ClientError::Protocol)?;
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let exchange = async {
            let response = self.send(method, path, body).await?;
            let succeeded = response.status().is_success();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|_| ClientError::Protocol)?
                .to_bytes();
            if succeeded {
                return serde_json::from_slice(&body).map_err(|_| ClientError::Protocol);
            }
            let refusal: ApiError =
                serde_json::from_slice(&body).map_err(|_| ClientError::Protocol)?;
            Err(ClientError::Refused(refusal))
        };
        timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or(Err(ClientError::Timeout))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let not_running = |source| ClientError::NotRunning { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(not_running)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| ClientError::Protocol)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|_| ClientError::Protocol)?;
        sender.send_request(request).await.map_err(|_| ClientError::Protocol)
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
            if self.buffer.len() > MAX_ANSWER {
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
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens on the socket, or we may not connect.
    #[error("no node answers at {}: {source}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The node said no.
    #[error(transparent)]
    Refused(ApiError),
    /// What came back is not an answer; perhaps the node is of another version.
    #[error("the node's answer makes no sense; is it of another version?")]
    Protocol,
    /// The node does not answer.
    #[error("the node does not answer in time")]
    Timeout,
}

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

//! Asking what runs on this host.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A listing of the largest network stays below this.
const MAX_ANSWER: usize = 64 << 20;
/// Joining may have to wait for a controller; nothing takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Speaks to whoever listens on a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer. `R` is how the other side says no.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError<R> {
    /// Nobody listens on the socket, or we may not connect.
    #[error("nobody answers at {}: {source}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The other side said no.
    #[error(transparent)]
    Refused(R),
    /// The other side failed; its words.
    #[error("it failed: {0}")]
    Failed(String),
    /// What came back is not an answer.
    #[error("the answer makes no sense; is it of another version?")]
    Protocol,
    /// No answer came.
    #[error("no answer in time")]
    Timeout,
}

impl Client {
    /// A client for the socket at this path.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn get<T: DeserializeOwned, R: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<T, RequestError<R>> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Changes something, or asks with a body.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn post<T: DeserializeOwned, R: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, RequestError<R>> {
        let body = serde_json::to_vec(body).map_err(|_| RequestError::Protocol)?;
        self.ask(Method::POST, path, body.into()).await
    }

    /// Asks with any method and body.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn ask<T: DeserializeOwned, R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, RequestError<R>> {
        let exchange = async {
            let response = self.send(method, path, body).await?;
            let succeeded = response.status().is_success();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|_| RequestError::Protocol)?.to_bytes();
            if succeeded {
                return serde_json::from_slice(&body).map_err(|_| RequestError::Protocol);
            }
            let failed = |_| RequestError::Failed(String::from_utf8_lossy(&body).into_owned());
            Err(serde_json::from_slice(&body).map_or_else(failed, RequestError::Refused))
        };
        timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or(Err(RequestError::Timeout))
    }

    /// Sends a request and returns the answer with its body still to come.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn send<R>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, RequestError<R>> {
        let not_running = |source| RequestError::NotRunning { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(not_running)?;
        // Whoever listened is about to end, if the connection breaks before an answer begins.
        let ended = |error: hyper::Error| {
            if error.is_parse() {
                RequestError::Protocol
            } else {
                not_running(io::Error::other(error))
            }
        };
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(ended)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|_| RequestError::Protocol)?;
        sender.send_request(request).await.map_err(ended)
    }
}

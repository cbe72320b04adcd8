//! The page that is published, and noise to measure with.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Where the noise is.
pub(super) const NOISE: &str = "/noise";
/// The page.
pub(super) const PAGE: &str = "<!doctype html>
<html lang=\"en\">
<title>The bookshelf</title>
<h1>The bookshelf</h1>
<p>Whoever reads this sentence is a member of the network, for the relay in between cannot.</p>
</html>
";
const CHUNK: usize = 64 * 1024;
/// More than anybody downloads while it is measured.
const CHUNKS: usize = 64 * 1024;

/// A web server on loopback, until it is dropped.
#[derive(Debug)]
pub(super) struct Site {
    address: SocketAddr,
    task: AbortHandle,
}

impl Site {
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/", get(async || ([(CONTENT_TYPE, "text/html; charset=utf-8")], PAGE)))
            .route(NOISE, get(noise));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, "the page's server has ended");
            }
        });
        Ok(Self { address, task: task.abort_handle() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The same chunk again and again; the tunnels make noise of it.
async fn noise() -> impl IntoResponse {
    let chunk = Bytes::from(vec![0x55; CHUNK]);
    let chunks = std::iter::repeat_n(chunk, CHUNKS).map(Ok::<_, io::Error>);
    (
        [(CONTENT_TYPE, "application/octet-stream")],
        Body::from_stream(futures_util::stream::iter(chunks)),
    )
}

//! Fetching through a SOCKS5 proxy, with the name left for the proxy to resolve.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that is fetched may take longer to begin.
const DEADLINE: Duration = Duration::from_secs(20);
const MAX_PAGE: usize = 1 << 20;

/// A page and how long it took.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) body: Bytes,
    took: Duration,
}

impl Fetched {
    pub(super) fn milliseconds(&self) -> f64 {
        self.took.as_secs_f64() * 1_000.0
    }
}

/// Fetches a whole page.
pub(super) async fn page(proxy: SocketAddr, host: &str, path: &str) -> anyhow::Result<Fetched> {
    let started = Instant::now();
    let response = begin(proxy, host, path).await?;
    let body = Limited::new(response.into_body(), MAX_PAGE);
    let body = timeout(DEADLINE, body.collect()).await?.map_err(io::Error::other)?.to_bytes();
    Ok(Fetched { body, took: started.elapsed() })
}

/// Downloads for a while and returns the rate in Mbit/s.
pub(super) async fn measured(
    proxy: SocketAddr,
    host: &str,
    path: &str,
    duration: Duration,
) -> anyhow::Result<f64> {
    let mut body = begin(proxy, host, path).await?.into_body();
    let started = Instant::now();
    let mut received = 0;
    while started.elapsed() < duration {
        let Some(frame) = timeout(DEADLINE, body.frame()).await? else { break };
        received += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(received as f64 * 8.0 / 1e6 / started.elapsed().as_secs_f64())
}

async fn begin(proxy: SocketAddr, host: &str, path: &str) -> anyhow::Result<Response<Incoming>> {
    let stream =
        timeout(DEADLINE, connect(proxy, host, 80)).await.context("the proxy is silent")??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a fetch has broken off");
        }
    });
    let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new())?;
    let response = timeout(DEADLINE, sender.send_request(request)).await.context("no answer")??;
    ensure!(response.status().is_success(), "the page's server answers {}", response.status());
    Ok(response)
}

/// A SOCKS5 connection by name (RFC 1928 section 4).
async fn connect(proxy: SocketAddr, host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.write_all(&[5, 1, 0]).await?;
    let mut method = [0; 2];
    stream.read_exact(&mut method).await?;
    ensure!(method == [5, 0], "the proxy wants a password");
    let mut request = vec![5, 1, 0, 3, u8::try_from(host.len())?];
    request.extend_from_slice(host.as_bytes());
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    ensure!(head[1] == 0, "the proxy cannot reach {host}: SOCKS code {}", head[1]);
    let address = match head[3] {
        1 => 4,
        4 => 16,
        other => bail!("the proxy answers with an address of type {other}"),
    };
    stream.read_exact(&mut vec![0; address + 2]).await?;
    Ok(stream)
}

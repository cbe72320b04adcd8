//! Port forwards between the host and the overlay.
//!
//! Both directions copy until each side has closed its own half, so a half-closed connection stays
//! half-closed through the forward.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::{NetstackHandle, TcpListener};

/// Connections that one forward carries at once; further ones wait in the listener.
const MAX_FORWARDED: usize = 256;
/// Bytes that a forward holds per direction beyond the sockets' own buffers.
const COPY_BUFFER: usize = 64 * 1024;
/// A local service answers at once or not at all.
const LOCAL_DEADLINE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, so that a lasting failure does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Leads connections from the overlay to a service of this host, until the stack stops.
///
/// A peer's connection is reset when the service does not answer.
pub async fn publish(mut listener: TcpListener, service: SocketAddr) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(MAX_FORWARDED));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let (remote, _) = listener.accept().await?;
        tokio::spawn(async move {
            let _slot = slot;
            match timeout(LOCAL_DEADLINE, tokio::net::TcpStream::connect(service)).await {
                Ok(Ok(local)) => join(local, remote).await,
                Ok(Err(error)) => {
                    tracing::warn!(%service, %error, "published service does not answer");
                    remote.abort();
                }
                Err(_elapsed) => {
                    tracing::warn!(%service, "published service does not answer in time");
                    remote.abort();
                }
            }
        });
    }
}

/// Leads connections to a local listener to `host:port` in the overlay, for as long as it runs.
///
/// The name is resolved for each connection, so it may come to life later.
pub async fn forward(
    listener: tokio::net::TcpListener,
    stack: NetstackHandle,
    host: String,
    port: u16,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(MAX_FORWARDED));
    let host: Arc<str> = host.into();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let local = accept(&listener).await;
        let (stack, host) = (stack.clone(), Arc::clone(&host));
        tokio::spawn(async move {
            let _slot = slot;
            match stack.connect_host(&host, port).await {
                Ok(remote) => join(local, remote).await,
                Err(error) => tracing::warn!(%host, port, %error, "forward cannot connect"),
            }
        });
    }
}

/// Accepts a local connection; what is wrong with one connection does not end the listener, and a
/// process without free descriptors waits for some.
pub(crate) async fn accept(listener: &tokio::net::TcpListener) -> tokio::net::TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "local connection without TCP_NODELAY");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a local connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Copies in both directions until both have ended or one has failed.
pub(crate) async fn join<A, B>(mut local: A, mut remote: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let copied =
        copy_bidirectional_with_sizes(&mut local, &mut remote, COPY_BUFFER, COPY_BUFFER).await;
    if let Err(error) = copied {
        tracing::debug!(%error, "forwarded connection broke off");
    }
}

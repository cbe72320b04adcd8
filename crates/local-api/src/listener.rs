//! A socket for the owner alone.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;
use tracing::{debug, warn};

/// Without file descriptors there is no point in asking for a connection again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening unix socket that disappears when dropped.
///
/// It is an [`axum::serve::Listener`].
#[derive(Debug)]
pub struct OwnerListener {
    socket: UnixListener,
    path: PathBuf,
    owner: u32,
}

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process answers there.
    #[error("another process answers at {}", .0.display())]
    InUse(PathBuf),
    /// The operating system refused.
    #[error("cannot listen at {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl OwnerListener {
    /// Takes the path, making its folder; a socket that a crash left behind is replaced.
    ///
    /// # Errors
    /// If another process answers there or the operating system refuses.
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(BindError::InUse(path.to_owned()));
        }
        Self::replace(path).map_err(|source| BindError::Io { path: path.to_owned(), source })
    }

    fn replace(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let socket = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let owner = fs::metadata(path)?.uid();
        Ok(Self { socket, path: path.to_owned(), owner })
    }
}

impl Drop for OwnerListener {
    fn drop(&mut self) {
        // If it stays, the next start finds that nobody answers and replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Listener for OwnerListener {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == 0 || peer.uid() == self.owner => {
                        return (stream, address);
                    }
                    Ok(peer) => debug!(uid = peer.uid(), "another user asked the local API"),
                    Err(error) => warn!(%error, "cannot tell who asks the local API"),
                },
                Err(error) => {
                    warn!(%error, "cannot accept on the local API");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.socket.local_addr()
    }
}

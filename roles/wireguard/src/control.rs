//! The UAPI socket and the signals: everything but packets.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use zeroize::{Zeroize, Zeroizing};

use crate::RunError;
use crate::uapi::{MAX_REQUEST, Request, UapiError, answer};
use crate::worker::{Command, Commands};

/// Where `wg` looks for userspace interfaces.
const DIRECTORY: &str = "/var/run/wireguard";
/// How often the socket's file is looked for: removing it is the documented way to end us.
const LOOK_FOR_SOCKET: Duration = Duration::from_secs(1);

/// The bound socket, whose file goes away with it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Binds the socket of `interface`; one that nobody answers at is replaced.
    pub(crate) fn bind(interface: &str) -> Result<Self, RunError> {
        let path = Path::new(DIRECTORY).join(format!("{interface}.sock"));
        let failed = |source| RunError::ControlSocket { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o755).create(DIRECTORY).map_err(failed)?;
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(RunError::InUse { interface: interface.to_owned() });
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, path })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Serves the socket until a signal, the removal of its file, or the end of the data thread.
pub(crate) async fn serve(
    socket: &ControlSocket,
    commands: Commands,
    mut ended: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut look = tokio::time::interval(LOOK_FOR_SOCKET);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(converse(stream, commands.clone()));
                }
            }
            _ = look.tick() => if !socket.path.exists() { break },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = &mut ended => break,
        }
    }
    commands.send(Command::Stop);
    Ok(())
}

/// Answers the requests of one client, one after the other.
async fn converse(mut stream: UnixStream, commands: Commands) {
    let mut pending = Zeroizing::new(Vec::new());
    let mut searched: usize = 0;
    loop {
        while let Some(end) = end_of_request(&pending, searched) {
            searched = 0;
            let rest = Zeroizing::new(pending[end + 2..].to_vec());
            let reply = handle(&pending[..=end], &commands).await;
            if stream.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
            pending.zeroize();
            pending = rest;
        }
        searched = pending.len();
        let mut chunk = Zeroizing::new([0; 4096]);
        match stream.read(&mut *chunk).await {
            Ok(0) | Err(_) => return,
            Ok(len) if pending.len() + len > MAX_REQUEST => return,
            Ok(len) => pending.extend_from_slice(&chunk[..len]),
        }
    }
}

/// Where the empty line that ends a request begins; nothing before `searched` has to be looked at
/// again.
fn end_of_request(pending: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(1);
    pending.get(from..)?.windows(2).position(|pair| pair == b"\n\n").map(|at| from + at)
}

async fn handle(request: &[u8], commands: &Commands) -> Zeroizing<String> {
    let parsed = str::from_utf8(request).map_err(|_| UapiError::Invalid).and_then(Request::parse);
    let request = match parsed {
        Ok(request) => request,
        Err(error) => return answer("", Err(error)),
    };
    let (reply, replied) = oneshot::channel();
    commands.send(Command::Uapi { request, reply });
    replied.await.unwrap_or_else(|_| answer("", Err(UapiError::Os(libc::ENODEV))))
}

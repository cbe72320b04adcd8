//! When a running role has to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Is ready at the first interrupt, termination or hang-up.
///
/// # Errors
/// When the signals cannot be caught.
pub(crate) fn requested() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}

//! Descriptors of `platform` in the runtime.

use std::{io, os::fd::AsRawFd};

use tokio::io::unix::AsyncFd;

/// Lets the runtime wait for a descriptor, which `inner` owns for as long as it lives.
#[expect(deprecated, reason = "the successor is unsafe, for owners that part with the descriptor")]
pub(crate) fn register<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(inner)
}

//! System calls about the process and its namespaces.

use std::{
    io,
    os::fd::{BorrowedFd, RawFd},
};

/// The descriptor `fd` of `owner`, which speaks only of raw descriptors.
pub(crate) fn borrow<T>(fd: RawFd, owner: &T) -> BorrowedFd<'_> {
    let _: &T = owner;
    // SAFETY: `fd` belongs to `owner`, which the result's lifetime borrows.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Puts the calling thread into a new network namespace.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: changes the network namespace of this thread only; no memory is concerned.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Forks; true in the parent. The caller made sure that there is one thread only.
pub(crate) fn fork() -> io::Result<bool> {
    // SAFETY: the process has one thread, so no lock or allocator state is torn in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(false),
        _ => Ok(true),
    }
}

/// Lets the heap keep so many bytes at its end that nobody uses. Other libraries than glibc decide by themselves.
pub(crate) fn keep_freed_memory(bytes: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: changes a number by which the allocator decides; no memory is concerned.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

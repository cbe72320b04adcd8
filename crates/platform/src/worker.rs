//! Threads that wait for handles and end when they are asked to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::poll::Waker;

/// A running thread; dropping it asks it to end, and waits until it has.
#[derive(Debug)]
pub struct Worker {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

/// Tells a thread that it is to end.
#[derive(Debug)]
pub struct Stop {
    waker: Waker,
    is_wanted: AtomicBool,
}

impl Stop {
    /// One that asks for nothing yet.
    ///
    /// # Errors
    /// When the system has no handle left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { waker: Waker::new()?, is_wanted: AtomicBool::new(false) })
    }

    /// What becomes readable when the thread is to end.
    #[must_use]
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether it is to end; look after each wait.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }
}

impl Worker {
    /// Starts a thread that ends when `stop` says so.
    ///
    /// # Errors
    /// When the system starts none.
    pub fn start(
        name: &str,
        stop: Arc<Stop>,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.is_wanted.store(true, Ordering::Release);
        self.stop.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told so already.
            let _ = thread.join();
        }
    }
}

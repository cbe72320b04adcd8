//! The data threads of one network on the host's own network stack.
//!
//! A data thread waits for the TUN and the UDP sockets and runs every packet to completion on the
//! engine's newest snapshot: read, split, seal, send; receive, open, check, join, write. What the
//! snapshot cannot answer (handshakes, path messages, peers without a direct path) goes to the
//! network's loop as an [`Upcall`], through a bounded channel: when the loop is slower than a
//! flood of such packets, they are lost, not remembered.
//!
//! The loop writes what the engine itself delivers with [`DataThread::deliver`], and sends the
//! engine's datagrams over the same [`Sockets`].

mod worker;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use bytes::BytesMut;
use engine::{DataPlaneHandle, Notice};
use packet::Offload;
use platform::{Tun, Waker};
use tokio::sync::mpsc;

use crate::udp::Sockets;

/// Something for the network's loop.
#[derive(Debug)]
pub(crate) enum Upcall {
    /// A packet from this device: [`engine::Engine::handle_packet`].
    Packet(BytesMut),
    /// A datagram from the network: [`engine::Engine::handle_datagram`].
    Datagram { from: std::net::SocketAddr, bytes: BytesMut },
    /// [`engine::Engine::handle_notice`].
    Notice(Notice),
    /// The interface was deleted, and the data thread has ended.
    InterfaceGone,
}

/// A running data thread; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct DataThread {
    tun: Arc<Tun>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What both sides of a data thread see.
#[derive(Debug)]
struct Shared {
    waker: Waker,
    stop: AtomicBool,
}

impl DataThread {
    /// Starts a thread between `tun` and `sockets`.
    pub(crate) fn start(
        tun: Arc<Tun>,
        sockets: &Sockets,
        plane: DataPlaneHandle,
        upcalls: mpsc::Sender<Upcall>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared { waker: Waker::new()?, stop: AtomicBool::new(false) });
        let worker =
            worker::Worker::new(tun.clone(), sockets.clone(), plane, upcalls, shared.clone())?;
        let thread = std::thread::Builder::new().name("data".into()).spawn(move || worker.run())?;
        Ok(Self { tun, shared, thread: Some(thread) })
    }

    /// Writes a packet from the engine to the host; one that it cannot take is lost.
    pub(crate) fn deliver(&self, packet: &[u8]) {
        // An interface that is gone is reported by the thread itself.
        let _ = self.tun.send(&Offload::default(), &[packet]);
    }
}

impl Drop for DataThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told so already.
            let _ = thread.join();
        }
    }
}

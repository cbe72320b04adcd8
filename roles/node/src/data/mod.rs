//! The bulk of one network's packets, past the engine.
//!
//! What leaves this host goes through an [`Outlet`]: by a data thread, or from the userspace stack, which
//! leaves the other direction to the network's loop. A data thread waits for queues of the TUN and UDP sockets of its
//! own, and runs every packet to completion on the engine's newest snapshot: read, split, seal, send; receive, open,
//! check, join, write. What a peer sends comes to one thread, and what goes back follows it there. What the snapshot
//! cannot answer (handshakes, path messages, peers without a direct path)
//! goes to the network's loop as an [`Upcall`], super-packets unsplit, through a bounded channel: when the loop
//! is slower than a flood of such packets, they are lost, not remembered.
//!
//! The loop writes what the engine itself delivers with [`DataThreads::deliver`], and sends the
//! engine's datagrams over the same [`Sockets`](crate::udp::Sockets).

mod outlet;
mod pool;
mod worker;

use std::{io, sync::Arc};

use bytes::BytesMut;
use engine::{HostPacket, Notice};
use packet::{Merging, Offload, Segmentation};
use platform::{Queues, Stop};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub(crate) use outlet::{Buffers, Outlet};

/// Bytes of packets that wait for the loop: what a few milliseconds bring at the speed of the loop,
/// which hands them on to a queue that knows about delay.
const WAITING_BYTES: usize = 2 << 20;
/// What a waiting packet costs besides its bytes, so that small ones have a bound too.
const PACKET_OVERHEAD: usize = 512;
/// A packet above this length is bulk: full, or a super-packet.
const BULK: usize = 1_000;
/// Upcalls of all kinds that wait for the loop: more than packets alone can be.
const WAITING: usize = 2 * WAITING_BYTES / PACKET_OVERHEAD;

/// Something for the network's loop.
#[derive(Debug)]
pub(crate) enum Upcall {
    /// A packet or super-packet from this device: [`engine::Engine::handle_packet`].
    Packet {
        packet: HostPacket,
        /// Given back when the packet is taken.
        _room: OwnedSemaphorePermit,
    },
    /// A datagram from the network: [`engine::Engine::handle_datagram`].
    Datagram { from: std::net::SocketAddr, bytes: BytesMut },
    /// [`engine::Engine::handle_notice`].
    Notice(Notice),
    /// The interface was deleted, and the data thread has ended.
    InterfaceGone,
}

/// The way to the network's loop: bounded in bytes for packets, in number for everything.
#[derive(Clone, Debug)]
pub(crate) struct Upcalls {
    queue: mpsc::Sender<Upcall>,
    room: Arc<Semaphore>,
}

impl Upcalls {
    /// The way, and its end in the loop.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Upcall>) {
        let (queue, waiting) = mpsc::channel(WAITING);
        (Self { queue, room: Arc::new(Semaphore::new(WAITING_BYTES)) }, waiting)
    }

    /// Room for a packet of `length` bytes; none if too much waits. Bulk leaves some to the rest.
    fn room(&self, length: usize) -> Option<OwnedSemaphorePermit> {
        let cost = length + PACKET_OVERHEAD;
        let kept = if length > BULK { WAITING_BYTES / 4 } else { 0 };
        if self.room.available_permits() < cost + kept {
            return None;
        }
        self.room.clone().try_acquire_many_owned(u32::try_from(cost).ok()?).ok()
    }

    /// Hands something over; it is lost if too much waits.
    fn send(&self, upcall: Upcall) {
        let _ = self.queue.try_send(upcall);
    }

    fn tell(&self, notice: Option<Notice>) {
        if let Some(notice) = notice {
            self.send(Upcall::Notice(notice));
        }
    }
}

/// Running data threads; dropping it ends them.
#[derive(Debug)]
pub(crate) struct DataThreads {
    queues: Queues,
    /// They end with it.
    _threads: Vec<platform::Worker>,
}

impl DataThreads {
    /// Starts so many threads, each with a share of the queues, of which there are at least as many, and sockets of its
    /// own out of those of `outlet`.
    pub(crate) fn start(queues: Queues, threads: usize, outlet: &Outlet) -> io::Result<Self> {
        let start = |one| start(queues.of_thread(one, threads), outlet.for_thread(one));
        let threads = (0..threads).map(start).collect::<io::Result<_>>()?;
        Ok(Self { queues, _threads: threads })
    }

    /// Writes a packet or super-packet from the engine to the host; one that it cannot take is lost.
    pub(crate) fn deliver(&self, packet: &HostPacket) {
        // An interface that is gone is reported by the thread itself.
        if may_be_written(packet.offload(), self.queues.merging()) {
            let _ = self.queues.send(packet.offload(), &[packet.bytes()]);
        } else {
            packet.split(|part| {
                let _ = self.queues.send(&Offload::default(), &[part]);
            });
        }
    }
}

fn start(queues: Queues, outlet: Outlet) -> io::Result<platform::Worker> {
    let stop = Arc::new(Stop::new()?);
    let worker = worker::Worker::new(queues, outlet, Arc::clone(&stop))?;
    platform::Worker::start("data", stop, || worker.run())
}

/// Whether the host takes a packet as it is.
fn may_be_written(offload: &Offload, merging: Merging) -> bool {
    match offload.segmentation {
        Segmentation::None => !offload.needs_checksum || merging.tcp,
        Segmentation::Tcp4 | Segmentation::Tcp6 => merging.tcp,
        Segmentation::Udp => merging.udp,
    }
}

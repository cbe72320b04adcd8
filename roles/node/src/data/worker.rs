//! What one data thread does.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::BytesMut;
use engine::Inbound;
use packet::{Coalescer, Offload, Packet};
use platform::{Interest, Poller, ReceiveBatch, Tun, TunError, UdpSocket};
use tracing::{debug, error, trace};

use super::{
    Shared, Upcall,
    outlet::{Buffers, Outlet},
};

/// Super-packets taken from the TUN before the other direction gets its turn.
const READS: usize = 4;
/// Receive calls before the other direction gets its turn.
const RECEIVES: usize = 2;
/// Super-datagrams in one receive call. The first ones stay in the processor's cache.
const RECEIVE_SLOTS: usize = 8;

const WAKE: u64 = 0;
const TUN: u64 = 1;
/// The first socket; the others follow.
const SOCKETS: u64 = 2;

pub(super) struct Worker {
    tun: Arc<Tun>,
    outlet: Outlet,
    shared: Arc<Shared>,
    poller: Poller,
    batch: ReceiveBatch,
    buffers: Buffers,
}

impl Worker {
    pub(super) fn new(tun: Arc<Tun>, outlet: Outlet, shared: Arc<Shared>) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&shared.waker, WAKE, Interest::Read)?;
        poller.add(&*tun, TUN, Interest::Read)?;
        for (token, socket) in (SOCKETS..).zip(outlet.sockets.all()) {
            poller.add(&**socket, token, Interest::Read)?;
        }
        let batch = ReceiveBatch::new(RECEIVE_SLOTS);
        Ok(Self { tun, outlet, shared, poller, batch, buffers: Buffers::new() })
    }

    pub(super) fn run(mut self) {
        match self.serve() {
            Ok(()) => {}
            Err(TunError::Gone) => {
                debug!("the interface is gone");
                // The loop is told even if its queue is full now; it may have ended itself.
                let _ = self.outlet.upcalls.queue.blocking_send(Upcall::InterfaceGone);
            }
            Err(error) => {
                error!(%error, "the data thread ends");
                let _ = self.outlet.upcalls.queue.blocking_send(Upcall::InterfaceGone);
            }
        }
    }

    fn serve(&mut self) -> Result<(), TunError> {
        let sockets: Vec<_> = self.outlet.sockets.all().cloned().collect();
        let fault = |doing| move |source| TunError::Os { doing, source };
        while !self.shared.stop.load(Ordering::Acquire) {
            let (mut from_host, mut from_network) = (false, 0_u64);
            for ready in self.poller.wait(None).map_err(fault("wait for packets"))? {
                match ready.token {
                    WAKE => self.shared.waker.reset(),
                    TUN => from_host = true,
                    socket => from_network |= 1 << (socket - SOCKETS),
                }
            }
            if from_host {
                self.send_packets()?;
            }
            for (index, socket) in sockets.iter().enumerate() {
                if from_network & (1 << index) != 0 {
                    self.receive_datagrams(socket)?;
                }
            }
        }
        Ok(())
    }

    /// From the host to the network.
    fn send_packets(&mut self) -> Result<(), TunError> {
        for _ in 0..READS {
            let Some(offload) = self.tun.receive(self.buffers.room())? else {
                return Ok(());
            };
            self.outlet.send(&offload, &mut self.buffers);
        }
        Ok(())
    }

    /// From the network to the host.
    fn receive_datagrams(&mut self, socket: &UdpSocket) -> Result<(), TunError> {
        let fault = |source| TunError::Os { doing: "receive from the UDP socket", source };
        let plane = self.outlet.plane.load();
        for _ in 0..RECEIVES {
            if !socket.receive(&mut self.batch).map_err(fault)? {
                return Ok(());
            }
            let now = Instant::now();
            let mut written = Ok(());
            let mut sink = |offload: &Offload, pieces: &[&[u8]]| {
                // What the host cannot take now is lost, as on any wire.
                if let Err(error) = self.tun.send(offload, pieces) {
                    written = Err(error);
                }
            };
            let mut coalescer = Coalescer::new(self.tun.merging());
            for datagram in self.batch.datagrams() {
                let from = datagram.remote;
                self.outlet.sockets.learn_source(from, datagram.local);
                let upcalls = &self.outlet.upcalls;
                plane.inbound(from, datagram.segments(), now, |inbound| match inbound {
                    Inbound::Packet(packet) => {
                        if let Ok(packet) = Packet::parse(packet) {
                            coalescer.push(packet, &mut sink);
                        }
                    }
                    Inbound::ToEngine(bytes) => {
                        let bytes = BytesMut::from(&*bytes);
                        upcalls.send(Upcall::Datagram { from, bytes });
                    }
                    Inbound::Notice(notice) => upcalls.send(Upcall::Notice(notice)),
                    Inbound::Dropped(reason) => trace!(%reason, "datagram dropped"),
                });
            }
            coalescer.finish(&mut sink);
            written?;
        }
        Ok(())
    }
}

//! What one data thread does.

use std::{error::Error, io, sync::Arc, time::Instant};

use bytes::BytesMut;
use engine::Inbound;
use packet::{Coalescer, Offload, Packet};
use platform::{Interest, Poller, Queues, ReceiveBatch, Stop, TunError, UdpSocket, poll::ReadySet};
use tracing::{debug, error, trace};

use super::{
    Upcall,
    outlet::{Buffers, Outlet},
};

/// Receive calls before the other direction gets its turn.
const RECEIVES: usize = 2;
/// Super-datagrams in one receive call. The first ones stay in the processor's cache.
const RECEIVE_SLOTS: usize = 8;

const WAKE: u64 = 0;
/// The first socket; the other one follows.
const SOCKETS: u64 = 1;
/// The first queue; the others follow.
const QUEUES: u64 = 3;

pub(super) struct Worker {
    queues: Queues,
    outlet: Outlet,
    stop: Arc<Stop>,
    poller: Poller,
    batch: ReceiveBatch,
    buffers: Buffers,
}

impl Worker {
    pub(super) fn new(queues: Queues, outlet: Outlet, stop: Arc<Stop>) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(stop.waker(), WAKE, Interest::Read)?;
        for (token, queue) in (QUEUES..).zip(queues.own()) {
            poller.add(queue, token, Interest::Read)?;
        }
        for (token, socket) in (SOCKETS..).zip(outlet.sockets.all()) {
            poller.add(&**socket, token, Interest::Read)?;
        }
        let batch = ReceiveBatch::new(RECEIVE_SLOTS);
        Ok(Self { queues, outlet, stop, poller, batch, buffers: Buffers::new() })
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
                error!(error = &error as &dyn Error, "the data thread ends");
                let _ = self.outlet.upcalls.queue.blocking_send(Upcall::InterfaceGone);
            }
        }
    }

    fn serve(&mut self) -> Result<(), TunError> {
        let sockets: Vec<_> = self.outlet.sockets.all().cloned().collect();
        let fault = |doing| move |source| TunError::Os { doing, source };
        while !self.stop.is_wanted() {
            let (mut from_host, mut from_network) = (ReadySet::default(), ReadySet::default());
            for ready in self.poller.wait(None).map_err(fault("wait for packets"))? {
                match ready.token {
                    WAKE => self.stop.waker().reset(),
                    token @ QUEUES.. => from_host.insert(token - QUEUES),
                    token => from_network.insert(token - SOCKETS),
                }
            }
            self.send_packets(from_host)?;
            for index in from_network.iter() {
                self.receive_datagrams(&sockets[index])?;
            }
        }
        Ok(())
    }

    /// From the host to the network.
    fn send_packets(&mut self, ready: ReadySet) -> Result<(), TunError> {
        let Self { queues, outlet, buffers, .. } = self;
        queues.take_turn(ready, |queue| {
            let Some(offload) = queue.receive(buffers.room())? else { return Ok(None) };
            let length = buffers.len();
            outlet.send(&offload, buffers);
            Ok(Some(length))
        })
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
                if let Err(error) = self.queues.send(offload, pieces) {
                    written = Err(error);
                }
            };
            let mut coalescer = Coalescer::new(self.queues.merging());
            for datagram in self.batch.datagrams() {
                let from = datagram.remote;
                self.outlet.sockets.learn_source(from, datagram.local);
                let segment = datagram.segment;
                if let Some(to) = plane.pass_on(from, datagram.bytes, segment) {
                    self.outlet.sockets.send(to, datagram.bytes, u16::try_from(segment).ok());
                    continue;
                }
                let Outlet { upcalls, sockets, .. } = &self.outlet;
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
                    Inbound::Passed(to, datagram) => sockets.send(to, datagram, None),
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

//! What one data thread does.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::BytesMut;
use engine::{DataPlane, DataPlaneHandle, HostPacket, Inbound, Notice, Outbound, Way};
use packet::{Coalescer, Offload, Packet, Segments, offload::MAX_HEADER};
use platform::{
    Interest, Poller, ReceiveBatch, Tun, TunError, UdpSocket, tun::MAX_PACKET, udp::MAX_SEGMENTS,
};
use tracing::{debug, error, trace};

use super::{Shared, Upcall, Upcalls};
use crate::udp::Sockets;

/// Super-packets taken from the TUN before the other direction gets its turn.
const READS: usize = 16;
/// Receive calls before the other direction gets its turn.
const RECEIVES: usize = 2;
/// Super-datagrams in one receive call. The first ones stay in the processor's cache.
const RECEIVE_SLOTS: usize = 8;
/// A packet below this length is copied for the loop; a longer one takes its buffer along.
const COPIED: usize = 16 * 1024;

const WAKE: u64 = 0;
const TUN: u64 = 1;
/// The first socket; the others follow.
const SOCKETS: u64 = 2;

pub(super) struct Worker {
    tun: Arc<Tun>,
    sockets: Sockets,
    plane: DataPlaneHandle,
    upcalls: Upcalls,
    shared: Arc<Shared>,
    poller: Poller,
    batch: ReceiveBatch,
    buffers: Buffers,
}

/// Memory of the outbound direction.
struct Buffers {
    /// A packet or super-packet as the host gave it, with the room of a [`HostPacket`] around it.
    packet: BytesMut,
    /// Its parts, back to back, each with the headers.
    parts: Vec<u8>,
    /// Their sealed datagrams, back to back.
    sealed: Vec<u8>,
}

impl Worker {
    pub(super) fn new(
        tun: Arc<Tun>,
        sockets: Sockets,
        plane: DataPlaneHandle,
        upcalls: Upcalls,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&shared.waker, WAKE, Interest::Read)?;
        poller.add(&*tun, TUN, Interest::Read)?;
        for (token, socket) in (SOCKETS..).zip(sockets.all()) {
            poller.add(&**socket, token, Interest::Read)?;
        }
        let batch = ReceiveBatch::new(RECEIVE_SLOTS);
        let buffers = Buffers {
            packet: packet_buffer(),
            parts: vec![0; MAX_PACKET + MAX_SEGMENTS * MAX_HEADER],
            sealed: Vec::with_capacity(2 * MAX_PACKET),
        };
        Ok(Self { tun, sockets, plane, upcalls, shared, poller, batch, buffers })
    }

    pub(super) fn run(mut self) {
        match self.serve() {
            Ok(()) => {}
            Err(TunError::Gone) => {
                debug!("the interface is gone");
                // The loop is told even if its queue is full now; it may have ended itself.
                let _ = self.upcalls.queue.blocking_send(Upcall::InterfaceGone);
            }
            Err(error) => {
                error!(%error, "the data thread ends");
                let _ = self.upcalls.queue.blocking_send(Upcall::InterfaceGone);
            }
        }
    }

    fn serve(&mut self) -> Result<(), TunError> {
        let sockets: Vec<_> = self.sockets.all().cloned().collect();
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
        let plane = self.plane.load();
        for _ in 0..READS {
            let Buffers { packet, parts, sealed } = &mut self.buffers;
            let room = &mut packet[HostPacket::HEADROOM..][..MAX_PACKET];
            let Some((offload, length)) = self.tun.receive(room)? else { return Ok(()) };
            match plane.way(&room[..length]) {
                Way::Direct => {}
                Way::Engine => {
                    hand_over(&self.upcalls, offload, packet, length);
                    continue;
                }
                Way::None => {
                    trace!("no device has this address");
                    continue;
                }
            }
            let Ok(segments) = Segments::plan(&offload, &room[..length]) else {
                trace!(?offload, length, "the host's offload header does not fit its packet");
                continue;
            };
            let outlet = Outlet { plane: &plane, sockets: &self.sockets, upcalls: &self.upcalls };
            outlet.send(&segments, parts, sealed);
        }
        Ok(())
    }

    /// From the network to the host.
    fn receive_datagrams(&mut self, socket: &UdpSocket) -> Result<(), TunError> {
        let fault = |source| TunError::Os { doing: "receive from the UDP socket", source };
        let plane = self.plane.load();
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
                self.sockets.learn_source(from, datagram.local);
                for bytes in datagram.segments() {
                    let Some(packet) = open(&plane, &self.upcalls, from, bytes, now) else {
                        continue;
                    };
                    coalescer.push(packet, &mut sink);
                }
            }
            coalescer.finish(&mut sink);
            written?;
        }
        Ok(())
    }
}

/// The packet in a datagram; everything else goes where it belongs.
fn open<'a>(
    plane: &DataPlane,
    upcalls: &Upcalls,
    from: SocketAddr,
    bytes: &'a mut [u8],
    now: Instant,
) -> Option<Packet<'a>> {
    match plane.inbound(from, bytes, now) {
        Inbound::Packet { packet, notice } => {
            tell(upcalls, notice);
            Packet::parse(packet).ok()
        }
        Inbound::Empty { notice } => {
            tell(upcalls, notice);
            None
        }
        Inbound::ToEngine(bytes) => {
            let bytes = BytesMut::from(&*bytes);
            upcalls.send(Upcall::Datagram { from, bytes });
            None
        }
        Inbound::Dropped(reason) => {
            trace!(%reason, "datagram dropped");
            None
        }
    }
}

fn tell(upcalls: &Upcalls, notice: Option<Notice>) {
    if let Some(notice) = notice {
        upcalls.send(Upcall::Notice(notice));
    }
}

fn packet_buffer() -> BytesMut {
    BytesMut::zeroed(HostPacket::HEADROOM + MAX_PACKET + HostPacket::TAILROOM)
}

/// Gives the packet of `length` bytes at its place in `buffer` to the loop, unless too much waits there.
fn hand_over(upcalls: &Upcalls, offload: Offload, buffer: &mut BytesMut, length: usize) {
    let Some(_room) = upcalls.room(length) else { return };
    let packet = if length < COPIED {
        HostPacket::new(offload, &buffer[HostPacket::HEADROOM..][..length])
    } else {
        let mut taken = std::mem::replace(buffer, packet_buffer());
        taken.truncate(HostPacket::HEADROOM + length);
        HostPacket::in_place(offload, taken)
    };
    upcalls.send(Upcall::Packet { packet, _room });
}

/// The way of packets to the network.
struct Outlet<'a> {
    plane: &'a DataPlane,
    sockets: &'a Sockets,
    upcalls: &'a Upcalls,
}

impl Outlet<'_> {
    /// Splits, seals and sends one packet or super-packet, as many parts at once as one send takes.
    fn send(&self, segments: &Segments<'_>, parts: &mut [u8], sealed: &mut Vec<u8>) {
        for first in (0..segments.count()).step_by(MAX_SEGMENTS) {
            let mut slices: [&[u8]; MAX_SEGMENTS] = [&[]; MAX_SEGMENTS];
            let mut rest = &mut *parts;
            let indices = first..segments.count().min(first + MAX_SEGMENTS);
            let count = indices.len();
            for (slice, index) in slices.iter_mut().zip(indices) {
                let (part, after) = rest.split_at_mut(segments.length(index));
                segments.write(index, part);
                (*slice, rest) = (part, after);
            }
            self.send_parts(&slices[..count], sealed);
        }
    }

    fn send_parts(&self, parts: &[&[u8]], sealed: &mut Vec<u8>) {
        sealed.clear();
        match self.plane.outbound(parts, sealed, Instant::now()) {
            Outbound::Datagrams { to, datagram_len, notice } => {
                let segment = u16::try_from(datagram_len).ok();
                self.sockets.send(to, sealed, segment);
                tell(self.upcalls, notice);
            }
            Outbound::ToEngine => {
                for part in parts {
                    let Some(_room) = self.upcalls.room(part.len()) else { return };
                    self.upcalls.send(Upcall::Packet { packet: HostPacket::single(part), _room });
                }
            }
            Outbound::NoRoute => trace!("no device has this address"),
        }
    }
}

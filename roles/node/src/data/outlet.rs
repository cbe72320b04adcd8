//! The way of packets from this host into one network.

use std::{ops::Range, time::Instant};

use bytes::BytesMut;
use engine::{DataPlane, DataPlaneHandle, HostPacket, Outbound, Way};
use packet::{Offload, Segments};
use platform::{tun::MAX_PACKET, udp::MAX_SEGMENTS};
use tracing::trace;

use super::{Upcall, Upcalls};
use crate::udp::Sockets;

/// A packet below this length is copied for the loop; a longer one takes its buffer along.
const COPIED: usize = 16 * 1024;

/// Splits, seals and sends on the engine's newest snapshot, and hands to the network's loop what that
/// cannot answer. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    pub(super) plane: DataPlaneHandle,
    pub(super) sockets: Sockets,
    pub(super) upcalls: Upcalls,
}

/// Memory that packets pass through on their way out.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// A packet or super-packet as the host gave it, with the room of a [`HostPacket`] around it.
    packet: BytesMut,
    /// The sealed datagrams of its parts, back to back.
    sealed: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self { packet: packet_buffer(), sealed: Vec::with_capacity(2 * MAX_PACKET) }
    }

    /// Where the host's next packet or super-packet goes.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.packet[HostPacket::HEADROOM..][..MAX_PACKET]
    }

    /// Puts a packet or super-packet there, given as slices in order; says how long it is.
    pub(crate) fn fill(&mut self, pieces: &[&[u8]]) -> usize {
        let room = self.room();
        let mut length = 0;
        for piece in pieces {
            room[length..length + piece.len()].copy_from_slice(piece);
            length += piece.len();
        }
        length
    }
}

fn packet_buffer() -> BytesMut {
    BytesMut::zeroed(HostPacket::HEADROOM + MAX_PACKET + HostPacket::TAILROOM)
}

impl Outlet {
    pub(crate) fn new(plane: DataPlaneHandle, sockets: Sockets, upcalls: Upcalls) -> Self {
        Self { plane, sockets, upcalls }
    }

    /// Sends the packet or super-packet of `length` bytes in the buffers' room.
    pub(crate) fn send(&self, offload: &Offload, length: usize, buffers: &mut Buffers) {
        let plane = self.plane.load();
        match plane.way(&buffers.room()[..length]) {
            Way::Direct => {}
            Way::Engine => {
                return hand_over(&self.upcalls, *offload, &mut buffers.packet, length);
            }
            Way::None => return trace!("no device has this address"),
        }
        let Buffers { packet, sealed } = buffers;
        let Ok(segments) = Segments::plan(offload, &packet[HostPacket::HEADROOM..][..length])
        else {
            return trace!(?offload, length, "the host's offload header does not fit its packet");
        };
        for first in (0..segments.count()).step_by(MAX_SEGMENTS) {
            let parts = first..segments.count().min(first + MAX_SEGMENTS);
            self.send_parts(&plane, (&segments, parts), sealed);
        }
    }

    /// Seals and sends as many parts as one send takes.
    fn send_parts(
        &self,
        plane: &DataPlane,
        (segments, parts): (&Segments<'_>, Range<usize>),
        sealed: &mut Vec<u8>,
    ) {
        match plane.outbound((segments, parts.clone()), sealed, Instant::now()) {
            Outbound::Datagrams { to, len, datagram_len, notice } => {
                let segment = u16::try_from(datagram_len).ok();
                self.sockets.send(to, &sealed[..len], segment);
                self.upcalls.tell(notice);
            }
            Outbound::ToEngine => {
                for part in parts {
                    let Some(_room) = self.upcalls.room(segments.length(part)) else { return };
                    let mut bytes = vec![0; segments.length(part)];
                    segments.write(part, &mut bytes);
                    self.upcalls.send(Upcall::Packet { packet: HostPacket::single(&bytes), _room });
                }
            }
            Outbound::NoRoute => trace!("no device has this address"),
        }
    }
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

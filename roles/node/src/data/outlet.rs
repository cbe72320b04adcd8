//! The way of packets from this host into one network.

use std::{ops::Range, time::Instant};

use bytes::BytesMut;
use engine::{DataPlane, DataPlaneHandle, HostPacket, Outbound, Way};
use packet::{Offload, Segments};
use platform::{tun::MAX_PACKET, udp::MAX_SEGMENTS};
use tracing::trace;

use super::{Upcall, Upcalls, pool::Pool};
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
    /// A packet or super-packet as the host gave it.
    packet: Pool,
    /// The sealed datagrams of its parts, back to back.
    sealed: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self { packet: Pool::new(), sealed: Vec::with_capacity(2 * MAX_PACKET) }
    }

    /// Where the host's next packet or super-packet is to be appended.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        self.packet.cleared()
    }

    /// The length of what was appended there.
    pub(super) fn len(&self) -> usize {
        self.packet.packet().len()
    }
}

impl Outlet {
    pub(crate) fn new(plane: DataPlaneHandle, sockets: Sockets, upcalls: Upcalls) -> Self {
        Self { plane, sockets, upcalls }
    }

    /// The same with the sockets of a data thread.
    pub(super) fn for_thread(&self, number: usize) -> Self {
        Self { sockets: self.sockets.for_thread(number), ..self.clone() }
    }

    /// Sends the packet or super-packet in the buffers' room.
    pub(crate) fn send(&self, offload: &Offload, buffers: &mut Buffers) {
        let plane = self.plane.load();
        let Buffers { packet, sealed } = buffers;
        let Ok(segments) = Segments::plan(offload, packet.packet()) else {
            return trace!(?offload, "the host's offload header does not fit its packet");
        };
        match plane.way(packet.packet(), segments.longest()) {
            Way::Direct => {}
            Way::Engine => return hand_over(&self.upcalls, *offload, packet),
            Way::None => return trace!("no device has this address"),
        }
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

/// Gives the packet in `pool` to the loop, unless too much waits there.
fn hand_over(upcalls: &Upcalls, offload: Offload, pool: &mut Pool) {
    let length = pool.packet().len();
    let Some(_room) = upcalls.room(length) else { return };
    let packet = if length < COPIED {
        HostPacket::new(offload, pool.packet())
    } else {
        HostPacket::in_place(offload, pool.take())
    };
    upcalls.send(Upcall::Packet { packet, _room });
}

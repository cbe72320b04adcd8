//! The packet queues between smoltcp and the driver.

use std::collections::VecDeque;

use bytes::BytesMut;
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// Packets that may wait for the engine before sockets stop producing more.
const DEPARTING_LIMIT: usize = 512;

/// Departing packets share allocations of this size.
const ALLOCATION: usize = 64 * 1024;

/// A network interface without hardware: one queue in each direction.
#[derive(Debug)]
pub(crate) struct QueueDevice {
    mtu: usize,
    arrived: Option<BytesMut>,
    pub(crate) departing: VecDeque<BytesMut>,
    /// Where the next packets are written.
    room: BytesMut,
}

impl QueueDevice {
    pub(crate) fn new(mtu: usize) -> Self {
        let room = BytesMut::with_capacity(ALLOCATION);
        Self { mtu, arrived: None, departing: VecDeque::new(), room }
    }

    /// Sets the packet that the next ingress poll consumes.
    pub(crate) fn offer(&mut self, packet: BytesMut) {
        self.arrived = Some(packet);
    }

    fn departing(&mut self) -> Departing<'_> {
        Departing { queue: &mut self.departing, room: &mut self.room }
    }
}

impl Device for QueueDevice {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Departing<'a>;

    /// An answer to an arriving packet (a reset, an echo) may exceed the limit once.
    fn receive(&mut self, _now: Instant) -> Option<(Arrived, Departing<'_>)> {
        let packet = self.arrived.take()?;
        Some((Arrived(packet), self.departing()))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Departing<'_>> {
        (self.departing.len() < DEPARTING_LIMIT).then(|| self.departing())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities.checksum.tcp = Checksum::Both;
        capabilities
    }
}

/// One packet on its way into smoltcp.
pub(crate) struct Arrived(BytesMut);

impl smoltcp::phy::RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for one packet on its way out.
pub(crate) struct Departing<'a> {
    queue: &'a mut VecDeque<BytesMut>,
    room: &'a mut BytesMut,
}

impl smoltcp::phy::TxToken for Departing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        // Takes back an allocation whose packets are gone, or makes one as large as the first.
        self.room.resize(length, 0);
        let mut packet = self.room.split();
        let result = f(&mut packet);
        self.queue.push_back(packet);
        result
    }
}

//! UDP sockets for tunnels: batches, segmentation offload, sticky source addresses.
//!
//! One socket serves one IP version. A receive brings up to 64 KiB of datagrams of one sender in
//! one buffer ([`Datagram::segments`] splits it again), and many such buffers in one call. A send
//! gives the system one buffer of equal datagrams; where it cannot split, they go one by one: always
//! if it does not know how, for a while if it cannot towards some destination, once if it refuses
//! these. Datagrams may be split on the way, as a tunnel's packets may be larger than what is underneath carries, other than
//! those that find out how large that is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Delivery, linux::udp as sys};

/// Datagrams that one segmented send takes at most.
pub const MAX_SEGMENTS: usize = 64;
/// Bytes that one segmented send takes at most: a datagram's limit over IPv4.
pub const MAX_SEND: usize = 65_507;
/// Socket buffers that let a burst of super-packets wait; the system may grant less.
const SOCKET_BUFFER: usize = 8 << 20;
/// Sends that go datagram by datagram after the system could not split one, until it is asked again:
/// routes and interfaces change, and other destinations of the socket have others.
const SENDS_UNSPLIT: u32 = 1_024;

/// How to open a socket.
#[derive(Clone, Copy, Debug)]
pub struct UdpConfig {
    /// Address to bind; decides the IP version. The unspecified one receives on all.
    pub address: IpAddr,
    /// Port to bind; 0 lets the system choose.
    pub port: u16,
    /// Firewall mark on everything sent (needs CAP_NET_ADMIN); 0 for none.
    pub mark: u32,
    /// Size of the send and receive buffers to ask for, in bytes.
    pub buffer: usize,
    /// Share the port with the other sockets of this user that were bound so: the system spreads what arrives
    /// over them by sender (`SO_REUSEPORT`).
    pub shared: bool,
}

/// Lets what a datagram socket sends be split on the way, as [`UdpSocket`] does. A system that does not know how does as it always does.
pub fn allow_splitting(socket: &impl AsFd, is_ipv4: bool) {
    let _ = sys::set_splitting(&socket.as_fd(), is_ipv4, true);
}

impl UdpConfig {
    /// All IPv4 addresses.
    #[must_use]
    pub fn ipv4(port: u16) -> Self {
        Self {
            address: Ipv4Addr::UNSPECIFIED.into(),
            port,
            mark: 0,
            buffer: SOCKET_BUFFER,
            shared: false,
        }
    }

    /// All IPv6 addresses, and only these.
    #[must_use]
    pub fn ipv6(port: u16) -> Self {
        Self { address: Ipv6Addr::UNSPECIFIED.into(), ..Self::ipv4(port) }
    }
}

/// The address of ours that a peer talks to, so that answers leave from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// The interface (its index), 0 for any.
    pub interface: u32,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// Where from; none lets the system choose.
    pub source: Option<Source>,
    /// Length of each datagram in `bytes` but the last; none for a single one.
    pub segment: Option<u16>,
    /// One datagram, or several back to back.
    pub bytes: &'a [u8],
}

/// A non-blocking UDP socket of one IP version.
#[derive(Debug)]
pub struct UdpSocket {
    socket: OwnedFd,
    local: SocketAddr,
    splitting: Splitting,
    merges: bool,
}

/// Whether the system is to split what is sent.
#[derive(Debug)]
struct Splitting {
    known: bool,
    sends_unsplit: AtomicU32,
}

impl Splitting {
    fn new(known: bool) -> Self {
        Self { known, sends_unsplit: AtomicU32::new(0) }
    }

    /// Asked once for each send.
    fn is_wanted(&self) -> bool {
        let left = &self.sends_unsplit;
        let next = |left: u32| left.checked_sub(1);
        self.known && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_err()
    }

    fn has_failed(&self) {
        self.sends_unsplit.store(SENDS_UNSPLIT, Ordering::Relaxed);
    }
}

impl UdpSocket {
    /// Opens and binds a socket in the calling thread's network namespace.
    pub fn bind(config: &UdpConfig) -> io::Result<Self> {
        let sys::Opened { socket, splits, merges } = sys::open(config)?;
        let local = sys::local_address(&socket)?;
        Ok(Self { socket, local, splitting: Splitting::new(splits), merges })
    }

    /// The address and port bound.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Whether the system joins received datagrams (Linux 5.0 and later).
    #[must_use]
    pub fn merges(&self) -> bool {
        self.merges
    }

    /// Changes the firewall mark; 0 for none.
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        sys::set_mark(&self.socket, mark)
    }

    /// Receives what waits into `batch`, replacing its contents; false if nothing does.
    ///
    /// Errors that concern one peer (its port is closed) are swallowed: they answer something sent
    /// earlier. An `Err` means the socket itself is broken.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<bool> {
        batch.count = sys::receive(self.socket.as_fd(), &mut batch.slots, &mut batch.buffer)?;
        Ok(batch.count > 0)
    }

    /// Sends datagrams. Waits for room in the send buffer, within a bound.
    ///
    /// Nothing about a destination is an `Err`: unreachable, refused or too long is
    /// [`Delivery::Dropped`].
    pub fn send(&self, transmit: &Transmit<'_>) -> Delivery {
        let segment = transmit.segment.map_or(usize::MAX, usize::from).max(1);
        if segment >= transmit.bytes.len() {
            return self.submit(&Transmit { segment: None, ..*transmit });
        }
        if !self.splitting.is_wanted() {
            return self.send_singly(transmit, segment);
        }
        let step = MAX_SEGMENTS.min((MAX_SEND / segment).max(1)) * segment;
        let mut delivery = Delivery::Sent;
        for bytes in transmit.bytes.chunks(step) {
            delivery =
                worse(delivery, self.send_segmented(&Transmit { bytes, ..*transmit }, segment));
        }
        delivery
    }

    /// Sends one datagram that is not split on the way, whatever is known or said of how large they may be
    /// (`IP_PMTUDISC_PROBE`): if it is too large it is lost, which is how the sender finds out (RFC 8899). What others send over the socket
    /// at the same moment may share that fate.
    pub fn send_whole(&self, transmit: &Transmit<'_>) -> Delivery {
        // Where the system does not know how, large packets may pass in parts.
        let _ = sys::set_splitting(&self.socket, self.local.is_ipv4(), false);
        let delivery = self.submit(&Transmit { segment: None, ..*transmit });
        let _ = sys::set_splitting(&self.socket, self.local.is_ipv4(), true);
        delivery
    }

    fn send_segmented(&self, transmit: &Transmit<'_>, segment: usize) -> Delivery {
        match sys::send(self.socket.as_fd(), transmit) {
            Ok(delivery) => delivery,
            Err(sys::NotSplit::NoWay) => {
                self.splitting.has_failed();
                self.send_singly(transmit, segment)
            }
            Err(sys::NotSplit::Refused) => self.send_singly(transmit, segment),
        }
    }

    fn submit(&self, transmit: &Transmit<'_>) -> Delivery {
        sys::send(self.socket.as_fd(), transmit).unwrap_or(Delivery::Dropped)
    }

    fn send_singly(&self, transmit: &Transmit<'_>, segment: usize) -> Delivery {
        sys::send_singly(self.socket.as_fd(), transmit, segment)
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(crate) fn worse(one: Delivery, other: Delivery) -> Delivery {
    match (one, other) {
        (Delivery::Dropped, _) | (_, Delivery::Dropped) => Delivery::Dropped,
        (Delivery::SourceGone, _) | (_, Delivery::SourceGone) => Delivery::SourceGone,
        (Delivery::Sent, Delivery::Sent) => Delivery::Sent,
    }
}

/// Buffers for one receive call, made once and used again. Memory is touched as it fills.
#[derive(Debug)]
pub struct ReceiveBatch {
    buffer: Vec<u8>,
    slots: Vec<sys::Slot>,
    count: usize,
}

impl ReceiveBatch {
    /// Bytes of one slot: what the system joins at most.
    pub const SLOT: usize = 65_536;
    /// Most slots that one call fills.
    pub const MAX_SLOTS: usize = 32;

    /// Buffers for `slots` super-datagrams, 1 to [`MAX_SLOTS`](Self::MAX_SLOTS).
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, Self::MAX_SLOTS);
        Self {
            buffer: vec![0; slots * Self::SLOT],
            slots: (0..slots).map(|_| sys::Slot::default()).collect(),
            count: 0,
        }
    }

    /// What the last receive brought, in order; all can be held at once.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let slots = self.slots[..self.count].iter();
        slots.zip(self.buffer.chunks_exact_mut(Self::SLOT)).filter_map(|(slot, bytes)| {
            let remote = slot.remote?;
            let bytes = &mut bytes[..slot.length];
            Some(Datagram { remote, local: slot.local, segment: slot.segment, bytes })
        })
    }
}

/// One or more datagrams of one sender.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub remote: SocketAddr,
    /// Which address of ours it was sent to.
    pub local: Option<Source>,
    /// Length of each datagram in `bytes` but the last.
    pub segment: usize,
    /// The datagrams, back to back.
    pub bytes: &'a mut [u8],
}

impl<'a> Datagram<'a> {
    /// The datagrams one by one.
    pub fn segments(self) -> impl Iterator<Item = &'a mut [u8]> {
        self.bytes.chunks_mut(self.segment.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_cannot_split_is_asked_again_after_a_while() {
        let splitting = Splitting::new(true);
        assert!(splitting.is_wanted());
        for _ in 0..2 {
            splitting.has_failed();
            assert!((0..SENDS_UNSPLIT).all(|_| !splitting.is_wanted()));
            assert!((0..3).all(|_| splitting.is_wanted()));
        }
    }

    #[test]
    fn a_system_that_does_not_know_how_to_split_is_never_asked() {
        let splitting = Splitting::new(false);
        assert!((0..2 * SENDS_UNSPLIT).all(|_| !splitting.is_wanted()));
    }
}

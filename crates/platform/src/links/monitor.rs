//! Notices of changed interfaces, addresses and routes.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{Interface, interface_of, netlink::messages};

// From <linux/rtnetlink.h>.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface is new or different: up, down, renamed, another MTU.
    Interface(Interface),
    /// An interface left the namespace: deleted, or moved to another.
    InterfaceGone(u32),
    /// Addresses came or went: see [`local_addresses`](super::local_addresses).
    Addresses,
    /// Routes came or went.
    Routes,
    /// So much changed that notices were lost: look at everything.
    Everything,
}

/// A stream of changes in one network namespace; its handle is readable when there are some.
pub struct Monitor {
    socket: Socket,
    waiting: Vec<Change>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Monitor").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Watches the calling thread's namespace from now on, also when the thread leaves it.
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, waiting: Vec::new() })
    }

    /// The next change, none when all were told.
    pub fn poll_change(&mut self) -> io::Result<Option<Change>> {
        while self.waiting.is_empty() {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => self.waiting = changes(&bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Some(Change::Everything));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(self.waiting.remove(0)))
    }
}

/// What a datagram of rtnetlink says has changed, in its order and without repetitions; what is not
/// understood is passed over.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "most of the protocol is of no concern")]
pub fn changes(datagram: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    for message in messages(datagram) {
        let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
        let change = match message {
            RouteNetlinkMessage::NewLink(link) => Change::Interface(interface_of(&link)),
            RouteNetlinkMessage::DelLink(link) => Change::InterfaceGone(link.header.index),
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
                Change::Addresses
            }
            RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => Change::Routes,
            _ => continue,
        };
        if changes.last() != Some(&change) {
            changes.push(change);
        }
    }
    changes
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        crate::linux::process::borrow(self.socket.as_raw_fd(), &self.socket)
    }
}

//! Userspace TCP/IP: a device on the overlay without a TUN and without root.
//!
//! [`Netstack::start`] runs one smoltcp interface behind two bounded queues of IP packets, where a
//! TUN would be. The node moves packets between the queues and its engine; everything else is
//! sockets:
//!
//! - [`NetstackHandle::connect`], [`listen`](NetstackHandle::listen) and
//!   [`bind_udp`](NetstackHandle::bind_udp) for code in this process;
//! - [`forward`]: a local port that leads to an overlay host, and an overlay port that leads to a
//!   local service;
//! - [`proxy`]: SOCKS5 (RFC 1928: CONNECT and UDP ASSOCIATE, RFC 1929 passwords) and an HTTP proxy
//!   on the same port.
//!
//! Invariants:
//!
//! - Nothing outside the overlay is dialled and no name leaves the process: both questions go to
//!   the node's [`Resolve`].
//! - Memory is bounded: connections, half-open connections, UDP sockets and every queue have a
//!   limit. A full queue to the engine stops the sockets, and through their windows the peers; a
//!   full queue from the engine is the engine's to drop from, as a TUN does.
//! - One task drives the interface. It sleeps until a packet, a socket call or a protocol timer
//!   needs it.
//! - Packets to the stack's own addresses come back at once, and packets to any other address than
//!   its own are ignored. ICMP echo is answered; a SYN to a port where nobody listens is reset.

#![forbid(unsafe_code)]

mod core;
mod device;
mod driver;
pub mod forward;
mod ingress;
pub mod proxy;
mod resolve;
mod tcp;
mod udp;

pub use crate::core::{MAX_ADDRESSES, MAX_CONNECTIONS, MAX_UDP_SOCKETS};
pub use driver::{ConnectError, Netstack, NetstackHandle, PacketChannel};
pub use resolve::{Resolve, ResolveError, Resolving};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;

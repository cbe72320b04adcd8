//! The operating system, behind safe interfaces that know nothing of tunnels.
//!
//! Everything that touches the system on behalf of a node lives here, and all `unsafe` of the
//! project with it. Two kinds of users, two kinds of interface:
//!
//! - **Data threads** own a [`Tun`], a [`UdpSocket`] and a [`Poller`] and run packets to
//!   completion. Nothing here blocks (a full send buffer is waited for, within a bound), nothing
//!   allocates per packet, and no error of one packet or peer ends a loop: a packet is
//!   [`Delivery::Sent`] or [`Delivery::Dropped`], and an `Err` means that the device is gone.
//! - **The control loop** configures [`links`] and the [`resolver`]. What outlives its process is
//!   written to a [`Journal`](journal::Journal) first, undone on request, and undone by the next
//!   start if this one crashed.
//!
//! Handles are file descriptors ([`AsFd`](std::os::fd::AsFd)), so any event loop can wait for them.
//! A TUN's descriptor goes on working when the interface moves to another network namespace.
//!
//! | module | what |
//! | --- | --- |
//! | [`tun`] | [`Tun`]: packets and super-packets; a pair in memory for tests; link events |
//! | `queues` | [`Queues`]: those of a TUN, one for each flow, read in turns |
//! | [`udp`] | [`UdpSocket`]: batches with segmentation offload and sticky source addresses |
//! | [`poll`] | [`Poller`], [`Waker`], [`Timer`] for threads without a runtime |
//! | `worker` | [`Worker`]: such a thread, which ends when it is dropped |
//! | [`links`] | addresses, routes, MTU, and what changes about them |
//! | [`journal`] | what was changed and has to be undone |
//! | [`resolver`] | making a stub the system's resolver |
//! | [`process`] | namespaces, capabilities, limits, becoming a daemon |
//! | `linux` | what is behind all that on this system |
//!
//! Linux only for now: each other system is one more folder beside `linux/`.

#![allow(unsafe_code, reason = "the calls of the system have to be made somewhere: here")]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "this version runs on Linux only: the `platform` crate needs TUN, epoll and rtnetlink"
);

mod linux;

pub mod journal;
pub mod links;
pub mod poll;
pub mod process;
mod queues;
pub mod resolver;
pub mod tun;
pub mod udp;
mod worker;

pub use poll::{Interest, Poller, Timer, Waker};
pub use queues::Queues;
pub use tun::{Tun, TunConfig, TunError};
pub use udp::{ReceiveBatch, Transmit, UdpConfig, UdpSocket};
pub use worker::{Stop, Worker};

/// What became of a packet that was handed to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// The system took it.
    Sent,
    /// The system could not take it now (queue full, link down, no route): lost, as packets are.
    Dropped,
    /// Sent, but the wanted source address is no longer ours: the caller should forget it.
    SourceGone,
}

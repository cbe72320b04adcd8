//! IP packets as bytes: reading them, checking them, splitting them and joining them.
//!
//! A tunnel between two hosts moves packets, but hosts with segmentation offload hand over
//! *super-packets*: up to 64 KiB of one TCP or UDP flow under one header, described by an
//! [`Offload`]. This crate turns one into the other, on borrowed bytes, without allocating:
//!
//! ```text
//! (Offload, super-packet) ── Segments ──► packets of the path's size, in the caller's buffer
//! packets in order ── Coalescer ──► (Offload, header + slices), one write each
//! ```
//!
//! Invariants:
//! - Every input is hostile. A view exists only for bytes that were checked, and reads them the way
//!   the receiving host will: extension headers are walked, fragments are told apart, lengths agree.
//!   What a host would drop, or two hosts could read differently, is [`Malformed`].
//! - A merged packet claims a good checksum towards the kernel, so every part is verified first;
//!   a part that fails goes out alone, as it came, for the receiver to judge.
//! - Splitting, then joining, gives the super-packet back.
//!
//! | module | what |
//! | --- | --- |
//! | [`ip`] | [`Packet`]: the view of an IPv4 or IPv6 packet; [`Transport`]: the view of what it carries |
//! | [`tcp`], [`udp`], [`icmp`] | views of the transport headers |
//! | [`checksum`] | the Internet checksum: sums, folding, incremental update |
//! | [`offload`] | [`Offload`], the virtio-net header as a value, and its check against a packet |
//! | [`segment`] | [`Segments`]: one super-packet to many packets |
//! | [`coalesce`] | [`Coalescer`]: many packets to few super-packets |
//! | `fragment` | [`fragment()`]: one IPv4 packet to several that a narrower way carries |
//! | `flow` | what the packets of a connection have in common |
//! | [`build`] | whole packets from their meaning |

#![forbid(unsafe_code)]

pub mod build;
pub mod checksum;
pub mod coalesce;
mod flow;
mod fragment;
pub mod icmp;
pub mod ip;
pub mod offload;
pub mod segment;
pub mod tcp;
pub mod udp;

pub use coalesce::{Coalescer, Merging, PacketSink};
pub use flow::flow;
pub use fragment::{fragment, may_be_split};
pub use ip::{Fragment, Malformed, Packet, Protocol, Transport, Version};
pub use offload::{Offload, OffloadError, Segmentation};
pub use segment::Segments;

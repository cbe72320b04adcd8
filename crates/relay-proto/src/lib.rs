//! The relay protocol: client and server machines.
//!
//! A relay carries frames between the members of a network that cannot reach each other directly.
//! It sees who talks to whom and how much, and nothing else: payloads are sealed end to end by
//! sessions that the relay has no part in.
//!
//! # A link
//!
//! One WebSocket connection between a device and a relay is a link. It begins as a Noise_IK channel
//! (`noise-channel`). The device's first message attaches it: certificate chain, binding (which must
//! name the key that the channel proved), attachment with a number, and a random hop key. The relay
//! answers with its own hop key, or with a [`Refusal`]. From then on each WebSocket message is one
//! frame under hop protection, and messages of the channel travel in frames of their own type. When the
//! channel replaces its keys, each side sends a fresh hop key through it and marks the place in the
//! stream from which it counts. A device whose membership is renewed shows the new chain on the link.
//! Where the network wishes it, all but the handshake is filled up to one of the lengths in [`BUCKETS`]; whoever
//! receives takes padding off, whatever the network wishes. Where it wishes that too, both ends run a
//! [`Shaper`](shaping::Shaper), which says when the next message leaves, and sends dummies, which the other end
//! throws away, and frames that wait leave as one message; all messages are then [`SHAPED_LENGTH`] long at least.
//!
//! # A relay
//!
//! [`RelayServer`] serves several networks. Only members attach; the newest attachment of a device
//! evicts the older one, and an older one never comes back, nor one by an older binding; a frame goes to whoever
//! is attached as (network, receiver), with the sender's id in place of the receiver's, and is not copied on the
//! way. Nothing that a client does costs the relay more than a bounded amount: connections, unattached
//! connections, bytes and frames a second, control messages, and the bytes that wait for a slow receiver, where
//! senders take turns, and CoDel and then the bound drop what is too much (FQ-CoDel, RFC 8290). Revocation
//! detaches at once; membership that ends detaches in time.
//!
//! # Relays among themselves
//!
//! A relay attaches to others as their client, and tells them who is attached to it and how far its neighbours are.
//! What is for somebody at another relay goes there over the shortest way; devices have no part in it. The relay says
//! which others there are ([`RelayServer::set_relays`]), dials when it is asked to ([`ServerEvent::Dial`]), and shows who it
//! is ([`RelayServer::handle_dialled`]).
//!
//! # Circuits
//!
//! Where UDP gets through, a relay passes datagrams on between two devices, beside all links: see [`Circuits`], which is a
//! machine of its own, since what goes there waits for nothing that links do. Datagrams are what they are on a direct path, so they
//! arrive late or not at all by themselves, and not all that come after one that was lost.
//!
//! # Driving
//!
//! Both machines are pure. Messages are asked for by whoever writes to the stream, at the moment at
//! which the stream takes one: see [`RelayClient`] and [`RelayServer`].
//!
//! # Contents
//!
//! - [`RelayClient`], [`ClientConfig`], [`ClientEvent`], [`FlowId`]: the device's end.
//! - [`RelayServer`], [`RelayNetwork`], [`Limits`], [`ServerEvent`], [`CloseReason`]: the relay's.
//! - [`Refusal`], [`LinkError`]: why links end.
//! - [`LoadReport`]: how busy a relay is.
//! - [`Circuits`], [`CircuitBinding`], [`CircuitOffer`], [`CircuitKey`], [`Head`], [`Place`]: datagrams between two devices.
//! - [`BUCKETS`], [`SHAPED_LENGTH`], [`PADDING_CAPABILITY`], [`SHAPING_CAPABILITY`]: the lengths of messages that are filled
//!   up, and who takes them.
//! - [`limits`]: limits as data.

#![forbid(unsafe_code)]

mod bucket;
mod bundle;
mod carried;
mod circuits;
mod client;
mod codel;
mod connection;
mod fair;
pub mod limits;
mod link;
mod load;
mod mesh;
mod message;
mod newest;
mod outbound;
mod padding;
mod server;
mod serving;
mod strangers;
mod timers;

pub use bucket::Rate;
pub use circuits::{
    BIND_LEN, CircuitBinding, CircuitKey, CircuitOffer, Circuits, HEAD_LEN, Head, NUMBERS, Place,
};
pub use client::{ClientConfig, ClientEvent, RelayClient, SendFrameError};
pub use fair::FlowId;
pub use link::LinkError;
pub use load::LoadReport;
pub use message::Refusal;
pub use padding::{BUCKETS, PADDING_CAPABILITY, SHAPED_LENGTH, SHAPING_CAPABILITY};
pub use server::RelayServer;
pub use serving::{
    CloseReason, ConnectionId, Limits, Recognised, RelayNetwork, ServerEvent, TurnedAway,
};

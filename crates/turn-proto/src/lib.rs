//! A client of TURN servers (RFC 8656): has an address there at which peers reach this device.
//!
//! A [`Client`] is one allocation at one server, from the first question to the last. It has no socket: datagrams or
//! the bytes of a stream go in and come out, time and randomness are arguments. What it holds to:
//!
//! - **One client, one allocation.** One that has failed says why, once, and does nothing more. Whoever wants another
//!   allocation makes another client, over another socket: a server knows allocations by the address that asks.
//! - **Authenticated.** No answer counts that the server did not sign with the credentials, but for those that ask for
//!   credentials or another nonce, and for errors before there is a realm to sign with. With these, whoever sees the
//!   datagrams can end an allocation, as he can by swallowing them.
//! - **A channel for each peer** that something is sent to. It is the cheapest framing, 4 bytes, and its request installs
//!   the permission for what comes back, so that there is no other kind of request for peers. What a peer sends from
//!   another port than the one that was sent to comes as an indication.
//! - **Bounded.** [`MAX_PEERS`] channels are kept up; the one that was least recently used makes room if it is idle, and
//!   ends at the server by itself. A channel's number is not used for another peer before RFC 8656 allows it.
//! - **Found dead.** The allocation is refreshed every 25 s, which keeps translators in front open as well, so that
//!   a dead server is known after half a minute, while the paths over it are judged by their own pings. A request without
//!   an answer does not end it while data comes; one for a channel never does.
//! - **Given back** at the end, also where the answer that grants it is on its way.
//!
//! Drive a client by calling any `handle_*` method or command, then draining [`Client::poll_transmit`],
//! [`Client::poll_data`] and [`Client::poll_event`], then sleeping until [`Client::poll_timeout`].
//!
//! | file | what |
//! |---|---|
//! | `client` | the machine |
//! | `channels` | peers, and the channels to them |
//! | `credentials` | long-term ones, and those that a shared secret makes |
//! | `message` | the wire |
//! | `stream` | messages out of a stream of bytes |
//! | `tests` | a client and a server on a virtual clock |

#![forbid(unsafe_code)]

mod channels;
mod client;
mod credentials;
mod message;
mod stream;
#[cfg(test)]
mod tests;

pub use channels::MAX_PEERS;
pub use client::{Client, Event, Failure, Transport};
pub use credentials::{Credentials, Login};
pub use message::MAX_PAYLOAD;

//! ShadowMesh frames: what peers exchange over WebSocket, directly or through relays.
//!
//! A frame is a 64-byte [`Header`], a payload and a 16-byte tag. It is protected twice, by layers
//! that know nothing of each other:
//!
//! ```text
//! peer ──────── end to end: XChaCha20-Poly1305 or AES-256-GCM over the payload ───────── peer
//! peer ── hop: the header sealed ── relay ── hop: the header sealed, other key ── relay ── peer
//! ```
//!
//! - End to end, a [`FrameSealer`] and a [`FrameOpener`] work with two secrets that the WireGuard
//!   session of the two peers exports. A relay sees no plaintext and cannot change, repeat or
//!   redirect a frame unnoticed. They use XChaCha20-Poly1305 until both ends have said that they
//!   have AES in their processors ([`FLAG_AES`]), and AES-256-GCM then. Before there is a session, a [`HelloKey`] from the static keys of
//!   the two takes its place; it protects what needs no forward secrecy: handshakes, disco,
//!   introductions.
//! - Hop by hop, a [`HopSealer`] and a [`HopOpener`] seal the header, and all of a frame that is
//!   not data, so that every byte of a WebSocket message looks random, and so that nobody between
//!   can forge, drop out of the middle, or repeat a message without ending the connection.
//!
//! The payload of a data frame is an [`OffloadHeader`] and a packet, up to a whole super-packet.
//!
//! Everything works in place in the caller's buffers; nothing is allocated for a frame. The
//! numbers here are big-endian.
//!
//! | file | what |
//! |---|---|
//! | `header` | the header, and a frame as a whole |
//! | `session` | sealing and opening under a session |
//! | `replay` | what was received before |
//! | `hello` | sealing and opening before there is a session |
//! | `hop` | the outer layer |
//! | `offload` | the head of a data payload |

#![forbid(unsafe_code)]

mod header;
mod hello;
mod hop;
mod offload;
mod replay;
mod session;

pub use ciphers::has_aes;
pub use header::{
    DATA_PAYLOAD_LIMIT, FLAG_AES, FLAG_BACKGROUND, FLAG_HELLO, FLAG_INTERACTIVE, FrameError,
    FrameType, HEADER_LENGTH, Header, PAYLOAD_LIMIT, TAG_LENGTH, compose, parse, payload,
    payload_mut, set_peer,
};
pub use hello::{HelloKey, INTRODUCED_KEY_LENGTH, introduced_key};
pub use hop::{HOP_TAG_LENGTH, HopError, HopKey, HopOpener, HopSealer};
pub use offload::{OFFLOAD_LENGTH, OffloadError, OffloadHeader, Segmentation};
pub use replay::{REPLAY_WINDOW, STREAMS_KEPT};
pub use session::{Ends, FrameKeys, FrameOpener, FrameSealer, FrameStreams, OpenError, SealError};

//! The Noise_IK channel between nodes, relays and controllers.
//!
//! A channel is one `Noise_IK_25519_ChaChaPoly_BLAKE2s` session whose messages travel as binary
//! WebSocket messages. The machine is pure: bytes, time and randomness are arguments, and what it
//! wants done is read with the `poll_*` methods.
//!
//! # What an observer sees
//!
//! A connection is opened on a path that looks random and is a token only to the holders of the
//! [`PathSecret`]. Both ephemeral keys are masked with a stream that depends on the secret, since a
//! bare X25519 key is distinguishable from random bytes; all else is ciphertext. Handshake messages
//! carry padding of random length. A server that does not recognise a path, or a first message,
//! answers as if there were no such thing.
//!
//! # Establishing
//!
//! Message 1 carries the initiator's wall time and capability version. The responder checks that the
//! time is within [`limits::CLOCK_TOLERANCE`] and that the message is not in the [`ReplayGuard`].
//! A wrong time is answered with the responder's own time inside message 2, so the initiator learns
//! it authenticated ([`ChannelEvent::ClockSkew`]) and can try again with an offset. Message 1 can be
//! replayed to another responder or after a restart, so nothing changes state before the initiator's
//! first transport message: only then does the responder report [`ChannelEvent::Established`].
//! Therefore the initiator speaks first.
//!
//! # Rotation
//!
//! The initiator replaces the keys after [`limits::ROTATE_AFTER`] or
//! [`limits::ROTATE_AFTER_MESSAGES`] counted messages in one direction. It runs a fresh Noise_IK
//! handshake inside the channel, whose prologue is the old handshake hash: both sides prove their
//! static keys again, the new keys come from new ephemerals only, and so neither a stolen old key
//! opens later traffic (healing) nor a stolen later key or static key opens earlier traffic (forward
//! secrecy). Rekeying in Noise's sense would give only the latter. The switch is a marker in each
//! direction, and the old keys serve until it; the exchange before it can be given up at no cost,
//! which happens after [`limits::ROTATION_DEADLINE`] ([`ChannelEvent::RotationAbandoned`]), and is
//! tried again. Keys end at twice either limit whatever happens: a sender holds counted messages back
//! rather than overrun, and a channel that cannot rotate fails.
//!
//! # Driving
//!
//! After every `handle_*` and [`Channel::send`]: drain [`Channel::poll_message`] to the WebSocket,
//! drain [`Channel::poll_event`], and arm one timer with [`Channel::poll_timeout`].
//!
//! # Contents
//!
//! - [`Channel`], [`InitiatorConfig`], [`ResponderConfig`], [`ChannelEvent`]: the machine.
//! - [`PathSecret`], [`ConnectionMask`], [`Service`]: recognising and masking connections.
//! - [`ReplayGuard`]: first messages seen lately, shared between connections.
//! - [`Lifetime`]: when to replace a connection before somebody in between ends it.
//! - [`Now`], [`UnixMillis`], [`ClockOffset`]: time.
//! - [`limits`]: every limit as data.

#![forbid(unsafe_code)]

mod channel;
mod error;
mod handshake;
mod keys;
mod lifetime;
pub mod limits;
mod path_secret;
mod primitives;
mod replay;
mod rotation;
mod session;
mod time;

pub use channel::{
    Channel, ChannelEvent, InitiatorConfig, MessageClass, ResponderConfig, StaticSecret,
};
pub use error::{ChannelError, SendError};
pub use lifetime::Lifetime;
pub use path_secret::{ConnectionMask, PathSecret, Service};
pub use replay::ReplayGuard;
pub use time::{ClockOffset, Now, UnixMillis};

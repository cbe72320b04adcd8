//! What can go wrong, by guilty party.

use std::time::Duration;

use crate::UnixMillis;

/// Why a channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The peer sent more than [`crate::limits::MAX_MESSAGE`] bytes in one message.
    #[error("peer sent a message of {0} bytes")]
    MessageTooLong(usize),
    /// A handshake message did not authenticate: wrong keys, wrong path secret or an attack.
    #[error("handshake message does not authenticate")]
    HandshakeRejected,
    /// A handshake message authenticated but its fields make no sense.
    #[error("handshake message is malformed")]
    HandshakeMalformed,
    /// The same first message came before.
    #[error("first message was replayed")]
    Replayed,
    /// The clocks of the two sides differ by more than the tolerance.
    #[error("clocks differ by {difference:?}: peer says {theirs}")]
    ClockSkew {
        /// The peer's wall time.
        theirs: UnixMillis,
        /// The distance between the clocks.
        difference: Duration,
    },
    /// The handshake was not over in time.
    #[error("handshake did not finish in time")]
    HandshakeTimeout,
    /// A transport message did not authenticate.
    #[error("message does not authenticate")]
    MessageRejected,
    /// The peer broke the rules of the channel; the text says which.
    #[error("peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The keys reached their hard limit without a rotation.
    #[error("keys reached their hard limit without a rotation")]
    KeysExhausted,
    /// Nothing arrived for too long.
    #[error("peer fell silent")]
    PeerSilent,
    /// A key that we were configured with cannot be used.
    #[error("configured key cannot be used")]
    UnusableKey,
}

/// Why a message was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The channel is not established yet, or has ended.
    #[error("channel is not open")]
    NotOpen,
    /// The message is longer than [`crate::limits::MAX_PAYLOAD`].
    #[error("message of {0} bytes is too long for one channel message")]
    TooLong(usize),
    /// Too much is held back already while the keys are being replaced.
    #[error("too many messages are waiting for a key rotation")]
    HeldBack,
}

//! Connections between the machines, and what is under way over them.

use bytes::BytesMut;
use relay_proto::ConnectionId;

/// Who has an end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Relay(usize),
    Device(usize),
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) client: End,
    /// The connection as a relay that dialled knows it.
    pub(super) dialled: Option<ConnectionId>,
    pub(super) server: usize,
    /// The connection as who accepted it knows it.
    pub(super) accepted: Option<ConnectionId>,
    pub(super) nonce: [u8; 16],
}

/// What arrives at an end, or at who dialled.
#[derive(Debug)]
pub(super) enum Delivery {
    Open(u64),
    Opened(u64),
    ToServer(u64, BytesMut),
    ToClient(u64, BytesMut),
    ClosedToServer(u64),
    ClosedToClient(u64),
    /// A dial in vain.
    Failed(usize, ConnectionId),
}

impl End {
    pub(super) const fn relay(self) -> Option<usize> {
        match self {
            Self::Relay(relay) => Some(relay),
            Self::Device(_) => None,
        }
    }
}

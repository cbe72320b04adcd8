//! How far a client has come with its connection, and what every new channel is told.

use std::time::Instant;

use identity::{CertificateChain, Endpoints, RelayEntry, Signed};
use noise_channel::{Channel, ConnectionMask};

use crate::{ConnectionId, Refusal};

/// What is told to every new channel.
#[derive(Debug, Default)]
pub(super) struct Latest {
    pub(super) endpoints: Option<Signed<Endpoints>>,
    /// Whether the endpoints are newer than the hello that is on its way.
    pub(super) are_endpoints_late: bool,
    pub(super) relay: Option<RelayEntry>,
    /// The chain of the hello that is on its way.
    pub(super) hello: Option<CertificateChain>,
    pub(super) wants_whole_map: bool,
    pub(super) wants_to_leave: bool,
}

#[derive(Debug)]
pub(super) enum Link {
    Waiting { until: Instant, refusal: Option<Refusal> },
    Dialling { connection: ConnectionId, mask: ConnectionMask, since: Instant },
    Open { connection: ConnectionId, channel: Box<Channel>, phase: Phase },
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    Hello { since: Instant },
    Ready { pending: bool },
}

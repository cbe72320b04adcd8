//! How far a client has come: its connection, its joining, and what every new channel is told.

use std::time::{Duration, Instant};

use identity::{CertificateChain, Endpoints, RelayEntry, Signed};
use noise_channel::{Channel, ConnectionMask};

use crate::{ConnectionId, Refusal};

/// Endpoints that came too late for the hello are told after this long: by then a device knows its relays, and has
/// told newer ones, or has none.
pub(super) const LATE_ENDPOINTS: Duration = Duration::from_secs(1);

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

/// How far a device that joins has come.
#[derive(Debug, Default)]
pub(super) struct Join {
    pub(super) attempts: u32,
    pub(super) counter: u32,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    pub(super) renew: Option<Instant>,
    pub(super) expire: Option<Instant>,
    /// For endpoints that came too late for the hello.
    pub(super) endpoints: Option<Instant>,
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

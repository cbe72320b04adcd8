//! The constants of section 6.1 of the paper.

use std::time::Duration;

/// Messages after which a new session is asked for.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// Messages after which a session carries nothing more.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Age at which a session's initiator asks for a new one when it sends.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// Age at which a session carries nothing more.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Time after which an attempt without answer is given up.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Least time between two initiations to one peer, and the time an answer is waited for.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after received data that a keepalive ends.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence after sent data that a new handshake ends: the peer had time for its keepalive.
pub(crate) const NEW_HANDSHAKE_TIMEOUT: Duration = KEEPALIVE_TIMEOUT.saturating_add(REKEY_TIMEOUT);
/// Age at which a session's initiator asks for a new one when it only receives: late enough that
/// a sender would have asked, early enough for one attempt and the keepalive before it.
pub(crate) const REKEY_ON_RECEIVE: Duration =
    REJECT_AFTER_TIME.saturating_sub(NEW_HANDSHAKE_TIMEOUT);
/// The most that is added at random to a retransmission, against two ends in step.
pub(crate) const MAX_JITTER: Duration = Duration::from_millis(333);
/// Least time between two initiations that are taken from one peer.
pub(crate) const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

//! The limits of links and relays as data; each constant carries the reason for its value.

use std::time::Duration;

/// A connection that has not attached by then is closed: as long as a handshake may take.
pub const ATTACH_DEADLINE: Duration = noise_channel::limits::HANDSHAKE_DEADLINE;

/// A connection on which nothing came by then is closed: a client speaks first, at once.
pub const FIRST_MESSAGE_DEADLINE: Duration = Duration::from_secs(10);

/// What a device sent over a connection, before it was told that a newer one counts, is on its way for no longer.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// What a connection has to attach before one of an equal makes it way: two round trips over a bad path.
pub(crate) const ATTACH_CHANCE: Duration = Duration::from_secs(3);

/// Connections that are not attached by one and the same path: a client tries several addresses of a
/// relay, each a moment after the one before.
pub(crate) const STRANGERS_PER_PATH: usize = 4;

/// What a client queues for its relay. One flow gets at most half of it, which takes the bursts of a sender
/// whose window is two megabytes; for how long they may stand there is not decided by this bound but by
/// CoDel.
pub const CLIENT_QUEUE_BYTES: usize = 8_000_000;

/// How many frames that may be. Their receivers refuse a frame that 1,024 of its session overtake, and
/// flows overtake each other in the queue.
pub const CLIENT_QUEUE_FRAMES: usize = 512;

/// Messages beside data that may wait for a client, which are never dropped: more than its own rate
/// lets it cause in ten seconds.
pub(crate) const CONTROL_QUEUE: usize = 256;

/// Devices of all networks whose numbers a relay remembers: six megabytes.
pub(crate) const MAX_REMEMBERED: usize = 65_536;

/// `unreachable` answers that one client gets in a second; the rest is dropped silently.
pub(crate) const UNREACHABLE_RATE: crate::Rate = crate::Rate { per_second: 10, burst: 20 };

/// Channel messages that one client may send in a second: each may cost a Diffie-Hellman.
pub(crate) const CONTROL_RATE: crate::Rate = crate::Rate { per_second: 20, burst: 200 };

/// Capability from which on a relay takes links of other relays as such.
pub const MESH_CAPABILITY: u16 = 3;

/// Capability from which on a relay passes datagrams on.
pub(crate) const CIRCUIT_CAPABILITY: u16 = 5;

/// Relays that a frame passes at most after that of its sender: more than there are between any two of a thousand.
pub(crate) const MESH_HOPS: u8 = 8;

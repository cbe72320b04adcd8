//! The limits of a channel as data; each constant carries the reason for its value.

use std::time::Duration;

/// Largest message on the wire, in bytes (Noise, section 3).
pub const MAX_MESSAGE: usize = 65_535;

/// Bytes that a transport message adds to its payload: one of type, sixteen of tag.
pub const MESSAGE_OVERHEAD: usize = 17;

/// Largest payload of one message, in bytes.
pub const MAX_PAYLOAD: usize = MAX_MESSAGE - MESSAGE_OVERHEAD;

/// A handshake that is not over by then fails.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(30);

/// How far the initiator's wall clock may be from the responder's.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// How long a first message is remembered; more than twice the clock tolerance, after which its
/// time is refused anyhow.
pub const REPLAY_WINDOW: Duration = Duration::from_secs(300);

/// First messages remembered by a guard made with `ReplayGuard::default()`: about three
/// megabytes when full.
pub const REPLAY_CAPACITY: usize = 32_768;

/// Age at which the initiator replaces the keys.
pub const ROTATE_AFTER: Duration = Duration::from_secs(3_600);

/// Counted messages in one direction at which the initiator replaces the keys.
pub const ROTATE_AFTER_MESSAGES: u32 = 100;

/// A rotation that is not agreed by then is abandoned, reported and tried again.
pub const ROTATION_DEADLINE: Duration = Duration::from_secs(5);

/// Pause between an abandoned rotation and the next attempt.
pub const ROTATION_RETRY: Duration = Duration::from_secs(5);

/// Age at which keys end whatever happens: twice the rotation limit.
pub const HARD_STOP_AFTER: Duration = Duration::from_secs(7_200);

/// Counted messages in one direction at which keys end: twice the rotation limit.
pub const HARD_STOP_MESSAGES: u32 = 200;

/// How long messages may be held back at the hard stop before the channel fails.
pub const HOLD_BACK_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes that may be held back at the hard stop. A network map is not among them: it goes out as far as the keys reach.
pub const HOLD_BACK_BYTES: usize = 16 * 1024 * 1024;

/// An idle channel sends something by then: content delivery networks cut idle connections after
/// 60 to 100 seconds.
pub const HEARTBEAT_AFTER: Duration = Duration::from_secs(24);

/// A channel on which nothing arrived for three heartbeats is dead.
pub const SILENCE_DEADLINE: Duration = Duration::from_secs(80);

/// Largest handshake message: keys, tags, fields and padding.
pub(crate) const MAX_HANDSHAKE_MESSAGE: usize = 512;

/// Padding of a handshake message is shorter than this.
pub(crate) const HANDSHAKE_PADDING: u8 = 192;

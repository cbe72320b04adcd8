//! Every limit as data; each constant carries the reason for its value.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The version of these messages, and of those to relays and peers, that is spoken here. From 2 on padding of streams is
/// passed over, from 3 on relays hand frames on to each other, from 4 on dummies are passed over
/// and bundles of frames taken, from 5 on relays pass datagrams on.
pub const CAPABILITY: u16 = 5;

/// Largest encoded control message, in bytes: one channel message.
pub const MAX_MESSAGE: usize = noise_channel::limits::MAX_PAYLOAD;

/// Bytes of items after which a map chunk is closed: leaves room for one more item of
/// [`MAX_ITEM`] below [`MAX_MESSAGE`].
pub const CHUNK_BYTES: usize = 32 * 1024;

/// Largest encoded map item: a chain of 16 KiB, a binding and endpoints.
pub const MAX_ITEM: usize = 24 * 1024;

/// Largest network map on disk: ten thousand devices of four kilobytes, with room.
pub const MAX_MAP: usize = 128 * 1024 * 1024;

/// Devices of one network, members and pending.
pub const MAX_DEVICES: usize = 10_000;

/// Plain WireGuard peers of one network; every node looks at all of them.
pub const MAX_PEERS: usize = 1_000;

/// Names of one network beside those of devices; every node looks at all of them.
pub const MAX_NAMES: usize = 1_000;

/// Characters of such a name, which leaves room for the network's own name in a DNS name of 253.
pub const MAX_NAME_LENGTH: usize = 180;

/// Addresses of such a name: they have to fit one DNS message.
pub const MAX_NAME_ADDRESSES: usize = 16;

/// Invites that are remembered.
pub const MAX_INVITES: usize = 10_000;

/// Invites made by one request.
pub const MAX_INVITES_AT_ONCE: u16 = 100;

/// The longest time that an invite may be used, in seconds: 90 days.
pub const LONGEST_INVITE: u64 = 90 * 24 * 3600;

/// The longest outline or list of unsigned records as text, in characters: that many entries of
/// relays, with room.
pub const MAX_OUTLINE: usize = 512 * 1024;

/// Entries of relays that may wait for the owner's signature.
pub const MAX_OFFERS: usize = 64;

/// Largest entry that a relay may offer, encoded: a record of it is at most twice as large.
pub const MAX_RELAY_ENTRY: usize = 2_048;

/// Items that are published by one request: they fit the largest body of the administration's API.
pub const MAX_ITEMS_AT_ONCE: usize = 8;

/// Devices that may wait for approval; an intercepted stack of invites must not fill the network.
pub const MAX_PENDING_DEVICES: usize = 1_000;

/// Connections that have not said hello yet; a further one displaces the oldest. With its TLS and
/// buffers each costs 20 KB.
pub const MAX_STRANGERS: usize = 256;

/// A connection that has not said hello by then is closed: the handshake's own deadline and a
/// round trip.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(40);

/// Messages of the channel, its own among them, that a node may send at once: what its payloads may
/// need, with room.
pub const CHANNEL_BURST: u32 = 200;

/// Pause after which a node may send one more message of the channel: each may be a rotation, which
/// costs several Diffie-Hellmans.
pub const CHANNEL_INTERVAL: Duration = Duration::from_millis(50);

/// Messages that a node may send at once.
pub const MESSAGE_BURST: u32 = 40;

/// Pause after which a node may send one more message.
pub const MESSAGE_INTERVAL: Duration = Duration::from_millis(500);

/// Security events that are kept per minute; the rest is counted and kept as one number.
pub const EVENTS_PER_MINUTE: u32 = 120;

/// The part of them that nodes may report, so that no node can hide what the controller itself sees.
pub const REPORTS_PER_MINUTE: u32 = EVENTS_PER_MINUTE / 2;

/// Largest security event that a node may report, in bytes: two ids and a sentence.
pub const MAX_REPORT: usize = 512;

/// How often the logs are cut to what the settings keep: at the highest rate of events they exceed
/// the bound by a few thousand.
pub const PRUNE_INTERVAL: Duration = Duration::from_secs(3_600);

/// Entries that each log may be told to keep: a database of a few gigabytes at most.
pub const LOG_ENTRIES: RangeInclusive<u64> = 1_000..=10_000_000;

/// For how long the logs may be told to keep entries, in seconds: a day to ten years.
pub const LOG_SECONDS: RangeInclusive<u64> = 86_400..=3_650 * 86_400;

/// Places that one controller may have.
pub const MAX_PLACES: usize = 8;

/// How often the controller says that its revocation list is current (protocol.md, section 1).
pub const FRESHNESS_INTERVAL: Duration = Duration::from_secs(300);

/// Age of the last word about revocations that a node calls stale: two intervals and a half.
pub const FRESHNESS_STALE: Duration = Duration::from_secs(750);

/// Devices whose numbers a map remembers, members and such as have gone: a megabyte.
pub const MAX_FLOORS: usize = 2 * MAX_DEVICES;

/// Entries of the list of revocations that one member tells another at once: with a chain they fit one
/// frame.
pub const MAX_GOSSIP: usize = 64;

/// After how many seconds devices may have to change their relays.
pub const RELAY_ROTATION: RangeInclusive<u32> = 600..=30 * 86_400;

/// How often a relay reports its load.
pub const LOAD_REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// A relay is unhealthy after two missing reports, with ten seconds for the way.
pub const LOAD_REPORT_DEADLINE: Duration = Duration::from_secs(130);

/// Removed map items that are remembered; a node that was away for longer gets the whole map.
pub const MAX_TOMBSTONES: usize = 4_096;

/// First pause before a lost controller is dialled again.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(500);

/// Longest pause before a lost controller is dialled again.
pub const RECONNECT_LONGEST: Duration = Duration::from_secs(60);

/// Pause after a refusal that only an administrator can lift.
pub const REFUSED_RETRY: Duration = Duration::from_secs(300);

/// A dial that has not opened a connection by then has failed.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(20);

/// How long an answer to a hello may take.
pub const WELCOME_DEADLINE: Duration = Duration::from_secs(20);

/// Names and counters that a joining device tries before it gives up.
pub const JOIN_ATTEMPTS: u32 = 8;

/// Pause between two requests for a renewal while none is answered.
pub const RENEW_RETRY: Duration = Duration::from_secs(600);

use std::time::{Duration, Instant};

/// A TAI64N label as handshake initiations carry it: 8 bytes of seconds, 4 bytes of nanoseconds,
/// big-endian, so that the order of bytes is the order of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64N([u8; 12]);

/// 2^62 (the TAI64 epoch) plus the ten leap seconds before 1970.
const TAI_OFFSET: u64 = 0x4000_0000_0000_000a;
/// Nanoseconds are rounded down to 16.8 ms, so that a label tells little about processing times.
const NANOS_MASK: u32 = !0x00ff_ffff;

impl Tai64N {
    /// The label for a time since the Unix epoch.
    #[must_use]
    pub fn from_unix(since_epoch: Duration) -> Self {
        Self::new(
            TAI_OFFSET.wrapping_add(since_epoch.as_secs()),
            since_epoch.subsec_nanos() & NANOS_MASK,
        )
    }

    /// Takes a label's 12 bytes, as stored or as received.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The label's 12 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// The smallest label that is greater.
    #[must_use]
    pub fn successor(self) -> Self {
        let (seconds, nanos) = self.parts();
        if nanos < 999_999_999 {
            Self::new(seconds, nanos + 1)
        } else {
            Self::new(seconds.saturating_add(1), 0)
        }
    }

    fn new(seconds: u64, nanos: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }

    fn parts(self) -> (u64, u32) {
        let (seconds, nanos) = self.0.split_at(8);
        (
            u64::from_be_bytes(seconds.try_into().expect("split at 8")),
            u32::from_be_bytes(nanos.try_into().expect("4 of 12 bytes remain")),
        )
    }
}

/// Wall-clock time carried forward by the monotonic clock from one reading.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    read: Duration,
    at: Instant,
}

impl WallClock {
    pub(crate) fn new(since_epoch: Duration, now: Instant) -> Self {
        Self { read: since_epoch, at: now }
    }

    pub(crate) fn at(&self, now: Instant) -> Duration {
        self.read.saturating_add(now.saturating_duration_since(self.at))
    }
}

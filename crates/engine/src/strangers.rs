//! Frames from devices that are no peers yet.
//!
//! A device that has just joined may greet a peer before the map that names it has arrived there. Without
//! this it would wait for WireGuard's next attempt.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use identity::DeviceId;

/// Frames that are kept: the handshakes of a few devices.
const MAX_FRAMES: usize = 32;
/// A map is here sooner, and a handshake is repeated later (REKEY_TIMEOUT).
const MAX_AGE: Duration = Duration::from_secs(4);

/// The newest frames from devices that no map has named yet.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    frames: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    since: Instant,
    device: DeviceId,
    relay: DeviceId,
    frame: BytesMut,
}

impl Strangers {
    /// Keeps a frame for a while; the oldest makes room.
    pub(crate) fn keep(
        &mut self,
        device: DeviceId,
        relay: DeviceId,
        frame: BytesMut,
        now: Instant,
    ) {
        if self.frames.len() == MAX_FRAMES {
            self.frames.pop_front();
        }
        self.frames.push_back(Kept { since: now, device, relay, frame });
    }

    /// The frames of a device that are still worth reading, with the relays that brought them.
    pub(crate) fn take(&mut self, device: DeviceId, now: Instant) -> Vec<(DeviceId, BytesMut)> {
        let (taken, left) = std::mem::take(&mut self.frames)
            .into_iter()
            .filter(|kept| now.saturating_duration_since(kept.since) < MAX_AGE)
            .partition(|kept| kept.device == device);
        self.frames = left;
        let taken: VecDeque<Kept> = taken;
        taken.into_iter().map(|kept| (kept.relay, kept.frame)).collect()
    }
}

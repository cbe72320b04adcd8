//! One node's channel, as the controller has it.

use std::time::{Duration, Instant};

use identity::DeviceId;
use noise_channel::Channel;

use crate::limits::{CHANNEL_BURST, CHANNEL_INTERVAL, MESSAGE_BURST, MESSAGE_INTERVAL};
use crate::{ItemKey, MapVersion};

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) channel: Channel,
    pub(crate) phase: Phase,
    pub(crate) opened: Instant,
    /// Where the session stands in the queue of timers.
    pub(crate) timer: Option<Instant>,
    transport: Allowance,
    payloads: Allowance,
}

#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// The channel is not up.
    Handshake,
    /// The channel is up, the node has not said who it is.
    Stranger { remote_static: [u8; 32], handshake_hash: [u8; 32] },
    /// The node is known; `map` is what it has, nothing while it gets no map.
    Ready { device: DeviceId, map: Option<Delivered> },
}

/// How much of the map a node has.
#[derive(Debug, Clone)]
pub(crate) enum Delivered {
    Nothing,
    UpTo(MapVersion),
    /// The rest follows when the channel has its next keys.
    Partly(Part),
}

/// What is left of a way from one version to another.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Where it began; nothing for a whole map.
    pub(crate) base: Option<MapVersion>,
    pub(crate) version: MapVersion,
    /// The last item that was sent, of those in order.
    pub(crate) after: Option<ItemKey>,
}

impl Session {
    pub(crate) fn new(channel: Channel, now: Instant) -> Self {
        Self {
            channel,
            phase: Phase::Handshake,
            opened: now,
            timer: None,
            transport: Allowance::full(CHANNEL_BURST, CHANNEL_INTERVAL, now),
            payloads: Allowance::full(MESSAGE_BURST, MESSAGE_INTERVAL, now),
        }
    }

    pub(crate) const fn device(&self) -> Option<DeviceId> {
        match self.phase {
            Phase::Ready { device, .. } => Some(device),
            Phase::Handshake | Phase::Stranger { .. } => None,
        }
    }

    /// How early it makes room for others, the least first: a channel that is up took its owner a round trip.
    pub(crate) const fn standing(&self) -> (bool, Instant) {
        (!matches!(self.phase, Phase::Handshake), self.opened)
    }

    /// Whether the channel may look at one more message.
    pub(crate) fn allow_transport(&mut self, now: Instant) -> bool {
        self.transport.take(now)
    }

    /// Whether one more payload is within the rate limit.
    pub(crate) fn allow_payload(&mut self, now: Instant) -> bool {
        self.payloads.take(now)
    }
}

/// A token bucket.
#[derive(Debug)]
struct Allowance {
    burst: u32,
    interval: Duration,
    left: u32,
    since: Instant,
}

impl Allowance {
    const fn full(burst: u32, interval: Duration, now: Instant) -> Self {
        Self { burst, interval, left: burst, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.left < self.burst && now >= self.since + self.interval {
            self.left += 1;
            self.since += self.interval;
        }
        if self.left == self.burst {
            self.since = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

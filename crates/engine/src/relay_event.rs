//! What links to relays report to the engine.

use bytes::BytesMut;
use control_proto::SecurityEvent;
use identity::DeviceId;
use noise_channel::ClockOffset;
use relay_proto::{CircuitOffer, LinkError};

/// What the links report to the engine.
#[derive(Debug)]
pub(crate) enum RelayEvent {
    /// The set of links that work has changed.
    Changed,
    /// A frame arrived through this relay.
    Frame(DeviceId, BytesMut),
    /// A stream straight to this peer has opened or ended.
    Stream(DeviceId),
    /// A link did what somebody who watches over the network should know of.
    Alarm(SecurityEvent),
    /// A relay refused this device's time, and would have had this added to the local clock.
    TimeRefused(ClockOffset),
    /// A peer is not attached to this relay.
    Unreachable { relay: DeviceId, peer: DeviceId },
    /// A relay says whether it passes datagrams on between this device and a peer.
    Circuit { relay: DeviceId, peer: DeviceId, offer: Option<CircuitOffer> },
}

impl RelayEvent {
    /// What it means that a link to a relay, or to a peer, has opened or ended.
    pub(crate) const fn change(is_relay: bool, to: DeviceId) -> Self {
        if is_relay { Self::Changed } else { Self::Stream(to) }
    }

    /// The security event that the end of a link is, if it is one.
    pub(crate) fn alarm(relay: DeviceId, error: LinkError) -> Option<Self> {
        let device = Some(relay);
        let event = match error {
            LinkError::Channel(error) => SecurityEvent::of_channel(error, device)?,
            LinkError::Hop(_) | LinkError::Protocol(_) => {
                SecurityEvent::ProtocolViolation { device, reason: error.to_string() }
            }
        };
        Some(Self::Alarm(event))
    }
}

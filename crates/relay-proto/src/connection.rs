//! One connection at the relay.

use std::time::Instant;

use identity::{
    Attachment, Binding, CertificateChain, ChainError, DeviceId, Member, NetworkId,
    RevocationTarget, UnixTime,
};
use noise_channel::{Channel, Now};

use crate::bucket::Bucket;
use crate::fair::Bounds;
use crate::limits::{
    ATTACH_DEADLINE, CONTROL_RATE, FIRST_MESSAGE_DEADLINE, MESH_CAPABILITY, UNREACHABLE_RATE,
};
use crate::link::Link;
use crate::message::{Attach, Refusal};
use crate::serving::{CloseReason, ConnectionId, Limits, RelayNetwork};

/// Where a connection is in its life.
pub(crate) enum Stage {
    /// The handshake, or the first message, is outstanding.
    Opening,
    /// The channel is up; the first message must attach.
    Established { remote_static: [u8; 32], capability: u16 },
    /// Frames flow.
    Attached(Box<Attached>),
    /// What is queued still goes out, then the connection closes.
    Closing,
}

/// A member at this relay.
pub(crate) struct Attached {
    pub(crate) device: DeviceId,
    pub(crate) number: u64,
    pub(crate) binding: u64,
    /// What of its chain can be revoked.
    pub(crate) targets: Vec<RevocationTarget>,
    pub(crate) not_after: UnixTime,
    /// Whether it is a relay that is linked as such.
    pub(crate) is_relay: bool,
    /// The connection that the device had when it attached by this one.
    pub(crate) before: Option<ConnectionId>,
}

/// One connection with all that it may use.
pub(crate) struct Connection {
    pub(crate) network: NetworkId,
    pub(crate) relay: DeviceId,
    pub(crate) link: Link,
    pub(crate) stage: Stage,
    opened: Instant,
    /// When it ends, since its device has a newer one.
    pub(crate) ends: Option<Instant>,
    pub(crate) bytes: Bucket,
    pub(crate) messages: Bucket,
    pub(crate) control: Bucket,
    pub(crate) unreachable: Bucket,
}

impl Connection {
    pub(crate) fn new(
        (network, relay): (NetworkId, DeviceId),
        channel: Channel,
        limits: &Limits,
        now: Instant,
    ) -> Self {
        let bounds = Bounds { bytes: limits.queue_bytes, frames: limits.queue_frames };
        Self {
            network,
            relay,
            link: Link::new(channel, bounds, now),
            stage: Stage::Opening,
            opened: now,
            ends: None,
            bytes: Bucket::full(limits.bytes, now),
            messages: Bucket::full(limits.messages, now),
            control: Bucket::full(CONTROL_RATE, now),
            unreachable: Bucket::full(UNREACHABLE_RATE, now),
        }
    }

    /// When the connection ends unless something happens, and why.
    pub(crate) fn deadline(&self) -> Option<(Instant, CloseReason)> {
        let unattached = self.attach_deadline().map(|at| (at, CloseReason::NotAttached));
        unattached.or(self.ends.map(|at| (at, Refusal::Superseded.into())))
    }

    /// When an unattached connection is given up; nothing once it is attached.
    fn attach_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Opening if self.link.control_received == 0 => {
                Some(self.opened + FIRST_MESSAGE_DEADLINE)
            }
            Stage::Opening | Stage::Established { .. } => Some(self.opened + ATTACH_DEADLINE),
            Stage::Attached(_) | Stage::Closing => None,
        }
    }

    pub(crate) fn attached(&self) -> Option<&Attached> {
        match &self.stage {
            Stage::Attached(attached) => Some(attached),
            Stage::Opening | Stage::Established { .. } | Stage::Closing => None,
        }
    }

    /// Whether a frame of `bytes`, with the padding that came along, is within what a client may send.
    pub(crate) fn admit(&mut self, bytes: u64, now: Instant) -> bool {
        let whole = bytes + std::mem::take(&mut self.link.padding_received);
        self.messages.take(1, now) && self.bytes.take(whole, now)
    }

    /// Checks what a client proves when it attaches.
    pub(crate) fn verify(
        &self,
        attach: &Attach,
        entry: &RelayNetwork,
        now: Now,
    ) -> Result<Attached, Refusal> {
        let Stage::Established { remote_static, capability } = &self.stage else {
            return Err(Refusal::NotMember);
        };
        let wall = UnixTime(now.wall.as_secs());
        let member = verify_member(&attach.chain, entry, wall)?;
        let binding: Binding =
            attach.binding.verify(self.network, member.device).map_err(|_| Refusal::NotMember)?;
        if binding.device != member.device || binding.channel_key.as_bytes() != remote_static {
            return Err(Refusal::WrongChannelKey);
        }
        if wall >= binding.not_after {
            return Err(Refusal::Expired);
        }
        let attachment: Attachment = attach
            .attachment
            .verify(self.network, member.device)
            .map_err(|_| Refusal::NotMember)?;
        if attachment.relay != self.relay {
            return Err(Refusal::NotMember);
        }
        Ok(Attached {
            device: member.device,
            number: attachment.number,
            binding: binding.number,
            targets: attach.chain.targets(),
            not_after: member.not_after,
            is_relay: member.is_relay() && *capability >= MESH_CAPABILITY,
            before: None,
        })
    }

    /// Takes a membership of the attached device in place of the one that it showed before.
    pub(crate) fn renew(
        &mut self,
        chain: &CertificateChain,
        entry: &RelayNetwork,
        wall: UnixTime,
    ) -> Result<(), Refusal> {
        let Stage::Attached(attached) = &mut self.stage else { return Err(Refusal::NotMember) };
        let member = verify_member(chain, entry, wall)?;
        if member.device != attached.device {
            return Err(Refusal::NotMember);
        }
        (attached.targets, attached.not_after) = (chain.targets(), member.not_after);
        Ok(())
    }
}

/// Who the chain proves, or why the relay does not serve it.
fn verify_member(
    chain: &CertificateChain,
    entry: &RelayNetwork,
    wall: UnixTime,
) -> Result<Member, Refusal> {
    let verified = chain.verify(entry.network, wall, &entry.revocations);
    let member = verified.map_err(|error| match error {
        ChainError::Validity { .. } => Refusal::Expired,
        ChainError::Revoked(_) => Refusal::Revoked,
        ChainError::NeedsApproval => Refusal::NeedsApproval,
        ChainError::WrongNetwork
        | ChainError::Signature { .. }
        | ChainError::UnknownScope(_)
        | ChainError::WrongScope { .. }
        | ChainError::LimitExceeded { .. }
        | ChainError::WrongRenewal => Refusal::NotMember,
    })?;
    if entry.serves(&member) { Ok(member) } else { Err(Refusal::OtherGroups) }
}

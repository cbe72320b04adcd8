//! Replacing the keys of a running channel.
//!
//! ```text
//! initiator                                responder
//! RotateRequest(attempt, IK message 1) ─►
//!                                      ◄─  RotateReply(attempt, IK message 2)
//! Switch(attempt), then next keys      ─►
//!                                      ◄─  Switch(attempt), then next keys
//! ```
//!
//! All four travel under the old keys. Until its own `Switch` the initiator can drop the attempt and
//! lose nothing; a reply to a dropped attempt is recognised by its number and ignored.

use std::time::Instant;

use rand_core::CryptoRng;
use snow::HandshakeState;

use crate::keys::Keys;
use crate::limits::{ROTATION_DEADLINE, ROTATION_RETRY};
use crate::{ChannelError, StaticSecret, handshake};

const LABEL: &[u8] = b"shadowmesh rotation v1";
const ATTEMPT: usize = 4;

/// Where a side is in replacing its keys.
pub(crate) enum Rotation {
    /// The initiator waits for a reason to rotate, not before the given time.
    Initiator { not_before: Option<Instant> },
    /// The initiator waits for the reply.
    Requested { handshake: Box<HandshakeState>, deadline: Instant },
    /// The initiator sends with the next keys and waits for the responder's switch.
    Switching { next: Box<Keys> },
    /// The responder waits for a request.
    Responder,
    /// The responder waits for the initiator's switch.
    Replied { next: Box<Keys>, attempt: u32 },
}

impl Rotation {
    /// Whether a handshake for the next keys has begun and is not over.
    pub(crate) const fn is_underway(&self) -> bool {
        match self {
            Self::Initiator { .. } | Self::Responder => false,
            Self::Requested { .. } | Self::Switching { .. } | Self::Replied { .. } => true,
        }
    }
}

/// The static keys of both sides, which every rotation proves again.
pub(crate) struct Statics {
    pub(crate) ours: StaticSecret,
    pub(crate) theirs: [u8; 32],
}

impl Statics {
    /// Starts attempt number `attempt`; returns what waits for the reply and the request.
    pub(crate) fn request(
        &self,
        current: &Keys,
        attempt: u32,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<(Rotation, Vec<u8>), ChannelError> {
        let prologue = prologue(current);
        let mut handshake = handshake::initiator(&self.ours, &self.theirs, &prologue, rng)?;
        let message = handshake::write(&mut handshake, &[])?;
        let deadline = now + ROTATION_DEADLINE;
        let state = Rotation::Requested { handshake: Box::new(handshake), deadline };
        Ok((state, numbered(attempt, &message)))
    }

    /// Answers a request; returns what waits for the switch and the reply.
    pub(crate) fn reply(
        &self,
        current: &Keys,
        request: &[u8],
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<(Rotation, Vec<u8>), ChannelError> {
        let (attempt, message) = split(request)?;
        let mut handshake = handshake::responder(&self.ours, &prologue(current), rng)?;
        handshake::read(&mut handshake, message)?;
        if handshake::remote_static(&handshake)? != self.theirs {
            return Err(ChannelError::Protocol("rotation by another key"));
        }
        let message = handshake::write(&mut handshake, &[])?;
        let next = Box::new(Keys::new(handshake, now)?);
        Ok((Rotation::Replied { next, attempt }, numbered(attempt, &message)))
    }
}

/// Finishes the initiator's handshake; returns the next keys.
pub(crate) fn accept(
    mut handshake: HandshakeState,
    message: &[u8],
    now: Instant,
) -> Result<Box<Keys>, ChannelError> {
    handshake::read(&mut handshake, message)?;
    Ok(Box::new(Keys::new(handshake, now)?))
}

/// When the attempt after one that was abandoned now may start.
pub(crate) fn retry_at(now: Instant) -> Instant {
    now + ROTATION_RETRY
}

/// The number of an attempt and the rest of a rotation message.
pub(crate) fn split(payload: &[u8]) -> Result<(u32, &[u8]), ChannelError> {
    let (attempt, rest) = payload
        .split_first_chunk::<ATTEMPT>()
        .ok_or(ChannelError::Protocol("rotation message is too short"))?;
    Ok((u32::from_be_bytes(*attempt), rest))
}

/// A rotation message with the number of its attempt.
pub(crate) fn numbered(attempt: u32, rest: &[u8]) -> Vec<u8> {
    [attempt.to_be_bytes().as_slice(), rest].concat()
}

fn prologue(current: &Keys) -> Vec<u8> {
    [LABEL, current.hash()].concat()
}

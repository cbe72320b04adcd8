//! An established channel: messages, counts, heartbeats, rotation.

use std::collections::VecDeque;
use std::mem;
use std::time::Instant;

use rand_core::CryptoRng;
use snow::HandshakeState;

use crate::keys::{Keys, Kind};
use crate::limits::{
    HEARTBEAT_AFTER, HOLD_BACK_BYTES, HOLD_BACK_DEADLINE, MAX_PAYLOAD, SILENCE_DEADLINE,
};
use crate::rotation::{self, Rotation, Statics};
use crate::{ChannelError, ChannelEvent, MessageClass, SendError};

/// What a channel has for its owner.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) messages: VecDeque<Vec<u8>>,
    pub(crate) events: VecDeque<ChannelEvent>,
}

/// The state of an established channel.
pub(crate) struct Session {
    statics: Statics,
    /// Opens what arrives, and seals unless the switch was sent.
    current: Keys,
    rotation: Rotation,
    attempt: u32,
    held: Held,
    last_sent: Instant,
    last_received: Instant,
}

/// Counted messages that wait for the next keys.
#[derive(Default)]
struct Held {
    payloads: VecDeque<Vec<u8>>,
    bytes: usize,
    since: Option<Instant>,
}

impl Session {
    pub(crate) fn initiator(
        handshake: HandshakeState,
        statics: Statics,
        now: Instant,
    ) -> Result<Self, ChannelError> {
        Self::new(handshake, statics, Rotation::Initiator { not_before: None }, now)
    }

    pub(crate) fn responder(
        handshake: HandshakeState,
        statics: Statics,
        now: Instant,
    ) -> Result<Self, ChannelError> {
        Self::new(handshake, statics, Rotation::Responder, now)
    }

    fn new(
        handshake: HandshakeState,
        statics: Statics,
        rotation: Rotation,
        now: Instant,
    ) -> Result<Self, ChannelError> {
        Ok(Self {
            statics,
            current: Keys::new(handshake, now)?,
            rotation,
            attempt: 0,
            held: Held::default(),
            last_sent: now,
            last_received: now,
        })
    }

    pub(crate) const fn handshake_hash(&self) -> &[u8; 32] {
        self.current.hash()
    }

    pub(crate) const fn remote_static(&self) -> &[u8; 32] {
        &self.statics.theirs
    }

    /// Traffic of the same connection that went beside the channel counts as a sign of life.
    pub(crate) fn note_sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// See [`Self::note_sent`].
    pub(crate) fn note_received(&mut self, now: Instant) {
        self.last_received = now;
    }

    pub(crate) const fn is_rotating(&self) -> bool {
        self.rotation.is_underway()
    }

    /// Whether counted messages need not wait for the next keys.
    pub(crate) fn has_room(&self) -> bool {
        self.held.payloads.is_empty() && !self.sending().spent()
    }

    pub(crate) fn send(
        &mut self,
        payload: &[u8],
        class: MessageClass,
        out: &mut Outbox,
        now: Instant,
    ) -> Result<(), SendError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(SendError::TooLong(payload.len()));
        }
        if class == MessageClass::Counted && !self.has_room() {
            return self.held.push(payload, now);
        }
        self.seal(class.into(), payload, out, now).map_err(|_| SendError::NotOpen)
    }

    pub(crate) fn handle_message(
        &mut self,
        message: &[u8],
        out: &mut Outbox,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<(), ChannelError> {
        let (kind, payload) = self.current.open(message, now)?;
        self.last_received = now;
        match kind {
            Kind::Counted | Kind::Heartbeat => {
                out.events.push_back(ChannelEvent::Received(payload));
                Ok(())
            }
            Kind::KeepAlive => Ok(()),
            Kind::RotateRequest => self.handle_request(&payload, out, rng, now),
            Kind::RotateReply => self.handle_reply(&payload, out, now),
            Kind::Switch => self.handle_switch(&payload, out, now),
        }
    }

    pub(crate) fn handle_timeout(
        &mut self,
        out: &mut Outbox,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<(), ChannelError> {
        if now >= self.current.stop_at() || self.held.expired(now) {
            return Err(ChannelError::KeysExhausted);
        }
        if now >= self.last_received + SILENCE_DEADLINE {
            return Err(ChannelError::PeerSilent);
        }
        self.abandon_late_rotation(out, now);
        if self.rotation_due().is_some_and(|due| now >= due) {
            self.request_rotation(out, rng, now)?;
        }
        if now >= self.last_sent + HEARTBEAT_AFTER {
            self.seal(Kind::KeepAlive, &[], out, now)?;
        }
        Ok(())
    }

    pub(crate) fn poll_timeout(&self) -> (Instant, &'static str) {
        let rotation = match &self.rotation {
            Rotation::Requested { deadline, .. } => Some((*deadline, "rotation deadline")),
            Rotation::Initiator { .. } => self.rotation_due().map(|due| (due, "rotation due")),
            Rotation::Switching { .. } | Rotation::Responder | Rotation::Replied { .. } => None,
        };
        [
            Some((self.current.stop_at(), "hard stop of the keys")),
            Some((self.last_received + SILENCE_DEADLINE, "silence deadline")),
            Some((self.last_sent + HEARTBEAT_AFTER, "heartbeat")),
            self.held.since.map(|since| (since + HOLD_BACK_DEADLINE, "hold-back deadline")),
            rotation,
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
        .expect("the hard stop is always armed")
    }

    fn handle_request(
        &mut self,
        payload: &[u8],
        out: &mut Outbox,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<(), ChannelError> {
        match self.rotation {
            Rotation::Responder | Rotation::Replied { .. } => {}
            Rotation::Initiator { .. }
            | Rotation::Requested { .. }
            | Rotation::Switching { .. } => {
                return Err(ChannelError::Protocol("the responder asked for a rotation"));
            }
        }
        let (state, reply) = self.statics.reply(&self.current, payload, rng, now)?;
        self.rotation = state;
        self.seal(Kind::RotateReply, &reply, out, now)
    }

    fn handle_reply(
        &mut self,
        payload: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Result<(), ChannelError> {
        let (attempt, message) = rotation::split(payload)?;
        if attempt != self.attempt {
            return Ok(());
        }
        match mem::replace(&mut self.rotation, Rotation::Initiator { not_before: None }) {
            Rotation::Requested { handshake, .. } => {
                let next = rotation::accept(*handshake, message, now)?;
                let switch = rotation::numbered(attempt, &[]);
                self.seal(Kind::Switch, &switch, out, now)?;
                self.rotation = Rotation::Switching { next };
                self.release_held(out, now)
            }
            late @ Rotation::Initiator { .. } => {
                self.rotation = late;
                Ok(())
            }
            Rotation::Switching { .. } | Rotation::Responder | Rotation::Replied { .. } => {
                Err(ChannelError::Protocol("a rotation reply that nobody asked for"))
            }
        }
    }

    fn handle_switch(
        &mut self,
        payload: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Result<(), ChannelError> {
        let (number, _) = rotation::split(payload)?;
        match mem::replace(&mut self.rotation, Rotation::Responder) {
            Rotation::Replied { next, attempt } if attempt == number => {
                self.seal(Kind::Switch, &rotation::numbered(attempt, &[]), out, now)?;
                self.current = *next;
                self.release_held(out, now)?;
            }
            Rotation::Switching { next } if number == self.attempt => {
                self.current = *next;
                self.rotation = Rotation::Initiator { not_before: None };
            }
            Rotation::Replied { .. }
            | Rotation::Switching { .. }
            | Rotation::Initiator { .. }
            | Rotation::Requested { .. }
            | Rotation::Responder => {
                return Err(ChannelError::Protocol("a switch without a rotation"));
            }
        }
        out.events.push_back(ChannelEvent::Rotated);
        Ok(())
    }

    fn abandon_late_rotation(&mut self, out: &mut Outbox, now: Instant) {
        if let Rotation::Requested { deadline, .. } = &self.rotation
            && now >= *deadline
        {
            self.rotation = Rotation::Initiator { not_before: Some(rotation::retry_at(now)) };
            out.events.push_back(ChannelEvent::RotationAbandoned);
        }
    }

    /// When the initiator has to ask for new keys, if it is not asking already.
    fn rotation_due(&self) -> Option<Instant> {
        let Rotation::Initiator { not_before } = &self.rotation else { return None };
        let wanted = self.current.rotate_at();
        Some(not_before.map_or(wanted, |earliest| wanted.max(earliest)))
    }

    fn request_rotation(
        &mut self,
        out: &mut Outbox,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Result<(), ChannelError> {
        self.attempt = self.attempt.wrapping_add(1);
        let (state, request) = self.statics.request(&self.current, self.attempt, rng, now)?;
        self.rotation = state;
        self.seal(Kind::RotateRequest, &request, out, now)
    }

    fn release_held(&mut self, out: &mut Outbox, now: Instant) -> Result<(), ChannelError> {
        while !self.sending().spent() {
            let Some(payload) = self.held.pop(now) else { break };
            self.seal(Kind::Counted, &payload, out, now)?;
        }
        Ok(())
    }

    fn seal(
        &mut self,
        kind: Kind,
        payload: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Result<(), ChannelError> {
        let keys = match &mut self.rotation {
            Rotation::Switching { next } => next,
            Rotation::Initiator { .. }
            | Rotation::Requested { .. }
            | Rotation::Responder
            | Rotation::Replied { .. } => &mut self.current,
        };
        out.messages.push_back(keys.seal(kind, payload, now)?);
        self.last_sent = now;
        Ok(())
    }

    fn sending(&self) -> &Keys {
        match &self.rotation {
            Rotation::Switching { next } => next,
            Rotation::Initiator { .. }
            | Rotation::Requested { .. }
            | Rotation::Responder
            | Rotation::Replied { .. } => &self.current,
        }
    }
}

impl Held {
    fn push(&mut self, payload: &[u8], now: Instant) -> Result<(), SendError> {
        if self.bytes + payload.len() > HOLD_BACK_BYTES {
            return Err(SendError::HeldBack);
        }
        self.bytes += payload.len();
        self.payloads.push_back(payload.to_vec());
        self.since.get_or_insert(now);
        Ok(())
    }

    /// The oldest payload; what stays behind starts its wait anew, since the keys were replaced.
    fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        let payload = self.payloads.pop_front()?;
        self.bytes -= payload.len();
        self.since = (!self.payloads.is_empty()).then_some(now);
        Some(payload)
    }

    fn expired(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now >= since + HOLD_BACK_DEADLINE)
    }
}

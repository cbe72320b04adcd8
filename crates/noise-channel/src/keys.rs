//! One generation of transport keys and what it has been used for.

use std::time::Instant;

use snow::{HandshakeState, TransportState};
use zeroize::Zeroizing;

use crate::limits::{
    HARD_STOP_AFTER, HARD_STOP_MESSAGES, MAX_MESSAGE, MESSAGE_OVERHEAD, ROTATE_AFTER,
    ROTATE_AFTER_MESSAGES,
};
use crate::{ChannelError, MessageClass};

/// The first plaintext byte of a transport message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The application's, counted.
    Counted = 1,
    /// The application's, not counted.
    Heartbeat = 2,
    /// The channel's own sign of life.
    KeepAlive = 3,
    /// First message of a rotation.
    RotateRequest = 4,
    /// Second message of a rotation.
    RotateReply = 5,
    /// What follows in this direction is sealed with the next keys.
    Switch = 6,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Counted,
        Self::Heartbeat,
        Self::KeepAlive,
        Self::RotateRequest,
        Self::RotateReply,
        Self::Switch,
    ];
}

impl From<MessageClass> for Kind {
    fn from(class: MessageClass) -> Self {
        match class {
            MessageClass::Counted => Self::Counted,
            MessageClass::Heartbeat => Self::Heartbeat,
        }
    }
}

/// Transport keys of both directions with their age and counts.
pub(crate) struct Keys {
    transport: TransportState,
    hash: [u8; 32],
    since: Instant,
    sent: u32,
    received: u32,
    worn_since: Option<Instant>,
}

impl Keys {
    pub(crate) fn new(handshake: HandshakeState, now: Instant) -> Result<Self, ChannelError> {
        let hash = handshake
            .get_handshake_hash()
            .try_into()
            .map_err(|_| ChannelError::HandshakeMalformed)?;
        let transport =
            handshake.into_transport_mode().map_err(|_| ChannelError::HandshakeMalformed)?;
        Ok(Self { transport, hash, since: now, sent: 0, received: 0, worn_since: None })
    }

    /// The hash of the handshake that made these keys.
    pub(crate) const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Whether no further counted message may be sent with these keys.
    pub(crate) const fn spent(&self) -> bool {
        self.sent >= HARD_STOP_MESSAGES
    }

    /// When the initiator should replace these keys because of their counts or age.
    pub(crate) fn rotate_at(&self) -> Instant {
        self.worn_since.unwrap_or(self.since + ROTATE_AFTER)
    }

    /// When these keys end.
    pub(crate) fn stop_at(&self) -> Instant {
        self.since + HARD_STOP_AFTER
    }

    /// Seals a payload that has been checked to fit.
    pub(crate) fn seal(
        &mut self,
        kind: Kind,
        payload: &[u8],
        now: Instant,
    ) -> Result<Vec<u8>, ChannelError> {
        let mut plaintext = Zeroizing::new(Vec::with_capacity(payload.len() + 1));
        plaintext.push(kind as u8);
        plaintext.extend_from_slice(payload);
        let mut message = vec![0; payload.len() + MESSAGE_OVERHEAD];
        let length = self
            .transport
            .write_message(&plaintext, &mut message)
            .map_err(|_| ChannelError::KeysExhausted)?;
        message.truncate(length);
        if kind == Kind::Counted {
            self.sent += 1;
            self.note_wear(now);
        }
        Ok(message)
    }

    pub(crate) fn open(
        &mut self,
        message: &[u8],
        now: Instant,
    ) -> Result<(Kind, Vec<u8>), ChannelError> {
        if message.len() > MAX_MESSAGE {
            return Err(ChannelError::MessageTooLong(message.len()));
        }
        let mut payload = vec![0; message.len()];
        let length = self
            .transport
            .read_message(message, &mut payload)
            .map_err(|_| ChannelError::MessageRejected)?;
        payload.truncate(length);
        let first = *payload.first().ok_or(ChannelError::Protocol("empty message"))?;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| *kind as u8 == first)
            .ok_or(ChannelError::Protocol("unknown kind of message"))?;
        payload.remove(0);
        if kind == Kind::Counted {
            self.received += 1;
            self.note_wear(now);
            if self.received > HARD_STOP_MESSAGES {
                return Err(ChannelError::Protocol("more messages than the keys may carry"));
            }
        }
        Ok((kind, payload))
    }

    fn note_wear(&mut self, now: Instant) {
        if self.sent >= ROTATE_AFTER_MESSAGES || self.received >= ROTATE_AFTER_MESSAGES {
            self.worn_since.get_or_insert(now);
        }
    }
}

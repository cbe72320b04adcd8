//! What both ends of a link do alike: the channel, then hop protection around it and the frames.

use std::collections::VecDeque;
use std::time::Instant;

use noise_channel::{
    Channel, ChannelError, ChannelEvent, ClockOffset, MessageClass, Now, UnixMillis,
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::hop::HopOpener;
use crate::message::Message;
use crate::outbound::Outbound;
use crate::wire;
use crate::wire::Kind;

/// Why a link broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The channel ended.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A message does not authenticate under the hop key, or is no frame.
    #[error("a message is not a well-formed protected frame")]
    BadFrame,
    /// The peer broke the rules of the protocol; the text says which.
    #[error("peer broke the protocol: {0}")]
    Protocol(&'static str),
}

/// What happened on a link.
pub(crate) enum LinkEvent {
    Established { remote_static: [u8; 32], capability: u16 },
    Message(Message),
    Frame(Vec<u8>),
    Rotated,
    RotationAbandoned,
    ClockSkew { theirs: UnixMillis, offset: ClockOffset },
    Failed(LinkError),
}

/// One end of a link.
pub(crate) struct Link {
    channel: Channel,
    pub(crate) outbound: Outbound,
    opener: Option<HopOpener>,
    next_opener: Option<HopOpener>,
    events: VecDeque<LinkEvent>,
}

impl Link {
    pub(crate) fn new(channel: Channel, queue_capacity: usize) -> Self {
        let mut link = Self {
            channel,
            outbound: Outbound::with_capacity(queue_capacity),
            opener: None,
            next_opener: None,
            events: VecDeque::new(),
        };
        link.drain_messages();
        link
    }

    /// Protects all that we send from now on, with a key that the peer was told before.
    pub(crate) fn begin_sending(&mut self, key: &[u8; 32]) {
        self.outbound.begin_hop(key);
    }

    /// Expects protection of all that arrives from now on.
    pub(crate) fn begin_receiving(&mut self, key: &[u8; 32]) {
        self.opener = Some(HopOpener::new(key));
    }

    pub(crate) fn handle_message(&mut self, message: Vec<u8>, rng: &mut dyn CryptoRng, now: Now) {
        let Some(opener) = &mut self.opener else {
            return self.handle_channel_message(&message, rng, now);
        };
        let Some(frame) = opener.open(message) else {
            return self.events.push_back(LinkEvent::Failed(LinkError::BadFrame));
        };
        self.channel.note_received(now.instant);
        match wire::kind(&frame) {
            Some(Kind::Control) => {
                self.handle_channel_message(wire::control_payload(&frame), rng, now);
            }
            Some(Kind::Marker) => match self.next_opener.take() {
                Some(next) => self.opener = Some(next),
                None => self.fail("a marker without a key"),
            },
            Some(Kind::Peer) => self.events.push_back(LinkEvent::Frame(frame)),
            None => self.events.push_back(LinkEvent::Failed(LinkError::BadFrame)),
        }
    }

    pub(crate) fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        self.channel.handle_timeout(rng, now);
        self.drain_channel(rng, now);
    }

    /// Sends a message of the relay protocol, if the channel is open.
    pub(crate) fn send(&mut self, message: &Message, class: MessageClass, now: Instant) {
        // A channel that takes no message has reported why, or is about to.
        let _ = self.channel.send(&message.to_bytes(), class, now);
        self.drain_messages();
    }

    /// The next WebSocket message for the peer.
    pub(crate) fn poll_message(&mut self, now: Instant) -> Option<Vec<u8>> {
        let message = self.outbound.pop(now)?;
        self.channel.note_sent(now);
        Some(message)
    }

    pub(crate) fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.channel.poll_timeout()
    }

    fn handle_channel_message(&mut self, message: &[u8], rng: &mut dyn CryptoRng, now: Now) {
        self.channel.handle_message(message, rng, now);
        self.drain_channel(rng, now);
    }

    fn drain_channel(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        self.drain_messages();
        while let Some(event) = self.channel.poll_event() {
            match event {
                ChannelEvent::Established { remote_static, capability, .. } => {
                    self.events.push_back(LinkEvent::Established { remote_static, capability });
                }
                ChannelEvent::Received(bytes) => self.handle_control(&bytes),
                ChannelEvent::Rotated => self.rotate_hop(rng, now.instant),
                ChannelEvent::RotationAbandoned => {
                    self.events.push_back(LinkEvent::RotationAbandoned);
                }
                ChannelEvent::ClockSkew { theirs, offset } => {
                    self.events.push_back(LinkEvent::ClockSkew { theirs, offset });
                }
                ChannelEvent::Failed(error) => {
                    self.events.push_back(LinkEvent::Failed(error.into()));
                }
            }
        }
    }

    fn drain_messages(&mut self) {
        while let Some(message) = self.channel.poll_message() {
            self.outbound.push_channel(message);
        }
    }

    fn handle_control(&mut self, bytes: &[u8]) {
        match Message::from_bytes(bytes) {
            Some(Message::HopKey(key)) => self.next_opener = Some(HopOpener::new(&key)),
            Some(message) => self.events.push_back(LinkEvent::Message(message)),
            None => self.fail("a message that nobody can read"),
        }
    }

    /// Every rotation of the channel's keys brings a new hop key for what we send.
    fn rotate_hop(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        self.events.push_back(LinkEvent::Rotated);
        if self.outbound.is_protected() {
            let mut key = Zeroizing::new([0; 32]);
            rng.fill_bytes(&mut *key);
            self.send(&Message::HopKey(*key), MessageClass::Heartbeat, now);
            self.outbound.switch_hop(&key);
        }
    }

    fn fail(&mut self, what: &'static str) {
        self.events.push_back(LinkEvent::Failed(LinkError::Protocol(what)));
    }
}

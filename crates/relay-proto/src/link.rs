//! What both ends of a link do alike: the channel, then hop protection around it and the frames.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;
use frame_proto::{
    FrameType, HEADER_LENGTH, HOP_TAG_LENGTH, HopError, HopKey, HopOpener, TAG_LENGTH, payload,
};
use identity::DeviceId;
use noise_channel::limits::MESSAGE_OVERHEAD;
use noise_channel::{
    Channel, ChannelError, ChannelEvent, ClockOffset, MessageClass, Now, UnixMillis,
};
use rand_core::CryptoRng;
use shaping::{Content, Plan, Shaper};

use crate::bundle::unbundle;
use crate::fair::Bounds;
use crate::message::Message;
use crate::outbound::Outbound;
use crate::padding::{PADDING_CAPABILITY, SHAPING_CAPABILITY};

/// Why a link broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The channel ended.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A message does not authenticate under the hop key, or is no frame.
    #[error(transparent)]
    Hop(#[from] HopError),
    /// The peer broke the rules of the protocol; the text says which.
    #[error("peer broke the protocol: {0}")]
    Protocol(&'static str),
}

/// What happened on a link.
pub(crate) enum LinkEvent {
    Established {
        remote_static: [u8; 32],
        capability: u16,
    },
    Message(Message),
    /// A frame, and the peer that its header names.
    Frame(DeviceId, BytesMut),
    /// A frame that another relay hands on, with its route.
    Carried(BytesMut),
    /// What another relay says.
    Mesh(BytesMut),
    /// A message that says nothing.
    Dummy,
    Rotated,
    RotationAbandoned,
    ClockSkew {
        theirs: UnixMillis,
        offset: ClockOffset,
    },
    Failed(LinkError),
}

/// One end of a link.
pub(crate) struct Link {
    channel: Channel,
    pub(crate) outbound: Outbound,
    opener: Option<HopOpener>,
    events: VecDeque<LinkEvent>,
    /// Messages of the channel so far: each may cost a Diffie-Hellman.
    pub(crate) control_received: u64,
    /// Bytes beside frames that have come and that nobody has counted yet: padding, dummies, and what is round bundles.
    pub(crate) padding_received: u64,
    /// What messages are shaped by, once they can be.
    plan: Option<Plan>,
    /// Whether the other end passes over dummies.
    takes_dummies: bool,
}

impl Link {
    pub(crate) fn new(channel: Channel, queue: Bounds, now: Instant) -> Self {
        let mut link = Self {
            channel,
            outbound: Outbound::new(queue),
            opener: None,
            events: VecDeque::new(),
            control_received: 0,
            padding_received: 0,
            plan: None,
            takes_dummies: false,
        };
        link.drain_messages(now);
        link
    }

    /// Protects all that we send from now on, with a key that the peer was told before.
    pub(crate) fn begin_sending(&mut self, key: &HopKey, peer: DeviceId) {
        self.outbound.begin_hop(key, peer);
    }

    /// Expects protection of all that arrives from now on.
    pub(crate) fn begin_receiving(&mut self, key: &HopKey) {
        self.opener = Some(HopOpener::new(key));
    }

    /// Has messages leave as a plan says, or as soon as they can.
    pub(crate) fn set_plan(&mut self, plan: Option<Plan>, rng: &mut dyn CryptoRng, now: Instant) {
        self.plan = plan;
        self.begin_shaping(rng, now);
    }

    /// Runs the plan from now on, if frames flow and the other end passes over dummies.
    pub(crate) fn begin_shaping(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        let is_open = self.opener.is_some() && self.outbound.is_protected();
        let plan = self.plan.as_ref().filter(|_| is_open && self.takes_dummies);
        let shaper = plan.map(|plan| {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            Shaper::new(plan, seed, now)
        });
        self.outbound.set_shaper(shaper, now);
    }

    pub(crate) fn handle_message(
        &mut self,
        mut message: BytesMut,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        let Some(opener) = &mut self.opener else {
            return self.handle_channel_message(&message, rng, now);
        };
        let header = match opener.open(&mut message) {
            Ok(header) => header,
            Err(error) => return self.events.push_back(LinkEvent::Failed(error.into())),
        };
        self.channel.note_received(now.instant);
        let length = header.frame_length();
        let of_frames = match header.kind {
            FrameType::Dummy => 0,
            FrameType::Bundle => length - HEADER_LENGTH - TAG_LENGTH,
            FrameType::Data
            | FrameType::Handshake
            | FrameType::Disco
            | FrameType::Introduce
            | FrameType::Control
            | FrameType::Marker
            | FrameType::Carried
            | FrameType::Mesh => length,
        };
        self.padding_received += (message.len() - HOP_TAG_LENGTH - of_frames) as u64;
        self.outbound.handle_received(content(header.kind), now.instant);
        let frame = || without_padding(message, length);
        match header.kind {
            FrameType::Control => self.handle_channel_message(payload(&frame()), rng, now),
            FrameType::Marker => {}
            FrameType::Dummy => self.events.push_back(LinkEvent::Dummy),
            FrameType::Bundle => self.handle_bundle(&frame()),
            FrameType::Carried => self.events.push_back(LinkEvent::Carried(frame())),
            FrameType::Mesh => self.events.push_back(LinkEvent::Mesh(frame())),
            FrameType::Data | FrameType::Handshake | FrameType::Disco | FrameType::Introduce => {
                self.events.push_back(LinkEvent::Frame(header.peer, frame()));
            }
        }
    }

    /// Takes several frames as if each had come by itself.
    fn handle_bundle(&mut self, bundle: &[u8]) {
        let Some(frames) = unbundle(bundle) else {
            let error = LinkError::Protocol("a bundle of something else than frames");
            return self.events.push_back(LinkEvent::Failed(error));
        };
        self.events.extend(frames.into_iter().map(|(header, frame)| {
            let is_carried = header.kind == FrameType::Carried;
            if is_carried {
                LinkEvent::Carried(frame)
            } else {
                LinkEvent::Frame(header.peer, frame)
            }
        }));
    }

    pub(crate) fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        self.outbound.handle_timeout(now.instant);
        self.channel.handle_timeout(rng, now);
        self.drain_channel(rng, now);
    }

    /// Sends a message of the relay protocol, if the channel is open.
    pub(crate) fn send(&mut self, message: &Message, class: MessageClass, now: Instant) {
        let mut bytes = message.to_bytes();
        let length = self.outbound.length_of_plain(bytes.len() + MESSAGE_OVERHEAD);
        // Whoever reads a message passes over what follows it.
        bytes.resize(length - MESSAGE_OVERHEAD, 0);
        // A channel that takes no message has reported why, or is about to.
        let _ = self.channel.send(&bytes, class, now);
        self.drain_messages(now);
    }

    /// Whether nothing goes before what one relay says to another.
    pub(crate) fn is_idle(&self) -> bool {
        self.outbound.is_protected() && self.outbound.queued_control() == 0
    }

    /// The next WebSocket message for the peer.
    pub(crate) fn poll_message(&mut self, now: Instant) -> Option<BytesMut> {
        let message = self.outbound.pop(now)?;
        self.channel.note_sent(now);
        Some(message)
    }

    pub(crate) fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let shaping = self.outbound.poll_timeout().map(|at| (at, "shape what is sent"));
        [self.channel.poll_timeout(), shaping].into_iter().flatten().min()
    }

    pub(crate) fn is_rotating(&self) -> bool {
        self.channel.is_rotating()
    }

    fn handle_channel_message(&mut self, message: &[u8], rng: &mut dyn CryptoRng, now: Now) {
        self.control_received += 1;
        self.channel.handle_message(message, rng, now);
        self.drain_channel(rng, now);
    }

    fn drain_channel(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        self.drain_messages(now.instant);
        while let Some(event) = self.channel.poll_event() {
            match event {
                ChannelEvent::Established { remote_static, capability, .. } => {
                    if capability >= PADDING_CAPABILITY {
                        self.outbound.allow_padding();
                    }
                    self.takes_dummies = capability >= SHAPING_CAPABILITY;
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

    fn drain_messages(&mut self, now: Instant) {
        while let Some(message) = self.channel.poll_message() {
            self.outbound.push_channel(message, now);
        }
    }

    fn handle_control(&mut self, bytes: &[u8]) {
        match (Message::from_bytes(bytes), &mut self.opener) {
            (Some(Message::HopKey(key)), Some(opener)) => {
                opener.set_next(HopKey::from_bytes(&key));
            }
            (Some(message), _) => self.events.push_back(LinkEvent::Message(message)),
            (None, _) => {
                let error = LinkError::Protocol("a message that nobody can read");
                self.events.push_back(LinkEvent::Failed(error));
            }
        }
    }

    /// Every rotation of the channel's keys brings a new hop key for what we send.
    fn rotate_hop(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        self.events.push_back(LinkEvent::Rotated);
        if self.outbound.is_protected() {
            let key = HopKey::generate(rng);
            self.send(&Message::HopKey(*key.as_bytes()), MessageClass::Heartbeat, now);
            self.outbound.switch_hop(key);
        }
    }
}

/// What machines are told of a message by what is in it.
const fn content(kind: FrameType) -> Content {
    match kind {
        FrameType::Data
        | FrameType::Handshake
        | FrameType::Disco
        | FrameType::Introduce
        | FrameType::Carried
        | FrameType::Bundle => Content::Frame,
        FrameType::Dummy => Content::Dummy,
        FrameType::Control | FrameType::Marker | FrameType::Mesh => Content::Upkeep,
    }
}

/// The frame of `length` bytes with which an opened message begins. It may wait in a queue that counts its own bytes,
/// so of memory it keeps at most twice as much.
fn without_padding(mut message: BytesMut, length: usize) -> BytesMut {
    if length < message.len() / 2 {
        return BytesMut::from(&message[..length]);
    }
    message.truncate(length);
    message
}

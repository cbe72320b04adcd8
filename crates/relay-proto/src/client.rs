//! The client's end of a relay link.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use frame_proto::HopKey;
use identity::{Attachment, Binding, CertificateChain, DeviceId, NetworkId, Padding, Signed};
use noise_channel::{
    Channel, ChannelError, ClockOffset, ConnectionMask, InitiatorConfig, MessageClass, Now,
    StaticSecret, UnixMillis,
};
use rand_core::CryptoRng;
use shaping::Plan;

use crate::circuits::CircuitOffer;
use crate::fair::{Bounds, FlowId};
use crate::limits::{ATTACH_DEADLINE, CIRCUIT_CAPABILITY, CLIENT_QUEUE_BYTES, CLIENT_QUEUE_FRAMES};
use crate::link::{Link, LinkError, LinkEvent};
use crate::message::{Attach, Message, Refusal};

const CLIENT_QUEUE: Bounds = Bounds { bytes: CLIENT_QUEUE_BYTES, frames: CLIENT_QUEUE_FRAMES };

/// What a client brings to a link.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The network whose member we are.
    pub network: NetworkId,
    /// The key that our binding names as channel key.
    pub static_key: StaticSecret,
    /// The relay's device id.
    pub relay: DeviceId,
    /// The channel key of the relay's entry.
    pub relay_key: [u8; 32],
    /// The mask that belongs to the path of the connection.
    pub mask: ConnectionMask,
    /// Our capability version.
    pub capability: u16,
    /// What to add to our wall clock, learnt from an earlier [`ClientEvent::ClockSkew`].
    pub clock_offset: ClockOffset,
    /// Proves our membership.
    pub chain: CertificateChain,
    /// Proves our channel key.
    pub binding: Signed<Binding>,
    /// Attaches us to this relay; its number must be higher than that of our last one.
    pub attachment: Signed<Attachment>,
    /// Whether we are a relay, which the other one may hand frames of others.
    pub is_relay: bool,
}

/// What happened on a client's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The relay has taken us; frames flow both ways.
    Attached {
        /// The relay's capability version.
        capability: u16,
    },
    /// A frame, whose peer key is the sender's device id. The link has authenticated the relay, not
    /// the sender.
    Frame(BytesMut),
    /// A frame that the relay hands on to us, who are one too, with its route.
    Carried(BytesMut),
    /// What the relay says to us, who are one too.
    Mesh(BytesMut),
    /// A frame found nobody by this id at the relay.
    Unreachable(DeviceId),
    /// The relay's answer to [`RelayClient::request_circuit`]: how it passes datagrams on between us and this device, or none
    /// if it does not.
    Circuit(DeviceId, Option<CircuitOffer>),
    /// The relay refuses our clock. The link has ended; a new one may use the offset.
    ClockSkew {
        /// The relay's wall time, authenticated.
        theirs: UnixMillis,
        /// What to add to our wall clock to agree with the relay.
        offset: ClockOffset,
    },
    /// The keys of the channel were replaced, and the hop keys follow.
    Rotated,
    /// A rotation was not agreed in time; it will be tried again.
    RotationAbandoned,
    /// The relay refuses us. The link has ended.
    Refused(Refusal),
    /// The link has ended.
    Failed(LinkError),
}

/// Why a frame was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendFrameError {
    /// The link is not established yet, or has ended.
    #[error("the link to the relay is not open")]
    NotOpen,
    /// This is no frame for a peer, or too long for one message.
    #[error("not a frame for a peer")]
    NotAFrame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The handshake or the relay's answer is outstanding.
    Opening,
    /// Frames flow.
    Attached,
    /// Over.
    Closed,
}

/// What is shown to the relay, once.
struct Proofs {
    chain: CertificateChain,
    binding: Signed<Binding>,
    attachment: Signed<Attachment>,
}

/// One link to one relay.
///
/// After every handler: drain [`Self::poll_event`], arm a timer for [`Self::poll_timeout`], and
/// whenever the stream takes a message, give it [`Self::poll_message`], after which [`Self::poll_timeout`]
/// may be sooner. Asking for messages earlier than the stream takes them would move the queue to where
/// nothing is dropped.
pub struct RelayClient {
    pub(crate) link: Link,
    relay: DeviceId,
    is_relay: bool,
    proofs: Option<Box<Proofs>>,
    /// A newer membership than the one that attaches, to be shown once we are attached.
    renewed: Option<Box<CertificateChain>>,
    state: State,
    capability: u16,
    opened: Instant,
    events: VecDeque<ClientEvent>,
    last_now: Instant,
}

impl RelayClient {
    /// Starts a link on a freshly opened connection.
    ///
    /// # Errors
    ///
    /// [`ChannelError::UnusableKey`] if the relay's key is of low order.
    pub fn new(
        config: ClientConfig,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) -> Result<Self, ChannelError> {
        let channel = Channel::initiate(
            InitiatorConfig {
                static_key: config.static_key,
                remote_static: config.relay_key,
                prologue: config.network.as_bytes().to_vec(),
                mask: config.mask,
                capability: config.capability,
                clock_offset: config.clock_offset,
            },
            rng,
            now,
        )?;
        Ok(Self {
            link: Link::new(channel, CLIENT_QUEUE, now.instant),
            relay: config.relay,
            is_relay: config.is_relay,
            proofs: Some(Box::new(Proofs {
                chain: config.chain,
                binding: config.binding,
                attachment: config.attachment,
            })),
            renewed: None,
            state: State::Opening,
            capability: 0,
            opened: now.instant,
            events: VecDeque::new(),
            last_now: now.instant,
        })
    }

    /// Takes one binary WebSocket message from the relay, without copying it if nobody else holds it.
    pub fn handle_message(&mut self, message: impl Into<Bytes>, rng: &mut dyn CryptoRng, now: Now) {
        self.last_now = now.instant;
        if self.state != State::Closed {
            self.link.handle_message(message.into().into(), rng, now);
            self.drain_link(rng, now.instant);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        self.last_now = now.instant;
        match self.state {
            State::Opening if now.instant >= self.opened + ATTACH_DEADLINE => {
                self.close(ClientEvent::Failed(ChannelError::HandshakeTimeout.into()));
            }
            State::Opening | State::Attached => {
                self.link.handle_timeout(rng, now);
                self.drain_link(rng, now.instant);
            }
            State::Closed => {}
        }
    }

    /// Queues a frame whose peer key is the receiver's device id. Frames may be dropped when the
    /// stream is slower than they come; those of one flow stay in order. A frame with capacity for
    /// [`frame_proto::HOP_TAG_LENGTH`] more bytes is never copied.
    ///
    /// # Errors
    ///
    /// See [`SendFrameError`].
    pub fn send(
        &mut self,
        flow: FlowId,
        frame: BytesMut,
        now: Instant,
    ) -> Result<(), SendFrameError> {
        if self.state == State::Closed || !self.link.outbound.is_protected() {
            return Err(SendFrameError::NotOpen);
        }
        if frame_proto::parse(&frame).map_or(true, |header| header.kind.is_hop_local()) {
            return Err(SendFrameError::NotAFrame);
        }
        self.link.outbound.push_frame(flow, frame, now);
        Ok(())
    }

    /// Fills messages up as the network wishes, if the relay passes over padding.
    pub fn set_padding(&mut self, padding: Padding) {
        self.link.outbound.set_padding(padding);
    }

    /// Has messages leave as the network's plan says, if the relay passes over dummies.
    pub fn set_shaping(&mut self, plan: Option<Plan>, rng: &mut dyn CryptoRng, now: Instant) {
        self.link.set_plan(plan, rng, now);
    }

    /// Takes over what waits to be sent over an older link to the same relay.
    pub fn take_over(&mut self, older: &mut Self, now: Instant) {
        self.link.outbound.take_over(&mut older.link.outbound, now);
    }

    /// Shows the relay a renewed membership, so that the link outlives the one that attached it.
    pub fn renew(&mut self, chain: CertificateChain, now: Instant) {
        self.last_now = now;
        match (self.state, &mut self.proofs) {
            (State::Opening, Some(proofs)) => proofs.chain = chain,
            (State::Opening, None) => self.renewed = Some(Box::new(chain)),
            (State::Attached, _) => self.show(chain.into(), now),
            (State::Closed, _) => {}
        }
    }

    /// Asks for a circuit to another device, which is then there for a minute; nothing happens where the relay does not
    /// know what that is, or has not taken us.
    pub fn request_circuit(&mut self, peer: DeviceId, now: Instant) {
        self.last_now = now;
        if self.state == State::Attached && self.capability >= CIRCUIT_CAPABILITY {
            self.link.send(&Message::CircuitRequest(peer), MessageClass::Heartbeat, now);
        }
    }

    /// The next binary WebSocket message for the relay.
    #[must_use]
    pub fn poll_message(&mut self, now: Instant) -> Option<BytesMut> {
        self.link.poll_message(now)
    }

    /// Whether [`Self::poll_message`] has something, unless the queue drops it.
    #[must_use]
    pub fn has_message(&self) -> bool {
        self.link.outbound.has_message()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called next, and for what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if !self.events.is_empty() {
            return Some((self.last_now, "output is queued"));
        }
        let attach = Some((self.opened + ATTACH_DEADLINE, "attach deadline"));
        match self.state {
            State::Opening => [attach, self.link.poll_timeout()].into_iter().flatten().min(),
            State::Attached => self.link.poll_timeout(),
            State::Closed => None,
        }
    }

    /// Whether the relay has taken us.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.state == State::Attached
    }

    /// Whether the link has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the keys of the link are being replaced.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.link.is_rotating()
    }

    /// Frames that the queue to the relay has dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.link.outbound.dropped()
    }

    fn drain_link(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        while let Some(event) = self.link.poll_event() {
            match event {
                LinkEvent::Established { capability, .. } => {
                    self.capability = capability;
                    self.attach(rng, now);
                }
                LinkEvent::Message(message) => self.handle_control(message, rng, now),
                LinkEvent::Frame(_, frame) => self.events.push_back(ClientEvent::Frame(frame)),
                LinkEvent::Carried(frame) if self.is_relay => {
                    self.events.push_back(ClientEvent::Carried(frame));
                }
                LinkEvent::Mesh(frame) if self.is_relay => {
                    self.events.push_back(ClientEvent::Mesh(frame));
                }
                LinkEvent::Carried(_) | LinkEvent::Mesh(_) => {
                    let error = LinkError::Protocol("a device is no relay");
                    self.close(ClientEvent::Failed(error));
                }
                LinkEvent::Dummy => {}
                LinkEvent::Rotated => self.events.push_back(ClientEvent::Rotated),
                LinkEvent::RotationAbandoned => {
                    self.events.push_back(ClientEvent::RotationAbandoned);
                }
                LinkEvent::ClockSkew { theirs, offset } => {
                    self.close(ClientEvent::ClockSkew { theirs, offset });
                }
                LinkEvent::Failed(error) => self.close(ClientEvent::Failed(error)),
            }
            if self.state == State::Closed {
                return;
            }
        }
    }

    fn attach(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        let Some(proofs) = self.proofs.take() else { return };
        let Proofs { chain, binding, attachment } = *proofs;
        let hop_key = HopKey::generate(rng);
        let attach = Attach { chain, binding, attachment, hop_key: *hop_key.as_bytes() };
        self.link.send(&Message::Attach(attach), MessageClass::Counted, now);
        self.link.begin_sending(&hop_key, self.relay);
    }

    fn handle_control(&mut self, message: Message, rng: &mut dyn CryptoRng, now: Instant) {
        match (message, self.state) {
            (Message::Attached(key), State::Opening) => {
                self.link.begin_receiving(&HopKey::from_bytes(&key));
                self.link.begin_shaping(rng, now);
                self.state = State::Attached;
                self.events.push_back(ClientEvent::Attached { capability: self.capability });
                if let Some(chain) = self.renewed.take() {
                    self.show(chain, now);
                }
            }
            (Message::Refused(refusal), _) => self.close(ClientEvent::Refused(refusal)),
            (Message::Unreachable(device), State::Attached) => {
                self.events.push_back(ClientEvent::Unreachable(device));
            }
            (Message::Circuit(peer, offer), State::Attached) => {
                let offer = offer.map(CircuitOffer::from);
                self.events.push_back(ClientEvent::Circuit(peer, offer));
            }
            (
                Message::Attached(_)
                | Message::Attach(_)
                | Message::HopKey(_)
                | Message::Unreachable(_)
                | Message::CircuitRequest(_)
                | Message::Circuit(..)
                | Message::Renew(_),
                _,
            ) => self.close(ClientEvent::Failed(LinkError::Protocol("out of order"))),
        }
    }

    fn show(&mut self, chain: Box<CertificateChain>, now: Instant) {
        self.link.send(&Message::Renew(chain), MessageClass::Counted, now);
    }

    fn close(&mut self, event: ClientEvent) {
        self.state = State::Closed;
        self.events.push_back(event);
    }
}

impl std::fmt::Debug for RelayClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayClient").field("state", &self.state).finish_non_exhaustive()
    }
}

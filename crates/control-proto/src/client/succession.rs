//! The connections of a client: how one ends, and how the next takes its place.
//!
//! Where somebody in between ends connections at some age, the next one is opened before. The one in use stays until the controller
//! welcomes the device over the other, so nobody is ever without. From the hello over the newer one on, the older brings nothing of the map
//! any more, so there is no way back to it.

use std::time::Instant;

use noise_channel::{Channel, ChannelEvent, Lifetime, MessageClass, Now};
use rand_core::CryptoRng;

use super::link::{Link, Phase};
use super::{ClientEvent, ControlClient, StreamAction};
use crate::{ConnectionId, ControllerMessage, NodeMessage, Refusal, SecurityEvent};

/// What is known of the age of connections, and the one that is to be replaced.
#[derive(Debug, Default)]
pub(super) struct Succession {
    lifetime: Lifetime,
    /// Since when the link is ready.
    since: Option<Instant>,
    before: Option<Before>,
}

/// A connection that is in use until the link is ready.
#[derive(Debug)]
struct Before {
    connection: ConnectionId,
    channel: Box<Channel>,
    pending: bool,
    since: Option<Instant>,
}

impl Succession {
    /// The channel of the connection in use before, if it is this one.
    pub(super) fn before_over(&mut self, connection: ConnectionId) -> Option<&mut Channel> {
        let before = self.before.as_mut().filter(|before| before.connection == connection)?;
        Some(&mut before.channel)
    }

    /// Whether the device waits for approval, while such a connection is in use.
    pub(super) fn before_is_pending(&self) -> Option<bool> {
        self.before.as_ref().map(|before| before.pending)
    }

    /// Somebody else ended the link's connection.
    pub(super) fn handle_cut(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.lifetime.handle_cut(now.saturating_duration_since(since));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let replacement = self.lifetime.replace_at().map(|at| (at, "replace the connection"));
        let before = self.before.as_ref().and_then(|before| before.channel.poll_timeout());
        replacement.into_iter().chain(before).min()
    }
}

impl ControlClient {
    /// Opens the next connection if it is time, and drives the one before.
    pub(super) fn succeed(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        if let Some(before) = &mut self.succession.before {
            before.channel.handle_timeout(rng, now);
            self.drain_before(rng, now);
        } else if self.is_ready() && self.succession.lifetime.take_replacement(now.instant) {
            let waiting = Link::Waiting { until: now.instant, refusal: None };
            if let Link::Open { connection, channel, phase: Phase::Ready { pending } } =
                std::mem::replace(&mut self.link, waiting)
            {
                let since = self.succession.since.take();
                let before = Before { connection, channel, pending, since };
                self.succession.before = Some(before);
                self.dial(rng, now);
            }
        }
    }

    /// Moves what the channel before has to say outwards, until it is silent.
    pub(super) fn drain_before(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        while let Some(Before { connection, channel, .. }) = &mut self.succession.before {
            while let Some(message) = channel.poll_message() {
                self.actions.push_back(StreamAction::Send { connection: *connection, message });
            }
            match channel.poll_event() {
                Some(ChannelEvent::Received(message)) => {
                    if let Ok(message) = ControllerMessage::from_bytes(&message) {
                        self.handle_before(message, rng, now);
                    }
                }
                Some(ChannelEvent::Failed(error)) => {
                    self.actions.push_back(StreamAction::Close { connection: *connection });
                    let event = SecurityEvent::of_channel(error, None);
                    event.into_iter().for_each(|event| self.security(event));
                    self.lose_before(now.instant);
                }
                Some(ChannelEvent::RotationAbandoned) => {
                    self.security(SecurityEvent::RotationFailed { device: None });
                }
                Some(
                    ChannelEvent::Rotated
                    | ChannelEvent::Established { .. }
                    | ChannelEvent::ClockSkew { .. },
                ) => {}
                None => return,
            }
        }
    }

    fn handle_before(&mut self, message: ControllerMessage, rng: &mut dyn CryptoRng, now: Now) {
        match message {
            ControllerMessage::Map(_) if self.has_said_hello() => {}
            ControllerMessage::Map(_)
            | ControllerMessage::Membership(_)
            | ControllerMessage::Removed
            | ControllerMessage::Noted(_) => self.handle_control(message, rng, now),
            ControllerMessage::Refused(refusal) => {
                self.events.push_back(ClientEvent::Refused(refusal));
            }
            ControllerMessage::Welcome(_) => {}
        }
    }

    /// The connection before has ended, sooner than the next one is ready.
    pub(super) fn lose_before(&mut self, now: Instant) {
        // The controller ends it itself when it has heard of the newer one.
        if self.has_said_hello() {
            return;
        }
        let Some(before) = self.succession.before.take() else { return };
        if let Some(since) = before.since {
            self.succession.lifetime.handle_cut(now.saturating_duration_since(since));
        }
        self.events.push_back(ClientEvent::Disconnected);
    }

    /// The link is ready: the connection before is not needed any more. True if there was one.
    pub(super) fn end_before(&mut self, now: Instant) -> bool {
        let before = self.succession.before.take();
        self.succession.since = Some(now);
        self.succession.lifetime.handle_begun(now);
        let before = before.map(|before| before.connection);
        self.actions.extend(before.map(|connection| StreamAction::Close { connection }));
        before.is_some()
    }

    /// In another network nothing is known of who is in between.
    pub(super) fn forget_lifetime(&mut self) {
        self.succession.lifetime = Lifetime::default();
    }

    /// The device was approved, as it heard over the connection before.
    pub(super) fn approve_before(&mut self) {
        self.succession.before.iter_mut().for_each(|before| before.pending = false);
    }

    /// Ends the connection and tries again after a pause that grows, or goes back to the one before.
    pub(super) fn lose(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        if let Some(connection) = self.connection() {
            self.actions.push_back(StreamAction::Close { connection });
        }
        self.retry(rng, now);
    }

    pub(super) fn retry(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        let (was_ready, has_said_hello) = (self.is_online(), self.has_said_hello());
        let before = self.succession.before.take();
        if let Some(before) = before.filter(|_| !has_said_hello) {
            let Before { connection, channel, pending, since } = before;
            self.link = Link::Open { connection, channel, phase: Phase::Ready { pending } };
            self.places.forget_attempts();
            self.succession.since = since;
            let since = since.unwrap_or(now.instant);
            return self.succession.lifetime.handle_failed(since, now.instant);
        }
        if was_ready {
            self.events.push_back(ClientEvent::Disconnected);
        }
        self.map.abandon();
        if let Link::Open { channel, .. } = &self.link
            && channel.is_rotating()
        {
            self.security(SecurityEvent::RotationFailed { device: None });
        }
        self.succession.since = None;
        self.succession.lifetime.handle_ended();
        let until = now.instant + self.backoff.next(rng);
        self.link = Link::Waiting { until, refusal: None };
    }

    /// Ends all connections, and dials again then.
    pub(super) fn close(&mut self, until: Instant, refusal: Option<Refusal>) {
        if self.succession.before.is_some() {
            self.events.push_back(ClientEvent::Disconnected);
        }
        let before = self.succession.before.take().map(|before| before.connection);
        for connection in self.connection().into_iter().chain(before) {
            self.actions.push_back(StreamAction::Close { connection });
        }
        self.map.abandon();
        self.succession.since = None;
        self.succession.lifetime.handle_ended();
        self.link = Link::Waiting { until, refusal };
    }

    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match &self.link {
            Link::Dialling { connection, .. } | Link::Open { connection, .. } => Some(*connection),
            Link::Waiting { .. } | Link::Stopped => None,
        }
    }

    /// Whether the link's connection has told the controller what this device knows.
    fn has_said_hello(&self) -> bool {
        matches!(self.link, Link::Open { phase: Phase::Hello { .. } | Phase::Ready { .. }, .. })
    }

    /// Whether the controller has welcomed the device over a connection that is not known to have ended.
    fn is_online(&self) -> bool {
        self.is_ready() || self.succession.before.is_some()
    }

    /// Whether there is a connection over which the controller has welcomed the device and still listens.
    pub(super) fn is_ready(&self) -> bool {
        match self.link {
            Link::Open { phase: Phase::Ready { .. }, .. } => true,
            Link::Open { phase: Phase::Hello { .. }, .. } | Link::Stopped => false,
            Link::Open { phase: Phase::Handshake, .. }
            | Link::Waiting { .. }
            | Link::Dialling { .. } => self.succession.before.is_some(),
        }
    }

    pub(super) fn send_if_ready(&mut self, message: &NodeMessage, now: Instant) {
        self.last_now = now;
        if self.is_ready() {
            self.send(message, now);
        }
    }

    /// Sends over the newest connection on which the hello was said.
    pub(super) fn send(&mut self, message: &NodeMessage, now: Instant) {
        let has_said_hello = self.has_said_hello();
        let (connection, channel) = match (&mut self.link, &mut self.succession.before) {
            (Link::Open { connection, channel, .. }, _) if has_said_hello => (connection, channel),
            (_, Some(Before { connection, channel, .. })) => (connection, channel),
            (
                Link::Open { .. } | Link::Waiting { .. } | Link::Dialling { .. } | Link::Stopped,
                None,
            ) => {
                return;
            }
        };
        // A channel that takes no more is about to fail and report that by itself.
        let _ = channel.send(&message.to_bytes(), MessageClass::Counted, now);
        while let Some(message) = channel.poll_message() {
            self.actions.push_back(StreamAction::Send { connection: *connection, message });
        }
    }
}

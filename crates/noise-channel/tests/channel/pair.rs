//! An initiator and a responder.

use std::time::{Duration, Instant};

use noise_channel::limits::MAX_MESSAGE;
use noise_channel::{
    Channel, ChannelEvent, ClockOffset, InitiatorConfig, MessageClass, Now, PathSecret,
    ReplayGuard, ResponderConfig, Service, StaticSecret, UnixMillis,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// An initiator, a responder, and a clock that both share.
pub(crate) struct Pair {
    pub(crate) initiator: Channel,
    pub(crate) responder: Channel,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) now: Now,
    /// Messages of the responder are lost while this is set.
    pub(crate) deaf_initiator: bool,
    pub(crate) seen_by_initiator: Vec<ChannelEvent>,
    pub(crate) seen_by_responder: Vec<ChannelEvent>,
    pub(crate) sent_by_initiator: usize,
    pub(crate) sent_by_responder: usize,
}

pub(crate) fn noon() -> Now {
    Now { instant: Instant::now(), wall: UnixMillis(1_700_000_000_000) }
}

pub(crate) fn initiator_config(offset: i64) -> InitiatorConfig {
    InitiatorConfig {
        static_key: StaticSecret::from_bytes([1; 32]),
        remote_static: StaticSecret::from_bytes([2; 32]).public(),
        prologue: b"network".to_vec(),
        mask: PathSecret::from_bytes([3; 32]).mask(Service::Control, [4; 16]),
        capability: 7,
        clock_offset: ClockOffset(offset),
    }
}

pub(crate) fn responder_config(replay: ReplayGuard) -> ResponderConfig {
    ResponderConfig {
        static_key: StaticSecret::from_bytes([2; 32]),
        prologue: b"network".to_vec(),
        mask: PathSecret::from_bytes([3; 32]).mask(Service::Control, [4; 16]),
        capability: 9,
        replay,
    }
}

impl Pair {
    pub(crate) fn new(config: InitiatorConfig) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let now = noon();
        Self {
            initiator: Channel::initiate(config, &mut rng, now).expect("the key is usable"),
            responder: Channel::respond(responder_config(ReplayGuard::default()), now),
            rng,
            now,
            deaf_initiator: false,
            seen_by_initiator: Vec::new(),
            seen_by_responder: Vec::new(),
            sent_by_initiator: 0,
            sent_by_responder: 0,
        }
    }

    pub(crate) fn established() -> Self {
        let mut pair = Self::new(initiator_config(0));
        pair.settle();
        pair.say("hello");
        assert!(pair.initiator.is_open() && pair.responder.is_open());
        pair.seen_by_initiator.clear();
        pair.seen_by_responder.clear();
        pair
    }

    /// Delivers messages until nobody has any.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut idle = true;
            while let Some(message) = self.initiator.poll_message() {
                assert!(message.len() <= MAX_MESSAGE);
                self.sent_by_initiator += 1;
                self.responder.handle_message(&message, &mut self.rng, self.now);
                idle = false;
            }
            while let Some(message) = self.responder.poll_message() {
                self.sent_by_responder += 1;
                if !self.deaf_initiator {
                    self.initiator.handle_message(&message, &mut self.rng, self.now);
                }
                idle = false;
            }
            self.seen_by_initiator.extend(std::iter::from_fn(|| self.initiator.poll_event()));
            self.seen_by_responder.extend(std::iter::from_fn(|| self.responder.poll_event()));
            if idle {
                return;
            }
        }
    }

    /// Lets time pass, firing the timers of both sides when they are due.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        loop {
            self.settle();
            let next = [self.initiator.poll_timeout(), self.responder.poll_timeout()]
                .into_iter()
                .flatten()
                .map(|(at, _)| at)
                .min()
                .filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now = self.now.after(at.saturating_duration_since(self.now.instant));
            self.initiator.handle_timeout(&mut self.rng, self.now);
            self.responder.handle_timeout(&mut self.rng, self.now);
        }
        self.now = self.now.after(end.saturating_duration_since(self.now.instant));
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.initiator
            .send(text.as_bytes(), MessageClass::Counted, self.now.instant)
            .expect("the channel is open");
        self.settle();
    }

    pub(crate) fn answer(&mut self, text: &str) {
        self.responder
            .send(text.as_bytes(), MessageClass::Counted, self.now.instant)
            .expect("the channel is open");
        self.settle();
    }
}

pub(crate) fn received(events: &[ChannelEvent]) -> Vec<&[u8]> {
    events
        .iter()
        .filter_map(|event| match event {
            ChannelEvent::Received(bytes) => Some(bytes.as_slice()),
            ChannelEvent::Established { .. }
            | ChannelEvent::ClockSkew { .. }
            | ChannelEvent::Rotated
            | ChannelEvent::RotationAbandoned
            | ChannelEvent::Failed(_) => None,
        })
        .collect()
}

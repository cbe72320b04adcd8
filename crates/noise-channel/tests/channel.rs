//! Two channels talking to each other under virtual time.

use std::time::{Duration, Instant};

use noise_channel::limits::{
    HANDSHAKE_DEADLINE, HARD_STOP_AFTER, HARD_STOP_MESSAGES, HEARTBEAT_AFTER, HOLD_BACK_DEADLINE,
    MAX_MESSAGE, MAX_PAYLOAD, REPLAY_WINDOW, ROTATE_AFTER, ROTATE_AFTER_MESSAGES,
    ROTATION_DEADLINE, SILENCE_DEADLINE,
};
use noise_channel::{
    Channel, ChannelError, ChannelEvent, ClockOffset, InitiatorConfig, MessageClass, Now,
    PathSecret, ReplayGuard, ResponderConfig, SendError, Service, StaticSecret, UnixMillis,
};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

const SECOND: Duration = Duration::from_secs(1);

/// An initiator, a responder, and a clock that both share.
struct Pair {
    initiator: Channel,
    responder: Channel,
    rng: ChaCha20Rng,
    now: Now,
    /// Messages of the responder are lost while this is set.
    deaf_initiator: bool,
    seen_by_initiator: Vec<ChannelEvent>,
    seen_by_responder: Vec<ChannelEvent>,
    sent_by_initiator: usize,
    sent_by_responder: usize,
}

fn noon() -> Now {
    Now { instant: Instant::now(), wall: UnixMillis(1_700_000_000_000) }
}

fn initiator_config(offset: i64) -> InitiatorConfig {
    InitiatorConfig {
        static_key: StaticSecret::from_bytes([1; 32]),
        remote_static: StaticSecret::from_bytes([2; 32]).public(),
        prologue: b"network".to_vec(),
        mask: PathSecret::from_bytes([3; 32]).mask(Service::Control, [4; 16]),
        capability: 7,
        clock_offset: ClockOffset(offset),
    }
}

fn responder_config(replay: ReplayGuard) -> ResponderConfig {
    ResponderConfig {
        static_key: StaticSecret::from_bytes([2; 32]),
        prologue: b"network".to_vec(),
        mask: PathSecret::from_bytes([3; 32]).mask(Service::Control, [4; 16]),
        capability: 9,
        replay,
    }
}

impl Pair {
    fn new(config: InitiatorConfig) -> Self {
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

    fn established() -> Self {
        let mut pair = Self::new(initiator_config(0));
        pair.settle();
        pair.say("hello");
        assert!(pair.initiator.is_open() && pair.responder.is_open());
        pair.seen_by_initiator.clear();
        pair.seen_by_responder.clear();
        pair
    }

    /// Delivers messages until nobody has any.
    fn settle(&mut self) {
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
    fn run(&mut self, duration: Duration) {
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

    fn say(&mut self, text: &str) {
        self.initiator
            .send(text.as_bytes(), MessageClass::Counted, self.now.instant)
            .expect("the channel is open");
        self.settle();
    }

    fn answer(&mut self, text: &str) {
        self.responder
            .send(text.as_bytes(), MessageClass::Counted, self.now.instant)
            .expect("the channel is open");
        self.settle();
    }
}

fn received(events: &[ChannelEvent]) -> Vec<&[u8]> {
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

#[test]
fn both_sides_learn_the_same_session_and_the_responder_only_after_the_first_message() {
    let mut pair = Pair::new(initiator_config(0));
    pair.settle();
    let [ChannelEvent::Established { remote_static, handshake_hash, capability: 9 }] =
        pair.seen_by_initiator[..]
    else {
        panic!("{:?}", pair.seen_by_initiator);
    };
    assert_eq!(remote_static, StaticSecret::from_bytes([2; 32]).public());
    assert!(pair.seen_by_responder.is_empty());
    assert_eq!(
        pair.responder.send(b"x", MessageClass::Counted, pair.now.instant),
        Err(SendError::NotOpen)
    );
    pair.say("first");
    assert_eq!(
        pair.seen_by_responder,
        [
            ChannelEvent::Established {
                remote_static: StaticSecret::from_bytes([1; 32]).public(),
                handshake_hash,
                capability: 7
            },
            ChannelEvent::Received(b"first".to_vec())
        ]
    );
}

#[test]
fn a_wrong_clock_is_answered_with_the_time_and_the_offset_mends_it() {
    for error in [61_000, -61_000, 3_600_000, -3_600_000] {
        let mut pair = Pair::new(initiator_config(error));
        pair.settle();
        let ours = pair.now.wall;
        assert_eq!(
            pair.seen_by_initiator,
            [ChannelEvent::ClockSkew { theirs: ours, offset: ClockOffset(0) }]
        );
        assert!(matches!(
            pair.seen_by_responder[..],
            [ChannelEvent::Failed(ChannelError::ClockSkew { .. })]
        ));
        assert!(pair.initiator.is_closed() && pair.responder.is_closed());
    }
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let (here, there) = (noon(), noon().after(600 * SECOND));
    let mut initiator = Channel::initiate(initiator_config(0), &mut rng, here).unwrap();
    let mut responder = Channel::respond(responder_config(ReplayGuard::default()), there);
    responder.handle_message(&initiator.poll_message().unwrap(), &mut rng, there);
    initiator.handle_message(&responder.poll_message().unwrap(), &mut rng, here);
    let Some(ChannelEvent::ClockSkew { offset, .. }) = initiator.poll_event() else { panic!() };
    assert_eq!(offset, ClockOffset(600_000));
    let mut initiator = Channel::initiate(initiator_config(offset.0), &mut rng, here).unwrap();
    let mut responder = Channel::respond(responder_config(ReplayGuard::default()), there);
    responder.handle_message(&initiator.poll_message().unwrap(), &mut rng, there);
    initiator.handle_message(&responder.poll_message().unwrap(), &mut rng, here);
    assert!(initiator.is_open());
}

#[test]
fn a_clock_that_is_sixty_seconds_off_is_accepted() {
    for error in [59_000, -59_000, 60_000, -60_000] {
        let mut pair = Pair::new(initiator_config(error));
        pair.settle();
        assert!(pair.initiator.is_open());
    }
}

#[test]
fn a_replayed_first_message_is_refused_on_any_connection_for_the_window() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let now = noon();
    let guard = ReplayGuard::default();
    let first =
        Channel::initiate(initiator_config(0), &mut rng, now).unwrap().poll_message().unwrap();
    let mut try_at = |now: Now| {
        let mut responder = Channel::respond(responder_config(guard.clone()), now);
        responder.handle_message(&first, &mut rng, now);
        (responder.poll_message().is_some(), responder.poll_event())
    };
    assert_eq!(try_at(now), (true, None));
    assert_eq!(try_at(now), (false, Some(ChannelEvent::Failed(ChannelError::Replayed))));
    let edge = now.after(REPLAY_WINDOW - SECOND);
    assert_eq!(try_at(edge), (false, Some(ChannelEvent::Failed(ChannelError::Replayed))));
    let (answered, event) = try_at(now.after(REPLAY_WINDOW));
    assert!(answered, "the time is answered, to whoever holds the key");
    assert!(matches!(event, Some(ChannelEvent::Failed(ChannelError::ClockSkew { .. }))));
}

#[test]
fn the_replay_guard_never_holds_more_than_its_capacity() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let now = noon();
    let guard = ReplayGuard::with_capacity(3);
    for _ in 0..10 {
        let mut initiator = Channel::initiate(initiator_config(0), &mut rng, now).unwrap();
        let mut responder = Channel::respond(responder_config(guard.clone()), now);
        responder.handle_message(&initiator.poll_message().unwrap(), &mut rng, now);
        assert!(responder.poll_message().is_some());
    }
    assert_eq!(guard.len(), 3);
}

#[test]
fn a_handshake_fails_on_either_side_after_thirty_seconds() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let now = noon();
    let mut initiator = Channel::initiate(initiator_config(0), &mut rng, now).unwrap();
    let first = initiator.poll_message().unwrap();
    let mut silent = Channel::respond(responder_config(ReplayGuard::default()), now);
    let mut confirming = Channel::respond(responder_config(ReplayGuard::default()), now);
    confirming.handle_message(&first, &mut rng, now);
    assert!(confirming.poll_message().is_some());
    for channel in [&mut initiator, &mut silent, &mut confirming] {
        assert_eq!(
            channel.poll_timeout(),
            Some((now.instant + HANDSHAKE_DEADLINE, "handshake deadline"))
        );
        channel.handle_timeout(&mut rng, now.after(HANDSHAKE_DEADLINE - SECOND));
        assert_eq!(channel.poll_event(), None);
        channel.handle_timeout(&mut rng, now.after(HANDSHAKE_DEADLINE));
        assert_eq!(
            channel.poll_event(),
            Some(ChannelEvent::Failed(ChannelError::HandshakeTimeout))
        );
    }
}

#[test]
fn a_stranger_gets_no_answer() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let now = noon();
    let wrong_mask = InitiatorConfig {
        mask: PathSecret::from_bytes([3; 32]).mask(Service::Control, [5; 16]),
        ..initiator_config(0)
    };
    let wrong_service = InitiatorConfig {
        mask: PathSecret::from_bytes([3; 32]).mask(Service::Relay, [4; 16]),
        ..initiator_config(0)
    };
    let wrong_network = InitiatorConfig { prologue: b"other".to_vec(), ..initiator_config(0) };
    let wrong_key = InitiatorConfig { remote_static: [9; 32], ..initiator_config(0) };
    for config in [wrong_mask, wrong_service, wrong_network, wrong_key] {
        let mut initiator = Channel::initiate(config, &mut rng, now).unwrap();
        let mut responder = Channel::respond(responder_config(ReplayGuard::default()), now);
        responder.handle_message(&initiator.poll_message().unwrap(), &mut rng, now);
        assert_eq!(responder.poll_message(), None);
        assert_eq!(
            responder.poll_event(),
            Some(ChannelEvent::Failed(ChannelError::HandshakeRejected))
        );
    }
}

#[test]
fn the_largest_payload_fits_the_wire_and_one_more_byte_does_not() {
    let mut pair = Pair::established();
    let largest = vec![5; MAX_PAYLOAD];
    pair.initiator.send(&largest, MessageClass::Counted, pair.now.instant).unwrap();
    pair.settle();
    assert_eq!(received(&pair.seen_by_responder), [largest.as_slice()]);
    let larger = vec![5; MAX_PAYLOAD + 1];
    assert_eq!(
        pair.initiator.send(&larger, MessageClass::Counted, pair.now.instant),
        Err(SendError::TooLong(MAX_PAYLOAD + 1))
    );
}

#[test]
fn a_changed_or_repeated_message_ends_the_channel() {
    for repeat in [false, true] {
        let mut pair = Pair::established();
        pair.initiator.send(b"x", MessageClass::Counted, pair.now.instant).unwrap();
        let mut message = pair.initiator.poll_message().unwrap();
        if repeat {
            pair.responder.handle_message(&message, &mut pair.rng, pair.now);
            assert!(pair.responder.poll_event().is_some());
        } else {
            message[0] ^= 1;
        }
        pair.responder.handle_message(&message, &mut pair.rng, pair.now);
        assert_eq!(
            pair.responder.poll_event(),
            Some(ChannelEvent::Failed(ChannelError::MessageRejected))
        );
        assert!(pair.responder.is_closed());
    }
}

#[test]
fn an_idle_channel_beats_every_twenty_five_seconds_and_lives() {
    let mut pair = Pair::established();
    let before = (pair.sent_by_initiator, pair.sent_by_responder);
    pair.run(HEARTBEAT_AFTER * 10);
    assert_eq!(pair.sent_by_initiator - before.0, 10);
    assert_eq!(pair.sent_by_responder - before.1, 10);
    assert!(pair.initiator.is_open() && pair.responder.is_open());
    assert!(pair.seen_by_initiator.is_empty() && pair.seen_by_responder.is_empty());
}

#[test]
fn a_silent_peer_ends_the_channel() {
    let mut pair = Pair::established();
    pair.deaf_initiator = true;
    pair.run(SILENCE_DEADLINE - SECOND);
    assert!(pair.initiator.is_open());
    pair.run(SECOND);
    assert_eq!(pair.seen_by_initiator, [ChannelEvent::Failed(ChannelError::PeerSilent)]);
}

#[test]
fn the_keys_are_replaced_after_an_hour_and_messages_flow_on() {
    let mut pair = Pair::established();
    pair.run(ROTATE_AFTER - SECOND);
    assert!(pair.seen_by_initiator.is_empty());
    pair.run(SECOND);
    assert_eq!(pair.seen_by_initiator, [ChannelEvent::Rotated]);
    assert_eq!(pair.seen_by_responder, [ChannelEvent::Rotated]);
    pair.say("after");
    pair.answer("too");
    assert_eq!(received(&pair.seen_by_responder), [b"after"]);
    assert_eq!(received(&pair.seen_by_initiator), [b"too"]);
    pair.run(10 * HARD_STOP_AFTER);
    assert!(pair.initiator.is_open() && pair.responder.is_open());
}

#[test]
fn the_keys_are_replaced_after_a_hundred_counted_messages_in_either_direction() {
    for answering in [false, true] {
        let mut pair = Pair::established();
        let already = u32::from(!answering);
        for _ in already..ROTATE_AFTER_MESSAGES - 1 {
            if answering { pair.answer("m") } else { pair.say("m") }
        }
        for _ in 0..2 * ROTATE_AFTER_MESSAGES {
            pair.initiator.send(b"beat", MessageClass::Heartbeat, pair.now.instant).unwrap();
        }
        pair.run(SECOND);
        assert!(!pair.seen_by_initiator.contains(&ChannelEvent::Rotated));
        if answering {
            pair.answer("m")
        } else {
            pair.say("m")
        }
        pair.run(SECOND);
        assert!(pair.seen_by_initiator.contains(&ChannelEvent::Rotated));
        assert!(pair.seen_by_responder.contains(&ChannelEvent::Rotated));
    }
}

/// What the responder of one channel makes of a message of another that is its twin up to the rotation, for which
/// the two draw different ephemeral keys.
fn heard_by_a_twin(rotated: bool) -> Option<ChannelEvent> {
    let mut twins = [Pair::established(), Pair::established()];
    for (pair, seed) in twins.iter_mut().zip([10, 11]) {
        pair.rng = ChaCha20Rng::seed_from_u64(seed);
        pair.run(if rotated { ROTATE_AFTER } else { SECOND });
        assert_eq!(pair.seen_by_initiator.contains(&ChannelEvent::Rotated), rotated);
    }
    let [mut one, mut other] = twins;
    let sent = one.initiator.send(b"secret", MessageClass::Counted, one.now.instant);
    sent.expect("the channel is open");
    let message = one.initiator.poll_message().expect("a message was sent");
    other.responder.handle_message(&message, &mut other.rng, other.now);
    other.responder.poll_event()
}

#[test]
fn a_rotation_leaves_nothing_that_the_old_keys_open() {
    let received = ChannelEvent::Received(b"secret".to_vec());
    assert_eq!(heard_by_a_twin(false), Some(received), "the twins have the same keys before");
    assert_eq!(heard_by_a_twin(true), Some(ChannelEvent::Failed(ChannelError::MessageRejected)));
}

#[test]
fn a_rotation_without_an_answer_is_abandoned_after_five_seconds_and_tried_again() {
    let mut pair = Pair::established();
    pair.run(ROTATE_AFTER - SECOND);
    pair.deaf_initiator = true;
    pair.run(SECOND);
    pair.run(ROTATION_DEADLINE - SECOND);
    assert!(pair.seen_by_initiator.is_empty());
    pair.run(SECOND);
    assert_eq!(pair.seen_by_initiator, [ChannelEvent::RotationAbandoned]);
    assert!(pair.initiator.is_open());
    pair.say("under the old keys");
    assert_eq!(received(&pair.seen_by_responder), [b"under the old keys"]);
}

#[test]
fn a_reply_to_an_abandoned_rotation_is_ignored_and_the_next_attempt_succeeds() {
    let mut pair = Pair::established();
    pair.run(ROTATE_AFTER - SECOND);
    pair.now = pair.now.after(SECOND);
    pair.initiator.handle_timeout(&mut pair.rng, pair.now);
    let mut delayed = Vec::new();
    while let Some(message) = pair.initiator.poll_message() {
        pair.responder.handle_message(&message, &mut pair.rng, pair.now);
    }
    delayed.extend(std::iter::from_fn(|| pair.responder.poll_message()));
    pair.now = pair.now.after(ROTATION_DEADLINE);
    pair.initiator.handle_timeout(&mut pair.rng, pair.now);
    for message in &delayed {
        pair.initiator.handle_message(message, &mut pair.rng, pair.now);
    }
    pair.settle();
    assert_eq!(pair.seen_by_initiator, [ChannelEvent::RotationAbandoned]);
    pair.run(10 * SECOND);
    assert_eq!(pair.seen_by_initiator, [ChannelEvent::RotationAbandoned, ChannelEvent::Rotated]);
    pair.answer("fine");
    assert_eq!(received(&pair.seen_by_initiator), [b"fine"]);
}

#[test]
fn keys_stop_at_twice_the_age_when_no_rotation_succeeds() {
    let mut pair = Pair::established();
    let start = pair.now.instant;
    let mut abandoned = 0;
    while pair.responder.is_open() {
        // Rotation messages are lost while other traffic shows that both sides live.
        pair.now = pair.now.after(20 * SECOND);
        pair.responder.note_received(pair.now.instant);
        pair.initiator.note_received(pair.now.instant);
        pair.initiator.handle_timeout(&mut pair.rng, pair.now);
        pair.responder.handle_timeout(&mut pair.rng, pair.now);
        while pair.initiator.poll_message().is_some() {}
        while pair.responder.poll_message().is_some() {}
        while let Some(event) = pair.initiator.poll_event() {
            if event == ChannelEvent::RotationAbandoned {
                abandoned += 1;
            } else {
                pair.seen_by_initiator.push(event);
            }
        }
        pair.seen_by_responder.extend(std::iter::from_fn(|| pair.responder.poll_event()));
    }
    assert_eq!(pair.now.instant - start, HARD_STOP_AFTER);
    assert!(abandoned > 50, "each attempt is reported: {abandoned}");
    assert_eq!(pair.seen_by_initiator, [ChannelEvent::Failed(ChannelError::KeysExhausted)]);
    assert_eq!(pair.seen_by_responder, [ChannelEvent::Failed(ChannelError::KeysExhausted)]);
}

#[test]
fn a_burst_beyond_twice_the_count_waits_for_the_next_keys_and_arrives_in_order() {
    let mut pair = Pair::established();
    let count = 5 * HARD_STOP_MESSAGES;
    for n in 0..count {
        pair.responder.send(&n.to_be_bytes(), MessageClass::Counted, pair.now.instant).unwrap();
    }
    pair.run(SECOND);
    let expected: Vec<[u8; 4]> = (0..count).map(u32::to_be_bytes).collect();
    assert_eq!(received(&pair.seen_by_initiator), expected);
    assert!(pair.initiator.is_open() && pair.responder.is_open());
}

#[test]
fn a_burst_that_cannot_get_new_keys_ends_the_channel_instead_of_stalling() {
    let mut pair = Pair::established();
    for _ in 0..=HARD_STOP_MESSAGES {
        pair.responder.send(b"m", MessageClass::Counted, pair.now.instant).unwrap();
    }
    pair.deaf_initiator = true;
    pair.run(HOLD_BACK_DEADLINE);
    assert_eq!(pair.seen_by_responder, [ChannelEvent::Failed(ChannelError::KeysExhausted)]);
}

#[test]
fn held_back_messages_are_bounded() {
    let mut pair = Pair::established();
    let chunk = vec![0; MAX_PAYLOAD];
    let mut taken = 0;
    while pair.responder.send(&chunk, MessageClass::Counted, pair.now.instant).is_ok() {
        taken += 1;
        assert!(taken < 1_000);
        while pair.responder.poll_message().is_some() {}
    }
    assert!((400..500).contains(&taken), "{taken}");
    assert_eq!(
        pair.responder.send(&chunk, MessageClass::Counted, pair.now.instant),
        Err(SendError::HeldBack)
    );
}

#[test]
fn a_path_is_recognised_only_with_its_secret_and_service() {
    let secret = PathSecret::from_bytes([8; 32]);
    let path = secret.path(Service::Relay, [1; 16]);
    assert!(path.starts_with("/api/v1/ws/"));
    assert!(secret.recognise(Service::Relay, &path).is_some());
    assert!(secret.recognise(Service::Control, &path).is_none());
    assert!(PathSecret::from_bytes([9; 32]).recognise(Service::Relay, &path).is_none());
    for n in 0..path.len() {
        let mut bytes = path.clone().into_bytes();
        bytes[n] ^= 1;
        if let Ok(changed) = String::from_utf8(bytes) {
            assert!(secret.recognise(Service::Relay, &changed).is_none(), "{changed}");
        }
    }
    assert!(secret.recognise(Service::Relay, &format!("{path}A")).is_none());
}

#[test]
fn every_bit_of_the_handshake_looks_random() {
    let now = noon();
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let secret = PathSecret::from_bytes([3; 32]);
    let rounds = 200;
    let mut ones = vec![[0_u32; 8]; 64];
    let mut ones_back = ones.clone();
    for n in 0..rounds {
        let mask = secret.mask(Service::Control, [u8::try_from(n).unwrap(); 16]);
        let config = InitiatorConfig { mask: mask.clone(), ..initiator_config(0) };
        let mut initiator = Channel::initiate(config, &mut rng, now).unwrap();
        let config = ResponderConfig { mask, ..responder_config(ReplayGuard::default()) };
        let mut responder = Channel::respond(config, now);
        let first = initiator.poll_message().unwrap();
        responder.handle_message(&first, &mut rng, now);
        let second = responder.poll_message().unwrap();
        for (message, ones) in [(first, &mut ones), (second, &mut ones_back)] {
            for (byte, ones) in message.iter().zip(ones.iter_mut()) {
                for (bit, ones) in ones.iter_mut().enumerate() {
                    *ones += u32::from(byte >> bit & 1);
                }
            }
        }
    }
    for count in ones.iter().chain(&ones_back).flatten() {
        assert!((60..140).contains(count), "a bit is one {count} times in {rounds}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_never_panic(message in proptest::collection::vec(any::<u8>(), 0..700), open: bool) {
        let mut pair = if open { Pair::established() } else { Pair::new(initiator_config(0)) };
        pair.initiator.handle_message(&message, &mut pair.rng, pair.now);
        pair.responder.handle_message(&message, &mut pair.rng, pair.now);
        prop_assert!(pair.initiator.is_closed() && pair.responder.is_closed());
    }

    #[test]
    fn any_path_never_panics(path in ".{0,80}", token in "[A-Za-z0-9_-]{43}") {
        let secret = PathSecret::from_bytes([8; 32]);
        prop_assert!(secret.recognise(Service::Relay, &path).is_none());
        let path = format!("/api/v1/ws/{token}");
        prop_assert!(secret.recognise(Service::Relay, &path).is_none());
    }
}

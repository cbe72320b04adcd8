//! New keys in time, or an end.

use noise_channel::limits::{
    HARD_STOP_AFTER, HARD_STOP_MESSAGES, HOLD_BACK_DEADLINE, MAX_PAYLOAD, ROTATE_AFTER,
    ROTATE_AFTER_MESSAGES, ROTATION_DEADLINE,
};
use noise_channel::{ChannelError, ChannelEvent, MessageClass, SendError};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::pair::{Pair, SECOND, received};

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

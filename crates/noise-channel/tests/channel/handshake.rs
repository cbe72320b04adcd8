//! How a channel opens, and to whom it does not.

use noise_channel::limits::{HANDSHAKE_DEADLINE, REPLAY_WINDOW};
use noise_channel::{
    Channel, ChannelError, ChannelEvent, ClockOffset, InitiatorConfig, MessageClass, Now,
    PathSecret, ReplayGuard, SendError, Service, StaticSecret,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::pair::{Pair, SECOND, initiator_config, noon, responder_config};

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

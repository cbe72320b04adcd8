//! Messages of a channel that is open, and its silence.

use std::time::Duration;

use noise_channel::limits::{MAX_PAYLOAD, SILENCE_DEADLINE};
use noise_channel::{ChannelError, ChannelEvent, MessageClass, SendError};
use proptest::prelude::*;

use crate::pair::{Pair, SECOND, initiator_config, received};

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
fn nothing_is_idle_for_twenty_five_seconds_on_a_channel_on_which_nothing_is_sent() {
    let mut pair = Pair::established();
    for _ in 0..20 {
        let before = (pair.sent_by_initiator, pair.sent_by_responder);
        pair.run(Duration::from_millis(24_900));
        assert!(pair.sent_by_initiator > before.0 && pair.sent_by_responder > before.1);
        assert!(pair.sent_by_initiator <= before.0 + 2, "no more than is needed");
    }
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_never_panic(message in proptest::collection::vec(any::<u8>(), 0..700), open: bool) {
        let mut pair = if open { Pair::established() } else { Pair::new(initiator_config(0)) };
        pair.initiator.handle_message(&message, &mut pair.rng, pair.now);
        pair.responder.handle_message(&message, &mut pair.rng, pair.now);
        prop_assert!(pair.initiator.is_closed() && pair.responder.is_closed());
    }
}

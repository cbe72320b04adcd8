//! The rules of section 6 of the paper under virtual time.

use std::time::Duration;

use crate::lab::Lab;
use wireguard_proto::{Dropped, Event, NotUsable, PresharedKey, REKEY_TIMEOUT, Tai64N};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_handshake_leaves_a_session_on_both_ends() {
    let mut lab = Lab::new();
    lab.establish();
    assert_eq!(lab.sent, (vec![1, 4], vec![2]));
    lab.a_sends();
    lab.b_sends();
    assert_eq!((lab.a.received.len(), lab.b.received.len()), (1, 1));
    let tunnel = lab.a.interface.tunnel(&lab.a.peer).unwrap();
    assert_eq!(tunnel.last_handshake(), Some(crate::lab::WALL));
    assert_eq!(tunnel.sent_bytes(), 148 + 32 + 64);
    assert_eq!(tunnel.received_bytes(), 92 + 64);
}

#[test]
fn a_responder_sends_nothing_before_the_initiator_used_the_session() {
    let mut lab = Lab::new();
    let peer = lab.a.peer;
    lab.a.interface.initiate(&peer, &mut lab.rng, lab.now);
    let mut initiation = lab.a.interface.poll_transmit().unwrap().message;
    let from = lab.a.address;
    lab.b.take(&mut initiation, from, &mut lab.rng, lab.now);
    assert!(!lab.b.ready(lab.now));
    let Some(Event::SessionAdded(session)) = lab.b.interface.poll_event() else {
        panic!("the responder can open at once")
    };
    assert_eq!(session.reserve(1, lab.now).unwrap_err(), NotUsable::Unconfirmed);
    let mut response = lab.b.interface.poll_transmit().unwrap().message;
    let from = lab.b.address;
    lab.a.take(&mut response, from, &mut lab.rng, lab.now);
    lab.settle();
    assert!(session.reserve(1, lab.now).is_ok());
}

#[test]
fn an_unanswered_initiation_is_repeated_every_five_seconds_for_ninety() {
    let mut lab = Lab::new();
    lab.connected = (false, false);
    lab.a_sends();
    lab.advance(SECOND * 89);
    let count = lab.sent.0.len();
    assert!((16..=18).contains(&count), "{count} initiations in 89 seconds");
    assert!(lab.a.interface.tunnel(&lab.a.peer).unwrap().is_handshaking());
    lab.advance(SECOND * 10);
    assert!(lab.a.events.iter().any(|event| matches!(event, Event::HandshakeGivenUp { .. })));
    let count = lab.sent.0.len();
    lab.advance(SECOND * 600);
    assert_eq!(lab.sent.0.len(), count, "silence after giving up");
}

#[test]
fn an_initiation_that_was_lost_is_repeated_at_once_when_the_path_changes() {
    let mut lab = Lab::new();
    lab.connected = (false, false);
    lab.a_sends();
    lab.connected = (true, true);
    let peer = lab.a.peer;
    lab.a.interface.handle_path_change(&peer, lab.now);
    lab.settle();
    assert!(lab.a.ready(lab.now), "without waiting for REKEY_TIMEOUT");
}

#[test]
fn a_repeated_initiation_does_no_harm_to_the_first() {
    let mut lab = Lab::new();
    let peer = lab.a.peer;
    lab.a.interface.initiate(&peer, &mut lab.rng, lab.now);
    lab.a.interface.handle_path_change(&peer, lab.now);
    lab.settle();
    assert_eq!(lab.sent.1, vec![2], "the second copy is refused as a replay");
    assert!(lab.a.ready(lab.now));
}

#[test]
fn initiations_to_one_peer_keep_a_distance_of_rekey_timeout() {
    let mut lab = Lab::new();
    lab.establish();
    let peer = lab.a.peer;
    lab.a.interface.initiate(&peer, &mut lab.rng, lab.now);
    lab.settle();
    assert_eq!(lab.sent.0.iter().filter(|kind| **kind == 1).count(), 1);
    lab.advance(REKEY_TIMEOUT);
    assert_eq!(lab.sent.0.iter().filter(|kind| **kind == 1).count(), 2);
}

#[test]
fn the_initiator_rekeys_when_it_sends_after_two_minutes_and_the_old_session_still_opens() {
    let mut lab = Lab::new();
    lab.establish();
    let session = lab.a.interface.tunnel(&lab.a.peer).unwrap().session(lab.now).unwrap().clone();
    lab.advance(SECOND * 119);
    lab.a_sends();
    assert_eq!(lab.sent.0, [1, 4], "no rekey before its time");
    lab.advance(SECOND);
    lab.a_sends();
    assert_eq!(lab.sent.0, [1, 4, 1, 4]);
    let mut late = vec![0; 48];
    session.seal(session.reserve(1, lab.now).unwrap().next().unwrap(), &mut late);
    let from = lab.a.address;
    lab.b.take(&mut late, from, &mut lab.rng, lab.now);
    assert_eq!(lab.b.dropped, []);
    assert_eq!(lab.b.received.len(), 3);
}

#[test]
fn the_responder_of_a_session_does_not_rekey_by_age() {
    let mut lab = Lab::new();
    lab.establish();
    lab.advance(SECOND * 130);
    lab.b_sends();
    assert_eq!(lab.sent.1, [2]);
    assert!(!lab.sent.0[2..].contains(&1), "nor does the initiator that only receives");
    lab.advance(SECOND * 40);
    lab.b_sends();
    assert!(lab.sent.0[2..].contains(&1), "until there is just time for one attempt");
}

#[test]
fn a_session_ends_after_three_minutes() {
    let mut lab = Lab::new();
    lab.establish();
    let session = lab.a.interface.tunnel(&lab.a.peer).unwrap().session(lab.now).unwrap().clone();
    let mut message = lab.a.seal(&[0x45; 32], &mut lab.rng, lab.now).unwrap();
    lab.connected = (false, false);
    lab.advance(SECOND * 180);
    assert_eq!(session.reserve(1, lab.now).unwrap_err(), NotUsable::Ended);
    let from = lab.a.address;
    lab.b.take(&mut message, from, &mut lab.rng, lab.now);
    assert!(matches!(lab.b.dropped[..], [Dropped::UnknownIndex]));
    assert!(lab.b.events.iter().any(|event| matches!(event, Event::SessionRemoved { .. })));
}

#[test]
fn received_data_is_acknowledged_by_a_keepalive_after_ten_seconds() {
    let mut lab = Lab::new();
    lab.establish();
    lab.a_sends();
    lab.advance(SECOND * 9);
    assert_eq!(lab.a.keepalives, 0);
    lab.advance(SECOND * 2);
    assert_eq!(lab.a.keepalives, 1);
    lab.advance(SECOND * 60);
    assert_eq!((lab.a.keepalives, lab.sent.0.len()), (1, 2), "a keepalive is not answered");
}

#[test]
fn an_answer_makes_the_keepalive_needless() {
    let mut lab = Lab::new();
    lab.establish();
    lab.a_sends();
    lab.advance(SECOND * 5);
    lab.b_sends();
    lab.advance(SECOND * 6);
    assert_eq!(lab.a.keepalives, 0);
}

#[test]
fn unanswered_data_starts_a_handshake_after_fifteen_seconds() {
    let mut lab = Lab::new();
    lab.establish();
    lab.connected = (false, false);
    lab.a_sends();
    lab.advance(SECOND * 14);
    assert_eq!(lab.sent.0, [1, 4]);
    lab.advance(SECOND * 2);
    assert_eq!(lab.sent.0, [1, 4, 1]);
}

#[test]
fn a_persistent_keepalive_establishes_and_keeps_a_session() {
    let mut lab = Lab::new();
    let peer = lab.a.peer;
    lab.a.interface.set_persistent_keepalive(&peer, Some(SECOND * 25), lab.now);
    lab.advance(SECOND);
    assert!(lab.b.ready(lab.now), "the first one is due at once");
    let before = lab.b.keepalives;
    lab.advance(SECOND * 100);
    assert_eq!(lab.b.keepalives - before, 4);
    lab.advance(SECOND * 600);
    assert!(lab.b.ready(lab.now), "over several sessions");
}

#[test]
fn a_byte_limit_asks_for_a_new_session_while_traffic_goes_on() {
    let mut lab = Lab::with(|config| config.rekey_after_bytes = Some(100_000), vec![], vec![]);
    lab.establish();
    for _ in 0..2_000 {
        lab.a_sends();
    }
    assert_eq!(lab.sent.0, [1, 4], "never sooner than REKEY_TIMEOUT");
    assert_eq!(lab.b.received.len(), 2_000);
    lab.advance(SECOND * 5);
    assert_eq!(lab.sent.0, [1, 4, 1, 4]);
    assert_eq!(lab.sent.1, [2, 2], "only one end asks");
}

#[test]
fn two_ends_that_initiate_at_once_end_up_with_a_session() {
    let mut lab = Lab::new();
    let (to_b, to_a) = (lab.a.peer, lab.b.peer);
    lab.a.interface.initiate(&to_b, &mut lab.rng, lab.now);
    lab.b.interface.initiate(&to_a, &mut lab.rng, lab.now);
    lab.settle();
    lab.a_sends();
    lab.b_sends();
    assert_eq!((lab.a.received.len(), lab.b.received.len()), (1, 1));
    assert_eq!((&lab.a.dropped, &lab.b.dropped), (&vec![], &vec![]));
}

#[test]
fn timestamps_rise_even_when_the_clock_steps_back_or_the_process_restarts() {
    let mut lab = Lab::new();
    lab.establish();
    let last = lab.a.interface.last_timestamp();
    lab.a.interface.set_wall_clock(Duration::from_secs(5), lab.now);
    let peer = lab.a.peer;
    lab.advance(REKEY_TIMEOUT);
    lab.a.interface.initiate(&peer, &mut lab.rng, lab.now);
    lab.settle();
    assert_eq!(lab.a.interface.last_timestamp(), last.successor());
    assert_eq!(lab.b.dropped, []);
    assert!(Tai64N::from_bytes(*last.as_bytes()) < last.successor());
}

#[test]
fn a_replayed_initiation_is_refused() {
    let mut lab = Lab::new();
    let peer = lab.a.peer;
    lab.a.interface.initiate(&peer, &mut lab.rng, lab.now);
    let mut message = lab.a.interface.poll_transmit().unwrap().message;
    let from = lab.a.address;
    lab.b.take(&mut message.clone(), from, &mut lab.rng, lab.now);
    lab.advance(SECOND);
    lab.b.take(&mut message.clone(), from, &mut lab.rng, lab.now);
    assert_eq!(lab.b.dropped, [Dropped::RepeatedInitiation], "as its sender may");
    lab.advance(2 * REKEY_TIMEOUT);
    lab.b.take(&mut message, from, &mut lab.rng, lab.now);
    assert_eq!(lab.b.dropped[1..], [Dropped::ReplayedInitiation]);
}

#[test]
fn an_initiation_from_before_the_last_is_a_replay_at_once() {
    let mut lab = Lab::new();
    let (peer, from) = (lab.a.peer, lab.a.address);
    lab.a.interface.initiate(&peer, &mut lab.rng, lab.now);
    let mut lost = lab.a.interface.poll_transmit().unwrap().message;
    lab.advance(REKEY_TIMEOUT + SECOND);
    lab.b.take(&mut lost, from, &mut lab.rng, lab.now);
    assert_eq!(lab.b.dropped, [Dropped::ReplayedInitiation]);
}

#[test]
fn an_initiator_tries_all_its_preshared_keys_on_a_response() {
    let key = |byte| PresharedKey::from_bytes([byte; 32]);
    let mut lab = Lab::with(|_| {}, vec![key(3), key(2), key(1)], vec![key(1)]);
    lab.establish();
    assert_eq!(lab.sent.1, [2], "at the first response");
}

#[test]
fn a_responder_turns_to_the_next_preshared_key_when_the_session_stays_unused() {
    let key = |byte| PresharedKey::from_bytes([byte; 32]);
    let mut lab = Lab::with(|_| {}, vec![key(1)], vec![key(3), key(2), key(1)]);
    lab.a_sends();
    lab.advance(SECOND * 12);
    assert!(lab.a.ready(lab.now) && lab.b.ready(lab.now));
    assert_eq!(lab.sent.1, [2, 2, 2]);
}

#[test]
fn a_wrong_preshared_key_never_makes_a_session() {
    let key = |byte| PresharedKey::from_bytes([byte; 32]);
    let mut lab = Lab::with(|_| {}, vec![key(1)], vec![]);
    lab.a_sends();
    lab.advance(SECOND * 60);
    assert!(!lab.a.ready(lab.now) && !lab.b.ready(lab.now));
    assert!(lab.a.dropped.contains(&Dropped::NotAuthentic));
}

#[test]
fn both_ends_derive_the_same_frame_secrets_crosswise() {
    let mut lab = Lab::new();
    lab.establish();
    let secrets = |end: &crate::lab::End| {
        end.interface.tunnel(&end.peer).unwrap().session(lab.now).unwrap().frame_secrets()
    };
    let (a, b) = (secrets(&lab.a), secrets(&lab.b));
    assert_eq!(a.send, b.receive);
    assert_eq!(a.receive, b.send);
    assert_ne!(a.send, a.receive);
}

#[test]
fn a_peer_that_moves_is_answered_at_its_new_address() {
    let mut lab = Lab::new();
    lab.establish();
    lab.a.address = ([203, 0, 113, 5], 5555).into();
    lab.a_sends();
    assert_eq!(lab.b.interface.tunnel(&lab.b.peer).unwrap().endpoint(), Some(&lab.a.address));
    let mut forged = vec![4, 0, 0, 0];
    forged.extend([0; 60]);
    let from = ([203, 0, 113, 66], 66).into();
    lab.b.take(&mut forged, from, &mut lab.rng, lab.now);
    assert_eq!(lab.b.interface.tunnel(&lab.b.peer).unwrap().endpoint(), Some(&lab.a.address));
}

#[test]
fn a_removed_peer_and_a_changed_key_end_the_sessions() {
    let mut lab = Lab::new();
    lab.establish();
    let session = lab.a.interface.tunnel(&lab.a.peer).unwrap().session(lab.now).unwrap().clone();
    let key = wireguard_proto::PrivateKey::generate(&mut lab.rng);
    lab.a.interface.set_private_key(key, lab.now);
    assert_eq!(session.reserve(1, lab.now).unwrap_err(), NotUsable::Ended);
    let to_a = lab.b.peer;
    assert!(lab.b.interface.remove_peer(&to_a, lab.now));
    assert!(lab.b.interface.poll_timeout().is_none_or(|(at, _)| at <= lab.now));
    let mut unknown = lab.a.interface;
    unknown.initiate(&lab.a.peer, &mut lab.rng, lab.now + REKEY_TIMEOUT);
    unknown.handle_timeout(&mut lab.rng, lab.now + REKEY_TIMEOUT);
    let mut initiation = unknown.poll_transmit().unwrap().message;
    lab.b.take(&mut initiation, lab.a.address, &mut lab.rng, lab.now);
    assert_eq!(lab.b.dropped, [Dropped::UnknownPeer(*unknown.public_key())]);
}

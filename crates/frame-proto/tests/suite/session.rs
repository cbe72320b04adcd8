//! Sealing and opening end to end.

use std::sync::Mutex;

use data_encoding::HEXLOWER;
use frame_proto::{
    DATA_PAYLOAD_LIMIT, Ends, FLAG_AES, FLAG_HELLO, FrameType, HelloKey, INTRODUCED_KEY_LENGTH,
    OpenError, REPLAY_WINDOW, STREAMS_KEPT, SealError, introduced_key, parse, payload, set_peer,
};
use identity::{DeviceId, NetworkId, TunnelKey, TunnelPublicKey};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::ends::{ALICE, BOB, NETWORK, buffer, ends, keys, session, two_ends};

fn sealed(sealer: &frame_proto::FrameSealer, text: &[u8]) -> Vec<u8> {
    let mut frame = buffer(text);
    sealer.seal(FrameType::Data, 0, &mut frame).unwrap();
    frame
}

#[test]
fn a_frame_arrives_as_it_was_sent() {
    let (streams, opener) = session();
    let mut frame = sealed(&streams.begin(), b"hello");
    assert_ne!(payload(&frame), b"hello");
    assert_eq!(parse(&frame).unwrap().peer, BOB);
    set_peer(&mut frame, ALICE).unwrap();
    let header = opener.open(&mut frame).unwrap();
    assert_eq!((header.kind, header.stream(), header.counter()), (FrameType::Data, 0, 0));
    assert_eq!(header.receiver_index(), 7);
    assert_eq!(payload(&frame), b"hello");
}

#[test]
fn a_sealed_frame_has_the_bytes_that_it_always_had() {
    let (streams, _) = session();
    let _first = streams.begin();
    let sealer = streams.begin();
    sealed(&sealer, b"first");
    assert_eq!(HEXLOWER.encode(&sealed(&sealer, b"second")), GOLDEN_FRAME);
}

const GOLDEN_FRAME: &str = concat!(
    "10000006000000010b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
    "0000000700000000000000000000000100000000000000019750aae10a4d335330c464f375812885",
    "30f2a64370a0",
);

#[test]
fn no_change_of_what_the_tag_covers_is_accepted() {
    let (streams, opener) = session();
    let mut good = sealed(&streams.begin(), b"hello");
    // The peer, at 8 to 40, is for relays to change.
    for at in (0..8).chain(40..good.len()) {
        let mut frame = good.clone();
        frame[at] ^= 1;
        assert!(opener.open(&mut frame).is_err(), "byte {at}");
    }
    assert!(opener.open(&mut good).is_ok());
}

#[test]
fn a_frame_for_other_ends_is_refused() {
    let (streams, _) = session();
    let mut frame = sealed(&streams.begin(), b"hello");
    let carol = DeviceId::from_bytes([0xc; 32]);
    let elsewhere = Ends { network: NetworkId::from_bytes([2; 32]), ..ends(BOB, ALICE) };
    for other in [ends(BOB, carol), ends(carol, ALICE), ends(ALICE, BOB), elsewhere] {
        let (_, opener) = keys(2, 1, 9, 7).split(other);
        assert_eq!(opener.open(&mut frame.clone()), Err(OpenError::BadTag));
    }
    let (_, opener) = keys(2, 1, 9, 8).split(ends(BOB, ALICE));
    assert_eq!(opener.open(&mut frame), Err(OpenError::WrongSession));
}

#[test]
fn a_frame_is_accepted_once_and_within_the_window() {
    let (streams, opener) = session();
    let sealer = streams.begin();
    let frames: Vec<_> = (0..=REPLAY_WINDOW).map(|_| sealed(&sealer, b"")).collect();
    let open = |at: u64| opener.open(&mut frames[usize::try_from(at).unwrap()].clone());
    assert!(open(5).is_ok());
    assert_eq!(open(5), Err(OpenError::Replayed));
    assert!(open(REPLAY_WINDOW).is_ok());
    assert_eq!(open(0), Err(OpenError::Replayed), "too old");
    assert!(open(1).is_ok(), "the oldest in the window");
    assert_eq!(open(5), Err(OpenError::Replayed));
    assert_eq!(open(1), Err(OpenError::Replayed));
}

#[test]
fn a_frame_that_fails_closes_nothing_for_the_true_one() {
    let (streams, opener) = session();
    let mut good = sealed(&streams.begin(), b"hello");
    let mut bad = good.clone();
    bad[64] ^= 1;
    assert_eq!(opener.open(&mut bad), Err(OpenError::BadTag));
    assert!(opener.open(&mut good).is_ok());
}

#[test]
fn streams_below_the_newest_eight_are_refused() {
    let (streams, opener) = session();
    let sealers: Vec<_> = (0..=STREAMS_KEPT).map(|_| streams.begin()).collect();
    let open = |at: usize| opener.open(&mut sealed(&sealers[at], b""));
    assert!(open(0).is_ok());
    assert!(open(7).is_ok());
    assert!(open(0).is_ok(), "one of the newest eight");
    assert!(open(8).is_ok());
    assert_eq!(open(0), Err(OpenError::Replayed));
    assert!(open(1).is_ok(), "the lowest of the newest eight, seen for the first time");
}

#[test]
fn each_stream_has_a_window_of_its_own() {
    let (streams, opener) = session();
    let (first, second) = (streams.begin(), streams.begin());
    let mut frames = [sealed(&second, b"b"), sealed(&first, b"a")];
    assert_eq!(parse(&frames[0]).unwrap().sequence, parse(&frames[1]).unwrap().sequence);
    assert!(frames.iter_mut().all(|frame| opener.open(frame).is_ok()));
}

#[test]
fn threads_share_a_sealer_and_an_opener() {
    let (streams, opener) = session();
    let sealer = streams.begin();
    let counters = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let header = opener.open(&mut sealed(&sealer, b"text")).unwrap();
                    counters.lock().unwrap().push(header.counter());
                }
            });
        }
    });
    let mut counters = counters.into_inner().unwrap();
    counters.sort_unstable();
    assert!(counters.iter().copied().eq(0..400));
}

/// The number of the cipher in a frame's nonce.
fn cipher(frame: &[u8]) -> u8 {
    frame[47]
}

#[test]
fn a_stream_goes_over_to_aes_when_both_ends_have_it() {
    let [(to_bob, from_bob), (to_alice, from_alice)] = two_ends(true, true);
    let (alice, bob) = (to_bob.begin(), to_alice.begin());
    let mut late = sealed(&alice, b"0");
    let mut first = sealed(&alice, b"1");
    from_alice.open(&mut first).unwrap();
    let mut answer = sealed(&bob, b"2");
    assert_eq!([&late, &first, &answer].map(|frame| cipher(frame)), [0, 0, 1]);
    from_bob.open(&mut answer).unwrap();
    let mut next = [sealed(&alice, b"3"), sealed(&alice, b"4")];
    assert_eq!(HEXLOWER.encode(&next[1]), GOLDEN_AES_FRAME);
    for frame in &mut next {
        assert_eq!(cipher(frame), 1);
        let again = frame.clone();
        from_alice.open(frame).unwrap();
        assert_eq!(from_alice.open(&mut again.clone()), Err(OpenError::Replayed));
    }
    let header = from_alice.open(&mut late.clone()).unwrap();
    assert_eq!((header.stream(), header.counter()), (0, 0), "one stream, and one window");
    assert_eq!(from_alice.open(&mut late), Err(OpenError::Replayed));
    assert!(from_alice.open(&mut sealed(&alice, b"5")).is_ok());
}

const GOLDEN_AES_FRAME: &str = concat!(
    "10080001000000030b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
    "0000000700000001000000000000000000000000000000032a1c06eaa9f7ca8ea549839203a71a92e3",
);

#[test]
fn without_aes_at_either_end_nothing_changes() {
    for (alice, bob) in [(false, true), (true, false), (false, false)] {
        let [(to_bob, from_bob), (to_alice, from_alice)] = two_ends(alice, bob);
        let (to_bob, to_alice) = (to_bob.begin(), to_alice.begin());
        for _ in 0..3 {
            let mut frames = [sealed(&to_bob, b"a"), sealed(&to_alice, b"b")];
            assert_eq!([cipher(&frames[0]), cipher(&frames[1])], [0, 0]);
            from_alice.open(&mut frames[0]).unwrap();
            from_bob.open(&mut frames[1]).unwrap();
        }
    }
}

#[test]
fn nobody_between_changes_the_cipher() {
    let [(to_bob, from_bob), (to_alice, _)] = two_ends(true, false);
    let mut forged = sealed(&to_alice.begin(), b"text");
    forged[1] |= FLAG_AES;
    assert_eq!(from_bob.open(&mut forged), Err(OpenError::BadTag));
    let frame = sealed(&to_bob.begin(), b"text");
    assert_eq!(cipher(&frame), 0);
    for number in [1, 2, 3, 255, 256, 1 << 24, u32::MAX] {
        let (_, opener) = session();
        let mut frame = frame.clone();
        frame[44..48].copy_from_slice(&number.to_be_bytes());
        let refused = if number == 1 { OpenError::BadTag } else { OpenError::WrongSession };
        assert_eq!(opener.open(&mut frame), Err(refused));
    }
}

#[test]
fn a_buffer_without_room_is_refused() {
    let (streams, _) = session();
    let sealer = streams.begin();
    for mut frame in [vec![0; 79], buffer(&vec![0; DATA_PAYLOAD_LIMIT + 1])] {
        let refused = sealer.seal(FrameType::Data, 0, &mut frame);
        assert!(matches!(refused, Err(SealError::Frame(_))));
    }
    assert_eq!(parse(&sealed(&sealer, b"")).unwrap().counter(), 0, "nothing was used up");
}

fn hello_pair() -> (HelloKey, HelloKey) {
    let (a, b) = (TunnelKey::from_bytes(&[1; 32]), TunnelKey::from_bytes(&[2; 32]));
    let alice = HelloKey::new(ends(ALICE, BOB), &a, &b.public()).unwrap();
    let bob = HelloKey::new(ends(BOB, ALICE), &b, &a.public()).unwrap();
    (alice, bob)
}

#[test]
fn before_a_session_the_static_keys_protect() {
    let (alice, bob) = hello_pair();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut frame = buffer(b"initiation");
    alice.seal(FrameType::Handshake, &mut frame, &mut rng).unwrap();
    assert_eq!(HEXLOWER.encode(&frame), GOLDEN_HELLO);
    for at in (0..8).chain(40..frame.len()) {
        let mut changed = frame.clone();
        changed[at] ^= 1;
        assert!(bob.open(&mut changed).is_err(), "byte {at}");
    }
    assert_eq!(alice.open(&mut frame.clone()), Err(OpenError::BadTag), "sent back");
    let header = bob.open(&mut frame).unwrap();
    assert_eq!((header.kind, header.flags), (FrameType::Handshake, FLAG_HELLO));
    assert_eq!(payload(&frame), b"initiation");
}

const GOLDEN_HELLO: &str = concat!(
    "1101000a000000000b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
    "9a3744504560639ec670b7a17d492b273e077b0a96bef58b03938b54db20341979eae7a06286dcd6",
    "cc8b457a6db1684516bf",
);

#[test]
fn data_needs_a_session() {
    let (alice, bob) = hello_pair();
    let mut frame = buffer(b"packet");
    alice.seal(FrameType::Data, &mut frame, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
    assert_eq!(bob.open(&mut frame), Err(OpenError::WrongSession));
    let (streams, opener) = session();
    let mut frame = sealed(&streams.begin(), b"packet");
    assert_eq!(bob.open(&mut frame), Err(OpenError::WrongSession));
    alice.seal(FrameType::Disco, &mut frame, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
    assert_eq!(opener.open(&mut frame), Err(OpenError::WrongSession));
}

#[test]
fn an_introduction_names_the_key_that_it_is_sealed_with() {
    let (alice, bob) = hello_pair();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut frame = buffer(&[&[0; INTRODUCED_KEY_LENGTH], b"proofs".as_slice()].concat());
    alice.seal(FrameType::Introduce, &mut frame, &mut rng).unwrap();
    let key = TunnelKey::from_bytes(&[1; 32]).public();
    assert_eq!(introduced_key(&frame), Some(key));
    for at in (0..8).chain(40..frame.len()) {
        let mut changed = frame.clone();
        changed[at] ^= 1;
        assert!(bob.open(&mut changed).is_err(), "byte {at}");
    }
    bob.open(&mut frame).unwrap();
    assert_eq!(&payload(&frame)[INTRODUCED_KEY_LENGTH..], b"proofs");
    let mut short = buffer(b"too short");
    assert!(alice.seal(FrameType::Introduce, &mut short, &mut rng).is_err());
    alice.seal(FrameType::Handshake, &mut short, &mut rng).unwrap();
    assert_eq!(introduced_key(&short), None);
}

#[test]
fn a_key_of_low_order_gives_no_hello_key() {
    let ours = TunnelKey::from_bytes(&[1; 32]);
    let low = TunnelPublicKey::from_bytes([0; 32]);
    assert!(HelloKey::new(ends(ALICE, BOB), &ours, &low).is_none());
}

#[test]
fn no_secret_is_shown_when_debugged() {
    let secret = "187, 187, 187";
    let keys = keys(187, 187, 1, 2);
    let shown = format!("{keys:?}");
    let (streams, opener) = keys.split(Ends { network: NETWORK, local: ALICE, remote: BOB });
    let shown = format!("{shown} {streams:?} {opener:?} {:?} {:?}", streams.begin(), hello_pair());
    assert!(!shown.contains(secret));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_payload_arrives(text in prop::collection::vec(any::<u8>(), 0..2000)) {
        let (streams, opener) = session();
        let mut frame = sealed(&streams.begin(), &text);
        prop_assert!(opener.open(&mut frame).is_ok());
        prop_assert_eq!(payload(&frame), text.as_slice());
    }

    #[test]
    fn no_bytes_panic_an_opener(
        head in any::<[u8; 8]>(),
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (_, opener) = session();
        let (_, hello) = hello_pair();
        prop_assert!(opener.open(&mut bytes.clone()).is_err());
        let length = u16::try_from(bytes.len().saturating_sub(80)).unwrap();
        bytes.iter_mut().zip(head).for_each(|(byte, new)| *byte = new);
        if bytes.len() >= 80 {
            bytes[0] = 0x10 | (head[0] % 6);
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        prop_assert!(opener.open(&mut bytes.clone()).is_err());
        prop_assert!(hello.open(&mut bytes).is_err());
    }

    /// The window, against a set of everything received.
    #[test]
    fn the_window_never_takes_a_frame_twice(steps in prop::collection::vec(0usize..3000, 1..60)) {
        let (streams, opener) = session();
        let sealer = streams.begin();
        let frames: Vec<_> = (0..3000).map(|_| sealed(&sealer, b"")).collect();
        let mut seen = std::collections::BTreeSet::new();
        for at in steps {
            let newest = seen.last().copied().unwrap_or(0usize);
            let expected = !seen.contains(&at) && at + 1024 > newest;
            prop_assert_eq!(opener.open(&mut frames[at].clone()).is_ok(), expected);
            if expected {
                seen.insert(at);
            }
        }
    }
}

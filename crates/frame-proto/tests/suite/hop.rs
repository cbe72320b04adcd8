//! The outer layer.

use data_encoding::HEXLOWER;
use frame_proto::{
    FrameError, FrameType, HOP_TAG_LENGTH, HopError, HopKey, HopOpener, HopSealer, compose, payload,
};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::ends::{BOB, buffer, session};

/// Room for a frame, its hop's tag and padding.
const PADDED: usize = 256;

fn key(n: u8) -> HopKey {
    HopKey::from_bytes(&[n; 32])
}

fn hop() -> (HopSealer, HopOpener) {
    (HopSealer::new(&key(1)), HopOpener::new(&key(1)))
}

fn data() -> Vec<u8> {
    let mut frame = buffer(b"a packet");
    session().0.begin().seal(FrameType::Data, 0, &mut frame).unwrap();
    frame
}

fn control() -> Vec<u8> {
    let mut frame = buffer(b"a message");
    compose(FrameType::Control, BOB, &mut frame).unwrap();
    frame
}

fn message(sealer: &mut HopSealer, mut frame: Vec<u8>) -> Vec<u8> {
    frame.extend([0; HOP_TAG_LENGTH]);
    sealer.seal(&mut frame).unwrap();
    frame
}

/// A message that is filled up to `length` bytes.
fn padded(sealer: &mut HopSealer, mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.resize(length, 0);
    sealer.seal(&mut frame).unwrap();
    frame
}

#[test]
fn messages_arrive_as_they_were_sent() {
    let (mut sealer, mut opener) = hop();
    for frame in [data(), control(), data(), data(), control()] {
        let mut message = message(&mut sealer, frame.clone());
        opener.open(&mut message).unwrap();
        assert_eq!(message[..frame.len()], frame);
    }
    assert_eq!(sealer.sealed(), 5);
}

#[test]
fn the_header_of_data_and_all_of_the_rest_is_sealed() {
    let (mut sealer, _) = hop();
    let sealed = message(&mut sealer, data());
    assert_eq!(sealed[64..data().len()], data()[64..]);
    assert!(!sealed.windows(8).any(|window| window == BOB.as_bytes().first_chunk::<8>().unwrap()));
    let sealed = message(&mut sealer, control());
    assert!(!sealed.windows(9).any(|window| window == b"a message"));
    assert!(!sealed.windows(8).any(|window| window == [0; 8]));
}

#[test]
fn sealed_messages_have_the_bytes_that_they_always_had() {
    let (mut sealer, _) = hop();
    let first = HEXLOWER.encode(&message(&mut sealer, data()));
    let second = HEXLOWER.encode(&message(&mut sealer, control()));
    assert_eq!([first.as_str(), &second], GOLDEN_MESSAGES);
    let third = HEXLOWER.encode(&padded(&mut sealer, data(), 128));
    let fourth = HEXLOWER.encode(&padded(&mut sealer, control(), 128));
    assert_eq!([third.as_str(), &fourth], GOLDEN_PADDED);
}

/// As another implementation computed them.
const GOLDEN_PADDED: [&str; 2] = [
    concat!(
        "6935e53adcd4a37aa4616298e8d56039d9cdae08cd7d1a3409f00b38b7153fd9a98a082b35e5df25",
        "7fe7ca165eb9fcc55a5d76549ac2a27f07d89aa817b38edfe6595d4845381c21a58d9c2bd9aa3105",
        "2898bb9feb58f0a523dfc97d5b75e80d48d9a606458b8e7ebefc849c748cf4973dc093684a3018b3",
        "5d16756966bed1c2",
    ),
    concat!(
        "bf0e4696f22ea59544da5de0870883627cfe9000a259b8d16809aa2daaa79df03f33677f2ce22f5c",
        "7d4e8caa1fde6ac22dfb31b60f984106874a1cc580d640672b32fcf983824f517ed29ce6a781e5df",
        "c85ce93b1da5b6e31784e195417a1a851958f7ab0a1aa3ef6cc5f21a22adb8b85056f1820612409b",
        "0bf7f9d4cfd8d4dc",
    ),
];

const GOLDEN_MESSAGES: [&str; 2] = [
    concat!(
        "11274dd9ee5216c20ff06286a5af5059e2806404d60f66c7318db00c953dfb2f1f75408c5652a2e4",
        "432b8e42b04a98c4b19dc8c7475f5dce4259b4ca2dd67282e6595d4845381c2148d9a606458b8e7e",
        "befc849c748cf497bf5bdae02844a9ea32a44d3d141a84c6",
    ),
    concat!(
        "723564c55f9de40b3c97b7b5b9696c7e9470f23072afcb2d0ad15794004a2af6e0a2f7a898e34dde",
        "8af3c85328c0b0091225338f818b8c06d6f53fc8d719c6c8f24df2b8441bc2ed7f429b5ed751dfb9",
        "eb8548dd960f32f9cf9cc495f228c326ac020ac8a3a6aa75aa",
    ),
];

#[test]
fn a_repeated_a_left_out_and_a_foreign_message_are_refused() {
    let (mut sealer, mut opener) = hop();
    let messages = [message(&mut sealer, data()), message(&mut sealer, data())];
    assert_eq!(opener.open(&mut messages[1].clone()), Err(HopError::BadTag));
    assert!(opener.open(&mut messages[0].clone()).is_ok());
    assert_eq!(opener.open(&mut messages[0].clone()), Err(HopError::BadTag));
    let mut foreign = message(&mut HopSealer::new(&key(2)), data());
    assert_eq!(opener.open(&mut foreign), Err(HopError::BadTag));
}

#[test]
fn no_change_of_what_the_hop_covers_is_accepted() {
    for frame in [data(), control()] {
        let (mut sealer, _) = hop();
        let good = message(&mut sealer, frame.clone());
        let payload_of_data = 64..frame.len() - 16;
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            // The payload of data is covered by the frame's own tag, which the hop covers.
            let is_covered = frame != data() || !payload_of_data.contains(&at);
            assert_eq!(hop().1.open(&mut changed).is_err(), is_covered, "byte {at}");
        }
    }
}

#[test]
fn padding_is_random_and_nobody_looks_at_it() {
    let (mut sealer, mut opener) = hop();
    let messages = [0; 2].map(|_| padded(&mut sealer, data(), PADDED));
    let padding = data().len() - 16..PADDED - 32;
    let [one, other] = messages.each_ref().map(|message| &message[padding.clone()]);
    assert!(one.iter().zip(other).filter(|(one, other)| one == other).count() < 10);
    assert!(one.windows(4).all(|window| window.iter().any(|byte| *byte != window[0])));
    for mut message in messages {
        message[padding.clone()].fill(7);
        opener.open(&mut message).unwrap();
        assert_eq!(message[..data().len()], data());
    }
}

#[test]
fn a_frame_that_says_to_be_longer_than_its_message_is_refused() {
    let mut liar = control();
    liar[2..4].copy_from_slice(&1_000_u16.to_be_bytes());
    liar.extend([0; HOP_TAG_LENGTH]);
    assert_eq!(hop().0.seal(&mut liar), Err(FrameError::Length));
    let end = liar.len() - HOP_TAG_LENGTH;
    let key = ciphers::Key::new(&[1; 32]);
    let tag = key.seal([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[], &mut liar[..end]);
    liar[end..].copy_from_slice(&tag);
    assert_eq!(hop().1.open(&mut liar), Err(HopError::Frame(FrameError::Length)));
}

#[test]
fn a_marker_changes_the_key_at_both_ends() {
    let (mut sealer, mut opener) = hop();
    opener.set_next(key(2));
    let mut before = message(&mut sealer, data());
    let mut marker = sealer.rotate(&key(2), BOB, PADDED);
    assert_eq!(marker.len(), PADDED);
    let mut after = message(&mut sealer, control());
    assert!(opener.open(&mut before).is_ok());
    assert_eq!(opener.open(&mut marker).unwrap().kind, FrameType::Marker);
    assert!(opener.open(&mut after).is_ok());
    assert_eq!(payload(&after[..after.len() - HOP_TAG_LENGTH]), b"a message");
}

#[test]
fn the_key_before_a_marker_opens_nothing_after_it() {
    let (mut sealer, mut follows) = hop();
    let (_, mut stays) = hop();
    follows.set_next(key(2));
    // Whoever stays takes the change for one to the key that it has.
    stays.set_next(key(1));
    let mut marker = sealer.rotate(&key(2), BOB, 0);
    assert!(stays.open(&mut marker.clone()).is_ok() && follows.open(&mut marker).is_ok());
    let mut after = message(&mut sealer, data());
    assert_eq!(stays.open(&mut after.clone()), Err(HopError::BadTag));
    assert!(follows.open(&mut after).is_ok());
}

#[test]
fn a_marker_without_a_next_key_is_refused() {
    let (mut sealer, mut opener) = hop();
    let mut marker = sealer.rotate(&key(2), BOB, 0);
    assert_eq!(opener.open(&mut marker), Err(HopError::NoNextKey));
}

#[test]
fn what_is_no_frame_is_not_sealed() {
    let (mut sealer, mut opener) = hop();
    assert_eq!(sealer.seal(&mut [0; 8]), Err(FrameError::Length));
    assert_eq!(sealer.seal(&mut [0; 96]), Err(FrameError::Version(0)));
    let short = Err(HopError::Frame(FrameError::Length));
    assert_eq!(opener.open(&mut [0; 95]), short);
    let mut message = message(&mut sealer, data());
    assert!(opener.open(&mut message).is_ok(), "nothing was used up");
}

#[test]
fn keys_differ_and_are_not_shown() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (one, other) = (HopKey::generate(&mut rng), HopKey::generate(&mut rng));
    assert_ne!(one.as_bytes(), other.as_bytes());
    assert_eq!(format!("{one:?}"), "HopKey(secret)");
}

proptest! {
    #[test]
    fn padded_messages_open_as_others_do(
        messages in prop::collection::vec((0_usize..300, any::<bool>(), 0_usize..600), 1..10),
    ) {
        let (mut sealer, mut opener) = hop();
        let stream = session().0.begin();
        for (length, is_data, padding) in messages {
            let mut frame = buffer(&vec![7; length]);
            if is_data {
                stream.seal(FrameType::Data, 0, &mut frame).unwrap();
            } else {
                compose(FrameType::Control, BOB, &mut frame).unwrap();
            }
            let length = frame.len() + HOP_TAG_LENGTH + padding;
            let mut message = padded(&mut sealer, frame.clone(), length);
            let header = opener.open(&mut message).unwrap();
            prop_assert_eq!(&message[..header.frame_length()], &frame[..]);
        }
    }

    #[test]
    fn no_bytes_panic_the_opener(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(hop().1.open(&mut bytes).is_err());
    }
}

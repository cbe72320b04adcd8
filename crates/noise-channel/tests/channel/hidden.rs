//! What an observer of the wire, or a stranger at the door, can tell.

use noise_channel::{Channel, InitiatorConfig, PathSecret, ReplayGuard, ResponderConfig, Service};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::pair::{initiator_config, noon, responder_config};

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
    fn any_path_never_panics(path in ".{0,80}", token in "[A-Za-z0-9_-]{43}") {
        let secret = PathSecret::from_bytes([8; 32]);
        prop_assert!(secret.recognise(Service::Relay, &path).is_none());
        let path = format!("/api/v1/ws/{token}");
        prop_assert!(secret.recognise(Service::Relay, &path).is_none());
    }
}

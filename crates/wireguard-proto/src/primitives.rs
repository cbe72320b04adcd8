//! The functions of section 5.4 of the paper: HASH, MAC, KDF, AEAD and XAEAD.

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use ciphers::{Cipher, Key, NONCE_LENGTH, TAG_LENGTH};
use zeroize::Zeroizing;

/// A chaining key or any other secret of 32 bytes, wiped when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// Length of a Poly1305 tag.
pub(crate) const TAG_LEN: usize = TAG_LENGTH;

/// The nonce of one message.
pub(crate) type Nonce = [u8; NONCE_LENGTH];

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

/// The 12-byte nonce of the paper: four zero bytes, then the counter in little-endian.
pub(crate) fn nonce(counter: u64) -> Nonce {
    ciphers::nonce(counter.to_le_bytes())
}

/// Seals `out[..out.len() - 16]` in place and writes the tag behind it.
pub(crate) fn seal(key: &Key, nonce: Nonce, aad: &[u8], out: &mut [u8]) {
    let (text, tag) = out.split_at_mut(out.len() - TAG_LEN);
    tag.copy_from_slice(&key.seal(nonce, aad, text));
}

/// The key and nonce that XChaCha20-Poly1305 derives from a 24-byte nonce.
pub(crate) fn xchacha(key: &[u8; 32], nonce: &[u8; 24]) -> (Key, Nonce) {
    let (prefix, end) = nonce.split_first_chunk().expect("24 bytes are more than 16");
    let end = end.try_into().expect("8 of 24 bytes remain");
    (Key::extended(Cipher::ChaCha20Poly1305, key, prefix), ciphers::nonce(end))
}

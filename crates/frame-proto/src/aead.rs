//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) in two steps: HChaCha20 makes a key of the
//! first 16 bytes of the nonce, which a stream keeps, and ChaCha20-Poly1305 (RFC 8439) seals under
//! it with the other 8.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20::{R20, hchacha};
use zeroize::Zeroizing;

use crate::TAG_LENGTH;

pub(crate) const NONCE_LENGTH: usize = 24;

/// The tag does not fit: the bytes were changed, or sealed with another key, nonce or data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tag does not verify")]
pub struct BadTag;

/// XChaCha20-Poly1305 for one key and the first 16 bytes of the nonce.
pub struct XChaCha20Poly1305 {
    key: LessSafeKey,
}

impl XChaCha20Poly1305 {
    /// Derives the key for nonces that begin with `prefix`.
    #[must_use]
    pub fn new(key: &[u8; 32], prefix: &[u8; 16]) -> Self {
        let subkey = Zeroizing::new(<[u8; 32]>::from(hchacha::<R20>(key.into(), prefix.into())));
        Self { key: unbound(&subkey) }
    }

    /// Encrypts `text` in place and returns its tag; `suffix` is the end of the nonce and must
    /// never be used twice.
    #[must_use]
    pub fn seal(&self, suffix: [u8; 8], data: &[u8], text: &mut [u8]) -> [u8; TAG_LENGTH] {
        seal(&self.key, inner_nonce(suffix), data, text)
    }

    /// Decrypts `text`, at whose end the tag stands, in place. After an error the bytes are void.
    ///
    /// # Errors
    /// [`BadTag`].
    pub fn open(&self, suffix: [u8; 8], data: &[u8], text: &mut [u8]) -> Result<(), BadTag> {
        open(&self.key, inner_nonce(suffix), data, text)
    }
}

impl std::fmt::Debug for XChaCha20Poly1305 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("XChaCha20Poly1305(secret)")
    }
}

fn inner_nonce(suffix: [u8; 8]) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&suffix);
    nonce
}

pub(crate) fn unbound(key: &[u8; 32]) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a ChaCha20 key has 32 bytes");
    LessSafeKey::new(key)
}

pub(crate) fn seal(
    key: &LessSafeKey,
    nonce: [u8; 12],
    data: &[u8],
    text: &mut [u8],
) -> [u8; TAG_LENGTH] {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(data), text)
        .expect("sealing fails only above 256 GiB");
    tag.as_ref().try_into().expect("a Poly1305 tag has 16 bytes")
}

pub(crate) fn open(
    key: &LessSafeKey,
    nonce: [u8; 12],
    data: &[u8],
    text: &mut [u8],
) -> Result<(), BadTag> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.open_in_place(nonce, Aad::from(data), text).map(|_| ()).map_err(|_| BadTag)
}

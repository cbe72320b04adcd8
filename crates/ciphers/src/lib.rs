//! ChaCha20-Poly1305 (RFC 8439), XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) and AES-256-GCM (NIST SP 800-38D), in place.
//!
//! Packets, frames and messages are sealed here and nowhere else: which library computes the
//! ciphers is known to this crate only.
//!
//! A [`Key`] is prepared once and used from any number of threads. Long nonces are done in two
//! steps: HChaCha20 makes a key of the first 16 bytes ([`Key::extended`]), which a stream keeps,
//! and the cipher seals under it with the other 8 ([`nonce`]). So a frame costs what a packet of
//! its length does. With ChaCha20-Poly1305 that is XChaCha20-Poly1305; with AES-256-GCM, HChaCha20
//! is the pseudorandom function that gives each stream a key.

#![forbid(unsafe_code)]

mod library;

use chacha20::{R20, hchacha};
use library::Prepared;
pub use library::has_aes_for_avx2_at_most;
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_LENGTH: usize = 32;
/// Bytes of a nonce.
pub const NONCE_LENGTH: usize = 12;
/// Bytes of a tag.
pub const TAG_LENGTH: usize = 16;
/// Bytes of a long nonce that go into the key; 8 follow.
pub const PREFIX_LENGTH: usize = 16;

/// The tag does not fit: the bytes were changed, or sealed with another key, nonce or data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tag does not verify")]
pub struct BadTag;

/// What seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// Quick on every processor.
    ChaCha20Poly1305,
    /// Several times quicker where [`has_aes`] holds.
    Aes256Gcm,
}

/// Whether this processor has instructions for AES-256-GCM.
#[must_use]
pub fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// The nonce that ends with a counter or with the end of a long nonce: four zero bytes before it.
#[must_use]
pub const fn nonce(end: [u8; 8]) -> [u8; NONCE_LENGTH] {
    let [a, b, c, d, e, f, g, h] = end;
    [0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

/// A key ready for use.
pub struct Key(Prepared);

impl Key {
    /// A key for ChaCha20-Poly1305.
    #[must_use]
    pub fn new(key: &[u8; KEY_LENGTH]) -> Self {
        Self::of(Cipher::ChaCha20Poly1305, key)
    }

    /// A key for the nonces of 24 bytes that begin with `prefix`; the 8 that follow go through
    /// [`nonce`]. No prefix may be used with both ciphers.
    #[must_use]
    pub fn extended(cipher: Cipher, key: &[u8; KEY_LENGTH], prefix: &[u8; PREFIX_LENGTH]) -> Self {
        let derived = hchacha::<R20>(key.into(), prefix.into());
        Self::of(cipher, &Zeroizing::new(<[u8; KEY_LENGTH]>::from(derived)))
    }

    /// A key for one of the ciphers.
    #[must_use]
    pub fn of(cipher: Cipher, key: &[u8; KEY_LENGTH]) -> Self {
        Self(Prepared::new(cipher, key))
    }

    /// Encrypts `text` in place and returns the tag over it and `data`. A nonce must never be used
    /// twice.
    #[must_use]
    pub fn seal(
        &self,
        nonce: [u8; NONCE_LENGTH],
        data: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_LENGTH] {
        self.0.seal(nonce, data, text)
    }

    /// Decrypts `sealed`, at whose end the tag stands, in place; the text is all before the tag.
    /// After an error the bytes are void.
    ///
    /// # Errors
    /// [`BadTag`], also if there is no room for a tag.
    pub fn open<'a>(
        &self,
        nonce: [u8; NONCE_LENGTH],
        data: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], BadTag> {
        self.0.open(nonce, data, sealed)
    }

    /// As [`open`](Self::open), but leaves `sealed` as it is and writes the text to `text`.
    ///
    /// # Errors
    /// [`BadTag`], also if `text` is not [`TAG_LENGTH`] bytes shorter than `sealed`.
    pub fn open_to(
        &self,
        nonce: [u8; NONCE_LENGTH],
        data: &[u8],
        sealed: &[u8],
        text: &mut [u8],
    ) -> Result<(), BadTag> {
        let (body, tag) = sealed.split_last_chunk::<TAG_LENGTH>().ok_or(BadTag)?;
        if body.len() != text.len() {
            return Err(BadTag);
        }
        self.0.open_to(nonce, data, (body, tag), text)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(secret)")
    }
}

//! Which library computes a cipher: the quickest on this processor.
//!
//! aws-lc-rs has AES-GCM for AVX-512, and else for 128 bits at a time; ring has it for 256. For all the rest they are about equal.

use aws_lc_rs::aead as aws_lc;
use ring::aead as ring_aead;

use crate::{BadTag, Cipher, KEY_LENGTH, NONCE_LENGTH, TAG_LENGTH};

const SHORT_ENOUGH: &str = "sealing fails only above 64 GiB";
const KEY_FITS: &str = "both ciphers have keys of 32 bytes";
const TAG_FITS: &str = "both ciphers have tags of 16 bytes";

/// Whether AES-GCM is quickest with 256 bits at a time: the processor has the instructions for that, but none for 512.
#[must_use]
pub fn has_aes_for_avx2_at_most() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("avx2")
        && !is_x86_feature_detected!("avx512bw");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    has
}

/// A key as a library wants it.
pub(crate) enum Prepared {
    AwsLc(aws_lc::LessSafeKey),
    Ring(RingKey),
}

impl Prepared {
    pub(crate) fn new(cipher: Cipher, key: &[u8; KEY_LENGTH]) -> Self {
        match cipher {
            Cipher::Aes256Gcm if has_aes_for_avx2_at_most() => Self::Ring(RingKey::new(key)),
            Cipher::Aes256Gcm => Self::with_aws_lc(&aws_lc::AES_256_GCM, key),
            Cipher::ChaCha20Poly1305 => Self::with_aws_lc(&aws_lc::CHACHA20_POLY1305, key),
        }
    }

    fn with_aws_lc(algorithm: &'static aws_lc::Algorithm, key: &[u8; KEY_LENGTH]) -> Self {
        let key = aws_lc::UnboundKey::new(algorithm, key).expect(KEY_FITS);
        Self::AwsLc(aws_lc::LessSafeKey::new(key))
    }

    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_LENGTH],
        data: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_LENGTH] {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let data = aws_lc::Aad::from(data);
                let tag = key.seal_in_place_separate_tag(nonce, data, text).expect(SHORT_ENOUGH);
                tag.as_ref().try_into().expect(TAG_FITS)
            }
            Self::Ring(RingKey(key)) => {
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce);
                let data = ring_aead::Aad::from(data);
                let tag = key.seal_in_place_separate_tag(nonce, data, text).expect(SHORT_ENOUGH);
                tag.as_ref().try_into().expect(TAG_FITS)
            }
        }
    }

    pub(crate) fn open<'a>(
        &self,
        nonce: [u8; NONCE_LENGTH],
        data: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], BadTag> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws_lc::Aad::from(data), sealed).map_err(|_| BadTag)
            }
            Self::Ring(RingKey(key)) => {
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring_aead::Aad::from(data), sealed).map_err(|_| BadTag)
            }
        }
    }

    /// `text` is as long as `body`.
    pub(crate) fn open_to(
        &self,
        nonce: [u8; NONCE_LENGTH],
        data: &[u8],
        (body, tag): (&[u8], &[u8; TAG_LENGTH]),
        text: &mut [u8],
    ) -> Result<(), BadTag> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let data = aws_lc::Aad::from(data);
                key.open_separate_gather(nonce, data, body, tag, text).map_err(|_| BadTag)
            }
            Self::Ring(RingKey(key)) => {
                text.copy_from_slice(body);
                let nonce = ring_aead::Nonce::assume_unique_for_key(nonce);
                let (data, tag) = (ring_aead::Aad::from(data), ring_aead::Tag::from(*tag));
                let opened = key.open_in_place_separate_tag(nonce, data, tag, text, 0..);
                opened.map(|_| ()).map_err(|_| BadTag)
            }
        }
    }
}

/// A key for AES-256-GCM that is overwritten before its memory is given back, which ring leaves to others.
pub(crate) struct RingKey(Box<ring_aead::LessSafeKey>);

impl RingKey {
    fn new(key: &[u8; KEY_LENGTH]) -> Self {
        let key = ring_aead::UnboundKey::new(&ring_aead::AES_256_GCM, key).expect(KEY_FITS);
        Self(Box::new(ring_aead::LessSafeKey::new(key)))
    }
}

impl Drop for RingKey {
    fn drop(&mut self) {
        let key = ring_aead::UnboundKey::new(&ring_aead::AES_256_GCM, &[0; KEY_LENGTH]);
        *self.0 = ring_aead::LessSafeKey::new(key.expect(KEY_FITS));
        std::hint::black_box(&mut *self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around the lengths at which either library goes from one way to another.
    const LENGTHS: [usize; 12] = [0, 1, 15, 16, 17, 127, 128, 255, 1_420, 4_096, 16_401, 65_535];

    #[test]
    fn both_libraries_seal_and_open_the_same() {
        let key = [7; KEY_LENGTH];
        let keys =
            [Prepared::with_aws_lc(&aws_lc::AES_256_GCM, &key), Prepared::Ring(RingKey::new(&key))];
        for (one, other) in [(0, 1), (1, 0)] {
            for length in LENGTHS {
                let plain: Vec<_> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
                let (mut sealed, mut opened) = (plain.clone(), vec![0; length]);
                let tag = keys[one].seal([9; NONCE_LENGTH], b"data", &mut sealed);
                let parts = (&sealed[..], &tag);
                let result = keys[other].open_to([9; NONCE_LENGTH], b"data", parts, &mut opened);
                assert_eq!((result, &opened), (Ok(()), &plain), "{length}");
                let parts = (&sealed[..], &[!tag[0]; TAG_LENGTH]);
                let result = keys[other].open_to([9; NONCE_LENGTH], b"data", parts, &mut opened);
                assert_eq!(result, Err(BadTag), "{length}");
                sealed.extend(tag);
                let opened = keys[other].open([9; NONCE_LENGTH], b"data", &mut sealed);
                assert_eq!(opened, Ok(&mut plain.clone()[..]), "{length}");
            }
        }
    }
}

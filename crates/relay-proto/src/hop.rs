//! Hop protection: makes every byte of a link look random and ties the header to its frame.
//!
//! ```text
//! data   sealed header 64 ‖ payload ‖ tag ‖ hop tag
//! other  sealed header 64 ‖ sealed (payload ‖ tag) ‖ body tag ‖ hop tag
//! ```
//!
//! Header and body are sealed with ChaCha20-Poly1305 under one key per direction. The nonce is
//! the part's number and the message's implicit counter; the header's additional data are the sixteen
//! bytes before the hop tag, so that a header belongs to its frame. A data payload is ciphertext
//! for a peer already and is not touched.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::wire::{HEADER, HOP_TAG, TAG, is_data};

const HEADER_PART: u32 = 0;
const BODY_PART: u32 = 1;

/// Seals the messages of one direction.
pub(crate) struct HopSealer(Half);

/// Opens the messages of one direction.
pub(crate) struct HopOpener(Half);

struct Half {
    key: LessSafeKey,
    counter: u64,
}

impl HopSealer {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Half::new(key))
    }

    /// Seals a frame in place; nothing if it is no frame.
    pub(crate) fn seal(&mut self, mut frame: Vec<u8>) -> Option<Vec<u8>> {
        if frame.len() < HEADER + TAG {
            return None;
        }
        let counter = self.0.advance();
        if !is_data(&frame) {
            let nonce = nonce(BODY_PART, counter);
            let body = &mut frame[HEADER..];
            let tag = self.0.key.seal_in_place_separate_tag(nonce, Aad::empty(), body).ok()?;
            frame.extend_from_slice(tag.as_ref());
        }
        let (header, body) = frame.split_at_mut(HEADER);
        let aad = Aad::from(&body[body.len() - TAG..]);
        let nonce = nonce(HEADER_PART, counter);
        let tag = self.0.key.seal_in_place_separate_tag(nonce, aad, header).ok()?;
        frame.extend_from_slice(tag.as_ref());
        Some(frame)
    }
}

impl HopOpener {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Half::new(key))
    }

    /// Opens a message in place; nothing if it does not authenticate.
    pub(crate) fn open(&mut self, mut message: Vec<u8>) -> Option<Vec<u8>> {
        let counter = self.0.advance();
        split_tag(&mut message, HEADER + TAG, |header_and_body, tag| {
            let (header, body) = header_and_body.split_at_mut(HEADER);
            let aad = Aad::from(&body[body.len() - TAG..]);
            let nonce = nonce(HEADER_PART, counter);
            let opened = self.0.key.open_in_place_separate_tag(nonce, aad, tag, header);
            opened.is_ok()
        })?;
        if is_data(&message) {
            return Some(message);
        }
        split_tag(&mut message, HEADER + TAG, |header_and_body, tag| {
            let body = &mut header_and_body[HEADER..];
            let nonce = nonce(BODY_PART, counter);
            let opened = self.0.key.open_in_place_separate_tag(nonce, Aad::empty(), tag, body);
            opened.is_ok()
        })?;
        Some(message)
    }
}

impl Half {
    fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has the right length");
        Self { key: LessSafeKey::new(key), counter: 0 }
    }

    fn advance(&mut self) -> u64 {
        let counter = self.counter;
        self.counter += 1;
        counter
    }
}

/// Takes the tag off the end and lets `open` use it on the rest, which must have `least` bytes.
fn split_tag(
    message: &mut Vec<u8>,
    least: usize,
    open: impl FnOnce(&mut [u8], &[u8]) -> bool,
) -> Option<()> {
    let length = message.len().checked_sub(HOP_TAG).filter(|length| *length >= least)?;
    let (rest, tag) = message.split_at_mut(length);
    if !open(rest, tag) {
        return None;
    }
    message.truncate(length);
    Some(())
}

fn nonce(part: u32, counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&part.to_be_bytes());
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn frames_come_out_as_they_went_in_and_only_in_order() {
        let (mut sealer, mut opener) = (HopSealer::new(&[1; 32]), HopOpener::new(&[1; 32]));
        let mut data = vec![7; 200];
        data[0] = 0x10;
        for frame in [data.clone(), wire::control(&[5; 40]), wire::marker(), data.clone()] {
            let sealed = sealer.seal(frame.clone()).unwrap();
            assert_ne!(sealed[..HEADER], frame[..HEADER]);
            assert_eq!(opener.open(sealed), Some(frame));
        }
        let first = sealer.seal(data.clone()).unwrap();
        let second = sealer.seal(data).unwrap();
        assert_eq!(opener.open(second), None);
        assert_eq!(opener.open(first), None);
    }

    #[test]
    fn a_header_does_not_fit_another_frames_payload() {
        let (mut sealer, mut opener) = (HopSealer::new(&[1; 32]), HopOpener::new(&[1; 32]));
        let mut data = vec![7; 200];
        data[0] = 0x10;
        let mut sealed = sealer.seal(data).unwrap();
        let tag_of_payload = 199;
        sealed[tag_of_payload] ^= 1;
        assert_eq!(opener.open(sealed), None);
    }
}

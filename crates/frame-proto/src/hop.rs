//! The outer layer: what one WebSocket connection adds, so that its messages look random.
//!
//! A message is a frame and a hop tag. Of a data frame the header alone is sealed, with the
//! frame's own tag as associated data, since the rest is random already; of all others the whole
//! frame is sealed. Which of the two it is, the receiver finds by trying: the nonces differ.
//!
//! A message may be longer than its frame. The frame's tag is then at its end all the same, so that the receiver finds
//! both tags before it knows any length, and between payload and tag is padding, which nobody looks at.

use ciphers::{BadTag, Key};
use identity::DeviceId;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{FrameError, FrameType, HEADER_LENGTH, Header, TAG_LENGTH, compose};

/// Bytes that a message has after the frame.
pub const HOP_TAG_LENGTH: usize = 16;

const SHORTEST_MESSAGE: usize = HEADER_LENGTH + TAG_LENGTH + HOP_TAG_LENGTH;

/// The secret of one direction of one connection, for the time between two markers.
#[derive(Clone, PartialEq, Eq)]
pub struct HopKey(Zeroizing<[u8; 32]>);

impl HopKey {
    /// Makes a new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut_slice());
        Self(secret)
    }

    /// Takes the 32 bytes that the other end sent.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// The 32 bytes, to send inside the channel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for HopKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HopKey(secret)")
    }
}

/// Why a message ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// The message was changed, repeated, left out or put in.
    #[error("a message of the connection was changed, repeated or left out")]
    BadTag,
    /// What was inside is no frame.
    #[error("the message holds no frame: {0}")]
    Frame(#[from] FrameError),
    /// The other end changes to a key that it did not send before.
    #[error("the other end changes to a key that it did not send")]
    NoNextKey,
}

struct Direction {
    key: Key,
    counter: u64,
}

impl Direction {
    fn new(key: &HopKey) -> Self {
        Self { key: Key::new(&key.0), counter: 0 }
    }

    /// The nonce of the next message: the first four bytes tell what it seals.
    fn nonce(&self, what: Sealed) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[3] = what as u8;
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        nonce
    }
}

/// What a nonce is for.
#[derive(Clone, Copy)]
enum Sealed {
    /// The header of a data frame.
    Data = 0,
    /// All of any other frame.
    Rest = 1,
    /// What fills a message with data up.
    Padding = 2,
}

/// Seals the messages of one direction of a connection, in their order.
pub struct HopSealer {
    direction: Direction,
}

impl HopSealer {
    /// Begins with `key`, which the other end must have.
    #[must_use]
    pub fn new(key: &HopKey) -> Self {
        Self { direction: Direction::new(key) }
    }

    /// Seals a message in place: `message` is a whole frame and 16 bytes for the hop tag. What it has beyond
    /// becomes padding.
    ///
    /// # Errors
    /// [`FrameError`] if there is no frame in `message`; nothing is sealed then.
    pub fn seal(&mut self, message: &mut [u8]) -> Result<(), FrameError> {
        let header = header_of(message)?;
        let is_data = header.kind == FrameType::Data;
        let end = message.len() - HOP_TAG_LENGTH;
        let (frame, hop_tag) = message.split_at_mut(end);
        self.pad(&header, frame);
        let sealed = if is_data {
            let (rest, frame_tag) = frame.split_at_mut(end - TAG_LENGTH);
            let nonce = self.direction.nonce(Sealed::Data);
            self.direction.key.seal(nonce, frame_tag, &mut rest[..HEADER_LENGTH])
        } else {
            self.direction.key.seal(self.direction.nonce(Sealed::Rest), &[], frame)
        };
        hop_tag.copy_from_slice(&sealed);
        self.direction.counter += 1;
        Ok(())
    }

    /// Moves the frame's tag to the end of `frame`, and makes what is then between payload and tag random where no
    /// sealing of the whole does.
    fn pad(&self, header: &Header, frame: &mut [u8]) {
        let (whole, end) = (header.frame_length(), frame.len());
        if whole == end {
            return;
        }
        frame.copy_within(whole - TAG_LENGTH..whole, end - TAG_LENGTH);
        let padding = &mut frame[whole - TAG_LENGTH..end - TAG_LENGTH];
        padding.fill(0);
        if header.kind == FrameType::Data {
            // The key stream is all that is wanted: a change of what nobody looks at does no harm.
            let _ = self.direction.key.seal(self.direction.nonce(Sealed::Padding), &[], padding);
        }
    }

    /// Changes to `next`, which was sent to the other end before; returns the marker, the last
    /// message under the old key, filled up to `length` bytes. `peer` is the other end.
    #[must_use]
    pub fn rotate(&mut self, next: &HopKey, peer: DeviceId, length: usize) -> Vec<u8> {
        let mut message = vec![0; SHORTEST_MESSAGE.max(length)];
        compose(FrameType::Marker, peer, &mut message[..HEADER_LENGTH + TAG_LENGTH])
            .and_then(|()| self.seal(&mut message))
            .expect("the message has room for a marker");
        self.direction = Direction::new(next);
        message
    }

    /// How many messages the key has sealed.
    #[must_use]
    pub const fn sealed(&self) -> u64 {
        self.direction.counter
    }
}

/// Opens the messages of one direction of a connection, in their order.
pub struct HopOpener {
    direction: Direction,
    next: Option<HopKey>,
}

impl HopOpener {
    /// Begins with `key`, which came from the other end.
    #[must_use]
    pub fn new(key: &HopKey) -> Self {
        Self { direction: Direction::new(key), next: None }
    }

    /// Takes note of the key that counts after the next marker.
    pub fn set_next(&mut self, next: HopKey) {
        self.next = Some(next);
    }

    /// Opens a message in place; it begins with the frame afterwards, whose length its header says. A marker changes
    /// the key.
    ///
    /// # Errors
    /// See [`HopError`]. After any of them the connection is to be closed.
    pub fn open(&mut self, message: &mut [u8]) -> Result<Header, HopError> {
        if message.len() < SHORTEST_MESSAGE {
            return Err(HopError::Frame(FrameError::Length));
        }
        let is_data = self.open_data(message);
        if !is_data {
            let nonce = self.direction.nonce(Sealed::Rest);
            self.direction.key.open(nonce, &[], message).map_err(|BadTag| HopError::BadTag)?;
        }
        self.direction.counter += 1;
        let header = header_of(message)?;
        let (whole, end) = (header.frame_length(), message.len() - HOP_TAG_LENGTH);
        message.copy_within(end - TAG_LENGTH..end, whole - TAG_LENGTH);
        if is_data != (header.kind == FrameType::Data) {
            return Err(HopError::BadTag);
        }
        if header.kind == FrameType::Marker {
            let next = self.next.take().ok_or(HopError::NoNextKey)?;
            self.direction = Direction::new(&next);
        }
        Ok(header)
    }

    /// Opens the header if the message is data; leaves the message as it is otherwise.
    fn open_data(&self, message: &mut [u8]) -> bool {
        let (rest, tags) = message.split_at_mut(message.len() - TAG_LENGTH - HOP_TAG_LENGTH);
        let (frame_tag, hop_tag) = tags.split_at(TAG_LENGTH);
        let mut sealed = [0; HEADER_LENGTH + HOP_TAG_LENGTH];
        sealed[..HEADER_LENGTH].copy_from_slice(&rest[..HEADER_LENGTH]);
        sealed[HEADER_LENGTH..].copy_from_slice(hop_tag);
        let nonce = self.direction.nonce(Sealed::Data);
        if self.direction.key.open(nonce, frame_tag, &mut sealed).is_err() {
            return false;
        }
        rest[..HEADER_LENGTH].copy_from_slice(&sealed[..HEADER_LENGTH]);
        true
    }
}

/// The header of the frame with which `message` begins, and behind which it has room for a hop tag at least.
fn header_of(message: &[u8]) -> Result<Header, FrameError> {
    let header = Header::decode(message.first_chunk().ok_or(FrameError::Length)?)?;
    if message.len() < header.frame_length() + HOP_TAG_LENGTH {
        return Err(FrameError::Length);
    }
    Ok(header)
}

impl std::fmt::Debug for HopSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HopSealer").field("sealed", &self.sealed()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for HopOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HopOpener").field("opened", &self.direction.counter).finish_non_exhaustive()
    }
}

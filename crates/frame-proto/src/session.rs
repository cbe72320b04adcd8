//! Sealing and opening under a session.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ciphers::{BadTag, Cipher, Key};
use identity::{DeviceId, NetworkId};
use zeroize::Zeroizing;

use crate::header::{NONCE_LENGTH, payload_length};
use crate::replay::ReplayWindow;
use crate::{
    FLAG_AES, FLAG_HELLO, FrameError, FrameType, HEADER_LENGTH, Header, STREAMS_KEPT, parse,
};

const LABEL: &[u8; 19] = b"shadowmesh frame v1";
const AAD_LENGTH: usize = LABEL.len() + 32 + 8 + 32 + 32;
/// A stream ends before its counter reaches this, so that the sequence names one frame only.
const COUNTER_LIMIT: u64 = 1 << 32;
/// What a key of AES-256-GCM seals at most, in bytes: 2^34 blocks (RFC 8446, section 5.5, allows 2^34.5).
const AES_LIMIT: u64 = 1 << 38;

/// Whose frames these are: what every tag also covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The network.
    pub network: NetworkId,
    /// This device.
    pub local: DeviceId,
    /// The peer.
    pub remote: DeviceId,
}

impl Ends {
    /// The associated data of a frame from `local` to `remote` that begins with `header`.
    pub(crate) fn sent(&self, header: &[u8; HEADER_LENGTH]) -> [u8; AAD_LENGTH] {
        associated_data(self.network, header, self.local, self.remote)
    }

    /// The associated data of a frame from `remote` to `local`.
    pub(crate) fn received(&self, header: &[u8; HEADER_LENGTH]) -> [u8; AAD_LENGTH] {
        associated_data(self.network, header, self.remote, self.local)
    }
}

fn associated_data(
    network: NetworkId,
    header: &[u8; HEADER_LENGTH],
    sender: DeviceId,
    receiver: DeviceId,
) -> [u8; AAD_LENGTH] {
    let mut data = [0; AAD_LENGTH];
    let mut rest = data.as_mut_slice();
    let parts: [&[u8]; 5] =
        [LABEL, network.as_bytes(), &header[..8], sender.as_bytes(), receiver.as_bytes()];
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
    data
}

/// The secrets of a session, one per direction, with the indices that name it.
pub struct FrameKeys {
    /// For frames to the peer.
    pub send: Zeroizing<[u8; 32]>,
    /// For frames from the peer.
    pub receive: Zeroizing<[u8; 32]>,
    /// The index that the peer gave the session.
    pub remote_index: u32,
    /// The index that this device gave the session.
    pub local_index: u32,
    /// Whether this device has AES in its processor; where the peer has too, frames are sealed with it.
    pub has_aes: bool,
}

impl std::fmt::Debug for FrameKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameKeys")
            .field("remote_index", &self.remote_index)
            .field("local_index", &self.local_index)
            .finish_non_exhaustive()
    }
}

impl FrameKeys {
    /// Makes the two halves that use the keys. To be called once per session: a second sending
    /// half would use the same nonces again.
    #[must_use]
    pub fn split(self, ends: Ends) -> (FrameStreams, FrameOpener) {
        let peer_has_aes = Arc::new(AtomicBool::new(false));
        let streams = FrameStreams {
            secret: self.send,
            index: self.remote_index,
            ends,
            has_aes: self.has_aes,
            peer_has_aes: Arc::clone(&peer_has_aes),
            next: AtomicU64::new(0),
        };
        let opener = FrameOpener {
            secret: self.receive,
            index: self.local_index,
            ends,
            peer_has_aes,
            streams: Mutex::new(BTreeMap::new()),
        };
        (streams, opener)
    }
}

/// The sending half of a session: gives each connection a stream of its own.
pub struct FrameStreams {
    secret: Zeroizing<[u8; 32]>,
    index: u32,
    ends: Ends,
    has_aes: bool,
    peer_has_aes: Arc<AtomicBool>,
    next: AtomicU64,
}

impl FrameStreams {
    /// Begins a stream, with a number above those before. The peer keeps the newest eight.
    #[must_use]
    pub fn begin(&self) -> FrameSealer {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let key = |cipher| {
            let prefix = nonce_prefix(self.index, cipher, number);
            (Key::extended(cipher, &self.secret, &prefix), prefix)
        };
        FrameSealer {
            chacha: key(Cipher::ChaCha20Poly1305),
            aes: self.has_aes.then(|| key(Cipher::Aes256Gcm)),
            ends: self.ends,
            peer_has_aes: Arc::clone(&self.peer_has_aes),
            next: AtomicU64::new(0),
            aes_sealed: AtomicU64::new(0),
        }
    }
}

impl std::fmt::Debug for FrameStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameStreams").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// Why a frame cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The buffer is no frame of this type.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream has come to its end: the session needs a rekey.
    #[error("the stream has come to its end")]
    Exhausted,
}

/// Seals the frames of one stream, from any number of threads.
#[derive(Debug)]
pub struct FrameSealer {
    /// The keys, and how nonces with them begin.
    chacha: (Key, [u8; 16]),
    aes: Option<(Key, [u8; 16])>,
    ends: Ends,
    peer_has_aes: Arc<AtomicBool>,
    next: AtomicU64,
    /// Bytes that went through the key of AES.
    aes_sealed: AtomicU64,
}

impl FrameSealer {
    /// Seals a frame in place: `frame` has the payload in its place, with 64 bytes before it, for
    /// the header, and 16 after it, for the tag. The header names the peer as receiver.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&self, kind: FrameType, flags: u8, frame: &mut [u8]) -> Result<(), SealError> {
        let length = payload_length(kind, frame)?;
        let counter = self.next_counter()?;
        let (key, prefix) = self.aes_for(frame.len()).unwrap_or(&self.chacha);
        let mut nonce = [0; NONCE_LENGTH];
        nonce[..16].copy_from_slice(prefix);
        nonce[16..].copy_from_slice(&counter.to_be_bytes());
        let offer = if self.aes.is_some() { FLAG_AES } else { 0 };
        let header = Header {
            kind,
            flags: flags & !(FLAG_HELLO | FLAG_AES) | offer,
            length,
            sequence: low_half(counter),
            peer: self.ends.remote,
            nonce,
        };
        let header = header.encode();
        let (head, rest) = frame.split_at_mut(HEADER_LENGTH);
        let (text, tag) = rest.split_at_mut(usize::from(length));
        head.copy_from_slice(&header);
        let nonce = ciphers::nonce(counter.to_be_bytes());
        let sealed = key.seal(nonce, &self.ends.sent(&header), text);
        tag.copy_from_slice(&sealed);
        Ok(())
    }

    /// The key of AES, where the peer has it too, for as much as it may seal.
    fn aes_for(&self, length: usize) -> Option<&(Key, [u8; 16])> {
        let aes = self.aes.as_ref().filter(|_| self.peer_has_aes.load(Ordering::Relaxed))?;
        // The tag covers the associated data as well.
        let bytes = u64::try_from(length + AAD_LENGTH).unwrap_or(u64::MAX);
        let before = self.aes_sealed.fetch_add(bytes, Ordering::Relaxed);
        (before < AES_LIMIT).then_some(aes)
    }

    fn next_counter(&self) -> Result<u64, SealError> {
        // Saturates far above the limit: it would take 2^63 refused calls to wrap.
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        if counter < COUNTER_LIMIT - 1 { Ok(counter) } else { Err(SealError::Exhausted) }
    }
}

/// Why a frame cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame belongs to another session, or to none.
    #[error("the frame is of another session")]
    WrongSession,
    /// The frame, or one with its number, was received before, or is too old to tell.
    #[error("the frame was received before, or is too old to tell")]
    Replayed,
    /// The frame was changed, or is not from this peer to this device.
    #[error("the tag of the frame does not verify")]
    BadTag,
}

/// Opens the frames of a session, of all its streams, from any number of threads.
pub struct FrameOpener {
    secret: Zeroizing<[u8; 32]>,
    index: u32,
    ends: Ends,
    /// What the peer says of itself, in frames that were opened.
    peer_has_aes: Arc<AtomicBool>,
    streams: Mutex<BTreeMap<u64, Stream>>,
}

struct Stream {
    /// The cipher of the last frame: a peer changes it when it learns what this device has, and when a key has sealed enough.
    cipher: Cipher,
    key: Arc<Key>,
    window: ReplayWindow,
}

impl FrameOpener {
    /// Opens a frame in place; its payload is plain afterwards. After an error the bytes are void.
    ///
    /// The peer in the header is not looked at, since relays change it: the session names it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, frame: &mut [u8]) -> Result<Header, OpenError> {
        let header = parse(frame)?;
        let (stream, counter) = (header.stream(), header.counter());
        let cipher = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm]
            .into_iter()
            .find(|cipher| header.nonce[..16] == nonce_prefix(self.index, *cipher, stream))
            .ok_or(OpenError::WrongSession)?;
        let proper =
            counter < COUNTER_LIMIT && low_half(counter) == header.sequence && !header.is_hello();
        if !proper {
            return Err(OpenError::WrongSession);
        }
        let key = self.key_for(stream, cipher, counter)?;
        let (head, text) =
            frame.split_first_chunk_mut::<HEADER_LENGTH>().ok_or(FrameError::Length)?;
        key.open(ciphers::nonce(counter.to_be_bytes()), &self.ends.received(head), text)
            .map_err(|BadTag| OpenError::BadTag)?;
        self.take_note(stream, counter, (cipher, key))?;
        if header.flags & FLAG_AES != 0 {
            self.peer_has_aes.store(true, Ordering::Relaxed);
        }
        Ok(header)
    }

    /// The key of the stream, if a frame with this counter may still come. A stream is remembered
    /// only once a frame of it was authenticated.
    fn key_for(&self, stream: u64, cipher: Cipher, counter: u64) -> Result<Arc<Key>, OpenError> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = streams.get(&stream) {
            if !known.window.may_receive(counter) {
                return Err(OpenError::Replayed);
            }
            if known.cipher == cipher {
                return Ok(Arc::clone(&known.key));
            }
        } else if streams.keys().next_back().is_some_and(|newest| is_below(stream, *newest)) {
            return Err(OpenError::Replayed);
        }
        drop(streams);
        let prefix = nonce_prefix(self.index, cipher, stream);
        Ok(Arc::new(Key::extended(cipher, &self.secret, &prefix)))
    }

    fn take_note(
        &self,
        stream: u64,
        counter: u64,
        (cipher, key): (Cipher, Arc<Key>),
    ) -> Result<(), OpenError> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = streams.keys().next_back().copied().unwrap_or(0).max(stream);
        if is_below(stream, newest) {
            return Err(OpenError::Replayed);
        }
        streams.retain(|known, _| !is_below(*known, newest));
        let window = ReplayWindow::new();
        let known = streams.entry(stream).or_insert_with(|| Stream {
            cipher,
            key: Arc::clone(&key),
            window,
        });
        if !known.window.receive(counter) {
            return Err(OpenError::Replayed);
        }
        if known.cipher != cipher {
            (known.cipher, known.key) = (cipher, key);
        }
        Ok(())
    }
}

impl std::fmt::Debug for FrameOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameOpener").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// Whether `stream` is below the newest eight that end with `newest`.
const fn is_below(stream: u64, newest: u64) -> bool {
    newest.saturating_sub(stream) >= STREAMS_KEPT
}

/// How nonces begin; also what makes the key of a stream, so that no key is used with both ciphers.
fn nonce_prefix(index: u32, cipher: Cipher, stream: u64) -> [u8; 16] {
    let number: u32 = match cipher {
        Cipher::ChaCha20Poly1305 => 0,
        Cipher::Aes256Gcm => 1,
    };
    let mut prefix = [0; 16];
    prefix[..4].copy_from_slice(&index.to_be_bytes());
    prefix[4..8].copy_from_slice(&number.to_be_bytes());
    prefix[8..].copy_from_slice(&stream.to_be_bytes());
    prefix
}

const fn low_half(counter: u64) -> u32 {
    (counter & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that talks to itself, and has AES.
    fn session() -> (FrameStreams, FrameOpener) {
        let device = DeviceId::from_bytes([1; 32]);
        let ends = Ends { network: NetworkId::from_bytes([1; 32]), local: device, remote: device };
        let (send, receive) = ([1; 32].into(), [1; 32].into());
        FrameKeys { send, receive, remote_index: 1, local_index: 1, has_aes: true }.split(ends)
    }

    #[test]
    fn a_stream_ends_before_its_sequence_comes_round() {
        let sealer = session().0.begin();
        sealer.next.store(COUNTER_LIMIT - 2, Ordering::Relaxed);
        let mut frame = [0; 80];
        assert_eq!(sealer.seal(FrameType::Data, 0, &mut frame), Ok(()));
        for _ in 0..2 {
            let refused = sealer.seal(FrameType::Data, 0, &mut frame);
            assert_eq!(refused, Err(SealError::Exhausted));
        }
    }

    #[test]
    fn a_key_of_aes_seals_no_more_than_it_may() {
        let (streams, opener) = session();
        let sealer = streams.begin();
        sealer.peer_has_aes.store(true, Ordering::Relaxed);
        let mut ciphers = Vec::new();
        for sealed in [0, AES_LIMIT - 1, AES_LIMIT] {
            sealer.aes_sealed.store(sealed, Ordering::Relaxed);
            let mut frame = [0; 80];
            assert_eq!(sealer.seal(FrameType::Data, 0, &mut frame), Ok(()));
            ciphers.push(frame[47]);
            assert!(opener.open(&mut frame).is_ok());
        }
        assert_eq!(ciphers, [1, 1, 0]);
    }
}

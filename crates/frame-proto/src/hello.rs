//! Sealing and opening before there is a session.

use aws_lc_rs::hkdf;
use ciphers::{BadTag, Cipher, Key, nonce};
use identity::{TunnelKey, TunnelPublicKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::header::{NONCE_LENGTH, payload_length};
use crate::{
    Ends, FLAG_HELLO, FrameError, FrameType, HEADER_LENGTH, Header, OpenError, parse, payload,
};

const LABEL: &[u8] = b"shadowmesh hello v1";

/// Bytes at the beginning of an introduction's payload: the sender's tunnel key.
pub const INTRODUCED_KEY_LENGTH: usize = 32;

/// The tunnel key that an introduction is sealed with, by its own word; nothing if the bytes are
/// no introduction.
#[must_use]
pub fn introduced_key(frame: &[u8]) -> Option<TunnelPublicKey> {
    let header = parse(frame).ok()?;
    let named = header.is_hello() && header.kind == FrameType::Introduce;
    let key = payload(frame).first_chunk::<INTRODUCED_KEY_LENGTH>().filter(|_| named)?;
    Some(TunnelPublicKey::from_bytes(*key))
}

const fn plain_length(kind: FrameType) -> usize {
    match kind {
        FrameType::Introduce => INTRODUCED_KEY_LENGTH,
        FrameType::Data
        | FrameType::Handshake
        | FrameType::Disco
        | FrameType::Control
        | FrameType::Marker
        | FrameType::Carried
        | FrameType::Mesh
        | FrameType::Dummy
        | FrameType::Bundle => 0,
    }
}

/// The key that two devices share by their static keys alone.
///
/// It authenticates both and hides from relays, but has no forward secrecy and no memory of what
/// was received: what it carries (WireGuard handshakes, disco, introductions) brings its own.
pub struct HelloKey {
    secret: Zeroizing<[u8; 32]>,
    ends: Ends,
    ours: TunnelPublicKey,
    theirs: TunnelPublicKey,
}

impl HelloKey {
    /// Derives the key; nothing if `theirs` is no proper public key.
    #[must_use]
    pub fn new(ends: Ends, ours: &TunnelKey, theirs: &TunnelPublicKey) -> Option<Self> {
        let shared = ours.agree(theirs)?;
        let (first, second) = order(ours.public(), *theirs);
        let info = [ends.network.as_bytes().as_slice(), first.as_bytes(), second.as_bytes()];
        let mut secret = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, LABEL)
            .extract(shared.as_slice())
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(secret.as_mut_slice()))
            .expect("32 bytes are within what HKDF-SHA256 gives");
        Some(Self { secret, ends, ours: ours.public(), theirs: *theirs })
    }

    /// Seals a frame in place, with a random nonce; the buffer is as for
    /// [`FrameSealer::seal`](crate::FrameSealer::seal).
    ///
    /// An introduction has [`INTRODUCED_KEY_LENGTH`] bytes of room before its text, for our own
    /// public key, which stays in plain: who gets it may know an older one only.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn seal(
        &self,
        kind: FrameType,
        frame: &mut [u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(), FrameError> {
        let length = payload_length(kind, frame)?;
        let mut nonce = [0; NONCE_LENGTH];
        rng.fill_bytes(&mut nonce);
        let peer = self.ends.remote;
        let header = Header { kind, flags: FLAG_HELLO, length, sequence: 0, peer, nonce }.encode();
        let (head, rest) = frame.split_at_mut(HEADER_LENGTH);
        let (text, tag) = rest.split_at_mut(usize::from(length));
        let (named, text) =
            text.split_at_mut_checked(plain_length(kind)).ok_or(FrameError::Length)?;
        named.copy_from_slice(&self.ours.as_bytes()[..named.len()]);
        head.copy_from_slice(&header);
        let (key, nonce) = self.cipher(&nonce);
        tag.copy_from_slice(&key.seal(nonce, &self.ends.sent(&header), text));
        Ok(())
    }

    /// Opens a frame in place; its payload is plain afterwards. After an error the bytes are void.
    ///
    /// # Errors
    /// [`OpenError::WrongSession`] if the frame is not sealed with a hello key, or is data, which
    /// needs a session; see there for the others.
    pub fn open(&self, frame: &mut [u8]) -> Result<Header, OpenError> {
        let header = parse(frame)?;
        if !header.is_hello() || header.kind == FrameType::Data {
            return Err(OpenError::WrongSession);
        }
        let (head, text) =
            frame.split_first_chunk_mut::<HEADER_LENGTH>().ok_or(FrameError::Length)?;
        let (named, text) =
            text.split_at_mut_checked(plain_length(header.kind)).ok_or(FrameError::Length)?;
        if *named != self.theirs.as_bytes()[..named.len()] {
            return Err(OpenError::BadTag);
        }
        let (key, nonce) = self.cipher(&header.nonce);
        key.open(nonce, &self.ends.received(head), text).map_err(|BadTag| OpenError::BadTag)?;
        Ok(header)
    }

    fn cipher(&self, long: &[u8; NONCE_LENGTH]) -> (Key, [u8; 12]) {
        let (prefix, end) = long.split_first_chunk().expect("a nonce is longer than 16 bytes");
        let end = end.try_into().expect("a nonce has 24 bytes");
        (Key::extended(Cipher::ChaCha20Poly1305, &self.secret, prefix), nonce(end))
    }
}

impl std::fmt::Debug for HelloKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HelloKey").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// The same order at both ends.
fn order(a: TunnelPublicKey, b: TunnelPublicKey) -> (TunnelPublicKey, TunnelPublicKey) {
    if a <= b { (a, b) } else { (b, a) }
}

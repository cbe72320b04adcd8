//! Noise_IKpsk2 as sections 5.4.2 to 5.4.5 of the paper lay it out.

use ciphers::Key;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::message::{INITIATION_LEN, RESPONSE_LEN, at, bytes, read_u32};
use crate::primitives::{Secret, TAG_LEN, hash, kdf1, kdf2, kdf3, nonce, seal};
use crate::timestamp::Tai64N;

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const FRAME_LABEL: &[u8] = b"shadowmesh frame v1";

/// An interface's own static key pair.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) private: PrivateKey,
    pub(crate) public: PublicKey,
}

impl Identity {
    pub(crate) fn new(private: PrivateKey) -> Self {
        let public = private.public_key();
        Self { private, public }
    }
}

/// What the initiator keeps between sending the initiation and the response.
#[derive(Clone)]
pub(crate) struct PendingInitiation {
    chain: Secret,
    transcript: [u8; 32],
    ephemeral: PrivateKey,
}

/// An initiation whose sender proved to know a static key, before the response.
pub(crate) struct OpenedInitiation {
    chain: Secret,
    transcript: [u8; 32],
    ephemeral: PublicKey,
    static_sealed: [u8; 48],
    /// The initiator's static key.
    pub(crate) peer: PublicKey,
    /// The initiator's index, the receiver index of what we send.
    pub(crate) sender_index: u32,
}

/// An initiation that is proved to come from the peer and carries its timestamp.
pub(crate) struct ProvedInitiation {
    chain: Secret,
    transcript: [u8; 32],
    ephemeral: PublicKey,
    peer: PublicKey,
    pub(crate) sender_index: u32,
    pub(crate) timestamp: Tai64N,
}

/// Keys of a finished handshake, as one end sees them.
pub(crate) struct SessionKeys {
    pub(crate) send: Secret,
    pub(crate) receive: Secret,
    pub(crate) frame_send: Secret,
    pub(crate) frame_receive: Secret,
}

/// Writes an initiation without its two MACs.
///
/// `None` when the peer's static key is a point of low order.
pub(crate) fn initiate(
    identity: &Identity,
    peer: &PublicKey,
    sender_index: u32,
    timestamp: Tai64N,
    rng: &mut dyn CryptoRng,
) -> Option<([u8; INITIATION_LEN], PendingInitiation)> {
    let mut message = [0; INITIATION_LEN];
    message[0] = 1;
    message[at::INDEX..at::INDEX + 4].copy_from_slice(&sender_index.to_le_bytes());
    let (chain, transcript) = start(peer);

    let ephemeral = PrivateKey::generate(rng);
    let ephemeral_public = ephemeral.public_key();
    message[at::INITIATION_EPHEMERAL..at::INITIATION_STATIC]
        .copy_from_slice(ephemeral_public.as_bytes());
    let transcript = hash(&[&transcript, ephemeral_public.as_bytes()]);
    let chain = kdf1(&chain, ephemeral_public.as_bytes());

    let (chain, key) = kdf2(&chain, &*ephemeral.agree(peer)?);
    let sealed_static = &mut message[at::INITIATION_STATIC..at::INITIATION_TIMESTAMP];
    sealed_static[..32].copy_from_slice(identity.public.as_bytes());
    seal(&Key::new(&key), nonce(0), &transcript, sealed_static);
    let transcript = hash(&[&transcript, sealed_static]);

    let (chain, key) = kdf2(&chain, &*identity.private.agree(peer)?);
    let sealed_time = &mut message[at::INITIATION_TIMESTAMP..at::INITIATION_MAC1];
    sealed_time[..12].copy_from_slice(timestamp.as_bytes());
    seal(&Key::new(&key), nonce(0), &transcript, sealed_time);
    let transcript = hash(&[&transcript, sealed_time]);

    Some((message, PendingInitiation { chain, transcript, ephemeral }))
}

/// Opens an initiation as far as the sender's static key: one Diffie-Hellman.
pub(crate) fn open_initiation(
    identity: &Identity,
    message: &[u8; INITIATION_LEN],
) -> Option<OpenedInitiation> {
    let (chain, transcript) = start(&identity.public);
    let ephemeral = PublicKey::from_bytes(bytes(message, at::INITIATION_EPHEMERAL));
    let transcript = hash(&[&transcript, ephemeral.as_bytes()]);
    let chain = kdf1(&chain, ephemeral.as_bytes());
    let (chain, key) = kdf2(&chain, &*identity.private.agree(&ephemeral)?);
    let static_sealed: [u8; 48] = bytes(message, at::INITIATION_STATIC);
    let mut opened = static_sealed;
    let text = Key::new(&key).open(nonce(0), &transcript, &mut opened).ok()?;
    let peer = PublicKey::from_bytes(bytes(text, 0));
    Some(OpenedInitiation {
        chain,
        transcript,
        ephemeral,
        static_sealed,
        peer,
        sender_index: read_u32(message, at::INDEX),
    })
}

/// Checks that an opened initiation was made with the peer's private key: one Diffie-Hellman.
pub(crate) fn prove_initiation(
    identity: &Identity,
    opened: OpenedInitiation,
    message: &[u8; INITIATION_LEN],
) -> Option<ProvedInitiation> {
    let transcript = hash(&[&opened.transcript, &opened.static_sealed]);
    let (chain, key) = kdf2(&opened.chain, &*identity.private.agree(&opened.peer)?);
    let sealed: [u8; 12 + TAG_LEN] = bytes(message, at::INITIATION_TIMESTAMP);
    let mut text = sealed;
    let text = Key::new(&key).open(nonce(0), &transcript, &mut text).ok()?;
    let timestamp = Tai64N::from_bytes(bytes(text, 0));
    Some(ProvedInitiation {
        chain,
        transcript: hash(&[&transcript, &sealed]),
        ephemeral: opened.ephemeral,
        peer: opened.peer,
        sender_index: opened.sender_index,
        timestamp,
    })
}

/// Writes the response to a proved initiation, without its MACs, and derives the session's keys.
pub(crate) fn respond(
    initiation: &ProvedInitiation,
    preshared: &PresharedKey,
    sender_index: u32,
    rng: &mut dyn CryptoRng,
) -> Option<([u8; RESPONSE_LEN], SessionKeys)> {
    let mut message = [0; RESPONSE_LEN];
    message[0] = 2;
    message[at::INDEX..at::INDEX + 4].copy_from_slice(&sender_index.to_le_bytes());
    message[at::RESPONSE_RECEIVER..at::RESPONSE_EPHEMERAL]
        .copy_from_slice(&initiation.sender_index.to_le_bytes());

    let ephemeral = PrivateKey::generate(rng);
    let ephemeral_public = ephemeral.public_key();
    message[at::RESPONSE_EPHEMERAL..at::RESPONSE_EMPTY]
        .copy_from_slice(ephemeral_public.as_bytes());
    let transcript = hash(&[&initiation.transcript, ephemeral_public.as_bytes()]);
    let chain = kdf1(&initiation.chain, ephemeral_public.as_bytes());
    let chain = kdf1(&chain, &*ephemeral.agree(&initiation.ephemeral)?);
    let chain = kdf1(&chain, &*ephemeral.agree(&initiation.peer)?);
    let (chain, tau, key) = kdf3(&chain, preshared.as_bytes());
    let transcript = hash(&[&transcript, &*tau]);
    let empty = &mut message[at::RESPONSE_EMPTY..at::RESPONSE_MAC1];
    seal(&Key::new(&key), nonce(0), &transcript, empty);
    Some((message, SessionKeys::derive(&chain, Role::Responder)))
}

/// Finishes a pending initiation with a response, trying each preshared key in order.
pub(crate) fn finish(
    identity: &Identity,
    pending: &PendingInitiation,
    candidates: &[PresharedKey],
    message: &[u8; RESPONSE_LEN],
) -> Option<SessionKeys> {
    let ephemeral = PublicKey::from_bytes(bytes(message, at::RESPONSE_EPHEMERAL));
    let transcript = hash(&[&pending.transcript, ephemeral.as_bytes()]);
    let chain = kdf1(&pending.chain, ephemeral.as_bytes());
    let chain = kdf1(&chain, &*pending.ephemeral.agree(&ephemeral)?);
    let chain = kdf1(&chain, &*identity.private.agree(&ephemeral)?);
    candidates.iter().find_map(|preshared| {
        let (chain, tau, key) = kdf3(&chain, preshared.as_bytes());
        let transcript = hash(&[&transcript, &*tau]);
        let mut empty: [u8; TAG_LEN] = bytes(message, at::RESPONSE_EMPTY);
        Key::new(&key).open(nonce(0), &transcript, &mut empty).ok()?;
        Some(SessionKeys::derive(&chain, Role::Initiator))
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

impl SessionKeys {
    /// Both pairs of keys from the final chaining key, which the caller then drops.
    fn derive(chain: &Secret, role: Role) -> Self {
        let (forth, back) = kdf2(chain, &[]);
        let (frame_forth, frame_back) = kdf2(chain, FRAME_LABEL);
        match role {
            Role::Initiator => Self {
                send: forth,
                receive: back,
                frame_send: frame_forth,
                frame_receive: frame_back,
            },
            Role::Responder => Self {
                send: back,
                receive: forth,
                frame_send: frame_back,
                frame_receive: frame_forth,
            },
        }
    }
}

/// The chaining key and transcript before the first message to `responder`.
fn start(responder: &PublicKey) -> (Secret, [u8; 32]) {
    let chain = hash(&[CONSTRUCTION]);
    let transcript = hash(&[&chain, IDENTIFIER]);
    (Zeroizing::new(chain), hash(&[&transcript, responder.as_bytes()]))
}

//! The two handshake messages and what they carry.
//!
//! ```text
//! message 1  masked e 32 ‖ sealed s 48 ‖ sealed hello
//! message 2  salt 16 ‖ masked e 32 ‖ sealed hello
//! hello      verdict 1 ‖ capability 2 ‖ wall time in ms 8 ‖ padding (ignored)
//! ```

use rand_core::CryptoRng;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::limits::{HANDSHAKE_PADDING, MAX_HANDSHAKE_MESSAGE};
use crate::primitives::Primitives;
use crate::{ChannelError, ConnectionMask, StaticSecret, UnixMillis};

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
const EPHEMERAL: usize = 32;
const SALT: usize = 16;

/// The initiator's side of a handshake whose responder is known.
pub(crate) fn initiator(
    static_key: &StaticSecret,
    remote_static: &[u8; 32],
    prologue: &[u8],
    rng: &mut dyn CryptoRng,
) -> Result<HandshakeState, ChannelError> {
    builder(rng)
        .prologue(prologue)
        .and_then(|builder| builder.local_private_key(static_key.as_bytes()))
        .and_then(|builder| builder.remote_public_key(remote_static))
        .and_then(Builder::build_initiator)
        .map_err(|_| ChannelError::UnusableKey)
}

/// The responder's side of a handshake.
pub(crate) fn responder(
    static_key: &StaticSecret,
    prologue: &[u8],
    rng: &mut dyn CryptoRng,
) -> Result<HandshakeState, ChannelError> {
    builder(rng)
        .prologue(prologue)
        .and_then(|builder| builder.local_private_key(static_key.as_bytes()))
        .and_then(Builder::build_responder)
        .map_err(|_| ChannelError::UnusableKey)
}

/// Runs the next write step of a handshake.
pub(crate) fn write(
    handshake: &mut HandshakeState,
    payload: &[u8],
) -> Result<Vec<u8>, ChannelError> {
    let mut message = vec![0; MAX_HANDSHAKE_MESSAGE];
    let length = handshake
        .write_message(payload, &mut message)
        .map_err(|_| ChannelError::HandshakeRejected)?;
    message.truncate(length);
    Ok(message)
}

/// Runs the next read step of a handshake.
pub(crate) fn read(
    handshake: &mut HandshakeState,
    message: &[u8],
) -> Result<Vec<u8>, ChannelError> {
    if message.len() > MAX_HANDSHAKE_MESSAGE {
        return Err(ChannelError::HandshakeRejected);
    }
    let mut payload = vec![0; MAX_HANDSHAKE_MESSAGE];
    let length = handshake
        .read_message(message, &mut payload)
        .map_err(|_| ChannelError::HandshakeRejected)?;
    payload.truncate(length);
    Ok(payload)
}

/// The static key that the other side proved.
pub(crate) fn remote_static(handshake: &HandshakeState) -> Result<[u8; 32], ChannelError> {
    handshake
        .get_remote_static()
        .and_then(|key| key.try_into().ok())
        .ok_or(ChannelError::HandshakeMalformed)
}

/// Message 1 as it goes onto the wire.
pub(crate) fn mask_first(mask: &ConnectionMask, mut message: Vec<u8>) -> Vec<u8> {
    if let Some(ephemeral) = message.first_chunk_mut::<EPHEMERAL>() {
        mask.apply_initiator(ephemeral);
    }
    message
}

/// Message 1 as the peer made it, and its ephemeral key.
pub(crate) fn unmask_first(
    mask: &ConnectionMask,
    wire: &[u8],
) -> Result<(Vec<u8>, [u8; EPHEMERAL]), ChannelError> {
    if wire.len() > MAX_HANDSHAKE_MESSAGE {
        return Err(ChannelError::HandshakeRejected);
    }
    let mut message = wire.to_vec();
    let ephemeral =
        message.first_chunk_mut::<EPHEMERAL>().ok_or(ChannelError::HandshakeRejected)?;
    mask.apply_initiator(ephemeral);
    let ephemeral = *ephemeral;
    Ok((message, ephemeral))
}

/// Message 2 as it goes onto the wire.
pub(crate) fn mask_second(
    mask: &ConnectionMask,
    mut message: Vec<u8>,
    rng: &mut dyn CryptoRng,
) -> Vec<u8> {
    let mut salt = [0; SALT];
    rng.fill_bytes(&mut salt);
    if let Some(ephemeral) = message.first_chunk_mut::<EPHEMERAL>() {
        mask.apply_responder(&salt, ephemeral);
    }
    [salt.as_slice(), &message].concat()
}

/// Message 2 as the peer made it.
pub(crate) fn unmask_second(mask: &ConnectionMask, wire: &[u8]) -> Result<Vec<u8>, ChannelError> {
    let (salt, rest) = wire.split_first_chunk::<SALT>().ok_or(ChannelError::HandshakeRejected)?;
    if rest.len() > MAX_HANDSHAKE_MESSAGE {
        return Err(ChannelError::HandshakeRejected);
    }
    let mut message = rest.to_vec();
    let ephemeral =
        message.first_chunk_mut::<EPHEMERAL>().ok_or(ChannelError::HandshakeRejected)?;
    mask.apply_responder(salt, ephemeral);
    Ok(message)
}

/// What the sender of a hello says about going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proceed = 1,
    ClockSkew = 2,
}

/// The payload of a handshake message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) verdict: Verdict,
    pub(crate) capability: u16,
    pub(crate) wall: UnixMillis,
}

impl Hello {
    const FIELDS: usize = 11;

    /// The fields, followed by padding of random length.
    pub(crate) fn encode(self, rng: &mut dyn CryptoRng) -> Vec<u8> {
        let mut length = [0];
        rng.fill_bytes(&mut length);
        let mut bytes = vec![self.verdict as u8];
        bytes.extend(self.capability.to_be_bytes());
        bytes.extend(self.wall.0.to_be_bytes());
        bytes.resize(Self::FIELDS + usize::from(length[0] % HANDSHAKE_PADDING), 0);
        bytes
    }

    /// The fields; whatever follows them is ignored.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ChannelError> {
        let fields =
            bytes.first_chunk::<{ Self::FIELDS }>().ok_or(ChannelError::HandshakeMalformed)?;
        let [verdict, c0, c1, wall @ ..] = *fields;
        let verdict = match verdict {
            1 => Verdict::Proceed,
            2 => Verdict::ClockSkew,
            _ => return Err(ChannelError::HandshakeMalformed),
        };
        Ok(Self {
            verdict,
            capability: u16::from_be_bytes([c0, c1]),
            wall: UnixMillis(u64::from_be_bytes(wall)),
        })
    }
}

fn builder<'keys>(rng: &mut dyn CryptoRng) -> Builder<'keys> {
    let mut ephemeral = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *ephemeral);
    let params = PATTERN.parse().expect("the name of the pattern is a constant");
    Builder::with_resolver(params, Box::new(Primitives::with_ephemeral(ephemeral)))
}

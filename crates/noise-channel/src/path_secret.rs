//! Recognising and masking connections with a secret that the invite carries.

use std::fmt;

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

const PREFIX: &str = "/api/v1/ws/";
const NONCE: usize = 16;
const TAG: usize = 16;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Node or relay to controller.
    Control,
    /// Node to relay.
    Relay,
}

impl Service {
    /// The name that goes into tokens, masks and the Noise prologue.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Relay => "relay",
        }
    }
}

/// The secret that lets a network's members open connections that nobody else can tell from noise.
///
/// It hides; it does not authenticate. Whoever holds it can find the service, not join the network.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PathSecret([u8; 32]);

impl PathSecret {
    /// The secret from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret's bytes, to be stored or put into an invite.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The request path for a connection; `nonce` must be fresh and random for each one.
    #[must_use]
    pub fn path(&self, service: Service, nonce: [u8; NONCE]) -> String {
        let mut token = [0; NONCE + TAG];
        token[..NONCE].copy_from_slice(&nonce);
        token[NONCE..].copy_from_slice(&self.tag(service, &nonce));
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&token))
    }

    /// The mask of the connection that is opened on [`Self::path`] with the same nonce.
    #[must_use]
    pub fn mask(&self, service: Service, nonce: [u8; NONCE]) -> ConnectionMask {
        ConnectionMask { service, key: self.derive("mask", service, &nonce) }
    }

    /// The mask of a connection whose path was made with this secret for this service.
    ///
    /// Takes the same time for every well-formed path.
    #[must_use]
    pub fn recognise(&self, service: Service, path: &str) -> Option<ConnectionMask> {
        let token = path.strip_prefix(PREFIX)?;
        let token = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        let token: [u8; NONCE + TAG] = token.try_into().ok()?;
        let (nonce, tag) = token.split_first_chunk::<NONCE>()?;
        bool::from(self.tag(service, nonce).ct_eq(tag)).then(|| self.mask(service, *nonce))
    }

    fn tag(&self, service: Service, nonce: &[u8; NONCE]) -> [u8; TAG] {
        let mut tag = [0; TAG];
        tag.copy_from_slice(&self.derive("path", service, nonce)[..TAG]);
        tag
    }

    fn derive(&self, purpose: &str, service: Service, nonce: &[u8; NONCE]) -> [u8; 32] {
        keyed_hash(
            &self.0,
            &[
                b"shadowmesh ",
                purpose.as_bytes(),
                b" v1",
                &[0],
                service.label().as_bytes(),
                &[0],
                nonce,
            ],
        )
    }
}

impl fmt::Debug for PathSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PathSecret(..)")
    }
}

/// Hides the ephemeral keys of one connection.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ConnectionMask {
    #[zeroize(skip)]
    service: Service,
    key: [u8; 32],
}

impl ConnectionMask {
    /// What the connection is for.
    #[must_use]
    pub const fn service(&self) -> Service {
        self.service
    }

    /// Masks or unmasks the initiator's ephemeral key; the path's nonce makes the stream unique.
    pub(crate) fn apply_initiator(&self, ephemeral: &mut [u8; 32]) {
        self.apply(b"initiator", &[], ephemeral);
    }

    /// Masks or unmasks the responder's ephemeral key. The salt keeps the stream unique when a
    /// replayed first message is answered again on the same path.
    pub(crate) fn apply_responder(&self, salt: &[u8; 16], ephemeral: &mut [u8; 32]) {
        self.apply(b"responder", salt, ephemeral);
    }

    fn apply(&self, role: &[u8], salt: &[u8], ephemeral: &mut [u8; 32]) {
        let stream = keyed_hash(&self.key, &[role, salt]);
        for (byte, mask) in ephemeral.iter_mut().zip(stream) {
            *byte ^= mask;
        }
    }
}

impl fmt::Debug for ConnectionMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionMask(..)")
    }
}

fn keyed_hash(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Blake2sMac256::new(key.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize_fixed().into()
}

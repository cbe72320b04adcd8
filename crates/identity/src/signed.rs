//! The one envelope for everything that is signed.

use std::marker::PhantomData;

use coset::{CborSerializable, CoseSign1Builder, HeaderBuilder, iana};
use minicbor::{Decode, Encode};

use crate::key::sign_bytes;
use crate::{NetworkId, Signer, SignerId, StatementHash};

/// Something that a key can say about a network.
///
/// The purpose is part of what is signed, so that no statement passes for one of another kind.
pub trait Statement: Encode<()> + for<'b> Decode<'b, ()> {
    /// The kind of statement, unique among all kinds: lower-case words with hyphens.
    const PURPOSE: &'static str;

    /// The largest envelope of this kind that is looked at, in bytes.
    const MAX_SIZE: usize = 1024;
}

/// A signed statement whose bytes have not been believed yet.
///
/// The envelope is a COSE_Sign1 (RFC 9052 section 4.2) with EdDSA over Ed25519, in its one
/// deterministic encoding: any other encoding of the same content is refused. The external data
/// are the CBOR array of the context `shadowmesh/<purpose>/v1`, the [`NetworkId`] and the
/// purpose. The bytes are kept as they came, so that hashes and copies stay exact.
pub struct Signed<T> {
    bytes: Box<[u8]>,
    statement: PhantomData<fn() -> T>,
}

/// Why a signed statement is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The envelope is larger than this kind may be.
    #[error("larger than a statement of its kind may be")]
    TooLarge,
    /// The envelope is no deterministic COSE_Sign1, or its payload is not of this kind.
    #[error("not a well-formed signed statement")]
    Malformed,
    /// The signature is not by the expected key, for this network and purpose, over these bytes.
    #[error("the signature does not verify")]
    BadSignature,
}

impl<T: Statement> Signed<T> {
    /// Signs `statement` for `network`.
    #[must_use]
    pub fn sign(network: NetworkId, key: &impl Signer, statement: &T) -> Self {
        let payload = minicbor::to_vec(statement).expect("writing to memory cannot fail");
        let envelope = builder(payload)
            .create_signature(&external_data::<T>(network), |bytes| sign_bytes(key, bytes).into())
            .build();
        let bytes = envelope.to_vec().expect("the envelope holds only byte strings and one header");
        Self { bytes: bytes.into(), statement: PhantomData }
    }

    /// Takes an envelope as received, without believing it.
    ///
    /// # Errors
    /// [`SignatureError::TooLarge`] above [`Statement::MAX_SIZE`].
    pub fn from_bytes(bytes: impl Into<Box<[u8]>>) -> Result<Self, SignatureError> {
        let bytes = bytes.into();
        if bytes.len() > T::MAX_SIZE {
            return Err(SignatureError::TooLarge);
        }
        Ok(Self { bytes, statement: PhantomData })
    }

    /// Returns the statement if `signer` made it for `network`.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn verify(
        &self,
        network: NetworkId,
        signer: impl Into<SignerId>,
    ) -> Result<T, SignatureError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(signer.into().as_bytes())
            .map_err(|_| SignatureError::BadSignature)?;
        let envelope = self.open()?;
        envelope
            .verify_signature(&external_data::<T>(network), |signature, bytes| {
                let signature = ed25519_dalek::Signature::from_slice(signature)?;
                key.verify_strict(bytes, &signature)
            })
            .map_err(|_| SignatureError::BadSignature)?;
        decode(&envelope)
    }

    /// What the statement claims, before its signature is checked: to find out whose it would be.
    pub(crate) fn peek(&self) -> Result<T, SignatureError> {
        decode(&self.open()?)
    }

    fn open(&self) -> Result<coset::CoseSign1, SignatureError> {
        let envelope =
            coset::CoseSign1::from_slice(&self.bytes).map_err(|_| SignatureError::Malformed)?;
        let payload = envelope.payload.clone().ok_or(SignatureError::Malformed)?;
        let canonical = builder(payload).signature(envelope.signature.clone()).build();
        if canonical.to_vec().ok().as_deref() != Some(&self.bytes) {
            return Err(SignatureError::Malformed);
        }
        Ok(envelope)
    }
}

fn builder(payload: Vec<u8>) -> CoseSign1Builder {
    let header = HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA).build();
    CoseSign1Builder::new().protected(header).payload(payload)
}

fn decode<T: Statement>(envelope: &coset::CoseSign1) -> Result<T, SignatureError> {
    let payload = envelope.payload.as_deref().ok_or(SignatureError::Malformed)?;
    let mut decoder = minicbor::Decoder::new(payload);
    let statement = decoder.decode().map_err(|_| SignatureError::Malformed)?;
    if decoder.position() != payload.len() {
        return Err(SignatureError::Malformed);
    }
    Ok(statement)
}

fn external_data<T: Statement>(network: NetworkId) -> Vec<u8> {
    let context = format!("shadowmesh/{}/v1", T::PURPOSE);
    minicbor::to_vec((context, network, T::PURPOSE)).expect("writing to memory cannot fail")
}

impl<T> Signed<T> {
    /// The envelope as signed or received.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The name of exactly this envelope.
    #[must_use]
    pub fn hash(&self) -> StatementHash {
        StatementHash::from_bytes(crate::encoding::sha256(&[&self.bytes]))
    }
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), statement: PhantomData }
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> Eq for Signed<T> {}

impl<T> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
        write!(f, "Signed<{kind}>({} bytes)", self.bytes.len())
    }
}

impl<C, T> Encode<C> for Signed<T> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.bytes)?.ok()
    }
}

impl<'b, C, T: Statement> Decode<'b, C> for Signed<T> {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::from_bytes(d.bytes()?)
            .map_err(|_| minicbor::decode::Error::message("a signed statement is too large"))
    }
}

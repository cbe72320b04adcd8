//! Numbered records, and the memory that refuses to go back.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::encoding::sha256;
use crate::{
    Authorities, DelegationError, RevocationTarget, Revocations, Scope, SignatureError, Signed,
    SignerId, Statement, StatementHash, UnixTime, ValidityError,
};

/// What a record can be about.
pub trait RecordBody: Encode<()> + for<'b> Decode<'b, ()> {
    /// The purpose of the signed record; see [`Statement::PURPOSE`].
    const PURPOSE: &'static str;

    /// The scope that the signer must have.
    const SCOPE: Scope;

    /// What the record is about: the newest record about a subject replaces those before.
    fn subject(&self) -> Vec<u8>;
}

/// A statement that stands until a newer one about the same subject replaces or withdraws it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Record<T> {
    /// Who signed.
    #[n(0)]
    pub signer: SignerId,
    /// The epoch in which the signer made it.
    #[n(1)]
    pub epoch: u64,
    /// Rises with each record that the signer makes, whatever it is about.
    #[n(2)]
    pub version: u64,
    /// When the signer made it.
    #[n(3)]
    pub at: UnixTime,
    /// Whether the subject is withdrawn; the body then only names it.
    #[n(4)]
    pub withdrawn: bool,
    /// What is said.
    #[n(5)]
    pub body: T,
}

impl<T: RecordBody> Statement for Record<T> {
    const PURPOSE: &'static str = T::PURPOSE;
    const MAX_SIZE: usize = 4096;
}

/// Why a record is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The signature is not good.
    #[error("the record is not good: {0}")]
    Signature(#[from] SignatureError),
    /// The signer does not have the scope.
    #[error(transparent)]
    Delegation(#[from] DelegationError),
    /// The signer did not have the scope at that time.
    #[error("the signer's delegation was {0}")]
    Validity(#[from] ValidityError),
    /// The signer was revoked.
    #[error("the key that signed was revoked")]
    RevokedSigner(SignerId),
    /// The record is of an epoch that the root has ended, or has not begun.
    #[error("the record is of epoch {found}, the network is in epoch {current}")]
    WrongEpoch {
        /// The record's epoch.
        found: u64,
        /// The network's epoch.
        current: u64,
    },
    /// A newer record about the subject was seen before: somebody plays back an old state.
    #[error("version {found} is older than version {known}, which was seen before")]
    RolledBack {
        /// The record's version.
        found: u64,
        /// The newest version seen.
        known: u64,
    },
    /// Two different records have the same version: an alarm.
    #[error("two different records have version {0}")]
    Conflict(u64),
}

/// The newest record seen about each subject, which no older one may replace.
///
/// To be kept across restarts (it encodes to CBOR): otherwise a restart lets old state in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RecordFloors {
    #[n(0)]
    newest: BTreeMap<StatementHash, Floor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Floor {
    #[n(0)]
    epoch: u64,
    #[n(1)]
    version: u64,
    #[n(2)]
    record: StatementHash,
    /// Nothing in what earlier versions kept.
    #[cbor(n(3), default)]
    signer: Option<SignerId>,
}

impl RecordFloors {
    /// Nothing seen.
    #[must_use]
    pub const fn new() -> Self {
        Self { newest: BTreeMap::new() }
    }

    /// Returns the record if its signer may make it and it is the newest about its subject, and
    /// remembers it. The newest one itself is accepted again. What a signer made that was revoked
    /// since stands in nobody's way: its successor counts versions anew.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn accept<T: RecordBody>(
        &mut self,
        signed: &Signed<Record<T>>,
        authorities: &Authorities,
        revocations: &Revocations,
    ) -> Result<Record<T>, RecordError> {
        let record = verify_record(signed, authorities, revocations)?;
        let subject = sha256(&[T::PURPOSE.as_bytes(), &[0], &record.body.subject()]);
        let found = Floor {
            epoch: record.epoch,
            version: record.version,
            record: signed.hash(),
            signer: Some(record.signer),
        };
        let slot = self.newest.entry(StatementHash::from_bytes(subject)).or_insert(found);
        let is_revoked = |key| revocations.contains(&RevocationTarget::Delegated(key));
        if slot.signer.is_some_and(is_revoked) {
            *slot = found;
            return Ok(record);
        }
        let (new, old) = ((found.epoch, found.version), (slot.epoch, slot.version));
        if new < old {
            return Err(RecordError::RolledBack { found: found.version, known: slot.version });
        }
        if new == old && found.record != slot.record {
            return Err(RecordError::Conflict(found.version));
        }
        *slot = found;
        Ok(record)
    }
}

/// Returns the record if its signer may make it, without regard to what was seen before.
///
/// # Errors
/// See [`RecordError`]; never [`RecordError::RolledBack`] or [`RecordError::Conflict`].
pub fn verify_record<T: RecordBody>(
    signed: &Signed<Record<T>>,
    authorities: &Authorities,
    revocations: &Revocations,
) -> Result<Record<T>, RecordError> {
    let signer = signed.peek()?.signer;
    let record = signed.verify(authorities.network(), signer)?;
    authorities.delegation(signer, T::SCOPE)?.validity.check(record.at)?;
    if revocations.contains(&RevocationTarget::Delegated(signer)) {
        return Err(RecordError::RevokedSigner(signer));
    }
    let current = authorities.epoch();
    if record.epoch != current {
        return Err(RecordError::WrongEpoch { found: record.epoch, current });
    }
    Ok(record)
}

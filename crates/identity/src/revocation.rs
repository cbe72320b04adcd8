//! The list of what does not count any more.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use crate::{
    Authorities, DelegationError, DeviceId, NetworkId, Scope, Serial, SignatureError, Signed,
    SignerId, Statement, StatementHash, UnixTime, ValidityError,
};

/// What can be revoked. Nothing is ever taken back from the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum RevocationTarget {
    /// A device, in all its memberships.
    #[n(0)]
    Device(#[n(0)] DeviceId),
    /// One membership.
    #[n(1)]
    Serial(#[n(0)] Serial),
    /// A delegated key, with everything that it ever signed.
    #[n(2)]
    Delegated(#[n(0)] SignerId),
    /// An invite key, with the device that came in by it.
    #[n(3)]
    Invite(#[n(0)] SignerId),
}

impl std::fmt::Display for RevocationTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(device) => write!(f, "device {device}"),
            Self::Serial(serial) => write!(f, "membership number {serial}"),
            Self::Delegated(key) => write!(f, "delegated key {key}"),
            Self::Invite(key) => write!(f, "invite key {key}"),
        }
    }
}

/// One entry of the list. Signed by a key of scope [`Scope::Revoke`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RevocationEntry {
    /// Who signed.
    #[n(0)]
    pub signer: SignerId,
    /// The epoch in which the entry was made.
    #[n(1)]
    pub epoch: u64,
    /// 1 for the first entry, one more for each that follows.
    #[n(2)]
    pub number: u64,
    /// The envelope of the entry before; [`StatementHash::NONE`] for the first.
    #[n(3)]
    pub previous: StatementHash,
    /// What is revoked.
    #[n(4)]
    pub target: RevocationTarget,
    /// When.
    #[n(5)]
    pub at: UnixTime,
}

impl Statement for RevocationEntry {
    const PURPOSE: &'static str = "revocation";
}

/// "The list ends here at this time": what tells silence from suppression. Signed by a key of
/// scope [`Scope::Revoke`], every five minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Freshness {
    /// Who signed.
    #[n(0)]
    pub signer: SignerId,
    /// The number of the last entry; 0 for an empty list.
    #[n(1)]
    pub number: u64,
    /// The envelope of the last entry; [`StatementHash::NONE`] for an empty list.
    #[n(2)]
    pub head: StatementHash,
    /// When.
    #[n(3)]
    pub at: UnixTime,
}

impl Statement for Freshness {
    const PURPOSE: &'static str = "freshness";
}

/// Why an entry or a freshness is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// The signature is not good.
    #[error("the revocation is not good: {0}")]
    Signature(#[from] SignatureError),
    /// The signer may not revoke.
    #[error(transparent)]
    Delegation(#[from] DelegationError),
    /// The signer could not revoke at that time.
    #[error("the delegation to revoke was {0}")]
    Validity(#[from] ValidityError),
    /// The signer was itself revoked.
    #[error("the key that signed was revoked")]
    RevokedSigner(SignerId),
    /// Entries between the known ones and this one are missing: ask for them.
    #[error("revocations {from} to {to} are missing")]
    Gap {
        /// The first missing number.
        from: u64,
        /// The last missing number.
        to: u64,
    },
    /// Two lists claim the same numbers within one epoch: an alarm.
    #[error("two different lists of revocations claim number {0}")]
    Fork(u64),
    /// The entry is of an epoch that the root has not begun, or of one before the last entry's.
    #[error("the revocation is of epoch {0}, which is not the network's")]
    WrongEpoch(u64),
}

/// The verified list, and how fresh it is.
#[derive(Debug, Clone)]
pub struct Revocations {
    network: NetworkId,
    entries: Vec<Signed<RevocationEntry>>,
    hashes: Vec<StatementHash>,
    epoch: u64,
    targets: BTreeSet<RevocationTarget>,
    freshness: Option<(Freshness, Signed<Freshness>)>,
}

impl Revocations {
    /// The empty list.
    #[must_use]
    pub const fn new(network: NetworkId) -> Self {
        Self {
            network,
            entries: Vec::new(),
            hashes: Vec::new(),
            epoch: 0,
            targets: BTreeSet::new(),
            freshness: None,
        }
    }

    /// Adds the next entry; says what it newly revokes, nothing if it was known.
    ///
    /// In a new epoch the list may go on from an earlier entry than the last known one, since the
    /// signer was restored from a backup. What the entries after it revoked stays revoked here, but
    /// is not passed on any more: it has to be revoked again for others.
    ///
    /// # Errors
    /// See [`RevocationError`].
    pub fn apply(
        &mut self,
        signed: &Signed<RevocationEntry>,
        authorities: &Authorities,
    ) -> Result<Option<RevocationTarget>, RevocationError> {
        let hash = signed.hash();
        let claimed = signed.peek()?;
        if claimed.number > 0 && self.hash_of(claimed.number) == Some(hash) {
            return Ok(None);
        }
        let entry = signed.verify(self.network, claimed.signer)?;
        self.check_signer(entry.signer, entry.at, authorities)?;
        if entry.epoch > authorities.epoch() || entry.epoch < self.epoch {
            return Err(RevocationError::WrongEpoch(entry.epoch));
        }
        let known = self.number();
        if entry.number > known.saturating_add(1) {
            return Err(RevocationError::Gap { from: known + 1, to: entry.number - 1 });
        }
        let before = entry.number.checked_sub(1).ok_or(SignatureError::Malformed)?;
        let continues = self.hash_of(before) == Some(entry.previous);
        if !continues || (entry.number <= known && entry.epoch == self.epoch) {
            return Err(RevocationError::Fork(entry.number));
        }
        let kept = usize::try_from(before).expect("at most the length of a list in memory");
        self.entries.truncate(kept);
        self.hashes.truncate(kept);
        self.entries.push(signed.clone());
        self.hashes.push(hash);
        self.epoch = entry.epoch;
        Ok(self.targets.insert(entry.target).then_some(entry.target))
    }

    /// Takes note that the list is current; says whether this is newer than what was known.
    ///
    /// # Errors
    /// [`RevocationError::Gap`] if entries are missing; see there for the others.
    pub fn refresh(
        &mut self,
        signed: &Signed<Freshness>,
        authorities: &Authorities,
    ) -> Result<bool, RevocationError> {
        let freshness = signed.verify(self.network, signed.peek()?.signer)?;
        self.check_signer(freshness.signer, freshness.at, authorities)?;
        if freshness.number > self.number() {
            let from = self.number() + 1;
            return Err(RevocationError::Gap { from, to: freshness.number });
        }
        if self.hash_of(freshness.number) != Some(freshness.head) {
            return Err(RevocationError::Fork(freshness.number));
        }
        let newer = |(known, _): &(Freshness, _)| known.at < freshness.at;
        if freshness.number < self.number() || !self.freshness.as_ref().is_none_or(newer) {
            return Ok(false);
        }
        self.freshness = Some((freshness, signed.clone()));
        Ok(true)
    }

    /// Whether `target` was revoked.
    #[must_use]
    pub fn contains(&self, target: &RevocationTarget) -> bool {
        self.targets.contains(target)
    }

    /// The number of the last entry.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The envelope of the last entry, [`StatementHash::NONE`] for an empty list.
    #[must_use]
    pub fn head(&self) -> StatementHash {
        self.hashes.last().copied().unwrap_or(StatementHash::NONE)
    }

    /// The entries after number `known`, to pass on.
    #[must_use]
    pub fn entries_after(&self, known: u64) -> &[Signed<RevocationEntry>] {
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.entries.get(known..).unwrap_or_default()
    }

    /// The newest statement that the list is current, to pass on.
    #[must_use]
    pub fn signed_freshness(&self) -> Option<&Signed<Freshness>> {
        self.freshness.as_ref().map(|(_, signed)| signed)
    }

    /// When the list was last known to be current.
    #[must_use]
    pub fn fresh_at(&self) -> Option<UnixTime> {
        self.freshness.as_ref().map(|(freshness, _)| freshness.at)
    }

    /// Everything that was revoked.
    pub fn targets(&self) -> impl Iterator<Item = &RevocationTarget> {
        self.targets.iter()
    }

    /// The entry that would revoke `target` next; to be signed and then applied.
    #[must_use]
    pub fn next_entry(
        &self,
        target: RevocationTarget,
        signer: SignerId,
        authorities: &Authorities,
        at: UnixTime,
    ) -> RevocationEntry {
        RevocationEntry {
            signer,
            epoch: authorities.epoch(),
            number: self.number() + 1,
            previous: self.head(),
            target,
            at,
        }
    }

    /// The statement that the list is current at `at`; to be signed.
    #[must_use]
    pub fn freshness(&self, signer: SignerId, at: UnixTime) -> Freshness {
        Freshness { signer, number: self.number(), head: self.head(), at }
    }

    fn hash_of(&self, number: u64) -> Option<StatementHash> {
        match usize::try_from(number).ok()?.checked_sub(1) {
            None => Some(StatementHash::NONE),
            Some(index) => self.hashes.get(index).copied(),
        }
    }

    fn check_signer(
        &self,
        signer: SignerId,
        at: UnixTime,
        authorities: &Authorities,
    ) -> Result<(), RevocationError> {
        authorities.delegation(signer, Scope::Revoke)?.validity.check(at)?;
        if self.contains(&RevocationTarget::Delegated(signer)) {
            return Err(RevocationError::RevokedSigner(signer));
        }
        Ok(())
    }
}

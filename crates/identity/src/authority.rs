//! The delegations that a node knows, as one table.

use std::collections::BTreeMap;

use crate::{
    Delegation, DelegationError, Epoch, NetworkId, Scope, SignatureError, Signed, SignerId,
};

/// The verified delegations and the epoch of one network.
///
/// Delegations accumulate; a key that must not be believed any more is revoked.
#[derive(Debug, Clone)]
pub struct Authorities {
    network: NetworkId,
    epoch: u64,
    signed_epoch: Option<Signed<Epoch>>,
    delegations: BTreeMap<(SignerId, Scope), (Delegation, Signed<Delegation>)>,
}

impl Authorities {
    /// Nobody but the root, epoch 0.
    #[must_use]
    pub const fn new(network: NetworkId) -> Self {
        Self { network, epoch: 0, signed_epoch: None, delegations: BTreeMap::new() }
    }

    /// Adds a delegation after verifying it; says whether anything changed.
    ///
    /// Of two delegations for the same key and scope, the one that ends later stays. Delegations
    /// of unknown scopes are verified and passed over.
    ///
    /// # Errors
    /// [`DelegationError::WrongNetwork`] or [`DelegationError::Signature`].
    pub fn add(&mut self, signed: &Signed<Delegation>) -> Result<bool, DelegationError> {
        if self.known(signed).is_some() {
            return Ok(false);
        }
        let delegation = signed.verify_root(self.network)?;
        if matches!(delegation.scope, Scope::Unknown(_)) {
            return Ok(false);
        }
        let slot = (delegation.key, delegation.scope);
        let ends = |d: &Delegation| d.validity.not_after;
        if self.delegations.get(&slot).is_some_and(|(known, _)| ends(known) >= ends(&delegation)) {
            return Ok(false);
        }
        self.delegations.insert(slot, (delegation, signed.clone()));
        Ok(true)
    }

    /// Returns the delegation if the root gave it and it is for `wanted`. One that was added is not
    /// verified again.
    ///
    /// Its validity is left to the caller, who knows at which time the key signed.
    ///
    /// # Errors
    /// See [`DelegationError`].
    pub fn verify(
        &self,
        signed: &Signed<Delegation>,
        wanted: Scope,
    ) -> Result<Delegation, DelegationError> {
        let delegation = match self.known(signed) {
            Some(delegation) => delegation.clone(),
            None => signed.verify_root(self.network)?,
        };
        delegation.for_scope(wanted)
    }

    fn known(&self, signed: &Signed<Delegation>) -> Option<&Delegation> {
        let mut known = self.delegations.values();
        known.find(|(_, known)| known == signed).map(|(delegation, _)| delegation)
    }

    /// Takes note of an epoch after verifying it; says whether it is newer than the known one.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn advance_epoch(&mut self, signed: &Signed<Epoch>) -> Result<bool, SignatureError> {
        let epoch = signed.verify(self.network, self.network)?;
        if epoch.number <= self.epoch {
            return Ok(false);
        }
        self.epoch = epoch.number;
        self.signed_epoch = Some(signed.clone());
        Ok(true)
    }

    /// The delegation by which `signer` has `scope`.
    ///
    /// # Errors
    /// [`DelegationError::NotDelegated`].
    pub fn delegation(
        &self,
        signer: SignerId,
        scope: Scope,
    ) -> Result<&Delegation, DelegationError> {
        let found = self.delegations.get(&(signer, scope)).map(|(delegation, _)| delegation);
        found.ok_or(DelegationError::NotDelegated { signer, scope })
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// The number of the newest epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The statement of the newest epoch, to pass on; nothing in epoch 0.
    #[must_use]
    pub const fn signed_epoch(&self) -> Option<&Signed<Epoch>> {
        self.signed_epoch.as_ref()
    }

    /// All delegations as signed, to pass on.
    pub fn signed_delegations(&self) -> impl Iterator<Item = &Signed<Delegation>> {
        self.delegations.values().map(|(_, signed)| signed)
    }
}

//! The delegated keys of a controller.

use std::collections::BTreeMap;

use identity::{DelegatedKey, Delegation, NetworkId, Record, RecordBody, Scope, Signed, UnixTime};

use crate::Mode;

/// The delegated keys that a controller holds, each with the root's word for it.
#[derive(Debug, Clone)]
pub struct AuthorityKeys {
    network: NetworkId,
    held: BTreeMap<Scope, (DelegatedKey, Signed<Delegation>)>,
}

/// A key does not fit its delegation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of scope {0} and its delegation do not belong together")]
pub struct KeyMismatch(pub Scope);

impl AuthorityKeys {
    /// No keys yet.
    #[must_use]
    pub const fn new(network: NetworkId) -> Self {
        Self { network, held: BTreeMap::new() }
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`KeyMismatch`] if the delegation is not for this key, scope and network.
    pub fn add(
        &mut self,
        scope: Scope,
        key: DelegatedKey,
        delegation: Signed<Delegation>,
    ) -> Result<(), KeyMismatch> {
        let given = delegation.verify_scope(self.network, scope).map_err(|_| KeyMismatch(scope))?;
        if given.key != key.id() {
            return Err(KeyMismatch(scope));
        }
        self.held.insert(scope, (key, delegation));
        Ok(())
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// Whether whoever holds these keys could admit devices.
    #[must_use]
    pub fn mode(&self) -> Mode {
        if self.held.contains_key(&Scope::Issue) { Mode::Simple } else { Mode::Strict }
    }

    /// The key and delegation of a scope.
    #[must_use]
    pub fn get(&self, scope: Scope) -> Option<&(DelegatedKey, Signed<Delegation>)> {
        self.held.get(&scope)
    }

    /// All scopes with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (Scope, &(DelegatedKey, Signed<Delegation>))> {
        self.held.iter().map(|(scope, held)| (*scope, held))
    }

    /// Signs a record, if the key of its scope is held.
    pub(crate) fn sign_record<T: RecordBody>(
        &self,
        body: T,
        (epoch, version): (u64, u64),
        at: UnixTime,
        withdrawn: bool,
    ) -> Option<Signed<Record<T>>> {
        let (key, _) = self.get(T::SCOPE)?;
        let record = Record { signer: key.id(), epoch, version, at, withdrawn, body };
        Some(Signed::sign(self.network, key, &record))
    }
}

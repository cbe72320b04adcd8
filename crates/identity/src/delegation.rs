//! What the network's root lets other keys do.

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::encoding::sha256;
use crate::{
    DEFAULT_VALIDITY, DelegatedKey, GroupName, NetworkId, NetworkKey, SignatureError, Signed,
    SignerId, Statement, UnixTime, Validity,
};

/// What a delegated key may sign. Each key has one scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Admit devices: certificates and invites.
    Issue,
    /// Extend or approve what was once issued, and lease IPv4 addresses to members.
    Renew,
    /// Revoke.
    Revoke,
    /// Settings of the network and its controllers.
    Policy,
    /// Names.
    Names,
    /// Entries of relays.
    Relays,
    /// A scope of a later version, good for nothing here.
    Unknown(u8),
}

impl Scope {
    /// The scopes that this version knows.
    pub const ALL: [Self; 6] =
        [Self::Issue, Self::Renew, Self::Revoke, Self::Policy, Self::Names, Self::Relays];

    const fn number(self) -> u8 {
        match self {
            Self::Issue => 0,
            Self::Renew => 1,
            Self::Revoke => 2,
            Self::Policy => 3,
            Self::Names => 4,
            Self::Relays => 5,
            Self::Unknown(number) => number,
        }
    }
}

impl From<u8> for Scope {
    fn from(number: u8) -> Self {
        let known = Self::ALL.get(usize::from(number));
        known.copied().unwrap_or(Self::Unknown(number))
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Issue => f.write_str("issue"),
            Self::Renew => f.write_str("renew"),
            Self::Revoke => f.write_str("revoke"),
            Self::Policy => f.write_str("policy"),
            Self::Names => f.write_str("names"),
            Self::Relays => f.write_str("relays"),
            Self::Unknown(number) => write!(f, "unknown scope {number}"),
        }
    }
}

impl<C> Encode<C> for Scope {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u8(self.number())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Scope {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.u8().map(Self::from)
    }
}

/// How far a key of scope [`Scope::Issue`] or [`Scope::Renew`] may go.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct IssueLimits {
    /// The groups that may be given; nothing means any.
    #[n(0)]
    pub groups: Option<Vec<GroupName>>,
    /// The longest validity of one certificate or renewal, in seconds.
    #[n(1)]
    pub max_validity: u64,
}

impl Default for IssueLimits {
    fn default() -> Self {
        Self { groups: None, max_validity: DEFAULT_VALIDITY }
    }
}

impl IssueLimits {
    pub(crate) fn allow_groups(&self, groups: &[GroupName]) -> bool {
        self.groups.as_ref().is_none_or(|allowed| groups.iter().all(|g| allowed.contains(g)))
    }
}

/// The network's root gives a key one scope. Signed by the [`NetworkKey`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Delegation {
    /// The network, once more than in the signature: so that a foreign chain is recognised.
    #[n(0)]
    pub network: NetworkId,
    /// Who may sign.
    #[n(1)]
    pub key: SignerId,
    /// What the key may sign.
    #[n(2)]
    pub scope: Scope,
    /// When the key may sign: what it signed within this time stays good for its own validity.
    #[n(3)]
    pub validity: Validity,
    /// How far it may go; of meaning for `issue` and `renew` only.
    #[n(4)]
    pub limits: IssueLimits,
}

impl NetworkKey {
    /// The key with which the owner signs for a scope, and its delegation: always the same ones, so
    /// that nobody has to keep them beside the root. They count as long as the root does.
    #[must_use]
    pub fn own_delegation(&self, scope: Scope) -> (DelegatedKey, Signed<Delegation>) {
        let root = self.to_bytes();
        let parts = [b"shadowmesh/owner-key/v1".as_slice(), root.as_slice(), &[scope.number()]];
        let seed = Zeroizing::new(sha256(&parts));
        let key = DelegatedKey::from_bytes(&seed);
        let delegation = Delegation {
            network: self.id(),
            key: key.id(),
            scope,
            validity: Validity { not_before: UnixTime(0), not_after: UnixTime::NEVER },
            limits: IssueLimits::default(),
        };
        (key, Signed::sign(self.id(), self, &delegation))
    }
}

impl Delegation {
    /// The delegation if it is for `wanted`.
    pub(crate) fn for_scope(self, wanted: Scope) -> Result<Self, DelegationError> {
        if let Scope::Unknown(number) = self.scope {
            return Err(DelegationError::UnknownScope(number));
        }
        if self.scope != wanted {
            return Err(DelegationError::WrongScope { wanted, found: self.scope });
        }
        Ok(self)
    }
}

impl Statement for Delegation {
    const PURPOSE: &'static str = "delegation";
    const MAX_SIZE: usize = 4096;
}

/// Why a key is not believed to have a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DelegationError {
    /// The delegation belongs to another network.
    #[error("the delegation belongs to another network")]
    WrongNetwork,
    /// The delegation is not signed by the network's root.
    #[error("the delegation is not good: {0}")]
    Signature(#[from] SignatureError),
    /// The delegation is for a scope that this version does not know.
    #[error("scope {0} is not known to this version; upgrade it")]
    UnknownScope(u8),
    /// The delegation is for another scope.
    #[error("the key may sign for scope {found}, not for {wanted}")]
    WrongScope {
        /// The scope that the statement needs.
        wanted: Scope,
        /// The scope that the key has.
        found: Scope,
    },
    /// No delegation for this key and scope is known.
    #[error("no delegation of scope {scope} for {signer} is known")]
    NotDelegated {
        /// The key that signed.
        signer: SignerId,
        /// The scope that the statement needs.
        scope: Scope,
    },
}

impl Signed<Delegation> {
    /// Returns the delegation if the root of `network` gave it and it is for `wanted`.
    ///
    /// Its validity is left to the caller, who knows at which time the key signed.
    ///
    /// # Errors
    /// See [`DelegationError`].
    pub fn verify_scope(
        &self,
        network: NetworkId,
        wanted: Scope,
    ) -> Result<Delegation, DelegationError> {
        self.verify_root(network)?.for_scope(wanted)
    }

    /// Returns the delegation, of whatever scope, if the root of `network` gave it.
    ///
    /// # Errors
    /// [`DelegationError::WrongNetwork`] or [`DelegationError::Signature`].
    pub fn verify_root(&self, network: NetworkId) -> Result<Delegation, DelegationError> {
        if self.peek()?.network != network {
            return Err(DelegationError::WrongNetwork);
        }
        Ok(self.verify(network, network)?)
    }
}

/// The root begins a new epoch, after which records of an older one are refused: needed when a
/// controller is restored from an old backup. Signed by the [`NetworkKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Epoch {
    /// The number; a network begins with 0, which needs no statement.
    #[n(0)]
    pub number: u64,
    /// When the root signed it.
    #[n(1)]
    pub at: UnixTime,
}

impl Statement for Epoch {
    const PURPOSE: &'static str = "epoch";
}

//! Certificate chains, and the one function that decides who is a member.

use std::net::Ipv6Addr;

use minicbor::{Decode, Encode};

use crate::{
    Authorities, Certificate, Delegation, DelegationError, DeviceId, DeviceName, GroupName,
    InviteGrant, MAX_GROUPS, NetworkId, Renewal, RevocationTarget, Revocations, Scope, Serial,
    SignatureError, Signed, SignerId, UnixTime, Validity, ValidityError,
};

/// Everything that proves a membership to somebody who knows the [`NetworkId`] only.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct CertificateChain {
    /// The root lets the issuer issue.
    #[n(0)]
    pub delegation: Signed<Delegation>,
    /// The issuer lets the invite key certify one device; nothing if the issuer did it itself.
    #[n(1)]
    pub grant: Option<Signed<InviteGrant>>,
    /// The membership.
    #[n(2)]
    pub certificate: Signed<Certificate>,
    /// Its approval or extension.
    #[n(3)]
    pub renewal: Option<ProvenRenewal>,
}

/// A renewal with the delegation of the key that signed it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ProvenRenewal {
    /// The root lets the key renew.
    #[n(0)]
    pub delegation: Signed<Delegation>,
    /// The renewal.
    #[n(1)]
    pub renewal: Signed<Renewal>,
}

/// A device whose chain was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// Its groups.
    pub groups: Vec<GroupName>,
    /// Its proven address.
    pub address: Ipv6Addr,
    /// When the statement that its membership rests on was made: of two, the later counts.
    pub not_before: UnixTime,
    /// When its membership ends unless it is renewed.
    pub not_after: UnixTime,
    /// The number of its membership. Of two members with one address, the lower counts.
    pub serial: Serial,
    /// The invite key by which it came in. A second device by the same key is an alarm.
    pub invite: Option<SignerId>,
}

impl Member {
    /// Whether the device may serve as a relay.
    #[must_use]
    pub fn is_relay(&self) -> bool {
        self.groups.contains(&GroupName::relay())
    }
}

/// The parts of a chain, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainPart {
    /// The issuer's delegation.
    Delegation,
    /// The invite's grant.
    Grant,
    /// The certificate.
    Certificate,
    /// The renewer's delegation.
    RenewalDelegation,
    /// The renewal.
    Renewal,
}

impl std::fmt::Display for ChainPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Delegation => "issuer's delegation",
            Self::Grant => "invite's grant",
            Self::Certificate => "certificate",
            Self::RenewalDelegation => "renewer's delegation",
            Self::Renewal => "renewal",
        })
    }
}

/// What a signer was not allowed to go beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Too many groups, or one that may not be given.
    #[error("groups")]
    Groups,
    /// The validity is too long.
    #[error("length of validity")]
    Validity,
    /// The invite is for another name.
    #[error("name")]
    Name,
    /// The invite is for another serial.
    #[error("serial")]
    Serial,
    /// The address is not the one that the device gets by this invite, or not in fd00::/8.
    #[error("address")]
    Address,
}

/// Why a chain proves no membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The chain begins at another network's root.
    #[error("the chain belongs to another network")]
    WrongNetwork,
    /// A part is not signed by whom it must be.
    #[error("the {part} is not good: {source}")]
    Signature {
        /// The part.
        part: ChainPart,
        /// What is wrong with it.
        source: SignatureError,
    },
    /// A delegation is for a scope that this version does not know.
    #[error("scope {0} is not known to this version; upgrade it")]
    UnknownScope(u8),
    /// A delegation is for another scope.
    #[error("the {part} is for scope {found}")]
    WrongScope {
        /// The delegation.
        part: ChainPart,
        /// Its scope.
        found: Scope,
    },
    /// A part does not count at this time, or was signed by a key that did not count then.
    #[error("the {part} is {source}")]
    Validity {
        /// The part.
        part: ChainPart,
        /// Which end of its validity was missed.
        source: ValidityError,
    },
    /// A signer went beyond its limits.
    #[error("the {part} exceeds a limit: {limit}")]
    LimitExceeded {
        /// What goes too far.
        part: ChainPart,
        /// In which respect.
        limit: Limit,
    },
    /// The device, its serial or a key of the chain was revoked.
    #[error("revoked: {0}")]
    Revoked(RevocationTarget),
    /// The renewal extends another certificate.
    #[error("the renewal is for another certificate")]
    WrongRenewal,
    /// An invite key certified the device, and no renewer has confirmed that.
    #[error(
        "the controller has not confirmed the device; if it waits for approval, approve it with \
         `shadowmesh device approve`"
    )]
    NeedsApproval,
}

impl ChainError {
    /// Whether the chain would count with a newer renewal.
    #[must_use]
    pub const fn is_expired(&self) -> bool {
        matches!(self, Self::Validity { source: ValidityError::Expired(_), .. })
    }
}

impl CertificateChain {
    /// The largest encoded chain, in bytes.
    pub const MAX_SIZE: usize = 16 * 1024;

    /// The chain as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Takes a chain as received, without believing it.
    ///
    /// # Errors
    /// [`SignatureError::TooLarge`] and [`SignatureError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SignatureError> {
        if bytes.len() > Self::MAX_SIZE {
            return Err(SignatureError::TooLarge);
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let chain: Self = decoder.decode().map_err(|_| SignatureError::Malformed)?;
        // One chain has one encoding, as each of its parts has; a later version may add parts
        // behind these.
        let known = chain.to_bytes();
        let is_same = bytes[0] >= known[0] && bytes[1..].starts_with(&known[1..]);
        if !is_same || decoder.position() != bytes.len() {
            return Err(SignatureError::Malformed);
        }
        Ok(chain)
    }

    /// Decides whether the chain proves a membership of `network` at `now`.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn verify(
        &self,
        network: NetworkId,
        now: UnixTime,
        revocations: &Revocations,
    ) -> Result<Member, ChainError> {
        self.prove(&Authorities::new(network))?.check(now, revocations)
    }

    /// Checks everything about the chain that time does not change: signatures and limits.
    /// Delegations that the authorities know already are not verified again.
    ///
    /// An issuer's and an invite's validity must cover the moment in which they signed, which is
    /// the beginning of what they signed.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn prove(&self, authorities: &Authorities) -> Result<Proof, ChainError> {
        let network = authorities.network();
        let issuer = scoped(authorities, &self.delegation, Scope::Issue, ChainPart::Delegation)?;
        let grant = self.grant.as_ref();
        let grant = grant.map(|grant| verified_grant(grant, network, &issuer)).transpose()?;
        let certificate = match &grant {
            Some(grant) => self.certified_by_invite(network, grant)?,
            None => self.certified_by_issuer(network, &issuer)?,
        };
        let renewal = self.renewal.as_ref();
        let renewal = renewal
            .map(|proven| renewal_of(&certificate, self, proven, authorities))
            .transpose()?;
        let (part, validity) = match &renewal {
            Some((_, renewal)) => (ChainPart::Renewal, renewal.validity),
            None => (ChainPart::Certificate, certificate.validity),
        };
        let invite = grant.as_ref().map(|grant| grant.key);
        let targets = [
            Some(RevocationTarget::Delegated(issuer.key)),
            invite.map(RevocationTarget::Invite),
            Some(RevocationTarget::Device(certificate.device)),
            Some(RevocationTarget::Serial(certificate.serial)),
            renewal.as_ref().map(|(renewer, _)| RevocationTarget::Delegated(renewer.key)),
        ];
        Ok(Proof { certificate, grant, part, validity, targets })
    }

    /// Whatever of a verified chain can be revoked, each of which ends the membership.
    #[must_use]
    pub fn targets(&self) -> Vec<RevocationTarget> {
        let delegated = |delegation: &Signed<Delegation>| {
            Some(RevocationTarget::Delegated(delegation.peek().ok()?.key))
        };
        let invite =
            |grant: &Signed<InviteGrant>| Some(RevocationTarget::Invite(grant.peek().ok()?.key));
        let certificate = self.certificate.peek().ok();
        let targets = [
            delegated(&self.delegation),
            self.grant.as_ref().and_then(invite),
            certificate.as_ref().map(|certificate| RevocationTarget::Device(certificate.device)),
            certificate.as_ref().map(|certificate| RevocationTarget::Serial(certificate.serial)),
            self.renewal.as_ref().and_then(|renewal| delegated(&renewal.delegation)),
        ];
        targets.into_iter().flatten().collect()
    }

    fn certified_by_issuer(
        &self,
        network: NetworkId,
        issuer: &Delegation,
    ) -> Result<Certificate, ChainError> {
        let part = ChainPart::Certificate;
        let certificate =
            self.certificate.verify(network, issuer.key).map_err(badly_signed(part))?;
        let signed_at = certificate.validity.not_before;
        issuer.validity.check(signed_at).map_err(outside(ChainPart::Delegation))?;
        within(
            part,
            Limit::Validity,
            certificate.validity.seconds() <= issuer.limits.max_validity,
        )?;
        let allowed = issuer.limits.allow_groups(&certificate.groups);
        within(part, Limit::Groups, allowed && certificate.groups.len() <= MAX_GROUPS)?;
        within(part, Limit::Address, certificate.address.octets()[0] == 0xfd)?;
        Ok(certificate)
    }

    fn certified_by_invite(
        &self,
        network: NetworkId,
        grant: &InviteGrant,
    ) -> Result<Certificate, ChainError> {
        let part = ChainPart::Certificate;
        let certificate =
            self.certificate.verify(network, grant.key).map_err(badly_signed(part))?;
        let signed_at = certificate.validity.not_before;
        grant.validity.check(signed_at).map_err(outside(ChainPart::Grant))?;
        within(part, Limit::Validity, certificate.validity.seconds() <= grant.max_validity)?;
        within(part, Limit::Groups, certificate.groups.iter().all(|g| grant.groups.contains(g)))?;
        within(part, Limit::Groups, certificate.groups.len() <= MAX_GROUPS)?;
        let named = grant.name.as_ref().is_none_or(|name| *name == certificate.name);
        within(part, Limit::Name, named)?;
        within(part, Limit::Serial, certificate.serial == grant.serial)?;
        let proposed =
            grant.address(network, certificate.device, &certificate.groups, certificate.counter);
        within(part, Limit::Address, certificate.address == proposed)?;
        Ok(certificate)
    }
}

/// What a chain proves while none of its parts is revoked, and within its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    certificate: Certificate,
    grant: Option<InviteGrant>,
    /// Where the validity in force stands.
    part: ChainPart,
    validity: Validity,
    /// Whatever can be revoked, in the order of the chain.
    targets: [Option<RevocationTarget>; 5],
}

impl Proof {
    /// The membership as it was certified.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The invite's grant, if the device came in by one.
    #[must_use]
    pub const fn grant(&self) -> Option<&InviteGrant> {
        self.grant.as_ref()
    }

    /// The validity in force: the renewal's, or the certificate's.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// The member, if the membership counts at `now`.
    ///
    /// What an invite key certified counts once it is renewed: the renewer knows whether another
    /// device came in by that invite, which no chain shows.
    ///
    /// # Errors
    /// [`ChainError::Revoked`], [`ChainError::NeedsApproval`] or [`ChainError::Validity`].
    pub fn check(&self, now: UnixTime, revocations: &Revocations) -> Result<Member, ChainError> {
        let mut targets = self.targets.iter().flatten();
        if let Some(target) = targets.find(|target| revocations.contains(target)) {
            return Err(ChainError::Revoked(*target));
        }
        if self.grant.is_some() && self.part != ChainPart::Renewal {
            return Err(ChainError::NeedsApproval);
        }
        self.validity.check(now).map_err(outside(self.part))?;
        let certificate = &self.certificate;
        Ok(Member {
            device: certificate.device,
            name: certificate.name.clone(),
            groups: certificate.groups.clone(),
            address: certificate.address,
            not_before: self.validity.not_before,
            not_after: self.validity.not_after,
            serial: certificate.serial,
            invite: self.grant.as_ref().map(|grant| grant.key),
        })
    }
}

/// The renewal of a chain's certificate, with the delegation of the key that made it.
fn renewal_of(
    certificate: &Certificate,
    chain: &CertificateChain,
    proven: &ProvenRenewal,
    authorities: &Authorities,
) -> Result<(Delegation, Renewal), ChainError> {
    let delegation = &proven.delegation;
    let renewer = scoped(authorities, delegation, Scope::Renew, ChainPart::RenewalDelegation)?;
    let part = ChainPart::Renewal;
    let network = authorities.network();
    let renewal = proven.renewal.verify(network, renewer.key).map_err(badly_signed(part))?;
    let of_this = renewal.certificate == chain.certificate.hash();
    if !of_this || renewal.device != certificate.device {
        return Err(ChainError::WrongRenewal);
    }
    let signed_at = renewal.validity.not_before;
    renewer.validity.check(signed_at).map_err(outside(ChainPart::RenewalDelegation))?;
    within(part, Limit::Validity, renewal.validity.seconds() <= renewer.limits.max_validity)?;
    within(part, Limit::Groups, renewer.limits.allow_groups(&certificate.groups))?;
    Ok((renewer, renewal))
}

/// The grant of an invite, if `network` let its issuer issue.
pub(crate) fn verify_grant(
    network: NetworkId,
    delegation: &Signed<Delegation>,
    grant: &Signed<InviteGrant>,
) -> Result<InviteGrant, ChainError> {
    let authorities = Authorities::new(network);
    let issuer = scoped(&authorities, delegation, Scope::Issue, ChainPart::Delegation)?;
    verified_grant(grant, network, &issuer)
}

fn verified_grant(
    grant: &Signed<InviteGrant>,
    network: NetworkId,
    issuer: &Delegation,
) -> Result<InviteGrant, ChainError> {
    let part = ChainPart::Grant;
    let grant = grant.verify(network, issuer.key).map_err(badly_signed(part))?;
    issuer.validity.check(grant.validity.not_before).map_err(outside(ChainPart::Delegation))?;
    within(part, Limit::Validity, grant.max_validity <= issuer.limits.max_validity)?;
    within(part, Limit::Groups, issuer.limits.allow_groups(&grant.groups))?;
    Ok(grant)
}

fn scoped(
    authorities: &Authorities,
    delegation: &Signed<Delegation>,
    scope: Scope,
    part: ChainPart,
) -> Result<Delegation, ChainError> {
    authorities.verify(delegation, scope).map_err(|error| match error {
        DelegationError::WrongNetwork => ChainError::WrongNetwork,
        DelegationError::Signature(source) => ChainError::Signature { part, source },
        DelegationError::UnknownScope(number) => ChainError::UnknownScope(number),
        DelegationError::WrongScope { found, .. } => ChainError::WrongScope { part, found },
        DelegationError::NotDelegated { .. } => {
            ChainError::Signature { part, source: SignatureError::BadSignature }
        }
    })
}

const fn within(part: ChainPart, limit: Limit, holds: bool) -> Result<(), ChainError> {
    if holds { Ok(()) } else { Err(ChainError::LimitExceeded { part, limit }) }
}

fn badly_signed(part: ChainPart) -> impl Fn(SignatureError) -> ChainError {
    move |source| ChainError::Signature { part, source }
}

fn outside(part: ChainPart) -> impl Fn(ValidityError) -> ChainError {
    move |source| ChainError::Validity { part, source }
}

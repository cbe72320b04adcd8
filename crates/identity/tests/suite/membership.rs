//! Who is a member.

use crate::world::{DAY, NOW, World};
use identity::{
    CertificateChain, ChainError, ChainPart, DelegatedKey, DeviceKey, GroupName, IssueLimits,
    Limit, NetworkKey, RevocationTarget, Scope, Serial, SignatureError, Signed, UnixTime, Validity,
    ValidityError,
};
use proptest::prelude::*;

fn refusal(world: &World, chain: &CertificateChain, now: UnixTime) -> ChainError {
    chain.verify(world.network(), now, &world.revocations).unwrap_err()
}

#[test]
fn a_device_certified_by_a_delegated_issuer_is_a_member() {
    let world = World::new();
    let member = world.chain().verify(world.network(), NOW, &world.revocations).unwrap();
    assert_eq!(member.device, world.device.id());
    assert_eq!(member.name.as_str(), "laptop");
    assert_eq!(member.address, world.certificate().address);
    assert_eq!(member.not_after, NOW.plus(7 * DAY));
    assert_eq!((member.serial, member.invite), (Serial(7), None));
    assert!(!member.is_relay());
}

#[test]
fn a_chain_survives_its_encoding() {
    let world = World::new();
    let mut chain = world.chain();
    for renewal in [None, Some(world.renewal_of(&chain, Validity::starting(NOW, DAY)))] {
        chain.renewal = renewal;
        assert_eq!(CertificateChain::from_bytes(&chain.to_bytes()), Ok(chain.clone()));
    }
}

#[test]
fn an_expired_or_future_certificate_is_refused() {
    let world = World::new();
    let chain = world.chain();
    let expired = refusal(&world, &chain, NOW.plus(7 * DAY));
    assert!(expired.is_expired());
    let part = ChainPart::Certificate;
    let source = ValidityError::NotYetValid(NOW);
    assert_eq!(refusal(&world, &chain, NOW.minus(61)), ChainError::Validity { part, source });
    assert!(chain.verify(world.network(), NOW.minus(60), &world.revocations).is_ok());
}

#[test]
fn a_chain_of_another_network_is_refused() {
    let (ours, theirs) = (World::new(), World::seeded(2));
    assert_eq!(refusal(&ours, &theirs.chain(), NOW), ChainError::WrongNetwork);
}

#[test]
fn a_delegation_that_the_root_did_not_sign_is_refused() {
    let world = World::new();
    let mut chain = world.chain();
    let impostor = NetworkKey::from_bytes(&[9; 32]);
    let delegation = world.delegation(&world.issuer, Scope::Issue);
    chain.delegation = Signed::sign(world.network(), &impostor, &delegation);
    let (part, source) = (ChainPart::Delegation, SignatureError::BadSignature);
    assert_eq!(refusal(&world, &chain, NOW), ChainError::Signature { part, source });
}

#[test]
fn a_certificate_by_somebody_else_is_refused() {
    let world = World::new();
    let mut chain = world.chain();
    chain.certificate = Signed::sign(world.network(), &world.device, &world.certificate());
    let (part, source) = (ChainPart::Certificate, SignatureError::BadSignature);
    assert_eq!(refusal(&world, &chain, NOW), ChainError::Signature { part, source });
}

#[test]
fn a_certificate_signed_for_another_network_is_refused() {
    let world = World::new();
    let mut chain = world.chain();
    let other = World::seeded(2).network();
    chain.certificate = Signed::sign(other, &world.issuer, &world.certificate());
    let (part, source) = (ChainPart::Certificate, SignatureError::BadSignature);
    assert_eq!(refusal(&world, &chain, NOW), ChainError::Signature { part, source });
}

#[test]
fn a_key_of_another_or_unknown_scope_cannot_issue() {
    let world = World::new();
    let mut chain = world.chain();
    chain.delegation = world.delegate(&world.issuer, Scope::Renew);
    let (part, found) = (ChainPart::Delegation, Scope::Renew);
    assert_eq!(refusal(&world, &chain, NOW), ChainError::WrongScope { part, found });
    chain.delegation = world.delegate(&world.issuer, Scope::Unknown(77));
    assert_eq!(refusal(&world, &chain, NOW), ChainError::UnknownScope(77));
}

#[test]
fn an_issuer_cannot_sign_outside_its_own_validity() {
    let world = World::new();
    let mut chain = world.chain();
    let mut delegation = world.delegation(&world.issuer, Scope::Issue);
    delegation.validity = Validity::starting(NOW.minus(DAY), DAY);
    chain.delegation = world.by_root(&delegation);
    let (part, source) = (ChainPart::Delegation, ValidityError::Expired(NOW));
    assert_eq!(refusal(&world, &chain, NOW), ChainError::Validity { part, source });
}

#[test]
fn an_issuer_cannot_go_beyond_its_limits() {
    let world = World::new();
    let mut certificate = world.certificate();
    certificate.validity = Validity::starting(NOW, 7 * DAY + 1);
    let part = ChainPart::Certificate;
    let too_far = |limit| ChainError::LimitExceeded { part, limit };
    assert_eq!(refusal(&world, &world.chain_for(&certificate), NOW), too_far(Limit::Validity));

    let mut chain = world.chain();
    let mut delegation = world.delegation(&world.issuer, Scope::Issue);
    let groups = Some(vec!["guests".parse().unwrap()]);
    delegation.limits = IssueLimits { groups, ..IssueLimits::default() };
    chain.delegation = world.by_root(&delegation);
    assert_eq!(refusal(&world, &chain, NOW), too_far(Limit::Groups));

    certificate = world.certificate();
    certificate.groups = (0..33).map(|n| format!("g{n}").parse().unwrap()).collect();
    assert_eq!(refusal(&world, &world.chain_for(&certificate), NOW), too_far(Limit::Groups));

    certificate = world.certificate();
    certificate.address = "2001:db8::1".parse().unwrap();
    assert_eq!(refusal(&world, &world.chain_for(&certificate), NOW), too_far(Limit::Address));
}

#[test]
fn whatever_of_a_chain_is_revoked_refuses_it() {
    let (world, part) = (World::new(), RevocationTarget::Delegated);
    let grant = world.grant();
    let invited = world.invite_for(&grant);
    let name = "laptop".parse().unwrap();
    let mut chain = invited.certify(world.device.id(), &name, 0, NOW).unwrap();
    chain.renewal = Some(world.renewal_of(&chain, Validity::starting(NOW, DAY)));
    assert!(chain.verify(world.network(), NOW, &world.revocations).is_ok());
    let targets = [
        part(world.issuer.id()),
        RevocationTarget::Invite(world.invite.id()),
        RevocationTarget::Device(world.device.id()),
        RevocationTarget::Serial(grant.serial),
        part(world.renewer.id()),
    ];
    assert_eq!(chain.targets(), targets);
    for target in targets {
        let mut world = World::new();
        world.revoke(target);
        assert_eq!(refusal(&world, &chain, NOW), ChainError::Revoked(target));
    }
}

#[test]
fn a_renewal_extends_a_membership_beyond_its_certificate() {
    let world = World::new();
    let mut chain = world.chain();
    let later = NOW.plus(30 * DAY);
    chain.renewal = Some(world.renewal_of(&chain, Validity::starting(later, DAY)));
    let member = chain.verify(world.network(), later, &world.revocations).unwrap();
    assert_eq!(member.not_after, later.plus(DAY));
    assert!(refusal(&world, &chain, later.plus(DAY)).is_expired());
}

#[test]
fn a_renewal_counts_for_its_own_certificate_and_within_its_limits_only() {
    let world = World::new();
    let mut chain = world.chain();
    let mut other = world.certificate();
    other.serial = Serial(8);
    let of_other = world.renewal_of(&world.chain_for(&other), Validity::starting(NOW, DAY));
    chain.renewal = Some(of_other);
    assert_eq!(refusal(&world, &chain, NOW), ChainError::WrongRenewal);
    chain.renewal = Some(world.renewal_of(&chain, Validity::starting(NOW, 8 * DAY)));
    let (part, limit) = (ChainPart::Renewal, Limit::Validity);
    assert_eq!(refusal(&world, &chain, NOW), ChainError::LimitExceeded { part, limit });
}

#[test]
fn a_key_that_may_only_renew_cannot_admit_a_device() {
    let world = World::new();
    let mut chain = world.chain();
    chain.delegation = world.delegate(&world.renewer, Scope::Renew);
    chain.certificate = Signed::sign(world.network(), &world.renewer, &world.certificate());
    assert!(matches!(refusal(&world, &chain, NOW), ChainError::WrongScope { .. }));
}

#[test]
fn an_invited_device_counts_once_it_is_renewed() {
    let world = World::new();
    for needs_approval in [false, true] {
        let mut grant = world.grant();
        grant.needs_approval = needs_approval;
        let name = "laptop".parse().unwrap();
        let mut chain = world.invite_for(&grant).certify(world.device.id(), &name, 0, NOW).unwrap();
        assert_eq!(refusal(&world, &chain, NOW), ChainError::NeedsApproval);
        chain.renewal = Some(world.renewal_of(&chain, Validity::starting(NOW, DAY)));
        let member = chain.verify(world.network(), NOW, &world.revocations).unwrap();
        assert_eq!(member.invite, Some(world.invite.id()));
        assert!(member.is_relay());
    }
}

#[test]
fn an_invite_key_cannot_go_beyond_its_grant() {
    let world = World::new();
    let mut grant = world.grant();
    grant.name = Some("laptop".parse().unwrap());
    let invite = world.invite_for(&grant);
    let good = invite.certify(world.device.id(), &"laptop".parse().unwrap(), 3, NOW).unwrap();
    let made: identity::Certificate =
        good.certificate.verify(world.network(), world.invite.id()).unwrap();
    let forged = |change: &dyn Fn(&mut identity::Certificate)| {
        let mut certificate = made.clone();
        change(&mut certificate);
        let mut chain = good.clone();
        chain.certificate = Signed::sign(world.network(), &world.invite, &certificate);
        refusal(&world, &chain, NOW)
    };
    let part = ChainPart::Certificate;
    let too_far = |limit| ChainError::LimitExceeded { part, limit };
    assert_eq!(forged(&|c| c.name = "other".parse().unwrap()), too_far(Limit::Name));
    assert_eq!(forged(&|c| c.groups.push("staff".parse().unwrap())), too_far(Limit::Groups));
    assert_eq!(forged(&|c| c.groups = vec![GroupName::relay(); 33]), too_far(Limit::Groups));
    assert_eq!(forged(&|c| c.serial = Serial(1)), too_far(Limit::Serial));
    assert_eq!(forged(&|c| c.counter += 1), too_far(Limit::Address));
    let neighbour = DeviceKey::from_bytes(&[1; 32]).id();
    assert_eq!(forged(&|c| c.device = neighbour), too_far(Limit::Address));
    assert_eq!(
        forged(&|c| c.validity = Validity::starting(NOW, 8 * DAY)),
        too_far(Limit::Validity)
    );
    let late = forged(&|c| c.validity = Validity::starting(NOW.plus(DAY), DAY));
    let (part, source) = (ChainPart::Grant, ValidityError::Expired(NOW.plus(DAY)));
    assert_eq!(late, ChainError::Validity { part, source });
}

#[test]
fn a_grant_cannot_go_beyond_its_issuer() {
    let world = World::new();
    let mut grant = world.grant();
    grant.max_validity += 1;
    let error = world.invite_for(&grant).grant().unwrap_err();
    let (part, limit) = (ChainPart::Grant, Limit::Validity);
    assert_eq!(error, ChainError::LimitExceeded { part, limit }.into());
    let stranger = DelegatedKey::from_bytes(&[8; 32]);
    let mut invite = world.invite_for(&world.grant());
    invite.grant = Signed::sign(world.network(), &stranger, &world.grant());
    assert!(matches!(
        invite.grant().unwrap_err(),
        identity::InviteError::Chain(ChainError::Signature { part: ChainPart::Grant, .. })
    ));
}

#[test]
fn a_chain_with_any_single_byte_changed_is_refused() {
    let world = World::new();
    let invite = world.invite_for(&world.grant());
    let mut chain = invite.certify(world.device.id(), &"laptop".parse().unwrap(), 0, NOW).unwrap();
    chain.renewal = Some(world.renewal_of(&chain, Validity::starting(NOW, DAY)));
    let good = chain.to_bytes();
    for at in 0..good.len() {
        for mask in [0x01, 0x20, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= mask;
            let accepted = CertificateChain::from_bytes(&bytes)
                .is_ok_and(|c| c.verify(world.network(), NOW, &world.revocations).is_ok());
            assert!(!accepted, "byte {at} changed by {mask:#x} was accepted");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_change_of_one_byte_is_accepted(at in any::<prop::sample::Index>(), mask in 1u8..) {
        let world = World::new();
        let mut bytes = world.chain().to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        let accepted = CertificateChain::from_bytes(&bytes)
            .is_ok_and(|c| c.verify(world.network(), NOW, &world.revocations).is_ok());
        prop_assert!(!accepted);
    }

    #[test]
    fn no_bytes_panic_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let world = World::new();
        if let Ok(chain) = CertificateChain::from_bytes(&bytes) {
            prop_assert!(chain.verify(world.network(), NOW, &world.revocations).is_err());
        }
    }

    #[test]
    fn no_inserted_bytes_panic_the_parser(
        at in any::<prop::sample::Index>(),
        put in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let world = World::new();
        let mut bytes = world.chain().to_bytes();
        let at = at.index(bytes.len());
        let end = (at + put.len()).min(bytes.len());
        bytes.splice(at..end, put);
        let _ = CertificateChain::from_bytes(&bytes)
            .map(|chain| chain.verify(world.network(), NOW, &world.revocations));
    }
}

#[test]
fn a_chain_that_is_too_large_is_not_looked_at() {
    let bytes = vec![0x84; CertificateChain::MAX_SIZE + 1];
    assert_eq!(CertificateChain::from_bytes(&bytes), Err(SignatureError::TooLarge));
    assert_eq!(CertificateChain::from_bytes(&[]), Err(SignatureError::Malformed));
}

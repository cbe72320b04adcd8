//! Records, their signers, and the refusal to go back.

use identity::{
    DelegationError, Epoch, RecordError, RecordFloors, RevocationTarget, Scope, Signed, Validity,
    ValidityError, verify_record,
};

use crate::world::{DAY, NOW, World};

#[test]
fn a_newer_record_replaces_an_older_one_and_never_the_other_way_round() {
    let world = World::new();
    let authorities = world.authorities();
    let mut floors = RecordFloors::new();
    let mut accept = |version, host| {
        let signed = world.record(&world.renewer, (0, version), world.lease(host));
        floors.accept(&signed, &authorities, &world.revocations).map(|record| record.body)
    };
    assert_eq!(accept(3, 1), Ok(world.lease(1)));
    assert_eq!(accept(5, 2), Ok(world.lease(2)));
    assert_eq!(accept(5, 2), Ok(world.lease(2)));
    assert_eq!(accept(3, 1), Err(RecordError::RolledBack { found: 3, known: 5 }));
    assert_eq!(accept(5, 9), Err(RecordError::Conflict(5)));
}

#[test]
fn what_was_seen_is_remembered_across_a_restart() {
    let world = World::new();
    let authorities = world.authorities();
    let mut floors = RecordFloors::new();
    let new = world.record(&world.renewer, (0, 2), world.lease(2));
    floors.accept(&new, &authorities, &world.revocations).unwrap();
    let mut floors: RecordFloors = minicbor::decode(&minicbor::to_vec(&floors).unwrap()).unwrap();
    let old = world.record(&world.renewer, (0, 1), world.lease(1));
    let refused = floors.accept(&old, &authorities, &world.revocations).unwrap_err();
    assert_eq!(refused, RecordError::RolledBack { found: 1, known: 2 });
}

#[test]
fn a_successor_of_a_revoked_signer_counts_anew() {
    let mut world = World::new();
    let mut authorities = world.authorities();
    let successor = identity::DelegatedKey::from_bytes(&[77; 32]);
    authorities.add(&world.delegate(&successor, Scope::Renew)).unwrap();
    let mut floors = RecordFloors::new();
    let high = world.record(&world.renewer, (0, u64::MAX), world.lease(1));
    floors.accept(&high, &authorities, &world.revocations).unwrap();
    let (first, second) = (
        world.record(&successor, (0, 1), world.lease(2)),
        world.record(&successor, (0, 2), world.lease(3)),
    );
    let refused = floors.accept(&second, &authorities, &world.revocations).unwrap_err();
    assert_eq!(refused, RecordError::RolledBack { found: 2, known: u64::MAX });
    world.revoke(RevocationTarget::Delegated(world.renewer.id()));
    let mut floors: RecordFloors = minicbor::decode(&minicbor::to_vec(&floors).unwrap()).unwrap();
    assert!(floors.accept(&second, &authorities, &world.revocations).is_ok());
    let late = floors.accept(&first, &authorities, &world.revocations).unwrap_err();
    assert_eq!(late, RecordError::RolledBack { found: 1, known: 2 });
    let gone = floors.accept(&high, &authorities, &world.revocations).unwrap_err();
    assert_eq!(gone, RecordError::RevokedSigner(world.renewer.id()));
}

#[test]
fn a_new_epoch_ends_the_records_of_the_old_one_and_lets_versions_begin_anew() {
    let world = World::new();
    let mut authorities = world.authorities();
    let mut floors = RecordFloors::new();
    let old = world.record(&world.renewer, (0, 9), world.lease(1));
    floors.accept(&old, &authorities, &world.revocations).unwrap();
    let new = world.record(&world.renewer, (1, 1), world.lease(2));
    let early = floors.accept(&new, &authorities, &world.revocations).unwrap_err();
    assert_eq!(early, RecordError::WrongEpoch { found: 1, current: 0 });

    let epoch = Epoch { number: 1, at: NOW };
    let forged = Signed::sign(world.network(), &world.renewer, &epoch);
    assert!(authorities.advance_epoch(&forged).is_err());
    let signed = Signed::sign(world.network(), &world.root, &epoch);
    assert_eq!(authorities.advance_epoch(&signed), Ok(true));
    assert_eq!(authorities.advance_epoch(&signed), Ok(false));

    assert!(floors.accept(&new, &authorities, &world.revocations).is_ok());
    let late = floors.accept(&old, &authorities, &world.revocations).unwrap_err();
    assert_eq!(late, RecordError::WrongEpoch { found: 0, current: 1 });
}

#[test]
fn a_record_needs_a_signer_of_its_scope() {
    let mut world = World::new();
    let mut authorities = world.authorities();
    let by_issuer = world.record(&world.issuer, (0, 1), world.lease(1));
    let (signer, scope) = (world.issuer.id(), Scope::Renew);
    assert_eq!(
        verify_record(&by_issuer, &authorities, &world.revocations),
        Err(RecordError::Delegation(DelegationError::NotDelegated { signer, scope }))
    );
    let good = world.record(&world.renewer, (0, 1), world.lease(1));
    assert!(verify_record(&good, &authorities, &world.revocations).is_ok());
    world.revoke(RevocationTarget::Delegated(world.renewer.id()));
    assert_eq!(
        verify_record(&good, &authorities, &world.revocations),
        Err(RecordError::RevokedSigner(world.renewer.id()))
    );

    let mut late = world.delegation(&world.issuer, Scope::Renew);
    late.validity = Validity::starting(NOW.plus(DAY), DAY);
    authorities.add(&world.by_root(&late)).unwrap();
    assert_eq!(
        verify_record(&by_issuer, &authorities, &world.revocations),
        Err(RecordError::Validity(ValidityError::NotYetValid(NOW.plus(DAY))))
    );
}

#[test]
fn a_record_that_claims_another_signer_is_refused() {
    let world = World::new();
    let authorities = world.authorities();
    let record = identity::Record {
        signer: world.renewer.id(),
        epoch: 0,
        version: 1,
        at: NOW,
        withdrawn: false,
        body: world.lease(1),
    };
    let forged = Signed::sign(world.network(), &world.device, &record);
    let refused = verify_record(&forged, &authorities, &world.revocations).unwrap_err();
    assert_eq!(refused, RecordError::Signature(identity::SignatureError::BadSignature));
}

#[test]
fn of_two_delegations_for_a_key_the_one_that_ends_later_stays() {
    let world = World::new();
    let mut authorities = world.authorities();
    let mut shorter = world.delegation(&world.renewer, Scope::Renew);
    shorter.validity = Validity::starting(NOW, DAY);
    assert_eq!(authorities.add(&world.by_root(&shorter)), Ok(false));
    let kept = authorities.delegation(world.renewer.id(), Scope::Renew).unwrap();
    assert_eq!(*kept, world.delegation(&world.renewer, Scope::Renew));
    assert_eq!(authorities.signed_delegations().count(), 3);
    let foreign = World::seeded(2);
    let refused = authorities.add(&foreign.delegate(&foreign.issuer, Scope::Issue));
    assert_eq!(refused, Err(DelegationError::WrongNetwork));
}

//! The list of what does not count any more.

use identity::{
    DelegationError, Epoch, RevocationEntry, RevocationError, RevocationTarget, Revocations,
    Serial, Signed, StatementHash,
};

use crate::world::{NOW, World};

fn target(n: u64) -> RevocationTarget {
    RevocationTarget::Serial(Serial(n))
}

fn sign(world: &World, entry: &RevocationEntry) -> Signed<RevocationEntry> {
    Signed::sign(world.network(), &world.revoker, entry)
}

/// A list that revokes the serials 1 to `count`.
fn world_with(count: u64) -> World {
    let mut world = World::new();
    (1..=count).for_each(|n| world.revoke(target(n)));
    world
}

#[test]
fn a_list_passed_on_entry_by_entry_arrives_whole() {
    let world = world_with(3);
    let mut copy = Revocations::new(world.network());
    for entry in world.revocations.entries_after(0) {
        assert!(copy.apply(entry, &world.authorities()).unwrap().is_some());
        assert_eq!(copy.apply(entry, &world.authorities()), Ok(None));
    }
    assert_eq!((copy.number(), copy.head()), (3, world.revocations.head()));
    assert!(copy.contains(&target(2)) && !copy.contains(&target(4)));
    assert_eq!(copy.targets().count(), 3);
    assert_eq!(copy.entries_after(2).len(), 1);
    assert!(copy.entries_after(u64::MAX).is_empty());
}

#[test]
fn a_gap_names_what_is_missing() {
    let world = world_with(3);
    let mut copy = Revocations::new(world.network());
    let last = &world.revocations.entries_after(2)[0];
    let missing = RevocationError::Gap { from: 1, to: 2 };
    assert_eq!(copy.apply(last, &world.authorities()), Err(missing));
    let fresh = world.revocations.freshness(world.revoker.id(), NOW);
    let fresh = Signed::sign(world.network(), &world.revoker, &fresh);
    let missing = RevocationError::Gap { from: 1, to: 3 };
    assert_eq!(copy.refresh(&fresh, &world.authorities()), Err(missing));
}

#[test]
fn two_lists_of_one_epoch_are_an_alarm() {
    let mut world = world_with(2);
    let mut entry =
        world.revocations.next_entry(target(9), world.revoker.id(), &world.authorities(), NOW);
    entry.previous = StatementHash::NONE;
    let signed = sign(&world, &entry);
    let forked = Err(RevocationError::Fork(3));
    assert_eq!(world.revocations.apply(&signed, &world.authorities()), forked);
    entry.number = 1;
    let signed = sign(&world, &entry);
    let forked = Err(RevocationError::Fork(1));
    assert_eq!(world.revocations.apply(&signed, &world.authorities()), forked);
    entry.number = 0;
    let signed = sign(&world, &entry);
    assert!(world.revocations.apply(&signed, &world.authorities()).is_err());
}

#[test]
fn only_a_key_of_scope_revoke_revokes() {
    let mut world = World::new();
    let authorities = world.authorities();
    let entry = world.revocations.next_entry(target(1), world.renewer.id(), &authorities, NOW);
    let signed = Signed::sign(world.network(), &world.renewer, &entry);
    assert!(matches!(
        world.revocations.apply(&signed, &authorities),
        Err(RevocationError::Delegation(DelegationError::NotDelegated { .. }))
    ));
    let entry = world.revocations.next_entry(target(1), world.revoker.id(), &authorities, NOW);
    let signed = Signed::sign(world.network(), &world.renewer, &entry);
    assert!(matches!(
        world.revocations.apply(&signed, &authorities),
        Err(RevocationError::Signature(_))
    ));
    assert!(!world.revocations.contains(&target(1)));
}

#[test]
fn a_revoked_key_revokes_nothing_more() {
    let mut world = World::new();
    world.revoke(RevocationTarget::Delegated(world.revoker.id()));
    let authorities = world.authorities();
    let entry = world.revocations.next_entry(target(1), world.revoker.id(), &authorities, NOW);
    let signed = sign(&world, &entry);
    assert_eq!(
        world.revocations.apply(&signed, &authorities),
        Err(RevocationError::RevokedSigner(world.revoker.id()))
    );
}

#[test]
fn freshness_moves_forward_only() {
    let mut world = world_with(1);
    let authorities = world.authorities();
    let fresh = |world: &World, at| {
        let statement = world.revocations.freshness(world.revoker.id(), at);
        Signed::sign(world.network(), &world.revoker, &statement)
    };
    let (first, second) = (fresh(&world, NOW), fresh(&world, NOW.plus(300)));
    assert_eq!(world.revocations.fresh_at(), None);
    assert_eq!(world.revocations.refresh(&second, &authorities), Ok(true));
    assert_eq!(world.revocations.refresh(&first, &authorities), Ok(false));
    assert_eq!(world.revocations.fresh_at(), Some(NOW.plus(300)));
    assert_eq!(world.revocations.signed_freshness(), Some(&second));
}

#[test]
fn after_a_restore_the_list_goes_on_in_a_new_epoch_and_forgets_nothing() {
    let mut world = world_with(3);
    let mut authorities = world.authorities();
    let mut restored = Revocations::new(world.network());
    restored.apply(&world.revocations.entries_after(0)[0], &authorities).unwrap();
    let mut entry = restored.next_entry(target(7), world.revoker.id(), &authorities, NOW);
    entry.epoch = 1;
    let signed = sign(&world, &entry);
    let unknown = Err(RevocationError::WrongEpoch(1));
    assert_eq!(world.revocations.apply(&signed, &authorities), unknown);
    let epoch = Signed::sign(world.network(), &world.root, &Epoch { number: 1, at: NOW });
    authorities.advance_epoch(&epoch).unwrap();
    assert_eq!(world.revocations.apply(&signed, &authorities), Ok(Some(target(7))));
    assert_eq!(world.revocations.number(), 2);
    assert!([1, 2, 3, 7].iter().all(|n| world.revocations.contains(&target(*n))));
}

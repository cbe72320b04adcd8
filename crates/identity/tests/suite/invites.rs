//! Joining.

use identity::{DeviceName, Invite, InviteError, MAX_INVITE_LENGTH, Validity, ValidityError};
use proptest::prelude::*;

use crate::world::{DAY, NOW, World};

fn laptop() -> DeviceName {
    "laptop".parse().unwrap()
}

#[test]
fn an_invite_survives_its_text_form() {
    let world = World::new();
    let invite = world.invite_for(&world.grant());
    let text = invite.to_string();
    assert!(text.starts_with("smi1"));
    assert_eq!(text.parse::<Invite>().unwrap(), invite);
    let (head, tail) = text.split_at(100);
    assert_eq!(format!("  {head}\r\n {tail}\n").parse::<Invite>().unwrap(), invite);
}

#[test]
fn a_device_certifies_itself_with_an_invite() {
    let world = World::new();
    let invite = world.invite_for(&world.grant());
    let certified = |counter| {
        let mut chain = invite.certify(world.device.id(), &laptop(), counter, NOW).unwrap();
        chain.renewal = Some(world.renewal_of(&chain, Validity::starting(NOW, DAY)));
        chain
    };
    let chain = certified(2);
    let member = chain.verify(world.network(), NOW, &world.revocations).unwrap();
    assert_eq!((member.device, member.name), (world.device.id(), laptop()));
    let taken = certified(1);
    let other = taken.verify(world.network(), NOW, &world.revocations).unwrap();
    assert_ne!(member.address, other.address);
}

#[test]
fn an_invite_is_refused_before_and_after_its_time() {
    let world = World::new();
    let invite = world.invite_for(&world.grant());
    let certify = |now| invite.certify(world.device.id(), &laptop(), 0, now).unwrap_err();
    let late = ValidityError::Expired(NOW.plus(DAY));
    assert_eq!(certify(NOW.plus(DAY)), InviteError::Validity(late));
    let early = ValidityError::NotYetValid(NOW);
    assert_eq!(certify(NOW.minus(3600)), InviteError::Validity(early));
}

#[test]
fn an_invite_with_a_fixed_name_gives_no_other() {
    let world = World::new();
    let mut grant = world.grant();
    grant.name = Some("server".parse().unwrap());
    let invite = world.invite_for(&grant);
    let refused = invite.certify(world.device.id(), &laptop(), 0, NOW);
    assert_eq!(refused.unwrap_err(), InviteError::NameFixed);
}

#[test]
fn an_invite_whose_issuer_had_no_say_any_more_is_refused() {
    let world = World::new();
    let mut delegation = world.delegation(&world.issuer, identity::Scope::Issue);
    delegation.validity = Validity::starting(NOW.minus(2 * DAY), DAY);
    let mut invite = world.invite_for(&world.grant());
    invite.delegation = world.by_root(&delegation);
    let refused = invite.certify(world.device.id(), &laptop(), 0, NOW);
    assert!(matches!(refused, Err(InviteError::Chain(_))));
}

#[test]
fn a_text_that_is_no_invite_says_what_is_wrong_with_it() {
    let world = World::new();
    let text = world.invite_for(&world.grant()).to_string();
    let error = |text: &str| text.parse::<Invite>().unwrap_err();
    assert_eq!(error("hello"), InviteError::NotAnInvite);
    assert_eq!(error(&text[..text.len() - 10]), InviteError::Damaged);
    assert_eq!(error("smi1"), InviteError::Damaged);
    let swapped = text.replacen(&text[50..51], if &text[50..51] == "A" { "B" } else { "A" }, 1);
    assert_eq!(error(&swapped), InviteError::Damaged);
    assert_eq!(error(&"smi1".repeat(MAX_INVITE_LENGTH)), InviteError::TooLong);
}

#[test]
fn an_invite_shows_no_secret_when_debugged() {
    let world = World::new();
    let invite = world.invite_for(&world.grant());
    let shown = format!("{invite:?} {:?} {:?}", invite.key, invite.path_secret);
    let seed = world.invite.to_bytes();
    assert!(!shown.contains(&format!("{:?}", seed.as_slice())));
    assert!(!shown.contains("5, 5, 5"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_text_panics_the_parser(text in "(smi1)?[A-Za-z0-9_-]{0,200}") {
        prop_assert!(text.parse::<Invite>().is_err());
    }
}

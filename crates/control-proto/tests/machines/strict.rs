//! A network whose controller may renew and revoke only; the owner makes invites and signs records.

use std::time::Duration;

use crate::world::World;
use control_proto::{
    AdminAnswer, AdminError, AdminRequest, ClientStatus, ControllerPlace, InviteRequest, MapItem,
    Mode, Outline, Owner, Refusal, RelayHealth, SettingsChange, Unsigned,
};
use identity::{Epoch, Invite, NetworkKey, RelayEntry, Scope, ServerAddress, Signed, TlsMode};

fn strict() -> (World, Owner) {
    let world = World::new(&[Scope::Renew, Scope::Revoke]);
    let owner = Owner::new(world.network_key.clone());
    (world, owner)
}

fn outline(world: &mut World) -> Outline {
    match world.admin(AdminRequest::Outline).unwrap() {
        AdminAnswer::Outline { outline } => outline.parse().unwrap(),
        other => panic!("not an outline: {other:?}"),
    }
}

fn unsigned(world: &mut World) -> Unsigned {
    match world.admin(AdminRequest::Unsigned).unwrap() {
        AdminAnswer::Unsigned { unsigned } => unsigned.parse().unwrap(),
        other => panic!("not what waits: {other:?}"),
    }
}

fn invite(world: &mut World, owner: &Owner, request: &InviteRequest) -> Invite {
    let outline = outline(world);
    let now = world.wall();
    let made = owner.invites(&outline, request, &mut world.rng, now).unwrap();
    made.into_iter().next().unwrap().0
}

fn publish(world: &mut World, items: &[MapItem]) -> Result<AdminAnswer, AdminError> {
    let items = items.iter().map(MapItem::to_text).collect();
    world.admin(AdminRequest::Publish { items })
}

/// What waits is signed by the owner and published.
fn sign(world: &mut World, owner: &Owner) -> usize {
    let waiting = unsigned(world);
    for item in owner.sign(&waiting, world.now.wall) {
        publish(world, &[item]).unwrap();
    }
    waiting.len()
}

fn joined(world: &mut World, owner: &Owner, name: &str) -> usize {
    let invite = invite(world, owner, &InviteRequest::default());
    world.join(&invite, name)
}

fn relay_entry(world: &World, index: usize) -> RelayEntry {
    RelayEntry {
        device: world.id(index),
        channel_key: world.nodes[index].channel_key.public(),
        servers: vec![ServerAddress {
            host: "127.0.0.1".into(),
            port: 8443,
            addresses: Vec::new(),
            tls: TlsMode::Plain,
        }],
        stun: Vec::new(),
        region: String::new(),
        groups: Vec::new(),
    }
}

#[test]
fn the_controller_admits_nobody_by_itself_and_the_owner_does() {
    let (mut world, owner) = strict();
    let refused = world.admin(AdminRequest::CreateInvite(InviteRequest::default()));
    assert!(matches!(refused, Err(AdminError::KeyNotHeld { .. })));
    // What it can sign is no grant: an invite of another root, or by a key that may not issue.
    let stranger = Owner::new(NetworkKey::generate(&mut world.rng));
    let outline = outline(&mut world);
    let now = world.wall();
    let request = InviteRequest::default();
    let refused = stranger.invites(&outline, &request, &mut world.rng, now);
    assert_eq!(refused.err(), Some(AdminError::OtherNetwork));
    let theirs = Outline { network: stranger.network(), ..outline };
    let mut forged = stranger.invites(&theirs, &request, &mut world.rng, now).unwrap().remove(0).0;
    forged.network = owner.network();
    let index = world.join(&forged, "forged");
    assert!(matches!(world.status(index), ClientStatus::Refused(Refusal::Chain { .. })));
    assert!(world.disk.devices.is_empty());

    let first = joined(&mut world, &owner, "first");
    let second = joined(&mut world, &owner, "second");
    assert_eq!(world.status(first), ClientStatus::Online);
    assert_eq!(world.map(first).peers().count(), 2);
    assert!(world.map(second).ipv4(world.id(first)).is_some(), "leases are the controller's");
    world.pass(Duration::from_secs(30 * 24 * 3_600));
    assert_eq!(world.map(first).peers().count(), 2, "and so are renewals");
    let device = world.id(second);
    world.admin(AdminRequest::RemoveDevice { device }).unwrap();
    assert_eq!(world.map(first).peers().count(), 1, "and revocations");
}

#[test]
fn an_invite_of_the_owner_admits_one_device_that_waits_if_it_has_to() {
    let (mut world, owner) = strict();
    let request = InviteRequest { approval: Some(true), ..InviteRequest::default() };
    let invite = invite(&mut world, &owner, &request);
    let index = world.join(&invite, "first");
    assert_eq!(world.status(index), ClientStatus::Pending);
    let device = world.id(index);
    world.admin(AdminRequest::ApproveDevice { device }).unwrap();
    assert_eq!(world.status(index), ClientStatus::Online);
    let again = world.join(&invite, "second");
    assert_eq!(world.status(again), ClientStatus::Refused(Refusal::InviteUsed));
}

#[test]
fn an_invite_of_the_owner_can_be_revoked_before_it_is_used() {
    let (mut world, owner) = strict();
    let invite = invite(&mut world, &owner, &InviteRequest::default());
    let key = invite.grant().unwrap().key;
    world.admin(AdminRequest::RevokeInvite { invite: key }).unwrap();
    let index = world.join(&invite, "late");
    assert_eq!(world.status(index), ClientStatus::Refused(Refusal::InviteRevoked));
}

#[test]
fn invites_made_together_have_serials_of_their_own() {
    let (mut world, owner) = strict();
    let outline = outline(&mut world);
    let request = InviteRequest { uses: 50, ..InviteRequest::default() };
    let now = world.wall();
    let made = owner.invites(&outline, &request, &mut world.rng, now).unwrap();
    let serials: std::collections::BTreeSet<_> = made.iter().map(|(_, g)| g.serial).collect();
    assert_eq!(serials.len(), 50);
    let request = InviteRequest { uses: 2, name: Some("one".parse().unwrap()), ..request };
    let refused = owner.invites(&outline, &request, &mut world.rng, now);
    assert_eq!(refused.err(), Some(AdminError::NameForMany));
}

#[test]
fn settings_and_places_count_for_nodes_once_the_owner_has_signed_them() {
    let (mut world, owner) = strict();
    let index = joined(&mut world, &owner, "node");
    assert!(world.map(index).info().is_none());
    assert_eq!(sign(&mut world, &owner), 2);
    assert_eq!(world.map(index).info().unwrap().name.as_str(), "home");
    assert_eq!(world.map(index).controllers().count(), 1);
    assert!(unsigned(&mut world).is_empty());

    let place = ControllerPlace { host: "moved.example".into(), port: 443, addresses: Vec::new() };
    let change = SettingsChange {
        approval: Some(true),
        controllers: Some(vec![place]),
        ..SettingsChange::default()
    };
    world.admin(AdminRequest::ChangeSettings(change)).unwrap();
    assert!(!world.map(index).info().unwrap().needs_approval);
    world.pass(Duration::from_secs(5));
    assert_eq!(sign(&mut world, &owner), 2);
    assert!(world.map(index).info().unwrap().needs_approval);
    assert_eq!(world.map(index).controllers().next().unwrap().servers[0].port, 443);
    // It is all there after a restart.
    world.crash();
    world.start();
    assert!(unsigned(&mut world).is_empty());
    let AdminAnswer::Network(view) = world.admin(AdminRequest::Network).unwrap() else {
        panic!("not a network")
    };
    assert_eq!((view.mode, view.unsigned), (Mode::Strict, 0));
}

#[test]
fn the_entry_of_a_relay_waits_for_the_owner() {
    let (mut world, owner) = strict();
    let node = joined(&mut world, &owner, "node");
    let request = InviteRequest { relay: true, ..InviteRequest::default() };
    let invite = invite(&mut world, &owner, &request);
    let relay = world.join(&invite, "relay");
    sign(&mut world, &owner);
    let entry = relay_entry(&world, relay);
    let now = world.now.instant;
    world.nodes[relay].client.offer_relay(entry.clone(), now);
    world.settle();
    assert_eq!(world.map(node).relays().count(), 0);
    assert_eq!(unsigned(&mut world).relays, std::slice::from_ref(&entry));
    assert_eq!(sign(&mut world, &owner), 1);
    assert_eq!(world.map(node).relays().collect::<Vec<_>>(), [(&entry, RelayHealth::default())]);
    assert!(unsigned(&mut world).is_empty());
    assert_eq!(outline(&mut world).relays, [entry]);
    // It comes back after a restart of the controller without being signed again.
    world.crash();
    world.start();
    world.pass(Duration::from_secs(100));
    assert!(unsigned(&mut world).is_empty());
    assert_eq!(world.map(node).relays().count(), 1);
}

#[test]
fn an_entry_that_is_too_long_does_not_wait() {
    let (mut world, owner) = strict();
    let request = InviteRequest { relay: true, ..InviteRequest::default() };
    let invite = invite(&mut world, &owner, &request);
    let relay = world.join(&invite, "relay");
    let entry = RelayEntry { region: "x".repeat(3_000), ..relay_entry(&world, relay) };
    let now = world.now.instant;
    world.nodes[relay].client.offer_relay(entry, now);
    world.settle();
    assert!(unsigned(&mut world).relays.is_empty());
    assert_eq!(world.events.len(), 1);
}

#[test]
fn what_another_signed_or_what_is_older_is_not_published() {
    let (mut world, owner) = strict();
    let waiting = unsigned(&mut world);
    let stranger = Owner::new(NetworkKey::generate(&mut world.rng));
    let now = world.now.wall;
    for item in stranger.sign(&waiting, now) {
        let refused = publish(&mut world, &[item]);
        assert!(matches!(refused, Err(AdminError::NotBelieved { .. })), "{refused:?}");
    }
    let good = owner.sign(&waiting, now);
    let without_delegation = publish(&mut world, &good[1..]);
    assert!(matches!(without_delegation, Err(AdminError::NotBelieved { .. })));
    publish(&mut world, &good).unwrap();
    publish(&mut world, &good).unwrap();
    let before = control_proto::UnixMillis(now.0 - 5_000);
    let older = publish(&mut world, &owner.sign(&waiting, before));
    assert!(matches!(older, Err(AdminError::NotBelieved { .. })), "{older:?}");
    let peer = MapItem::Gone(identity::DeviceId::from_bytes([7; 32]));
    assert!(matches!(publish(&mut world, &[peer]), Err(AdminError::NotBelieved { .. })));
    let many = world.admin(AdminRequest::Publish { items: vec![String::new(); 9] });
    assert!(matches!(many, Err(AdminError::OutOfBounds { .. })));
}

#[test]
fn a_new_epoch_asks_for_new_signatures() {
    let (mut world, owner) = strict();
    let index = joined(&mut world, &owner, "node");
    sign(&mut world, &owner);
    world.crash();
    let epoch = Epoch { number: 1, at: world.wall() };
    world.config.epoch = Some(Signed::sign(world.network_key.id(), &world.network_key, &epoch));
    world.start();
    world.pass(Duration::from_secs(120));
    assert_eq!(unsigned(&mut world).len(), 2);
    assert_eq!(sign(&mut world, &owner), 2);
    assert_eq!(world.status(index), ClientStatus::Online);
    assert_eq!(world.map(index).info().unwrap().name.as_str(), "home");
}

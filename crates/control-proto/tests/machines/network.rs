//! A controller and its nodes, from the first invite to the last revocation.

use std::time::Duration;

use control_proto::{
    AdminAnswer, AdminError, AdminRequest, Admission, ClientEvent, ClientStatus, ControllerAddress,
    InviteRequest, InviteState, LoadReport, NetworkMap, Refusal, RelayHealth, SecurityEvent,
};
use identity::{RelayEntry, Scope, ServerAddress, TlsMode};

use crate::world::{World, devices, endpoints, joined};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn every_node_learns_of_every_other() {
    let world = joined(8);
    for index in 0..8 {
        assert_eq!(world.status(index), ClientStatus::Online);
        assert_eq!(world.map(index).peers().count(), 8);
        assert!(world.map(index).ipv4(world.id((index + 1) % 8)).is_some());
        assert_eq!(world.map(index).info().unwrap().name.as_str(), "home");
    }
    assert!(world.events.is_empty(), "{:?}", world.events);
}

#[test]
fn a_clock_that_is_set_back_does_not_set_the_network_back() {
    let mut world = joined(1);
    world.pass(Duration::from_secs(60));
    let day = i64::try_from(DAY.as_millis()).unwrap();
    for error in [-day, day, -day, 0] {
        world.nodes[0].clock_error = error;
        world.pass(Duration::from_secs(10));
        let forward = u64::try_from(error.max(0) / 1_000).unwrap();
        assert_eq!(world.node_wall(0), world.wall().plus(forward), "off by {error} ms");
    }
}

#[test]
fn an_invite_admits_one_device_and_that_one_again() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let first = world.join(&invite, "first");
    let second = world.join(&invite, "second");
    assert_eq!(world.status(first), ClientStatus::Online);
    assert_eq!(world.status(second), ClientStatus::Refused(Refusal::InviteUsed));
    assert!(matches!(world.events[0].event, SecurityEvent::InviteMisuse { .. }));
    // The first device comes again with the bare invite: its answer was lost.
    let key = world.nodes[first].key.clone();
    let again = world.join_as(&invite, "first", key);
    assert_eq!(world.status(again), ClientStatus::Online);
    assert_eq!(
        world.nodes[again].chain.as_ref(),
        Some(&world.disk.devices[&world.id(first)].chain)
    );
    assert_eq!(devices(&mut world).len(), 1);
    let AdminAnswer::Invites { invites } = world.admin(AdminRequest::Invites).unwrap() else {
        panic!("not a list of invites")
    };
    assert_eq!(invites[0].state, InviteState::Used);
    assert_eq!(invites[0].used_by, Some(world.id(first)));
}

#[test]
fn a_device_whose_name_is_taken_gets_a_free_one() {
    let mut world = World::simple();
    for _ in 0..3 {
        let invite = world.invite(InviteRequest::default());
        let index = world.join(&invite, "laptop");
        assert_eq!(world.status(index), ClientStatus::Online);
    }
    let mut names: Vec<_> = devices(&mut world).into_iter().map(|d| d.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["laptop", "laptop-2", "laptop-3"]);
}

#[test]
fn a_removed_device_is_revoked_at_once_everywhere() {
    let mut world = joined(3);
    let device = world.id(2);
    world.admin(AdminRequest::RemoveDevice { device }).unwrap();
    for index in 0..2 {
        assert!(world.map(index).peer(device).is_none());
        assert!(world.nodes[index].events.iter().any(|event| matches!(event,
            ClientEvent::MapChanged(changes) if changes.revoked.contains(&device))));
    }
    assert_eq!(world.status(2), ClientStatus::Stopped);
    // It does not come back with its old membership.
    let chain = Box::new(world.nodes[2].chain.clone().unwrap());
    let (key, channel) = (world.nodes[2].key.clone(), world.nodes[2].channel_key.clone());
    let invite = world.invite(InviteRequest::default());
    let address = ControllerAddress::from(&invite);
    let map = NetworkMap::new(invite.network);
    let again = world.add(key, channel, address, Admission::Chain(chain), map);
    world.settle();
    assert_eq!(world.status(again), ClientStatus::Stopped);
}

#[test]
fn a_device_that_needs_approval_sees_and_is_seen_only_afterwards() {
    let mut world = joined(1);
    let request = InviteRequest { approval: Some(true), ..InviteRequest::default() };
    let invite = world.invite(request);
    let index = world.join(&invite, "guest");
    let device = world.id(index);
    assert_eq!(world.status(index), ClientStatus::Pending);
    assert_eq!(world.map(index).peers().count(), 0);
    assert!(world.map(0).peer(device).is_none());
    world.admin(AdminRequest::ApproveDevice { device }).unwrap();
    assert_eq!(world.status(index), ClientStatus::Online);
    assert_eq!(world.map(index).peers().count(), 2);
    assert!(world.map(0).peer(device).is_some());
}

#[test]
fn a_membership_is_renewed_for_months() {
    let mut world = joined(2);
    world.pass(30 * DAY);
    for index in 0..2 {
        assert_eq!(world.status(index), ClientStatus::Online);
        assert_eq!(world.map(index).peers().count(), 2);
    }
}

#[test]
fn an_address_that_is_taken_is_refused_and_the_next_one_found() {
    let mut world = joined(1);
    let key = identity::DeviceKey::generate(&mut world.rng);
    // Hashes of 64 bits do not collide in a test: the other device gets the address by hand.
    let taken = identity::device_address(world.network_key.id(), key.id(), 0);
    let other = world.id(0);
    world.crash();
    world.disk.devices.get_mut(&other).unwrap().address = taken;
    world.start();
    let invite = world.invite(InviteRequest::default());
    let index = world.join_as(&invite, "second", key.clone());
    assert_eq!(world.status(index), ClientStatus::Online);
    let next = identity::device_address(world.network_key.id(), key.id(), 1);
    assert_eq!(world.disk.devices[&key.id()].address, next);
    assert_eq!(world.map(index).peer(key.id()).unwrap().member.address, next);
}

#[test]
fn a_strict_controller_cannot_admit_but_can_revoke_and_renew() {
    let mut world = World::new(&[Scope::Renew, Scope::Revoke]);
    let refused = world.admin(AdminRequest::CreateInvite(InviteRequest::default()));
    assert!(matches!(refused, Err(AdminError::KeyNotHeld { .. })));
    let AdminAnswer::Network(view) = world.admin(AdminRequest::Network).unwrap() else {
        panic!("not a network")
    };
    assert_eq!(view.mode, control_proto::Mode::Strict);
}

#[test]
fn a_wrong_clock_is_noticed_and_bridged() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let key = identity::DeviceKey::generate(&mut world.rng);
    let channel = identity::ChannelKey::generate(&mut world.rng);
    let admission =
        Admission::Invite { invite: Box::new(invite.clone()), name: "late".parse().unwrap() };
    let map = NetworkMap::new(invite.network);
    let index = world.add(key, channel, ControllerAddress::from(&invite), admission, map);
    world.nodes[index].clock_error = -7_200_000;
    world.settle();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.status(index), ClientStatus::Online);
    assert!(world.nodes[index].events.iter().any(|event| matches!(event,
        ClientEvent::ClockWrong { offset } if offset.0 >= 7_199_000)));
    assert!(matches!(world.events[0].event, SecurityEvent::ClockSkew { seconds: 7_200 }));
}

#[test]
fn a_relay_is_published_and_its_silence_is_noticed() {
    let mut world = joined(1);
    let invite = world.invite(InviteRequest { relay: true, ..InviteRequest::default() });
    let relay = world.join(&invite, "relay");
    let entry = RelayEntry {
        device: world.id(relay),
        channel_key: world.nodes[relay].channel_key.public(),
        servers: vec![ServerAddress {
            host: "127.0.0.1".into(),
            port: 7443,
            addresses: Vec::new(),
            tls: TlsMode::Plain,
        }],
        stun: Vec::new(),
        region: String::new(),
        groups: Vec::new(),
    };
    world.nodes[0].client.offer_relay(entry.clone(), world.now.instant);
    world.settle();
    assert_eq!(world.map(0).relays().count(), 0, "a device without the group is no relay");
    world.nodes[relay].client.offer_relay(entry.clone(), world.now.instant);
    world.settle();
    assert_eq!(world.map(0).relays().collect::<Vec<_>>(), [(&entry, RelayHealth::default())]);
    for _ in 0..5 {
        world.pass(Duration::from_secs(60));
        world.nodes[relay].client.report_load(LoadReport::default(), world.now.instant);
    }
    world.settle();
    assert!(world.map(0).relays().all(|(_, health)| health.healthy));
    // A load near a bound is not told again and again.
    for (busy_permille, told) in [(249, 0), (251, 1), (200, 1), (149, 0), (5_000, 4), (700, 3)] {
        let report = LoadReport { busy_permille, ..LoadReport::default() };
        world.nodes[relay].client.report_load(report, world.now.instant);
        world.settle();
        let loads: Vec<_> = world.map(0).relays().map(|(_, health)| health.load).collect();
        assert_eq!(loads, [told], "{busy_permille}");
    }
    world.pass(Duration::from_secs(131));
    assert!(world.map(0).relays().all(|(_, health)| !health.healthy));
    let invite = world.invite(InviteRequest::default());
    assert_eq!(invite.relays, [entry]);
}

#[test]
fn a_device_that_leaves_is_gone() {
    let mut world = joined(2);
    let now = world.now.instant;
    world.nodes[1].client.leave(now);
    world.settle();
    assert_eq!(world.status(1), ClientStatus::Stopped);
    assert_eq!(world.map(0).peers().count(), 1);
    assert_eq!(devices(&mut world).len(), 1);
}

#[test]
fn old_endpoints_are_refused() {
    let mut world = joined(2);
    for number in [2, 1] {
        let signed = endpoints(&world, 0, number, 4000);
        world.nodes[0].client.set_endpoints(signed, world.now.instant);
        world.settle();
    }
    let peer = world.map(1).peer(world.id(0)).unwrap();
    assert_eq!(peer.endpoints.as_ref().unwrap().number, 2);
    assert!(matches!(world.events[0].event, SecurityEvent::RollbackRefused { .. }));
}

#[test]
fn revocations_are_said_to_be_current_every_five_minutes() {
    let mut world = joined(1);
    let before = world.map(0).revocations().fresh_at().unwrap();
    world.pass(Duration::from_secs(301));
    assert!(world.map(0).revocations().fresh_at().unwrap() > before);
}

//! Bytes and items from hostile hands.

use crate::world::World;
use std::time::Duration;

use control_proto::{
    Admission, ClientStatus, ClockOffset, ConnectionId, Controller, ControllerAddress,
    ControllerMessage, InviteRequest, MapChunk, MapItem, MapVersion, NetworkMap, NodeMessage,
    Output, PeerEntry, Refusal, SecurityEvent,
};
use identity::{ChannelKey, DeviceKey, NetworkKey, UnixTime};
use noise_channel::limits::{ROTATE_AFTER, ROTATION_DEADLINE, ROTATION_RETRY};
use noise_channel::{Channel, InitiatorConfig, Service, StaticSecret};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const VERSION: MapVersion = MapVersion { epoch: 0, number: 1 };

fn two_nodes() -> World {
    let mut world = World::simple();
    for name in ["first", "second"] {
        let invite = world.invite(InviteRequest::default());
        world.join(&invite, name);
    }
    world
}

fn chunk(items: Vec<MapItem>) -> MapChunk {
    let items = items.into_iter().map(|item| item.to_bytes().into()).collect();
    MapChunk { base: None, version: VERSION, items, last: true }
}

fn entry(world: &World, index: usize) -> PeerEntry {
    world.map(0).peer(world.id(index)).unwrap().entry.clone()
}

#[test]
fn a_member_of_another_network_is_left_out() {
    let world = two_nodes();
    let foreign = NetworkKey::generate(&mut ChaCha20Rng::seed_from_u64(99)).id();
    let mut map = NetworkMap::new(foreign);
    let item = MapItem::Peer(world.id(0), entry(&world, 0));
    let applied = map.apply(&chunk(vec![item]), world.wall());
    assert_eq!(applied.events, [SecurityEvent::ForeignCertificate]);
    assert_eq!(map.peers().count(), 0);
}

#[test]
fn a_member_with_the_keys_of_another_is_left_out() {
    let world = two_nodes();
    let mut forged = entry(&world, 0);
    forged.binding = entry(&world, 1).binding;
    let mut map = NetworkMap::new(world.network_key.id());
    let item = MapItem::Peer(world.id(0), forged);
    let applied = map.apply(&chunk(vec![item]), world.wall());
    assert!(
        matches!(&applied.events[..], [SecurityEvent::ForgedStatement { what, .. }] if what == "binding")
    );
    assert_eq!(map.peers().count(), 0);
}

#[test]
fn a_second_device_of_an_invite_is_no_member_whoever_brings_it() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let first = world.join(&invite, "first");
    let second = world.join(&invite, "second");
    let (device, wall) = (world.id(second), world.wall());
    assert!(world.map(first).peer(world.id(first)).unwrap().entry.chain.renewal.is_some());
    let (key, channel_key) = (&world.nodes[second].key, &world.nodes[second].channel_key);
    let (key, channel_key) = (key.clone(), channel_key.clone());
    let entry = PeerEntry {
        chain: invite.certify(device, &"second".parse().unwrap(), 0, wall).unwrap(),
        binding: world.binding(&key, &channel_key, 9),
        endpoints: None,
    };
    let mut knows_first = world.map(first).clone();
    let mut knows_nobody = NetworkMap::new(invite.network);
    for map in [&mut knows_first, &mut knows_nobody] {
        let applied = map.introduce(device, &entry, wall);
        let reasons = &applied.events[..];
        assert!(matches!(reasons, [SecurityEvent::ForgedCertificate { .. }]), "{reasons:?}");
        assert!(map.peer(device).is_none());
    }
    assert!(knows_first.peer(world.id(first)).is_some(), "the first one stays");
}

#[test]
fn an_expired_member_is_left_out_and_a_member_expires_in_place() {
    let world = two_nodes();
    let mut map = NetworkMap::new(world.network_key.id());
    let peers = chunk(vec![MapItem::Peer(world.id(0), entry(&world, 0))]);
    assert!(map.apply(&peers, world.wall()).events.is_empty());
    let end = map.next_expiry().unwrap();
    assert!(map.expire(UnixTime(end.0 - 1)).changes.is_empty());
    assert!(map.expire(end).changes.peers.contains(&world.id(0)));
    let again = map.apply(&peers, end);
    assert!(matches!(again.events[..], [SecurityEvent::ExpiredCertificate { .. }]));
}

#[test]
fn an_expired_certificate_admits_nobody_even_by_an_invite_that_is_open() {
    let mut world = World::simple();
    let month = 30 * 86_400;
    let invite = world.invite(InviteRequest { expires_in: month, ..InviteRequest::default() });
    let key = DeviceKey::generate(&mut world.rng);
    let chain = invite.certify(key.id(), &"late".parse().unwrap(), 0, world.wall()).unwrap();
    world.pass(Duration::from_secs(month / 2));
    let channel_key = ChannelKey::generate(&mut world.rng);
    let map = NetworkMap::new(invite.network);
    let admission = Admission::Chain(Box::new(chain));
    let late = world.add(key, channel_key, ControllerAddress::from(&invite), admission, map);
    world.settle();
    assert!(matches!(world.status(late), ClientStatus::Refused(Refusal::Chain { .. })));
    let last = world.events.last().map(|record| &record.event);
    assert!(matches!(last, Some(SecurityEvent::ExpiredCertificate { .. })), "{last:?}");
    assert!(world.disk.devices.is_empty());
}

#[test]
fn changes_to_a_version_that_is_not_here_are_not_applied() {
    let world = two_nodes();
    let mut map = NetworkMap::new(world.network_key.id());
    let mut delta = chunk(vec![MapItem::Peer(world.id(0), entry(&world, 0))]);
    delta.base = Some(VERSION);
    assert!(map.apply(&delta, world.wall()).needs_resync);
    assert_eq!(map.peers().count(), 0);
}

#[test]
fn a_whole_map_without_a_member_drops_it_but_no_revocation() {
    let mut world = two_nodes();
    let device = world.id(1);
    let mut map = world.map(0).clone();
    let applied = map.apply(&chunk(Vec::new()), world.wall());
    assert_eq!(map.peers().count(), 0);
    assert_eq!(applied.changes.peers.len(), 2);
    let request = control_proto::AdminRequest::RemoveDevice { device };
    world.admin(request).unwrap();
    let mut map = world.map(0).clone();
    let _ = map.apply(&chunk(Vec::new()), world.wall());
    assert_eq!(map.revocations().number(), 1);
    let again = map.apply(&chunk(vec![MapItem::Peer(device, world_entry(&world))]), world.wall());
    assert!(matches!(again.events[..], [SecurityEvent::Revoked { .. }]));
}

/// What the removed node itself still has of itself.
fn world_entry(world: &World) -> PeerEntry {
    world.map(1).peer(world.id(1)).unwrap().entry.clone()
}

#[test]
fn the_cache_of_another_network_is_refused() {
    let world = two_nodes();
    let other = NetworkKey::generate(&mut ChaCha20Rng::seed_from_u64(99)).id();
    let bytes = world.map(0).to_bytes();
    assert!(NetworkMap::from_bytes(other, &bytes, world.wall()).is_err());
}

#[test]
fn rotations_that_a_stranger_asks_for_without_end_are_not_all_answered() {
    let mut world = World::simple();
    let (rng, now, nonce) = (&mut world.rng, world.now, [5; 16]);
    let (mut controller, connection) = (world.controller.take().unwrap(), ConnectionId(7));
    let secret = &world.config.path_secret;
    let mask = controller.recognise(&secret.path(Service::Control, nonce)).unwrap();
    let config = InitiatorConfig {
        static_key: StaticSecret::from_bytes([3; 32]),
        remote_static: *world.config.channel_key.public().as_bytes(),
        prologue: world.network_key.id().as_bytes().to_vec(),
        mask: mask.clone(),
        capability: 1,
        clock_offset: ClockOffset(0),
    };
    let mut channel = Channel::initiate(config, rng, now).unwrap();
    controller.handle_opened(connection, mask, now);
    let hello = channel.poll_message().unwrap();
    controller.handle_message(connection, &hello, rng, now);
    for message in sent(&mut controller) {
        channel.handle_message(&message.unwrap(), rng, now);
    }
    assert!(channel.is_open());

    // The stranger's clock is its own, so all of this is one moment to the controller.
    let mut ahead = now.after(ROTATE_AFTER);
    let mut answers = Vec::new();
    for _ in 0..250 {
        channel.note_received(ahead.instant);
        channel.handle_timeout(rng, ahead);
        while let Some(message) = channel.poll_message() {
            controller.handle_message(connection, &message, rng, now);
        }
        answers.extend(sent(&mut controller));
        ahead = ahead.after(ROTATION_DEADLINE);
        channel.note_received(ahead.instant);
        channel.handle_timeout(rng, ahead);
        ahead = ahead.after(ROTATION_RETRY);
    }
    assert_eq!(answers.pop(), Some(None), "the connection is closed");
    assert!((100..200).contains(&answers.len()), "{} rotations were answered", answers.len());
}

/// What a controller sends; nothing for a connection that it closes.
fn sent(controller: &mut Controller) -> Vec<Option<Vec<u8>>> {
    let mut messages = Vec::new();
    while let Some(output) = controller.poll_output() {
        match output {
            Output::Send { message, .. } => messages.push(Some(message)),
            Output::Close { .. } => messages.push(None),
            Output::Persist { .. } | Output::Answer { .. } => {}
        }
    }
    messages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = NodeMessage::from_bytes(&bytes);
        let _ = ControllerMessage::from_bytes(&bytes);
        let _ = MapItem::from_bytes(&bytes);
        let network = identity::NetworkId::from_bytes([7; 32]);
        let _ = NetworkMap::from_bytes(network, &bytes, UnixTime(0));
        let chunk = MapChunk {
            base: None,
            version: VERSION,
            items: vec![bytes.into()],
            last: true,
        };
        let _ = NetworkMap::new(network).apply(&chunk, UnixTime(0));
    }
}

#[test]
fn a_damaged_cache_never_panics_and_never_adds_a_member() {
    let world = two_nodes();
    let good = world.map(0).to_bytes();
    let network = world.network_key.id();
    for position in (0..good.len()).step_by(37) {
        let mut bytes = good.clone();
        bytes[position] ^= 0x55;
        if let Ok((map, _)) = NetworkMap::from_bytes(network, &bytes, world.wall()) {
            assert!(map.peers().all(|(device, _)| world.map(0).peer(device).is_some()));
        }
    }
}

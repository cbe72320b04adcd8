//! Bytes and items from hostile hands.

use crate::world::World;
use std::time::Duration;

use control_proto::{
    Admission, ClientStatus, ClockOffset, ConnectionId, Controller, ControllerAddress,
    ControllerMessage, Gossip, InviteRequest, MapChunk, MapItem, MapVersion, NetworkMap,
    NodeMessage, Output, PeerEntry, Refusal, SecurityEvent,
};
use identity::{Binding, ChannelKey, DeviceKey, NetworkKey, RevocationTarget, Signed, UnixTime};
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

/// The keys of a node, with the tunnel key of another.
fn binding_with_key_of(world: &World, node: usize, other: usize) -> Signed<Binding> {
    let binding = |index| world.map(0).peer(world.id(index)).unwrap().binding;
    let tunnel_key = binding(other).tunnel_key;
    let stolen = Binding { number: 99, tunnel_key, ..binding(node) };
    Signed::sign(world.network_key.id(), &world.nodes[node].key, &stolen)
}

#[test]
fn of_two_members_with_one_tunnel_key_the_older_counts_whoever_comes_first() {
    let world = two_nodes();
    let items = |thief: usize, victim: usize| {
        let binding = binding_with_key_of(&world, thief, victim);
        let thief = MapItem::Peer(world.id(thief), PeerEntry { binding, ..entry(&world, thief) });
        [thief, MapItem::Peer(world.id(victim), entry(&world, victim))]
    };
    for (thief, victim) in [(1, 0), (0, 1)] {
        let [first, second] = items(thief, victim);
        for items in [vec![first.clone(), second.clone()], vec![second, first]] {
            let mut map = NetworkMap::new(world.network_key.id());
            let applied = map.apply(&chunk(items), world.wall());
            let conflict =
                SecurityEvent::Conflict { device: world.id(1), what: "tunnel key".to_owned() };
            assert_eq!(applied.events, [conflict]);
            assert_eq!(map.peers().map(|(device, _)| device).collect::<Vec<_>>(), [world.id(0)]);
        }
    }
}

#[test]
fn a_controller_takes_no_tunnel_key_that_another_device_has() {
    let mut world = two_nodes();
    let before = entry(&world, 0);
    let stolen = binding_with_key_of(&world, 0, 1);
    let is_told = |world: &World, times: usize| {
        let conflict = SecurityEvent::Conflict { device: world.id(0), what: "tunnel key".into() };
        world.events.iter().filter(|record| record.event == conflict).count() == times
    };
    world.nodes[0].client.set_binding(stolen, world.now.instant);
    world.settle();
    assert!(is_told(&world, 1), "{:?}", world.events);
    assert_eq!(world.map(1).peer(world.id(0)).unwrap().entry, before);
    world.crash();
    world.start();
    world.pass(Duration::from_secs(60));
    assert!(is_told(&world, 2), "with a hello: {:?}", world.events);
    assert!(matches!(world.status(0), ClientStatus::Refused(Refusal::Keys { .. })));
    assert_eq!(world.status(1), ClientStatus::Online);
    let device = world.id(1);
    world.admin(control_proto::AdminRequest::RemoveDevice { device }).unwrap();
    world.pass(Duration::from_secs(700));
    assert_eq!(world.status(0), ClientStatus::Online, "nobody has it any more");
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

/// A map that holds what every map must, and the first entries of the list of revocations.
fn with_entries(world: &World, entries: std::ops::RangeInclusive<u64>) -> Vec<MapItem> {
    let is_wanted = |item: &MapItem| match item {
        MapItem::Revocation(number, _) => entries.contains(number),
        MapItem::Gone(_) => false,
        _ => true,
    };
    let stored = world.disk.items.values().filter_map(|item| MapItem::from_bytes(&item.bytes));
    stored.filter(is_wanted).collect()
}

/// A network of four from which two were removed.
fn after_two_removals() -> World {
    let mut world = two_nodes();
    for name in ["third", "fourth"] {
        let invite = world.invite(InviteRequest::default());
        let device = world.join(&invite, name);
        let device = world.id(device);
        world.admin(control_proto::AdminRequest::RemoveDevice { device }).unwrap();
    }
    world
}

#[test]
fn a_gap_in_the_list_of_revocations_is_asked_for_and_of_a_whole_map_an_alarm() {
    let world = after_two_removals();
    let mut map = NetworkMap::new(world.network_key.id());
    assert!(map.apply(&chunk(with_entries(&world, 0..=0)), world.wall()).events.is_empty());
    let known = map.version();
    let late = with_entries(&world, 2..=2).into_iter();
    let late = late.filter(|item| matches!(item, MapItem::Revocation(..))).collect();
    let mut delta = chunk(late);
    (delta.base, delta.version.number) = (known, 9);
    let applied = map.apply(&delta, world.wall());
    assert!(applied.needs_resync && applied.events.is_empty(), "{applied:?}");
    assert_eq!(map.version(), known, "what is missing is asked for again");
    let applied = map.apply(&chunk(with_entries(&world, 2..=2)), world.wall());
    assert!(!applied.needs_resync, "asking again would go on for ever");
    assert!(matches!(&applied.events[..], [SecurityEvent::ForgedStatement { what, .. }]
        if what == "revocation list"));
}

#[test]
fn revocations_spread_from_member_to_member_as_far_as_they_are_signed() {
    let world = after_two_removals();
    let mut knows_less = NetworkMap::new(world.network_key.id());
    let _ = knows_less.apply(&chunk(with_entries(&world, 0..=0)), world.wall());
    let told = world.map(0).gossip(None);
    assert!(knows_less.differs_from(&told));

    let mut forged = told.clone();
    (forged.after, _) = (1, forged.entries.remove(0));
    let applied = knows_less.hear(&forged, world.wall());
    assert!(applied.changes.is_empty() && applied.events.is_empty(), "{applied:?}");
    assert_eq!(knows_less.revocations().number(), 0, "nothing without what comes before");
    let stranger = identity::DelegatedKey::generate(&mut ChaCha20Rng::seed_from_u64(5));
    let at = world.wall();
    let target = RevocationTarget::Device(world.id(0));
    let authorities = knows_less.authorities();
    let entry = knows_less.revocations().next_entry(target, stranger.id(), authorities, at);
    let entry = Signed::sign(world.network_key.id(), &stranger, &entry);
    (forged.after, forged.entries) = (0, vec![entry]);
    assert_eq!(knows_less.hear(&forged, world.wall()).events.len(), 1);

    let applied = knows_less.hear(&told, world.wall());
    assert_eq!(applied.changes.revoked.len(), 2);
    assert_eq!(knows_less.revocations().fresh_at(), world.map(0).revocations().fresh_at());
    let before = knows_less.to_bytes();
    for after in [2, 9, u64::MAX] {
        let _ = knows_less.hear(&Gossip { after, ..told.clone() }, world.wall());
    }
    assert_eq!(knows_less.to_bytes(), before, "nothing is kept twice");
    assert!(
        !knows_less.differs_from(&told) && !world.map(0).differs_from(&knows_less.gossip(None))
    );
    assert!(world.map(0).gossip(Some(2)).entries.is_empty());
    assert_eq!(world.map(0).gossip(Some(1)).entries.len(), 1);
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

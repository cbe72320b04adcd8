//! Messages that are filled up, between those who know of it and those who do not.

use frame_proto::{FrameType, compose};
use identity::Padding;
use noise_channel::limits::ROTATE_AFTER;
use proptest::prelude::*;
use relay_proto::{BUCKETS, ClientEvent, ConnectionId, Limits, Rate};

use crate::world::{Network, World, frame};

/// The messages of the handshake, whose length is random.
const HANDSHAKE: usize = 2;

fn world(network: &Network) -> World {
    let mut world = World::new(&[network], Limits::default());
    world.server.set_padding(network.id(), Padding::Buckets);
    world.padding = Padding::Buckets;
    world
}

fn lengths(world: &mut World, link: ConnectionId) -> Vec<usize> {
    world.client(link).wire[HANDSHAKE..].iter().map(Vec::len).collect()
}

#[test]
fn every_message_but_the_handshake_has_one_of_a_few_lengths() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = world(&network);
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    for length in [0, 1, 151, 160, 161, 1_280, 1_441, 5_000, 16_288, 16_289, 40_000, 65_407] {
        world.send(a, frame(bob.key.id(), &vec![7; length]));
        let arrived = ClientEvent::Frame(frame(alice.key.id(), &vec![7; length]));
        assert_eq!(world.take_events(b), [arrived]);
        let last = [a, b].map(|link| lengths(&mut world, link).pop());
        let bucket = BUCKETS.into_iter().find(|bucket| length + 96 <= *bucket);
        assert_eq!(last, [bucket; 2]);
    }
    // Handshakes between peers, unreachable receivers, heartbeats, and keys that change.
    let mut hello = frame(bob.key.id(), &[7; 200]);
    compose(FrameType::Handshake, bob.key.id(), &mut hello).expect("it has room");
    world.send(a, hello);
    world.send(b, frame(network.relay.id(), b"to nobody"));
    world.run(2 * ROTATE_AFTER);
    let is_rotation = |event: &ClientEvent| *event == ClientEvent::Rotated;
    assert!(world.take_events(a).iter().any(is_rotation));
    for link in [a, b] {
        let lengths = lengths(&mut world, link);
        assert!(lengths.iter().all(|length| BUCKETS.contains(length)), "{lengths:?}");
    }
}

#[test]
fn whoever_does_not_know_of_padding_gets_none_and_others_beside_it_do() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = world(&network);
    let a = world.join(&network, &alice);
    let mut old = network.config(&bob, 1);
    old.capability = 1;
    let b = world.open(&network, old);
    world.take_events(b);
    for (from, to) in [(a, bob.key.id()), (b, alice.key.id())] {
        world.send(from, frame(to, b"news"));
    }
    assert_eq!(world.take_events(b), [ClientEvent::Frame(frame(alice.key.id(), b"news"))]);
    assert_eq!(world.take_events(a), [ClientEvent::Frame(frame(bob.key.id(), b"news"))]);
    let [of_a, of_b] = [a, b].map(|link| lengths(&mut world, link));
    assert!(of_a.iter().all(|length| BUCKETS.contains(length)), "{of_a:?}");
    // What the old one sends itself is filled up, since the relay knows of it.
    assert!(of_b.contains(&100), "{of_b:?}");
}

#[test]
fn the_network_may_change_its_mind_while_links_stand() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    for (padding, length) in [(Padding::Off, 100), (Padding::Buckets, 256), (Padding::Off, 100)] {
        world.server.set_padding(network.id(), padding);
        world.client(a).machine.set_padding(padding);
        world.send(a, frame(bob.key.id(), b"news"));
        assert_eq!(world.take_events(b), [ClientEvent::Frame(frame(alice.key.id(), b"news"))]);
        for link in [a, b] {
            assert_eq!(lengths(&mut world, link).pop(), Some(length));
        }
    }
}

#[test]
fn a_frame_keeps_little_memory_beyond_its_own_length() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = world(&network);
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    for length in [200, 4_100, 6_000] {
        world.send(a, frame(bob.key.id(), &vec![7; length]));
        let Some(ClientEvent::Frame(frame)) = world.take_events(b).pop() else { panic!("lost") };
        assert!(frame.capacity() <= 2 * frame.len(), "{} for {length}", frame.capacity());
    }
}

#[test]
fn padding_counts_where_a_client_has_a_rate() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let bytes = Rate { per_second: 10_000, burst: 50_000 };
    let mut world = World::new(&[&network], Limits { bytes, ..Limits::default() });
    world.padding = Padding::Buckets;
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    for _ in 0..200 {
        world.send(a, frame(bob.key.id(), &[7; 200]));
    }
    // Each is 280 bytes in a message of 1,536, of which the hop's tag does not count.
    assert_eq!(world.take_events(b).len(), 50_000 / 1_520);
}

proptest! {
    #[test]
    fn frames_arrive_the_same_whoever_pads(
        lengths in prop::collection::vec(0_usize..3_000, 1..20),
        of_alice: bool,
        of_relay: bool,
    ) {
        let network = Network::new(1);
        let (alice, bob) = (network.member(1), network.member(2));
        let mut world = World::new(&[&network], Limits::default());
        let policy = |is_on| if is_on { Padding::Buckets } else { Padding::Off };
        world.server.set_padding(network.id(), policy(of_relay));
        world.padding = policy(of_alice);
        let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
        for length in lengths {
            world.send(a, frame(bob.key.id(), &vec![7; length]));
            let arrived = ClientEvent::Frame(frame(alice.key.id(), &vec![7; length]));
            prop_assert_eq!(world.take_events(b), [arrived]);
        }
    }
}

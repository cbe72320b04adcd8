//! What becomes of frames between two members.

use noise_channel::limits::ROTATE_AFTER;
use relay_proto::{ClientEvent, CloseReason, FlowId, Limits, RelayServer, ServerEvent};

use crate::world::{Network, World, frame};

#[test]
fn frames_reach_the_receiver_under_the_senders_name() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    world.send(a, frame(bob.key.id(), b"to bob"));
    world.send(b, frame(alice.key.id(), b"to alice"));
    assert_eq!(world.take_events(b), [ClientEvent::Frame(frame(alice.key.id(), b"to bob"))]);
    assert_eq!(world.take_events(a), [ClientEvent::Frame(frame(bob.key.id(), b"to alice"))]);
    let load = world.server.report_load(network.id(), 17);
    assert_eq!((load.connections, load.attached, load.cpu_permille), (2, 2, 17));
    assert_eq!(load.bytes_received, 2 * 64 + 2 * 16 + 6 + 8);
    assert_eq!(load.bytes_forwarded, load.bytes_received);
    assert_eq!(world.server.report_load(network.id(), 0).bytes_received, 0);
}

#[test]
fn a_host_takes_what_is_for_itself_sends_by_itself_and_forwards_nothing() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    world.server = RelayServer::of_host(5);
    world.server.add_network(network.served());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    let (host, now) = (network.relay.id(), world.now.instant);
    let to_alice = (network.id(), alice.key.id());

    world.send(a, frame(host, b"to the host"));
    let arrived = world.server.poll_frame().expect("it arrived");
    assert_eq!(arrived, (alice.key.id(), frame(alice.key.id(), b"to the host")));
    assert!(world.server.send(to_alice, FlowId(1), frame(alice.key.id(), b"to alice"), now));
    world.settle();
    assert_eq!(world.take_events(a), [ClientEvent::Frame(frame(host, b"to alice"))]);

    world.send(a, frame(bob.key.id(), b"to bob"));
    assert_eq!(world.take_events(b), []);
    assert_eq!(world.take_events(a), [ClientEvent::Unreachable(bob.key.id())]);
    let misdirected = ServerEvent::Misdirected { network: network.id(), device: alice.key.id() };
    assert!(world.events.contains(&misdirected));
    assert_eq!(world.server.poll_frame(), None);
    assert_eq!(world.server.report_load(network.id(), 0).frames_dropped, 1);

    world.server.give_up(network.id(), alice.key.id(), now);
    world.settle();
    assert_eq!(world.closed(a), Some(CloseReason::Unresponsive));
    assert!(!world.server.send(to_alice, FlowId(1), frame(alice.key.id(), b"too late"), now));
    assert!(world.server.is_attached(network.id(), bob.key.id()));
}

#[test]
fn no_id_is_visible_on_the_stream() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    for _ in 0..10 {
        world.send(a, frame(bob.key.id(), b"some payload"));
    }
    for (id, hidden) in [(a, bob.key.id()), (b, alice.key.id()), (a, alice.key.id())] {
        let wire = world.client(id).wire.concat();
        assert!(wire.len() > 1_000);
        for part in hidden.as_bytes().chunks(8) {
            assert!(!wire.windows(8).any(|window| window == part));
        }
    }
}

#[test]
fn networks_on_one_relay_do_not_see_each_other() {
    let (one, two) = (Network::new(1), Network::new(2));
    let (alice, bob) = (one.member(1), two.member(2));
    let mut world = World::new(&[&one, &two], Limits::default());
    let (a, b) = (world.join(&one, &alice), world.join(&two, &bob));
    world.send(a, frame(bob.key.id(), b"x"));
    assert_eq!(world.take_events(a), [ClientEvent::Unreachable(bob.key.id())]);
    assert_eq!(world.take_events(b), []);
}

#[test]
fn an_unknown_receiver_is_reported_but_not_for_every_frame() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &network.member(1));
    for _ in 0..1_000 {
        world.send(a, frame(network.relay.id(), b"x"));
    }
    let answers = world.take_events(a).len();
    assert!((1..=20).contains(&answers), "{answers}");
}

#[test]
fn keys_of_the_channel_and_of_the_hop_rotate_while_frames_flow() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    let mut received = 0;
    for _ in 0..150 {
        world.run(ROTATE_AFTER / 50);
        world.send(a, frame(bob.key.id(), b"x"));
        let events = world.take_events(b);
        received += events.iter().filter(|event| matches!(event, ClientEvent::Frame(_))).count();
    }
    assert_eq!(received, 150);
    let rotations =
        world.take_events(a).iter().filter(|event| **event == ClientEvent::Rotated).count();
    assert!((2..=3).contains(&rotations), "{rotations}");
    assert_eq!(world.closed(a), None);
}

//! What a member may send, and what waits for one that reads late.

use std::time::Duration;

use frame_proto::{FLAG_INTERACTIVE, payload};
use relay_proto::{ClientEvent, CloseReason, Limits, Rate};

use crate::world::{Network, World, frame};

#[test]
fn a_slow_consumer_costs_no_more_than_its_queue() {
    let network = Network::new(1);
    let (alice, bob, carol) = (network.member(1), network.member(2), network.member(3));
    let limits = Limits { queue_bytes: 500_000, ..Limits::default() };
    let mut world = World::new(&[&network], limits);
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    let c = world.join(&network, &carol);
    world.client(b).stuck = true;
    for _ in 0..2_000 {
        world.send(a, frame(bob.key.id(), &[7; 1_300]));
    }
    world.send(a, frame(carol.key.id(), b"beside"));
    assert_eq!(world.take_events(c).len(), 1, "others are served meanwhile");
    let load = world.server.report_load(network.id(), 0);
    assert!(load.queued_bytes <= 500_000, "{}", load.queued_bytes);
    assert!(load.frames_dropped > 1_500);
    world.client(b).stuck = false;
    world.settle();
    world.send(a, frame(bob.key.id(), b"again"));
    let events = world.take_events(b);
    assert!(events.len() > 100 && events.len() < 600, "{}", events.len());
    assert_eq!(events.last(), Some(&ClientEvent::Frame(frame(alice.key.id(), b"again"))));
}

#[test]
fn interactive_frames_and_other_senders_do_not_wait_behind_bulk() {
    let network = Network::new(1);
    let (alice, bob, carol) = (network.member(1), network.member(2), network.member(3));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    let c = world.join(&network, &carol);
    world.client(b).stuck = true;
    for _ in 0..40 {
        world.send(a, frame(bob.key.id(), &[7; 60_000]));
    }
    let mut call = frame(bob.key.id(), b"call");
    call[1] = FLAG_INTERACTIVE;
    world.send(a, call);
    world.send(c, frame(bob.key.id(), b"beside"));
    world.client(b).stuck = false;
    world.settle();
    let events = world.take_events(b);
    let place = |text: &[u8]| {
        let is_it =
            |event: &ClientEvent| matches!(event, ClientEvent::Frame(it) if payload(it) == text);
        events.iter().position(is_it)
    };
    assert_eq!((place(b"call"), place(b"beside")), (Some(1), Some(2)));
    assert!(events.len() > 10, "bulk arrives too");
}

#[test]
fn a_client_that_asks_and_does_not_read_is_closed() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &network.member(1));
    world.client(a).stuck = true;
    let asked = (0..600)
        .find(|_| {
            world.send(a, frame(network.relay.id(), b"x"));
            world.run(Duration::from_millis(100));
            world.closed(a).is_some()
        })
        .expect("what waits is bounded");
    assert_eq!(world.closed(a), Some(CloseReason::NotReading));
    assert!(asked > 100, "a client that reads late is served: {asked}");
}

#[test]
fn a_client_gets_no_more_than_its_rate() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let bytes = Rate { per_second: 10_000, burst: 50_000 };
    let mut world = World::new(&[&network], Limits { bytes, ..Limits::default() });
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    for _ in 0..200 {
        world.send(a, frame(bob.key.id(), &[7; 920]));
    }
    assert_eq!(world.take_events(b).len(), 50);
    world.run(Duration::from_secs(2));
    for _ in 0..200 {
        world.send(a, frame(bob.key.id(), &[7; 920]));
    }
    assert_eq!(world.take_events(b).len(), 20);
}

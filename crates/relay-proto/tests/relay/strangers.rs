//! Connections of nobody in particular, and messages that no honest end sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use frame_proto::HopError;
use noise_channel::Service;
use proptest::prelude::*;
use relay_proto::limits::{ATTACH_DEADLINE, FIRST_MESSAGE_DEADLINE};
use relay_proto::{CloseReason, FlowId, Limits, LinkError, RelayClient, TurnedAway};

use crate::world::{HERE, Network, World, frame};

#[test]
fn a_connection_that_does_not_attach_is_closed_and_sooner_if_it_says_nothing() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let silent = world.knock(&network, HERE).unwrap();
    let (recognised, nonce) = world.recognise(&network.secret);
    let slow = world.server.handle_open(recognised, HERE, world.now).unwrap();
    let mut config = network.config(&network.member(1), 1);
    config.mask = network.secret.mask(Service::Relay, nonce);
    let mut machine = RelayClient::new(config, &mut world.rng, world.now).unwrap();
    let hello = machine.poll_message(world.now.instant).unwrap();
    world.server.handle_message(slow, hello, &mut world.rng, world.now);
    world.run(FIRST_MESSAGE_DEADLINE - Duration::from_secs(1));
    assert_eq!(world.closed(silent), None);
    world.run(Duration::from_secs(1));
    assert_eq!(world.closed(silent), Some(CloseReason::NotAttached));
    world.run(ATTACH_DEADLINE - FIRST_MESSAGE_DEADLINE - Duration::from_secs(1));
    assert_eq!(world.closed(slow), None);
    world.run(Duration::from_secs(1));
    assert!(world.closed(slow).is_some());
}

#[test]
fn connections_are_bounded() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits { connections: 4, ..Limits::default() });
    let first = world.knock(&network, HERE).unwrap();
    for number in 1..=3 {
        world.join(&network, &network.member(number));
    }
    assert_eq!(world.knock(&network, HERE), Err(TurnedAway::Full));
    world.server.handle_closed(first, world.now.instant);
    assert!(world.knock(&network, HERE).is_ok());
}

#[test]
fn whoever_holds_most_places_without_attaching_makes_way_for_others() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits { unattached: 8, ..Limits::default() });
    let crowd = |number| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, number, 0, 0, 1));
    let held: Vec<_> = (0..8).map(|n| world.knock(&network, crowd(n)).unwrap()).collect();
    assert_eq!(world.knock(&network, crowd(9)), Err(TurnedAway::Full), "it has its share");
    world.join(&network, &network.member(1));
    assert_eq!(world.closed(held[0]), Some(CloseReason::Displaced));
    assert_eq!(world.closed(held[1]), None);
    let report = world.server.report_load(network.id(), 0);
    assert_eq!(report.strangers, 2, "one was turned away, another closed");
}

#[test]
fn of_equals_the_oldest_makes_way_once_it_had_time_to_attach() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits { unattached: 3, ..Limits::default() });
    let source = |number| IpAddr::V4(Ipv4Addr::new(198, 51, 100, number));
    let held: Vec<_> = (0..3).map(|n| world.knock(&network, source(n)).unwrap()).collect();
    assert_eq!(world.knock(&network, source(4)), Err(TurnedAway::Full));
    world.run(Duration::from_secs(4));
    assert!(world.knock(&network, source(4)).is_ok());
    world.settle();
    assert_eq!(world.closed(held[0]), Some(CloseReason::Displaced));
    assert_eq!(world.closed(held[1]), None);
}

#[test]
fn a_path_that_somebody_saw_does_not_open_any_number_of_connections() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let path = network.secret.path(Service::Relay, [7; 16]);
    let open = |world: &mut World| {
        let recognised = world.server.recognise(&path).expect("the relay serves this network");
        world.server.handle_open(recognised, HERE, world.now)
    };
    let opened = (0..100).filter(|_| open(&mut world).is_ok()).count();
    assert!((2..=16).contains(&opened), "{opened}");
    assert_eq!(open(&mut world), Err(TurnedAway::SamePath));
}

#[test]
fn a_changed_message_ends_the_link() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &alice);
    let now = world.now;
    world.client(a).machine.send(FlowId(1), frame(bob.key.id(), b"x"), now.instant).unwrap();
    let mut message = world.client(a).machine.poll_message(now.instant).unwrap();
    message[10] ^= 1;
    world.server.handle_message(a, message, &mut world.rng, now);
    world.settle();
    assert_eq!(world.closed(a), Some(CloseReason::Link(LinkError::Hop(HopError::BadTag))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_bytes_never_panic_on_either_side(
        message in proptest::collection::vec(any::<u8>(), 0..400),
        attached: bool,
    ) {
        let network = Network::new(1);
        let alice = network.member(1);
        let mut world = World::new(&[&network], Limits::default());
        let id = if attached {
            world.join(&network, &alice)
        } else {
            let (recognised, _) = world.recognise(&network.secret);
            world.server.handle_open(recognised, HERE, world.now).unwrap()
        };
        world.server.handle_message(id, message.clone(), &mut world.rng, world.now);
        world.events.extend(std::iter::from_fn(|| world.server.poll_event()));
        prop_assert!(world.closed(id).is_some());
        if let Some(client) = world.clients.get_mut(&id) {
            client.machine.handle_message(message, &mut world.rng, world.now);
            prop_assert!(client.machine.is_closed());
        }
    }
}

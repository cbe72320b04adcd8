//! Datagrams that are passed on beside links.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use identity::{DeviceId, NetworkId, RevocationTarget};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use relay_proto::{
    BIND_LEN, CircuitBinding, CircuitKey, CircuitOffer, Circuits, ClientEvent, HEAD_LEN, Head,
    Limits, NUMBERS, Place, Rate, ServerEvent,
};

use crate::world::{Network, World};

const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);
const ALICE: DeviceId = DeviceId::from_bytes([1; 32]);
const BOB: DeviceId = DeviceId::from_bytes([2; 32]);
/// An hour's worth at once.
const MUCH: Rate = Rate { per_second: 1_000_000, burst: 1_000_000_000 };

/// A relay that passes datagrams on, and its clock.
struct Relay {
    circuits: Circuits,
    rng: ChaCha20Rng,
    now: Instant,
}

impl Relay {
    fn new(limit: usize, rate: Rate) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let now = Instant::now();
        let circuits = Circuits::new((limit, rate), &mut rng, now);
        Self { circuits, rng, now }
    }

    fn open(&mut self, ends: [DeviceId; 2]) -> Option<CircuitOffer> {
        self.circuits.open(NETWORK, ends, &mut self.rng, self.now)
    }

    /// Lets an end show where it is, and how often it had to.
    fn bind(&mut self, binding: &mut CircuitBinding, at: Place) -> usize {
        let mut sent = 0;
        while let Some(message) = binding.poll_transmit(self.now) {
            sent += 1;
            let answer =
                self.circuits.handle_bind(at, &message, self.now).expect("the relay answers");
            assert!(binding.handle_answer(&answer, self.now));
        }
        sent
    }

    fn pass_on(&mut self, from: Place, number: u32, bytes: u64) -> Option<Place> {
        self.circuits.pass_on(&from, Head::ascending(number), bytes, self.now)
    }
}

fn place(socket: usize, remote: &str) -> Place {
    Place { socket, local: None, remote: remote.parse().expect("an address") }
}

/// A circuit both ends of which have shown where they are.
fn joined() -> (Relay, u32, [Place; 2], [CircuitBinding; 2]) {
    let mut relay = Relay::new(10, MUCH);
    let CircuitOffer { number, keys } = relay.open([ALICE, BOB]).expect("there is room");
    let places = [place(0, "192.0.2.1:1000"), place(1, "[2001:db8::2]:2000")];
    let now = relay.now;
    let mut ends = keys.map(|key| CircuitBinding::new(number, key, now));
    for (end, place) in ends.iter_mut().zip(places) {
        assert_eq!(relay.bind(end, place), 2, "what the relay says is repeated");
        assert!(end.is_bound());
    }
    (relay, number, places, ends)
}

#[test]
fn a_member_asks_over_its_link_and_both_ends_asking_is_one_circuit() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let (alice, bob) = (network.member(1), network.member(2));
    let ids = [world.join(&network, &alice), world.join(&network, &bob)];
    let devices = [alice.key.id(), bob.key.id()];
    let mut relay = Relay::new(10, MUCH);
    let mut offers = Vec::new();
    for (asking, id) in ids.into_iter().enumerate() {
        let peer = devices[1 - asking];
        let now = world.now.instant;
        world.client(id).machine.request_circuit(peer, now);
        world.settle();
        let (connection, device) = (id, devices[asking]);
        let network = network.id();
        let wanted = ServerEvent::CircuitWanted { connection, network, device, peer };
        assert_eq!(world.events.last(), Some(&wanted));
        let offer = relay.open([devices[asking], peer]);
        world.server.answer_circuit(id, (peer, offer.as_ref()), now);
        world.settle();
        assert_eq!(world.take_events(id), [ClientEvent::Circuit(peer, offer.clone())]);
        offers.extend(offer);
    }
    let [one, other] = &offers[..] else { panic!("both get one") };
    assert_eq!(one.number, other.number);
    let [own, theirs] = &one.keys;
    assert_eq!([theirs, own], other.keys.each_ref());
    assert_eq!(relay.circuits.len(), 1);
    world.server.answer_circuit(ids[0], (devices[1], None), world.now.instant);
    world.settle();
    assert_eq!(world.take_events(ids[0]), [ClientEvent::Circuit(devices[1], None)]);
}

#[test]
fn what_comes_from_one_end_goes_to_the_other_and_nothing_else_anywhere() {
    let (mut relay, number, [one, other], _) = joined();
    assert_eq!(relay.pass_on(one, number, 1_000), Some(other));
    assert_eq!(relay.pass_on(other, number, 500), Some(one));
    assert_eq!(relay.circuits.forwarded(NETWORK), 1_500);
    assert_eq!(relay.circuits.take_forwarded(NETWORK), 1_500);
    assert_eq!(relay.circuits.forwarded(NETWORK), 0);
    for from in [place(0, "192.0.2.1:1001"), place(1, "192.0.2.1:1000"), place(0, "192.0.2.9:1000")]
    {
        assert_eq!(relay.pass_on(from, number, 1), None, "{from:?} is no end");
    }
    assert_eq!(relay.pass_on(one, number ^ 1, 1), None, "there is no such circuit");
    let passed = Head::descending(number);
    assert_eq!(relay.circuits.pass_on(&one, passed, 1, relay.now), None, "it was passed on");
}

#[test]
fn only_who_has_the_key_and_hears_the_answer_is_an_end() {
    let mut relay = Relay::new(10, MUCH);
    let CircuitOffer { number, keys: [alice, bob] } = relay.open([ALICE, BOB]).expect("room");
    let (home, victim) = (place(0, "192.0.2.1:1000"), place(0, "192.0.2.66:6"));
    let mut end = CircuitBinding::new(number, alice, relay.now);
    let first = end.poll_transmit(relay.now).expect("it shows where it is");
    let answer = relay.circuits.handle_bind(home, &first, relay.now).expect("the relay answers");
    assert_eq!((first.len(), answer.len()), (BIND_LEN, BIND_LEN), "nobody is flooded by answers");
    assert!(end.handle_answer(&answer, relay.now));
    let second = end.poll_transmit(relay.now).expect("it repeats what the relay said");
    assert!(relay.circuits.handle_bind(home, &second, relay.now).is_some());
    let mut bobs = CircuitBinding::new(number, bob, relay.now);
    let away = place(0, "192.0.2.2:2");
    relay.bind(&mut bobs, away);
    // From elsewhere, as an eavesdropper would send it, it only leads to another question.
    let other = relay.circuits.handle_bind(victim, &second, relay.now).expect("the relay answers");
    assert_ne!(answer, other);
    assert_eq!(relay.pass_on(home, number, 1), Some(away));
    assert_eq!(relay.pass_on(victim, number, 1), None);

    let foreign = CircuitKey::from_bytes([9; 16]);
    let mut stranger = CircuitBinding::new(number, foreign, relay.now);
    let asked = stranger.poll_transmit(relay.now).expect("it shows where it is");
    assert_eq!(relay.circuits.handle_bind(victim, &asked, relay.now), None);
    assert!(!stranger.handle_answer(&answer, relay.now), "it is no answer to this end");
    assert!(!end.handle_answer(&second, relay.now), "a question is no answer");
}

#[test]
fn an_end_that_moves_shows_where_it_is_and_one_that_gets_no_answer_gives_up() {
    let (mut relay, number, [one, other], [mut alice, _]) = joined();
    assert_eq!(alice.poll_transmit(relay.now), None, "it is known where it is");
    let moved = place(0, "198.51.100.7:7");
    alice.handle_network_change(relay.now);
    relay.bind(&mut alice, moved);
    assert_eq!(relay.pass_on(moved, number, 1), Some(other));
    assert_eq!(relay.pass_on(one, number, 1), None);
    assert_eq!(relay.pass_on(other, number, 1), Some(moved));
    // Translators forget in 30 s.
    relay.now += Duration::from_secs(20);
    assert_eq!(relay.bind(&mut alice, moved), 1);
    let mut sent = 0;
    for _ in 0..40 {
        relay.now += Duration::from_secs(1);
        sent += usize::from(alice.poll_transmit(relay.now).is_some());
    }
    assert_eq!(sent, 4);
    assert!(alice.has_failed() && !alice.is_bound());
}

#[test]
fn what_nobody_asks_for_is_forgotten_as_is_what_the_revoked_have() {
    let (mut relay, number, [one, other], _) = joined();
    relay.now += Duration::from_secs(40);
    assert_eq!(relay.open([BOB, ALICE]).map(|offer| offer.number), Some(number));
    relay.now += Duration::from_secs(40);
    assert_eq!(relay.pass_on(one, number, 1), Some(other));
    relay.now += Duration::from_secs(20);
    assert_eq!(relay.pass_on(one, number, 1), None);
    relay.circuits.expire(relay.now);
    assert!(relay.circuits.is_empty());

    let network = Network::new(1);
    let (alice, bob, carol) =
        (network.member(1).key.id(), network.member(2).key.id(), network.member(3).key.id());
    let mut circuits = relay.circuits;
    for ends in [[alice, bob], [carol, alice], [carol, bob]] {
        assert!(circuits.open(network.id(), ends, &mut relay.rng, relay.now).is_some());
    }
    assert!(circuits.open(NETWORK, [alice, bob], &mut relay.rng, relay.now).is_some());
    let revocations = network.revocations_of(RevocationTarget::Device(alice));
    circuits.set_revocations(network.id(), &revocations);
    assert_eq!(circuits.len(), 2, "that of others, and that of another network");
    assert!(circuits.open(network.id(), [bob, alice], &mut relay.rng, relay.now).is_none());
    // Who is served no more for another reason, as when its invite was revoked, is nobody's end until it is served again.
    circuits.expel(network.id(), carol);
    assert_eq!(circuits.len(), 1);
    assert!(circuits.open(network.id(), [bob, carol], &mut relay.rng, relay.now).is_none());
    circuits.admit(network.id(), carol);
    assert!(circuits.open(network.id(), [bob, carol], &mut relay.rng, relay.now).is_some());
    circuits.forget(network.id());
    assert_eq!(circuits.len(), 1);
}

#[test]
fn whose_membership_is_revoked_is_served_no_more_and_who_is_replaced_goes_on() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let (alice, bob) = (network.member(1), network.member(2));
    let id = world.join(&network, &alice);
    world.open(&network, network.config(&bob, 1));
    world.open(&network, network.config(&bob, 2));
    world.settle();
    let expelled = |world: &World, device| {
        let expelled = ServerEvent::Expelled { network: network.id(), device };
        world.events.contains(&expelled)
    };
    let mut targets = alice.chain.targets().into_iter();
    let target = targets.find(|target| matches!(target, RevocationTarget::Serial(_)));
    let revocations = network.revocations_of(target.expect("its membership has a serial"));
    world.server.set_revocations(network.id(), &revocations, world.now);
    world.settle();
    assert!(world.closed(id).is_some() && expelled(&world, alice.key.id()));
    assert!(!expelled(&world, bob.key.id()), "another connection of it counts");
}

#[test]
fn whoever_asks_for_a_circuit_to_the_revoked_gets_none() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let id = world.join(&network, &network.member(1));
    let revoked = network.member(2).key.id();
    let revocations = network.revocations_of(RevocationTarget::Device(revoked));
    world.server.set_revocations(network.id(), &revocations, world.now);
    let now = world.now.instant;
    world.client(id).machine.request_circuit(revoked, now);
    world.settle();
    assert_eq!(world.take_events(id), [ClientEvent::Circuit(revoked, None)]);
}

#[test]
fn what_an_end_repeats_counts_for_two_minutes_at_most() {
    let (mut relay, number, [one, _], _) = joined();
    let CircuitOffer { keys: [key, _], .. } = relay.open([ALICE, BOB]).expect("it is there");
    let mut end = CircuitBinding::new(number, key, relay.now);
    let asked = end.poll_transmit(relay.now).expect("it is due");
    let answer = relay.circuits.handle_bind(one, &asked, relay.now).expect("an answer");
    assert!(end.handle_answer(&answer, relay.now));
    let repeated = end.poll_transmit(relay.now).expect("it repeats");
    let moved = place(0, "198.51.100.7:7");
    let is_moved_back = |relay: &mut Relay, after| {
        relay.now += Duration::from_secs(after);
        relay.open([ALICE, BOB]).expect("somebody asks");
        let CircuitOffer { keys: [key, _], .. } = relay.open([ALICE, BOB]).expect("it is there");
        relay.bind(&mut CircuitBinding::new(number, key, relay.now), moved);
        let _ = relay.circuits.handle_bind(one, &repeated, relay.now);
        relay.pass_on(one, number, 1).is_some()
    };
    assert!(is_moved_back(&mut relay, 30), "who is there may say so");
    assert!(!is_moved_back(&mut relay, 120));
}

#[test]
fn there_is_room_for_so_many_and_for_fewer_of_one_member_and_each_end_sends_so_much() {
    let device = |number: u16| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        DeviceId::from_bytes(bytes)
    };
    let mut relay = Relay::new(100, Rate { per_second: 1_000, burst: 2_000 });
    // A number that is drawn twice is asked for again.
    let opens = |relay: &mut Relay, ends| (0..3).any(|_| relay.open(ends).is_some());
    assert!(!opens(&mut relay, [ALICE, ALICE]), "nobody needs it to reach itself");
    assert!((0..64).all(|number| opens(&mut relay, [ALICE, device(number)])));
    assert!(!opens(&mut relay, [ALICE, BOB]), "the member has had its share");
    assert!((0..36).all(|number| opens(&mut relay, [BOB, device(number)])));
    assert!(!opens(&mut relay, [device(1), device(2)]), "all is full");
    relay.now += Duration::from_secs(60);
    let CircuitOffer { number, keys } = relay.open([ALICE, BOB]).expect("the others have ended");
    let (places, now) = ([place(0, "192.0.2.1:1"), place(0, "192.0.2.2:2")], relay.now);
    for (key, place) in keys.into_iter().zip(places) {
        relay.bind(&mut CircuitBinding::new(number, key, now), place);
    }
    let [one, other] = places;
    assert_eq!(relay.pass_on(one, number, 2_000), Some(other));
    assert_eq!(relay.pass_on(one, number, 1), None);
    assert_eq!(relay.pass_on(other, number, 2_000), Some(one), "the other end has its own share");
    relay.now += Duration::from_secs(1);
    assert_eq!(relay.pass_on(one, number, 1_000), Some(other));
}

#[test]
fn no_circuit_fails_because_a_number_was_drawn_twice() {
    const ALL: usize = 20_000;
    let mut relay = Relay::new(ALL, MUCH);
    let device = |number: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        DeviceId::from_bytes(id)
    };
    // Twelve draws hit a number that is taken, on average.
    let offers = (0..ALL).map(|pair| relay.open([device(2 * pair), device(2 * pair + 1)]));
    let numbers = offers.map(|offer| offer.expect("there is room").number);
    assert_eq!(numbers.collect::<BTreeSet<_>>().len(), ALL);
}

#[test]
fn heads_and_messages_have_golden_bytes() {
    assert_eq!(Head::ascending(0x01_0203).bytes(), [5, 1, 2, 3]);
    assert_eq!(Head::descending(NUMBERS - 1).bytes(), [6, 255, 255, 255]);
    let mut datagram = [5, 1, 2, 3, 4];
    assert_eq!(Head::of(&datagram).and_then(Head::to_pass_on), Some(0x01_0203));
    Head::descend(&mut datagram);
    assert_eq!(Head::of(&datagram), Some(Head::descending(0x01_0203)));
    assert_eq!(Head::of(&datagram).and_then(Head::to_pass_on), None);
    assert_eq!(Head::of(&datagram[..HEAD_LEN - 1]), None);
    let now = Instant::now();
    let key = CircuitKey::from_bytes([3; CircuitKey::LENGTH]);
    let message = CircuitBinding::new(0x01_0203, key, now).poll_transmit(now).expect("it is due");
    assert_eq!(message[..12], [7, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
    // As Python's hashlib has it: blake2s(message[:12], key=bytes([3] * 16), digest_size=16).
    assert_eq!(
        message[12..],
        [127, 53, 64, 143, 76, 216, 155, 12, 247, 82, 230, 77, 128, 195, 129, 3]
    );
}

proptest! {
    #[test]
    fn nothing_that_arrives_makes_a_relay_or_an_end_panic_or_believe(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        kind in 0_u8..10,
        ip in any::<[u8; 4]>(),
        port in any::<u16>(),
    ) {
        let (mut relay, number, places, [mut alice, _]) = joined();
        let from = Place { socket: 0, local: None, remote: SocketAddr::from((ip, port)) };
        let [_, a, b, c] = number.to_be_bytes();
        let aimed = [&[kind, a, b, c][..], &bytes].concat();
        for datagram in [&bytes, &aimed] {
            prop_assert_eq!(relay.circuits.handle_bind(from, datagram, relay.now), None);
            prop_assert!(!alice.handle_answer(datagram, relay.now));
            if let Some(head) = Head::of(datagram) {
                let passed = relay.circuits.pass_on(&from, head, 1, relay.now);
                prop_assert!(passed.is_none() || places.contains(&from));
            }
        }
        prop_assert!(alice.is_bound());
    }
}

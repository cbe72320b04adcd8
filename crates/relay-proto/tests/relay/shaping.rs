//! Messages that leave when a shaper says it.

use std::time::{Duration, Instant};

use frame_proto::HOP_TAG_LENGTH;
use identity::Shaping;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use relay_proto::{BUCKETS, ClientEvent, ConnectionId, FlowId, Limits, Rate, SHAPED_LENGTH};

use crate::world::{Device, Network, World, frame};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// From one message to the next under `constant`.
const TICK: Duration = Duration::from_millis(20);

/// Two devices at a relay.
struct Pair {
    world: World,
    network: Network,
    devices: [Device; 2],
    links: [ConnectionId; 2],
    start: Instant,
}

impl Pair {
    fn new(shaping: &Shaping, limits: Limits) -> Self {
        let network = Network::new(1);
        let devices = [network.member(1), network.member(2)];
        let mut world = World::new(&[&network], limits);
        world.shape(&network, shaping);
        let links = devices.each_ref().map(|device| world.join(&network, device));
        world.run(MILLISECOND);
        let start = world.now.instant;
        Self { world, network, devices, links, start }
    }

    /// Has one send the other a frame that begins with a number.
    fn send(&mut self, from: usize, number: u32, length: usize) {
        let mut payload = vec![7; length.max(4)];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        let to = self.devices[1 - from].key.id();
        self.world.send(self.links[from], frame(to, &payload));
    }

    /// The numbers of the frames that have come to one.
    fn arrived(&mut self, at: usize) -> Vec<u32> {
        let events = self.world.take_events(self.links[at]);
        let numbers = events.iter().map(|event| {
            let ClientEvent::Frame(frame) = event else { panic!("{event:?}") };
            let payload = frame_proto::payload(frame);
            u32::from_be_bytes(*payload.first_chunk().expect("a number"))
        });
        numbers.collect()
    }

    /// What somebody sees of a link in one direction from `after` the start on: when, and how much.
    fn seen(&self, at: usize, outward: bool, after: Duration) -> Vec<(Duration, usize)> {
        let client = &self.world.clients[&self.links[at]];
        let all = client.times.iter().zip(&client.wire);
        let of_direction = all.filter(|((_, is_outward), _)| *is_outward == outward);
        let seen = of_direction.filter_map(|((time, _), bytes)| {
            Some((time.checked_duration_since(self.start)?, bytes.len()))
        });
        seen.filter(|(time, _)| *time >= after).collect()
    }

    fn messages(&self) -> usize {
        self.links.iter().map(|link| self.world.clients[link].wire.len()).sum()
    }
}

#[test]
fn at_a_constant_rate_nobody_tells_a_talk_from_a_silence() {
    let watch = |is_talking: bool| {
        let mut pair = Pair::new(&Shaping::Constant, Limits::default());
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut number = 0;
        for _ in 0..15 {
            // That keeps ticks going.
            pair.send(0, number, 40);
            pair.send(1, number, 40);
            let mut left = 4 * SECOND;
            while is_talking && left > SECOND / 2 {
                let pause = (1 + rng.next_u32() % 400) * MILLISECOND;
                left -= pause;
                pair.world.run(pause);
                number += 1;
                pair.send(rng.next_u32() as usize % 2, number, rng.next_u32() as usize % 1_400);
            }
            pair.world.run(left);
        }
        [(0, true), (0, false), (1, true), (1, false)]
            .map(|(at, outward)| pair.seen(at, outward, Duration::ZERO))
    };
    let (talk, silence) = (watch(true), watch(false));
    for (talk, silence) in talk.iter().zip(&silence) {
        assert!(talk.len() > 2_900, "{}", talk.len());
        assert_eq!(talk, silence);
        assert!(talk.windows(2).all(|pair| pair[1].0 - pair[0].0 == TICK));
        assert!(talk.iter().all(|(_, length)| *length == SHAPED_LENGTH));
    }
}

#[test]
fn a_constant_rate_ends_a_while_after_the_last_message() {
    let mut pair = Pair::new(&Shaping::Constant, Limits::default());
    pair.send(0, 1, 40);
    pair.world.run(60 * SECOND);
    for (at, outward) in [(0, true), (0, false), (1, true), (1, false)] {
        let seen = pair.seen(at, outward, Duration::ZERO);
        let ticks = seen.iter().filter(|(time, _)| *time < 16 * SECOND).count();
        assert!((245..=755).contains(&ticks), "{ticks} ticks");
        let later = seen.iter().filter(|(time, _)| *time > 16 * SECOND).count();
        assert!(later <= 3, "{later} heartbeats");
    }
}

#[test]
fn dummies_go_where_something_begins_and_nothing_waits_for_them() {
    let mut pair = Pair::new(&Shaping::Front, Limits::default());
    for number in 0..20 {
        pair.send(0, number, 500);
        assert_eq!(pair.arrived(1), [number]);
        pair.world.run(50 * MILLISECOND);
    }
    pair.world.run(30 * SECOND);
    for (at, outward) in [(0, true), (0, false), (1, true), (1, false)] {
        let seen = pair.seen(at, outward, Duration::ZERO);
        assert!((50..=350).contains(&seen.len()), "{} messages", seen.len());
        assert!(seen.iter().all(|(_, length)| *length == SHAPED_LENGTH));
        let last = seen.iter().rfind(|(time, _)| *time < 24 * SECOND);
        assert!(last.is_some_and(|(time, _)| *time > SECOND), "{last:?}");
    }
}

#[test]
fn a_message_waits_a_tick_at_most_if_it_is_alone() {
    let mut pair = Pair::new(&Shaping::Constant, Limits::default());
    pair.send(0, 0, 40);
    pair.world.run(SECOND + 7 * MILLISECOND);
    pair.arrived(1);
    for number in 1..50 {
        pair.send(0, number, 700);
        // A tick on each of the two links.
        pair.world.run(2 * TICK + MILLISECOND);
        assert_eq!(pair.arrived(1), [number]);
    }
}

#[test]
fn no_writer_is_woken_before_it_is_time_to() {
    let mut pair = Pair::new(&Shaping::Constant, Limits::default());
    let World { server, rng, now, .. } = &mut pair.world;
    let (place, link) = ((pair.network.id(), pair.devices[1].key.id()), pair.links[1]);
    assert!(server.send(place, FlowId(1), frame(place.1, b"news"), now.instant));
    assert_eq!(server.poll_ready(), None);
    *now = now.after(TICK);
    server.handle_timeout(rng, *now);
    assert_eq!(server.poll_ready(), Some(link));
}

#[test]
fn lengths_are_those_of_buckets_and_dummies_have_that_of_a_packet() {
    let mut pair = Pair::new(&Shaping::Constant, Limits::default());
    for (number, length) in (0..).zip([4, 1_400, 1_441, 20_000, 65_000]) {
        pair.send(0, number, length);
        pair.world.run(SECOND);
    }
    let mut lengths: Vec<_> =
        pair.seen(1, false, Duration::ZERO).into_iter().map(|(_, length)| length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    assert_eq!(lengths, [SHAPED_LENGTH, BUCKETS[2], BUCKETS[4], BUCKETS[5]]);
}

#[test]
fn what_waits_leaves_together_if_that_shows_nothing_or_is_much() {
    let mut pair = Pair::new(&Shaping::Constant, Limits::default());
    pair.send(0, 0, 40);
    pair.world.run(SECOND + 7 * MILLISECOND);
    pair.arrived(1);
    let begin = pair.world.now.instant - pair.start;
    // Ten short ones fit where one goes.
    (0..10).for_each(|number| pair.send(0, number, 40));
    pair.world.run(2 * TICK + MILLISECOND);
    assert_eq!(pair.arrived(1), (0..10).collect::<Vec<_>>());
    // Three packets go one after the other.
    (0..3).for_each(|number| pair.send(0, number, 1_400));
    pair.world.run(4 * TICK + MILLISECOND);
    assert_eq!(pair.arrived(1), [0, 1, 2]);
    let seen = pair.seen(0, true, begin);
    assert!(seen.iter().all(|(_, length)| *length == SHAPED_LENGTH), "{seen:?}");
    // A window of them does not.
    (0..40).for_each(|number| pair.send(0, number, 1_300));
    pair.world.run(3 * TICK + MILLISECOND);
    assert_eq!(pair.arrived(1), (0..40).collect::<Vec<_>>());
    let lengths: Vec<_> = pair.seen(0, true, begin).into_iter().map(|(_, length)| length).collect();
    assert!(lengths.contains(&BUCKETS[5]), "{lengths:?}");
}

#[test]
fn whoever_does_not_know_of_dummies_gets_none_and_nothing_waits_there() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    world.shape(&network, &Shaping::Constant);
    let a = world.join(&network, &alice);
    let mut old = network.config(&bob, 1);
    (old.capability, world.plan) = (3, None);
    let b = world.open(&network, old);
    world.take_events(b);
    world.send(a, frame(bob.key.id(), b"news"));
    world.run(TICK);
    assert_eq!(world.take_events(b), [ClientEvent::Frame(frame(alice.key.id(), b"news"))]);
    world.run(SECOND);
    // Two of the handshake, what attaches, and the answer.
    assert_eq!(world.client(b).wire.len(), 4 + 1);
    assert_eq!(world.client(b).wire[4].len(), 100);
    assert!(world.client(a).wire.len() > 50);
}

#[test]
fn the_network_may_change_its_mind_while_links_stand_and_nothing_is_lost() {
    let mut pair = Pair::new(&Shaping::Off, Limits::default());
    let mut sent = 0..;
    for shaping in [Shaping::Constant, Shaping::Front, Shaping::Off, Shaping::Constant] {
        pair.world.shape(&pair.network, &shaping);
        for number in sent.by_ref().take(10) {
            pair.send(0, number, 40);
            pair.world.run(3 * MILLISECOND);
        }
    }
    pair.world.shape(&pair.network, &Shaping::Off);
    pair.world.run(MILLISECOND);
    assert_eq!(pair.arrived(1), (0..40).collect::<Vec<_>>());
    let before = pair.messages();
    pair.world.run(10 * SECOND);
    assert_eq!(pair.messages(), before);
}

#[test]
fn where_nothing_is_shaped_nothing_changes() {
    let talk = |shaping: Option<Shaping>| {
        let mut pair = Pair::new(&Shaping::Off, Limits::default());
        if let Some(shaping) = shaping {
            pair.world.shape(&pair.network, &shaping);
        }
        for number in 0..20 {
            pair.send(0, number, 100 * number as usize);
            pair.world.run(number * SECOND);
        }
        let wires = pair.links.map(|link| std::mem::take(&mut pair.world.client(link).wire));
        (wires, pair.arrived(1))
    };
    assert_eq!(talk(None), talk(Some(Shaping::Off)));
    assert_ne!(talk(None), talk(Some(Shaping::Front)));
}

#[test]
fn machines_that_cannot_be_run_are_refused_and_shape_nothing() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let broken = Shaping::Machines(vec!["02nonsense".to_owned()]);
    let (rng, now) = (&mut world.rng, world.now.instant);
    let error = world.server.set_shaping(network.id(), &broken, rng, now).expect_err("no machine");
    assert!(error.to_string().starts_with("machine 1 for shaping cannot be run: "), "{error}");
    let a = world.join(&network, &network.member(1));
    world.send(a, frame(network.member(2).key.id(), b"to nobody"));
    let before = world.client(a).wire.len();
    world.run(10 * SECOND);
    assert_eq!(world.client(a).wire.len(), before);
}

#[test]
fn dummies_take_from_a_clients_rate_when_they_come_and_not_afterwards() {
    let bytes = Rate { per_second: 100_000, burst: 100_000 };
    let mut pair = Pair::new(&Shaping::Constant, Limits { bytes, ..Limits::default() });
    for number in 0..20 {
        pair.send(0, number, 1_000);
        pair.world.run(4 * SECOND);
        assert_eq!(pair.arrived(1), [number]);
    }
}

#[test]
fn dummies_take_all_of_their_length_from_a_clients_rate() {
    // What 780 messages are long: frame 15 is in number 751, and the next one in number 801, which would be within it if
    // dummies counted without their headers.
    let burst = 780 * (SHAPED_LENGTH - HOP_TAG_LENGTH) as u64;
    let bytes = Rate { per_second: 1, burst };
    let mut pair = Pair::new(&Shaping::Constant, Limits { bytes, ..Limits::default() });
    for number in 0..20 {
        pair.send(0, number, 1_000);
        pair.world.run(SECOND);
    }
    assert_eq!(pair.arrived(1), (0..16).collect::<Vec<_>>());
}

#[test]
fn a_link_that_ends_says_why_at_once_and_no_shorter_than_all_else() {
    let mut pair = Pair::new(&Shaping::Constant, Limits::default());
    pair.send(0, 0, 40);
    pair.world.run(SECOND + 3 * MILLISECOND);
    pair.world.take_events(pair.links[0]);
    let (now, end) = (pair.world.now, pair.world.now.instant - pair.start);
    pair.world.server.remove_network(pair.network.id(), now);
    pair.world.settle();
    let said = pair.world.take_events(pair.links[0]);
    assert!(matches!(said[..], [ClientEvent::Refused(_)]), "{said:?}");
    assert_eq!(pair.seen(0, false, end), [(end, SHAPED_LENGTH)]);
}

#[test]
fn keys_change_and_heartbeats_go_under_a_shaper_too() {
    let mut pair = Pair::new(&Shaping::Constant, Limits::default());
    let hour = noise_channel::limits::ROTATE_AFTER;
    for number in 0..20 {
        pair.send(0, number, 40);
        pair.world.run(hour / 10);
    }
    let events = pair.world.take_events(pair.links[0]);
    assert_eq!(events, [ClientEvent::Rotated, ClientEvent::Rotated]);
    let arrived = pair.world.take_events(pair.links[1]);
    let frames = arrived.iter().filter(|event| matches!(event, ClientEvent::Frame(_))).count();
    assert_eq!(frames, 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_is_lost_or_overtaken(
        sends in prop::collection::vec((0_u32..300, 0..2_usize, 0..1_500_usize), 1..40),
        shaping in prop::sample::select(vec![Shaping::Front, Shaping::Constant]),
    ) {
        let mut pair = Pair::new(&shaping, Limits::default());
        let mut sent = [Vec::new(), Vec::new()];
        for (number, (pause, from, length)) in (0..).zip(sends) {
            pair.world.run(pause * MILLISECOND);
            pair.send(from, number, length);
            sent[1 - from].push(number);
        }
        pair.world.run(3 * SECOND);
        for (at, numbers) in sent.iter().enumerate() {
            prop_assert_eq!(&pair.arrived(at), numbers);
        }
    }
}

//! What neighbours may say without doing harm.

use identity::{DeviceKey, NetworkId};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::message::Change;
use super::*;

const NETWORK: NetworkId = NetworkId::from_bytes([1; 32]);
const OWN: DeviceId = relay(0);
const WALL: UnixMillis = UnixMillis(1_700_000_000_000);
const LINK: ConnectionId = ConnectionId(1);

const fn relay(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 32])
}

/// A relay that knows of three others, and has a link to the first.
fn mesh(now: Instant) -> Mesh {
    let mut mesh = Mesh::new(NETWORK, OWN, WALL);
    mesh.set_relays((0..=3).map(relay));
    mesh.handle_link(LINK, relay(1), now);
    mesh
}

fn hear(mesh: &mut Mesh, message: &MeshMessage, now: Instant) {
    assert!(mesh.handle_message(LINK, &message.to_bytes(), (now, WALL)));
}

fn delta(origin: DeviceId, to: (u64, u64), after: u64, words: &[(u64, Word)]) -> MeshMessage {
    let changes = words.iter().map(|(number, word)| Change { number: *number, word: word.clone() });
    let to = Version { run: to.0, number: to.1 };
    MeshMessage::Delta(Delta { origin, to, after, changes: changes.collect() })
}

fn links(to: &[u8]) -> Word {
    Word::Links(to.iter().map(|to| Distance { relay: relay(*to), micros: 1_000 }).collect())
}

/// Answers its ping, so that the link counts, and hears of the first relay's links.
fn link(mesh: &mut Mesh, now: Instant) {
    while let Some(message) = mesh.poll_message(LINK) {
        if let Some(MeshMessage::Ping(number)) = MeshMessage::from_bytes(&message) {
            hear(mesh, &MeshMessage::Pong(number), now);
        }
    }
    hear(mesh, &delta(relay(1), (5, 1), 0, &[(1, links(&[0]))]), now);
    mesh.handle_timeout(now + SETTLE);
}

#[test]
fn only_devices_that_signed_where_they_are_are_sent_there() {
    let now = Instant::now();
    let mut mesh = mesh(now);
    link(&mut mesh, now);
    let key = DeviceKey::generate(&mut ChaCha20Rng::seed_from_u64(1));
    let (device, stranger) = (key.id(), relay(9));
    let here = Signed::sign(NETWORK, &key, &Attachment { relay: relay(1), number: 1 });
    let there = Signed::sign(NETWORK, &key, &Attachment { relay: relay(2), number: 1 });
    let mut number = 1;
    let mut attach = |mesh: &mut Mesh, device, attachment: &Signed<Attachment>| {
        number += 1;
        let word = Word::Attached(device, attachment.clone());
        hear(mesh, &delta(relay(1), (5, number), number - 1, &[(number, word)]), now);
    };
    attach(&mut mesh, device, &there);
    assert_eq!(mesh.next_hop(device, None), None, "it is at another relay");
    attach(&mut mesh, stranger, &here);
    assert_eq!(mesh.next_hop(stranger, None), None, "somebody else signed");
    attach(&mut mesh, device, &here);
    assert_eq!(mesh.next_hop(device, None), Some((LINK, relay(1))));
    assert_eq!(mesh.next_hop(device, Some(LINK)), None, "nothing goes back");
}

#[test]
fn nobody_else_is_believed_about_this_relay_or_about_strangers() {
    let now = Instant::now();
    let mut mesh = mesh(now);
    let before = mesh.origins[&OWN].version();
    let far = WALL.0 + 1_000;
    hear(&mut mesh, &delta(OWN, (far, 7), 0, &[(7, links(&[3]))]), now);
    assert!(mesh.origins[&OWN].version() > Version { run: far, number: 7 });
    assert!(mesh.origins[&OWN].version() > before);
    assert!(mesh.origins[&OWN].links().is_empty());
    hear(&mut mesh, &delta(relay(8), (5, 1), 0, &[(1, links(&[0]))]), now);
    assert!(!mesh.origins.contains_key(&relay(8)));
    hear(&mut mesh, &delta(relay(2), (u64::MAX, 1), 0, &[(1, links(&[0]))]), now);
    assert!(!mesh.origins.contains_key(&relay(2)), "nobody starts in years");
}

#[test]
fn a_new_link_loses_no_other_whose_answer_is_on_its_way() {
    let now = Instant::now();
    let mut mesh = mesh(now);
    link(&mut mesh, now);
    let is_linked = |mesh: &Mesh| mesh.origins[&OWN].links().iter().any(|to| to.relay == relay(1));
    assert!(is_linked(&mesh));
    mesh.handle_timeout(now + PING_INTERVAL);
    mesh.handle_link(ConnectionId(2), relay(2), now + PING_INTERVAL);
    mesh.handle_timeout(now + PING_INTERVAL + SETTLE);
    assert!(is_linked(&mesh));
    mesh.handle_timeout(now + 2 * PING_INTERVAL);
    assert!(!is_linked(&mesh), "it has not answered for a whole interval");
}

#[test]
fn what_does_not_follow_is_asked_for_again() {
    let now = Instant::now();
    let mut mesh = mesh(now);
    while mesh.poll_message(LINK).is_some() {}
    hear(&mut mesh, &delta(relay(1), (5, 9), 8, &[(9, links(&[0]))]), now);
    let asked = mesh.poll_message(LINK).and_then(|bytes| MeshMessage::from_bytes(&bytes));
    assert_eq!(asked, Some(MeshMessage::Known(vec![unknown(relay(1))])));
    hear(&mut mesh, &delta(relay(1), (5, 9), 0, &[(9, links(&[0]))]), now);
    assert_eq!(mesh.origins[&relay(1)].version(), Version { run: 5, number: 9 });
}

fn any_word() -> impl Strategy<Value = Word> {
    let key = DeviceKey::generate(&mut ChaCha20Rng::seed_from_u64(1));
    let signed = Signed::sign(NETWORK, &key, &Attachment { relay: relay(1), number: 1 });
    let distance =
        (0..5_u8, any::<u32>()).prop_map(|(to, micros)| Distance { relay: relay(to), micros });
    prop_oneof![
        (0..9_u8).prop_map(move |device| Word::Attached(relay(device), signed.clone())),
        (0..9_u8).prop_map(|device| Word::Detached(relay(device))),
        prop::collection::vec(distance, 0..6).prop_map(Word::Links),
    ]
}

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![0..6_u64, Just(u64::MAX), Just(WALL.0)]
}

fn any_message() -> impl Strategy<Value = MeshMessage> {
    let version = || (any_number(), any_number()).prop_map(|(run, number)| Version { run, number });
    let standing =
        (0..5_u8, version()).prop_map(|(of, version)| Standing { origin: relay(of), version });
    let change = (any_number(), any_word()).prop_map(|(number, word)| Change { number, word });
    let delta = (0..5_u8, version(), any_number(), prop::collection::vec(change, 0..6));
    prop_oneof![
        any::<u64>().prop_map(MeshMessage::Ping),
        (0..9_u64).prop_map(MeshMessage::Pong),
        prop::collection::vec(standing, 0..6).prop_map(MeshMessage::Known),
        delta.prop_map(|(origin, to, after, changes)| {
            MeshMessage::Delta(Delta { origin: relay(origin), to, after, changes })
        }),
    ]
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = MeshMessage::from_bytes(&bytes);
    }

    #[test]
    fn whatever_a_neighbour_says_it_is_answered_within_bounds(
        said in prop::collection::vec((any_message(), 0..3_000_u64), 0..40)
    ) {
        let mut now = Instant::now();
        let mut mesh = mesh(now);
        for (message, later) in said {
            hear(&mut mesh, &message, now);
            now += Duration::from_millis(later);
            mesh.handle_timeout(now);
            for device in 0..9 {
                let _ = mesh.next_hop(relay(device), None);
            }
            let mut answers = 0;
            while let Some(answer) = mesh.poll_message(LINK) {
                answers += 1;
                prop_assert!(answer.len() <= frame_proto::PAYLOAD_LIMIT);
            }
            prop_assert!(answers <= 2 * MAX_ANSWERS);
        }
    }

    /// Whoever hears all of a relay's words, in whatever pieces, knows what it knows of itself.
    #[test]
    fn pieces_make_the_whole(words in prop::collection::vec(any_word(), 1..60), again in 0..5_u64) {
        let mut said = Origin::new(5);
        let mut heard = Origin::default();
        for word in words {
            said.say(word);
            while let Some(delta) = said.after(OWN, heard.version()) {
                let twice = delta.clone();
                prop_assert!(heard.apply(delta, |_| ()));
                if again == 0 {
                    prop_assert!(heard.apply(twice, |_| ()));
                }
            }
        }
        prop_assert_eq!(heard.version(), said.version());
        prop_assert_eq!(heard.links(), said.links());
        prop_assert!(heard.devices().eq(said.devices()));
        let mut late = Origin::default();
        while let Some(delta) = said.after(OWN, late.version()) {
            prop_assert!(late.apply(delta, |_| ()));
        }
        prop_assert!(late.devices().eq(said.devices()));
    }
}

#[test]
fn a_relay_for_some_only_seems_far_to_the_others() {
    let now = Instant::now();
    for is_private in [false, true] {
        let mut mesh = mesh(now);
        mesh.set_private(is_private);
        link(&mut mesh, now);
        let said = mesh.origins[&OWN].links();
        let is_far = |distance: &Distance| u128::from(distance.micros) >= DETOUR.as_micros();
        assert_eq!(said.iter().map(is_far).collect::<Vec<_>>(), [is_private]);
    }
}

#[test]
fn the_distance_of_a_relay_is_the_least_of_the_last_minute() {
    const MILLISECOND: Duration = Duration::from_millis(1);
    let mut now = Instant::now();
    let mut mesh = mesh(now);
    let mut told_after = |round_trip: Duration| {
        while let Some(message) = mesh.poll_message(LINK) {
            if let Some(MeshMessage::Ping(number)) = MeshMessage::from_bytes(&message) {
                hear(&mut mesh, &MeshMessage::Pong(number), now + round_trip);
            }
        }
        now += PING_INTERVAL;
        mesh.handle_timeout(now);
        mesh.origins[&OWN].links()[0].micros
    };
    let told = [30, 20, 60, 45].map(|round_trip| told_after(round_trip * MILLISECOND));
    assert_eq!(told, [30_000, 20_000, 20_000, 20_000]);
    let told: Vec<_> = (0..ROUND_TRIPS).map(|_| told_after(60 * MILLISECOND)).collect();
    assert_eq!(told[ROUND_TRIPS - 3..], [45_000, 45_000, 60_000]);
}

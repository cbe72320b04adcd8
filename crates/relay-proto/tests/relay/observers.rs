//! What somebody on the way sees of links.

use relay_proto::Limits;

use crate::world::{Network, World, frame};

const LINKS: u64 = 200;

/// The messages before frames flow: two of the handshake, what attaches, and the answer.
const OPENING: usize = 4;

/// A value of chi-square over the 256 bytes that random ones exceed once in a billion times.
const FLAT: f64 = 415.0;

/// How far the bytes are from all values being as likely as each other.
fn chi_square(bytes: &[u8]) -> f64 {
    let mut counts = [0.0; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1.0);
    let expected = bytes.len() as f64 / 256.0;
    counts.iter().map(|count| (count - expected).powi(2) / expected).sum()
}

#[test]
fn no_byte_of_a_link_and_no_bit_of_its_opening_is_likelier_than_others() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    world.join(&network, &bob);
    let links: Vec<_> = (1..=LINKS)
        .map(|number| {
            let link = world.open(&network, network.config(&alice, number));
            world.send(link, frame(bob.key.id(), b"to bob"));
            world.take_events(link);
            std::mem::take(&mut world.client(link).wire)
        })
        .collect();
    for index in 0..OPENING {
        let messages: Vec<_> = links.iter().map(|wire| wire[index].as_slice()).collect();
        let all = chi_square(&messages.concat());
        assert!(all < FLAT, "message {index}: {all}");
        let shortest = messages.iter().map(|message| message.len()).min().expect("there are some");
        for bit in 0..8 * shortest {
            let ones = messages.iter().filter(|message| message[bit / 8] >> (bit % 8) & 1 == 1);
            // Seven standard deviations: tens of thousands of bits have to be within.
            assert!(ones.count().abs_diff(100) < 50, "message {index}, bit {bit}");
        }
    }
    let frames: Vec<_> = links.iter().flat_map(|wire| &wire[OPENING..]).collect();
    assert_eq!(frames.len() as u64, LINKS);
    for bit in 0..8 * 64 {
        let ones = frames.iter().filter(|message| message[bit / 8] >> (bit % 8) & 1 == 1).count();
        assert!(ones.abs_diff(100) < 50, "header, bit {bit}");
    }
}

//! Links that carry more or less than IPv6 demands.

use testlab::sim::{HostId, Quality, Setup, World};

use crate::world::{MINUTE, SECOND, joined};

/// Nodes whose interfaces take packets as large as Ethernet has room for, on links like this.
fn on(mtu: usize) -> World {
    let quality = Quality { mtu, ..Quality::GOOD };
    joined(Setup { quality, mtu: 1_420, ..Setup::default() })
}

/// Lets both nodes ask each other for a while.
fn speak(world: &mut World, seconds: u32) {
    for _ in 0..seconds {
        world.ping(0, 1);
        world.ping(1, 0);
        world.run_for(SECOND);
    }
}

fn is_answered_when_large(world: &mut World, len: usize) -> bool {
    let number = world.ping_sized(0, 1, len);
    world.run_for(SECOND);
    world.is_answered(0, number)
}

#[test]
fn packets_of_full_size_take_the_direct_path_where_they_pass_and_none_is_lost_on_the_way_there() {
    let mut world = on(1_500);
    // From the first one on, over the relay, and while it is not known yet what the direct path carries.
    let mut numbers = Vec::new();
    for _ in 0..200 {
        numbers.push(world.ping_sized(0, 1, 1_420));
        world.run_for(SECOND / 100);
    }
    world.run_for(SECOND);
    let lost = numbers.iter().filter(|number| !world.is_answered(0, **number)).count();
    assert_eq!(lost, 0, "of {}", numbers.len());
    assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
    assert_eq!(world.packet_size(0, 1), Some(1_420));
    assert!(world.nodes.iter().all(|node| node.too_big.is_empty()));
}

#[test]
fn what_does_not_pass_is_refused_with_the_size_that_does() {
    // 1,400 bytes without the headers of IPv4 and UDP, and those of the tunnel, with its padding.
    let passes = 1_400 - 28 - 32;
    let mut world = on(1_400);
    speak(&mut world, 40);
    assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
    let size = world.packet_size(0, 1).expect("it is direct");
    assert!((passes - 16..=passes).contains(&size), "{size}");
    assert!(is_answered_when_large(&mut world, size));
    assert!(world.nodes[0].too_big.is_empty());
    assert!(!is_answered_when_large(&mut world, size + 1));
    assert_eq!(world.nodes[0].too_big, [u32::try_from(size).expect("it is small")]);
}

#[test]
fn the_system_is_told_once_how_large_packets_may_be_however_many_it_sends_from_the_beginning() {
    let mut world = on(1_400);
    for _ in 0..300 {
        world.ping_sized(0, 1, 1_420);
        world.run_for(SECOND / 10);
        if let Some(told) = world.nodes[0].too_big.first() {
            let size = world.packet_size(0, 1).and_then(|size| u32::try_from(size).ok());
            assert_eq!(Some(*told), size);
        }
    }
    let size = world.packet_size(0, 1).expect("it is direct");
    assert!((1_324..=1_340).contains(&size), "{size}");
    assert!(world.nodes[0].too_big.iter().all(|told| *told as usize == size));
    assert!(!world.nodes[0].too_big.is_empty());
}

#[test]
fn a_link_that_becomes_narrower_is_kept_and_one_that_becomes_wider_is_found_out() {
    let mut world = on(1_500);
    speak(&mut world, 5);
    world.quality.mtu = 1_400;
    speak(&mut world, 60);
    assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
    let size = world.packet_size(0, 1).expect("it is direct");
    assert!(is_answered_when_large(&mut world, size), "{size}");
    world.quality.mtu = 1_500;
    speak(&mut world, 11 * 60);
    assert_eq!(world.packet_size(0, 1), Some(1_420));
    assert!(is_answered_when_large(&mut world, 1_420));
}

#[test]
fn without_a_relay_large_packets_wait_until_it_is_known_that_they_pass() {
    let mut world = on(1_500);
    speak(&mut world, 5);
    (0..2).for_each(|relay| world.stop_relay(relay));
    world.cut(HostId::Node(0), HostId::Node(1));
    speak(&mut world, 5);
    world.heal();
    let mut numbers = Vec::new();
    for _ in 0..1_000 {
        numbers.push(world.ping_sized(0, 1, 1_420));
        world.run_for(SECOND / 200);
    }
    world.run_for(SECOND);
    let is_answered = |number: &Option<u64>| world.is_answered(0, *number);
    let first = numbers.iter().position(is_answered).expect("the link works again");
    assert!(numbers[first..].iter().all(is_answered));
    assert!(world.nodes.iter().all(|node| node.too_big.is_empty()));
}

#[test]
fn over_a_relay_packets_of_any_size_pass_whatever_links_carry() {
    let mut world = on(1_280);
    speak(&mut world, 30);
    assert_eq!((world.path(0, 1).as_str(), world.packet_size(0, 1)), ("relay", None));
    assert!(is_answered_when_large(&mut world, 1_420));
    world.run_for(MINUTE);
    assert!(world.nodes.iter().all(|node| node.too_big.is_empty()));
}

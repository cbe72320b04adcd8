//! Networks that drop datagrams for what they look like.

use std::time::Duration;

use testlab::sim::{Setup, World};

use crate::world::{MINUTE, SECOND, joined};

/// As many pings may be lost in a row, one a second: those that find out that none pass.
const LOST: usize = 5;

/// Whether a datagram begins as WireGuard's messages of these types do.
fn is_wireguard(types: std::ops::RangeInclusive<u8>, datagram: &[u8]) -> bool {
    matches!(datagram, [kind, 0, 0, 0, ..] if types.contains(kind))
}

/// Two nodes ask each other for a while; how many in a row had no answer within three seconds at most, and how many in all.
fn ask(world: &mut World, time: Duration) -> (usize, usize) {
    let mut asked = Vec::new();
    for _ in 0..time.as_secs() {
        for (from, to) in [(0, 1), (1, 0)] {
            asked.push((world.elapsed(), from, world.ping(from, to)));
            world.run_for(SECOND / 2);
        }
    }
    world.run_for(3 * SECOND);
    let mut worst = [0; 2];
    let (mut row, mut all) = ([0; 2], 0);
    for (at, node, number) in asked {
        let answered = world.answered_at(node, number);
        if answered.is_some_and(|answered| answered <= at + 3 * SECOND) {
            row[node] = 0;
        } else {
            row[node] += 1;
            all += 1;
            worst[node] = worst[node].max(row[node]);
        }
    }
    (worst[0].max(worst[1]), all)
}

#[test]
fn where_what_looks_like_wireguard_is_dropped_traffic_takes_the_relay_within_5_s() {
    for types in [1..=4, 4..=4] {
        let mut world = joined(Setup::default());
        world.censor = match types.start() {
            1 => |datagram| is_wireguard(1..=4, datagram),
            _ => |datagram| is_wireguard(4..=4, datagram),
        };
        let (worst, all) = ask(&mut world, 9 * MINUTE);
        assert!(worst <= LOST && all <= 2 * LOST, "{types:?}: {worst} in a row of {all}");
        assert_eq!(world.path(0, 1), "relay");
        world.censor = |_| false;
        let (_, lost) = ask(&mut world, MINUTE);
        assert_eq!(lost, 0);
        assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
    }
}

#[test]
fn a_network_that_begins_to_drop_packets_of_the_tunnel_is_left_within_5_s() {
    let mut world = joined(Setup::default());
    ask(&mut world, MINUTE);
    assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
    world.censor = |datagram| is_wireguard(1..=4, datagram);
    let (worst, all) = ask(&mut world, 5 * MINUTE);
    assert!(worst <= LOST && all <= 2 * LOST, "{worst} in a row of {all}");
    assert_eq!(world.path(0, 1), "relay");
}

#[test]
fn where_only_handshakes_are_dropped_sessions_are_renewed_through_the_relay() {
    let mut world = joined(Setup::default());
    world.censor = |datagram| is_wireguard(1..=2, datagram);
    let (worst, all) = ask(&mut world, 20 * MINUTE);
    assert!(worst <= 1 && all <= 2, "{worst} in a row of {all}");
    assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
}

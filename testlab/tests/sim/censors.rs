//! Networks that drop datagrams for what they look like.

use testlab::sim::Setup;

use crate::world::{MINUTE, ask, joined};

/// As many pings may be lost in a row, one a second: those that find out that none pass.
const LOST: usize = 5;

/// Whether a datagram begins as WireGuard's messages of these types do.
fn is_wireguard(types: std::ops::RangeInclusive<u8>, datagram: &[u8]) -> bool {
    matches!(datagram, [kind, 0, 0, 0, ..] if types.contains(kind))
}

#[test]
fn where_what_looks_like_wireguard_is_dropped_traffic_takes_the_relay_within_5_s() {
    for types in [1..=4, 4..=4] {
        let mut world = joined(Setup::default());
        world.relays_pass_on = false;
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
    world.relays_pass_on = false;
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
    world.relays_pass_on = false;
    world.censor = |datagram| is_wireguard(1..=2, datagram);
    let (worst, all) = ask(&mut world, 20 * MINUTE);
    assert!(worst <= 1 && all <= 2, "{worst} in a row of {all}");
    assert!(world.path(0, 1).starts_with("direct"), "{}", world.path(0, 1));
}

//! Whether a path carries the tunnel's packets.

use std::time::Duration;

use path::{Path, Reason};

use crate::net::{B, Net, address, connected};

#[test]
fn a_path_that_carries_pings_and_no_packets_is_left_within_two_seconds_until_packets_pass() {
    let mut net = Net::new();
    net.carries_tunnel = false;
    let pass = |net: &mut Net, seconds: u64| {
        for _ in 0..seconds * 10 {
            net.exchange_traffic();
            net.run(Duration::from_millis(100));
        }
    };
    pass(&mut net, 1);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)), "it answers");
    pass(&mut net, 2);
    for index in 0..2 {
        assert_eq!(net.agent(index).chosen(), Path::Relay);
        assert_eq!(net.agent(index).why().next().unwrap().reason, Reason::Void);
    }
    let changes = net.sides.each_ref().map(|side| side.chosen.len());
    pass(&mut net, 590);
    assert_eq!(net.sides.each_ref().map(|side| side.chosen.len()), changes);
    net.carries_tunnel = true;
    pass(&mut net, 40);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    // The same after all has been well, and while only one end sends.
    pass(&mut net, 30);
    net.carries_tunnel = false;
    for _ in 0..40 {
        net.count_straight(0, 1);
        net.sides[0].agent.handle_sent(net.now);
        net.run(Duration::from_millis(100));
    }
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    // In another network it may be otherwise.
    let now = net.now;
    net.sides[0].agent.handle_network_change(now);
    net.run(Duration::from_millis(500));
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
}

#[test]
fn a_peer_without_a_session_or_another_path_is_no_reason_to_leave_one() {
    let mut net = connected();
    net.carries_tunnel = false;
    let send = |net: &mut Net| {
        for _ in 0..100 {
            net.count_straight(0, 1);
            net.sides[0].agent.handle_sent(net.now);
            net.run(Duration::from_millis(100));
        }
        assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    };
    // It was started anew and knows no session yet.
    net.has_session = false;
    net.sides[1].agent.handle_counts(None);
    send(&mut net);
    net.has_session = true;
    net.sides.iter_mut().for_each(|side| side.agent.handle_relay(false, net.now));
    send(&mut net);
}

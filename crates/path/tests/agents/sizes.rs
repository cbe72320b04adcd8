//! How large packets a path carries.

use std::time::Duration;

use path::{BASE_MTU, Path, Reason};

use crate::net::{A, B, DIRECT_DELAY, Net, address, connected, connected_for_packets_of};

#[test]
fn a_path_that_becomes_too_narrow_for_full_packets_is_left_though_small_ones_pass() {
    let mut net = connected();
    let exchange = |net: &mut Net, seconds: u64| {
        for _ in 0..seconds * 10 {
            net.exchange_traffic();
            net.run(Duration::from_millis(100));
        }
    };
    net.widest = BASE_MTU - 1;
    exchange(&mut net, 26);
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    assert_eq!(net.agent(1).chosen(), Path::Relay);
    assert_eq!(net.agent(0).why().next().unwrap().reason, Reason::Narrow);
    let changes = net.sides.each_ref().map(|side| side.chosen.len());
    exchange(&mut net, 120);
    assert_eq!(net.sides.each_ref().map(|side| side.chosen.len()), changes, "and stays left");
    net.widest = BASE_MTU;
    exchange(&mut net, 31);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert_eq!(net.agent(1).chosen(), Path::Direct(address(A)));
}

#[test]
fn larger_packets_are_sent_where_they_pass_and_smaller_ones_where_they_cease_to() {
    let mut net = connected_for_packets_of(1_420);
    assert_eq!((net.agent(0).mtu(), net.agent(0).is_searching()), (Some(1_420), false));
    let pass = |net: &mut Net, seconds: u64| {
        for _ in 0..seconds {
            net.exchange_traffic();
            net.run(Duration::from_secs(1));
        }
    };
    let before = net.sides[0].chosen.len();
    net.widest = 1_350;
    pass(&mut net, 40);
    let mtu = net.agent(0).mtu().expect("it is direct");
    assert!((1_334..=1_350).contains(&mtu), "{mtu}");
    let paths = [Path::Relay, Path::Direct(address(B))];
    let chosen = net.sides[0].chosen[before..].iter().map(|(_, path)| *path);
    assert!(chosen.eq(paths), "what is under way takes the relay");
    net.widest = BASE_MTU - 1;
    pass(&mut net, 40);
    assert_eq!((net.agent(0).chosen(), net.agent(0).mtu()), (Path::Relay, None));
    net.widest = 9_000;
    pass(&mut net, 40);
    assert_eq!(net.agent(0).mtu(), Some(mtu), "what did not pass is not tried at every turn");
    pass(&mut net, 600);
    assert_eq!(net.agent(0).mtu(), Some(1_420));
}

#[test]
fn an_outage_says_nothing_of_the_size_and_the_same_packets_pass_a_round_trip_after_it() {
    for has_relay in [false, true] {
        for has_traffic in [false, true] {
            let mut net = connected_for_packets_of(1_420);
            let now = net.now;
            net.sides.iter_mut().for_each(|side| side.agent.handle_relay(has_relay, now));
            net.direct_works = false;
            for _ in 0..100 {
                if has_traffic {
                    net.exchange_traffic();
                }
                net.run(Duration::from_millis(400));
                assert!(net.agent(0).mtu() != Some(BASE_MTU) || net.agent(0).is_trying_largest());
            }
            net.direct_works = true;
            let is_proven =
                |net: &Net| net.agent(0).remotes(net.now).iter().any(|remote| remote.proven);
            while !is_proven(&net) {
                net.exchange_traffic();
                net.run(Duration::from_millis(5));
            }
            net.run(DIRECT_DELAY * 2);
            assert_eq!(net.agent(0).mtu(), Some(1_420), "{has_relay} {has_traffic}");
        }
    }
}

#[test]
fn while_large_packets_are_sent_it_takes_ten_seconds_at_most_until_they_take_another_way() {
    let mut net = connected_for_packets_of(1_420);
    net.widest = 1_350;
    let mut waited = Duration::ZERO;
    while net.agent(0).mtu() == Some(1_420) {
        let now = net.now;
        net.exchange_traffic();
        net.sides[0].agent.handle_large_sent(now);
        net.run(Duration::from_millis(100));
        waited += Duration::from_millis(100);
    }
    assert!(waited <= Duration::from_secs(10), "{waited:?}");
}

#[test]
fn a_path_that_is_the_only_one_carries_smaller_packets_soon_after_it_ceases_to_carry_large_ones() {
    let mut net = connected_for_packets_of(1_420);
    net.run(Duration::from_secs(1));
    assert_eq!(net.agent(0).mtu(), Some(1_420));
    let now = net.now;
    net.sides.iter_mut().for_each(|side| side.agent.handle_relay(false, now));
    net.widest = 1_350;
    // One end sends large packets, of which none arrives.
    for _ in 0..30 {
        net.sides[0].agent.handle_sent(net.now);
        net.run(Duration::from_millis(100));
    }
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert!(net.agent(0).mtu().is_some_and(|mtu| mtu <= 1_350), "{:?}", net.agent(0).mtu());
    // In another network nothing is known of it either.
    net.widest = 9_000;
    net.run(Duration::from_secs(20));
    let now = net.now;
    net.sides[0].agent.handle_network_change(now);
    assert_eq!(net.agent(0).mtu(), Some(BASE_MTU));
    net.exchange_traffic();
    net.run(Duration::from_secs(1));
    assert_eq!(net.agent(0).mtu(), Some(1_420));
}

#[test]
fn the_size_of_packets_is_looked_for_only_while_there_is_traffic() {
    let mut net = Net::for_packets_of(1_420);
    net.widest = 1_300;
    net.exchange_traffic();
    net.run(Duration::from_secs(60));
    let mtu = net.agent(0).mtu().expect("it is direct");
    assert!((1_284..=1_300).contains(&mtu) && !net.agent(0).is_searching(), "{mtu}");
    net.run(Duration::from_secs(120));
    let before = net.sent;
    net.run(Duration::from_secs(1_200));
    assert_eq!(net.sent, before);
}

//! A path that loses much, or takes far longer than another, is left; and none is left for a little.

use std::time::Duration;

use path::{Path, Reason};

use crate::net::{A, B, DIRECT_DELAY, Net, Route, address, candidate, connected};

const SECOND: Duration = Duration::from_secs(1);
/// Another address of each end.
const A6: &str = "[2001:db8:a::1]:1000";
const B6: &str = "[2001:db8:b::2]:2000";

/// Some packets each way, ten a second.
fn traffic(net: &mut Net, time: Duration) {
    for _ in 0..time.as_millis() / 100 {
        net.exchange_traffic();
        net.run(SECOND / 10);
    }
}

/// How often a side has changed its path in a while with traffic.
fn changes(net: &mut Net, time: Duration) -> usize {
    let before = net.sides[0].chosen.len();
    traffic(net, time);
    net.sides[0].chosen.len() - before
}

/// Two ends that have found the better of two direct paths.
fn with_two_routes(second: Route) -> Net {
    let mut net = Net::new();
    net.routes.push(second);
    net.sides[0].agent.handle_remote_candidates(&[candidate(B), candidate(B6)], net.now);
    net.sides[1].agent.handle_remote_candidates(&[candidate(A), candidate(A6)], net.now);
    traffic(&mut net, 60 * SECOND);
    net
}

#[test]
fn a_path_that_loses_much_is_left_for_the_relay_and_used_again_when_it_is_better() {
    let mut net = connected();
    net.routes[0].loss = 40;
    traffic(&mut net, 30 * SECOND);
    for side in &net.sides {
        assert_eq!(side.agent.chosen(), Path::Relay);
    }
    let is_lossy = |reason| matches!(reason, Reason::Lossy { percent: 20..60 });
    assert!(net.agent(0).why().any(|decision| is_lossy(decision.reason)));
    // As bad as before: pings tell, without a packet of anybody's.
    let changed = changes(&mut net, 600 * SECOND);
    assert!(changed <= 4, "{changed} changes in ten minutes");
    net.routes[0].loss = 0;
    traffic(&mut net, 16 * 60 * SECOND);
    assert_eq!(changes(&mut net, 600 * SECOND), 0);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert_eq!(net.agent(1).chosen(), Path::Direct(address(A)));
}

#[test]
fn a_path_that_loses_some_is_kept() {
    let mut net = connected();
    net.routes[0].loss = 8;
    assert_eq!(changes(&mut net, 3_600 * SECOND), 0);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
}

#[test]
fn a_path_that_loses_much_is_kept_where_there_is_no_other() {
    let mut net = connected();
    for side in &mut net.sides {
        side.agent.handle_relay(false, net.now);
    }
    net.routes[0].loss = 40;
    traffic(&mut net, 60 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
}

#[test]
fn of_two_direct_paths_one_that_loses_much_gives_way_to_the_other() {
    let mut net = with_two_routes(Route { delay: DIRECT_DELAY * 2, ..Route::new(A6, B6) });
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    net.routes[0].loss = 40;
    traffic(&mut net, 60 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B6)));
}

#[test]
fn a_path_that_takes_far_longer_than_the_relay_is_left_and_one_that_takes_somewhat_longer_is_not() {
    let mut net = connected();
    // The relay takes 80 ms.
    net.routes[0].delay = Duration::from_millis(100);
    assert_eq!(changes(&mut net, 600 * SECOND), 0);
    net.routes[0].delay = Duration::from_millis(120);
    traffic(&mut net, 120 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    let reason = net.agent(0).why().next().unwrap().reason;
    let (latency, frames) = (Duration::from_millis(240), Duration::from_millis(80));
    assert_eq!(reason, Reason::Slow { latency, frames });
    assert_eq!(changes(&mut net, 600 * SECOND), 0, "pings say that it is as slow as before");
    net.routes[0].delay = DIRECT_DELAY;
    traffic(&mut net, 60 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
}

#[test]
fn a_queue_that_fills_now_and_then_does_not_make_a_path_slow() {
    let mut net = connected();
    net.routes[0].jitter = 10 * DIRECT_DELAY;
    assert_eq!(changes(&mut net, 1_800 * SECOND), 0);
}

#[test]
fn the_faster_of_two_direct_paths_is_taken_and_says_so() {
    let mut net = with_two_routes(Route { delay: DIRECT_DELAY * 3, ..Route::new(A6, B6) });
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    net.routes[0].delay = DIRECT_DELAY * 5;
    traffic(&mut net, 300 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B6)));
    let reason = net.agent(0).why().next().unwrap().reason;
    assert!(matches!(reason, Reason::Better { latency, than } if latency < than), "{reason:?}");
}

#[test]
fn of_two_direct_paths_that_are_about_as_fast_the_one_over_ipv6_is_taken() {
    for later in [Duration::ZERO, DIRECT_DELAY / 20] {
        let net = with_two_routes(Route { delay: DIRECT_DELAY + later, ..Route::new(A6, B6) });
        assert_eq!(net.agent(0).chosen(), Path::Direct(address(B6)));
        assert_eq!(net.agent(1).chosen(), Path::Direct(address(A6)));
    }
    let net = with_two_routes(Route { delay: DIRECT_DELAY * 2, ..Route::new(A6, B6) });
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
}

#[test]
fn two_direct_paths_that_are_about_as_good_do_not_alternate() {
    let jitter = Duration::from_millis(15);
    for loss in [0, 5, 10] {
        let mut net = with_two_routes(Route { jitter, loss, ..Route::new(A6, B6) });
        (net.routes[0].jitter, net.routes[0].loss) = (jitter, loss);
        let changed = changes(&mut net, 3_600 * SECOND);
        assert!(changed <= 3, "{changed} changes in an hour with {loss} % lost");
    }
}

#[test]
fn a_path_that_loses_much_is_not_left_for_a_relay_that_reaches_nobody() {
    let mut net = connected();
    (net.routes[0].loss, net.relay_works) = (25, false);
    traffic(&mut net, 120 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));

    net.relay_works = true;
    traffic(&mut net, 60 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    net.relay_works = false;
    traffic(&mut net, 12 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)), "it is better than nothing");
}

#[test]
fn a_fast_path_that_lost_much_and_does_not_any_more_is_back_after_half_a_minute_and_stays() {
    let mut net = connected();
    (net.routes[0].loss, net.routes[0].delay) = (40, 5 * DIRECT_DELAY);
    let fast = |net: &mut Net, time: Duration| {
        for _ in 0..time.as_millis() / 100 {
            for index in 0..2 {
                if net.agent(index).chosen() != Path::Relay {
                    net.count_straight(index, 200);
                }
            }
            net.exchange_traffic();
            net.run(SECOND / 10);
        }
    };
    fast(&mut net, 15 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    net.routes[0].loss = 0;
    fast(&mut net, 45 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    let before = net.sides[0].chosen.len();
    fast(&mut net, 60 * SECOND);
    assert_eq!(net.sides[0].chosen.len(), before);
}

#[test]
fn loss_in_one_direction_hardly_moves_who_loses_nothing() {
    let mut net = connected();
    (net.routes[0].loss, net.routes[0].loss_back) = (40, Some(0));
    traffic(&mut net, 60 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Relay);
    let before = net.sides[1].chosen.len();
    traffic(&mut net, 300 * SECOND);
    let changes = net.sides[1].chosen.len() - before;
    assert!(changes <= 20, "{changes} changes in five minutes");
}

#[test]
fn what_was_found_out_in_another_network_does_not_count() {
    let mut net = connected();
    net.routes[0].loss = 60;
    traffic(&mut net, 8 * SECOND);
    net.routes[0].loss = 0;
    let now = net.now;
    net.sides[0].agent.handle_network_change(now);
    traffic(&mut net, 5 * SECOND);
    assert_eq!(net.agent(0).chosen(), Path::Direct(address(B)));
    assert_eq!(changes(&mut net, 120 * SECOND), 0);
}

#[test]
fn a_peer_whose_lossy_path_died_is_not_pinged_over_the_relay() {
    let mut net = connected();
    net.routes[0].loss = 60;
    traffic(&mut net, 8 * SECOND);
    net.direct_works = false;
    traffic(&mut net, 60 * SECOND);
    let before = net.sent;
    traffic(&mut net, 120 * SECOND);
    let sent = net.sent - before;
    assert!(sent <= 30, "{sent} messages over the relay in two minutes");
}

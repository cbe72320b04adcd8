//! What paths that are not in use lack.

use std::time::Duration;

use path::{Hindrance, Lack, PathAgent, PathConfig, Reason};

use crate::net::{A, B, Net, candidate, connected};

fn lacks(net: &Net) -> Option<Lack> {
    net.agent(0).remotes(net.now)[0].lacks
}

fn traffic(net: &mut Net, seconds: u32) {
    for _ in 0..seconds * 10 {
        net.exchange_traffic();
        net.run(Duration::from_millis(100));
    }
}

#[test]
fn the_path_in_use_lacks_nothing_and_others_say_what() {
    let mut net = connected();
    assert_eq!((lacks(&net), net.agent(0).hindrance(net.now)), (None, None));

    net.carries_tunnel = false;
    traffic(&mut net, 20);
    assert_eq!(lacks(&net), Some(Lack::Packets));
    assert_eq!(net.agent(0).hindrance(net.now), Some(Hindrance::Unusable));

    net = connected();
    net.routes[0].loss = 40;
    traffic(&mut net, 30);
    assert!(matches!(lacks(&net), Some(Lack::Quality(Reason::Lossy { .. }))));

    net = connected();
    net.direct_works = false;
    traffic(&mut net, 5);
    assert_eq!(lacks(&net), Some(Lack::Answer));
    assert_eq!(net.agent(0).hindrance(net.now), Some(Hindrance::NoAnswer));
}

#[test]
fn a_device_says_why_it_has_no_direct_path() {
    let mut net = Net::new();
    assert_eq!(net.agent(0).hindrance(net.now), Some(Hindrance::Idle));
    net.sides[0].agent.handle_sent(net.now);
    assert_eq!(net.agent(0).hindrance(net.now), Some(Hindrance::NoAddress));
    net.sides[0].agent.handle_remote_candidates(&[candidate(B)], net.now);
    assert_eq!(net.agent(0).hindrance(net.now), Some(Hindrance::NoAnswer));

    let mut without = PathAgent::new(PathConfig::default());
    without.handle_remote_candidates(&[candidate(A)], net.now);
    without.handle_sent(net.now);
    assert_eq!(without.hindrance(net.now), Some(Hindrance::NoUdp));
}

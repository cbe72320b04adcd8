//! The gate before the handshake: mac1, cookies by measured rate, budgets.

use std::time::Duration;

use crate::lab::Lab;
use wireguard_proto::{Dropped, GateRefusal, LoadLimits, Rate, Source};

fn one_at_a_time() -> LoadLimits {
    let few = Rate { per_second: 1, burst: 1 };
    LoadLimits { arrivals: few, ..LoadLimits::default() }
}

/// Fresh initiations of a, at the distance the protocol asks for.
fn initiations(lab: &mut Lab, count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|_| {
            let peer = lab.a.peer;
            lab.a.interface.initiate(&peer, &mut lab.rng, lab.now);
            lab.now += Duration::from_secs(6);
            lab.a.interface.handle_timeout(&mut lab.rng, lab.now);
            std::iter::from_fn(|| lab.a.interface.poll_transmit()).last().unwrap().message
        })
        .collect()
}

#[test]
fn under_load_a_sender_gets_a_cookie_and_comes_in_with_it() {
    let mut lab = Lab::with(|config| config.limits = one_at_a_time(), vec![], vec![]);
    let flood = initiations(&mut lab, 3);
    let from = lab.a.address;
    for mut message in flood {
        lab.b.take(&mut message, from, &mut lab.rng, lab.now);
    }
    assert_eq!(lab.b.dropped, [Dropped::CookieSent, Dropped::CookieSent]);
    lab.settle();
    assert!(!lab.a.ready(lab.now));
    assert_eq!(lab.sent.1, [2, 3, 3]);

    // Load is kept up from elsewhere; the next initiation carries the cookie.
    let noise = Source::from(std::net::SocketAddr::from(([203, 0, 113, 9], 9)));
    lab.now += Duration::from_secs(6);
    let peer = lab.a.peer;
    lab.a.interface.initiate(&peer, &mut lab.rng, lab.now);
    lab.a.interface.handle_timeout(&mut lab.rng, lab.now);
    let mut message = lab.a.interface.poll_transmit().unwrap().message;
    let gate = lab.b.interface.gate();
    while gate.admit(&message, &noise, &mut lab.rng, lab.now).is_ok() {}
    assert!(gate.is_loaded(lab.now));
    lab.b.take(&mut message, from, &mut lab.rng, lab.now);
    lab.settle();
    assert!(lab.a.ready(lab.now) && lab.b.ready(lab.now));
}

#[test]
fn a_cookie_is_worth_nothing_at_another_address() {
    let mut lab = Lab::with(|config| config.limits = one_at_a_time(), vec![], vec![]);
    let from = lab.a.address;
    for mut message in initiations(&mut lab, 3) {
        lab.b.take(&mut message, from, &mut lab.rng, lab.now);
    }
    lab.settle();
    let mut with_cookie = initiations(&mut lab, 1).remove(0);
    let gate = lab.b.interface.gate();
    let elsewhere = ([203, 0, 113, 7], 7).into();
    while gate.admit(&with_cookie, &Source::from(from), &mut lab.rng, lab.now).is_ok()
        && !gate.is_loaded(lab.now)
    {}
    lab.b.dropped.clear();
    lab.b.take(&mut with_cookie, elsewhere, &mut lab.rng, lab.now);
    assert_eq!(lab.b.dropped, [Dropped::CookieSent]);
}

#[test]
fn one_noisy_prefix_does_not_make_the_others_fetch_cookies() {
    let mut lab = Lab::new();
    let message = initiations(&mut lab, 1).remove(0);
    let gate = lab.b.interface.gate();
    let noisy = Source::from(std::net::SocketAddr::from(([203, 0, 113, 9], 9)));
    let other = Source::from(std::net::SocketAddr::from(([198, 51, 100, 9], 9)));
    let refused =
        (0..50).filter(|_| gate.admit(&message, &noisy, &mut lab.rng, lab.now).is_err()).count();
    assert_eq!(refused, 30, "a burst of twenty goes through");
    assert_eq!(gate.admit(&message, &other, &mut lab.rng, lab.now), Ok(()));
    assert!(!gate.is_loaded(lab.now));
}

#[test]
fn load_ends_when_the_rate_falls() {
    let mut lab = Lab::with(|config| config.limits = one_at_a_time(), vec![], vec![]);
    let message = initiations(&mut lab, 1).remove(0);
    let gate = lab.b.interface.gate();
    let from = Source::from(lab.a.address);
    assert_eq!(gate.admit(&message, &from, &mut lab.rng, lab.now), Ok(()));
    assert!(matches!(
        gate.admit(&message, &from, &mut lab.rng, lab.now),
        Err(GateRefusal::CookieNeeded(_))
    ));
    assert!(gate.is_loaded(lab.now));
    assert!(!gate.is_loaded(lab.now + Duration::from_secs(1)));
}

#[test]
fn handshakes_have_a_budget_per_prefix() {
    let few = Rate { per_second: 1, burst: 2 };
    let limits = LoadLimits { admissions_of_prefix: few, ..LoadLimits::default() };
    let mut lab = Lab::with(|config| config.limits = limits, vec![], vec![]);
    let message = initiations(&mut lab, 1).remove(0);
    let gate = lab.b.interface.gate();
    let from = Source::from(lab.a.address);
    for _ in 0..2 {
        assert_eq!(gate.admit(&message, &from, &mut lab.rng, lab.now), Ok(()));
    }
    let refusal = gate.admit(&message, &from, &mut lab.rng, lab.now);
    assert_eq!(refusal, Err(GateRefusal::OverBudget));
}

#[test]
fn a_wrong_first_mac_gets_no_answer() {
    let mut lab = Lab::new();
    let mut message = initiations(&mut lab, 1).remove(0);
    message[120] ^= 1;
    let from = lab.a.address;
    lab.b.take(&mut message, from, &mut lab.rng, lab.now);
    assert_eq!(lab.b.dropped, [Dropped::WrongMac1]);
    assert!(lab.b.interface.poll_transmit().is_none());
}

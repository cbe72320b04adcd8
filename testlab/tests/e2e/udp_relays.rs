//! Relays that pass datagrams on over UDP.

use std::time::Duration;

use testlab::netns::wait_for;
use testlab::network::Lab;
use testlab::probes::Probes;

use crate::apart::Apart;
use crate::{PATIENCE, files_arrive_whole, traffic_goes_on_within_3_s};

#[test]
fn between_random_ports_files_arrive_whole_over_a_relay_by_udp() {
    let mut lab = Lab::new();
    let pair = Apart::by_random_ports(&mut lab);
    pair.wait_for_path("udp-relay", PATIENCE);
    files_arrive_whole(&pair.alice, &pair.bob);
    pair.wait_for_path("udp-relay", PATIENCE);
    let via = pair.alice.path_to(&pair.bob).expect("there is a path");
    let why = pair.alice.why(&pair.bob);
    let candidates = why["candidates"].as_array().expect("paths are known");
    let it = candidates.iter().find(|candidate| candidate["kind"] == "udp-relay");
    let it = it.unwrap_or_else(|| panic!("{why}"));
    assert_eq!((it["via"].as_str(), it["lacks"].is_null()), (Some(&*via), true), "{why}");
    assert_eq!(lab.warnings(), Vec::<String>::new());
}

/// How a relay goes.
#[derive(Clone, Copy)]
enum End {
    Drained,
    Stopped,
    Killed,
}

/// Whichever relay passes on for a pair goes, in each of these ways in turn; `watch` looks at the traffic while `it goes`.
fn relays_go(ends: &[End], watch: impl Fn(&Apart, &mut dyn FnMut())) {
    let mut lab = Lab::new();
    let mut relays = [lab.relay("second"), lab.relay("third")];
    let pair = Apart::by_random_ports(&mut lab);
    pair.alice.wait_for_relays(2);
    pair.bob.wait_for_relays(2);
    for end in ends {
        pair.wait_for_path("udp-relay", PATIENCE);
        let via = pair.alice.path_to(&pair.bob).expect("there is a path");
        let mut used =
            relays.iter_mut().find(|relay| via.starts_with(&format!("{}:", relay.address())));
        let drain = ["relay", "drain"];
        watch(&pair, &mut || match (&mut used, end) {
            (Some(relay), End::Drained) => drop(relay.ask(&drain)),
            (Some(relay), End::Stopped) => relay.stop(),
            (Some(relay), End::Killed) => relay.kill(),
            (None, End::Drained) => drop(lab.administer(&drain)),
            (None, End::Stopped) => lab.stop_server(),
            (None, End::Killed) => lab.kill_server(),
        });
        wait_for("another relay", PATIENCE, || {
            let now = pair.alice.path_to(&pair.bob)?;
            (pair.alice.reaches(&pair.bob.full_name()) && now != via).then_some(())
        });
    }
}

#[test]
fn a_relay_that_dies_is_replaced_by_another_within_3_s() {
    relays_go(&[End::Killed], |pair, it_goes| {
        traffic_goes_on_within_3_s((&pair.alice, &pair.bob), it_goes);
    });
}

#[test]
fn a_relay_that_is_drained_or_stopped_is_missed_by_nobody() {
    relays_go(&[End::Drained, End::Stopped], |pair, it_goes| {
        let probes = Probes::start(&pair.alice, &pair.bob.addresses()[0]);
        probes.watch(Duration::from_secs(1));
        it_goes();
        probes.watch(Duration::from_secs(4));
        let trace = probes.stop();
        assert!(trace.lost() <= 1, "{trace:?}");
    });
}

//! Relays that pass datagrams on over UDP.

use testlab::netns::wait_for;
use testlab::network::Lab;

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

#[test]
fn a_relay_that_dies_or_drains_is_replaced_by_another_within_3_s() {
    let mut lab = Lab::new();
    let mut relays = [lab.relay("second"), lab.relay("third")];
    let pair = Apart::by_random_ports(&mut lab);
    pair.alice.wait_for_relays(2);
    pair.bob.wait_for_relays(2);
    for drains in [true, false] {
        pair.wait_for_path("udp-relay", PATIENCE);
        let via = pair.alice.path_to(&pair.bob).expect("there is a path");
        let used =
            relays.iter_mut().find(|relay| via.starts_with(&format!("{}:", relay.address())));
        let drain = ["relay", "drain"];
        traffic_goes_on_within_3_s((&pair.alice, &pair.bob), || match (used, drains) {
            (Some(relay), true) => drop(relay.ask(&drain)),
            (Some(relay), false) => relay.kill(),
            (None, true) => drop(lab.administer(&drain)),
            (None, false) => lab.kill_server(),
        });
        wait_for("another relay", PATIENCE, || {
            let now = pair.alice.path_to(&pair.bob)?;
            (pair.alice.reaches(&pair.bob.full_name()) && now != via).then_some(())
        });
    }
}

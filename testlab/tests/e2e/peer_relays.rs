//! Devices that pass datagrams on for others.

use testlab::netns::{Nat, Router, wait_for};
use testlab::network::{Device, Lab};

use crate::apart::Apart;
use crate::{PATIENCE, files_arrive_whole, traffic_goes_on_within_3_s};

/// Two devices of which neither gets a datagram straight to the other, and one that passes on what they send, behind a
/// translator of its own.
struct Trio {
    pair: Apart,
    gateway: Device,
    _router: Router,
}

impl Trio {
    fn new(lab: &mut Lab) -> Self {
        lab.administer(&["network", "set", "--peer-relay", "gateways"]);
        let pair = Apart::by_random_ports(lab);
        let router = lab.router(Nat::FullCone, None);
        let mut gateway = lab.host_behind(&router, "gateway");
        gateway.up(&[&lab.invite(&["--group", "gateways"])]);
        gateway.wait_for_membership("online", PATIENCE);
        Self { pair, gateway, _router: router }
    }
}

/// Between how many pairs a device passes on.
fn passed(device: &Device) -> Option<u64> {
    device.status()?["networks"][0]["passed"].as_u64()
}

#[test]
fn files_arrive_whole_through_another_device_and_every_relay_may_be_gone() {
    let mut lab = Lab::with_frames_only();
    let Trio { pair, gateway, .. } = &Trio::new(&mut lab);
    pair.wait_for_path("relay", PATIENCE);
    pair.wait_for_path("peer-relay", PATIENCE);
    assert_eq!(pair.alice.path_to(&pair.bob).as_deref(), Some("gateway"));
    assert_eq!((passed(gateway), passed(&pair.alice)), (Some(1), Some(0)));
    assert_eq!(lab.warnings(), Vec::<String>::new());
    lab.kill_server();

    files_arrive_whole(&pair.alice, &pair.bob);
    assert_eq!(pair.alice.path_to(&pair.bob).as_deref(), Some("gateway"));
}

#[test]
fn a_peer_relay_that_dies_is_replaced_by_the_relay_within_3_s() {
    let mut lab = Lab::with_frames_only();
    let mut trio = Trio::new(&mut lab);
    let pair = &trio.pair;
    pair.wait_for_path("peer-relay", PATIENCE);
    let ends = (&pair.alice, &pair.bob);
    traffic_goes_on_within_3_s(ends, || trio.gateway.kill());
    pair.wait_for_path("relay", PATIENCE);
}

#[test]
fn whom_the_network_does_not_let_passes_nothing_on_any_more() {
    let mut lab = Lab::with_frames_only();
    let Trio { pair, gateway, .. } = &Trio::new(&mut lab);
    pair.wait_for_path("peer-relay", PATIENCE);
    lab.administer(&["network", "set", "--peer-relay", "none"]);
    pair.wait_for_path("relay", PATIENCE);
    wait_for("the circuit to be gone", PATIENCE, || (passed(gateway) == Some(0)).then_some(()));
}

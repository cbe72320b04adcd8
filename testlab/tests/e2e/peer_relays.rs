//! Devices that pass datagrams on for others.

use std::time::Duration;

use testlab::netns::{Nat, Router, wait_for};
use testlab::network::{Device, Lab};

use crate::{files_arrive_whole, traffic_goes_on_within_3_s};

/// How long anything may take that is not the subject of a test.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two devices of which neither gets a datagram straight to the other, and one that passes on what they send, behind a
/// translator of its own.
struct Apart {
    alice: Device,
    bob: Device,
    gateway: Device,
    _routers: [Router; 3],
}

impl Apart {
    fn new(lab: &mut Lab) -> Self {
        lab.administer(&["network", "set", "--peer-relay", "gateways"]);
        let routers =
            [Nat::Symmetric, Nat::Symmetric, Nat::FullCone].map(|nat| lab.router(nat, None));
        let join = |index: usize, name: &str, groups: &[&str]| {
            let mut device = lab.host_behind(&routers[index], name);
            device.up(&[&lab.invite(groups)]);
            device.wait_for_membership("online", PATIENCE);
            device
        };
        let (alice, bob) = (join(0, "alice", &[]), join(1, "bob", &[]));
        let gateway = join(2, "gateway", &["--group", "gateways"]);
        Self { alice, bob, gateway, _routers: routers }
    }

    fn wait_for_path(&self, kind: &str) {
        self.alice.wait_for_path(&self.bob, kind, PATIENCE);
        self.bob.wait_for_path(&self.alice, kind, PATIENCE);
    }
}

/// Between how many pairs a device passes on.
fn passed(device: &Device) -> Option<u64> {
    device.status()?["networks"][0]["passed"].as_u64()
}

#[test]
fn files_arrive_whole_through_another_device_and_every_relay_may_be_gone() {
    let mut lab = Lab::with_frames_only();
    let pair = Apart::new(&mut lab);
    pair.wait_for_path("relay");
    pair.wait_for_path("peer-relay");
    assert_eq!(pair.alice.path_to(&pair.bob).as_deref(), Some("gateway"));
    assert_eq!((passed(&pair.gateway), passed(&pair.alice)), (Some(1), Some(0)));
    assert_eq!(lab.warnings(), Vec::<String>::new());
    lab.kill_server();

    files_arrive_whole(&pair.alice, &pair.bob);
    assert_eq!(pair.alice.path_to(&pair.bob).as_deref(), Some("gateway"));
}

#[test]
fn a_peer_relay_that_dies_is_replaced_by_the_relay_within_3_s() {
    let mut lab = Lab::with_frames_only();
    let mut pair = Apart::new(&mut lab);
    pair.wait_for_path("peer-relay");
    let ends = (&pair.alice, &pair.bob);
    traffic_goes_on_within_3_s(ends, || pair.gateway.kill());
    pair.wait_for_path("relay");
}

#[test]
fn whom_the_network_does_not_let_passes_nothing_on_any_more() {
    let mut lab = Lab::with_frames_only();
    let pair = Apart::new(&mut lab);
    pair.wait_for_path("peer-relay");
    lab.administer(&["network", "set", "--peer-relay", "none"]);
    pair.wait_for_path("relay");
    wait_for("the circuit to be gone", PATIENCE, || {
        (passed(&pair.gateway) == Some(0)).then_some(())
    });
}

//! Pairs that find no direct path.

use std::time::Duration;

use testlab::netns::{Nat, Router};
use testlab::network::{Device, Lab};

use crate::PATIENCE;

/// Two devices of which neither gets a datagram straight to the other, and their routers.
pub(crate) struct Apart {
    pub(crate) alice: Device,
    pub(crate) bob: Device,
    _routers: [Router; 2],
}

impl Apart {
    /// Behind such translators.
    pub(crate) fn new(lab: &mut Lab, nats: [Nat; 2]) -> Self {
        let routers = nats.map(|nat| lab.router(nat, None));
        let join = |router: &Router, name: &str| {
            let mut device = lab.host_behind(router, name);
            device.up(&[&lab.invite(&[])]);
            device.wait_for_membership("online", PATIENCE);
            device
        };
        let (alice, bob) = (join(&routers[0], "alice"), join(&routers[1], "bob"));
        Self { alice, bob, _routers: routers }
    }

    /// Behind translators that give each destination a port at random.
    pub(crate) fn by_random_ports(lab: &mut Lab) -> Self {
        Self::new(lab, [Nat::Symmetric, Nat::Symmetric])
    }

    /// Waits until both use such a path.
    pub(crate) fn wait_for_path(&self, kind: &str, within: Duration) {
        self.alice.wait_for_path(&self.bob, kind, within);
        self.bob.wait_for_path(&self.alice, kind, within);
    }
}

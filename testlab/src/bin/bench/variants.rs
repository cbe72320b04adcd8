//! What is measured: two hosts and what joins them.

use std::path::Path;
use std::time::Duration;

use testlab::netns::{Namespace, wire};
use testlab::network::{Device, Lab};
use testlab::wireguard::End;

const PATIENCE: Duration = Duration::from_secs(30);

/// Two hosts, and the address at which the first reaches the second.
pub(crate) struct Link<'a> {
    pub(crate) a: &'a Namespace,
    pub(crate) b: &'a Namespace,
    pub(crate) address: &'a str,
}

/// What is done with a link while it stands.
pub(crate) type Measure<'m> = dyn FnMut(&Link<'_>) + 'm;

/// Two members of a network.
pub(crate) struct Members {
    _lab: Lab,
    a: Device,
    b: Device,
}

impl Members {
    /// Two members with a direct path, or with UDP forbidden.
    pub(crate) fn new(udp: bool) -> Self {
        let mut lab = Lab::new();
        let (mut a, b) = (lab.host("a"), lab.device("b"));
        if !udp {
            a.namespace().block_udp();
        }
        a.up(&[&lab.invite(&[])]);
        a.wait_for_path(&b, if udp { "direct" } else { "relay" }, PATIENCE);
        Self { _lab: lab, a, b }
    }

    pub(crate) fn with(&self, measure: &mut Measure<'_>) {
        let address = self.b.addresses().swap_remove(0);
        measure(&Link { a: self.a.namespace(), b: self.b.namespace(), address: &address });
    }
}

/// The veth without a tunnel: the measure of the machine.
pub(crate) fn bare(measure: &mut Measure<'_>) {
    let (a, b) = hosts();
    measure(&Link { a: &a, b: &b, address: "192.0.2.2" });
}

fn hosts() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    wire((&a, "eth0", &["192.0.2.1/24"]), (&b, "eth0", &["192.0.2.2/24"]));
    (a, b)
}

/// A plain WireGuard tunnel, both ends by this program.
pub(crate) fn wireguard(program: &Path, args: &[&str], measure: &mut Measure<'_>) {
    let [a, b] = <[_; 2]>::from(hosts()).map(|host| End::start(program, args, host));
    a.configure("10.77.0.1/24", (&b, "192.0.2.2", "10.77.0.0/24"));
    b.configure("10.77.0.2/24", (&a, "192.0.2.1", "10.77.0.0/24"));
    a.wait_until_reaches("10.77.0.2", PATIENCE);
    measure(&Link { a: a.namespace(), b: b.namespace(), address: "10.77.0.2" });
}

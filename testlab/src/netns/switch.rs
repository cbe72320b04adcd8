//! Wires and switches without fault.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Conditions, Namespace, SlowWire};

/// Joins two namespaces by a veth pair and gives each end its addresses (`ip addr` notation, IPv4 or IPv6).
pub fn wire(a: (&Namespace, &str, &[&str]), b: (&Namespace, &str, &[&str])) {
    let ((namespace_a, interface_a, _), (namespace_b, interface_b, _)) = (a, b);
    let (id_a, id_b) = (namespace_a.id(), namespace_b.id());
    let veth = ["link", "add", interface_a, "netns", &id_a, "type", "veth"];
    let peer = ["peer", "name", interface_b, "netns", &id_b];
    namespace_a.run("ip", &[&veth[..], &peer].concat());
    configure(a);
    configure(b);
}

/// Gives one end of a wire its addresses, and takes it up.
pub(super) fn configure((namespace, interface, addresses): (&Namespace, &str, &[&str])) {
    for address in addresses {
        let mut args = vec!["addr", "add", address, "dev", interface];
        if address.contains(':') {
            args.push("nodad");
        }
        namespace.run("ip", &args);
    }
    namespace.set_link(interface, true);
}

/// A switch in the middle: a namespace with a bridge to which [`Switch::plug`] joins hosts on one subnet. The namespace may have other
/// interfaces and be a router.
#[derive(Debug)]
pub struct Switch {
    namespace: Namespace,
    ports: AtomicU32,
}

impl Switch {
    /// A switch without any host.
    pub fn new() -> Self {
        Self::on(Namespace::new("switch"))
    }

    /// A switch that is part of a host, which reaches the switch's hosts by the interface `bridge0`.
    pub fn on(namespace: Namespace) -> Self {
        namespace.run("ip", &["link", "add", "bridge0", "type", "bridge"]);
        namespace.run("ip", &["link", "set", "bridge0", "up"]);
        namespace.attempt("sysctl", &["-qw", "net.bridge.bridge-nf-call-iptables=0"]);
        Self { namespace, ports: AtomicU32::new(0) }
    }

    /// Joins a host by its interface `eth0` with these addresses.
    pub fn plug(&self, host: &Namespace, addresses: &[&str]) {
        self.plug_by("eth0", host, addresses);
    }

    /// The same by another interface.
    pub fn plug_by(&self, interface: &str, host: &Namespace, addresses: &[&str]) {
        self.join(|port| wire((host, interface, addresses), (&self.namespace, port, &[])));
    }

    /// The same over a wire that delays and loses.
    pub fn plug_slow(
        &self,
        host: &Namespace,
        addresses: &[&str],
        conditions: Conditions,
    ) -> SlowWire {
        self.join(|port| {
            SlowWire::new((host, "eth0", addresses), (&self.namespace, port, &[]), conditions)
        })
    }

    /// The namespace with the bridge.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn join<T>(&self, wire: impl FnOnce(&str) -> T) -> T {
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        let made = wire(&port);
        self.namespace.run("ip", &["link", "set", &port, "master", "bridge0"]);
        made
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

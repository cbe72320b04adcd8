//! Routers that translate addresses, in the terms of RFC 4787.

use std::sync::atomic::{AtomicU8, Ordering};

use super::{Conditions, Namespace, SlowWire, Switch};

/// The host part of the gateway in its net.
const GATEWAY: u8 = 1;

/// The ports that a router uses one after the other: this many ...
const COUNTED: u16 = 4_096;
/// ... from here on.
const FIRST_COUNTED: u16 = 30_000;

/// How a router treats what passes between its inner net and the outer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nat {
    /// Endpoint-independent mapping and filtering ("full cone").
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address- and port-dependent filtering, as most homes have.
    PortRestricted,
    /// A port of its own for each destination address, at random.
    AddressSymmetric,
    /// A port of its own for each destination, at random.
    Symmetric,
    /// A port of its own for each destination, by counting.
    SymmetricSequential,
    /// Translates TCP as others do, and forwards no UDP.
    UdpBlocked,
}

impl Nat {
    /// The rules for a router whose outer address this is. The kernel's own translation maps each endpoint independently of the
    /// destination as long as ports do not collide, and filters by address and port; the other kinds are made from it by remembering
    /// who sent from which port. What nobody asked for is dropped before the kernel remembers it: remembered, it would hold the port
    /// that an inner host is about to use.
    fn rules(self, outside: &str, inside: &str) -> String {
        let remember =
            "oifname eth0 meta l4proto udp update @mapped { udp sport : ip saddr . udp sport }";
        let admit = "dnat ip addr . port to udp dport map @mapped";
        let (before, after, translate, forward) = match self {
            Self::FullCone => (
                format!("iifname eth0 meta l4proto udp {admit}"),
                remember.to_owned(),
                "",
                "accept",
            ),
            Self::AddressRestricted => (
                format!("iifname eth0 meta l4proto udp ip saddr . udp dport @asked {admit}"),
                format!(
                    "{remember}\noifname eth0 meta l4proto udp update @asked {{ ip daddr . udp sport }}"
                ),
                "",
                "accept",
            ),
            Self::PortRestricted => (String::new(), String::new(), "", "accept"),
            Self::Symmetric => (String::new(), String::new(), "fully-random", "accept"),
            Self::AddressSymmetric | Self::SymmetricSequential => {
                (String::new(), String::new(), "", "accept")
            }
            Self::UdpBlocked => (String::new(), String::new(), "", "meta l4proto udp drop"),
        };
        let choose =
            format!("oifname eth0 ip saddr {inside} meta l4proto udp snat ip to {outside}");
        let chosen = match self {
            // By a map, because nftables would take the number itself for a port in the other order of bytes.
            Self::SymmetricSequential => {
                let ports: Vec<_> =
                    (0..COUNTED).map(|n| format!("{n} : {}", FIRST_COUNTED + n)).collect();
                format!("{choose} : numgen inc mod {COUNTED} map {{ {} }}", ports.join(", "))
            }
            Self::AddressSymmetric => {
                format!("{choose} : jhash ip daddr . udp sport mod 49152 offset 16384")
            }
            Self::FullCone
            | Self::AddressRestricted
            | Self::PortRestricted
            | Self::Symmetric
            | Self::UdpBlocked => String::new(),
        };
        format!(
            "table ip edge {{
            map mapped {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 120s; size 65535; }}
            set asked {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout 120s; size 65535; }}
            chain before {{ type nat hook prerouting priority -100;
                {before}
            }}
            chain after {{ type filter hook postrouting priority 90;
                {after}
            }}
            chain translate {{ type nat hook postrouting priority 100;
                {chosen}
                oifname eth0 ip saddr {inside} masquerade {translate}
            }}
            chain unasked {{ type filter hook input priority 0;
                iifname eth0 ct state new drop
            }}
            chain through {{ type filter hook forward priority 0;
                iifname eth0 ct state new ct status & dnat == 0 drop
                {forward}
            }}
            }}"
        )
    }
}

/// A router with an inner net of its own.
#[derive(Debug)]
pub struct Router {
    inner: Switch,
    /// The first three numbers of the inner net.
    net: String,
    hosts: AtomicU8,
    /// Keeps the uplink up, if that is no plain wire.
    _uplink: Option<SlowWire>,
}

impl Router {
    /// A router on `outer` by the address `outside` (`ip addr` notation), with the inner net `net`.0/24.
    pub fn new(
        outer: &Switch,
        outside: &str,
        net: &str,
        nat: Nat,
        conditions: Option<Conditions>,
    ) -> Self {
        let namespace = Namespace::new("router");
        namespace.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"]);
        let uplink = match conditions {
            Some(conditions) => Some(outer.plug_slow(&namespace, &[outside], conditions)),
            None => {
                outer.plug(&namespace, &[outside]);
                None
            }
        };
        let address = outside.split('/').next().unwrap_or(outside);
        let inner = Switch::on(namespace);
        let gateway = format!("{net}.{GATEWAY}/24");
        inner.namespace().run("ip", &["addr", "add", &gateway, "dev", "bridge0"]);
        inner.namespace().nft(&nat.rules(address, &format!("{net}.0/24")));
        Self { inner, net: net.to_owned(), hosts: AtomicU8::new(GATEWAY), _uplink: uplink }
    }

    /// Joins a host to the inner net, with this router as its way to everywhere.
    pub fn plug(&self, host: &Namespace) {
        self.inner.plug(host, &[&self.next_address()]);
        host.set_default_route(&format!("{}.{GATEWAY}", self.net));
    }

    /// The inner net, for a further router in it.
    pub fn inner(&self) -> &Switch {
        &self.inner
    }

    /// An address of the inner net that nobody has, in `ip addr` notation.
    pub fn next_address(&self) -> String {
        format!("{}.{}/24", self.net, self.hosts.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Lets a further router's packets take this one as their way to everywhere.
    pub fn serve(&self, inner: &Self) {
        inner.namespace().set_default_route(&format!("{}.{GATEWAY}", self.net));
    }

    /// The router itself, whose uplink is `eth0`.
    pub fn namespace(&self) -> &Namespace {
        self.inner.namespace()
    }

    /// Forgets who spoke with whom, as when the power fails for a moment.
    pub fn forget_mappings(&self) {
        self.namespace().run("conntrack", &["-F"]);
        self.namespace().run("nft", &["flush", "map", "ip", "edge", "mapped"]);
        self.namespace().run("nft", &["flush", "set", "ip", "edge", "asked"]);
    }
}

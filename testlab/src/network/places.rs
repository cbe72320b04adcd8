//! Devices in the surroundings that the simulator knows as well.

use super::{Device, Lab, server_address};
use crate::netns::{Namespace, Nat, Router};
use crate::places::Place;

/// The first part of everybody's IPv6 address.
pub const IPV6: &str = "2600:1::";
/// The last part of the server's.
const SERVER: u16 = 1;
/// Where the server listens: nothing else gets out of some places.
const HTTPS: u16 = 443;

/// A device at a place, and the routers in front of it.
#[derive(Debug)]
pub struct Home {
    /// The device, which is in no network yet.
    pub device: Device,
    _routers: Vec<Router>,
}

impl Lab {
    /// A lab whose server has addresses of both families and listens at the port of HTTPS.
    #[must_use]
    pub fn with_ipv6() -> Self {
        let mut lab = Self::without_server();
        let address = format!("{IPV6}{SERVER:x}");
        lab.server.run("ip", &["address", "add", &format!("{address}/64"), "dev", "eth0", "nodad"]);
        let (listen, ipv4) = (format!("[::]:{HTTPS}"), server_address().to_string());
        lab.start_server_with(&["--listen", &listen, "--host", &ipv4, "--host", &address]);
        lab
    }

    /// A device at a place. Where there is IPv6, it is the switch's.
    pub fn at(&mut self, place: Place, name: &str) -> Home {
        match place {
            Place::Open => Home { device: self.host(name), _routers: Vec::new() },
            Place::Firewalled => {
                let addresses = [format!("{}/24", self.next_address()), self.next_ipv6_address()];
                self.shielded(name, &addresses.each_ref().map(String::as_str))
            }
            Place::Ipv6Only => {
                let address = self.next_ipv6_address();
                self.shielded(name, &[&address])
            }
            Place::FullCone => self.behind(Nat::FullCone, name),
            Place::Restricted => self.behind(Nat::AddressRestricted, name),
            Place::PortRestricted => self.behind(Nat::PortRestricted, name),
            Place::AddressSymmetric => self.behind(Nat::AddressSymmetric, name),
            Place::Symmetric => self.behind(Nat::Symmetric, name),
            Place::SymmetricWithIpv6 => {
                let home = self.behind(Nat::Symmetric, name);
                let address = self.next_ipv6_address();
                self.switch.plug_by("eth1", home.device.namespace(), &[&address]);
                home.device.namespace().shield();
                home
            }
            Place::Carrier => self.behind_carrier(Nat::PortRestricted, name),
            Place::NoUdp => self.behind(Nat::UdpBlocked, name),
            Place::Counting => self.behind(Nat::SymmetricSequential, name),
            Place::CountingCarrier => self.behind_carrier(Nat::SymmetricSequential, name),
            Place::Https => self.confined(name, &format!("tcp dport {HTTPS}")),
            Place::Proxy => {
                let (at, url) = self.proxy.clone().expect("the lab has a proxy");
                let allowed = format!("ip daddr {} tcp dport {}", at.ip(), at.port());
                let mut home = self.confined(name, &allowed);
                home.device.set_variable("HTTPS_PROXY", &url);
                home
            }
        }
    }

    /// A device on the switch that may send no more than that.
    fn confined(&mut self, name: &str, allowed: &str) -> Home {
        let device = self.host(name);
        device.namespace().confine(allowed);
        Home { device, _routers: Vec::new() }
    }

    fn behind(&mut self, nat: Nat, name: &str) -> Home {
        let router = self.router(nat, None);
        Home { device: self.host_behind(&router, name), _routers: vec![router] }
    }

    fn behind_carrier(&mut self, nat: Nat, name: &str) -> Home {
        let carrier = self.carrier(nat);
        let router = self.router_behind(&carrier, Nat::PortRestricted);
        Home { device: self.host_behind(&router, name), _routers: vec![router, carrier] }
    }

    fn shielded(&self, name: &str, addresses: &[&str]) -> Home {
        let namespace = Namespace::new(name);
        self.switch.plug(&namespace, addresses);
        namespace.shield();
        Home { device: Device::new(self, name, namespace), _routers: Vec::new() }
    }

    fn next_ipv6_address(&mut self) -> String {
        self.hosts += 1;
        format!("{IPV6}{:x}/64", self.hosts)
    }
}

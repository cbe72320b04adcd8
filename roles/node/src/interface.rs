//! The TUN interface of one network, kept as the engine wants it.

use std::{io, path::Path};

use engine::InterfaceSettings;
use ipnet::IpNet;
use platform::{
    Queues, Tun, TunConfig, TunError,
    links::{self, Route},
    tun::Device,
};
use tracing::warn;

/// An interface that ends, with its addresses and routes, when it is dropped.
#[derive(Debug)]
pub(crate) struct Interface {
    queues: Queues,
    index: u32,
    addresses: Vec<IpNet>,
    routes: Vec<IpNet>,
}

impl Interface {
    /// Makes the interface with up to `queues` queues, without addresses and down.
    pub(crate) fn open(
        name: &str,
        device: &Path,
        mtu: u32,
        queues: usize,
    ) -> Result<Self, TunError> {
        let config = TunConfig {
            device: Device::Path(device.to_owned()),
            mtu: Some(mtu),
            ..TunConfig::named(name)
        };
        let queues = Queues::new(Tun::open_queues(config, queues)?);
        let index = queues.first().index()?;
        Ok(Self { queues, index, addresses: Vec::new(), routes: Vec::new() })
    }

    /// Where its packets are read and written.
    pub(crate) fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Its name when it was made.
    pub(crate) fn name(&self) -> &str {
        self.queues.first().name()
    }

    /// Its index, by which the system's resolver knows it.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Brings addresses, routes and MTU in step with `settings`. What cannot be set is told in the
    /// log, and the rest goes on.
    pub(crate) fn configure(&mut self, settings: &InterfaceSettings) {
        let mtu = u32::try_from(settings.mtu).unwrap_or(u32::MAX);
        self.told("the MTU", links::set_mtu(self.index, mtu));
        self.told("the interface's state", links::set_up(self.index));
        // Each address alone: its network is routed apart.
        let addresses: Vec<IpNet> = settings.addresses.iter().copied().map(IpNet::from).collect();
        for gone in self.addresses.iter().filter(|one| !addresses.contains(one)) {
            self.told("an address", links::remove_address(self.index, *gone));
        }
        for new in &addresses {
            self.told("an address", links::add_address(self.index, *new));
        }
        for gone in self.routes.iter().filter(|one| !settings.routes.contains(one)) {
            self.told("a route", links::remove_route(&Route::on_link(*gone, self.index)));
        }
        for new in settings.routes.iter().filter(|one| !self.routes.contains(one)) {
            self.told("a route", links::add_route(&Route::on_link(*new, self.index)));
        }
        self.addresses = addresses;
        self.routes.clone_from(&settings.routes);
    }

    fn told(&self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            warn!(interface = self.name(), %error, "{what} could not be set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use platform::process::{Namespace, may_administer_network};

    #[test]
    fn an_interface_follows_its_settings() {
        assert!(may_administer_network(), "namespaces take root: `make unit` has it");
        let namespace = Namespace::unnamed().expect("root may make one");
        namespace
            .run(|| {
                let mut interface =
                    Interface::open("shadow%d", Path::new("/dev/net/tun"), 1280, 2).expect("a TUN");
                assert_eq!(interface.queues().own().len(), 2);
                let first = InterfaceSettings {
                    addresses: vec![
                        "fd00::1".parse().expect("one"),
                        "100.64.0.1".parse().expect("one"),
                    ],
                    routes: vec![
                        "fd00::/48".parse().expect("one"),
                        "100.64.0.0/16".parse().expect("one"),
                    ],
                    mtu: 1280,
                };
                interface.configure(&first);
                let second = InterfaceSettings {
                    addresses: vec!["fd00::1".parse().expect("one")],
                    routes: vec!["fd00::/48".parse().expect("one")],
                    mtu: 1400,
                };
                interface.configure(&second);
                let own: Vec<_> = links::local_addresses()
                    .expect("a list")
                    .into_iter()
                    .filter(|one| one.interface == interface.index() && !one.local_scope)
                    .map(|one| one.address.addr())
                    .collect();
                assert_eq!(own, second.addresses);
                let routes = links::routes().expect("a list");
                let has = |route: &str| {
                    let route: IpNet = route.parse().expect("a prefix");
                    routes
                        .iter()
                        .any(|one| one.destination == route && one.interface == interface.index())
                };
                assert!(has("fd00::/48") && !has("100.64.0.0/16"));
                let all = links::interfaces().expect("a list");
                assert!(
                    all.iter()
                        .any(|one| one.index == interface.index() && one.mtu == 1400 && one.up)
                );
            })
            .expect("the namespace is open");
    }
}

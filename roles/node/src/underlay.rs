//! The network underneath: under which addresses this device is there, and which way packets leave it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use platform::links::{self, Monitor, Route};
use tokio::{
    io::unix::AsyncFd,
    sync::watch,
    task::{self, AbortHandle},
    time::sleep,
};
use tracing::debug;

use crate::{directory::Directory, ready, winners::LocalNetwork};

/// Changes come in bursts (an address goes, another comes, then the routes): so long they are collected.
const BURST: Duration = Duration::from_millis(100);
/// How often to look where the system does not tell of changes, as some sandboxes do not.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Destinations that stand for all that is far away (RFC 5737, RFC 3849). Nothing is sent there.
const FAR_AWAY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// This device's place in the network underneath.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    addresses: Vec<IpAddr>,
    /// The ways to what is far away.
    ways: Vec<Route>,
}

impl Surroundings {
    /// The addresses that others may reach with a port of this device: global ones, and loopback when
    /// the network lives on this host alone or the host has no others.
    pub(crate) fn endpoints(&self, port: u16, loopback: bool) -> Vec<SocketAddr> {
        let own = (loopback || self.addresses.is_empty()).then_some(Ipv4Addr::LOCALHOST.into());
        let all = own.into_iter().chain(self.addresses.iter().copied());
        all.map(|address| SocketAddr::new(address, port)).collect()
    }

    /// Which network it is, if there is a router on the way to what is far away.
    pub(crate) fn local_network(&self) -> Option<LocalNetwork> {
        let mut routers = self.ways.iter().filter_map(|way| Some((way.gateway?, way.interface)));
        let (router, interface) = routers.next()?;
        let all = links::local_addresses().unwrap_or_default();
        let around = all.iter().map(|local| local.address).filter(|link| link.contains(&router));
        let prefix = around.map(|link| link.prefix_len()).max().unwrap_or(0);
        let hardware = links::hardware_address(interface, router).ok().flatten();
        Some(LocalNetwork { router, prefix, hardware })
    }

    /// The router on the way to what is far away over IPv4.
    pub(crate) fn router(&self) -> Option<Ipv4Addr> {
        self.ways.iter().find_map(|way| match way.gateway {
            Some(IpAddr::V4(router)) => Some(router),
            Some(IpAddr::V6(_)) | None => None,
        })
    }
}

/// Keeps an eye on the surroundings until it is dropped.
#[derive(Debug)]
pub(crate) struct Lookout {
    surroundings: watch::Receiver<Surroundings>,
    task: AbortHandle,
}

impl Lookout {
    /// Looks around now and after every change. Addresses of the directory's networks are our own
    /// tunnels' and left out.
    pub(crate) fn start(directory: Directory) -> Self {
        // Watching begins before the first look, so that nothing falls in between.
        let mut notices = Notices::new();
        let (sender, surroundings) = watch::channel(look(&directory));
        let task = task::spawn(async move {
            loop {
                notices.next().await;
                let present = look(&directory);
                sender.send_if_modified(|known| {
                    let changed = *known != present;
                    *known = present;
                    changed
                });
            }
        });
        Self { surroundings, task: task.abort_handle() }
    }

    pub(crate) fn surroundings(&self) -> watch::Receiver<Surroundings> {
        self.surroundings.clone()
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What says that something may have changed.
enum Notices {
    System(AsyncFd<Monitor>),
    Clock,
}

impl Notices {
    fn new() -> Self {
        match Monitor::new().and_then(ready::register) {
            Ok(monitor) => Self::System(monitor),
            Err(error) => Self::none(&error),
        }
    }

    fn none(error: &io::Error) -> Self {
        debug!(%error, "the system does not tell of network changes; looking now and then");
        Self::Clock
    }

    async fn next(&mut self) {
        match self {
            Self::System(monitor) => match change(monitor).await {
                Ok(()) => sleep(BURST).await,
                Err(error) => *self = Self::none(&error),
            },
            Self::Clock => sleep(LOOK_AGAIN).await,
        }
    }
}

/// Waits for a change; those that came together count as one.
async fn change(monitor: &mut AsyncFd<Monitor>) -> io::Result<()> {
    loop {
        let mut guard = monitor.readable_mut().await?;
        let mut changed = false;
        while guard.get_inner_mut().poll_change()?.is_some() {
            changed = true;
        }
        guard.clear_ready();
        if changed {
            return Ok(());
        }
    }
}

fn look(directory: &Directory) -> Surroundings {
    let all = links::local_addresses().unwrap_or_else(|error| {
        debug!(%error, "cannot list this host's addresses");
        Vec::new()
    });
    let overlay = directory.own_addresses();
    let addresses = all.iter().filter(|local| local.usable).map(|local| local.address.addr());
    let addresses =
        addresses.filter(|address| is_global(*address) && !overlay.contains(address)).collect();
    let ways = FAR_AWAY.iter().filter_map(|address| links::way_to(*address).ok().flatten());
    Surroundings { addresses, ways: ways.collect() }
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    use platform::process::{Namespace, may_administer_network};
    use tokio::time::timeout;

    /// What takes longer than this has failed.
    const DEADLINE: Duration = Duration::from_secs(10);

    #[test]
    fn loopback_is_offered_to_a_network_on_this_host_and_where_there_is_nothing_else() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 7));
        let address = SocketAddr::from(([192, 0, 2, 9], 7));
        let here = Surroundings { addresses: vec![address.ip()], ways: Vec::new() };
        assert_eq!(here.endpoints(7, false), [address]);
        assert_eq!(here.endpoints(7, true), [loopback, address]);
        assert_eq!(Surroundings::default().endpoints(7, false), [loopback]);
    }

    /// A runtime in a namespace of its own, with an interface to change.
    fn in_namespace(test: impl AsyncFnOnce(u32) + Send) {
        assert!(may_administer_network(), "namespaces take root: `make unit` has it");
        let namespace = Namespace::unnamed().expect("root may make one");
        namespace
            .run(|| {
                let tun = platform::Tun::open(platform::TunConfig::named("uplink%d")).expect("one");
                let index = tun.index().expect("it is there");
                links::set_up(index).expect("it is there");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(test(index));
            })
            .expect("the namespace is open");
    }

    async fn until(
        surroundings: &mut watch::Receiver<Surroundings>,
        wanted: impl FnMut(&Surroundings) -> bool,
    ) {
        let found = timeout(DEADLINE, surroundings.wait_for(wanted)).await;
        found.expect("in time").expect("it runs");
    }

    #[test]
    fn a_new_address_and_another_way_out_are_told_at_once() {
        in_namespace(async |index| {
            let lookout = Lookout::start(Directory::default());
            let mut surroundings = lookout.surroundings();
            let address = "198.51.100.9/24".parse().expect("an address");
            links::add_address(index, address).expect("it is there");
            until(&mut surroundings, |now| now.addresses == [address.addr()]).await;
            for gateway in ["198.51.100.254", "198.51.100.253"] {
                let gateway = Some(gateway.parse().expect("an address"));
                let default = "0.0.0.0/0".parse().expect("a prefix");
                let route = Route { gateway, ..Route::on_link(default, index) };
                links::add_route(&route).expect("there is none");
                let is_known =
                    |now: &Surroundings| now.ways.iter().any(|way| way.gateway == gateway);
                until(&mut surroundings, is_known).await;
                links::remove_route(&route).expect("it is there");
            }
            links::remove_address(index, address).expect("it is there");
            until(&mut surroundings, |now| *now == Surroundings::default()).await;
        });
    }

    #[test]
    fn a_network_is_known_by_its_router_and_what_that_is() {
        in_namespace(async |_| {
            let ip = |command: &str| {
                let status = Command::new("ip").args(command.split_whitespace()).status();
                assert!(status.is_ok_and(|status| status.success()), "ip {command}");
            };
            ip("link add home type veth peer name router");
            ip("link set home up");
            ip("link set router up");
            ip("address add 198.51.100.9/25 dev home");
            let here = || look(&Directory::default()).local_network();
            assert_eq!(here(), None);
            ip("route add default via 198.51.100.1");
            let router = [198, 51, 100, 1].into();
            assert_eq!(here(), Some(LocalNetwork { router, prefix: 25, hardware: None }));
            ip("neighbour add 198.51.100.1 lladdr 02:00:00:00:00:07 dev home");
            let hardware = Some(vec![2, 0, 0, 0, 0, 7]);
            assert_eq!(here(), Some(LocalNetwork { router, prefix: 25, hardware }));
        });
    }
}

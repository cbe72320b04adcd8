//! A port of the router that leads here: PCP (RFC 6887), NAT-PMP (RFC 6886) or UPnP IGD.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    num::NonZeroU16,
    time::Duration,
};

use crab_nat::{
    InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp,
};
use igd_next::{
    PortMappingProtocol, SearchOptions,
    aio::{
        Gateway,
        tokio::{Tokio, search_gateway},
    },
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::debug;

use crate::underlay::Surroundings;

/// What is asked for, in seconds. It is renewed at half of what is granted.
const LIFETIME: u32 = 7_200;
/// The shortest time between two questions, whatever a router grants.
const SHORTEST: Duration = Duration::from_secs(30);
/// A router that gave nothing is asked again after this long, or after a change of the surroundings.
const ASK_AGAIN: Duration = Duration::from_secs(900);
/// Retransmissions to a router that answers no PCP: 1.75 s in all.
const RETRY: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};
/// One question by UPnP, which begins with a search by multicast.
const UPNP_DEADLINE: Duration = Duration::from_secs(5);
/// Giving a port back may take this long at the end of a node.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a router shows of the mapping.
const DESCRIPTION: &str = "shadowmesh";

/// Keeps one port of the router, whichever it is, mapped to a UDP port of this device.
#[derive(Debug)]
pub(crate) struct Mapping {
    external: watch::Receiver<Option<SocketAddr>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Mapping {
    pub(crate) fn start(port: NonZeroU16, surroundings: watch::Receiver<Surroundings>) -> Self {
        let (sender, external) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(keep(port, surroundings, sender, stopped));
        Self { external, stop, task }
    }

    /// Waits until the router leads here from another address than before, or from none.
    pub(crate) async fn changed(&mut self) -> Option<SocketAddr> {
        if self.external.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.external.borrow_and_update()
    }

    /// Gives the port back.
    pub(crate) async fn end(self) {
        drop(self.stop);
        if timeout(FAREWELL, self.task).await.is_err() {
            debug!("the router did not take its port back in time");
        }
    }
}

async fn keep(
    port: NonZeroU16,
    mut surroundings: watch::Receiver<Surroundings>,
    external: watch::Sender<Option<SocketAddr>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut lease: Option<(Ipv4Addr, Lease)> = None;
    loop {
        let router = surroundings.borrow_and_update().router();
        // What another router gave ends by itself there.
        lease = lease.filter(|(of, _)| Some(*of) == router);
        lease = tokio::select! {
            next = renew_or_ask(lease.take(), router, port) => next,
            _ = &mut stopped => return,
        };
        let known = lease.as_ref().map(|(_, lease)| lease.external);
        external.send_if_modified(|before| std::mem::replace(before, known) != known);
        let pause = lease.as_ref().map_or(ASK_AGAIN, |(_, lease)| lease.lifetime() / 2);
        tokio::select! {
            changed = surroundings.changed() => if changed.is_err() { return },
            () = sleep(pause.max(SHORTEST)) => {}
            _ = &mut stopped => {
                if let Some((_, lease)) = lease {
                    lease.give_back().await;
                }
                return;
            }
        }
    }
}

async fn renew_or_ask(
    lease: Option<(Ipv4Addr, Lease)>,
    router: Option<Ipv4Addr>,
    port: NonZeroU16,
) -> Option<(Ipv4Addr, Lease)> {
    let router = router?;
    if let Some((_, lease)) = lease
        && let Some(lease) = lease.renew().await
    {
        return Some((router, lease));
    }
    let lease = ask(router, port).await;
    match &lease {
        Some(lease) => debug!(external = %lease.external, "the router maps a port to this device"),
        None => debug!(%router, "the router maps no ports"),
    }
    Some((router, lease?))
}

/// What a router granted.
struct Lease {
    external: SocketAddr,
    means: Means,
}

enum Means {
    /// PCP or NAT-PMP.
    Pcp(Box<PortMapping>),
    /// UPnP, with the address here.
    Upnp(Box<Gateway<Tokio>>, SocketAddr),
}

/// Asks by PCP and NAT-PMP, and by UPnP if that gives nothing.
async fn ask(router: Ipv4Addr, port: NonZeroU16) -> Option<Lease> {
    let own = own_address(router).ok()?;
    if !own.is_private() && !is_shared(own) {
        return None;
    }
    match ask_pcp(router, own, port).await {
        Some(lease) => Some(lease),
        None => timeout(UPNP_DEADLINE, ask_upnp(own, port)).await.ok()?,
    }
}

async fn ask_pcp(router: Ipv4Addr, own: Ipv4Addr, port: NonZeroU16) -> Option<Lease> {
    let options = PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: Some(LIFETIME),
        timeout_config: Some(RETRY),
    };
    let udp = InternetProtocol::Udp;
    let mapping = PortMapping::new(router.into(), own.into(), udp, port, options).await;
    let mapping =
        mapping.inspect_err(|error| debug!(%error, "no mapping by PCP or NAT-PMP")).ok()?;
    let external = external_of(&mapping, router).await?;
    Some(Lease { external, means: Means::Pcp(Box::new(mapping)) })
}

async fn external_of(mapping: &PortMapping, router: Ipv4Addr) -> Option<SocketAddr> {
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
        PortMappingType::NatPmp => {
            natpmp::external_address(router.into(), Some(RETRY)).await.ok()?.into()
        }
    };
    (!ip.is_unspecified()).then(|| SocketAddr::new(ip, mapping.external_port().get()))
}

async fn ask_upnp(own: Ipv4Addr, port: NonZeroU16) -> Option<Lease> {
    let mut search = SearchOptions::default();
    search.bind_addr = SocketAddr::new(own.into(), 0);
    search.timeout = Some(UPNP_DEADLINE);
    let gateway = search_gateway(search).await;
    let gateway = gateway.inspect_err(|error| debug!(%error, "no router by UPnP")).ok()?;
    let local = SocketAddr::new(own.into(), port.get());
    let external = gateway.get_any_address(PortMappingProtocol::UDP, local, LIFETIME, DESCRIPTION);
    let external = external.await.inspect_err(|error| debug!(%error, "no mapping by UPnP")).ok()?;
    Some(Lease { external, means: Means::Upnp(Box::new(gateway), local) })
}

impl Lease {
    fn lifetime(&self) -> Duration {
        Duration::from_secs(match &self.means {
            Means::Pcp(mapping) => mapping.lifetime().into(),
            Means::Upnp(..) => LIFETIME.into(),
        })
    }

    /// The lease for longer; none if the router does not grant that.
    async fn renew(mut self) -> Option<Self> {
        match &mut self.means {
            Means::Pcp(mapping) => {
                mapping.renew().await.ok()?;
                let IpAddr::V4(router) = mapping.gateway().into() else { return None };
                self.external = external_of(mapping, router).await?;
            }
            Means::Upnp(gateway, local) => {
                let (udp, port) = (PortMappingProtocol::UDP, self.external.port());
                let again = async {
                    gateway.add_port(udp, port, *local, LIFETIME, DESCRIPTION).await.ok()?;
                    gateway.get_external_ip().await.ok()
                };
                self.external.set_ip(timeout(UPNP_DEADLINE, again).await.ok()??);
            }
        }
        Some(self)
    }

    async fn give_back(self) {
        match self.means {
            Means::Pcp(mapping) => {
                if let Err((error, _)) = mapping.try_drop().await {
                    debug!(%error, "the router does not take its port back");
                }
            }
            Means::Upnp(gateway, _) => {
                let (udp, port) = (PortMappingProtocol::UDP, self.external.port());
                if let Err(error) = gateway.remove_port(udp, port).await {
                    debug!(%error, "the router does not take its port back");
                }
            }
        }
    }
}

/// This device's address on the way to the router. Nothing is sent.
fn own_address(router: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((router, crab_nat::GATEWAY_PORT))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(own) => Ok(own),
        IpAddr::V6(_) => Err(io::Error::from(io::ErrorKind::AddrNotAvailable)),
    }
}

/// Whether the address is of those that carriers' translators give out (RFC 6598).
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && second & 0xc0 == 64
}

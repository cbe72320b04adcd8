//! Names and prefixes of all networks, for the userspace stack and the stub resolver.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::BytesMut;
use identity::NetworkId;
use ipnet::IpNet;
use naming::{Lookup, Namespace, Zone};
use netstack::{Resolve, ResolveError, Resolving};
use tokio::sync::mpsc;
use tracing::warn;

use crate::{detour::ProxyRule, dns::DnsState, mark::Mark};

/// What is known of every network; cheap to clone, all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    shared: Arc<Mutex<Shared>>,
    dns: DnsState,
    mark: Mark,
    proxy: Option<Arc<ProxyRule>>,
}

#[derive(Debug, Default)]
struct Shared {
    networks: BTreeMap<NetworkId, Listing>,
    serial: u32,
}

/// What is known of one network.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    /// The network's names.
    pub(crate) zone: Zone,
    /// This device's own addresses.
    pub(crate) own: Vec<IpAddr>,
    /// What belongs to the network.
    pub(crate) routes: Vec<IpNet>,
    /// Where packets to it go.
    pub(crate) packets: mpsc::Sender<BytesMut>,
}

impl Directory {
    /// Nothing known yet; what goes underneath will bear the mark, and streams may go through the proxy.
    pub(crate) fn new(mark: Mark, proxy: Option<ProxyRule>) -> Self {
        let (dns, proxy) = (DnsState::marked(mark), proxy.map(Arc::new));
        Self { shared: Arc::default(), dns, mark, proxy }
    }

    /// The proxy beside the direct way.
    pub(crate) fn proxy(&self) -> Option<&ProxyRule> {
        self.proxy.as_deref()
    }

    /// The mark on what goes underneath.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// What the stub resolver answers from.
    pub(crate) fn dns(&self) -> DnsState {
        self.dns.clone()
    }

    pub(crate) fn publish(&self, network: NetworkId, listing: Listing) {
        let mut shared = self.lock();
        shared.networks.insert(network, listing);
        self.rename(&mut shared);
    }

    pub(crate) fn remove(&self, network: NetworkId) {
        let mut shared = self.lock();
        shared.networks.remove(&network);
        self.rename(&mut shared);
    }

    /// This device's addresses in all networks.
    pub(crate) fn own_addresses(&self) -> Vec<IpAddr> {
        let shared = self.lock();
        shared.networks.values().flat_map(|listing| listing.own.iter().copied()).collect()
    }

    /// Which of a network's prefixes overlap with those that another network of the device has already.
    pub(crate) fn taken(&self, network: NetworkId, prefixes: &[IpNet]) -> Vec<IpNet> {
        let shared = self.lock();
        let is_taken = |prefix: &&IpNet| shared.owner_of(prefix).is_some_and(|id| id != network);
        prefixes.iter().filter(is_taken).copied().collect()
    }

    /// The network that has addresses of this prefix, by its zone.
    pub(crate) fn owner_of(&self, prefix: &IpNet) -> Option<String> {
        let shared = self.lock();
        let owner = shared.networks.get(&shared.owner_of(prefix)?)?;
        Some(owner.zone.network().to_owned())
    }

    /// Whether an address belongs to one of the device's networks: nothing underneath goes there, or a
    /// tunnel would run through itself or through another network's.
    pub(crate) fn is_overlay(&self, address: IpAddr) -> bool {
        self.lock().listing(address.to_canonical()).is_some()
    }

    /// Hands a packet to the network that its destination belongs to. What belongs to none, or finds
    /// its queue full, is lost, as on any wire.
    pub(crate) fn forward(&self, packet: BytesMut) {
        let Some(destination) = destination(&packet) else { return };
        let shared = self.lock();
        if let Some(listing) = shared.listing(destination) {
            let _ = listing.packets.try_send(packet);
        }
    }

    fn rename(&self, shared: &mut Shared) {
        shared.serial = shared.serial.wrapping_add(1);
        let zones = shared.networks.values().map(|listing| listing.zone.clone()).collect();
        match Namespace::new(zones, shared.serial) {
            Ok(names) => self.dns.replace_names(names),
            Err(error) => warn!(%error, "the networks' names cannot be served"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn owner_of(&self, prefix: &IpNet) -> Option<NetworkId> {
        let overlaps = |route: &IpNet| route.contains(prefix) || prefix.contains(route);
        let mut all = self.networks.iter();
        all.find(|(_, listing)| listing.routes.iter().any(overlaps)).map(|(id, _)| *id)
    }

    fn listing(&self, address: IpAddr) -> Option<&Listing> {
        let mut listings = self.networks.values();
        listings.find(|listing| listing.routes.iter().any(|route| route.contains(&address)))
    }
}

impl Resolve for Directory {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        let answer = match self.dns.names().lookup(name) {
            Lookup::Addresses(addresses) => Ok(addresses),
            Lookup::NoSuchName => Err(ResolveError::NotFound),
            Lookup::Outside => Err(ResolveError::Outside),
        };
        Box::pin(async move { answer })
    }

    fn reaches(&self, address: IpAddr) -> bool {
        self.lock().listing(address).is_some()
    }
}

/// The destination of an IP packet (RFC 791 section 3.1, RFC 8200 section 3).
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (Directory, mpsc::Receiver<BytesMut>) {
        let (packets, queue) = mpsc::channel(1);
        let mut zone = Zone::new("home").expect("a name");
        zone.add_host("nas", &["fd42::7".parse().expect("an address")]).expect("a name");
        let listing = Listing {
            zone,
            own: Vec::new(),
            routes: ["fd42::/48", "100.99.0.0/16"].map(|one| one.parse().expect("one")).to_vec(),
            packets,
        };
        let directory = Directory::default();
        directory.publish(NetworkId::from_bytes([1; 32]), listing);
        (directory, queue)
    }

    #[tokio::test]
    async fn a_device_is_found_by_its_full_name() {
        let (directory, _queue) = directory();
        let address: IpAddr = "fd42::7".parse().expect("an address");
        assert_eq!(directory.resolve("NAS.home.alt.").await, Ok(vec![address]));
        assert_eq!(directory.resolve("tv.home.alt").await, Err(ResolveError::NotFound));
        assert_eq!(directory.resolve("example.com").await, Err(ResolveError::Outside));
        directory.remove(NetworkId::from_bytes([1; 32]));
        assert_eq!(directory.resolve("nas.home.alt").await, Err(ResolveError::NotFound));
    }

    #[test]
    fn a_prefix_that_another_network_has_is_taken() {
        let (directory, _queue) = directory();
        let prefixes = ["fd43::/48", "100.99.0.0/16"].map(|one| one.parse().expect("one"));
        let (first, second) = (NetworkId::from_bytes([1; 32]), NetworkId::from_bytes([2; 32]));
        assert_eq!(directory.taken(second, &prefixes), prefixes[1..]);
        assert!(directory.taken(first, &prefixes).is_empty(), "it has them itself");
        assert_eq!(directory.owner_of(&prefixes[1]).as_deref(), Some("home"));
        directory.remove(first);
        assert!(directory.taken(second, &prefixes).is_empty());
    }

    #[test]
    fn an_overlay_address_is_known_in_every_form() {
        let (directory, _queue) = directory();
        let is_overlay = |text: &str| directory.is_overlay(text.parse().expect("an address"));
        assert!(
            is_overlay("fd42::1") && is_overlay("100.99.0.1") && is_overlay("::ffff:100.99.0.1")
        );
        assert!(!is_overlay("fd43::1") && !is_overlay("100.98.0.1"));
    }

    #[test]
    fn a_packet_goes_to_the_network_of_its_destination() {
        let (directory, mut queue) = directory();
        let mut packet = BytesMut::zeroed(40);
        packet[0] = 0x60;
        directory.forward(packet.clone());
        assert!(queue.try_recv().is_err());
        packet[24..28].copy_from_slice(&[0xfd, 0x42, 0, 0]);
        directory.forward(packet.clone());
        assert_eq!(queue.try_recv().ok(), Some(packet));
        directory.forward(BytesMut::new());
        directory.forward(BytesMut::from(&[0x45][..]));
        assert!(queue.try_recv().is_err());
    }
}

//! Under which addresses others may reach this device's UDP port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use platform::links;
use tracing::debug;

/// The host's addresses with the port: global ones, and loopback when the network lives on this host
/// alone or the host has no others. Those in `overlay` are our own tunnels' and left out.
pub(crate) fn local_addresses(port: u16, loopback: bool, overlay: &[IpAddr]) -> Vec<SocketAddr> {
    let all = links::local_addresses().unwrap_or_else(|error| {
        debug!(%error, "cannot list this host's addresses");
        Vec::new()
    });
    let addresses = all.iter().filter(|local| local.usable).map(|local| local.address.addr());
    let mut usable: Vec<IpAddr> =
        addresses.filter(|address| is_global(*address) && !overlay.contains(address)).collect();
    if loopback || usable.is_empty() {
        usable.insert(0, Ipv4Addr::LOCALHOST.into());
    }
    usable.into_iter().map(|address| SocketAddr::new(address, port)).collect()
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

    #[test]
    fn loopback_is_offered_to_a_network_on_this_host_and_overlay_addresses_never() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 7));
        assert_eq!(local_addresses(7, true, &[]).first(), Some(&loopback));
        let all = local_addresses(7, false, &[]);
        let overlay: Vec<IpAddr> = all.iter().map(SocketAddr::ip).collect();
        assert_eq!(local_addresses(7, false, &overlay), [loopback]);
    }
}

//! What this network has to say about names.

use std::net::IpAddr;

use control_proto::NetworkMap;
use control_proto::limits::MAX_NAME_ADDRESSES;
use identity::{DeviceId, DeviceName, NameTarget};
use ipnet::IpNet;
use naming::{NameError, Zone};
use noise_channel::Now;

use crate::engine::Engine;
use crate::peers::overlay;

/// Aliases that are followed, so that a ring of them ends.
const MAX_ALIASES: usize = 8;

impl Engine {
    /// The signed map as it is now: for the resolver, and for whoever wants to know everything.
    #[must_use]
    pub fn map(&self) -> &NetworkMap {
        self.control.client().map()
    }

    /// The zone of this network for the stub resolver: members by the names that their
    /// certificates prove, plain WireGuard peers, and the names that records add. Where two claim
    /// a name, the first of these counts.
    ///
    /// # Errors
    /// If a name of the network cannot stand in DNS.
    pub fn zone(&self, now: Now) -> Result<Zone, NameError> {
        self.zone_without(&[], now)
    }

    /// The zone as [`Self::zone`] gives it, without addresses in these prefixes: on a device where
    /// another network has them.
    ///
    /// # Errors
    /// If a name of the network cannot stand in DNS.
    pub fn zone_without(&self, left_out: &[IpNet], now: Now) -> Result<Zone, NameError> {
        let staying = |mut addresses: Vec<IpAddr>| {
            addresses.retain(|address| !left_out.iter().any(|prefix| prefix.contains(address)));
            addresses
        };
        let mut zone = Zone::new(self.own.network_name.as_str())?;
        let prefixes = overlay(self.own.network, self.map()).into_iter();
        for prefix in prefixes.filter(|prefix| !left_out.contains(prefix)) {
            zone.add_prefix(prefix.addr(), prefix.prefix_len())?;
        }
        for peer in self.peers.iter() {
            zone.add_host(peer.member.name.as_str(), &staying(peer.addresses().collect()))?;
        }
        if let Some(own) = self.map().peer(self.own.end.device) {
            zone.add_host(own.member.name.as_str(), &staying(self.own_addresses(now)))?;
        }
        for (_, peer) in self.peers.plain.iter().filter(|(_, peer)| !self.is_member(&peer.name)) {
            zone.add_host(peer.name.as_str(), &staying(peer.addresses.clone()))?;
        }
        for entry in self.map().names() {
            let name = self.relative(&entry.name);
            let is_taken = name.parse().is_ok_and(|name: DeviceName| self.is_device(&name));
            let addresses = staying(self.addresses_of_target(&entry.target, now));
            if !is_taken && !addresses.is_empty() {
                // A name that cannot stand in DNS costs nothing but itself.
                let _ = zone.add_host(&name, &addresses);
            }
        }
        Ok(zone)
    }

    fn addresses_of_target(&self, target: &NameTarget, now: Now) -> Vec<IpAddr> {
        let mut target = target;
        for _ in 0..=MAX_ALIASES {
            match target {
                NameTarget::Device(device) => return self.addresses_of_device(*device, now),
                NameTarget::Addresses(addresses) => {
                    return addresses.iter().copied().take(MAX_NAME_ADDRESSES).collect();
                }
                NameTarget::Alias(name) => {
                    let name = self.relative(name);
                    let device = name.parse().ok().filter(|name| self.is_device(name));
                    if let Some(device) = device {
                        return self.addresses_of_name(&device, now);
                    }
                    let full = format!("{name}{}", self.suffix());
                    let entry = self.map().name(&name).or_else(|| self.map().name(&full));
                    let Some(entry) = entry else { return Vec::new() };
                    target = &entry.target;
                }
            }
        }
        Vec::new()
    }

    /// The addresses of a member or a plain peer by its name.
    fn addresses_of_name(&self, name: &DeviceName, now: Now) -> Vec<IpAddr> {
        if let Some(peer) = self.map().peer_by_name(name) {
            return self.addresses_of_device(peer.member.device, now);
        }
        let plain = self.peers.plain.iter().find(|(_, peer)| peer.name == *name);
        plain.map_or_else(Vec::new, |(_, peer)| peer.addresses.clone())
    }

    fn addresses_of_device(&self, device: DeviceId, now: Now) -> Vec<IpAddr> {
        if device == self.own.end.device {
            return self.own_addresses(now);
        }
        self.peers.get(device).map_or_else(Vec::new, |peer| peer.addresses().collect())
    }

    fn is_member(&self, name: &DeviceName) -> bool {
        self.map().peer_by_name(name).is_some()
    }

    fn is_device(&self, name: &DeviceName) -> bool {
        self.is_member(name) || self.peers.plain.iter().any(|(_, peer)| peer.name == *name)
    }

    /// A name as it is inside the zone: in lower case, without the zone's own name.
    fn relative(&self, name: &str) -> String {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name.strip_suffix(&self.suffix()).unwrap_or(&name).to_owned()
    }

    fn suffix(&self) -> String {
        format!(".{}.alt", self.own.network_name)
    }
}

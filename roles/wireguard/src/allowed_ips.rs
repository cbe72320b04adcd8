use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use wireguard_proto::PublicKey;

/// Cryptokey routing: which peer an address belongs to, in both directions.
#[derive(Debug, Default)]
pub(crate) struct AllowedIps {
    v4: PrefixMap<Ipv4Net, PublicKey>,
    v6: PrefixMap<Ipv6Net, PublicKey>,
}

impl AllowedIps {
    /// Gives a prefix to a peer, taking it from whoever had it.
    pub(crate) fn insert(&mut self, prefix: IpNet, peer: PublicKey) {
        match prefix.trunc() {
            IpNet::V4(prefix) => drop(self.v4.insert(prefix, peer)),
            IpNet::V6(prefix) => drop(self.v6.insert(prefix, peer)),
        }
    }

    /// Takes one prefix away from a peer, if it is that peer's.
    pub(crate) fn remove(&mut self, prefix: IpNet, peer: &PublicKey) {
        match prefix.trunc() {
            IpNet::V4(prefix) if self.v4.get(&prefix) == Some(peer) => {
                self.v4.remove(&prefix);
            }
            IpNet::V6(prefix) if self.v6.get(&prefix) == Some(peer) => {
                self.v6.remove(&prefix);
            }
            IpNet::V4(_) | IpNet::V6(_) => {}
        }
    }

    /// Takes all prefixes away from a peer.
    pub(crate) fn remove_all(&mut self, peer: &PublicKey) {
        self.v4.retain(|_, owner| owner != peer);
        self.v6.retain(|_, owner| owner != peer);
    }

    /// The peer with the longest prefix that contains `address`.
    pub(crate) fn peer_of(&self, address: IpAddr) -> Option<&PublicKey> {
        match address {
            IpAddr::V4(v4) => self.v4.get_lpm(&Ipv4Net::from(v4)).map(|(_, peer)| peer),
            IpAddr::V6(v6) => self.v6.get_lpm(&Ipv6Net::from(v6)).map(|(_, peer)| peer),
        }
    }

    /// Takes all prefixes away from everybody.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The prefixes of each peer that has any.
    pub(crate) fn by_peer(&self) -> BTreeMap<PublicKey, BTreeSet<IpNet>> {
        let mut peers: BTreeMap<PublicKey, BTreeSet<IpNet>> = BTreeMap::new();
        let v4 = self.v4.iter().map(|(prefix, peer)| (IpNet::V4(prefix), peer));
        let v6 = self.v6.iter().map(|(prefix, peer)| (IpNet::V6(prefix), peer));
        for (prefix, peer) in v4.chain(v6) {
            peers.entry(*peer).or_default().insert(prefix);
        }
        peers
    }
}

//! Plain WireGuard peers, which a record lets in without a certificate.

use std::net::IpAddr;

use identity::{
    DeviceId, DeviceName, Scope, StaticPeer, Subnet, TunnelPublicKey, UnixTime,
    interface_identifier,
};
use noise_channel::Now;

use super::admin::{Answer, not_held};
use super::{Controller, wall};
use crate::limits::MAX_PEERS;
use crate::{AdminAnswer, AdminError, AuditAction, ItemKey, MapItem, PeerRequest, PeerView};

/// The shortest and the longest time that a peer may be let in for, in seconds: nobody renews it.
const VALIDITY: std::ops::RangeInclusive<u64> = 60..=10 * 365 * 24 * 3600;

impl Controller {
    /// Lets a peer in, or changes until when.
    pub(crate) fn add_peer(&mut self, request: &PeerRequest, now: Now) -> Answer {
        if !self.holds(Scope::Issue) {
            return Err(not_held(Scope::Issue));
        }
        if !VALIDITY.contains(&request.expires_in) {
            let what = "a WireGuard peer is let in for a minute to ten years".to_owned();
            return Err(AdminError::OutOfBounds { what });
        }
        let owner = owner(&request.key);
        if self.index.names.get(&request.name).is_some_and(|other| *other != owner) {
            return Err(AdminError::NameTaken { name: request.name.clone() });
        }
        let known = self.peer_records().find(|peer| peer.tunnel_key == request.key);
        if known.is_none() && self.peer_records().count() >= MAX_PEERS {
            return Err(AdminError::Full { what: "WireGuard peers".into(), limit: MAX_PEERS });
        }
        let addresses = match &known {
            Some(known) => known.addresses.clone(),
            None => self.free_addresses(owner),
        };
        let peer = StaticPeer {
            tunnel_key: request.key,
            name: request.name.clone(),
            addresses,
            not_after: wall(now).plus(request.expires_in),
        };
        if let Some(known) = known {
            self.index_peer(&known, false);
        }
        self.index_peer(&peer, true);
        self.put_peer(peer.clone(), wall(now), false);
        let action = AuditAction::PeerAdded { key: peer.tunnel_key, name: peer.name.clone() };
        self.done(action, now)?;
        Ok(AdminAnswer::Peers { peers: vec![view(peer)] })
    }

    /// Withdraws what lets a peer in.
    pub(crate) fn remove_peer(&mut self, name: &DeviceName, now: Now) -> Answer {
        let peer = self.peer_records().find(|peer| peer.name == *name);
        let peer = peer.ok_or(AdminError::UnknownPeer)?;
        if !self.holds(Scope::Issue) {
            return Err(not_held(Scope::Issue));
        }
        self.index_peer(&peer, false);
        let action = AuditAction::PeerRemoved { key: peer.tunnel_key };
        self.put_peer(peer, wall(now), true);
        self.done(action, now)
    }

    pub(crate) fn peer_views(&self) -> Vec<PeerView> {
        self.peer_records().map(view).collect()
    }

    /// Reserves again what the peers have.
    pub(crate) fn recall_peers(&mut self) {
        for peer in self.peer_records().collect::<Vec<_>>() {
            self.index_peer(&peer, true);
        }
    }

    /// The peers that were let in and not removed since.
    fn peer_records(&self) -> impl Iterator<Item = StaticPeer> {
        let keys = self.state.items.keys();
        keys.filter(|key| matches!(key, ItemKey::Static(_))).filter_map(|key| {
            let MapItem::Static(_, signed) = self.stored_item(key)? else { return None };
            self.current_body(&signed)
        })
    }

    fn put_peer(&mut self, peer: StaticPeer, at: UnixTime, withdrawn: bool) {
        let key = peer.tunnel_key;
        if let Some(signed) = self.sign(peer, at, withdrawn) {
            self.publish(&MapItem::Static(key, signed));
        }
    }

    fn free_addresses(&self, owner: DeviceId) -> Vec<IpAddr> {
        let (network, ula) = (self.network(), self.state.settings.ula);
        let v6 = (0..=u32::MAX)
            .map(|counter| interface_identifier(network, owner, counter))
            .map(|identifier| ula.address(Subnet::Devices, identifier))
            .find(|address| !self.index.addresses.contains_key(address));
        let v4 = self.free_lease(owner).map(IpAddr::V4);
        v6.map(IpAddr::V6).into_iter().chain(v4).collect()
    }

    /// Reserves, or sets free, a peer's name and addresses.
    fn index_peer(&mut self, peer: &StaticPeer, reserve: bool) {
        let owner = owner(&peer.tunnel_key);
        let index = &mut self.index;
        if reserve {
            index.names.insert(peer.name.clone(), owner);
        } else {
            index.names.remove(&peer.name);
        }
        for address in &peer.addresses {
            match (address, reserve) {
                (IpAddr::V6(address), true) => drop(index.addresses.insert(*address, owner)),
                (IpAddr::V4(address), true) => drop(index.leases.insert(*address, owner)),
                (IpAddr::V6(address), false) => drop(index.addresses.remove(address)),
                (IpAddr::V4(address), false) => drop(index.leases.remove(address)),
            }
        }
    }
}

/// A peer has no DeviceId; its key is as good a one where only ids must differ.
fn owner(key: &TunnelPublicKey) -> DeviceId {
    DeviceId::from_bytes(*key.as_bytes())
}

fn view(peer: StaticPeer) -> PeerView {
    PeerView {
        key: peer.tunnel_key,
        name: peer.name,
        addresses: peer.addresses,
        expires: peer.not_after.0,
    }
}

//! Which relays to use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use identity::{DeviceId, GroupName, RelayEntry, UnixTime};

use super::homes::{Chooser, Prospect};
use super::{LEAVE, Relays};
use crate::links::Link;
use crate::relay_event::RelayEvent;

impl Relays {
    /// Whether it is time for [`Self::choose_homes`].
    pub(crate) fn take_review(&mut self, now: Instant) -> bool {
        self.homes.take_review(now)
    }

    /// Chooses homes by what is known now. `groups` are those of this device, `rotation` the seconds after which the network
    /// wants others to be chosen, 0 for never; `distance` says how long a STUN server took to answer.
    pub(crate) fn choose_homes(
        &mut self,
        (groups, rotation): (Vec<GroupName>, u32),
        distance: impl Fn(SocketAddr) -> Option<Duration>,
        (wall, now): (UnixTime, Instant),
    ) {
        self.groups = groups;
        let prospect = |entry| Prospect {
            entry,
            health: self.health.get(&entry.device).copied().unwrap_or_default(),
            is_attached: self.is_attached(entry.device),
            distance: entry.stun.iter().filter_map(|server| distance(*server)).min(),
        };
        let serving = self.entries.values().filter(|entry| entry.serves(&self.groups));
        let prospects: Vec<_> = serving.map(prospect).collect();
        let chooser = Chooser { device: self.settings.device, rotation, wall };
        let before: Vec<_> = self.homes.iter().collect();
        let is_other = self.homes.choose(&prospects, chooser, now);
        for relay in self.homes.unknown(&prospects, now) {
            let link = self.links.entry(relay).or_insert_with(|| Link::dialled_at(now));
            link.keep_until(now + LEAVE);
        }
        for home in self.homes.iter() {
            self.links.entry(home).or_insert_with(|| Link::dialled_at(now));
        }
        for relay in before.into_iter().filter(|relay| !self.homes.contains(*relay)) {
            if let Some(link) = self.links.get_mut(&relay) {
                link.keep_until(now + LEAVE);
            }
        }
        if is_other {
            self.events.push_back(RelayEvent::Changed);
        }
    }

    /// The STUN servers beside the relays where this device is at home, and those beside others that serve it.
    pub(crate) fn stun_servers(&self) -> [Vec<SocketAddr>; 2] {
        let homes = self.homes.iter().filter_map(|home| self.entries.get(&home));
        let serving = self.entries.values().filter(|entry| entry.serves(&self.groups));
        let others = serving.filter(|entry| !self.homes.contains(entry.device));
        // How far a host is, one of its ports tells.
        let hosts = |entry: &RelayEntry| {
            let hosts: BTreeMap<_, _> = entry.stun.iter().map(|stun| (stun.ip(), *stun)).collect();
            hosts.into_values()
        };
        [homes.flat_map(|entry| entry.stun.clone()).collect(), others.flat_map(hosts).collect()]
    }

    /// The relays at which this device is to be found now, the preferred first: one that may stop is none while
    /// there is another.
    pub(crate) fn attached_homes(&self) -> Vec<DeviceId> {
        let all = self.homes.iter().filter(|home| self.is_attached(*home));
        let (well, unwell): (Vec<_>, Vec<_>) = all.partition(|home| self.is_well(*home));
        if well.is_empty() { unwell } else { well }
    }

    /// Whether nothing is known against a relay: it does not ask to be left, and its reports arrive.
    pub(crate) fn is_well(&self, relay: DeviceId) -> bool {
        self.health.get(&relay).is_none_or(|health| health.healthy)
    }

    /// Whether frames of this peer may come this way: a peer that listens brings its own only.
    pub(crate) fn may_bring(&self, relay: DeviceId, peer: DeviceId) -> bool {
        relay == peer || self.entries.contains_key(&relay)
    }

    /// Whether frames for somebody who said to be at these relays have a chance.
    pub(crate) fn reaches(&self, relays: &[DeviceId]) -> bool {
        relays.iter().copied().chain(self.homes.iter()).any(|relay| self.is_promising(relay))
    }

    /// The relay to use for somebody who said to be at `relays`. If none of them can be reached, the
    /// peer will have moved, perhaps without a controller to say so to: the best guess is a relay
    /// where this device is at home, since there are few of them.
    pub(crate) fn route(&self, relays: &[DeviceId]) -> Option<DeviceId> {
        let relays = || relays.iter().copied();
        let is_attached = |relay: &DeviceId| self.is_attached(*relay);
        relays()
            .find(is_attached)
            .or_else(|| relays().find(|relay| self.is_promising(*relay)))
            .or_else(|| self.homes.iter().find(is_attached))
            .or_else(|| relays().find(|relay| self.serves(*relay)))
    }

    /// The relays that may pass datagrams on to somebody of these groups who said to be at `relays`: the one that frames take,
    /// then those where this device is at home, as far as one of their addresses is known to answer.
    pub(crate) fn carriers(
        &self,
        (relays, groups): (&[DeviceId], &[GroupName]),
        answers: impl Fn(SocketAddr) -> bool,
    ) -> Vec<DeviceId> {
        let route = self.route(relays);
        let others = self.homes.iter().filter(|home| Some(*home) != route);
        let all = route.into_iter().chain(others);
        let is_ready = |relay: &DeviceId| {
            let mut addresses = self.datagram_addresses(*relay).iter();
            let takes_datagrams = addresses.any(|address| answers(*address));
            let serves = self.entries.get(relay).is_some_and(|entry| entry.serves(groups));
            takes_datagrams && serves && self.is_attached(*relay) && self.is_well(*relay)
        };
        all.filter(is_ready).collect()
    }

    /// Where a relay takes datagrams, if it serves this device.
    pub(crate) fn datagram_addresses(&self, relay: DeviceId) -> &[SocketAddr] {
        let entry = self.entries.get(&relay).filter(|entry| entry.serves(&self.groups));
        entry.map_or(&[], |entry| &entry.stun)
    }

    /// Whether this device may attach there.
    fn serves(&self, relay: DeviceId) -> bool {
        self.entries.get(&relay).is_some_and(|entry| entry.serves(&self.groups))
    }

    fn is_promising(&self, relay: DeviceId) -> bool {
        self.serves(relay) && self.links.get(&relay).is_none_or(|link| link.failures == 0)
    }
}

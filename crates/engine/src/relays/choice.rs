//! Which relays to use.

use identity::DeviceId;

use super::Relays;

impl Relays {
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

    /// Whether this device may attach there.
    fn serves(&self, relay: DeviceId) -> bool {
        self.entries.get(&relay).is_some_and(|entry| entry.serves(&self.groups))
    }

    fn is_promising(&self, relay: DeviceId) -> bool {
        self.serves(relay) && self.links.get(&relay).is_none_or(|link| link.failures == 0)
    }
}

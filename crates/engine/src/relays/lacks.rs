//! What speaks against a way for frames.

use std::fmt;

use identity::{DeviceId, GroupName};

use super::Relays;

/// Relays of which is told what they lack.
const TOLD: usize = 32;

/// Why frames to a peer do not go through a relay, or over a stream straight to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramesLack {
    /// It is not for the groups of this device.
    NotForUs,
    /// Nor for those of the peer.
    NotForPeer,
    /// So many attempts to connect have failed.
    Unreached(u32),
    /// It asks to be left, or its reports do not arrive.
    Unwell,
    /// The peer has not said to be there.
    PeerElsewhere,
    /// This device is not connected to it.
    Unconnected,
    /// Nothing, but another way is preferred.
    Precedence,
}

impl fmt::Display for FramesLack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::NotForUs => "it serves other groups than this device's",
            Self::NotForPeer => "it serves other groups than the peer's",
            Self::Unreached(1) => "this device did not get there",
            Self::Unreached(times) => {
                return write!(f, "this device did not get there, {times} times in a row");
            }
            Self::Unwell => "it is about to stop, or its reports do not arrive",
            Self::PeerElsewhere => "the peer is not connected to it",
            Self::Unconnected => "this device is not connected to it",
            Self::Precedence => "another goes before it",
        };
        f.write_str(text)
    }
}

impl Relays {
    /// The ways for frames to a peer of these groups that said to be at `relays`, with what speaks against each: the peer's in its order, those
    /// where this device is at home, and others.
    pub(crate) fn frames_lacks(
        &self,
        peer: DeviceId,
        (relays, groups): (&[DeviceId], &[GroupName]),
    ) -> Vec<(DeviceId, FramesLack)> {
        let listens = self.hosts.contains_key(&peer) && !relays.contains(&peer);
        let mut ways = relays.to_vec();
        ways.extend(listens.then_some(peer));
        for relay in self.homes.iter().chain(self.entries.keys().copied()) {
            if ways.len() < TOLD && !ways.contains(&relay) {
                ways.push(relay);
            }
        }
        let lack = |way: DeviceId| (way, self.frames_lack(way, peer, (relays, groups)));
        ways.into_iter().map(lack).collect()
    }

    fn frames_lack(
        &self,
        way: DeviceId,
        peer: DeviceId,
        (relays, groups): (&[DeviceId], &[GroupName]),
    ) -> FramesLack {
        let serves = |groups| self.entries.get(&way).is_none_or(|entry| entry.serves(groups));
        let failures = self.links.get(&way).map_or(0, |link| link.failures);
        let is_attached = self.is_attached(way);
        if !serves(&self.groups) {
            FramesLack::NotForUs
        } else if !serves(groups) {
            FramesLack::NotForPeer
        } else if !is_attached && failures > 0 {
            FramesLack::Unreached(failures)
        } else if !self.is_well(way) {
            FramesLack::Unwell
        } else if way != peer && !relays.contains(&way) {
            FramesLack::PeerElsewhere
        } else if !is_attached {
            FramesLack::Unconnected
        } else {
            FramesLack::Precedence
        }
    }
}

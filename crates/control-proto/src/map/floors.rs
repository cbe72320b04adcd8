//! What was seen of devices and records, so that nothing older counts later.

use std::collections::BTreeMap;

use identity::{DeviceId, RecordFloors};
use minicbor::{Decode, Encode};

use super::Peer;
use crate::limits::MAX_FLOORS;

/// The newest versions seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Floors {
    pub(super) records: RecordFloors,
    pub(super) devices: DeviceFloors,
}

/// The highest numbers that devices have given their bindings and endpoints, also after they have gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct DeviceFloors {
    #[n(0)]
    numbers: BTreeMap<DeviceId, Numbers>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Numbers {
    #[n(0)]
    binding: u64,
    #[n(1)]
    endpoints: u64,
}

impl DeviceFloors {
    /// Which of the device's statements is older than one that was seen, if any is.
    pub(super) fn older(&self, peer: &Peer) -> Option<&'static str> {
        let known = self.numbers.get(&peer.member.device)?;
        let endpoints = peer.endpoints.as_ref().map(|endpoints| endpoints.number);
        if peer.binding.number < known.binding {
            Some("binding")
        } else if endpoints.is_some_and(|number| number < known.endpoints) {
            Some("endpoints")
        } else {
            None
        }
    }

    /// Remembers a member's numbers. If there is no room, of those that `is_gone` says so of the one with
    /// the lowest number is forgotten: numbers keep step with clocks, so it has been gone for longest.
    pub(super) fn note(&mut self, peer: &Peer, is_gone: impl Fn(&DeviceId) -> bool) {
        let known = self.numbers.entry(peer.member.device).or_default();
        known.binding = known.binding.max(peer.binding.number);
        let endpoints = peer.endpoints.as_ref().map_or(0, |endpoints| endpoints.number);
        known.endpoints = known.endpoints.max(endpoints);
        if self.numbers.len() > MAX_FLOORS {
            let gone = self.numbers.iter().filter(|(device, _)| is_gone(device));
            if let Some((device, _)) = gone.min_by_key(|(_, numbers)| numbers.binding) {
                let device = *device;
                self.numbers.remove(&device);
            }
        }
    }
}

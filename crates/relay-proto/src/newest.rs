//! The newest statements of devices: what is older is played back.

use std::collections::BTreeMap;

use identity::{DeviceId, NetworkId};

use crate::limits::MAX_REMEMBERED;

/// A device in a network.
pub(crate) type Place = (NetworkId, DeviceId);

/// The highest numbers seen of each device, also after it has gone.
#[derive(Default)]
pub(crate) struct Newest {
    numbers: BTreeMap<Place, Numbers>,
}

#[derive(Clone, Copy, Default)]
struct Numbers {
    binding: u64,
    attachment: u64,
}

impl Newest {
    /// Whether a device attaches by its newest binding and with a new attachment; remembers both if so.
    pub(crate) fn admit(&mut self, place: Place, binding: u64, attachment: u64) -> bool {
        let known = self.numbers.get(&place).copied().unwrap_or_default();
        if binding < known.binding || attachment <= known.attachment {
            return false;
        }
        self.keep(place, Numbers { binding, attachment });
        true
    }

    /// Remembers a binding that a device did not show here.
    pub(crate) fn note_binding(&mut self, place: Place, binding: u64) {
        let known = self.numbers.get(&place).copied().unwrap_or_default();
        if binding > known.binding {
            self.keep(place, Numbers { binding, ..known });
        }
    }

    pub(crate) fn forget(&mut self, network: NetworkId) {
        self.numbers.retain(|(of, _), _| *of != network);
    }

    /// Numbers keep step with clocks, so that whoever has the lowest was not here for longest.
    fn keep(&mut self, place: Place, numbers: Numbers) {
        self.numbers.insert(place, numbers);
        if self.numbers.len() > MAX_REMEMBERED {
            let oldest = self.numbers.iter().min_by_key(|(_, n)| n.binding.max(n.attachment));
            if let Some((oldest, _)) = oldest {
                let oldest = *oldest;
                self.numbers.remove(&oldest);
            }
        }
    }
}

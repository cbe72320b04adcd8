//! Where a node looks for a controller.

use identity::{ChannelPublicKey, ServerAddress};

use super::ControllerAddress;
use crate::NetworkMap;

/// The places to try in turn: first where a controller answered last, then where the network's own
/// records say that one is, then where the node was told when it joined.
#[derive(Debug, Default)]
pub(crate) struct Places {
    tried: usize,
    current: Option<Place>,
    answered: Option<Place>,
}

/// A server, and the key by which the controller there is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    server: ServerAddress,
    channel_key: ChannelPublicKey,
}

impl Places {
    /// The next server to try; nothing if none is known.
    pub(crate) fn next(
        &mut self,
        told: &ControllerAddress,
        map: &NetworkMap,
    ) -> Option<ServerAddress> {
        let mut places = known(told, map);
        let last = self.answered.as_ref();
        if let Some(index) = places.iter().position(|place| Some(place) == last) {
            places[..=index].rotate_right(1);
        }
        let index = self.tried.checked_rem(places.len())?;
        self.tried += 1;
        let place = places.swap_remove(index);
        self.current = Some(place.clone());
        Some(place.server)
    }

    /// The key of the controller at the server that is being tried.
    pub(crate) fn channel_key(&self) -> Option<ChannelPublicKey> {
        self.current.as_ref().map(|place| place.channel_key)
    }

    /// What failed since a controller answered was for nothing: that one is tried first again.
    pub(crate) fn forget_attempts(&mut self) {
        self.tried = 0;
    }

    /// The controller there has let us in: from now on it is tried first.
    pub(crate) fn note_answer(&mut self) {
        self.answered.clone_from(&self.current);
        self.tried = 0;
    }
}

fn known(told: &ControllerAddress, map: &NetworkMap) -> Vec<Place> {
    let mut entries: Vec<_> = map.controllers().filter(|_| told.follows_records).collect();
    entries.sort_by_key(|entry| entry.channel_key != told.channel_key);
    let recorded = entries.iter().map(|entry| (entry.channel_key, &entry.servers));
    let mut places: Vec<Place> = Vec::new();
    for (channel_key, servers) in recorded.chain([(told.channel_key, &told.servers)]) {
        for server in servers {
            let place = Place { server: server.clone(), channel_key };
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

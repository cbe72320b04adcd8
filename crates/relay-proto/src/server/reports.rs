//! What a relay says of itself: how busy it is, and who is there.

use identity::{DeviceId, NetworkId};

use super::RelayServer;
use crate::connection::Connection;
use crate::load::LoadReport;

impl RelayServer {
    /// A network's load since its last report; `cpu_permille` is what the shell measured.
    pub fn report_load(&mut self, network: NetworkId, cpu_permille: u32) -> LoadReport {
        let of_network = self.connections.values().filter(|c| c.network == network);
        let (connections, queued) = of_network.fold((0, 0), |(count, queued), connection| {
            (count + 1, queued + connection.link.outbound.queued_bytes() as u64)
        });
        LoadReport {
            connections,
            attached: u32::try_from(self.attached(network).count()).unwrap_or(u32::MAX),
            queued_bytes: queued,
            cpu_permille,
            ..self.loads.remove(&network).unwrap_or_default()
        }
    }

    /// How many of the connections that it may have at once a relay has, in thousandths.
    #[must_use]
    pub fn crowding_permille(&self) -> u32 {
        let (connections, most) = (self.connections.len(), self.limits.connections.max(1));
        u32::try_from(connections.saturating_mul(1_000) / most).unwrap_or(u32::MAX)
    }

    /// Bytes of a network that were forwarded since its last report.
    #[must_use]
    pub fn forwarded(&self, network: NetworkId) -> u64 {
        self.loads.get(&network).map_or(0, |load| load.bytes_forwarded)
    }

    /// Whether a device is attached.
    #[must_use]
    pub fn is_attached(&self, network: NetworkId, device: DeviceId) -> bool {
        self.attached.contains_key(&(network, device))
    }

    /// The devices of a network that are attached, without other relays.
    pub fn attached(&self, network: NetworkId) -> impl Iterator<Item = DeviceId> {
        let is_relay = |id| {
            let connection = self.connections.get(id);
            let attached = connection.and_then(Connection::attached);
            attached.is_some_and(|attached| attached.is_relay)
        };
        let of_network = self.attached.iter().filter(move |((of, _), _)| *of == network);
        of_network.filter(move |(_, id)| !is_relay(id)).map(|((_, device), _)| *device)
    }
}

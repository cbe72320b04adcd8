//! What an engine starts with.

use std::fmt;

use identity::{ChannelKey, DeviceKey, DeviceName, Invite, TunnelKey, TurnServer};

/// The inner MTU for which an Ethernet has room beside the headers of IPv6 (40 bytes), UDP (8) and the tunnel (32).
pub const DEFAULT_MTU: u16 = 1_420;

/// The secrets of a device in one network.
#[derive(Clone)]
pub struct DeviceSecrets {
    /// Its identity.
    pub device: DeviceKey,
    /// Its WireGuard static key.
    pub tunnel: TunnelKey,
    /// Its Noise static key.
    pub channel: ChannelKey,
}

impl fmt::Debug for DeviceSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceSecrets(of {})", self.device.id())
    }
}

/// The newest [`EngineEvent::Save`](crate::EngineEvent::Save) of each part.
#[derive(Clone, Debug, Default)]
pub struct SavedState {
    /// What is the device's own.
    pub own: Option<Vec<u8>>,
    /// The map.
    pub map: Option<Vec<u8>>,
}

/// What an engine starts with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The invite by which the device joins, or joined. It stays the source of the controller's
    /// and relays' first addresses.
    pub invite: Invite,
    /// The name that the device would like to have.
    pub name: DeviceName,
    /// The device's keys.
    pub secrets: DeviceSecrets,
    /// What was to be saved last, if there ever was anything.
    pub saved: SavedState,
    /// Whether there is a UDP socket.
    pub udp: bool,
    /// Whether peers may be dialled on loopback addresses: for networks on one machine.
    pub loopback: bool,
    /// TURN servers beside those of the network.
    pub turn: Vec<TurnServer>,
    /// The interface's MTU, [`BASE_MTU`](path::BASE_MTU) at least. How large packets the path to each member carries is found out.
    pub mtu: usize,
    /// Whether the processor has AES: frames are sealed with it where the peer's has, too.
    pub has_aes: bool,
}

//! A node's side of its channel to the controller.

mod backoff;
mod clock;
mod join;
mod link;
mod machine;
mod places;
mod reports;
mod succession;
mod timers;

use identity::{
    Binding, CertificateChain, ChannelKey, ChannelPublicKey, DeviceKey, DeviceName, Invite,
    NetworkId, ServerAddress, Signed, SuccessorRule,
};
use noise_channel::{ClockOffset, PathSecret};

use crate::{ConnectionId, MapChanges, Refusal, SecurityEvent};

pub use machine::ControlClient;

/// Where a controller is, and by which key it is known.
#[derive(Debug, Clone)]
pub struct ControllerAddress {
    /// The network.
    pub network: NetworkId,
    /// Servers to try in turn.
    pub servers: Vec<ServerAddress>,
    /// Its Noise static key.
    pub channel_key: ChannelPublicKey,
    /// Hides the connection.
    pub path_secret: PathSecret,
    /// Whether the network's records say where controllers are, and by which keys they are known,
    /// before this address does.
    pub follows_records: bool,
}

impl From<&Invite> for ControllerAddress {
    fn from(invite: &Invite) -> Self {
        Self {
            network: invite.network,
            servers: invite.controllers.clone(),
            channel_key: invite.controller_key,
            path_secret: PathSecret::from_bytes(*invite.path_secret.0),
            follows_records: invite.successor == SuccessorRule::ByRecord,
        }
    }
}

/// What a node brings to be let in.
#[derive(Debug, Clone)]
pub enum Admission {
    /// An invite, and the name that the device would like.
    Invite {
        /// The invite.
        invite: Box<Invite>,
        /// The name that the device would like; the invite's own comes first.
        name: DeviceName,
    },
    /// A membership that it got earlier.
    Chain(Box<CertificateChain>),
}

/// What a [`ControlClient`] is made of.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The controller.
    pub controller: ControllerAddress,
    /// The device's identity.
    pub device_key: DeviceKey,
    /// Its channel key, which the binding names.
    pub channel_key: ChannelKey,
    /// Its keys, signed.
    pub binding: Signed<Binding>,
    /// How it gets in.
    pub admission: Admission,
    /// The clock offset learnt earlier.
    pub clock_offset: ClockOffset,
}

/// What a shell has to do with connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamAction {
    /// Open a WebSocket, then call [`ControlClient::handle_opened`], or
    /// [`ControlClient::handle_closed`] if that fails.
    Dial {
        /// Names the connection from now on.
        connection: ConnectionId,
        /// The server.
        server: ServerAddress,
        /// The path of the request.
        path: String,
    },
    /// Send one binary message.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// The message.
        message: Vec<u8>,
    },
    /// Close a connection; it is not heard of again.
    Close {
        /// Which one.
        connection: ConnectionId,
    },
}

/// What a node learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The controller has accepted the device.
    Connected {
        /// The device waits for approval and gets no map until then.
        pending: bool,
    },
    /// The channel has given way to a newer one, without a gap.
    Renewed,
    /// The channel is gone; it is tried again by itself.
    Disconnected,
    /// The device's membership has changed; keep the chain.
    Membership(Box<CertificateChain>),
    /// The map has changed; keep [`crate::NetworkMap::to_bytes`] of it.
    MapChanged(MapChanges),
    /// The controller refuses; tried again later by itself.
    Refused(Refusal),
    /// The device was removed; the client has stopped for good.
    Removed,
    /// The clock is wrong; the client goes on with the offset, which should be kept.
    ClockWrong {
        /// What must be added to the local clock.
        offset: ClockOffset,
    },
    /// An earlier run, whose memory is lost, has used numbers up to this one: give a binding with a
    /// higher one to [`ControlClient::set_binding`], and number what follows above it.
    Outdated {
        /// The number.
        number: u64,
    },
    /// Something to write down.
    Security(SecurityEvent),
}

/// How it stands with the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientStatus {
    /// Not connected; tried again by itself.
    Offline,
    /// A connection is being opened.
    Connecting,
    /// The device waits for approval.
    Pending,
    /// All is well.
    Online,
    /// Refused; tried again later by itself.
    Refused(Refusal),
    /// The device was removed or has left: over.
    Stopped,
}

//! Over what a WireGuard message travels.

use std::net::SocketAddr;

use identity::DeviceId;
use path::{Alias, Path};
use wireguard_proto::{Endpoint, Source};

/// Where a WireGuard message came from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Via {
    /// Straight over UDP.
    Direct(SocketAddr),
    /// In a frame of this peer, through this relay, which is the peer itself on a stream straight to it.
    Relay {
        /// The peer.
        peer: DeviceId,
        /// The relay.
        through: DeviceId,
    },
}

/// How a frame with a peer's name came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// In a datagram from this address.
    Direct(SocketAddr),
    /// Through this relay, which is the peer itself on a stream straight to it.
    Relay(DeviceId),
}

impl Arrival {
    /// The path by which the frame of this peer came in.
    pub(crate) fn path(self, peer: DeviceId) -> Path {
        match self {
            Self::Direct(from) => Path::Direct(from),
            Self::Relay(relay) if relay == peer => Path::Stream,
            Self::Relay(_) => Path::Relay,
        }
    }
}

impl Via {
    pub(crate) fn path(self) -> Path {
        match self {
            Self::Direct(address) => Path::Direct(address),
            Self::Relay { .. } => Path::Relay,
        }
    }
}

impl Endpoint for Via {
    /// A sender behind a relay is told by its identity: the frame around the message proved it.
    fn source(&self) -> Source {
        match self {
            Self::Direct(address) => Source::from(Alias::reached(*address)),
            Self::Relay { peer, .. } => {
                let mut prefix = [0; 16];
                prefix.copy_from_slice(&peer.as_bytes()[..16]);
                Source { identity: *peer.as_bytes(), prefix }
            }
        }
    }
}

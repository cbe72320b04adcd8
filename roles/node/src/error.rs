//! Why a node does not start.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why a node does not start. Each text ends with what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another node uses the socket of the local API.
    #[error("a node runs already and answers at {}; `shadowmesh down` stops it", .0.display())]
    AlreadyRunning(PathBuf),
    /// The socket of the local API cannot be made.
    #[error("{0}; choose another state folder")]
    Socket(String),
    /// The kept keys cannot be read.
    #[error("{0}")]
    Keys(String),
    /// The MTU is too small for IPv6.
    #[error("an MTU of {0} is too small: `mtu` in the configuration must be 1280 at least")]
    Mtu(u16),
    /// A local port cannot be listened on.
    #[error(
        "cannot listen at {address}: {source}; choose another port with --proxy or --forward, or in the settings"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The UDP port cannot be had.
    #[error("cannot use UDP port {port}: {source}; choose another with --listen-port, or 0")]
    Udp {
        /// The port.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// A forward's target is not one.
    #[error("{0:?} is no target for a forward; give NAME:PORT")]
    Forward(String),
    /// The userspace stack does not start.
    #[error("the userspace network stack does not start: {0}")]
    Stack(io::Error),
    /// The interface cannot be used.
    #[error("cannot use the interface: {0}; try `--mode userspace`")]
    Interface(io::Error),
    /// There is no interface.
    #[error("{0}; or choose `--mode userspace`, which needs no privileges")]
    Tun(#[from] platform::TunError),
}

//! The UDP sockets that a network's loop and its data threads share.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use platform::{Delivery, Transmit, UdpConfig, UdpSocket};
use tracing::debug;

/// A second family may find the first one's free port taken; further ports are tried.
const PORT_ATTEMPTS: usize = 16;
/// The system knows no such address family.
const EAFNOSUPPORT: i32 = 97;

/// One socket for each IP family that the host has, on the same port.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    ipv4: Option<Arc<UdpSocket>>,
    ipv6: Option<Arc<UdpSocket>>,
    port: u16,
}

impl Sockets {
    /// No sockets at all, for a node that does not use UDP.
    pub(crate) fn none() -> Self {
        Self { ipv4: None, ipv6: None, port: 0 }
    }

    /// Binds a port, 0 for a free one. `mark` is put on everything sent, 0 for none.
    pub(crate) fn bind(port: u16, mark: u32) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORT_ATTEMPTS {
            match Self::bind_both(port, mark) {
                Ok(sockets) => return Ok(sockets),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn bind_both(port: u16, mark: u32) -> io::Result<Self> {
        let open = |config: UdpConfig| available(UdpSocket::bind(&UdpConfig { mark, ..config }));
        let ipv4 = open(UdpConfig::ipv4(port))?;
        let taken = ipv4.as_ref().map_or(port, |socket| socket.local_address().port());
        let ipv6 = open(UdpConfig::ipv6(taken))?;
        let Some(one) = ipv4.as_ref().or(ipv6.as_ref()) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let port = one.local_address().port();
        Ok(Self { ipv4: ipv4.map(Arc::new), ipv6: ipv6.map(Arc::new), port })
    }

    /// The port of both.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The sockets there are.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<UdpSocket>> {
        self.ipv4.iter().chain(&self.ipv6)
    }

    /// Sends datagrams, `segment` bytes each but the last; what cannot be sent is lost.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8], segment: Option<u16>) {
        let socket = match to.ip() {
            IpAddr::V4(_) => &self.ipv4,
            IpAddr::V6(_) => &self.ipv6,
        };
        let Some(socket) = socket else { return };
        match socket.send(&Transmit { destination: to, source: None, segment, bytes }) {
            Delivery::Sent | Delivery::SourceGone => {}
            Delivery::Dropped => debug!(%to, "datagram not sent"),
        }
    }
}

/// A family that the host does not have is no failure.
fn available(bound: io::Result<UdpSocket>) -> io::Result<Option<UdpSocket>> {
    match bound {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_share_one_port() {
        let sockets = Sockets::bind(0, 0).expect("a free port");
        assert_ne!(sockets.port(), 0);
        assert!(sockets.all().all(|socket| socket.local_address().port() == sockets.port()));
        assert!(sockets.all().count() > 0);
    }
}

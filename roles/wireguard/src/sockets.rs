use std::io;
use std::net::SocketAddr;

use platform::{Delivery, Transmit, UdpConfig, UdpSocket};

use crate::outbound::Send;

/// The UDP sockets of one port, in the network namespace in which the process began.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) v4: UdpSocket,
    /// Absent where the system has no IPv6.
    pub(crate) v6: Option<UdpSocket>,
}

/// Tries to find a port that is free for both IP versions.
const ATTEMPTS: usize = 20;

impl Sockets {
    /// Binds `port` for both IP versions, or any port when it is zero.
    pub(crate) fn bind(port: u16, mark: u32) -> io::Result<Self> {
        let mut attempts = 0;
        loop {
            let v4 = UdpSocket::bind(&UdpConfig { mark, ..UdpConfig::ipv4(port) })?;
            let chosen = v4.local_address().port();
            match UdpSocket::bind(&UdpConfig { mark, ..UdpConfig::ipv6(chosen) }) {
                Ok(v6) => return Ok(Self { v4, v6: Some(v6) }),
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    return Ok(Self { v4, v6: None });
                }
                Err(_) if port == 0 && attempts < ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.v4.local_address().port()
    }

    pub(crate) fn set_mark(&self, mark: u32) -> io::Result<()> {
        self.v4.set_mark(mark)?;
        self.v6.as_ref().map_or(Ok(()), |v6| v6.set_mark(mark))
    }

    pub(crate) fn send(&self, send: &Send, bytes: &[u8]) -> Delivery {
        let socket = match send.remote.address {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => match &self.v6 {
                Some(v6) => v6,
                None => return Delivery::Dropped,
            },
        };
        socket.send(&Transmit {
            destination: send.remote.address,
            source: send.remote.source,
            segment: u16::try_from(send.segment).ok(),
            bytes,
        })
    }
}

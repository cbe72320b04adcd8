//! The UDP sockets of one network.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tracing::debug;

/// Bursts of several peers fit; the kernel caps it at its own limit.
const BUFFER: usize = 4 << 20;
/// A second family may find the first one's free port taken; further ports are tried.
const PORT_ATTEMPTS: usize = 16;

/// One socket for each IP family that the host has, both on the same port.
#[derive(Debug)]
pub(crate) struct Udp {
    ipv4: Option<UdpSocket>,
    ipv6: Option<UdpSocket>,
    port: u16,
}

impl Udp {
    /// Binds a port, 0 for a free one.
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORT_ATTEMPTS {
            match Self::bind_both(port) {
                Ok(sockets) => return Ok(sockets),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn bind_both(port: u16) -> io::Result<Self> {
        let ipv4 = available(bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?;
        let taken = match &ipv4 {
            Some(socket) => socket.local_addr()?.port(),
            None => port,
        };
        let ipv6 = available(bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, taken))))?;
        let port = match (&ipv4, &ipv6) {
            (Some(socket), _) | (None, Some(socket)) => socket.local_addr()?.port(),
            (None, None) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Self { ipv4, ipv6, port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sends at once or not at all: what the kernel has no room for is lost, as on any wire.
    pub(crate) fn send(&self, payload: &[u8], to: SocketAddr) {
        let socket = if to.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let Some(socket) = socket else { return };
        if let Err(error) = socket.try_send_to(payload, to) {
            debug!(%to, %error, "datagram not sent");
        }
    }

    /// Waits until something can be received.
    pub(crate) async fn readable(&self) {
        let wait = async |socket: &Option<UdpSocket>| match socket {
            // A failed wait shows again at the receive that follows.
            Some(socket) => drop(socket.readable().await),
            None => std::future::pending().await,
        };
        tokio::select! {
            () = wait(&self.ipv4) => {}
            () = wait(&self.ipv6) => {}
        }
    }

    /// Takes one datagram that has arrived already.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        for socket in [&self.ipv4, &self.ipv6].into_iter().flatten() {
            match socket.try_recv_from(buffer) {
                Ok(received) => return Some(received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The kernel reports here what became of an earlier datagram.
                Err(error) => debug!(%error, "receiving a datagram failed"),
            }
        }
        None
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    for result in [socket.set_recv_buffer_size(BUFFER), socket.set_send_buffer_size(BUFFER)] {
        if let Err(error) = result {
            debug!(%error, "socket buffers stay small");
        }
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// A family that the host does not have is no failure.
fn available(bound: io::Result<UdpSocket>) -> io::Result<Option<UdpSocket>> {
    match bound {
        Ok(socket) => Ok(Some(socket)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable
            ) =>
        {
            Ok(None)
        }
        // EAFNOSUPPORT has no kind of its own.
        Err(error) if error.raw_os_error() == Some(97) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_datagram_arrives_on_the_port_that_was_taken() {
        let sockets = Udp::bind(0).expect("a free port");
        let sender = Udp::bind(0).expect("a free port");
        // The runtime learns at its first turn that a new socket takes datagrams.
        sender.ipv4.as_ref().expect("every host has IPv4").writable().await.expect("it is open");
        sender.send(b"hello", SocketAddr::from((Ipv4Addr::LOCALHOST, sockets.port())));
        sockets.readable().await;
        let mut buffer = [0; 64];
        let (length, from) = sockets.receive(&mut buffer).expect("it was readable");
        assert_eq!((&buffer[..length], from.port()), (&b"hello"[..], sender.port()));
        assert!(sockets.receive(&mut buffer).is_none());
    }
}

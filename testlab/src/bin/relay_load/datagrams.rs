//! Datagrams between one socket and one server.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use platform::{ReceiveBatch, Transmit, UdpConfig, UdpSocket};
use tokio::io::Interest;

/// Bytes of payload in a datagram at most.
const PAYLOAD: usize = 1_400;
/// Super-datagrams in one receive call.
const SLOTS: usize = 8;

/// The payloads of the datagrams, in bytes, that so many frames of such a length take.
pub(crate) fn pieces(length: usize, count: usize) -> impl Iterator<Item = usize> {
    let (whole, piece) = (length * count, length.min(PAYLOAD));
    (0..whole).step_by(piece).map(move |at| piece.min(whole - at))
}

/// What there was to receive, if there was something; a socket that is broken is no measurement.
pub(crate) fn at_once<T>(received: std::io::Result<T>) -> Option<T> {
    match received {
        Ok(received) => Some(received),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// A socket, and the server that it speaks to.
pub(crate) struct Datagrams {
    socket: UdpSocket,
    /// The same one, as the runtime waits for it.
    ready: tokio::net::UdpSocket,
    server: SocketAddr,
    batch: ReceiveBatch,
}

impl Datagrams {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let address = Ipv4Addr::LOCALHOST.into();
        let config = UdpConfig { address, ..UdpConfig::ipv4(0) };
        let socket = UdpSocket::bind(&config).expect("a free port");
        let again = socket.as_fd().try_clone_to_owned().expect("a free descriptor");
        let ready = tokio::net::UdpSocket::from_std(again.into()).expect("a runtime");
        Self { socket, ready, server, batch: ReceiveBatch::new(SLOTS) }
    }

    /// Waits until something has come.
    pub(crate) async fn readable(&self) {
        self.ready.readable().await.expect("the socket works");
    }

    /// Takes what has come.
    pub(crate) fn take(&mut self, take: &mut dyn FnMut(&[u8])) {
        let Self { socket, ready, batch, .. } = self;
        let receive = |batch: &mut ReceiveBatch| match socket.receive(batch)? {
            true => Ok(()),
            false => Err(Error::from(ErrorKind::WouldBlock)),
        };
        while at_once(ready.try_io(Interest::READABLE, || receive(batch))).is_some() {
            let datagrams = batch.datagrams().flat_map(platform::udp::Datagram::segments);
            datagrams.for_each(|datagram| take(datagram));
        }
    }

    /// Sends datagrams, those of one length that follow each other at once.
    pub(crate) fn send_each(&self, datagrams: impl Iterator<Item = Vec<u8>>) {
        let (mut batch, mut length) = (Vec::new(), 0);
        for datagram in datagrams {
            if datagram.len() != length {
                self.send(&batch, length);
                batch.clear();
                length = datagram.len();
            }
            batch.extend_from_slice(&datagram);
        }
        self.send(&batch, length);
    }

    /// Sends datagrams of this length, back to back, of which the last may be shorter.
    pub(crate) fn send(&self, bytes: &[u8], length: usize) {
        if bytes.is_empty() {
            return;
        }
        let segment = (bytes.len() > length).then(|| u16::try_from(length).expect("a datagram"));
        let transmit = Transmit { destination: self.server, source: None, segment, bytes };
        let _ = self.socket.send(&transmit);
    }
}

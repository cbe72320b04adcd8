//! UDP sockets of the stack.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{RecvError, SendError, UdpMetadata};
use smoltcp::wire::IpEndpoint;

use crate::driver::Shared;

/// A UDP socket on all of the device's addresses.
#[derive(Debug)]
pub struct UdpSocket {
    shared: Arc<Shared>,
    handle: SocketHandle,
    port: u16,
}

impl UdpSocket {
    pub(crate) fn new(shared: Arc<Shared>, handle: SocketHandle, port: u16) -> Self {
        Self { shared, handle, port }
    }

    /// The port of the socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends one datagram, waiting for room in the socket's queue.
    ///
    /// Datagrams are never fragmented: one that does not fit the overlay's MTU is an error of kind
    /// [`io::ErrorKind::InvalidInput`]. The caller decides what may be addressed.
    pub async fn send_to(&self, payload: &[u8], remote: SocketAddr) -> io::Result<()> {
        poll_fn(|context| {
            let mut core = self.shared.core();
            core.check_running()?;
            if payload.len() > core.datagram_limit(remote.ip()) {
                return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
            }
            let metadata = UdpMetadata {
                endpoint: IpEndpoint::from(remote),
                local_address: Some(core.source_address(remote.ip())?.into()),
                meta: smoltcp::phy::PacketMeta::default(),
            };
            let socket = core.udp(self.handle);
            match socket.send_slice(payload, metadata) {
                Ok(()) => {
                    drop(core);
                    self.shared.wake_driver();
                    Poll::Ready(Ok(()))
                }
                Err(SendError::BufferFull) => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                Err(SendError::Unaddressable) => {
                    Poll::Ready(Err(io::ErrorKind::AddrNotAvailable.into()))
                }
            }
        })
        .await
    }

    /// Waits for a datagram; what does not fit `buffer` is cut off.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|context| {
            let mut core = self.shared.core();
            core.check_running()?;
            let socket = core.udp(self.handle);
            match socket.recv() {
                Ok((payload, metadata)) => {
                    let count = payload.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&payload[..count]);
                    Poll::Ready(Ok((count, metadata.endpoint.into())))
                }
                Err(RecvError::Exhausted | RecvError::Truncated) => {
                    socket.register_recv_waker(context.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.shared.core().close_udp(self.handle);
    }
}

//! TCP streams and listeners of the stack.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, State};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::core::Incoming;
use crate::driver::Shared;

/// A TCP connection over the overlay.
///
/// Shutting the writer down sends FIN and leaves the reader open. Dropping the stream delivers what
/// was written, or resets the connection when received bytes were left unread.
#[derive(Debug)]
pub struct TcpStream {
    shared: Arc<Shared>,
    handle: SocketHandle,
}

impl TcpStream {
    pub(crate) fn new(shared: Arc<Shared>, handle: SocketHandle) -> Self {
        Self { shared, handle }
    }

    /// The device's end of the connection.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.core().flow(self.handle).local
    }

    /// The peer's end of the connection.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.shared.core().flow(self.handle).remote
    }

    /// Resets the connection: the peer sees an error instead of an end.
    pub fn abort(self) {
        self.shared.core().tcp(self.handle).abort();
    }

    /// Waits for the end of the handshake.
    pub(crate) async fn established(&self) -> io::Result<()> {
        poll_fn(|context| {
            let mut core = self.shared.core();
            let socket = core.tcp(self.handle);
            match socket.state() {
                State::SynSent | State::SynReceived | State::Listen => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                State::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
                State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck
                | State::TimeWait => Poll::Ready(Ok(())),
            }
        })
        .await
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut core = self.shared.core();
        let socket = core.tcp(self.handle);
        match socket.recv_slice(buffer.initialize_unfilled()) {
            Ok(0) => {
                socket.register_recv_waker(context.waker());
                Poll::Pending
            }
            Ok(count) => {
                drop(core);
                buffer.advance(count);
                self.shared.wake_driver();
                Poll::Ready(Ok(()))
            }
            Err(RecvError::Finished) => Poll::Ready(Ok(())),
            Err(RecvError::InvalidState) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut core = self.shared.core();
        let socket = core.tcp(self.handle);
        match socket.send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            Ok(count) => {
                drop(core);
                self.shared.wake_driver();
                Poll::Ready(Ok(count))
            }
            Err(_closed) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Written bytes are on their way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.core().tcp(self.handle).close();
        self.shared.wake_driver();
        Poll::Ready(Ok(()))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.shared.core().release(self.handle, Instant::now());
        self.shared.wake_driver();
    }
}

/// Connections to one port of the device.
#[derive(Debug)]
pub struct TcpListener {
    shared: Arc<Shared>,
    port: u16,
    incoming: mpsc::Receiver<Incoming>,
}

impl TcpListener {
    pub(crate) fn new(shared: Arc<Shared>, port: u16, incoming: mpsc::Receiver<Incoming>) -> Self {
        Self { shared, port, incoming }
    }

    /// Waits for the next connection; an error means that the stack has stopped.
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let Some((handle, remote)) = ready!(self.incoming.poll_recv(context)) else {
            return Poll::Ready(Err(io::ErrorKind::NetworkDown.into()));
        };
        Poll::Ready(Ok((TcpStream::new(Arc::clone(&self.shared), handle), remote)))
    }

    /// The port that is listened on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.shared.core().unlisten(self.port);
        while let Ok((handle, _)) = self.incoming.try_recv() {
            TcpStream::new(Arc::clone(&self.shared), handle).abort();
        }
    }
}

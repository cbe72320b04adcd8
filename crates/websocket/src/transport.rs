//! TCP or TLS as one byte stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// rustls holds back more than this; it has to be above the longest message, or each one stalls.
const TLS_BUFFER: usize = 256 * 1024;

/// What is sent and not acknowledged for this long is not acknowledged any more: the host at the other end, or the way to it, is
/// gone, and the sooner that is known, the sooner another relay is used. Four losses of a segment in a row take less on most paths.
#[cfg(target_os = "linux")]
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);

/// What the system takes before the connection can send it. More would wait where no queue knows what is
/// urgent; less would leave a fast connection idle while its writer is woken.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 32 * 1024;

/// Sets up a TCP connection: messages leave at once, do not wait in the system, and a dead peer is noticed.
pub(crate) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(tcp);
        socket.set_tcp_user_timeout(Some(ACKNOWLEDGED_WITHIN))?;
        socket.set_tcp_notsent_lowat(UNSENT)?;
    }
    Ok(())
}

/// The byte stream below a WebSocket; what was read too far during the upgrade comes first.
#[derive(Debug)]
pub(crate) struct Transport {
    early: Bytes,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self { early: Bytes::new(), stream: Stream::Plain(tcp) }
    }

    pub(crate) async fn connect_tls(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        host: ServerName<'static>,
    ) -> io::Result<Self> {
        let mut tls = TlsConnector::from(config).connect(host, tcp).await?;
        tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        Ok(Self::tls(tls.into()))
    }

    pub(crate) async fn accept_tls(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut tls = TlsAcceptor::from(config).accept(tcp).await?;
        tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        Ok(Self::tls(tls.into()))
    }

    fn tls(tls: TlsStream<TcpStream>) -> Self {
        Self { early: Bytes::new(), stream: Stream::Tls(Box::new(tls)) }
    }

    /// Puts bytes back that belong to what follows.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.early = bytes;
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.has_remaining() {
            let length = this.early.len().min(buffer.remaining());
            buffer.put_slice(&this.early.split_to(length));
            return Poll::Ready(Ok(()));
        }
        match &mut this.stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, buffer),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, buffers),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(tcp) => tcp.is_write_vectored(),
            Stream::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

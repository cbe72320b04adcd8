//! A local client: its stream and the bytes that were read ahead of the conversation.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::socks::SocksError;

/// Bytes of one negotiation step, the head of an HTTP request included.
const MAX_HEAD: usize = 16 * 1024;

/// A proxy client. Bytes read ahead are given out first when it is read as a stream.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    ahead: BytesMut,
}

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: BytesMut::new() }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// The first byte that the client sends.
    pub(crate) async fn peek(&mut self) -> io::Result<u8> {
        self.read_with(|bytes| Ok(bytes.first().map(|&first| (first, 0)))).await
    }

    /// Reads until `parse` has a value, and consumes as many bytes as it used.
    pub(crate) async fn read_with<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, SocksError>,
    ) -> io::Result<T> {
        loop {
            if let Some((value, used)) = parse(&self.ahead)? {
                self.ahead.advance(used);
                return Ok(value);
            }
            if self.ahead.len() >= MAX_HEAD {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "request is too long"));
            }
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Waits for the client to leave; what it says meanwhile is of no interest.
    pub(crate) async fn gone(&mut self) {
        let mut ignored = [0; 64];
        while matches!(self.stream.read(&mut ignored).await, Ok(1..)) {}
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

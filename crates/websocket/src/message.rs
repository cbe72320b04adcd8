//! The message stream.

use std::{io::ErrorKind, time::Duration};

use bytes::Bytes;
use futures_util::{
    FutureExt, SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::time::{Instant, timeout};
use tokio_websockets::{
    ClientBuilder, CloseCode, Config, Error, Limits, Message, ServerBuilder, WebSocketStream,
};

use crate::{MAX_MESSAGE, transport::Transport};

/// Queued messages are written to the transport once they reach this many bytes.
const FLUSH_THRESHOLD: usize = 2 * MAX_MESSAGE;
/// How long saying goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer may send this many control frames in a row: each ping puts a pong into memory until the
/// peer reads it.
const CONTROL_BURST: u32 = 16;
/// One more control frame per this interval; CDNs ping every 20 s or less often.
const CONTROL_INTERVAL: Duration = Duration::from_secs(5);

/// An open connection that carries binary messages of at most [`MAX_MESSAGE`] bytes.
#[derive(Debug)]
pub struct WebSocket {
    stream: WebSocketStream<Transport>,
}

impl WebSocket {
    pub(crate) fn client(transport: Transport) -> Self {
        let builder = ClientBuilder::new().config(config()).limits(limits());
        Self { stream: builder.take_over(transport) }
    }

    pub(crate) fn server(transport: Transport) -> Self {
        let builder = ServerBuilder::new().config(config()).limits(limits());
        Self { stream: builder.serve(transport) }
    }

    /// Splits into the two directions, which may live in different tasks.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        let (sink, stream) = self.stream.split();
        let receiver =
            Receiver { stream, control_budget: CONTROL_BURST, last_refill: Instant::now() };
        (Sender { sink }, receiver)
    }
}

/// The sending direction of a [`WebSocket`].
#[derive(Debug)]
pub struct Sender {
    sink: SplitSink<WebSocketStream<Transport>, Message>,
}

impl Sender {
    /// Queues a message; it is written when enough has gathered or at the next [`Self::flush`].
    /// Waits while the transport takes no more.
    ///
    /// # Errors
    /// When the message exceeds [`MAX_MESSAGE`] or the connection is over.
    pub async fn feed(&mut self, message: Bytes) -> Result<(), WebSocketError> {
        if message.len() > MAX_MESSAGE {
            return Err(WebSocketError::TooLong);
        }
        Ok(self.sink.feed(Message::binary(message)).await?)
    }

    /// Writes everything that is queued.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn flush(&mut self) -> Result<(), WebSocketError> {
        Ok(self.sink.flush().await?)
    }

    /// Sends one message now.
    ///
    /// # Errors
    /// When the message exceeds [`MAX_MESSAGE`] or the connection is over.
    pub async fn send(&mut self, message: Bytes) -> Result<(), WebSocketError> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Says goodbye; the connection ends when the other half is dropped too.
    pub async fn close(mut self) {
        let goodbye = Message::close(Some(CloseCode::NORMAL_CLOSURE), "");
        // Nobody is left who could do anything about a goodbye that does not arrive.
        let _ = timeout(CLOSE_TIMEOUT, self.sink.send(goodbye)).await;
    }
}

/// The receiving direction of a [`WebSocket`].
#[derive(Debug)]
pub struct Receiver {
    stream: SplitStream<WebSocketStream<Transport>>,
    control_budget: u32,
    last_refill: Instant,
}

impl Receiver {
    /// The next message, in memory of its own, so that keeping a short one keeps no more; `None` when
    /// the peer has closed the connection. Pings are answered here.
    ///
    /// # Errors
    /// When the peer breaks the protocol or the connection; nothing follows an error.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, WebSocketError> {
        loop {
            let message = match self.stream.next().await {
                None => return Ok(None),
                Some(Ok(message)) => message,
                // Not every peer ends TLS before TCP; the channel inside knows what is missing.
                Some(Err(Error::Io(error))) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Ok(None);
                }
                Some(Err(error)) => return Err(error.into()),
            };
            if message.is_binary() {
                return Ok(Some(Bytes::copy_from_slice(message.as_payload())));
            }
            if message.is_close() {
                // The acknowledgement is written by asking for what follows.
                let _ = timeout(CLOSE_TIMEOUT, self.stream.next()).await;
                return Ok(None);
            }
            if message.is_text() {
                return Err(WebSocketError::Protocol);
            }
            self.spend_control_budget()?;
        }
    }

    /// What [`Self::receive`] would answer without waiting, if it would: a further message that has come with
    /// the last one.
    ///
    /// # Errors
    /// Like [`Self::receive`].
    pub fn receive_now(&mut self) -> Option<Result<Option<Bytes>, WebSocketError>> {
        self.receive().now_or_never()
    }

    fn spend_control_budget(&mut self) -> Result<(), WebSocketError> {
        while self.control_budget < CONTROL_BURST && self.last_refill.elapsed() >= CONTROL_INTERVAL
        {
            self.last_refill += CONTROL_INTERVAL;
            self.control_budget += 1;
        }
        if self.control_budget == CONTROL_BURST {
            self.last_refill = Instant::now();
        }
        self.control_budget = self.control_budget.checked_sub(1).ok_or(WebSocketError::Protocol)?;
        Ok(())
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// A message exceeds [`MAX_MESSAGE`]: one of ours was refused, or the peer sent one.
    #[error("a message is longer than allowed")]
    TooLong,
    /// The peer does not speak the protocol.
    #[error("the peer broke the WebSocket protocol")]
    Protocol,
    /// The connection is over already.
    #[error("the connection is closed")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(std::io::Error),
}

impl From<Error> for WebSocketError {
    fn from(error: Error) -> Self {
        match error {
            Error::AlreadyClosed => Self::Closed,
            Error::PayloadTooLong { .. } => Self::TooLong,
            Error::Io(error) => Self::Io(error),
            Error::CannotResolveHost
            | Error::NoUriConfigured
            | Error::DisallowedHeader
            | Error::Protocol(_)
            | Error::UnsupportedScheme
            | Error::Upgrade(_)
            | _ => Self::Protocol,
        }
    }
}

fn config() -> Config {
    Config::default().frame_size(MAX_MESSAGE).flush_threshold(FLUSH_THRESHOLD)
}

fn limits() -> Limits {
    Limits::default().max_payload_len(Some(MAX_MESSAGE))
}

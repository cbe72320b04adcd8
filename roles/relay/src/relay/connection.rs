//! One connection: a task that reads, and writes what the machine gives it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use relay_proto::{ClientConfig, ConnectionId};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::debug;
use websocket::{Receiver, Sender, Upgrade, WebSocket};

use super::Shared;
use crate::clock;

/// A connection that is to be closed may take this long for its last messages.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// A stream that takes nothing for this long is given up; a slow one takes a message of the largest
/// size in less.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of messages that are taken or written at once, together with what exceeds them: what TLS holds back
/// waits behind no queue that knows who else waits, and nobody waits long for who holds the machine.
const AT_ONCE: usize = 48 * 1024;

/// Tells the task of a connection that it has something to do.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) ready: Notify,
    pub(super) close: Notify,
    pub(super) closing: AtomicBool,
}

/// Serves a connection until it ends, or answers as at any unknown path.
pub(super) async fn handle(shared: Arc<Shared>, upgrade: Upgrade) {
    let opened = shared.drive(|server, now| {
        let recognised = server.recognise(upgrade.path())?;
        let source = upgrade.remote().ip();
        server
            .handle_open(recognised, source, now)
            .inspect_err(|error| debug!(%error, "a client is turned away"))
            .ok()
    });
    let Some(id) = opened else {
        return upgrade.reject_not_found().await;
    };
    let connection = Connection { shared, id, writer: Arc::default() };
    connection.register();
    match upgrade.accept().await {
        Ok(websocket) => {
            let (sender, receiver) = websocket.split();
            connection.run(sender, receiver).await;
        }
        Err(error) => debug!(%error, "a client went away during the upgrade"),
    }
}

/// A connection; forgotten by the machine when it is dropped.
pub(crate) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) id: ConnectionId,
    pub(super) writer: Arc<Writer>,
}

impl Connection {
    fn register(&self) {
        let mut writers = self.shared.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.insert(self.id, Arc::clone(&self.writer));
    }

    /// Serves a connection to another relay until it ends.
    pub(crate) async fn serve_dialled(&self, config: ClientConfig, websocket: WebSocket) {
        self.register();
        self.shared.drive(|server, now| {
            server.handle_dialled(self.id, config, &mut clock::rng(), now);
        });
        let (sender, receiver) = websocket.split();
        self.run(sender, receiver).await;
    }

    async fn run(&self, sender: Sender, receiver: Receiver) {
        tokio::select! {
            () = self.read(receiver) => {}
            () = self.write(sender) => {}
            () = async {
                self.writer.close.notified().await;
                sleep(CLOSE_DEADLINE).await;
            } => {}
        }
    }

    /// Hands the machine what has arrived, many messages at a time: most come in bursts, and waking a
    /// receiver costs more than forwarding to it.
    async fn read(&self, mut receiver: Receiver) {
        let mut arrived = Vec::new();
        loop {
            let mut next = receiver.receive().await;
            let (mut length, mut goes_on) = (0, true);
            loop {
                match next {
                    Ok(Some(message)) => {
                        length += message.len();
                        arrived.push(message);
                    }
                    Ok(None) => goes_on = false,
                    Err(error) => {
                        debug!(%error, "a connection broke");
                        goes_on = false;
                    }
                }
                if !goes_on || length >= AT_ONCE {
                    break;
                }
                match receiver.receive_now() {
                    Some(more) => next = more,
                    None => break,
                }
            }
            self.take(&mut arrived);
            if !goes_on {
                return;
            }
        }
    }

    /// Hands messages to the machine.
    fn take(&self, arrived: &mut Vec<Bytes>) {
        if let Some(capture) = &self.shared.capture {
            arrived.iter().for_each(|message| capture.take(message));
        }
        self.shared.drive(|server, now| {
            for message in arrived.drain(..) {
                server.handle_message(self.id, message, &mut clock::rng(), now);
            }
        });
    }

    async fn write(&self, mut sender: Sender) {
        loop {
            self.writer.ready.notified().await;
            let closing = self.writer.closing.load(Ordering::Acquire);
            if let Err(error) = self.write_queued(&mut sender).await {
                debug!(%error, "a connection takes no more");
                return;
            }
            if closing {
                return sender.close().await;
            }
        }
    }

    /// Writes what the machine has, each message at the moment at which the stream takes it.
    async fn write_queued(&self, sender: &mut Sender) -> io::Result<()> {
        let mut messages = Vec::new();
        loop {
            let is_all = self.poll_messages(&mut messages);
            in_time(async {
                for message in messages.drain(..) {
                    sender.feed(message.freeze()).await?;
                }
                sender.flush().await
            })
            .await?;
            if is_all {
                return Ok(());
            }
        }
    }

    /// Takes from the machine what is written at once; answers whether that is all there is.
    fn poll_messages(&self, messages: &mut Vec<BytesMut>) -> bool {
        let (mut server, now) = (self.shared.server(), Instant::now());
        let mut length = 0;
        let mut is_all = false;
        while length < AT_ONCE && !is_all {
            let message = server.poll_message(self.id, now);
            is_all = message.is_none();
            length += message.as_ref().map_or(0, BytesMut::len);
            messages.extend(message);
        }
        if let Some(sooner) = server.poll_sooner() {
            self.shared.timer.arm(Some(sooner));
        }
        is_all
    }
}

/// Waits for a stream that has to make progress.
async fn in_time(
    written: impl Future<Output = Result<(), websocket::WebSocketError>>,
) -> io::Result<()> {
    timeout(WRITE_DEADLINE, written).await?.map_err(io::Error::other)
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut writers = self.shared.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.remove(&self.id);
        drop(writers);
        self.shared.drive(|server, now| server.handle_closed(self.id, now.instant));
    }
}

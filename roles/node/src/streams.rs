//! WebSocket connections on behalf of an engine.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::debug;
use websocket::{Endpoint, Receiver, Route, Sender, Upgrade, WebSocket, dial_by};

use crate::{directory::Directory, dns::lookup, fault::Fault};

/// A connection takes messages while fewer bytes than this wait for the network: one super-packet more
/// than is being written. Beyond it they stay with the engine, whose queue drops what is late.
const ROOM: usize = 64 * 1024;
/// Bytes of messages that are written at once, together with what exceeds them.
const AT_ONCE: usize = 48 * 1024;

/// The connections of one engine, by the engine's own numbers.
#[derive(Debug)]
pub(crate) struct Streams {
    open: BTreeMap<u64, Stream>,
    directory: Directory,
    events: mpsc::Sender<(u64, StreamEvent)>,
}

/// What happened on a connection.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// The connection stands; where it leads to a server, to which host and by which way.
    Opened(Option<(String, Route)>),
    Message(Bytes),
    /// A connection that had no room has some again.
    Writable,
    Closed(Fault),
}

#[derive(Debug)]
struct Stream {
    queue: mpsc::UnboundedSender<Bytes>,
    backlog: Arc<Backlog>,
}

/// What waits for the network.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// Somebody was told that there is no room, and waits to hear that there is.
    awaited: AtomicBool,
}

impl Streams {
    /// No connections yet; events of all of them go to `events`. They never lead into a network of
    /// `directory`.
    pub(crate) fn new(directory: Directory, events: mpsc::Sender<(u64, StreamEvent)>) -> Self {
        Self { open: BTreeMap::new(), directory, events }
    }

    /// Connects, perhaps by the proxy, and by the `first` way before others; [`StreamEvent::Opened`] or [`StreamEvent::Closed`]
    /// follows.
    pub(crate) fn dial(
        &mut self,
        stream: u64,
        mut endpoint: Endpoint,
        (may_detour, first): (bool, Option<Route>),
    ) {
        endpoint.mark = self.directory.mark().number();
        let (connection, waiting) = self.insert(stream);
        let directory = self.directory.clone();
        tokio::spawn(async move {
            let host = endpoint.host.clone();
            let fault = match connect(endpoint, &directory, may_detour, first).await {
                Ok((socket, route)) => {
                    // Peers are reached at their addresses alone.
                    let by = may_detour.then_some((host, route));
                    connection.report(StreamEvent::Opened(by)).await;
                    connection.serve(socket, waiting).await
                }
                Err(fault) => fault,
            };
            connection.end(fault).await;
        });
    }

    /// Answers somebody who has asked for a connection; [`StreamEvent::Closed`] follows in the end.
    pub(crate) fn accept(&mut self, stream: u64, upgrade: Upgrade) {
        let (connection, waiting) = self.insert(stream);
        tokio::spawn(async move {
            let fault = match upgrade.accept().await {
                Ok(socket) => connection.serve(socket, waiting).await,
                Err(error) => Fault::ended(error.to_string()),
            };
            connection.end(fault).await;
        });
    }

    fn insert(&mut self, stream: u64) -> (Connection, mpsc::UnboundedReceiver<Bytes>) {
        let (queue, waiting) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        let (events, shared) = (self.events.clone(), Arc::clone(&backlog));
        self.open.insert(stream, Stream { queue, backlog });
        (Connection { stream, events, backlog: shared }, waiting)
    }

    /// Whether a message may be sent now. After a no, [`StreamEvent::Writable`] follows.
    pub(crate) fn has_room(&self, stream: u64) -> bool {
        let Some(open) = self.open.get(&stream) else { return false };
        if open.backlog.bytes.load(Ordering::SeqCst) < ROOM {
            return true;
        }
        open.backlog.awaited.store(true, Ordering::SeqCst);
        // The connection may have caught up before it could see that somebody waits.
        open.backlog.bytes.load(Ordering::SeqCst) < ROOM
    }

    /// Queues a message.
    pub(crate) fn send(&self, stream: u64, message: Bytes) {
        let Some(open) = self.open.get(&stream) else { return };
        open.backlog.bytes.fetch_add(message.len(), Ordering::SeqCst);
        // A connection that has just ended reports that itself.
        let _ = open.queue.send(message);
    }

    /// Closes a connection after what is queued; it is not mentioned again.
    pub(crate) fn close(&mut self, stream: u64) {
        self.open.remove(&stream);
    }

    /// Whether events of this connection still matter, forgetting it if it has ended.
    pub(crate) fn observe(&mut self, stream: u64, event: &StreamEvent) -> bool {
        match event {
            StreamEvent::Opened(..) | StreamEvent::Message(_) | StreamEvent::Writable => {
                self.open.contains_key(&stream)
            }
            StreamEvent::Closed(_) => self.open.remove(&stream).is_some(),
        }
    }
}

struct Connection {
    stream: u64,
    events: mpsc::Sender<(u64, StreamEvent)>,
    backlog: Arc<Backlog>,
}

impl Connection {
    async fn serve(&self, socket: WebSocket, waiting: mpsc::UnboundedReceiver<Bytes>) -> Fault {
        let (sender, receiver) = socket.split();
        Fault::ended(tokio::select! {
            reason = self.write(sender, waiting) => reason,
            reason = self.read(receiver) => reason,
        })
    }

    async fn end(&self, fault: Fault) {
        debug!(stream = self.stream, %fault, "stream ended");
        self.report(StreamEvent::Closed(fault)).await;
    }

    async fn write(
        &self,
        mut sender: Sender,
        mut waiting: mpsc::UnboundedReceiver<Bytes>,
    ) -> String {
        while let Some(first) = waiting.recv().await {
            let (mut next, mut length) = (Some(first), 0);
            while let Some(message) = next {
                length += message.len();
                if let Err(error) = sender.feed(message).await {
                    return error.to_string();
                }
                next = if length < AT_ONCE { waiting.try_recv().ok() } else { None };
            }
            if let Err(error) = sender.flush().await {
                return error.to_string();
            }
            // What TLS holds back waits like everything else.
            self.backlog.bytes.fetch_sub(length, Ordering::SeqCst);
            if self.backlog.awaited.swap(false, Ordering::SeqCst) {
                self.report(StreamEvent::Writable).await;
            }
        }
        sender.close().await;
        "closed by this side".to_owned()
    }

    async fn read(&self, mut receiver: Receiver) -> String {
        loop {
            match receiver.receive().await {
                Ok(Some(message)) => self.report(StreamEvent::Message(message)).await,
                Ok(None) => return "closed by the other side".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    }

    async fn report(&self, event: StreamEvent) {
        // Without a receiver the engine is gone, and nobody has to know.
        let _ = self.events.send((self.stream, event)).await;
    }
}

async fn connect(
    mut endpoint: Endpoint,
    directory: &Directory,
    may_detour: bool,
    first: Option<Route>,
) -> Result<(WebSocket, Route), Fault> {
    let is_underneath = |address: &SocketAddr| !directory.is_overlay(address.ip());
    if let Some(rule) = directory.proxy().filter(|_| may_detour) {
        endpoint.detour = rule.detour(&endpoint.host, &directory.dns()).await.map(|mut detour| {
            detour.addresses.retain(is_underneath);
            detour
        });
    }
    // A proxy resolves names for itself, where nobody else can.
    let goes_around = endpoint.detour.as_ref().is_some_and(|detour| !detour.addresses.is_empty());
    if endpoint.addresses.is_empty() {
        endpoint.addresses = resolve(&endpoint.host, directory).await;
        if endpoint.addresses.is_empty() && !goes_around {
            return Err(Fault::unresolved(&endpoint.host));
        }
    }
    endpoint.addresses.retain(is_underneath);
    if endpoint.addresses.is_empty() && !goes_around {
        return Err(Fault::overlay(&endpoint.host));
    }
    Ok(dial_by(&endpoint, first.as_ref()).await?)
}

/// The addresses of a host with a port; none when it cannot be found.
async fn resolve(host: &str, directory: &Directory) -> Vec<SocketAddr> {
    let Some((name, Ok(port))) = host.rsplit_once(':').map(|(name, port)| (name, port.parse()))
    else {
        return Vec::new();
    };
    lookup(&directory.dns(), name, port).await
}

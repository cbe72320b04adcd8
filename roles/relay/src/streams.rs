//! Connections that a relay opens.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use control_proto::ConnectionId;
use identity::{ServerAddress, TlsMode};
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::timeout;
use websocket::{Endpoint, SpkiPin, Tls, dial};

/// Finding a server's addresses may take this long.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);

/// What happened on a connection to the controller.
pub(crate) enum StreamEvent {
    Opened,
    Message(Vec<u8>),
    Closed,
}

/// Opens a connection and carries messages until either side ends it.
pub(crate) async fn run_stream(
    connection: ConnectionId,
    server: &ServerAddress,
    path: String,
    mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
    events: &mpsc::Sender<(ConnectionId, StreamEvent)>,
) -> io::Result<()> {
    let endpoint = endpoint(server, path).await?;
    let websocket = dial(&endpoint).await.map_err(io::Error::other)?;
    let (mut sender, mut receiver) = websocket.split();
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    events.send((connection, StreamEvent::Opened)).await.map_err(gone)?;
    loop {
        tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => sender.send(message.into()).await.map_err(io::Error::other)?,
                None => {
                    sender.close().await;
                    return Ok(());
                }
            },
            message = receiver.receive() => match message.map_err(io::Error::other)? {
                Some(message) => {
                    let event = StreamEvent::Message(message.into());
                    events.send((connection, event)).await.map_err(gone)?;
                }
                None => return Ok(()),
            },
        }
    }
}

/// Where to dial: addresses are looked up where only a name is known.
pub(crate) async fn endpoint(server: &ServerAddress, path: String) -> io::Result<Endpoint> {
    let mut addresses: Vec<SocketAddr> = server.socket_addresses().collect();
    if addresses.is_empty() {
        let found = lookup_host((server.host.as_str(), server.port));
        let found = timeout(RESOLVE_DEADLINE, found).await;
        addresses.extend(found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??);
    }
    let host =
        if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
    Ok(Endpoint {
        addresses,
        host: format!("{host}:{}", server.port),
        tls: match server.tls {
            TlsMode::Plain => Tls::Plain,
            TlsMode::WebPki => Tls::WebPki,
            TlsMode::Pin(pin) => Tls::Pin(SpkiPin(pin)),
        },
        path,
        mark: None,
        detour: None,
    })
}

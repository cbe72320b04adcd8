//! The links of a relay to the other relays of a network.

use identity::{Attachment, Binding, CertificateChain, DeviceId, RelayEntry, Signed};
use noise_channel::{ClockOffset, Service, StaticSecret};
use rand_core::Rng as _;
use relay_proto::{ClientConfig, ConnectionId};
use tokio::sync::mpsc;
use tracing::debug;
use websocket::{WebSocket, dial};

use crate::secrets::Secrets;
use crate::streams::endpoint;
use crate::{Relay, clock};

/// A connection to another relay that is to be opened.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) connection: ConnectionId,
    pub(crate) relay: DeviceId,
    /// What that relay's clock asked for the last time.
    pub(crate) clock_offset: Option<ClockOffset>,
}

/// What a relay proves to another one.
pub(crate) struct Proofs<'p> {
    pub(crate) secrets: &'p Secrets,
    pub(crate) chain: CertificateChain,
    pub(crate) binding: Signed<Binding>,
    pub(crate) clock_offset: ClockOffset,
}

/// Opens what is to be opened for one network.
#[derive(Debug)]
pub(crate) struct Links {
    relay: Relay,
    dials: mpsc::UnboundedReceiver<Dial>,
    /// The number of the last attachment.
    number: u64,
}

impl Links {
    pub(crate) fn new(relay: Relay, secrets: &Secrets) -> Self {
        Self { dials: relay.dials(secrets.network), relay, number: 0 }
    }

    /// Waits for a connection that is to be opened.
    pub(crate) async fn next(&mut self) -> Dial {
        match self.dials.recv().await {
            Some(dial) => dial,
            // Another membership of the network has taken its place.
            None => std::future::pending().await,
        }
    }

    /// Says that a connection cannot be opened now.
    pub(crate) fn give_up(&self, dial: &Dial) {
        drop(self.relay.connection(dial.connection));
    }

    /// Opens a connection and serves it until it ends.
    pub(crate) fn open(&mut self, dial: &Dial, entry: &RelayEntry, proofs: Proofs<'_>) {
        let Proofs { secrets, chain, binding, clock_offset } = proofs;
        let wall = clock::now().wall.with_offset(clock_offset);
        // It rises from run to run as clocks do.
        self.number = wall.0.max(self.number + 1);
        let attachment = Attachment { relay: dial.relay, number: self.number };
        let mut nonce = [0; 16];
        clock::rng().fill_bytes(&mut nonce);
        let path_secret = &secrets.controller.path_secret;
        let config = ClientConfig {
            network: secrets.network,
            static_key: StaticSecret::from_bytes(*secrets.channel.to_bytes()),
            relay: dial.relay,
            relay_key: *entry.channel_key.as_bytes(),
            mask: path_secret.mask(Service::Relay, nonce),
            capability: control_proto::limits::CAPABILITY,
            clock_offset: dial.clock_offset.unwrap_or(clock_offset),
            chain,
            binding,
            attachment: Signed::sign(secrets.network, &secrets.device, &attachment),
            is_relay: true,
        };
        let connection = self.relay.connection(dial.connection);
        let (path, servers) = (path_secret.path(Service::Relay, nonce), entry.servers.clone());
        tokio::spawn(async move {
            match reach(&servers, &path).await {
                Some(websocket) => connection.serve_dialled(config, websocket).await,
                None => debug!(relay = %config.relay, "no connection to another relay"),
            }
        });
    }
}

/// A connection to the first server that is reached.
async fn reach(servers: &[identity::ServerAddress], path: &str) -> Option<WebSocket> {
    for server in servers {
        let opened = match endpoint(server, path.to_owned()).await {
            Ok(endpoint) => dial(&endpoint).await.map_err(std::io::Error::other),
            Err(error) => Err(error),
        };
        match opened {
            Ok(websocket) => return Some(websocket),
            Err(error) => debug!(%error, %server, "another relay is not reached"),
        }
    }
    None
}

//! Listening: limits, accept or reject.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    Front, ServerCertificate, WebSocket,
    transport::{self, Transport},
    upgrade::{self, Request, UpgradeError},
};

/// A client has this long for TLS and its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Writing an answer may take this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// So many connections may be before their request at a time; a further one displaces the oldest.
const MAX_PENDING: usize = 1024;
/// So many strangers may be reading what they are answered at a time; a further one gets no answer.
const MAX_REFUSALS: usize = 1024;
/// Without file descriptors there is no point in asking for a connection again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts WebSocket connections on one TCP port.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    front: Arc<Front>,
    refusals: Arc<Semaphore>,
    pending: JoinSet<Option<Upgrade>>,
    oldest_first: VecDeque<AbortHandle>,
}

impl Listener {
    /// Listens on an address, with TLS when there is a certificate. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        certificate: Option<ServerCertificate>,
    ) -> io::Result<Self> {
        let tls = certificate.map(ServerCertificate::into_config);
        let tcp = TcpListener::bind(address).await?;
        let (pending, oldest_first) = (JoinSet::new(), VecDeque::new());
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        Ok(Self { tcp, tls, front: Arc::default(), refusals, pending, oldest_first })
    }

    /// The same behind proxies, or with a page of its own.
    #[must_use]
    pub fn with_front(self, front: Front) -> Self {
        Self { front: Arc::new(front), ..self }
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// When the operating system does not know it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next client that asks for an upgrade. Everything else is answered and dropped here.
    ///
    /// Dropping the future loses nothing; connections proceed only while some call is waiting.
    pub async fn accept(&mut self) -> Upgrade {
        loop {
            tokio::select! {
                Some(done) = self.pending.join_next() => {
                    self.oldest_first.retain(|handle| !handle.is_finished());
                    if let Ok(Some(upgrade)) = done {
                        return upgrade;
                    }
                }
                connection = self.tcp.accept() => match connection {
                    Ok((tcp, remote)) => self.begin(tcp, remote),
                    Err(error) => {
                        warn!(%error, "cannot accept connections");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn begin(&mut self, tcp: TcpStream, remote: SocketAddr) {
        if self.pending.len() >= MAX_PENDING
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let (tls, front) = (self.tls.clone(), Arc::clone(&self.front));
        let refusals = Arc::clone(&self.refusals);
        let handle = self.pending.spawn(async move {
            match timeout(REQUEST_TIMEOUT, read_request(tcp, remote, tls, &front)).await {
                Ok(Ok(asked)) => asked.map(|(transport, request, remote)| Upgrade {
                    transport,
                    request,
                    remote,
                    front,
                    refusals,
                }),
                Ok(Err(error)) => {
                    debug!(%remote, %error, "no request");
                    None
                }
                Err(_) => {
                    debug!(%remote, "no request in time");
                    None
                }
            }
        });
        self.oldest_first.push_back(handle);
    }
}

/// The request of a client, and where that comes from; nothing if it does not ask for an upgrade.
async fn read_request(
    tcp: TcpStream,
    remote: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    front: &Front,
) -> Result<Option<(Transport, Request, SocketAddr)>, UpgradeError> {
    transport::prepare(&tcp)?;
    let mut transport = match tls {
        None => Transport::plain(tcp),
        Some(config) => Transport::accept_tls(tcp, config).await?,
    };
    match upgrade::read_request(&mut transport).await {
        Ok(Some(request)) => {
            let remote = front.client(remote, request.forwarded_for());
            Ok(Some((transport, request, remote)))
        }
        Ok(None) | Err(UpgradeError::Malformed) => {
            upgrade::reject(&mut transport, front).await?;
            Ok(None)
        }
        Err(error @ (UpgradeError::Io(_) | UpgradeError::Status(_))) => Err(error),
    }
}

/// A client that asks for a WebSocket and waits for the answer.
#[derive(Debug)]
pub struct Upgrade {
    transport: Transport,
    request: Request,
    remote: SocketAddr,
    front: Arc<Front>,
    refusals: Arc<Semaphore>,
}

impl Upgrade {
    /// The path that is asked for, with its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.request.path()
    }

    /// The address the client comes from: as proxies tell that are trusted, else that of the connection.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Makes it a WebSocket.
    ///
    /// # Errors
    /// When the answer cannot be written in time.
    pub async fn accept(mut self) -> io::Result<WebSocket> {
        timeout(ANSWER_TIMEOUT, upgrade::accept(&mut self.transport, &self.request))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(WebSocket::server(self.transport))
    }

    /// Answers as any web server does when there is nothing at a path, unless it does so a thousand times already.
    pub async fn reject_not_found(mut self) {
        let Ok(_turn) = self.refusals.try_acquire() else { return };
        // The client is of no interest to us any more, so neither is a failure to tell it.
        let _ = timeout(ANSWER_TIMEOUT, upgrade::reject(&mut self.transport, &self.front)).await;
    }
}

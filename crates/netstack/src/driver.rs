//! Starting the stack, the task that drives it, and the handle that everybody else has.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use crate::core::{Core, Turn};
use crate::{Resolve, ResolveError, TcpListener, TcpStream, UdpSocket};

/// Packets that wait in each direction between the engine and the stack.
const QUEUE: usize = 1024;
/// Packets taken from the engine before the sockets get their turn.
const BATCH: usize = 128;
/// Connections that wait for [`TcpListener::accept`].
const BACKLOG: usize = 128;
/// How long a peer may leave a SYN unanswered.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// The least that IPv6 allows (RFC 8200 section 5).
const MINIMUM_MTU: usize = 1280;

/// The userspace network stack; see the crate's documentation.
#[derive(Debug)]
pub struct Netstack;

/// The stack's side of the wire: raw IPv4 and IPv6 packets, one per buffer.
///
/// Dropping `to_stack` stops the stack.
#[derive(Debug)]
pub struct PacketChannel {
    /// Packets from the overlay to this device. Use `try_send` and drop when it is full.
    pub to_stack: mpsc::Sender<BytesMut>,
    /// Packets from this device to the overlay; `recv_many` takes a batch.
    pub from_stack: mpsc::Receiver<BytesMut>,
}

impl Netstack {
    /// Starts the stack on the current tokio runtime.
    ///
    /// `addresses` are the device's own (at most [`crate::MAX_ADDRESSES`]); `mtu` is that of the
    /// overlay, in bytes, and is raised to 1280 when it is less.
    pub fn start(
        addresses: &[IpAddr],
        mtu: usize,
        resolver: Arc<dyn Resolve>,
    ) -> io::Result<(NetstackHandle, PacketChannel)> {
        let (to_stack, inbound) = mpsc::channel(QUEUE);
        let (outbound, from_stack) = mpsc::channel(QUEUE);
        let seed = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let mut core = Core::new(mtu.max(MINIMUM_MTU), outbound.clone(), seed, Instant::now());
        core.set_addresses(addresses);
        let shared = Arc::new(Shared { core: Mutex::new(core), work: Notify::new() });
        tokio::spawn(drive(Arc::clone(&shared), inbound, outbound));
        Ok((NetstackHandle { shared, resolver }, PacketChannel { to_stack, from_stack }))
    }
}

/// The stack and the bell that wakes its driver.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Mutex<Core>,
    work: Notify,
}

impl Shared {
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake_driver(&self) {
        self.work.notify_one();
    }
}

async fn drive(
    shared: Arc<Shared>,
    mut inbound: mpsc::Receiver<BytesMut>,
    outbound: mpsc::Sender<BytesMut>,
) {
    let mut arrived = Vec::with_capacity(BATCH);
    let mut timer = pin!(sleep_until(Instant::now()));
    loop {
        let Turn { blocked, deadline } = take_turn(&shared, &mut arrived);
        let timed = deadline.is_some() && !blocked;
        if let Some(deadline) = deadline.filter(|_| timed) {
            timer.as_mut().reset(deadline);
        }
        tokio::select! {
            count = inbound.recv_many(&mut arrived, BATCH) => {
                if count == 0 {
                    break;
                }
            }
            () = shared.work.notified() => {}
            room = outbound.reserve(), if blocked => {
                if room.is_err() {
                    break;
                }
            }
            () = &mut timer, if timed => {}
        }
    }
    let mut core = shared.core();
    core.stop();
    core.turn(Instant::now());
}

fn take_turn(shared: &Shared, arrived: &mut Vec<BytesMut>) -> Turn {
    let mut core = shared.core();
    for packet in arrived.drain(..) {
        core.arrive(packet);
    }
    core.turn(Instant::now())
}

/// Opens sockets on a running stack; cheap to clone.
#[derive(Clone)]
pub struct NetstackHandle {
    shared: Arc<Shared>,
    resolver: Arc<dyn Resolve>,
}

impl std::fmt::Debug for NetstackHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetstackHandle").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl NetstackHandle {
    /// Connects to an overlay address and waits until the peer has accepted.
    pub async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
        if !self.resolver.reaches(remote.ip()) {
            return Err(ConnectError::Outside);
        }
        let handle = self.shared.core().connect(remote)?;
        let stream = TcpStream::new(Arc::clone(&self.shared), handle);
        self.shared.wake_driver();
        match timeout(CONNECT_DEADLINE, stream.established()).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(error)) => Err(error.into()),
            Err(_elapsed) => Err(ConnectError::TimedOut),
        }
    }

    /// Resolves `host` (a name of the overlay or an address) and connects to the first of its
    /// addresses that answers.
    pub async fn connect_host(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let mut outcome = Err(ConnectError::Name(ResolveError::NotFound));
        for address in self.addresses_of(host).await? {
            outcome = self.connect(SocketAddr::new(address, port)).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The overlay addresses of `host`, which may be an address itself.
    pub async fn addresses_of(&self, host: &str) -> Result<Vec<IpAddr>, ConnectError> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            if !self.resolver.reaches(address) {
                return Err(ConnectError::Outside);
            }
            return Ok(vec![address]);
        }
        let mut addresses = self.resolver.resolve(host).await?;
        addresses.retain(|&address| self.resolver.reaches(address));
        if addresses.is_empty() {
            return Err(ConnectError::Name(ResolveError::NotFound));
        }
        Ok(addresses)
    }

    /// Accepts connections to `port` on all of the device's addresses.
    pub fn listen(&self, port: u16) -> io::Result<TcpListener> {
        let (queue, incoming) = mpsc::channel(BACKLOG);
        self.shared.core().listen(port, queue)?;
        Ok(TcpListener::new(Arc::clone(&self.shared), port, incoming))
    }

    /// Opens a UDP socket on `port` of all of the device's addresses; 0 takes a free port.
    pub fn bind_udp(&self, port: u16) -> io::Result<UdpSocket> {
        let (handle, port) = self.shared.core().bind_udp(port)?;
        Ok(UdpSocket::new(Arc::clone(&self.shared), handle, port))
    }

    /// Whether the overlay contains `address`.
    #[must_use]
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.resolver.reaches(address)
    }

    /// The device's own addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.shared.core().addresses().to_vec()
    }

    /// Replaces the device's own addresses; connections that used one that is gone end.
    pub fn set_addresses(&self, addresses: &[IpAddr]) {
        self.shared.core().set_addresses(addresses);
        self.shared.wake_driver();
    }

    /// TCP connections that exist now, those that are opening or closing included.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.shared.core().connection_count()
    }
}

/// Why a connection was not made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address does not belong to the overlay.
    #[error("the address is outside the private network")]
    Outside,
    /// The name has no address.
    #[error(transparent)]
    Name(#[from] ResolveError),
    /// The peer did not answer.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// The peer refused, or the stack could not open the socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

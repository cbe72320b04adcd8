//! The relay: its machines, and how the tasks around them wake each other.

mod connection;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::available_parallelism;
use std::time::Instant;

use control_proto::limits::CAPABILITY;
use identity::{CertificateChain, DeviceId, NetworkId, Padding, Revocations, Shaping};
use noise_channel::{ClockOffset, Now};
use platform::{UdpSocket, Worker};
use relay_proto::{
    Circuits, ConnectionId, Limits, LoadReport, RelayNetwork, RelayServer, ServerEvent,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};
use websocket::{Listener, Upgrade};

use self::connection::{Connection, Writer, handle};
use crate::cpu::CpuMeter;
use crate::mesh::Dial;
use crate::udp::{SharedCircuits, bind, lock, serve};
use crate::{Capture, clock};

/// What a relay is made of.
#[derive(Debug, Clone, Default)]
pub struct RelayConfig {
    /// What clients get.
    pub limits: Limits,
    /// Where STUN is answered and datagrams are passed on; port 0 takes a free one.
    pub stun: Vec<SocketAddr>,
    /// Where it is answered too, if that can be had: a second port shows devices whether a translator gives
    /// each destination a port of its own.
    pub more_stun: Vec<SocketAddr>,
    /// Keeps what arrives, if wished.
    pub capture: Option<Capture>,
}

/// A running relay; clones are handles to the same one, which stops when the last is dropped.
#[derive(Debug, Clone)]
pub struct Relay {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    stun: Arc<[SocketAddr]>,
    _udp: Arc<Worker>,
}

impl Relay {
    /// Starts a relay that serves no network yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When an address for STUN cannot be bound.
    pub fn start(config: RelayConfig) -> io::Result<Self> {
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        let mut tasks = Tasks::default();
        let more = config.more_stun.into_iter().map(|address| (address, true));
        for (address, may_fail) in
            config.stun.into_iter().map(|address| (address, false)).chain(more)
        {
            let bound = match bind(address) {
                Err(error) if may_fail => {
                    info!(%address, %error, "no STUN at this address");
                    continue;
                }
                bound => bound?,
            };
            addresses.extend(bound.first().map(UdpSocket::local_address));
            sockets.extend(bound);
        }
        let shared = Arc::new(Shared::new(config.limits, config.capture));
        let udp = Arc::new(serve(sockets, Arc::clone(&shared.circuits))?);
        tasks.spawn(run_timers(Arc::downgrade(&shared), Arc::clone(&shared.timer)));
        Ok(Self { shared, tasks: Arc::new(tasks), stun: addresses.into(), _udp: udp })
    }

    /// Accepts connections of a listener that nobody else needs, until the last handle is dropped.
    pub fn listen(&self, mut listener: Listener) {
        let shared = Arc::downgrade(&self.shared);
        self.tasks.spawn_shared(async move {
            loop {
                let upgrade = listener.accept().await;
                let Some(shared) = shared.upgrade() else { return };
                tokio::spawn(handle(shared, upgrade));
            }
        });
    }

    /// Whether a request path is for this relay. Nobody without the network's path secret can make
    /// one, or tell it from one that is not.
    #[must_use]
    pub fn claims(&self, path: &str) -> bool {
        self.shared.server().recognise(path).is_some()
    }

    /// Serves a connection until it ends. A path that is not ours is answered like any other unknown
    /// one.
    pub async fn handle(&self, upgrade: Upgrade) {
        handle(Arc::clone(&self.shared), upgrade).await;
    }

    /// Serves a network from now on, or serves it with other keys.
    pub fn add_network(&self, network: RelayNetwork) {
        self.shared.drive(|server, _| server.add_network(network));
    }

    /// Serves a network no longer; its members are detached.
    pub fn remove_network(&self, network: NetworkId) {
        self.shared.drive(|server, now| server.remove_network(network, now));
        lock(&self.shared.circuits).forget(network);
        self.shared.cpu().remove(&network);
    }

    /// Takes note of what a network taught about the relay's clock.
    pub fn set_clock_offset(&self, network: NetworkId, offset: ClockOffset) {
        self.shared.drive(|server, _| server.set_clock_offset(network, offset));
    }

    /// Fills messages up as a network wishes.
    pub fn set_padding(&self, network: NetworkId, padding: Padding) {
        self.shared.drive(|server, _| server.set_padding(network, padding));
    }

    /// Has messages leave when a network wishes it; machines that cannot be run are none.
    pub fn set_shaping(&self, network: NetworkId, shaping: &Shaping) {
        let set = self.shared.drive(|server, now| {
            server.set_shaping(network, shaping, &mut clock::rng(), now.instant)
        });
        if let Err(error) = set {
            warn!(%network, %error, "messages leave as soon as they can");
        }
    }

    /// Takes note of who is no member any more; they are detached at once.
    pub fn set_revocations(&self, network: NetworkId, revocations: &Revocations) {
        self.shared.drive(|server, now| server.set_revocations(network, revocations, now));
        lock(&self.shared.circuits).set_revocations(network, revocations);
    }

    /// Takes note of the numbers of members' bindings, so that none attaches by an older one.
    pub fn set_bindings(
        &self,
        network: NetworkId,
        numbers: impl IntoIterator<Item = (DeviceId, u64)>,
    ) {
        self.shared.drive(|server, _| server.set_bindings(network, numbers));
    }

    /// Takes note of a network's relays, to keep links to others and hand frames on to where their receivers are.
    pub fn set_relays(&self, network: NetworkId, relays: impl IntoIterator<Item = DeviceId>) {
        self.shared.drive(|server, now| server.set_relays(network, relays, now));
    }

    /// How many other relays of a network can be reached, and how many devices are attached to them.
    pub(crate) fn reach(&self, network: NetworkId) -> (usize, usize) {
        self.shared.server().reach(network)
    }

    /// Has other relays go round this one, or no longer.
    pub(crate) fn set_draining(&self, network: NetworkId, draining: bool) {
        self.shared.drive(|server, _| server.set_draining(network, draining));
    }

    /// Shows other relays a renewed membership.
    pub(crate) fn renew(&self, network: NetworkId, chain: &CertificateChain) {
        self.shared.drive(|server, now| server.renew(network, chain, now.instant));
    }

    /// What is to be dialled for a network from now on.
    pub(crate) fn dials(&self, network: NetworkId) -> mpsc::UnboundedReceiver<Dial> {
        let (sender, dials) = mpsc::unbounded_channel();
        self.shared.dials().insert(network, sender);
        dials
    }

    /// A connection that is to be dialled; the machine forgets it when it is dropped.
    pub(crate) fn connection(&self, id: ConnectionId) -> Connection {
        Connection { shared: Arc::clone(&self.shared), id, writer: Arc::default() }
    }

    /// The devices of a network that are attached now.
    #[must_use]
    pub fn attached(&self, network: NetworkId) -> Vec<DeviceId> {
        self.shared.server().attached(network).collect()
    }

    /// A network's load since the last call, for reports every
    /// [`control_proto::limits::LOAD_REPORT_INTERVAL`]; processor use is that of the whole process.
    #[must_use]
    pub fn take_load(&self, network: NetworkId) -> LoadReport {
        let used = {
            let mut meters = self.shared.cpu();
            meters.entry(network).or_insert(self.shared.started).take_permille()
        };
        let passed_on = lock(&self.shared.circuits).take_forwarded(network);
        let mut load = self.shared.server().report_load(network, used);
        load.bytes_received += passed_on;
        load.bytes_forwarded += passed_on;
        load
    }

    /// How much of what this relay can serve is in use, in thousandths: of the processors, or of the connections that it may
    /// have, whichever is more.
    pub(crate) fn busy_permille(&self, cpu_permille: u32) -> u32 {
        let cores = available_parallelism().map_or(1, |cores| cores.get());
        let computing = cpu_permille / u32::try_from(cores).unwrap_or(u32::MAX);
        computing.max(self.shared.server().crowding_permille())
    }

    /// Bytes of a network that were forwarded since [`Self::take_load`].
    pub(crate) fn forwarded(&self, network: NetworkId) -> u64 {
        let passed_on = lock(&self.shared.circuits).forwarded(network);
        self.shared.server().forwarded(network) + passed_on
    }

    /// Where STUN is answered, in the order of the configuration.
    #[must_use]
    pub fn stun_addresses(&self) -> &[SocketAddr] {
        &self.stun
    }
}

/// Background tasks that end with the last handle.
#[derive(Debug, Default)]
struct Tasks {
    handles: Mutex<Vec<AbortHandle>>,
}

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_shared(task);
    }

    fn spawn_shared(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task).abort_handle();
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for handle in self.handles.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            handle.abort();
        }
    }
}

/// The machine, and how the tasks wake each other.
#[derive(Debug)]
struct Shared {
    server: Mutex<RelayServer>,
    circuits: SharedCircuits,
    writers: Mutex<BTreeMap<ConnectionId, Arc<Writer>>>,
    /// Who opens connections to other relays.
    dials: Mutex<BTreeMap<NetworkId, mpsc::UnboundedSender<Dial>>>,
    timer: Arc<Timer>,
    capture: Option<Capture>,
    started: CpuMeter,
    /// Each network's reports have their own intervals.
    cpu: Mutex<BTreeMap<NetworkId, CpuMeter>>,
}

/// When the timer task wakes, and how it is told of an earlier time.
#[derive(Debug, Default)]
struct Timer {
    armed: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Shared {
    fn new(limits: Limits, capture: Option<Capture>) -> Self {
        Self {
            server: Mutex::new(RelayServer::new(CAPABILITY, limits)),
            circuits: Arc::new(Mutex::new(Circuits::new(
                (limits.circuits, limits.bytes),
                &mut clock::rng(),
                Instant::now(),
            ))),
            writers: Mutex::default(),
            dials: Mutex::default(),
            timer: Arc::default(),
            capture,
            started: CpuMeter::start(),
            cpu: Mutex::default(),
        }
    }

    fn server(&self) -> MutexGuard<'_, RelayServer> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dials(&self) -> MutexGuard<'_, BTreeMap<NetworkId, mpsc::UnboundedSender<Dial>>> {
        self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cpu(&self) -> MutexGuard<'_, BTreeMap<NetworkId, CpuMeter>> {
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self, id: ConnectionId) -> Option<Arc<Writer>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Lets the machine do something, then wakes whom it concerns.
    fn drive<T>(&self, act: impl FnOnce(&mut RelayServer, Now) -> T) -> T {
        let mut server = self.server();
        let result = act(&mut server, clock::now());
        let mut ready = Vec::new();
        while let Some(id) = server.poll_ready() {
            ready.push(id);
        }
        let mut events = Vec::new();
        while let Some(event) = server.poll_event() {
            events.push(event);
        }
        let next = server.poll_timeout().map(|(at, _)| at);
        drop(server);
        for event in events {
            self.handle_event(&event);
        }
        for writer in ready.into_iter().filter_map(|id| self.writer(id)) {
            writer.ready.notify_one();
        }
        self.timer.arm(next);
        result
    }

    fn handle_event(&self, event: &ServerEvent) {
        match event {
            ServerEvent::Attached { network, device, .. } => {
                lock(&self.circuits).admit(*network, *device);
                debug!(%network, %device, "device attached");
            }
            ServerEvent::Expelled { network, device } => {
                lock(&self.circuits).expel(*network, *device);
            }
            ServerEvent::Detached { network, device } => {
                debug!(%network, %device, "device detached");
            }
            ServerEvent::Misdirected { network, device } => {
                debug!(%network, %device, "a frame for somebody else");
            }
            ServerEvent::CircuitWanted { connection, network, device, peer } => {
                let now = Instant::now();
                let ends = [*device, *peer];
                let offer = lock(&self.circuits).open(*network, ends, &mut clock::rng(), now);
                self.drive(|server, now| {
                    server.answer_circuit(*connection, (*peer, offer.as_ref()), now.instant);
                });
            }
            ServerEvent::Dial { connection, network, relay, clock_offset } => {
                let (connection, relay, clock_offset) = (*connection, *relay, *clock_offset);
                let dial = Dial { connection, relay, clock_offset };
                let is_taken =
                    self.dials().get(network).is_some_and(|dials| dials.send(dial).is_ok());
                if !is_taken {
                    self.drive(|server, now| server.handle_closed(connection, now.instant));
                }
            }
            ServerEvent::Close { connection, reason } => {
                info!(?connection, %reason, "closing a connection");
                if let Some(writer) = self.writer(*connection) {
                    writer.closing.store(true, Ordering::Release);
                    writer.ready.notify_one();
                    writer.close.notify_one();
                }
            }
        }
    }
}

impl Timer {
    fn arm(&self, next: Option<Instant>) {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = match (*armed, next) {
            (Some(armed), Some(next)) => next < armed,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if earlier {
            *armed = next;
            self.changed.notify_one();
        }
    }

    fn take(&self) -> Option<Instant> {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clear(&self) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

async fn run_timers(shared: Weak<Shared>, timer: Arc<Timer>) {
    loop {
        match timer.take() {
            Some(at) => tokio::select! {
                () = sleep_until(at.into()) => {}
                () = timer.changed.notified() => continue,
            },
            None => {
                timer.changed.notified().await;
                continue;
            }
        }
        let Some(shared) = shared.upgrade() else { return };
        timer.clear();
        shared.drive(|server, now| server.handle_timeout(&mut clock::rng(), now));
    }
}

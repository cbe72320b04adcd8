//! The node: all networks of a device, and its local API.
//!
//! | file | what |
//! |---|---|
//! | `mod` | starting and stopping |
//! | `requests` | what the local API asks |

mod requests;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use engine::EngineConfig;
use identity::{Invite, NetworkId};
use keystore::Keystore;
use local_api::{BindError, OwnerListener};
use noise_channel::PathSecret;
use platform::{Queues, TunError, journal::Journal, process};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::{self, JoinError, JoinHandle, JoinSet},
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    Clock, Mode, NodeSettings, StartError,
    api::{self, ApiError, Command, Event, Problem, Reply, Running},
    directory::Directory,
    door::{Door, Listening},
    host::HostPlan,
    interface::Interface,
    mark::Mark,
    memory::{self, Place},
    names::Names,
    network::{Ended, Network, NetworkCommand, NetworkParts, NodeSide, Note},
    settings::SMALLEST_MTU,
    udp::Sockets,
    underlay::Lookout,
    userspace::Userspace,
};

/// Requests of the local API that wait.
const COMMANDS: usize = 16;
/// Events that a slow listener may lag behind.
const EVENTS: usize = 256;
/// Where a node writes what it changes on the host, beside its socket.
pub const JOURNAL: &str = "node.journal";
/// How often it is made sure that the system still asks our resolver: a DHCP client may replace it.
const NAMES_INTERVAL: Duration = Duration::from_secs(10);
/// At the end, answers under way have this long.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a node starts with.
#[derive(Debug)]
pub struct NodeConfig {
    /// Where keys and state are kept.
    pub keys: Arc<dyn Keystore>,
    /// Where the local API listens.
    pub socket: PathBuf,
    /// Everything that may be set.
    pub settings: NodeSettings,
    /// The program's version, for `status`.
    pub version: String,
    /// The time of day.
    pub clock: Clock,
    /// Where peers may come by streams of their own, if they may.
    pub listening: Option<Listening>,
}

/// All networks of a device.
///
/// [`Node::start`] takes every port and reads every key, so that what is in the way shows at once;
/// [`Node::run`] then works until it is told to stop.
pub struct Node {
    config: NodeConfig,
    userspace: Option<Userspace>,
    running: Running,
    names: Option<Names>,
    lookout: Lookout,
    directory: Directory,
    door: Option<Door>,
    networks: BTreeMap<NetworkId, Entry>,
    tasks: JoinSet<(NetworkId, Ended)>,
    events: broadcast::Sender<Event>,
    commands: mpsc::Receiver<Command>,
    notes: mpsc::UnboundedReceiver<Note>,
    note_sender: mpsc::UnboundedSender<Note>,
    api: JoinHandle<()>,
    stop_api: oneshot::Sender<()>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("socket", &self.config.socket)
            .field("networks", &self.networks.len())
            .finish_non_exhaustive()
    }
}

struct Entry {
    name: String,
    /// Numbers the interfaces; the first network has 0.
    slot: u16,
    commands: mpsc::Sender<NetworkCommand>,
    task: task::Id,
    /// Who wants to hear that the network was left.
    leaving: Vec<Reply<()>>,
}

impl Node {
    /// Takes the ports, reads the keys and starts every network that was joined before. The local API
    /// answers once [`Self::run`] runs.
    ///
    /// # Errors
    /// When something on this host is in the way.
    pub async fn start(mut config: NodeConfig) -> Result<Self, StartError> {
        let listener = OwnerListener::bind(&config.socket).await.map_err(|error| match error {
            BindError::InUse(path) => StartError::AlreadyRunning(path),
            other @ (BindError::Io { .. } | _) => StartError::Socket(other.to_string()),
        })?;
        let places = memory::places(config.keys.as_ref())
            .map_err(|error| StartError::Keys(error.to_string()))?;
        let mark = Mark::permitted(config.settings.mark);
        let directory = Directory::new(mark, config.settings.proxy_rule());
        if config.settings.mtu < SMALLEST_MTU {
            return Err(StartError::Mtu(config.settings.mtu));
        }
        let running = choose(&config.settings)?;
        let journal = open_journal(&config);
        let (userspace, names) = match running {
            Running::Tun => (None, start_names(&config, journal, &directory).await),
            Running::Userspace | Running::UserspaceWithoutPrivilege => {
                (Some(Userspace::start(&config.settings, &directory).await?), None)
            }
        };
        let settings = &config.settings;
        if running == Running::Tun && !(settings.forwards.is_empty() && settings.publish.is_empty())
        {
            warn!("published ports and forwards are for userspace mode, and do nothing here");
        }
        let door = config.listening.take().map(Door::open).transpose();
        let door = door.map_err(|error| StartError::Socket(error.to_string()))?;
        let (events, _) = broadcast::channel(EVENTS);
        let (command_sender, commands) = mpsc::channel(COMMANDS);
        let (note_sender, notes) = mpsc::unbounded_channel();
        let (stop_api, stop) = oneshot::channel();
        let api = tokio::spawn(api::serve(listener, command_sender, events.clone(), stop));
        let mut node = Self {
            config,
            userspace,
            running,
            names,
            lookout: Lookout::start(directory.clone()),
            directory,
            door,
            networks: BTreeMap::new(),
            tasks: JoinSet::new(),
            events,
            commands,
            notes,
            note_sender,
            api,
            stop_api,
        };
        for place in places {
            node.start_network(place)?;
        }
        Ok(node)
    }

    /// Whether it is in no network yet.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.networks.is_empty()
    }

    /// Works until `stop` is ready or the local API says so; then leaves the host as it was.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut names_due = tokio::time::interval(NAMES_INTERVAL);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = names_due.tick(), if self.names.is_some() => {
                    self.names.iter_mut().for_each(Names::keep);
                }
                Some(command) = self.commands.recv() => {
                    if let Command::Down(reply) = command {
                        answer(reply, Ok(()));
                        break;
                    }
                    self.handle(command);
                }
                Some(note) = self.notes.recv() => self.handle_note(note).await,
                Some(ended) = self.tasks.join_next() => self.handle_ended(ended),
            }
        }
        // Without senders of commands the loops end.
        self.networks.clear();
        while let Some(ended) = self.tasks.join_next().await {
            self.handle_ended(ended);
        }
        if let Some(names) = self.names {
            names.stop().await;
        }
        // A listener of events never ends by itself.
        let _ = self.stop_api.send(());
        let _ = timeout(GOODBYE_TIMEOUT, self.api).await;
        info!("stopped");
    }

    fn start_network(&mut self, place: Place) -> Result<(), StartError> {
        let id = place.network();
        let name = place.invite.network_name.to_string();
        let slot = (0..).find(|slot| self.networks.values().all(|entry| entry.slot != *slot));
        let slot = slot.expect("there are fewer networks than numbers");
        let host = self.plan_host(slot, id)?;
        let saved = memory::load_state(self.config.keys.as_ref(), id)
            .map_err(|error| StartError::Keys(error.to_string()))?;
        let loopback = only_loopback(&place.invite);
        let config = EngineConfig {
            invite: place.invite,
            name: place.name,
            secrets: place.secrets,
            saved,
            udp: self.config.settings.udp,
            loopback,
            turn: self.config.settings.turn.clone(),
            mtu: self.largest_packets().into(),
            has_aes: engine::has_aes(),
        };
        let door = self.door.as_ref().map(|door| {
            let secret = PathSecret::from_bytes(*config.invite.path_secret.0);
            (door.place(), door.serve(id, secret))
        });
        let (sender, commands) = mpsc::channel(COMMANDS);
        let node = NodeSide {
            keys: Arc::clone(&self.config.keys),
            directory: self.directory.clone(),
            events: self.events.clone(),
            notes: self.note_sender.clone(),
        };
        let network = Network::new(NetworkParts {
            config,
            clock: self.config.clock,
            host,
            surroundings: self.lookout.surroundings(),
            port_mapping: self.config.settings.port_mapping,
            node,
            commands,
            door,
        })
        .map_err(StartError::Interface)?;
        info!(network = name, "starting");
        let task = self.tasks.spawn(async move { (id, network.run().await) }).id();
        let entry = Entry { name, slot, commands: sender, task, leaving: Vec::new() };
        self.networks.insert(id, entry);
        Ok(())
    }

    fn plan_host(&self, slot: u16, network: NetworkId) -> Result<HostPlan, StartError> {
        let settings = &self.config.settings;
        let port = if slot == 0 { settings.listen_port } else { 0 };
        let sockets = |threads| match settings.udp {
            true => self.bind_udp(port, network, threads),
            false => Ok(Sockets::none()),
        };
        if let Some(userspace) = &self.userspace {
            return Ok(HostPlan::userspace(userspace, sockets(1)?));
        }
        let number = if slot == 0 { String::new() } else { slot.to_string() };
        let name = format!("{}{number}", settings.interface);
        let (mtu, threads) = (settings.mtu.into(), settings.data_threads.number());
        let queues = threads * Queues::PER_THREAD;
        let interface = Interface::open(&name, &settings.tun_path, mtu, queues)?;
        let given = interface.queues().own().len();
        if given < threads {
            warn!(interface = name, queues = given, threads, "a data thread has no queue");
        }
        let threads = threads.min(given);
        Ok(HostPlan::Tun { sockets: sockets(threads)?, interface, threads })
    }

    /// The MTU of networks' interfaces. The userspace stack does not act upon what is said of packets that are too big.
    fn largest_packets(&self) -> u16 {
        match self.userspace {
            Some(_) => SMALLEST_MTU,
            None => self.config.settings.mtu,
        }
    }

    /// A free port stays the same from run to run where it can: peers and plain WireGuard peers find
    /// the device again, and what a firewall lets through goes on to fit.
    fn bind_udp(
        &self,
        port: u16,
        network: NetworkId,
        threads: usize,
    ) -> Result<Sockets, StartError> {
        let keys = self.config.keys.as_ref();
        let mark = self.directory.mark().number().unwrap_or(0);
        let before = memory::load_port(keys, network).filter(|_| port == 0);
        if let Some(sockets) = before.and_then(|before| Sockets::bind(before, mark, threads).ok()) {
            return Ok(sockets);
        }
        let failed = |source| StartError::Udp { port, source };
        let sockets = Sockets::bind(port, mark, threads).map_err(failed)?;
        if let Some(bound) = sockets.port().filter(|_| port == 0)
            && let Err(error) = memory::store_port(keys, network, bound)
        {
            warn!(%error, "the UDP port is not remembered for the next start");
        }
        Ok(sockets)
    }

    async fn handle_note(&mut self, note: Note) {
        match note {
            Note::Configured { network, interface } => {
                if let Some(names) = &mut self.names {
                    names.install(network, interface).await;
                }
            }
        }
    }

    /// Tidies up after a network; when the device is no member any more its keys are erased.
    fn handle_ended(&mut self, ended: Result<(NetworkId, Ended), JoinError>) {
        let (network, ended) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                warn!(%error, "a network's loop failed");
                return self.networks.retain(|_, entry| entry.task != error.id());
            }
        };
        let forgotten = match ended {
            Ended::Stopped => Ok(()),
            Ended::Removed => self.forget(network),
        };
        let entry = self.networks.remove(&network);
        if let Some(door) = &self.door {
            door.forget(network);
        }
        for reply in entry.into_iter().flat_map(|entry| entry.leaving) {
            answer(reply, forgotten.clone());
        }
        if let Some(names) = &mut self.names {
            names.remove(network);
        }
        for entry in self.networks.values() {
            // A loop whose queue is full is told by the next change.
            let _ = entry.commands.try_send(NetworkCommand::Arrange);
        }
    }

    fn forget(&self, network: NetworkId) -> Result<(), ApiError> {
        memory::forget(self.config.keys.as_ref(), network).map_err(|error| {
            warn!(%error, "cannot erase a network's keys");
            ApiError { problem: Problem::System, message: error.to_string() }
        })
    }
}

/// TUN or userspace, by settings and privileges.
fn choose(settings: &NodeSettings) -> Result<Running, StartError> {
    let privileged = process::may_administer_network();
    match settings.mode {
        Mode::Userspace => Ok(Running::Userspace),
        Mode::Tun if !privileged => Err(TunError::NoPermission.into()),
        Mode::Tun if !settings.tun_path.exists() => {
            Err(TunError::MissingDevice(settings.tun_path.clone()).into())
        }
        Mode::Tun => Ok(Running::Tun),
        Mode::Auto if privileged && settings.tun_path.exists() => Ok(Running::Tun),
        Mode::Auto => Ok(Running::UserspaceWithoutPrivilege),
    }
}

/// Undoes what a crash left behind, whatever this run is going to change itself.
fn open_journal(config: &NodeConfig) -> Option<Journal> {
    match Journal::open(&config.socket.with_file_name(JOURNAL)) {
        Ok(journal) => Some(journal),
        Err(error) => {
            warn!(%error, "what an earlier run changed on this host cannot be undone yet");
            None
        }
    }
}

/// The system's resolver, if it is to be changed; without it addresses still work.
async fn start_names(
    config: &NodeConfig,
    journal: Option<Journal>,
    directory: &Directory,
) -> Option<Names> {
    let journal = journal.filter(|_| config.settings.dns)?;
    match Names::start(journal, directory.dns()).await {
        Ok(names) => Some(names),
        Err(error) => {
            warn!(%error, "names are not served on this host");
            None
        }
    }
}

fn answer<T>(reply: Reply<T>, value: Result<T, ApiError>) {
    // Whoever asked may have gone away.
    drop(reply.send(value));
}

/// Whether the whole network is on this machine, so that peers are reached over loopback too.
fn only_loopback(invite: &Invite) -> bool {
    let mut addresses =
        invite.controllers.iter().flat_map(|server| server.socket_addresses()).peekable();
    addresses.peek().is_some() && addresses.all(|address| address.ip().is_loopback())
}

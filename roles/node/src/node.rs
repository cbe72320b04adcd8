//! The node: all networks of a device, and its local API.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use engine::EngineConfig;
use getrandom::SysRng;
use identity::{DeviceName, Invite, NetworkId};
use keystore::Keystore;
use local_api::{BindError, OwnerListener};
use platform::{TunError, process};
use rand_core::UnwrapErr;
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    Clock, Mode, NodeSettings, StartError,
    api::{
        self, ApiError, Command, Event, Joined, Netcheck, PingReply, PingRequest, Problem, Reply,
        Running, Status, Why,
    },
    directory::Directory,
    host::HostPlan,
    interface::Interface,
    join::Applicant,
    mark::Mark,
    memory::{self, Place},
    names::Names,
    network::{Network, NetworkCommand, NetworkParts, Note, ask, not_found, stopping},
    udp::Sockets,
    underlay::Lookout,
    userspace::Userspace,
};

/// Requests of the local API that wait.
const COMMANDS: usize = 16;
/// Events that a slow listener may lag behind.
const EVENTS: usize = 256;
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
    networks: BTreeMap<NetworkId, Entry>,
    tasks: JoinSet<NetworkId>,
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
}

impl Node {
    /// Takes the ports, reads the keys and starts every network that was joined before. The local API
    /// answers once [`Self::run`] runs.
    ///
    /// # Errors
    /// When something on this host is in the way.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let listener = OwnerListener::bind(&config.socket).await.map_err(|error| match error {
            BindError::InUse(path) => StartError::AlreadyRunning(path),
            other @ (BindError::Io { .. } | _) => StartError::Socket(other.to_string()),
        })?;
        let places = memory::places(config.keys.as_ref())
            .map_err(|error| StartError::Keys(error.to_string()))?;
        let directory = Directory::new(Mark::permitted(config.settings.mark));
        let running = choose(&config.settings)?;
        let (userspace, names) = match running {
            Running::Tun => (None, start_names(&config, &directory).await),
            Running::Userspace | Running::UserspaceWithoutPrivilege => {
                (Some(Userspace::start(&config.settings, &directory).await?), None)
            }
        };
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

    /// Works until `stop` is ready or the local API says so; then leaves the host as it was.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(command) = self.commands.recv() => {
                    if let Command::Down(reply) = command {
                        answer(reply, Ok(()));
                        break;
                    }
                    self.handle(command);
                }
                Some(note) = self.notes.recv() => self.handle_note(note).await,
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(network) => drop(self.networks.remove(&network)),
                    Err(error) => warn!(%error, "a network's loop failed"),
                },
            }
        }
        self.networks.clear();
        while self.tasks.join_next().await.is_some() {}
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
        let host = self.plan_host(slot)?;
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
            mtu: usize::from(self.config.settings.mtu),
        };
        let (sender, commands) = mpsc::channel(COMMANDS);
        let network = Network::new(NetworkParts {
            config,
            clock: self.config.clock,
            host,
            keys: Arc::clone(&self.config.keys),
            directory: self.directory.clone(),
            surroundings: self.lookout.surroundings(),
            events: self.events.clone(),
            commands,
            notes: self.note_sender.clone(),
        })
        .map_err(StartError::Interface)?;
        info!(network = name, "starting");
        self.networks.insert(id, Entry { name, slot, commands: sender });
        self.tasks.spawn(async move {
            network.run().await;
            id
        });
        Ok(())
    }

    fn plan_host(&self, slot: u16) -> Result<HostPlan, StartError> {
        let settings = &self.config.settings;
        let port = if slot == 0 { settings.listen_port } else { 0 };
        let sockets = if settings.udp {
            let failed = |source| StartError::Udp { port, source };
            Sockets::bind(port, self.directory.mark().number().unwrap_or(0)).map_err(failed)?
        } else {
            Sockets::none()
        };
        if let Some(userspace) = &self.userspace {
            return Ok(HostPlan::userspace(userspace, sockets));
        }
        let number = if slot == 0 { String::new() } else { slot.to_string() };
        let name = format!("{}{number}", settings.interface);
        let interface = Interface::open(&name, &settings.tun_path, u32::from(settings.mtu))?;
        Ok(HostPlan::Tun { interface, sockets })
    }

    async fn handle_note(&mut self, note: Note) {
        match note {
            Note::Configured { network, interface } => {
                if let Some(names) = &mut self.names {
                    names.install(network, interface).await;
                }
            }
            Note::Forget { network, reply } => self.forget_network(network, reply),
        }
    }

    fn forget_network(&mut self, network: NetworkId, reply: Option<Reply<()>>) {
        self.networks.remove(&network);
        let forgotten = memory::forget(self.config.keys.as_ref(), network).map_err(|error| {
            warn!(%error, "cannot forget a network");
            ApiError { problem: Problem::System, message: error.to_string() }
        });
        if let Some(reply) = reply {
            answer(reply, forgotten);
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Status(reply) => self.status(reply),
            Command::Netcheck(reply) => self.netcheck(reply),
            Command::Why(peer, reply) => self.why(peer, reply),
            Command::Ping(request, reply) => self.ping(request, reply),
            Command::Join(request, reply) => self.join(&request.invite, reply),
            Command::Leave(request, reply) => self.leave(request.network.as_deref(), reply),
            Command::Down(reply) => answer(reply, Ok(())),
        }
    }

    fn senders(&self) -> Vec<mpsc::Sender<NetworkCommand>> {
        self.networks.values().map(|entry| entry.commands.clone()).collect()
    }

    fn status(&self, reply: Reply<Status>) {
        let senders = self.senders();
        let mut status = Status {
            version: self.config.version.clone(),
            pid: std::process::id(),
            running: self.running,
            proxy: self.userspace.as_ref().and_then(Userspace::proxy),
            udp: self.config.settings.udp,
            networks: Vec::new(),
        };
        tokio::spawn(async move {
            for sender in senders {
                status.networks.extend(ask(&sender, NetworkCommand::Status).await);
            }
            answer(reply, Ok(status));
        });
    }

    fn netcheck(&self, reply: Reply<Netcheck>) {
        let senders = self.senders();
        tokio::spawn(async move {
            let mut all = Netcheck {
                udp: false,
                reflexive: Vec::new(),
                local: Vec::new(),
                controller: true,
                relays: Vec::new(),
            };
            for sender in senders {
                if let Some(one) = ask(&sender, NetworkCommand::Netcheck).await {
                    all.udp |= one.udp;
                    all.controller &= one.controller;
                    all.reflexive.extend(one.reflexive);
                    all.local.extend(one.local);
                    all.relays.extend(one.relays);
                }
            }
            answer(reply, Ok(all));
        });
    }

    fn why(&self, peer: String, reply: Reply<Why>) {
        let senders = self.senders();
        tokio::spawn(async move {
            for sender in senders {
                let why = ask(&sender, |to| NetworkCommand::Why(peer.clone(), to)).await;
                if let Some(why) = why.flatten() {
                    return answer(reply, Ok(why));
                }
            }
            answer(reply, Err(not_found(&peer)));
        });
    }

    fn ping(&self, PingRequest { peer }: PingRequest, reply: Reply<PingReply>) {
        let senders = self.senders();
        tokio::spawn(async move {
            for sender in senders {
                let pong = ask(&sender, |to| NetworkCommand::Ping(peer.clone(), to)).await;
                match pong {
                    Some(Err(error)) if error.problem == Problem::NotFound => {}
                    Some(result) => return answer(reply, result),
                    None => {}
                }
            }
            answer(reply, Err(not_found(&peer)));
        });
    }

    fn join(&mut self, invite: &str, reply: Reply<Joined>) {
        let (id, name, servers) = match self.admit(invite) {
            Ok(admitted) => admitted,
            Err(error) => return answer(reply, Err(error)),
        };
        let Some(commands) = self.networks.get(&id).map(|entry| entry.commands.clone()) else {
            return answer(reply, Err(stopping()));
        };
        let events = self.events.subscribe();
        let applicant = Applicant { network: id, name, servers, commands, events };
        let forget = self.note_sender.clone();
        tokio::spawn(async move {
            let outcome = applicant.join().await;
            if outcome.as_ref().is_err_and(|error| error.problem == Problem::Refused) {
                // Without a node there is nothing to forget either.
                let _ = forget.send(Note::Forget { network: id, reply: None });
            }
            answer(reply, outcome);
        });
    }

    /// Starts the invite's network unless it runs; says its id, its name and its controllers.
    fn admit(&mut self, invite: &str) -> Result<(NetworkId, String, String), ApiError> {
        let refuse = |problem, message: String| ApiError { problem, message };
        let invite: Invite =
            invite.parse().map_err(|error| refuse(Problem::Usage, format!("{error}")))?;
        let id = invite.network;
        let name = invite.network_name.to_string();
        let servers: Vec<_> = invite.controllers.iter().map(ToString::to_string).collect();
        let servers = servers.join(", ");
        if self.networks.contains_key(&id) {
            return Ok((id, name, servers));
        }
        if self.networks.values().any(|entry| entry.name == name) {
            let text = format!(
                "this device is in another network called {name}; `shadowmesh leave {name}` leaves it"
            );
            return Err(refuse(Problem::System, text));
        }
        let grant = invite.grant().map_err(|error| refuse(Problem::Refused, error.to_string()))?;
        let device = match grant.name {
            Some(name) => name,
            None => self.device_name()?,
        };
        let place = Place::new(invite, device, &mut UnwrapErr(SysRng));
        let system = |text: String| refuse(Problem::System, text);
        place.store(self.config.keys.as_ref()).map_err(|error| system(error.to_string()))?;
        if let Err(error) = self.start_network(place) {
            // Nothing was sent yet, so the keys are of no use to anybody.
            if let Err(error) = memory::forget(self.config.keys.as_ref(), id) {
                warn!(%error, "cannot forget a network");
            }
            return Err(system(error.to_string()));
        }
        Ok((id, name, servers))
    }

    fn device_name(&self) -> Result<DeviceName, ApiError> {
        let wanted = match &self.config.settings.device_name {
            Some(name) => name.clone(),
            None => host_name(),
        };
        wanted.parse().map_err(|error| ApiError {
            problem: Problem::Usage,
            message: format!(
                "{wanted:?} cannot be a device's name: {error}; choose one with --name"
            ),
        })
    }

    fn leave(&self, wanted: Option<&str>, reply: Reply<()>) {
        let mut matching = self.networks.iter().filter(|(id, entry)| {
            wanted.is_none_or(|wanted| entry.name == wanted || id.to_string() == wanted)
        });
        let (found, more) = (matching.next(), matching.next().is_some());
        match (found, more) {
            (Some((id, entry)), false) => {
                let (id, commands, forget) =
                    (*id, entry.commands.clone(), self.note_sender.clone());
                tokio::spawn(async move {
                    if commands.send(NetworkCommand::Leave).await.is_ok() {
                        commands.closed().await;
                    }
                    // Without a node there is nothing to forget either.
                    let _ = forget.send(Note::Forget { network: id, reply: Some(reply) });
                });
            }
            (Some(_), true) => {
                let message = "this device is in several networks; say which to leave".to_owned();
                answer(reply, Err(ApiError { problem: Problem::Usage, message }));
            }
            (None, _) => {
                let message = "this device is in no such network; `shadowmesh status` lists all";
                let message = message.to_owned();
                answer(reply, Err(ApiError { problem: Problem::NotFound, message }));
            }
        }
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

/// The system's resolver, if it is to be changed; without it addresses still work.
async fn start_names(config: &NodeConfig, directory: &Directory) -> Option<Names> {
    if !config.settings.dns {
        return None;
    }
    let journal = config.socket.with_file_name("node.journal");
    match Names::start(&journal, directory.dns()).await {
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

/// The host's name as a device name: its first label, without what names cannot have.
fn host_name() -> String {
    let name = process::host_name().to_ascii_lowercase();
    let label = name.split('.').next().unwrap_or_default();
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    label.chars().map(allowed).collect::<String>().trim_matches('-').to_owned()
}

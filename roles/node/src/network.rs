//! The event loop of one network.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use engine::{
    ConnectionState, DialTarget, Engine, EngineConfig, EngineEvent, InterfaceSettings, Purpose,
    StreamCommand, StreamId, Transmit,
};
use getrandom::SysRng;
use identity::{DeviceId, NetworkId, TlsMode};
use keystore::Keystore;
use platform::ReceiveBatch;
use rand_core::UnwrapErr;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::sleep_until,
};
use tracing::{debug, info, warn};
use websocket::{Endpoint, SpkiPin, Tls};

use crate::{
    Clock,
    api::{ApiError, Event, Membership, Netcheck, NetworkStatus, PingReply, Problem, Reply, Why},
    data::Upcall,
    directory::{Directory, Listing},
    fault::Fault,
    host::{Host, HostPlan},
    memory,
    streams::{StreamEvent, Streams},
    udp::Inbox,
    underlay::Surroundings,
    view,
};

/// Events of connections that wait for the loop; behind them TCP holds the senders back.
const STREAM_EVENTS: usize = 64;
/// Packets from this device that wait for the loop.
const PACKETS: usize = 512;
/// Packets and datagrams taken in one turn, so that timers and control get theirs.
const BATCH: usize = 64;
/// A peer has this long to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// The controller has this long to take note of a device that leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Super-datagrams taken in one turn.
const RECEIVE_SLOTS: usize = 8;

/// What the node asks of one network.
#[derive(Debug)]
pub(crate) enum NetworkCommand {
    Status(oneshot::Sender<NetworkStatus>),
    Netcheck(oneshot::Sender<Netcheck>),
    Why(String, oneshot::Sender<Option<Why>>),
    /// Answered with [`Problem::NotFound`] when the peer is of another network.
    Ping(String, Reply<PingReply>),
    /// Why the controller is not reached, where that is known.
    Fault(oneshot::Sender<Option<Fault>>),
    /// Leaves the network for good; the loop ends when the controller knows, or soon in any case.
    Leave,
}

/// What a network tells the node.
#[derive(Debug)]
pub(crate) enum Note {
    /// The network's interface has its addresses.
    Configured { network: NetworkId, interface: u32 },
    /// The network's keys are of no use any more; somebody may want to hear that they are gone.
    Forget { network: NetworkId, reply: Option<Reply<()>> },
}

/// What a network's loop works with.
#[derive(Debug)]
pub(crate) struct NetworkParts {
    pub(crate) config: EngineConfig,
    pub(crate) clock: Clock,
    pub(crate) host: HostPlan,
    pub(crate) keys: Arc<dyn Keystore>,
    pub(crate) directory: Directory,
    pub(crate) surroundings: watch::Receiver<Surroundings>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) commands: mpsc::Receiver<NetworkCommand>,
    pub(crate) notes: mpsc::UnboundedSender<Note>,
}

/// One network at work.
pub(crate) struct Network {
    id: NetworkId,
    name: String,
    engine: Engine,
    clock: Clock,
    rng: UnwrapErr<SysRng>,
    membership: Membership,
    controller: ControllerLink,
    streams: Streams,
    stream_events: mpsc::Receiver<(u64, StreamEvent)>,
    /// Connections for which the engine has messages.
    awake: BTreeSet<StreamId>,
    port: Option<u16>,
    loopback: bool,
    surroundings: watch::Receiver<Surroundings>,
    /// The surroundings that the engine was told of.
    known: Option<Surroundings>,
    host: Host,
    upcalls: mpsc::Receiver<Upcall>,
    from_host: mpsc::Receiver<BytesMut>,
    packets: mpsc::Sender<BytesMut>,
    keys: Arc<dyn Keystore>,
    directory: Directory,
    events: broadcast::Sender<Event>,
    commands: mpsc::Receiver<NetworkCommand>,
    notes: mpsc::UnboundedSender<Note>,
    settings: Option<InterfaceSettings>,
    pings: Vec<PendingPing>,
    /// When leaving, the time to stop waiting for the controller.
    leaving: Option<Instant>,
    removed: bool,
}

/// The connection to the controller, as far as the shell sees it.
#[derive(Debug, Default)]
struct ControllerLink {
    stream: Option<StreamId>,
    /// Why the last one is not there.
    fault: Option<Fault>,
}

struct PendingPing {
    peer: DeviceId,
    name: String,
    deadline: Instant,
    reply: Reply<PingReply>,
}

impl Network {
    pub(crate) fn new(parts: NetworkParts) -> io::Result<Self> {
        let NetworkParts {
            config,
            clock,
            host,
            keys,
            directory,
            surroundings,
            events,
            commands,
            notes,
        } = parts;
        let (stream_sender, stream_events) = mpsc::channel(STREAM_EVENTS);
        let (packets, from_host) = mpsc::channel(PACKETS);
        let (upcall_sender, upcalls) = mpsc::channel(PACKETS);
        let mut rng = UnwrapErr(SysRng);
        let (id, name) = (config.invite.network, config.invite.network_name.to_string());
        let (port, loopback) = (host.port(), config.loopback);
        let engine = Engine::new(config, &mut rng, clock.now());
        let host = Host::start(host, engine.data_plane(), upcall_sender)?;
        // A device that was admitted before is a member, whoever answers.
        let admitted = engine.status(clock.now()).name.is_some();
        let membership = if admitted { Membership::Offline } else { Membership::Joining };
        Ok(Self {
            id,
            name,
            engine,
            clock,
            rng,
            membership,
            controller: ControllerLink::default(),
            streams: Streams::new(directory.clone(), stream_sender),
            stream_events,
            awake: BTreeSet::new(),
            port,
            loopback,
            surroundings,
            known: None,
            host,
            upcalls,
            from_host,
            packets,
            keys,
            directory,
            events,
            commands,
            notes,
            settings: None,
            pings: Vec::new(),
            leaving: None,
            removed: false,
        })
    }

    /// Runs until the node drops the sender of commands, or the network does not want this device.
    pub(crate) async fn run(mut self) {
        let mut batch = ReceiveBatch::new(RECEIVE_SLOTS);
        let mut packets = Vec::with_capacity(BATCH);
        self.look_around();
        if self.engine.status(self.clock.now()).clock_offset.is_some() {
            self.tell_clock();
        }
        loop {
            self.drain();
            if self.removed {
                break;
            }
            let deadline = self.deadline();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => break,
                },
                Some((stream, event)) = self.stream_events.recv() => {
                    self.handle_stream(stream, event);
                }
                socket = readable(self.host.inbox()) => self.receive_datagrams(socket, &mut batch),
                Some(upcall) = self.upcalls.recv() => self.handle_upcall(upcall),
                count = self.from_host.recv_many(&mut packets, BATCH), if packets.is_empty() => {
                    debug_assert!(count > 0, "the loop itself holds a sender");
                    for packet in packets.drain(..) {
                        self.engine.handle_packet(&packet, &mut self.rng, self.clock.now());
                    }
                }
                () = sleep_until(deadline.into()) => self.handle_deadline(),
                Ok(()) = self.surroundings.changed() => self.look_around(),
            }
        }
        if !self.removed {
            self.engine.flush();
            self.drain();
        }
        self.directory.remove(self.id);
        if let Some(settings) = self.settings.take() {
            // The userspace stack outlives the network; an interface does not.
            self.host.configure(&settings, &self.directory);
        }
    }

    /// Tells the engine of the surroundings. With the same addresses but another way to them, as after
    /// a change of routers, everything is dialled anew too.
    fn look_around(&mut self) {
        let surroundings = self.surroundings.borrow_and_update().clone();
        self.host.sockets().forget_sources();
        let now = self.clock.now();
        let endpoints = |surroundings: &Surroundings| {
            self.port.map(|port| surroundings.endpoints(port, self.loopback)).unwrap_or_default()
        };
        let present = endpoints(&surroundings);
        match self.known.replace(surroundings) {
            Some(known) if endpoints(&known) == present => {
                self.engine.handle_network_change(&mut self.rng, now);
            }
            Some(_) | None => self.engine.handle_local_addresses(&present, &mut self.rng, now),
        }
    }

    fn deadline(&self) -> Instant {
        // Nothing may be due for a long time; waking up once in a while costs nothing.
        let idle = Instant::now() + Duration::from_secs(3_600);
        let pings = self.pings.iter().map(|ping| ping.deadline);
        let engine = self.engine.poll_timeout().map(|(at, _reason)| at);
        pings.chain(engine).chain(self.leaving).min().unwrap_or(idle)
    }

    fn handle_deadline(&mut self) {
        let now = self.clock.now();
        self.engine.handle_timeout(&mut self.rng, now);
        self.removed |= self.leaving.is_some_and(|deadline| deadline <= now.instant);
        let expired =
            self.pings.extract_if(.., |ping| ping.deadline <= now.instant).collect::<Vec<_>>();
        for ping in expired {
            let message = format!(
                "{} does not answer; `shadowmesh why {}` tells which ways were tried",
                ping.name, ping.name
            );
            answer(ping.reply, Err(ApiError { problem: Problem::Timeout, message }));
        }
    }

    fn handle_stream(&mut self, stream: u64, event: StreamEvent) {
        if !self.streams.observe(stream, &event) {
            return;
        }
        let id = StreamId(stream);
        match event {
            StreamEvent::Opened => {
                self.engine.handle_stream_opened(id, &mut self.rng, self.clock.now())
            }
            StreamEvent::Message(message) => {
                self.engine.handle_stream_message(id, &message, &mut self.rng, self.clock.now());
            }
            StreamEvent::Writable => {
                self.awake.insert(id);
            }
            StreamEvent::Closed(fault) => {
                self.awake.remove(&id);
                if self.controller.stream == Some(id) {
                    self.handle_controller_fault(fault);
                }
                self.engine.handle_stream_closed(id, &mut self.rng, self.clock.now());
            }
        }
    }

    fn handle_upcall(&mut self, upcall: Upcall) {
        match upcall {
            Upcall::Packet(packet) => {
                self.engine.handle_packet(&packet, &mut self.rng, self.clock.now())
            }
            Upcall::Datagram { from, mut bytes } => {
                self.engine.handle_datagram(from, &mut bytes, &mut self.rng, self.clock.now());
            }
            Upcall::Notice(notice) => {
                self.engine.handle_notice(notice, &mut self.rng, self.clock.now())
            }
            Upcall::InterfaceGone => {
                warn!(
                    network = self.name,
                    "the interface was deleted; `shadowmesh down` and `up` make it again"
                );
            }
        }
    }

    fn receive_datagrams(&mut self, socket: usize, batch: &mut ReceiveBatch) {
        let Some(inbox) = self.host.inbox() else { return };
        if !inbox.receive(socket, batch) {
            return;
        }
        for datagram in batch.datagrams() {
            let from = datagram.remote;
            inbox.sockets().learn_source(from, datagram.local);
            for bytes in datagram.segments() {
                self.engine.handle_datagram(from, bytes, &mut self.rng, self.clock.now());
            }
        }
    }

    /// Carries out everything that the engine wants done.
    fn drain(&mut self) {
        loop {
            let mut idle = true;
            while let Some(command) = self.engine.poll_stream() {
                idle = false;
                self.handle_stream_command(command);
            }
            idle &= !self.send_messages();
            while let Some(transmit) = self.engine.poll_transmit() {
                idle = false;
                self.transmit(&transmit);
            }
            while let Some(packet) = self.engine.poll_packet() {
                idle = false;
                self.host.deliver(&packet);
            }
            while let Some(event) = self.engine.poll_event() {
                idle = false;
                self.handle_event(event);
            }
            if idle {
                return;
            }
        }
    }

    /// Sends a datagram, unless it would go into a network of this device: those that the engine itself
    /// does not know are the others'.
    fn transmit(&self, transmit: &Transmit) {
        if !self.directory.is_overlay(transmit.to.ip()) {
            self.host.sockets().send(transmit.to, &transmit.payload, None);
        }
    }

    fn handle_stream_command(&mut self, command: StreamCommand) {
        match command {
            StreamCommand::Dial { stream, target } => {
                debug!(network = self.name, purpose = ?target.purpose, "dialling");
                if target.purpose == Purpose::Controller {
                    self.controller.stream = Some(stream);
                }
                self.streams.dial(stream.0, endpoint(target));
            }
            StreamCommand::Wake { stream } => {
                self.awake.insert(stream);
            }
            StreamCommand::Close { stream } => {
                self.awake.remove(&stream);
                self.streams.close(stream.0);
            }
        }
    }

    /// Moves messages to every connection that has room; says whether there were any.
    fn send_messages(&mut self) -> bool {
        let mut moved = false;
        for stream in std::mem::take(&mut self.awake) {
            while self.streams.has_room(stream.0) {
                let Some(message) = self.engine.poll_message(stream, Instant::now()) else { break };
                self.streams.send(stream.0, Bytes::from(message));
                moved = true;
            }
        }
        moved
    }

    fn handle_event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Interface(settings) => self.configure(settings),
            EngineEvent::ZoneChanged => self.publish(),
            EngineEvent::Save(state) => self.save(&state),
            EngineEvent::Connection(state) => self.handle_connection(&state),
            EngineEvent::Pong { peer, path, latency } => {
                self.handle_pong(peer, &path.to_string(), latency);
            }
            EngineEvent::Path { peer, decision } => {
                let text = format!("{}: {}", decision.path, decision.reason);
                debug!(network = self.name, %peer, text, "path");
                self.tell(Event::Path {
                    network: self.id.to_string(),
                    peer: peer.to_string(),
                    text,
                });
            }
            EngineEvent::ClockWrong { offset_ms: _ } => self.tell_clock(),
            EngineEvent::Removed => {
                self.removed = true;
                let reason = "this device is no longer in the network; coming back takes a new \
                              invite";
                self.change_membership(Membership::Refused, Some(reason.to_owned()));
            }
            EngineEvent::Security(event) => {
                warn!(network = self.name, ?event, "security event");
                let text = format!("{event:?}");
                self.tell(Event::Security { network: self.id.to_string(), text });
            }
        }
    }

    fn configure(&mut self, settings: InterfaceSettings) {
        self.settings = Some(settings.clone());
        self.publish();
        self.host.configure(&settings, &self.directory);
        if let Some((_, interface)) = self.host.interface() {
            // Without a node there is no resolver to change.
            let _ = self.notes.send(Note::Configured { network: self.id, interface });
        }
    }

    /// Makes names, addresses and prefixes known to the rest of the node.
    fn publish(&self) {
        let Some(settings) = &self.settings else { return };
        match self.engine.zone(self.clock.now()) {
            Ok(zone) => {
                let listing = Listing {
                    zone,
                    own: settings.addresses.clone(),
                    routes: settings.routes.clone(),
                    packets: self.packets.clone(),
                };
                self.directory.publish(self.id, listing);
            }
            Err(error) => {
                warn!(network = self.name, %error, "the network has a name that DNS cannot have")
            }
        }
    }

    fn save(&self, state: &[u8]) {
        if let Err(error) = memory::store_state(self.keys.as_ref(), self.id, state) {
            warn!(network = self.name, %error, "cannot keep the network's state; is the disk full?");
        }
    }

    fn handle_connection(&mut self, state: &ConnectionState) {
        let admitted = self.engine.status(self.clock.now()).name.is_some();
        let (membership, reason) = view::membership(state, admitted);
        if membership == Membership::Online || membership == Membership::AwaitingApproval {
            self.controller.fault = None;
        }
        self.change_membership(membership, reason);
    }

    /// Remembers why the controller is not reached, and says so once.
    fn handle_controller_fault(&mut self, fault: Fault) {
        self.controller.stream = None;
        if self.controller.fault.as_ref() == Some(&fault) {
            return;
        }
        info!(network = self.name, "the controller is not reached: {}", fault.cause());
        let reason = Some(fault.to_string());
        self.controller.fault = Some(fault);
        if self.is_alone() {
            let (network, membership) = (self.id.to_string(), self.membership);
            self.tell(Event::Membership { network, membership, reason });
        }
    }

    /// Whether the network has not answered, or not lately.
    fn is_alone(&self) -> bool {
        matches!(self.membership, Membership::Joining | Membership::Offline)
    }

    fn change_membership(&mut self, membership: Membership, reason: Option<String>) {
        self.membership = membership;
        info!(network = self.name, ?membership, reason, "membership");
        self.tell(Event::Membership { network: self.id.to_string(), membership, reason });
    }

    /// Says how wrong the clock is, or that it is right again.
    fn tell_clock(&self) {
        let status = self.engine.status(self.clock.now());
        let advice = status.clock_offset.map(|_| status.warnings.join("; "));
        match &advice {
            Some(advice) => warn!(network = self.name, "{advice}"),
            None => info!(network = self.name, "this device's clock is right again"),
        }
        let (network, offset_seconds) = (self.id.to_string(), status.clock_offset);
        self.tell(Event::Clock { network, offset_seconds, advice });
    }

    fn tell(&self, event: Event) {
        // Without anybody who listens there is nobody to tell.
        let _ = self.events.send(event);
    }

    fn handle_pong(&mut self, peer: DeviceId, path: &str, latency: Duration) {
        let latency_ms = latency.as_secs_f64() * 1_000.0;
        for ping in self.pings.extract_if(.., |ping| ping.peer == peer) {
            let reply = view::path(path, Some(latency_ms))
                .map(|path| PingReply { peer: ping.name, path })
                .ok_or_else(|| not_found("the peer"));
            answer(ping.reply, reply);
        }
    }

    fn handle_command(&mut self, command: NetworkCommand) {
        match command {
            NetworkCommand::Status(reply) => answer(reply, self.status()),
            NetworkCommand::Netcheck(reply) => {
                answer(
                    reply,
                    view::netcheck(self.engine.status(self.clock.now()), self.membership),
                );
            }
            NetworkCommand::Why(peer, reply) => {
                let why =
                    self.find(&peer).and_then(|(id, _)| self.engine.why(id, self.clock.now()));
                answer(reply, why.map(view::why));
            }
            NetworkCommand::Ping(peer, reply) => self.ping(&peer, reply),
            NetworkCommand::Fault(reply) => answer(reply, self.controller.fault.clone()),
            NetworkCommand::Leave => {
                let now = self.clock.now();
                self.engine.leave(&mut self.rng, now);
                self.leaving = Some(now.instant + LEAVE_TIMEOUT);
            }
        }
    }

    fn status(&self) -> NetworkStatus {
        let fault = self.controller.fault.as_ref().filter(|_| self.is_alone());
        let status = self.engine.status(self.clock.now());
        view::network(status, self.membership, fault, &self.host)
    }

    fn ping(&mut self, peer: &str, reply: Reply<PingReply>) {
        let Some((peer, name)) = self.find(peer) else {
            return answer(reply, Err(not_found(peer)));
        };
        let now = self.clock.now();
        self.engine.handle_ping_request(peer, &mut self.rng, now);
        self.pings.push(PendingPing { peer, name, deadline: now.instant + PING_TIMEOUT, reply });
    }

    /// A peer by name, full name, id or address.
    fn find(&self, wanted: &str) -> Option<(DeviceId, String)> {
        let short = wanted.strip_suffix(&format!(".{}.alt", self.name)).unwrap_or(wanted);
        let peer = self.engine.find_peer(short)?;
        Some((peer, short.to_owned()))
    }
}

pub(crate) fn not_found(peer: &str) -> ApiError {
    let message = format!("no device is called {peer}; `shadowmesh status` lists all");
    ApiError { problem: Problem::NotFound, message }
}

pub(crate) fn stopping() -> ApiError {
    ApiError { problem: Problem::System, message: "the node is stopping".to_owned() }
}

/// Asks a network; nothing if it has ended.
pub(crate) async fn ask<T>(
    network: &mpsc::Sender<NetworkCommand>,
    command: impl FnOnce(oneshot::Sender<T>) -> NetworkCommand,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    network.send(command(reply)).await.ok()?;
    answer.await.ok()
}

async fn readable(inbox: Option<&Inbox>) -> usize {
    match inbox {
        Some(inbox) => inbox.readable().await,
        None => std::future::pending().await,
    }
}

fn endpoint(target: DialTarget) -> Endpoint {
    let addresses = target.server.socket_addresses().collect();
    let tls = match target.server.tls {
        TlsMode::Plain => Tls::Plain,
        TlsMode::WebPki => Tls::WebPki,
        TlsMode::Pin(pin) => Tls::Pin(SpkiPin(pin)),
    };
    let host = match target.server.host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{}", target.server.port),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{}:{}", target.server.host, target.server.port),
    };
    Endpoint { addresses, host, tls, path: target.path, mark: None }
}

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    // Whoever asked may have gone away.
    drop(reply.send(value));
}

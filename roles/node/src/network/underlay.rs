//! The network's connections, datagrams and surroundings.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    time::Instant,
};

use engine::{
    DialTarget, Purpose, Rung, SocketCommand, SocketId, StreamCommand, StreamId, Transmit,
};
use identity::{DeviceId, TlsMode};
use platform::ReceiveBatch;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info};
use websocket::{Endpoint, SpkiPin, Tls, Upgrade};

use super::Network;
use crate::{
    api::{Event, Membership},
    directory::Directory,
    door::Place,
    fault::Fault,
    mapping::Mapping,
    sockets::{ConnectedSockets, SocketEvent},
    streams::{StreamEvent, Streams},
    survey::Surveyor,
    udp::Inbox,
    underlay::Surroundings,
    winners::{LocalNetwork, Winners},
};

/// Events of connections that wait for the loop; behind them TCP holds the senders back.
const STREAM_EVENTS: usize = 64;

/// From how far away this device may be reached directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// From this host: the network lives on it alone.
    Host,
    /// From wherever packets get to its addresses.
    Addresses,
    /// The same, and by a port that the router is asked for.
    Mapped,
}

/// What a network knows of what lies underneath it.
#[derive(Debug)]
pub(super) struct Underlay {
    streams: Streams,
    pub(super) events: mpsc::Receiver<(u64, StreamEvent)>,
    /// Connections for which the engine has messages.
    awake: BTreeSet<StreamId>,
    /// The connection to the controller.
    controller: Option<StreamId>,
    /// Why there is none.
    pub(super) fault: Option<Fault>,
    pub(super) ports: Ports,
    loopback: bool,
    pub(super) surroundings: watch::Receiver<Surroundings>,
    /// The surroundings that the engine was told of.
    known: Option<Surroundings>,
    /// Where this device is, as far as that can be told.
    here: Option<LocalNetwork>,
    /// By what it reached others from where it was.
    pub(super) winners: Winners,
    /// The router's port that leads here, while one is wanted.
    pub(super) mapping: Option<Mapping>,
    pub(super) surveyor: Surveyor,
    pub(super) sockets: ConnectedSockets,
}

/// Where this device is reached at all its addresses.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) udp: Option<u16>,
    pub(super) door: Option<(Place, mpsc::Receiver<Upgrade>)>,
}

impl Ports {
    /// The next connection that a peer asks for; never, if this device does not listen.
    pub(super) async fn arrival(&mut self) -> Option<Upgrade> {
        match &mut self.door {
            Some((_, arrivals)) => arrivals.recv().await,
            None => std::future::pending().await,
        }
    }
}

impl Underlay {
    pub(super) fn new(
        directory: Directory,
        surroundings: watch::Receiver<Surroundings>,
        ports: Ports,
        (reach, mark): (Reach, u32),
        winners: Winners,
    ) -> Self {
        let (sender, events) = mpsc::channel(STREAM_EVENTS);
        let loopback = reach == Reach::Host;
        let mapping = ports.udp.filter(|_| reach == Reach::Mapped).and_then(NonZeroU16::new);
        let mapping = mapping.map(|port| Mapping::start(port, surroundings.clone()));
        Self {
            sockets: ConnectedSockets::new(directory.clone()),
            streams: Streams::new(directory, sender),
            events,
            awake: BTreeSet::new(),
            controller: None,
            fault: None,
            ports,
            loopback,
            surroundings,
            known: None,
            here: None,
            winners,
            mapping,
            surveyor: Surveyor::new(mark),
        }
    }
}

/// Waits until the router leads here from another address than before, or from none.
pub(super) async fn mapping_changed(mapping: Option<&mut Mapping>) -> Option<SocketAddr> {
    match mapping {
        Some(mapping) => mapping.changed().await,
        None => std::future::pending().await,
    }
}

impl Network {
    /// Tells the engine of the surroundings. With the same addresses but another way to them, as after
    /// a change of routers, everything is dialled anew too.
    pub(super) fn look_around(&mut self) {
        let surroundings = self.underlay.surroundings.borrow_and_update().clone();
        self.host.sockets().forget_sources();
        let now = self.clock.now();
        self.underlay.here = surroundings.local_network();
        self.tell_winners();
        let endpoints = |surroundings: &Surroundings| {
            self.underlay
                .ports
                .udp
                .map(|port| surroundings.endpoints(port, self.underlay.loopback))
                .unwrap_or_default()
        };
        let present = endpoints(&surroundings);
        if let Some((place, _)) = &self.underlay.ports.door {
            let loopback = self.underlay.loopback;
            let servers = place.servers(|port| surroundings.endpoints(port, loopback));
            self.engine.handle_servers(&servers, &mut self.rng, now);
        }
        match self.underlay.known.replace(surroundings) {
            Some(known) if endpoints(&known) == present => {
                self.engine.handle_network_change(&mut self.rng, now);
            }
            Some(_) | None => self.engine.handle_local_addresses(&present, &mut self.rng, now),
        }
    }

    /// Where this device is. When it came here the system may not have asked for the router's link-layer address yet: once it is known,
    /// it is known too what won here, and not in another network with the same numbers.
    fn here(&mut self) -> Option<LocalNetwork> {
        let before = self.underlay.here.as_ref()?;
        if before.hardware.is_none() {
            let here = self.underlay.known.as_ref()?.local_network();
            if here.as_ref().is_some_and(|here| here.hardware.is_some()) {
                self.underlay.here = here;
                self.tell_winners();
            }
        }
        self.underlay.here.clone()
    }

    fn tell_winners(&mut self) {
        let here = self.underlay.here.as_ref();
        let winners = here.into_iter().flat_map(|here| self.underlay.winners.peers(here));
        self.engine.handle_winners(winners, &mut self.rng, self.clock.now());
    }

    /// A peer is reached by this.
    pub(super) fn note_winner(&mut self, won: (DeviceId, Rung)) {
        if let Some(here) = self.here() {
            self.underlay.winners.note_peer(&here, won, self.clock.now().instant);
        }
    }

    pub(super) fn handle_stream(&mut self, stream: u64, event: StreamEvent) {
        if !self.underlay.streams.observe(stream, &event) {
            return;
        }
        let id = StreamId(stream);
        match event {
            StreamEvent::Opened(by) => {
                if let (Some((host, route)), Some(here)) = (by, self.here()) {
                    let now = self.clock.now().instant;
                    self.underlay.winners.note_route(&here, host, route, now);
                }
                self.engine.handle_stream_opened(id, &mut self.rng, self.clock.now())
            }
            StreamEvent::Message(message) => {
                self.engine.handle_stream_message(id, message, &mut self.rng, self.clock.now());
            }
            StreamEvent::Writable => {
                self.underlay.awake.insert(id);
            }
            StreamEvent::Closed(fault) => {
                self.underlay.awake.remove(&id);
                if self.underlay.controller == Some(id) {
                    self.handle_controller_fault(fault);
                }
                self.engine.handle_stream_closed(id, &mut self.rng, self.clock.now());
            }
        }
    }

    /// A peer may have come by a stream of its own.
    pub(super) fn handle_arrival(&mut self, upgrade: Upgrade) {
        let (source, now) = (upgrade.remote().ip(), self.clock.now());
        let path = upgrade.path().to_owned();
        match self.engine.handle_stream_accepted(&path, source, &mut self.rng, now) {
            Some(stream) => self.underlay.streams.accept(stream.0, upgrade),
            None => drop(tokio::spawn(upgrade.reject_not_found())),
        }
    }

    pub(super) fn receive_datagrams(&mut self, socket: usize, batch: &mut ReceiveBatch) {
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

    /// Remembers why the controller is not reached, and says so once.
    fn handle_controller_fault(&mut self, fault: Fault) {
        self.underlay.controller = None;
        if self.underlay.fault.as_ref() == Some(&fault) {
            return;
        }
        info!(network = self.name, "the controller is not reached: {}", fault.cause());
        let reason = Some(fault.to_string());
        self.underlay.fault = Some(fault);
        if self.is_alone() {
            let (network, membership) = (self.id.to_string(), self.membership);
            self.tell(Event::Membership { network, membership, reason });
        }
    }

    /// Whether the network has not answered, or not lately.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self.membership, Membership::Joining | Membership::Offline)
    }

    /// Sends a datagram, unless it would go into a network of this device: those that the engine itself
    /// does not know are the others'.
    pub(super) fn transmit(&self, transmit: &Transmit) {
        let Transmit { to, payload, whole } = transmit;
        if self.node.directory.is_overlay(to.ip()) {
            return;
        }
        if *whole {
            self.host.sockets().send_whole(*to, payload);
        } else {
            self.host.sockets().send(*to, payload, None);
        }
    }

    /// Sends datagrams from a socket that was not used before.
    pub(super) fn survey(&self, datagrams: &[Transmit]) {
        let is_overlay = |transmit: &Transmit| self.node.directory.is_overlay(transmit.to.ip());
        if !datagrams.iter().any(is_overlay) {
            self.underlay.surveyor.ask(datagrams);
        }
    }

    pub(super) fn handle_stream_command(&mut self, command: StreamCommand) {
        match command {
            StreamCommand::Dial { stream, target } => {
                debug!(network = self.name, purpose = ?target.purpose, "dialling");
                if target.purpose == Purpose::Controller {
                    self.underlay.controller = Some(stream);
                }
                // By a peer's word alone no proxy is asked for anything.
                let may_detour = !matches!(target.purpose, Purpose::Peer(_));
                let endpoint = endpoint(target);
                let here = self.here();
                let first =
                    here.and_then(|here| self.underlay.winners.route(&here, &endpoint.host));
                self.underlay.streams.dial(stream.0, endpoint, (may_detour, first));
            }
            StreamCommand::Wake { stream } => {
                self.underlay.awake.insert(stream);
            }
            StreamCommand::Close { stream } => {
                self.underlay.awake.remove(&stream);
                self.underlay.streams.close(stream.0);
            }
        }
    }

    /// Takes what happened on sockets beside the network's own, as much as is there.
    pub(super) fn handle_sockets(&mut self, (socket, event): (SocketId, SocketEvent)) {
        self.handle_socket(socket, event);
        for (socket, event) in self.underlay.sockets.events_at_hand() {
            self.handle_socket(socket, event);
        }
    }

    fn handle_socket(&mut self, socket: SocketId, event: SocketEvent) {
        let now = self.clock.now();
        match event {
            SocketEvent::Opened => self.engine.handle_socket_opened(socket, &mut self.rng, now),
            SocketEvent::Bytes(bytes) => {
                self.engine.handle_socket_bytes(socket, &bytes, &mut self.rng, now);
            }
            SocketEvent::Closed => {
                self.underlay.sockets.close(socket);
                self.engine.handle_socket_closed(socket, &mut self.rng, now);
            }
        }
    }

    pub(super) fn handle_socket_command(&mut self, command: SocketCommand) {
        match command {
            SocketCommand::Open { socket, remote, to } => {
                debug!(network = self.name, %remote, ?to, "opening a further socket");
                self.underlay.sockets.open(socket, remote, to);
            }
            SocketCommand::Send { socket, bytes } => self.underlay.sockets.send(socket, bytes),
            SocketCommand::Close { socket } => self.underlay.sockets.close(socket),
        }
    }

    /// Moves messages to every connection that has room; says whether there were any.
    pub(super) fn send_messages(&mut self) -> bool {
        let mut moved = false;
        for stream in std::mem::take(&mut self.underlay.awake) {
            while self.underlay.streams.has_room(stream.0) {
                let Some(message) = self.engine.poll_message(stream, Instant::now()) else { break };
                self.underlay.streams.send(stream.0, message.freeze());
                moved = true;
            }
        }
        moved
    }
}

/// Waits until a socket of the loop's own can be read; says which.
pub(super) async fn readable(inbox: Option<&Inbox>) -> usize {
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
    Endpoint { addresses, host, tls, path: target.path, mark: None, detour: None }
}

//! The event loop of one network.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the loop, and what the node asks |
//! | `events` | carrying out what the engine wants |
//! | `saving` | whether the disk takes what is to be remembered |
//! | `underlay` | connections, datagrams, surroundings |

mod events;
mod saving;
mod underlay;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use engine::{Engine, EngineConfig, InterfaceSettings};
use getrandom::SysRng;
use identity::{DeviceId, NetworkId};
use ipnet::IpNet;
use keystore::Keystore;
use platform::ReceiveBatch;
use rand_core::UnwrapErr;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::sleep_until,
};
use tracing::warn;
use websocket::Upgrade;

use crate::{
    Clock,
    api::{ApiError, Event, Membership, Netcheck, NetworkStatus, PingReply, Problem, Reply, Why},
    data::{Outlet, Upcall, Upcalls},
    directory::Directory,
    door::Place,
    fault::Fault,
    host::{Host, HostPlan},
    memory,
    underlay::Surroundings,
    view,
    winners::Winners,
};
use saving::Saving;
use underlay::{Ports, Reach, Underlay, mapping_changed, readable};

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
    /// Looks again at what other networks of the device leave to this one.
    Arrange,
    /// Leaves the network for good; the loop ends when the controller knows, or soon in any case.
    Leave,
    /// Ends the loop for good, without a word to the network, which did not let the device in.
    Abandon,
}

/// What a network tells the node.
#[derive(Debug)]
pub(crate) enum Note {
    /// The network's interface has its addresses.
    Configured { network: NetworkId, interface: u32 },
}

/// How a network's loop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The device stays a member.
    Stopped,
    /// The device is no member any more: its keys are of no use.
    Removed,
}

/// What a network's loop works with.
#[derive(Debug)]
pub(crate) struct NetworkParts {
    pub(crate) config: EngineConfig,
    pub(crate) clock: Clock,
    pub(crate) host: HostPlan,
    pub(crate) surroundings: watch::Receiver<Surroundings>,
    pub(crate) port_mapping: bool,
    pub(crate) node: NodeSide,
    pub(crate) commands: mpsc::Receiver<NetworkCommand>,
    /// Where peers come by streams of their own, if the device listens, and those that do.
    pub(crate) door: Option<(Place, mpsc::Receiver<Upgrade>)>,
}

/// What all networks of a node share.
#[derive(Clone, Debug)]
pub(crate) struct NodeSide {
    pub(crate) keys: Arc<dyn Keystore>,
    pub(crate) directory: Directory,
    pub(crate) events: broadcast::Sender<Event>,
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
    underlay: Underlay,
    host: Host,
    upcalls: mpsc::Receiver<Upcall>,
    outlet: Outlet,
    node: NodeSide,
    commands: mpsc::Receiver<NetworkCommand>,
    arrangement: Arrangement,
    saving: Saving,
    pings: Vec<PendingPing>,
    ending: Ending,
}

/// How the interface is to be set up.
#[derive(Debug, Default)]
struct Arrangement {
    /// What the engine wants.
    wanted: Option<InterfaceSettings>,
    /// The prefixes that another network of the device has already.
    taken: Vec<IpNet>,
}

/// Whether the loop is to end.
#[derive(Clone, Copy, Debug)]
enum Ending {
    No,
    /// The controller has until then to take note that the device leaves.
    Leaving(Instant),
    Removed,
}

struct PendingPing {
    peer: DeviceId,
    name: String,
    deadline: Instant,
    reply: Reply<PingReply>,
}

impl Network {
    pub(crate) fn new(parts: NetworkParts) -> io::Result<Self> {
        let NetworkParts { config, clock, host, surroundings, port_mapping, node, commands, door } =
            parts;
        let (upcall_sender, upcalls) = Upcalls::new();
        let mut rng = UnwrapErr(SysRng);
        let (id, name) = (config.invite.network, config.invite.network_name.to_string());
        let directory = node.directory.clone();
        let reach = match (config.loopback, port_mapping) {
            (true, _) => Reach::Host,
            (false, true) => Reach::Mapped,
            (false, false) => Reach::Addresses,
        };
        let ports = Ports { udp: host.sockets().port(), door };
        let mark = host.sockets().mark();
        let winners = memory::load_winners(node.keys.as_ref(), id);
        let winners = winners.map(|bytes| Winners::from_bytes(&bytes)).unwrap_or_default();
        let underlay = Underlay::new(directory, surroundings, ports, (reach, mark), winners);
        let engine = Engine::new(config, &mut rng, clock.now());
        let outlet = Outlet::new(engine.data_plane(), host.sockets().clone(), upcall_sender);
        let host = Host::start(host, &outlet)?;
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
            underlay,
            host,
            upcalls,
            outlet,
            node,
            commands,
            arrangement: Arrangement::default(),
            saving: Saving::default(),
            pings: Vec::new(),
            ending: Ending::No,
        })
    }

    /// Runs until the node drops the sender of commands, or the device is no member any more.
    pub(crate) async fn run(mut self) -> Ended {
        let mut batch = ReceiveBatch::new(RECEIVE_SLOTS);
        self.look_around();
        if self.engine.status(self.clock.now()).clock_offset.is_some() {
            self.tell_clock();
        }
        let ended = loop {
            self.drain();
            if matches!(self.ending, Ending::Removed) {
                break Ended::Removed;
            }
            let deadline = self.deadline();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => {
                        self.engine.flush();
                        self.save_winners(true);
                        break Ended::Stopped;
                    }
                },
                Some((stream, event)) = self.underlay.events.recv() => {
                    self.handle_stream(stream, event);
                }
                Some(upgrade) = self.underlay.ports.arrival() => self.handle_arrival(upgrade),
                socket = readable(self.host.inbox()) => self.receive_datagrams(socket, &mut batch),
                Some(upcall) = self.upcalls.recv() => self.handle_upcall(upcall),
                () = sleep_until(deadline.into()) => self.handle_deadline(),
                Ok(()) = self.underlay.surroundings.changed() => self.look_around(),
                Some((from, mut bytes)) = self.underlay.surveyor.answer() => {
                    self.engine.handle_datagram(from, &mut bytes, &mut self.rng, self.clock.now());
                }
                Some(event) = self.underlay.sockets.event() => self.handle_sockets(event),
                mapped = mapping_changed(self.underlay.mapping.as_mut()) => {
                    self.engine.handle_mapped_address(mapped, &mut self.rng, self.clock.now());
                }
            }
        };
        self.engine.give_back(&mut self.rng, self.clock.now());
        self.drain();
        self.node.directory.remove(self.id);
        self.host.end(&self.node.directory);
        if let Some(mapping) = self.underlay.mapping.take() {
            mapping.end().await;
        }
        self.underlay.sockets.end().await;
        ended
    }

    fn deadline(&self) -> Instant {
        // Nothing may be due for a long time; waking up once in a while costs nothing.
        let idle = Instant::now() + Duration::from_secs(3_600);
        let pings = self.pings.iter().map(|ping| ping.deadline);
        let engine = self.engine.poll_timeout().map(|(at, _reason)| at);
        let leaving = match self.ending {
            Ending::Leaving(deadline) => Some(deadline),
            Ending::No | Ending::Removed => None,
        };
        let saving = self.saving.again_at().into_iter().chain(self.underlay.winners.poll_timeout());
        pings.chain(engine).chain(leaving).chain(saving).min().unwrap_or(idle)
    }

    fn handle_deadline(&mut self) {
        let now = self.clock.now();
        self.engine.handle_timeout(&mut self.rng, now);
        if self.saving.again_at().is_some_and(|at| at <= now.instant) {
            self.engine.flush();
        }
        self.save_winners(false);
        if let Ending::Leaving(deadline) = self.ending
            && deadline <= now.instant
        {
            self.ending = Ending::Removed;
        }
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

    fn handle_upcall(&mut self, upcall: Upcall) {
        match upcall {
            Upcall::Packet { packet, _room } => {
                self.engine.handle_packet(packet, &mut self.rng, self.clock.now());
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
            NetworkCommand::Fault(reply) => answer(reply, self.underlay.fault.clone()),
            NetworkCommand::Arrange => self.arrange(),
            NetworkCommand::Leave => {
                let now = self.clock.now();
                self.engine.leave(&mut self.rng, now);
                self.ending = Ending::Leaving(now.instant + LEAVE_TIMEOUT);
            }
            NetworkCommand::Abandon => self.ending = Ending::Removed,
        }
    }

    fn status(&self) -> NetworkStatus {
        let fault = self.underlay.fault.as_ref().filter(|_| self.is_alone());
        let status = self.engine.status(self.clock.now());
        let taken = &self.arrangement.taken;
        let mut status = view::network(status, self.membership, fault, taken, &self.host);
        status.advice.extend(self.saving.advice());
        status
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
    let message = format!(
        "no other member is called {peer}; `shadowmesh status` lists all (to reach this device itself, or a plain WireGuard peer, use the system's ping)"
    );
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

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    // Whoever asked may have gone away.
    drop(reply.send(value));
}

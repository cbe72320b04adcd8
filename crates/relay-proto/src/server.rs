//! The relay's end of all links.

mod forwarding;
mod neighbours;
mod reports;
mod timing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use frame_proto::HopKey;
use identity::{DeviceId, NetworkId, Padding, RevocationTarget, Revocations, UnixTime};
use noise_channel::{
    Channel, ClockOffset, MessageClass, Now, ReplayGuard, ResponderConfig, Service,
};
use rand_core::CryptoRng;

use self::neighbours::Neighbours;
use self::timing::Timing;
use crate::circuits::CircuitOffer;
use crate::connection::{Attached, Connection, Stage};
use crate::limits::{CONTROL_QUEUE, LINGER};
use crate::link::{LinkError, LinkEvent};
use crate::load::LoadReport;
use crate::message::{Attach, Message, Refusal};
use crate::newest::Newest;
use crate::serving::{
    CloseReason, ConnectionId, Limits, Recognised, RelayNetwork, ServerEvent, TurnedAway,
};
use crate::strangers::Strangers;
use crate::timers::Timers;

/// A relay for several networks, or the end of a device's own streams with its peers.
///
/// The latter, made by [`Self::of_host`], forwards nothing: frames for the device itself are there for
/// [`Self::poll_frame`], and its own go out by [`Self::send`].
///
/// After every handler: drain [`Self::poll_event`], wake the writers of [`Self::poll_ready`], arm
/// one timer for [`Self::poll_timeout`]. The writer of a connection asks [`Self::poll_message`]
/// whenever its stream takes a message, so that whatever waits, waits in the bounded queue here, and
/// then arms the timer for [`Self::poll_sooner`].
pub struct RelayServer {
    capability: u16,
    limits: Limits,
    replay: ReplayGuard,
    networks: BTreeMap<NetworkId, RelayNetwork>,
    connections: BTreeMap<ConnectionId, Connection>,
    attached: BTreeMap<(NetworkId, DeviceId), ConnectionId>,
    strangers: Strangers,
    timers: Timers,
    next_id: u64,
    loads: BTreeMap<NetworkId, LoadReport>,
    newest: Newest,
    neighbours: Neighbours,
    timing: Timing,
    ready: BTreeSet<ConnectionId>,
    events: VecDeque<ServerEvent>,
    /// The frames for the host itself, if that is all that is served.
    arrived: Option<VecDeque<(DeviceId, BytesMut)>>,
    last_now: Option<Instant>,
}

impl RelayServer {
    /// A relay that serves no network yet.
    #[must_use]
    pub fn new(capability: u16, limits: Limits) -> Self {
        Self {
            capability,
            limits,
            replay: ReplayGuard::default(),
            networks: BTreeMap::new(),
            connections: BTreeMap::new(),
            attached: BTreeMap::new(),
            strangers: Strangers::default(),
            timers: Timers::default(),
            next_id: 0,
            loads: BTreeMap::new(),
            newest: Newest::default(),
            neighbours: Neighbours::default(),
            timing: Timing::default(),
            ready: BTreeSet::new(),
            events: VecDeque::new(),
            arrived: None,
            last_now: None,
        }
    }

    /// The end of a device's own streams, which forwards nothing to others.
    #[must_use]
    pub fn of_host(capability: u16) -> Self {
        let arrived = Some(VecDeque::new());
        Self { arrived, ..Self::new(capability, Limits::of_host()) }
    }

    /// Serves a network from now on, or serves it with other keys.
    pub fn add_network(&mut self, network: RelayNetwork) {
        self.networks.insert(network.network, network);
    }

    /// Serves a network no longer.
    pub fn remove_network(&mut self, network: NetworkId, now: Now) {
        self.networks.remove(&network);
        self.loads.remove(&network);
        self.newest.forget(network);
        self.timing.forget(network);
        self.forget_mesh(network);
        self.end_members(network, now, |_| Err(Refusal::NetworkRemoved));
    }

    /// Takes note of what the network taught about the relay's clock.
    pub fn set_clock_offset(&mut self, network: NetworkId, offset: ClockOffset) {
        if let Some(entry) = self.networks.get_mut(&network) {
            entry.clock_offset = offset;
        }
    }

    /// Fills messages up as the network wishes, to those who pass over padding.
    pub fn set_padding(&mut self, network: NetworkId, padding: Padding) {
        let Some(entry) = self.networks.get_mut(&network) else { return };
        entry.padding = padding;
        for connection in self.connections.values_mut().filter(|c| c.network == network) {
            connection.link.outbound.set_padding(padding);
        }
        self.pad_dialled(network, padding);
    }

    /// Takes note of who is no member any more, and detaches them at once.
    pub fn set_revocations(&mut self, network: NetworkId, revocations: &Revocations, now: Now) {
        let Some(entry) = self.networks.get_mut(&network) else { return };
        let place = |list: &Revocations| (list.number(), list.head());
        if place(&entry.revocations) == place(revocations) {
            return;
        }
        entry.revocations = revocations.clone();
        self.end_members(network, now, |attached| {
            let is_revoked = attached.targets.iter().any(|target| revocations.contains(target));
            if is_revoked { Err(Refusal::Revoked) } else { Ok(()) }
        });
    }

    /// Takes note of the numbers of members' bindings, so that none attaches by an older one.
    pub fn set_bindings(
        &mut self,
        network: NetworkId,
        numbers: impl IntoIterator<Item = (DeviceId, u64)>,
    ) {
        let numbers = numbers.into_iter();
        numbers.for_each(|(device, number)| self.newest.note_binding((network, device), number));
    }

    /// The network to which a request path belongs, if to any.
    #[must_use]
    pub fn recognise(&self, path: &str) -> Option<Recognised> {
        self.networks.values().find_map(|entry| {
            let mask = entry.path_secret.recognise(Service::Relay, path)?;
            Some(Recognised { network: entry.network, mask, path: path.to_owned() })
        })
    }

    /// Takes a freshly accepted connection from `source`.
    ///
    /// # Errors
    ///
    /// See [`TurnedAway`].
    pub fn handle_open(
        &mut self,
        recognised: Recognised,
        source: IpAddr,
        now: Now,
    ) -> Result<ConnectionId, TurnedAway> {
        let room = self.make_room(&recognised.path, source, now.instant);
        room.inspect_err(|_| self.loads.entry(recognised.network).or_default().strangers += 1)?;
        let entry = self.networks.get(&recognised.network).ok_or(TurnedAway::NetworkRemoved)?;
        let config = ResponderConfig {
            static_key: entry.static_key.clone(),
            prologue: entry.network.as_bytes().to_vec(),
            mask: recognised.mask,
            capability: self.capability,
            replay: self.replay.clone(),
        };
        let channel = Channel::respond(config, now);
        let place = (entry.network, entry.relay);
        let mut connection = Connection::new(place, channel, &self.limits, now.instant);
        connection.link.outbound.set_padding(entry.padding);
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        self.connections.insert(id, connection);
        self.strangers.insert(id, source, recognised.path, now.instant);
        self.touch(id, now.instant);
        Ok(id)
    }

    /// Takes one binary WebSocket message of a client or another relay, without copying it if nobody else holds it.
    pub fn handle_message(
        &mut self,
        id: ConnectionId,
        message: impl Into<Bytes>,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        let message = message.into().into();
        let Some(connection) = self.connections.get_mut(&id) else {
            return self.handle_dialled_message(id, message, rng, now);
        };
        if matches!(connection.stage, Stage::Closing) {
            return;
        }
        let now = self.networks.get(&connection.network).map_or(now, |entry| entry.time(now));
        let before = connection.link.control_received;
        connection.link.handle_message(message, rng, now);
        let control = connection.link.control_received - before;
        if control > 0 && !connection.control.take(control, now.instant) {
            return self.close(id, CloseReason::ControlFlood);
        }
        self.drain_link(id, rng, now);
        self.touch(id, now.instant);
    }

    /// Forgets a connection that is closed.
    pub fn handle_closed(&mut self, id: ConnectionId, now: Instant) {
        self.last_now = Some(now);
        self.handle_dialled_closed(id, now);
        self.detach(id);
        self.connections.remove(&id);
        self.timers.disarm(id);
        self.ready.remove(&id);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Now) {
        self.last_now = Some(now.instant);
        while let Some(id) = self.timers.pop_due(now.instant) {
            self.handle_dialled_timeout(id, rng, now);
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let ended = connection.deadline().filter(|(at, _)| now.instant >= *at);
            match ended {
                Some((_, CloseReason::Refused(refusal))) => {
                    self.refuse(id, refusal, now.instant);
                    continue;
                }
                Some((_, reason)) => {
                    self.close(id, reason);
                    continue;
                }
                None => {}
            }
            let now = self.networks.get(&connection.network).map_or(now, |entry| entry.time(now));
            let wall = UnixTime(now.wall.as_secs());
            if connection.attached().is_some_and(|attached| wall >= attached.not_after) {
                self.refuse(id, Refusal::Expired, now.instant);
                continue;
            }
            connection.link.handle_timeout(rng, now);
            self.drain_link(id, rng, now);
            self.touch(id, now.instant);
        }
        self.handle_mesh_timeout(now);
    }

    /// The next binary WebSocket message for a client or another relay.
    #[must_use]
    pub fn poll_message(&mut self, id: ConnectionId, now: Instant) -> Option<BytesMut> {
        let Neighbours { meshes, dialled, .. } = &mut self.neighbours;
        let (network, link) = match self.connections.get_mut(&id) {
            Some(connection) => (connection.network, &mut connection.link),
            None => dialled.get_mut(&id)?.link()?,
        };
        if link.is_idle()
            && let Some(message) = meshes.get_mut(&network).and_then(|mesh| mesh.poll_message(id))
        {
            link.outbound.push_mesh(&message, now);
        }
        let dropped = link.outbound.dropped();
        let message = link.poll_message(now);
        let dropped = link.outbound.dropped() - dropped;
        if let Some(at) = link.outbound.poll_timeout() {
            self.timing.bring_forward(at);
            self.timers.arm(id, at);
        }
        self.loads.entry(network).or_default().frames_dropped += dropped;
        message
    }

    /// Closes the connection of a device from which nothing comes back.
    pub fn give_up(&mut self, network: NetworkId, device: DeviceId, now: Instant) {
        if let Some(id) = self.attached.get(&(network, device)).copied() {
            self.close(id, CloseReason::Unresponsive);
            self.last_now = Some(now);
        }
    }

    /// Answers a [`ServerEvent::CircuitWanted`].
    pub fn answer_circuit(
        &mut self,
        id: ConnectionId,
        (peer, offer): (DeviceId, Option<&CircuitOffer>),
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.attached().is_some() {
            let answer = Message::Circuit(peer, offer.map(Into::into));
            connection.link.send(&answer, MessageClass::Heartbeat, now);
            self.touch(id, now);
        }
    }

    /// A connection that has got something to send.
    #[must_use]
    pub fn poll_ready(&mut self) -> Option<ConnectionId> {
        self.ready.pop_first()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called next, and for what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match self.last_now {
            Some(now) if !self.events.is_empty() || !self.ready.is_empty() => {
                Some((now, "output is queued"))
            }
            Some(_) | None => {
                [self.timers.next(), self.poll_mesh_timeout()].into_iter().flatten().min()
            }
        }
    }

    fn make_room(&mut self, path: &str, source: IpAddr, now: Instant) -> Result<(), TurnedAway> {
        if self.connections.len() >= self.limits.connections {
            return Err(TurnedAway::Full);
        }
        if self.strangers.is_crowded(path) {
            return Err(TurnedAway::SamePath);
        }
        if self.strangers.len() >= self.limits.unattached {
            let displaced = self.strangers.to_displace(source, now).ok_or(TurnedAway::Full)?;
            self.close(displaced, CloseReason::Displaced);
        }
        Ok(())
    }

    fn drain_link(&mut self, id: ConnectionId, rng: &mut dyn CryptoRng, now: Now) {
        while let Some(connection) = self.connections.get_mut(&id) {
            if matches!(connection.stage, Stage::Closing) {
                return;
            }
            let Some(event) = connection.link.poll_event() else { return };
            match event {
                LinkEvent::Established { remote_static, capability } => {
                    connection.stage = Stage::Established { remote_static, capability };
                }
                LinkEvent::Dummy => {
                    // The link has counted how long it is; there is nothing to drop.
                    connection.admit(0, now.instant);
                }
                LinkEvent::Frame(receiver, frame) => {
                    self.forward(id, receiver, frame, now.instant);
                }
                LinkEvent::Carried(_) | LinkEvent::Mesh(_)
                    if !connection.attached().is_some_and(|attached| attached.is_relay) =>
                {
                    self.close(id, LinkError::Protocol("a device is no relay").into());
                }
                LinkEvent::Carried(frame) | LinkEvent::Mesh(frame)
                    if !connection.admit(frame.len() as u64, now.instant) =>
                {
                    self.loads.entry(connection.network).or_default().frames_dropped += 1;
                }
                LinkEvent::Carried(frame) => {
                    let network = connection.network;
                    self.handle_carried(id, network, frame, now.instant);
                }
                LinkEvent::Mesh(frame) => {
                    let network = connection.network;
                    self.handle_mesh(id, network, &frame, now);
                }
                LinkEvent::Message(message) => self.handle_control(id, message, rng, now),
                LinkEvent::Failed(error) => self.close(id, error.into()),
                LinkEvent::Rotated | LinkEvent::RotationAbandoned | LinkEvent::ClockSkew { .. } => {
                }
            }
        }
    }

    fn handle_control(
        &mut self,
        id: ConnectionId,
        message: Message,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match (message, &connection.stage) {
            (Message::Attach(attach), Stage::Established { .. }) => {
                self.attach(id, &attach, rng, now);
            }
            (Message::Renew(chain), Stage::Attached(_)) => {
                let entry = self.networks.get(&connection.network);
                let wall = UnixTime(now.wall.as_secs());
                let renewed = entry.map(|entry| connection.renew(&chain, entry, wall));
                if let Some(Err(refusal)) = renewed {
                    self.refuse(id, refusal, now.instant);
                }
            }
            (Message::CircuitRequest(peer), Stage::Attached(attached)) => {
                let (network, device) = (connection.network, attached.device);
                if self.is_revoked(network, peer) {
                    return self.answer_circuit(id, (peer, None), now.instant);
                }
                let wanted = ServerEvent::CircuitWanted { connection: id, network, device, peer };
                self.events.push_back(wanted);
            }
            (
                Message::Attach(_)
                | Message::Attached(_)
                | Message::Refused(_)
                | Message::HopKey(_)
                | Message::Unreachable(_)
                | Message::CircuitRequest(_)
                | Message::Circuit(..)
                | Message::Renew(_),
                _,
            ) => self.close(id, LinkError::Protocol("out of order").into()),
        }
    }

    fn attach(&mut self, id: ConnectionId, attach: &Attach, rng: &mut dyn CryptoRng, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let network = connection.network;
        let verified = match self.networks.get(&network) {
            Some(entry) => connection.verify(attach, entry, now),
            None => Err(Refusal::NetworkRemoved),
        };
        let mut attached = match verified {
            Ok(attached) => attached,
            Err(refusal) => return self.refuse(id, refusal, now.instant),
        };
        let device = attached.device;
        let place = (network, device);
        if !self.newest.admit(place, attached.binding, attached.number) {
            return self.refuse(id, Refusal::Superseded, now.instant);
        }
        attached.before = self.attached.get(&place).copied();
        if let Some(old) = attached.before {
            self.supersede(old, id, now.instant);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let hop_key = HopKey::generate(rng);
        let answer = Message::Attached(*hop_key.as_bytes());
        connection.link.begin_receiving(&HopKey::from_bytes(&attach.hop_key));
        connection.link.send(&answer, MessageClass::Counted, now.instant);
        connection.link.begin_sending(&hop_key, device);
        connection.link.set_plan(self.timing.plan(network), rng, now.instant);
        let (is_relay, before) = (attached.is_relay, attached.before);
        connection.stage = Stage::Attached(Box::new(attached));
        self.attached.insert(place, id);
        self.strangers.remove(id);
        if let Some(mesh) = self.mesh(network, now) {
            if is_relay {
                before.into_iter().for_each(|before| mesh.handle_closed(before));
                mesh.handle_link(id, device, now.instant);
            } else {
                mesh.say_attached(device, attach.attachment.clone());
            }
            self.wake_neighbours(network);
        }
        self.events.push_back(ServerEvent::Attached { connection: id, network, device });
    }

    /// A device has a newer connection: what waits for it goes out over that. What is still on its way here over the
    /// old one is forwarded, for as long as that takes; one that was old already ends.
    fn supersede(&mut self, old: ConnectionId, new: ConnectionId, now: Instant) {
        let Some(mut older) = self.connections.remove(&old) else { return };
        if let Some(newer) = self.connections.get_mut(&new) {
            newer.link.outbound.take_over(&mut older.link.outbound, now);
        }
        older.ends = Some(now + LINGER);
        let before = older.attached().and_then(|attached| attached.before);
        self.connections.insert(old, older);
        if let Some(before) = before {
            self.refuse(before, Refusal::Superseded, now);
        }
        self.touch(old, now);
    }

    /// Ends the connections of members for whom `check` finds a reason.
    fn end_members(
        &mut self,
        network: NetworkId,
        now: Now,
        check: impl Fn(&Attached) -> Result<(), Refusal>,
    ) {
        let ended: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.network == network)
            .filter_map(|(id, connection)| Some((*id, check(connection.attached()?).err()?)))
            .collect();
        for (id, refusal) in ended {
            self.refuse(id, refusal, now.instant);
        }
    }

    /// Tells a client why it is not served, and closes.
    fn refuse(&mut self, id: ConnectionId, refusal: Refusal, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&id) {
            if let (Some(attached), true) = (connection.attached(), refusal.expels()) {
                let (network, device) = (connection.network, attached.device);
                self.events.push_back(ServerEvent::Expelled { network, device });
            }
            connection.link.send(&Message::Refused(refusal), MessageClass::Heartbeat, now);
        }
        self.close(id, refusal.into());
        self.last_now = Some(now);
    }

    fn close(&mut self, id: ConnectionId, reason: CloseReason) {
        self.detach(id);
        self.timers.disarm(id);
        if let Some(connection) = self.connections.get_mut(&id) {
            let load = self.loads.entry(connection.network).or_default();
            match reason {
                CloseReason::NotAttached | CloseReason::Displaced => load.strangers += 1,
                CloseReason::Link(_) => load.broken += 1,
                CloseReason::Refused(Refusal::NotMember | Refusal::Revoked) => load.refused += 1,
                // What happens to members, too.
                CloseReason::Refused(_)
                | CloseReason::NotReading
                | CloseReason::Unneeded
                | CloseReason::Unresponsive => {}
                CloseReason::ControlFlood => load.floods += 1,
            }
            connection.stage = Stage::Closing;
            connection.link.outbound.release();
            self.ready.insert(id);
            self.events.push_back(ServerEvent::Close { connection: id, reason });
        }
    }

    fn is_revoked(&self, network: NetworkId, device: DeviceId) -> bool {
        let target = RevocationTarget::Device(device);
        self.networks.get(&network).is_some_and(|entry| entry.revocations.contains(&target))
    }

    fn detach(&mut self, id: ConnectionId) {
        self.strangers.remove(id);
        let Some(connection) = self.connections.get(&id) else { return };
        let Some(attached) = connection.attached() else { return };
        let (network, device, is_relay) = (connection.network, attached.device, attached.is_relay);
        if is_relay {
            self.handle_link_closed(id, network);
        }
        if self.attached.get(&(network, device)) == Some(&id) {
            self.attached.remove(&(network, device));
            if !is_relay {
                self.say_detached(network, device);
            }
            self.events.push_back(ServerEvent::Detached { network, device });
        }
    }

    /// Arms the timer of a connection and notes whether it has something to send.
    fn touch(&mut self, id: ConnectionId, now: Instant) {
        self.last_now = Some(now);
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.link.outbound.has_message() {
            self.ready.insert(id);
        }
        if matches!(connection.stage, Stage::Closing) {
            return;
        }
        if connection.link.outbound.queued_control() > CONTROL_QUEUE {
            return self.close(id, CloseReason::NotReading);
        }
        let link = connection.link.poll_timeout().map(|(at, _)| at);
        let end = connection.deadline().map(|(at, _)| at);
        let deadline = [link, end].into_iter().flatten().min();
        if let Some(at) = deadline {
            self.timers.arm(id, at);
        }
    }
}

impl std::fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayServer")
            .field("networks", &self.networks.len())
            .field("connections", &self.connections.len())
            .field("attached", &self.attached.len())
            .finish_non_exhaustive()
    }
}

//! Links between relays, and the frames that go over them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use frame_proto::payload;
use identity::{CertificateChain, DeviceId, NetworkId};
use noise_channel::{ClockOffset, Now};
use rand_core::CryptoRng;

use super::{RelayServer, flow_of};
use crate::carried::Route;
use crate::client::{ClientConfig, ClientEvent, RelayClient};
use crate::connection::Connection;
use crate::limits::{MESH_CAPABILITY, MESH_HOPS};
use crate::link::LinkError;
use crate::mesh::{Mesh, partners};
use crate::serving::{CloseReason, ConnectionId, ServerEvent};

/// Of two relays the one with the lower id dials; the other does so too if no link has come about after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// The wait before the next attempt, doubled each time.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// The other relays of all networks.
#[derive(Default)]
pub(super) struct Neighbours {
    meshes: BTreeMap<NetworkId, Mesh>,
    /// The links that are to be.
    plans: BTreeMap<(NetworkId, DeviceId), Plan>,
    /// The connections that were opened here.
    dialled: BTreeMap<ConnectionId, Dialled>,
}

/// A link that is to be.
struct Plan {
    due: Instant,
    failures: u32,
    connection: Option<ConnectionId>,
    /// What that relay's clock asks for.
    clock_offset: Option<ClockOffset>,
}

/// A connection that was opened here, or is to be.
struct Dialled {
    network: NetworkId,
    relay: DeviceId,
    client: Option<RelayClient>,
}

impl Neighbours {
    /// Gives a relay that dialled here what is to be said to it, once it has all before that.
    pub(super) fn fill(&mut self, id: ConnectionId, connection: &mut Connection) {
        if connection.link.is_idle()
            && let Some(mesh) = self.meshes.get_mut(&connection.network)
            && let Some(message) = mesh.poll_message(id)
        {
            connection.link.outbound.push_mesh(&message);
        }
    }
}

impl RelayServer {
    /// Takes over which other relays a network has, to keep links to some of them and hand frames on to all.
    pub fn set_relays(
        &mut self,
        network: NetworkId,
        relays: impl IntoIterator<Item = DeviceId>,
        now: Now,
    ) {
        let Some(own) = self.networks.get(&network).map(|entry| entry.relay) else { return };
        let Some(mesh) = self.mesh(network, now) else { return };
        mesh.set_relays(relays);
        let wanted = partners(own, mesh.relays());
        let is_wanted =
            |place: &(NetworkId, DeviceId)| place.0 != network || wanted.contains(&place.1);
        let neighbours = &mut self.neighbours;
        neighbours.plans.retain(|place, _| is_wanted(place));
        let dialled = neighbours.dialled.iter();
        let unwanted: Vec<_> = dialled
            .filter(|(_, dialled)| !is_wanted(&(dialled.network, dialled.relay)))
            .map(|(id, _)| *id)
            .collect();
        for relay in &wanted {
            let due = if own < *relay { now.instant } else { now.instant + PATIENCE };
            let plan = Plan { due, failures: 0, connection: None, clock_offset: None };
            neighbours.plans.entry((network, *relay)).or_insert(plan);
        }
        unwanted.into_iter().for_each(|id| self.end_dialled(id, CloseReason::Unneeded));
        self.wake_neighbours(network);
        self.last_now = Some(now.instant);
    }

    /// A connection that [`ServerEvent::Dial`] asked for is open.
    pub fn handle_dialled(
        &mut self,
        id: ConnectionId,
        config: ClientConfig,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        let padding = self.networks.get(&config.network).map(|entry| entry.padding);
        let neighbours = &mut self.neighbours;
        let Some(dialled) = neighbours.dialled.get_mut(&id) else { return };
        if !neighbours.plans.contains_key(&(dialled.network, dialled.relay)) {
            return self.end_dialled(id, CloseReason::Unneeded);
        }
        match RelayClient::new(ClientConfig { is_relay: true, ..config }, rng, now) {
            Ok(mut client) => {
                client.set_padding(padding.unwrap_or_default());
                dialled.client = Some(client);
                self.drain_dialled(id, now);
            }
            Err(error) => self.end_dialled(id, LinkError::from(error).into()),
        }
    }

    /// Has other relays hand frames on over this one only if they are for who is attached here.
    pub fn set_draining(&mut self, network: NetworkId, draining: bool) {
        if let Some(mesh) = self.neighbours.meshes.get_mut(&network) {
            mesh.set_draining(draining);
            self.wake_neighbours(network);
        }
    }

    /// Shows other relays a renewed membership of this one.
    pub fn renew(&mut self, network: NetworkId, chain: &CertificateChain, now: Instant) {
        for (id, dialled) in &mut self.neighbours.dialled {
            if let Some(client) = dialled.client.as_mut().filter(|_| dialled.network == network) {
                client.renew(chain.clone(), now);
                self.ready.insert(*id);
            }
        }
        self.last_now = Some(now);
    }

    /// How many other relays of a network can be reached, and how many devices are attached to them.
    #[must_use]
    pub fn reach(&mut self, network: NetworkId) -> (usize, usize) {
        self.neighbours.meshes.get_mut(&network).map(Mesh::reach).unwrap_or_default()
    }

    /// A network's other relays, unless this is the end of a device's own streams.
    pub(super) fn mesh(&mut self, network: NetworkId, now: Now) -> Option<&mut Mesh> {
        let entry = self.networks.get(&network).filter(|_| self.arrived.is_none())?;
        let mesh = || Mesh::new(network, entry.relay, entry.time(now).wall);
        Some(self.neighbours.meshes.entry(network).or_insert_with(mesh))
    }

    /// Tells other relays that a device is not here any more.
    pub(super) fn say_detached(&mut self, network: NetworkId, device: DeviceId) {
        if let Some(mesh) = self.neighbours.meshes.get_mut(&network) {
            mesh.say_detached(device);
            self.wake_neighbours(network);
        }
    }

    /// Whether a connection was opened here.
    pub(super) fn is_dialled(&self, id: ConnectionId) -> bool {
        self.neighbours.dialled.contains_key(&id)
    }

    /// Forgets a network.
    pub(super) fn forget_mesh(&mut self, network: NetworkId) {
        self.neighbours.meshes.remove(&network);
        self.neighbours.plans.retain(|(of, _), _| *of != network);
        let dialled = self.neighbours.dialled.iter();
        let ended: Vec<_> =
            dialled.filter(|(_, dialled)| dialled.network == network).map(|(id, _)| *id).collect();
        ended.into_iter().for_each(|id| self.end_dialled(id, CloseReason::Unneeded));
    }

    /// Fills messages to other relays up as the network wishes.
    pub(super) fn pad_dialled(&mut self, network: NetworkId, padding: identity::Padding) {
        let dialled = self.neighbours.dialled.values_mut();
        let clients = dialled.filter(|dialled| dialled.network == network);
        clients.filter_map(|dialled| dialled.client.as_mut()).for_each(|client| {
            client.set_padding(padding);
        });
    }

    pub(super) fn handle_dialled_message(
        &mut self,
        id: ConnectionId,
        message: BytesMut,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        if let Some(Dialled { client: Some(client), .. }) = self.neighbours.dialled.get_mut(&id) {
            client.handle_message(message, rng, now);
            self.drain_dialled(id, now);
        }
    }

    /// A connection between relays is no more, whoever opened it.
    pub(super) fn handle_link_closed(&mut self, id: ConnectionId, network: NetworkId) {
        if let Some(mesh) = self.neighbours.meshes.get_mut(&network) {
            mesh.handle_closed(id);
            self.wake_neighbours(network);
        }
    }

    /// A connection that was opened here has ended, or could not be opened.
    pub(super) fn handle_dialled_closed(&mut self, id: ConnectionId, now: Instant) {
        let Some(dialled) = self.neighbours.dialled.remove(&id) else { return };
        if let Some(plan) = self.neighbours.plans.get_mut(&(dialled.network, dialled.relay)) {
            let wait = RETRY_FIRST.saturating_mul(1 << plan.failures.min(6)).min(RETRY_LONGEST);
            (plan.connection, plan.due, plan.failures) = (None, now + wait, plan.failures + 1);
        }
        self.handle_link_closed(id, dialled.network);
    }

    pub(super) fn handle_dialled_timeout(
        &mut self,
        id: ConnectionId,
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        if let Some(Dialled { client: Some(client), .. }) = self.neighbours.dialled.get_mut(&id) {
            client.handle_timeout(rng, now);
            self.drain_dialled(id, now);
        }
    }

    /// Dials and pings what is due.
    pub(super) fn handle_mesh_timeout(&mut self, now: Now) {
        let due = self.neighbours.plans.iter().filter(|(_, plan)| plan.is_due(now.instant));
        for (network, relay) in due.map(|(place, _)| *place).collect::<Vec<_>>() {
            let mesh = self.neighbours.meshes.get(&network);
            let Some(plan) = self.neighbours.plans.get_mut(&(network, relay)) else { continue };
            if mesh.is_some_and(|mesh| mesh.is_linked(relay)) {
                plan.due = now.instant + PATIENCE;
                continue;
            }
            let id = ConnectionId(self.next_id);
            self.next_id += 1;
            plan.connection = Some(id);
            self.neighbours.dialled.insert(id, Dialled { network, relay, client: None });
            let clock_offset = plan.clock_offset;
            self.events.push_back(ServerEvent::Dial {
                connection: id,
                network,
                relay,
                clock_offset,
            });
        }
        let networks: Vec<_> = self.neighbours.meshes.keys().copied().collect();
        for network in networks {
            let mesh = self.neighbours.meshes.get_mut(&network);
            if let Some(mesh) =
                mesh.filter(|mesh| mesh.poll_timeout().is_some_and(|at| at <= now.instant))
            {
                mesh.handle_timeout(now.instant);
                self.wake_neighbours(network);
            }
        }
    }

    pub(super) fn poll_mesh_timeout(&self) -> Option<(Instant, &'static str)> {
        let pings = self.neighbours.meshes.values().filter_map(Mesh::poll_timeout);
        let pings = pings.map(|at| (at, "ping other relays"));
        let plans = self.neighbours.plans.values().filter(|plan| plan.connection.is_none());
        pings.chain(plans.map(|plan| (plan.due, "dial another relay"))).min()
    }

    /// The next message for a relay that was dialled.
    pub(super) fn poll_dialled(&mut self, id: ConnectionId, now: Instant) -> Option<BytesMut> {
        let Dialled { network, client, .. } = self.neighbours.dialled.get_mut(&id)?;
        let client = client.as_mut()?;
        if client.is_idle()
            && let Some(mesh) = self.neighbours.meshes.get_mut(network)
            && let Some(message) = mesh.poll_message(id)
        {
            client.say(&message);
        }
        client.poll_message(now)
    }

    /// Has writers ask for what is to be said to other relays.
    pub(super) fn wake_neighbours(&mut self, network: NetworkId) {
        if let Some(mesh) = self.neighbours.meshes.get(&network) {
            self.ready.extend(mesh.ready());
        }
    }

    /// Takes what another relay says over a link; closes one that speaks otherwise.
    pub(super) fn handle_mesh(
        &mut self,
        id: ConnectionId,
        network: NetworkId,
        frame: &[u8],
        now: Now,
    ) {
        let wall = self.networks.get(&network).map_or(now, |entry| entry.time(now)).wall;
        let Some(mesh) = self.neighbours.meshes.get_mut(&network) else { return };
        if mesh.handle_message(id, payload(frame), (now.instant, wall)) {
            self.wake_neighbours(network);
        } else {
            self.close_link(id, LinkError::Protocol("a message that no relay can read"));
        }
    }

    /// Takes a frame that another relay hands on.
    pub(super) fn handle_carried(
        &mut self,
        id: ConnectionId,
        network: NetworkId,
        carried: BytesMut,
        now: Instant,
    ) {
        let Some((route, sender, frame)) = Route::unwrap(carried) else {
            return self.close_link(id, LinkError::Protocol("a route to nowhere"));
        };
        let size = frame.len() as u64;
        self.loads.entry(network).or_default().bytes_received += size;
        if let Some(to) = self.attached.get(&(network, route.receiver)).copied() {
            return self.deliver(to, (sender, frame), now);
        }
        let onwards = route.hops.checked_sub(1).map(|hops| Route { hops, ..route });
        let is_handed_on = onwards
            .is_some_and(|route| self.hand_on((network, route), Some(id), (sender, &frame), now));
        if !is_handed_on {
            self.loads.entry(network).or_default().frames_dropped += 1;
        }
    }

    /// The route of a frame whose sender is attached here and whose receiver is not.
    pub(super) const fn route(receiver: DeviceId) -> Route {
        Route { hops: MESH_HOPS - 1, receiver }
    }

    /// Hands a frame on to the next relay on the way to where its receiver is; false if there is none.
    pub(super) fn hand_on(
        &mut self,
        (network, route): (NetworkId, Route),
        from: Option<ConnectionId>,
        (sender, frame): (DeviceId, &[u8]),
        now: Instant,
    ) -> bool {
        let mesh = self.neighbours.meshes.get_mut(&network);
        let Some((link, next)) = mesh.and_then(|mesh| mesh.next_hop(route.receiver, from)) else {
            return false;
        };
        let (flow, carried) = (flow_of(sender, frame), route.wrap(next, frame));
        let load = self.loads.entry(network).or_default();
        load.bytes_forwarded += frame.len() as u64;
        if let Some(Dialled { client, .. }) = self.neighbours.dialled.get_mut(&link) {
            let Some(client) = client else { return false };
            let before = client.dropped();
            client.carry(flow, carried, now);
            load.frames_dropped += client.dropped() - before;
        } else if let Some(connection) = self.connections.get_mut(&link) {
            let before = connection.link.outbound.dropped();
            connection.link.outbound.push_frame(flow, carried, now);
            load.frames_dropped += connection.link.outbound.dropped() - before;
        }
        self.ready.insert(link);
        true
    }

    fn drain_dialled(&mut self, id: ConnectionId, now: Now) {
        loop {
            let Some(dialled) = self.neighbours.dialled.get_mut(&id) else { return };
            let (network, relay) = (dialled.network, dialled.relay);
            let Some(client) = &mut dialled.client else { return };
            let Some(event) = client.poll_event() else {
                if let Some((at, _)) = client.poll_timeout() {
                    self.timers.arm(id, at);
                }
                if client.has_message() {
                    self.ready.insert(id);
                }
                self.last_now = Some(now.instant);
                return;
            };
            match event {
                ClientEvent::Attached { capability } if capability >= MESH_CAPABILITY => {
                    if let Some(plan) = self.neighbours.plans.get_mut(&(network, relay)) {
                        plan.failures = 0;
                    }
                    if let Some(mesh) = self.neighbours.meshes.get_mut(&network) {
                        mesh.handle_link(id, relay, now.instant);
                        self.wake_neighbours(network);
                    }
                }
                ClientEvent::Attached { .. } => {
                    let error = LinkError::Protocol("a relay of an older version");
                    self.end_dialled(id, error.into());
                }
                ClientEvent::Carried(frame) => self.handle_carried(id, network, frame, now.instant),
                ClientEvent::Mesh(frame) => self.handle_mesh(id, network, &frame, now),
                ClientEvent::ClockSkew { offset, .. } => {
                    if let Some(plan) = self.neighbours.plans.get_mut(&(network, relay)) {
                        plan.clock_offset = Some(offset);
                    }
                    let error = LinkError::Protocol("the relay has another time");
                    self.end_dialled(id, error.into());
                }
                ClientEvent::Refused(refusal) => self.end_dialled(id, refusal.into()),
                ClientEvent::Failed(error) => self.end_dialled(id, error.into()),
                // A relay is nobody's peer.
                ClientEvent::Frame(_)
                | ClientEvent::Unreachable(_)
                | ClientEvent::Rotated
                | ClientEvent::RotationAbandoned => {}
            }
        }
    }

    fn close_link(&mut self, id: ConnectionId, error: LinkError) {
        if self.is_dialled(id) {
            self.end_dialled(id, error.into());
        } else {
            self.close(id, error.into());
        }
    }

    /// Has a connection that was opened here closed; it is forgotten when that has happened.
    fn end_dialled(&mut self, id: ConnectionId, reason: CloseReason) {
        let Some(dialled) = self.neighbours.dialled.get_mut(&id) else { return };
        dialled.client = None;
        let network = dialled.network;
        self.timers.disarm(id);
        self.handle_link_closed(id, network);
        self.ready.insert(id);
        self.events.push_back(ServerEvent::Close { connection: id, reason });
    }
}

impl Plan {
    fn is_due(&self, now: Instant) -> bool {
        self.connection.is_none() && self.due <= now
    }
}

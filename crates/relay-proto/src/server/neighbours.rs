//! Links between relays, and what relays say over them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use frame_proto::payload;
use identity::{CertificateChain, DeviceId, NetworkId, Padding};
use noise_channel::{ClockOffset, Now};
use rand_core::CryptoRng;

use super::RelayServer;
use crate::client::{ClientConfig, ClientEvent, RelayClient};
use crate::limits::MESH_CAPABILITY;
use crate::link::{Link, LinkError};
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
    pub(super) meshes: BTreeMap<NetworkId, Mesh>,
    /// The links that are to be.
    plans: BTreeMap<(NetworkId, DeviceId), Plan>,
    /// The connections that were opened here.
    pub(super) dialled: BTreeMap<ConnectionId, Dialled>,
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
pub(super) struct Dialled {
    network: NetworkId,
    relay: DeviceId,
    client: Option<RelayClient>,
}

impl Dialled {
    /// Its network, and the link once there is one.
    pub(super) fn link(&mut self) -> Option<(NetworkId, &mut Link)> {
        let network = self.network;
        self.client.as_mut().map(|client| (network, &mut client.link))
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
        let Some(entry) = self.networks.get(&network) else { return };
        let (own, is_private) = (entry.relay, !entry.groups.is_empty());
        let Some(mesh) = self.mesh(network, now) else { return };
        mesh.set_private(is_private);
        if !mesh.set_relays(relays) {
            return;
        }
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
        let plan = self.timing.plan(config.network);
        let neighbours = &mut self.neighbours;
        let Some(dialled) = neighbours.dialled.get_mut(&id) else { return };
        if !neighbours.plans.contains_key(&(dialled.network, dialled.relay)) {
            return self.end_dialled(id, CloseReason::Unneeded);
        }
        match RelayClient::new(ClientConfig { is_relay: true, ..config }, rng, now) {
            Ok(mut client) => {
                client.set_padding(padding.unwrap_or_default());
                client.set_shaping(plan, rng, now.instant);
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
    pub(super) fn pad_dialled(&mut self, network: NetworkId, padding: Padding) {
        let dialled = self.neighbours.dialled.values_mut();
        let clients = dialled.filter(|dialled| dialled.network == network);
        clients.filter_map(|dialled| dialled.client.as_mut()).for_each(|client| {
            client.set_padding(padding);
        });
    }

    /// Has messages to other relays leave as the network's plan says.
    pub(super) fn shape_dialled(
        &mut self,
        network: NetworkId,
        plan: Option<&shaping::Plan>,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) {
        let dialled = self.neighbours.dialled.iter_mut();
        for (id, dialled) in dialled.filter(|(_, dialled)| dialled.network == network) {
            if let Some(client) = &mut dialled.client {
                client.set_shaping(plan.cloned(), rng, now);
                self.ready.insert(*id);
            }
        }
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
                | ClientEvent::Circuit(..)
                | ClientEvent::Rotated
                | ClientEvent::RotationAbandoned => {}
            }
        }
    }

    pub(super) fn close_link(&mut self, id: ConnectionId, error: LinkError) {
        if self.neighbours.dialled.contains_key(&id) {
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

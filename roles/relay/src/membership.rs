//! A relay that is a member of a network by an invite.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use control_proto::limits::LOAD_REPORT_INTERVAL;
use control_proto::{
    Admission, ClientConfig, ClientEvent, ClientStatus, ConnectionId, ConnectionRefusal,
    ControlClient, NetworkMap, RelayHealth, Repeats, SecurityEvent, StreamAction,
};
use identity::{
    CertificateChain, DeviceId, DeviceName, GroupName, Invite, NetworkId, Padding, RelayEntry,
    ServerAddress, Shaping, UnixTime,
};
use keystore::{Keystore, KeystoreError};
use noise_channel::{ClockOffset, StaticSecret};
use relay_proto::RelayNetwork;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info, warn};

use crate::draining::{Draining, Wish, until_quiet};
use crate::map_keeper::MapKeeper;
use crate::mesh::{Dial, Links, Proofs};
use crate::secrets::Secrets;
use crate::streams::{StreamEvent, run_stream};
use crate::{Relay, clock};

/// Connections that may come to nothing between two reports without anybody meaning harm: devices lose their networks, and
/// middleboxes break connections.
const FEW_STRANGERS: u64 = 20;

/// Events of connections that wait for the driver; connections wait beyond that.
const EVENTS: usize = 64;

/// How a relay presents itself to its networks, and where it keeps its keys.
#[derive(Debug, Clone)]
pub struct MembershipConfig {
    /// Keeps keys, membership and map.
    pub keystore: Arc<dyn Keystore>,
    /// The name that the relay would like to have.
    pub name: DeviceName,
    /// Where this relay reaches the controller, if not where the invite says.
    pub controllers: Option<Vec<ServerAddress>>,
    /// Where nodes reach the relay, the preferred first.
    pub servers: Vec<ServerAddress>,
    /// Where nodes reach its STUN.
    pub stun: Vec<SocketAddr>,
    /// Where it stands, in words for people.
    pub region: String,
    /// Whom it serves: members of any of these groups; all members if there are none.
    pub groups: Vec<GroupName>,
}

/// Why a relay cannot be a member.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// Keys cannot be read or kept.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
}

/// How a relay stands with one of its networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipStatus {
    /// What the client of the controller says.
    Controller(ClientStatus),
    /// The relay is a member, but not in the group `relay`, so nobody would use it.
    NotARelay,
}

/// A relay's membership of one network, kept up until this is dropped.
#[derive(Debug)]
pub struct Membership {
    network: NetworkId,
    device: DeviceId,
    status: watch::Receiver<MembershipStatus>,
    draining: Draining,
    task: AbortHandle,
}

impl Membership {
    /// Joins the network of an invite, or takes it up again if the relay joined it before. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub fn join(
        relay: &Relay,
        invite: Invite,
        config: MembershipConfig,
    ) -> Result<Self, MembershipError> {
        let keystore = &*config.keystore;
        let secrets = match Secrets::load(invite.network, keystore)? {
            Some(secrets) => secrets,
            None => Secrets::create(&invite, keystore)?,
        };
        let admission = match secrets.chain(keystore)? {
            Some(chain) => Admission::Chain(Box::new(chain)),
            None => Admission::Invite { invite: Box::new(invite), name: config.name.clone() },
        };
        Self::start(relay, secrets, admission, config)
    }

    /// Takes up all memberships of earlier runs.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub fn resume(relay: &Relay, config: &MembershipConfig) -> Result<Vec<Self>, MembershipError> {
        let keystore = &*config.keystore;
        let mut memberships = Vec::new();
        for network in Secrets::networks(keystore)? {
            let Some(secrets) = Secrets::load(network, keystore)? else { continue };
            let Some(chain) = secrets.chain(keystore)? else { continue };
            let admission = Admission::Chain(Box::new(chain));
            memberships.push(Self::start(relay, secrets, admission, config.clone())?);
        }
        Ok(memberships)
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// The relay as a member of it.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// How it stands now.
    #[must_use]
    pub fn status(&self) -> MembershipStatus {
        self.status.borrow().clone()
    }

    /// Waits until the status has changed; false when it never will again.
    pub async fn changed(&mut self) -> bool {
        self.status.changed().await.is_ok()
    }

    /// Sends the network's devices to other relays.
    #[must_use]
    pub const fn draining(&self) -> &Draining {
        &self.draining
    }

    fn start(
        relay: &Relay,
        mut secrets: Secrets,
        admission: Admission,
        config: MembershipConfig,
    ) -> Result<Self, MembershipError> {
        if let Some(controllers) = &config.controllers {
            secrets.controller.servers.clone_from(controllers);
            secrets.controller.follows_records = false;
        }
        let (network, device) = (secrets.network, secrets.device.id());
        let (driver, status) = Driver::new(relay.clone(), secrets, admission, config)?;
        let (draining, asked) = Draining::new(network);
        let task = tokio::spawn(driver.run(asked)).abort_handle();
        Ok(Self { network, device, status, draining, task })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Drives one `ControlClient` with sockets and a clock.
struct Driver {
    relay: Relay,
    config: MembershipConfig,
    secrets: Secrets,
    client: ControlClient,
    streams: BTreeMap<ConnectionId, mpsc::UnboundedSender<Vec<u8>>>,
    events: mpsc::Sender<(ConnectionId, StreamEvent)>,
    incoming: mpsc::Receiver<(ConnectionId, StreamEvent)>,
    status: watch::Sender<MembershipStatus>,
    not_a_relay: bool,
    /// Whether devices are to go to other relays.
    draining: watch::Sender<bool>,
    links: Links,
    clock_offset: ClockOffset,
    map_keeper: MapKeeper,
    repeats: Repeats,
}

impl Driver {
    fn new(
        relay: Relay,
        secrets: Secrets,
        admission: Admission,
        config: MembershipConfig,
    ) -> Result<(Self, watch::Receiver<MembershipStatus>), MembershipError> {
        let (keystore, now) = (&*config.keystore, clock::now());
        let clock_offset = secrets.clock_offset(keystore)?;
        let wall = now.wall.with_offset(clock_offset);
        let map = secrets.map(keystore, UnixTime(wall.as_secs()))?;
        let client = ClientConfig {
            controller: secrets.controller.clone(),
            device_key: secrets.device.clone(),
            channel_key: secrets.channel.clone(),
            binding: secrets.binding(keystore, wall, 0)?,
            admission,
            clock_offset,
        };
        let mut client = ControlClient::new(client, map, now);
        client.offer_relay(
            RelayEntry {
                device: secrets.device.id(),
                channel_key: secrets.channel.public(),
                servers: config.servers.clone(),
                stun: config.stun.clone(),
                region: config.region.clone(),
                groups: config.groups.clone(),
            },
            now.instant,
        );
        let (events, incoming) = mpsc::channel(EVENTS);
        let (status, watched) = watch::channel(MembershipStatus::Controller(client.status()));
        let streams = BTreeMap::new();
        let (not_a_relay, draining) = (false, watch::Sender::new(false));
        let links = Links::new(relay.clone(), &secrets);
        let driver = Self {
            relay,
            config,
            secrets,
            client,
            streams,
            events,
            incoming,
            status,
            not_a_relay,
            draining,
            links,
            clock_offset,
            map_keeper: MapKeeper::default(),
            repeats: Repeats::default(),
        };
        Ok((driver, watched))
    }

    async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        if let Some(chain) = self.client.chain().cloned() {
            self.serve(&chain);
        }
        let mut load = interval(LOAD_REPORT_INTERVAL);
        load.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(error) = self.drain().await {
                warn!(%error, network = %self.secrets.network, "the relay's state cannot be kept");
            }
            self.publish_status();
            if self.client.status() == ClientStatus::Stopped {
                return;
            }
            let wake = self.client.poll_timeout().map(|(at, _)| at);
            tokio::select! {
                Some((connection, event)) = self.incoming.recv() => {
                    self.handle_stream(connection, event);
                }
                () = async {
                    match wake {
                        Some(at) => sleep_until(at.into()).await,
                        None => std::future::pending().await,
                    }
                } => self.client.handle_timeout(&mut clock::rng(), clock::now()),
                () = self.map_keeper.due() => {
                    let keystore = Arc::clone(&self.config.keystore);
                    self.map_keeper.write(keystore, self.entries());
                }
                dial = self.links.next() => {
                    if let Err(error) = self.dial(&dial) {
                        warn!(%error, network = %self.secrets.network, "the relay's state cannot be read");
                        self.links.give_up(&dial);
                    }
                }
                _ = load.tick() => self.report_load(),
                Some(wish) = wishes.recv() => match wish {
                    Wish::Leave(done) => self.begin_to_drain(done),
                    Wish::Return => self.set_draining(false),
                },
            }
        }
    }

    /// Wants no devices any more, and says whether they are gone; they stay if they have nowhere to go, or no controller is
    /// there to tell them.
    fn begin_to_drain(&mut self, done: oneshot::Sender<bool>) {
        let own = self.secrets.device.id();
        let others =
            |(entry, health): (&RelayEntry, RelayHealth)| health.healthy && entry.device != own;
        let is_online = self.client.status() == ClientStatus::Online;
        let can_leave = is_online && self.client.map().relays().any(others);
        self.set_draining(can_leave);
        if !can_leave {
            return;
        }
        let (relay, network) = (self.relay.clone(), self.secrets.network);
        let mut draining = self.draining.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                // Whoever asked may have given up.
                is_quiet = until_quiet(&relay, network) => drop(done.send(is_quiet)),
                _ = draining.wait_for(|draining| !draining) => {}
            }
        });
    }

    fn set_draining(&mut self, draining: bool) {
        if self.draining.send_replace(draining) != draining {
            self.relay.set_draining(self.secrets.network, draining);
            self.report_load();
        }
    }

    fn handle_stream(&mut self, connection: ConnectionId, event: StreamEvent) {
        let (rng, now) = (&mut clock::rng(), clock::now());
        match event {
            StreamEvent::Opened => self.client.handle_opened(connection, rng, now),
            StreamEvent::Message(message) => {
                self.client.handle_message(connection, &message, rng, now);
            }
            StreamEvent::Closed => {
                self.streams.remove(&connection);
                self.client.handle_closed(connection, rng, now);
            }
        }
    }

    async fn drain(&mut self) -> Result<(), KeystoreError> {
        while let Some(action) = self.client.poll_action() {
            match action {
                StreamAction::Dial { connection, server, path } => {
                    let (queue, outgoing) = mpsc::unbounded_channel();
                    self.streams.insert(connection, queue);
                    let events = self.events.clone();
                    tokio::spawn(async move {
                        if let Err(error) =
                            run_stream(connection, &server, path, outgoing, &events).await
                        {
                            debug!(%error, %server, "no connection to the controller");
                        }
                        // A driver that has ended needs no news.
                        let _ = events.send((connection, StreamEvent::Closed)).await;
                    });
                }
                StreamAction::Send { connection, message } => {
                    if let Some(queue) = self.streams.get(&connection) {
                        // A stream that has ended reports so by itself.
                        let _ = queue.send(message);
                    }
                }
                StreamAction::Close { connection } => drop(self.streams.remove(&connection)),
            }
        }
        while let Some(event) = self.client.poll_event() {
            self.handle_event(event).await?;
        }
        Ok(())
    }

    async fn handle_event(&mut self, event: ClientEvent) -> Result<(), KeystoreError> {
        let network = self.secrets.network;
        match event {
            ClientEvent::Connected { pending } => {
                info!(%network, pending, "controller reached");
                // It may have forgotten whether devices are wanted here.
                self.report_load();
            }
            ClientEvent::Renewed => {
                debug!(%network, "controller reached anew");
                self.report_load();
            }
            ClientEvent::Disconnected => debug!(%network, "controller lost"),
            ClientEvent::Membership(chain) => {
                self.keep();
                self.serve(&chain);
                self.relay.renew(network, &chain);
                self.bind(0)?;
            }
            ClientEvent::MapChanged(_) => {
                let map = self.client.map();
                self.relay.set_padding(network, padding(map));
                self.relay.set_shaping(network, &shaping(map));
                self.relay.set_revocations(network, map.revocations());
                self.relay.set_bindings(network, bindings(map));
                self.relay.set_relays(network, relays(map));
                self.map_keeper.note_change();
            }
            ClientEvent::Refused(refusal) => {
                warn!(%network, ?refusal, "the controller refuses the relay");
            }
            ClientEvent::Removed => {
                warn!(%network, "the relay was removed from the network");
                self.relay.remove_network(network);
                self.map_keeper.stop().await;
                self.secrets.forget(&*self.config.keystore)?;
            }
            ClientEvent::ClockWrong { offset } => {
                warn!(%network, milliseconds = offset.0, "the clock is wrong: set it, by NTP for instance");
                self.clock_offset = offset;
                self.relay.set_clock_offset(network, offset);
                self.keep();
                // What seemed to be over, or not to have begun, may count by the right time.
                if let Some(chain) = self.client.chain().cloned() {
                    self.serve(&chain);
                }
                self.bind(0)?;
            }
            ClientEvent::Outdated { number } => self.bind(number)?,
            ClientEvent::Security(event) => {
                let now = clock::now().instant;
                if self.repeats.admit(&event, now) {
                    warn!(%network, ?event, "security event");
                    self.client.report(event, now);
                }
            }
        }
        Ok(())
    }

    /// Keeps at once what is small. What the disk does not take is due with the map; a relay that ends before learns it anew.
    fn keep(&mut self) {
        let entries = self.secrets.small_entries(self.client.chain(), self.clock_offset);
        let keystore = &self.config.keystore;
        let kept = entries.iter().try_for_each(|(name, bytes)| keystore.store(name, bytes));
        if let Err(error) = kept {
            self.map_keeper.note_failure(error);
        }
    }

    /// All that is kept but keys.
    fn entries(&self) -> Vec<(String, Vec<u8>)> {
        let mut entries = self.secrets.small_entries(self.client.chain(), self.clock_offset);
        entries.push((self.secrets.map_name(), self.client.map().to_bytes()));
        entries
    }

    /// Announces the channel key, anew if it is time or the time was wrong.
    fn bind(&mut self, above: u64) -> Result<(), KeystoreError> {
        let now = clock::now();
        let wall = now.wall.with_offset(self.clock_offset);
        let binding = self.secrets.binding(&*self.config.keystore, wall, above)?;
        self.client.set_binding(binding, now.instant);
        Ok(())
    }

    /// Serves the network as far as the chain says that the relay may.
    fn serve(&mut self, chain: &CertificateChain) {
        let network = self.secrets.network;
        let revocations = self.client.map().revocations();
        let wall = self.client.wall(clock::now());
        let member = chain.verify(network, wall, revocations);
        self.not_a_relay = member.as_ref().is_ok_and(|member| !member.is_relay());
        if self.not_a_relay {
            warn!(%network, "this device is not in the group `relay`: invite it as a relay");
        }
        if member.is_ok_and(|member| member.is_relay()) {
            self.relay.add_network(RelayNetwork {
                network,
                relay: self.secrets.device.id(),
                static_key: StaticSecret::from_bytes(*self.secrets.channel.to_bytes()),
                path_secret: self.secrets.controller.path_secret.clone(),
                revocations: revocations.clone(),
                clock_offset: self.clock_offset,
                padding: padding(self.client.map()),
                groups: self.config.groups.clone(),
            });
            self.relay.set_shaping(network, &shaping(self.client.map()));
            self.relay.set_bindings(network, bindings(self.client.map()));
            self.relay.set_relays(network, relays(self.client.map()));
        }
    }

    /// Opens a connection to another relay.
    fn dial(&mut self, dial: &Dial) -> Result<(), KeystoreError> {
        let mut entries = self.client.map().relays().map(|(entry, _)| entry);
        let entry = entries.find(|entry| entry.device == dial.relay).cloned();
        let (Some(chain), Some(entry)) = (self.client.chain().cloned(), entry) else {
            self.links.give_up(dial);
            return Ok(());
        };
        let (secrets, clock_offset) = (&self.secrets, self.clock_offset);
        let wall = clock::now().wall.with_offset(clock_offset);
        let binding = secrets.binding(&*self.config.keystore, wall, 0)?;
        self.links.open(dial, &entry, Proofs { secrets, chain, binding, clock_offset });
        Ok(())
    }

    fn report_load(&mut self) {
        let load = self.relay.take_load(self.secrets.network);
        let report = control_proto::LoadReport {
            attached: load.attached,
            forwarded_bytes: load.bytes_forwarded,
            dropped_frames: load.frames_dropped,
            draining: *self.draining.borrow(),
            cpu_permille: load.cpu_permille,
            busy_permille: self.relay.busy_permille(load.cpu_permille),
        };
        let (relays, devices) = self.relay.reach(self.secrets.network);
        debug!(network = %self.secrets.network, relays, devices, "other relays are reached");
        let now = clock::now().instant;
        self.client.report_load(report, now);
        for (what, count, least) in [
            (ConnectionRefusal::Strangers, load.strangers, FEW_STRANGERS),
            (ConnectionRefusal::Broken, load.broken, FEW_STRANGERS),
            (ConnectionRefusal::NotMember, load.refused, 0),
            (ConnectionRefusal::Flood, load.floods, 0),
        ] {
            if count > least {
                self.client.report(SecurityEvent::ConnectionsRefused { what, count }, now);
            }
        }
        if let Some(event) = self.repeats.poll_suppressed(now) {
            self.client.report(event, now);
        }
    }

    fn publish_status(&self) {
        let status = if self.not_a_relay {
            MembershipStatus::NotARelay
        } else {
            MembershipStatus::Controller(self.client.status())
        };
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }
}

/// The number of each member's newest binding.
fn bindings(map: &NetworkMap) -> impl Iterator<Item = (DeviceId, u64)> {
    map.peers().map(|(device, peer)| (device, peer.binding.number))
}

/// All relays of the network.
fn relays(map: &NetworkMap) -> impl Iterator<Item = DeviceId> {
    map.relays().map(|(entry, _)| entry.device)
}

/// How the network wants messages on streams to be filled up.
fn padding(map: &NetworkMap) -> Padding {
    map.info().map(|info| info.padding).unwrap_or_default()
}

/// When the network wants messages on streams to leave.
fn shaping(map: &NetworkMap) -> Shaping {
    map.info().map(|info| info.shaping.clone()).unwrap_or_default()
}

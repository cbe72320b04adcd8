//! The stack itself: one smoltcp interface, its sockets and the bookkeeping of their lives.
//!
//! A TCP socket is *opening* (a peer's SYN, not yet accepted), *held* (a stream owns it) or
//! *released* (its stream is gone; it lives on until its last bytes are acknowledged). Only the
//! first and the last have deadlines here; smoltcp keeps all protocol timers.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, CongestionControl, State};
use smoltcp::socket::udp;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::device::QueueDevice;
use crate::ingress::{self, Flow};

/// TCP connections that can exist at once, those that are closing included.
pub const MAX_CONNECTIONS: usize = 1024;
/// UDP sockets that can exist at once.
pub const MAX_UDP_SOCKETS: usize = 256;
/// Addresses that the stack can have.
pub const MAX_ADDRESSES: usize = 8;

/// Inbound connections whose handshake is not complete.
const MAX_OPENING: usize = 256;
/// A connection's buffer in each direction while there are few: one Gbit/s at four milliseconds.
const LARGE_BUFFER: usize = 512 * 1024;
/// Connections that get the large buffers; later ones get the small, which bounds all memory.
const LARGE_BUFFERED_CONNECTIONS: usize = 128;
const SMALL_BUFFER: usize = 64 * 1024;
const UDP_BUFFER: usize = 256 * 1024;
const UDP_DATAGRAMS: usize = 256;
/// Half of Linux's five SYN-ACK retries: an honest peer over a working path needs far less.
const OPENING_DEADLINE: Duration = Duration::from_secs(30);
/// How long a connection without an owner may take to deliver its last bytes.
const RELEASED_DEADLINE: Duration = Duration::from_secs(60);
/// TIME-WAIT of connections without an owner: enough for the delayed last acknowledgement.
const LINGER: Duration = Duration::from_millis(250);
/// Probes an idle connection, so that a vanished peer does not hold memory for ever.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// Silence of a peer that owes an answer.
const SILENCE: Duration = Duration::from_secs(300);
/// Floor of a wait that smoltcp wants to be zero although everything has been polled.
const MINIMUM_WAIT: Duration = Duration::from_millis(1);
/// Rounds of packets to ourselves within one turn.
const HAIRPIN_ROUNDS: usize = 16;
const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// A connection that a listener can take: the socket and the peer's address.
pub(crate) type Incoming = (SocketHandle, SocketAddr);

/// How the driver waits after a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// The engine's queue is full: wait for room instead of the deadline.
    pub(crate) blocked: bool,
    /// The time of the next timer.
    pub(crate) deadline: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening(Instant),
    Held,
    Released(Instant),
}

#[derive(Debug)]
struct Connection {
    flow: Flow,
    phase: Phase,
}

pub(crate) struct Core {
    interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    device: QueueDevice,
    arrived: VecDeque<BytesMut>,
    outbound: mpsc::Sender<BytesMut>,
    addresses: Vec<IpAddr>,
    mtu: usize,
    epoch: Instant,
    connections: HashMap<SocketHandle, Connection>,
    flows: HashMap<Flow, SocketHandle>,
    /// The connections that are not held.
    passing: Vec<SocketHandle>,
    listeners: HashMap<u16, mpsc::Sender<Incoming>>,
    udp_sockets: usize,
    next_port: u16,
    stopped: bool,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("addresses", &self.addresses)
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new(
        mtu: usize,
        outbound: mpsc::Sender<BytesMut>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut device = QueueDevice::new(mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let interface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        let span = u64::from(EPHEMERAL_PORTS.end() - EPHEMERAL_PORTS.start());
        let offset = u16::try_from(seed % span).expect("a remainder below the span fits");
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            device,
            arrived: VecDeque::new(),
            outbound,
            addresses: Vec::new(),
            mtu,
            epoch: now,
            connections: HashMap::new(),
            flows: HashMap::new(),
            passing: Vec::new(),
            listeners: HashMap::new(),
            udp_sockets: 0,
            next_port: EPHEMERAL_PORTS.start() + offset,
            stopped: false,
        }
    }

    /// Replaces the stack's own addresses; connections from addresses that are gone end.
    pub(crate) fn set_addresses(&mut self, addresses: &[IpAddr]) {
        self.addresses = addresses
            .iter()
            .copied()
            .filter(|address| !address.is_multicast() && !address.is_unspecified())
            .take(MAX_ADDRESSES)
            .collect();
        let cidrs = self.addresses.iter().map(|&address| {
            let length = if address.is_ipv4() { 32 } else { 128 };
            IpCidr::new(address.into(), length)
        });
        self.interface.update_ip_addrs(|list| {
            list.clear();
            list.extend(cidrs);
        });
    }

    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// The largest UDP payload that one packet to `remote` can carry.
    pub(crate) fn datagram_limit(&self, remote: IpAddr) -> usize {
        self.mtu - if remote.is_ipv4() { 28 } else { 48 }
    }

    /// Begins a connection to `remote`.
    pub(crate) fn connect(&mut self, remote: SocketAddr) -> io::Result<SocketHandle> {
        self.check_running()?;
        if !self.make_room() {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many connections"));
        }
        let Some(source) = self.source_for(remote.ip()) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let (handle, flow) = self.open_flow(source, remote)?;
        self.track(handle, flow, Phase::Held);
        Ok(handle)
    }

    fn open_flow(
        &mut self,
        source: IpAddr,
        remote: SocketAddr,
    ) -> io::Result<(SocketHandle, Flow)> {
        let mut socket = self.new_tcp_socket();
        for _ in EPHEMERAL_PORTS {
            let local = SocketAddr::new(source, self.take_port());
            let flow = Flow { local, remote };
            if self.flows.contains_key(&flow) {
                continue;
            }
            return match socket.connect(
                self.interface.context(),
                IpEndpoint::from(remote),
                IpEndpoint::from(local),
            ) {
                Ok(()) => Ok((self.sockets.add(socket), flow)),
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
            };
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    /// Accepts connections to `port` on every address of the stack.
    pub(crate) fn listen(&mut self, port: u16, queue: mpsc::Sender<Incoming>) -> io::Result<()> {
        self.check_running()?;
        if port == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.listeners.contains_key(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.listeners.insert(port, queue);
        Ok(())
    }

    pub(crate) fn unlisten(&mut self, port: u16) {
        self.listeners.remove(&port);
    }

    /// Opens a UDP socket on `port` of every address; port 0 takes a free one.
    pub(crate) fn bind_udp(&mut self, port: u16) -> io::Result<(SocketHandle, u16)> {
        self.check_running()?;
        if self.udp_sockets >= MAX_UDP_SOCKETS {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many UDP sockets"));
        }
        let port = self.free_udp_port(port)?;
        let ring = || {
            udp::PacketBuffer::new(
                vec![udp::PacketMetadata::EMPTY; UDP_DATAGRAMS],
                vec![0; UDP_BUFFER],
            )
        };
        let mut socket = udp::Socket::new(ring(), ring());
        socket.bind(port).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.udp_sockets += 1;
        Ok((self.sockets.add(socket), port))
    }

    fn free_udp_port(&mut self, wanted: u16) -> io::Result<u16> {
        let taken: Vec<u16> = self
            .sockets
            .iter()
            .filter_map(|(_, socket)| match socket {
                smoltcp::socket::Socket::Udp(socket) => Some(socket.endpoint().port),
                smoltcp::socket::Socket::Tcp(_) => None,
            })
            .collect();
        if wanted != 0 {
            return if taken.contains(&wanted) {
                Err(io::ErrorKind::AddrInUse.into())
            } else {
                Ok(wanted)
            };
        }
        EPHEMERAL_PORTS
            .map(|_| self.take_port())
            .find(|port| !taken.contains(port))
            .ok_or_else(|| io::ErrorKind::AddrInUse.into())
    }

    pub(crate) fn close_udp(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
        self.udp_sockets -= 1;
    }

    pub(crate) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn flow(&self, handle: SocketHandle) -> Flow {
        self.connections.get(&handle).expect("a held socket is tracked until released").flow
    }

    /// Takes over a socket whose stream is gone: finishes it politely unless bytes would be lost.
    pub(crate) fn release(&mut self, handle: SocketHandle, now: Instant) {
        let socket = self.tcp(handle);
        if socket.recv_queue() > 0 || matches!(socket.state(), State::SynSent | State::SynReceived)
        {
            socket.abort();
        } else {
            socket.close();
        }
        let connection =
            self.connections.get_mut(&handle).expect("a held socket is tracked until released");
        connection.phase = Phase::Released(now + RELEASED_DEADLINE);
        self.passing.push(handle);
    }

    /// Queues a packet from the engine.
    pub(crate) fn arrive(&mut self, packet: BytesMut) {
        self.arrived.push_back(packet);
    }

    /// Does everything that can be done at `now`.
    pub(crate) fn turn(&mut self, now: Instant) -> Turn {
        let mut blocked = false;
        for _ in 0..HAIRPIN_ROUNDS {
            while let Some(packet) = self.arrived.pop_front() {
                self.ingest(packet, now);
            }
            self.settle(now);
            blocked = self.egress(now);
            self.settle(now);
            if blocked || self.arrived.is_empty() {
                break;
            }
        }
        Turn { blocked, deadline: self.deadline(now) }
    }

    /// Ends everything: every stream sees a reset.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.listeners.clear();
        for (_, socket) in self.sockets.iter_mut() {
            match socket {
                smoltcp::socket::Socket::Tcp(socket) => socket.abort(),
                smoltcp::socket::Socket::Udp(socket) => socket.close(),
            }
        }
    }

    pub(crate) fn check_running(&self) -> io::Result<()> {
        if self.stopped {
            return Err(io::Error::new(
                io::ErrorKind::NetworkDown,
                "the network stack has stopped",
            ));
        }
        Ok(())
    }

    fn ingest(&mut self, packet: BytesMut, now: Instant) {
        let Some(summary) = ingress::inspect(&packet) else { return };
        if !self.addresses.contains(&summary.destination) {
            return;
        }
        let opened = summary.opens.and_then(|flow| self.prepare(flow, now));
        self.device.offer(packet);
        let timestamp = self.timestamp(now);
        self.interface.poll_ingress_single(timestamp, &mut self.device, &mut self.sockets);
        let Some(handle) = opened else { return };
        if self.tcp(handle).state() == State::Listen {
            self.forget(handle);
        }
    }

    /// Makes the socket that answers a SYN, if somebody listens and there is room.
    fn prepare(&mut self, flow: Flow, now: Instant) -> Option<SocketHandle> {
        let has_place = self.listeners.get(&flow.local.port())?.capacity() > 0;
        let known = self.flows.contains_key(&flow);
        if !has_place || known || self.opening() >= MAX_OPENING || !self.make_room() {
            return None;
        }
        let mut socket = self.new_tcp_socket();
        socket.listen(IpEndpoint::from(flow.local)).ok()?;
        let handle = self.sockets.add(socket);
        self.track(handle, flow, Phase::Opening(now + OPENING_DEADLINE));
        self.passing.push(handle);
        Some(handle)
    }

    /// Makes sure that one more connection may exist, at the cost of the oldest in TIME-WAIT.
    fn make_room(&mut self) -> bool {
        if self.connections.len() < MAX_CONNECTIONS {
            return true;
        }
        let sockets = &self.sockets;
        let oldest = self
            .passing
            .iter()
            .copied()
            .find(|&handle| sockets.get::<tcp::Socket<'_>>(handle).state() == State::TimeWait);
        let Some(handle) = oldest else { return false };
        self.passing.retain(|&other| other != handle);
        self.forget(handle);
        true
    }

    fn opening(&self) -> usize {
        self.passing
            .iter()
            .filter(|handle| {
                self.connections
                    .get(handle)
                    .is_some_and(|connection| matches!(connection.phase, Phase::Opening(_)))
            })
            .count()
    }

    /// Moves connections through the phases that no stream owns.
    fn settle(&mut self, now: Instant) {
        for handle in std::mem::take(&mut self.passing) {
            let Some(connection) = self.connections.get(&handle) else { continue };
            let kept = match connection.phase {
                Phase::Opening(deadline) => self.settle_opening(handle, deadline, now),
                Phase::Released(deadline) => self.settle_released(handle, deadline, now),
                Phase::Held => false,
            };
            if kept {
                self.passing.push(handle);
            }
        }
    }

    fn settle_opening(&mut self, handle: SocketHandle, deadline: Instant, now: Instant) -> bool {
        let flow = self.flow(handle);
        let socket = self.tcp(handle);
        match socket.state() {
            State::Listen | State::SynReceived | State::SynSent if now < deadline => true,
            State::Closed => {
                self.forget_when_silent(handle);
                self.connections.contains_key(&handle)
            }
            State::Established | State::CloseWait => {
                let queue = self.listeners.get(&flow.local.port());
                if queue.is_some_and(|queue| queue.try_send((handle, flow.remote)).is_ok()) {
                    self.set_phase(handle, Phase::Held);
                    return false;
                }
                self.tcp(handle).abort();
                true
            }
            State::Listen
            | State::SynReceived
            | State::SynSent
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                socket.abort();
                true
            }
        }
    }

    fn settle_released(&mut self, handle: SocketHandle, deadline: Instant, now: Instant) -> bool {
        let socket = self.tcp(handle);
        // Bytes that arrive after the owner left have no reader.
        if socket.recv_queue() > 0 {
            socket.abort();
        }
        match socket.state() {
            State::Closed => {
                self.forget_when_silent(handle);
                return self.connections.contains_key(&handle);
            }
            State::TimeWait if now >= deadline => {
                self.forget(handle);
                return false;
            }
            State::TimeWait => {
                if deadline > now + LINGER {
                    self.set_phase(handle, Phase::Released(now + LINGER));
                }
            }
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => {
                if now >= deadline {
                    socket.abort();
                }
            }
        }
        true
    }

    /// Removes a closed socket once it has sent its reset, if it owed one.
    fn forget_when_silent(&mut self, handle: SocketHandle) {
        if self.tcp(handle).remote_endpoint().is_none() || self.stopped {
            self.forget(handle);
        }
    }

    fn forget(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
        if let Some(connection) = self.connections.remove(&handle) {
            self.flows.remove(&connection.flow);
        }
    }

    fn track(&mut self, handle: SocketHandle, flow: Flow, phase: Phase) {
        self.flows.insert(flow, handle);
        self.connections.insert(handle, Connection { flow, phase });
    }

    fn set_phase(&mut self, handle: SocketHandle, phase: Phase) {
        if let Some(connection) = self.connections.get_mut(&handle) {
            connection.phase = phase;
        }
    }

    /// Lets sockets send until nothing is left or the engine's queue is full.
    fn egress(&mut self, now: Instant) -> bool {
        let timestamp = self.timestamp(now);
        self.interface.poll_maintenance(timestamp);
        loop {
            let result = self.interface.poll_egress(timestamp, &mut self.device, &mut self.sockets);
            if !self.hand_over() {
                return true;
            }
            if result == PollResult::None {
                return false;
            }
        }
    }

    /// Gives departing packets to the engine; false when it cannot take all of them.
    fn hand_over(&mut self) -> bool {
        while let Some(packet) = self.device.departing.pop_front() {
            let to_ourselves = ingress::inspect(&packet)
                .is_some_and(|summary| self.addresses.contains(&summary.destination));
            if to_ourselves {
                self.arrived.push_back(packet);
                continue;
            }
            if let Err(mpsc::error::TrySendError::Full(packet)) = self.outbound.try_send(packet) {
                self.device.departing.push_front(packet);
                return false;
            }
        }
        true
    }

    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if !self.arrived.is_empty() {
            return Some(now);
        }
        let timestamp = self.timestamp(now);
        let protocol = self
            .interface
            .poll_delay(timestamp, &self.sockets)
            .map(|delay| now + Duration::from(delay).max(MINIMUM_WAIT));
        let passing =
            self.passing.iter().filter_map(|handle| match self.connections.get(handle)?.phase {
                Phase::Opening(deadline) | Phase::Released(deadline) => {
                    Some(deadline.max(now + MINIMUM_WAIT))
                }
                Phase::Held => None,
            });
        protocol.into_iter().chain(passing).min()
    }

    fn new_tcp_socket(&self) -> tcp::Socket<'static> {
        let size = if self.connections.len() < LARGE_BUFFERED_CONNECTIONS {
            LARGE_BUFFER
        } else {
            SMALL_BUFFER
        };
        let buffer = || tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(KEEP_ALIVE.into()));
        socket.set_timeout(Some(SILENCE.into()));
        socket
    }

    fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let same_family = |address: &&IpAddr| address.is_ipv4() == remote.is_ipv4();
        self.addresses
            .iter()
            .filter(same_family)
            .max_by_key(|address| ingress::common_prefix(**address, remote))
            .copied()
    }

    pub(crate) fn source_address(&self, remote: IpAddr) -> io::Result<IpAddr> {
        self.source_for(remote).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    fn take_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port =
            if port >= *EPHEMERAL_PORTS.end() { *EPHEMERAL_PORTS.start() } else { port + 1 };
        port
    }

    fn timestamp(&self, now: Instant) -> smoltcp::time::Instant {
        let elapsed = now.saturating_duration_since(self.epoch).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }
}

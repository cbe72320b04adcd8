//! What goes into a relay and comes out of it, and what it is bound to.

use identity::{DeviceId, GroupName, Member, NetworkId, Padding, Revocations};
use noise_channel::{ClockOffset, ConnectionMask, Now, PathSecret, StaticSecret};

use crate::Rate;
use crate::limits::{CLIENT_QUEUE_BYTES, CLIENT_QUEUE_FRAMES};
use crate::link::LinkError;
use crate::message::Refusal;

/// What a relay gives its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once that are not attached yet; further ones displace some of these.
    pub unattached: usize,
    /// Bytes of frames that one client may send.
    pub bytes: Rate,
    /// Frames that one client may send.
    pub messages: Rate,
    /// Bytes that wait for one receiver at most.
    pub queue_bytes: usize,
    /// Frames that wait for one receiver at most.
    pub queue_frames: usize,
    /// Pairs of devices between which datagrams are passed on.
    pub circuits: usize,
}

impl Limits {
    /// For a device that listens for its peers alone: each takes a queue like that to a relay, and a
    /// device talks to few at a time.
    #[must_use]
    pub fn of_host() -> Self {
        Self {
            connections: 256,
            unattached: 32,
            queue_bytes: CLIENT_QUEUE_BYTES,
            queue_frames: CLIENT_QUEUE_FRAMES,
            circuits: 0,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    /// For a relay of ten thousand clients: no client can take more than forty gigabits, which is beyond
    /// what one stream brings, nor keep more than two megabytes waiting, which is half of the room and
    /// the window of one TCP flow at a gigabit and 16 ms. With its TLS and buffers a connection costs 20 KB
    /// before it is attached, so strangers get eight megabytes together.
    fn default() -> Self {
        Self {
            connections: 10_000,
            unattached: 400,
            bytes: Rate { per_second: 5_000_000_000, burst: 16_000_000 },
            messages: Rate { per_second: 250_000, burst: 20_000 },
            queue_bytes: 4_000_000,
            queue_frames: usize::MAX,
            circuits: 10_000,
        }
    }
}

/// One network that a relay serves.
#[derive(Debug, Clone)]
pub struct RelayNetwork {
    /// The network.
    pub network: NetworkId,
    /// The relay as a member of it.
    pub relay: DeviceId,
    /// The relay's channel key in it.
    pub static_key: StaticSecret,
    /// Tells the network's connections from noise.
    pub path_secret: PathSecret,
    /// Who is no member any more.
    pub revocations: Revocations,
    /// What to add to the relay's clock to get the network's time.
    pub clock_offset: ClockOffset,
    /// How messages to its members are filled up.
    pub padding: Padding,
    /// Who may attach beside other relays: members of any of these groups; all members if there are none. Other relays hand
    /// nothing on over such a relay but what is for who is attached there, unless there is no other way.
    pub groups: Vec<GroupName>,
}

impl RelayNetwork {
    /// This moment by the network's time.
    pub(crate) const fn time(&self, now: Now) -> Now {
        Now { instant: now.instant, wall: now.wall.with_offset(self.clock_offset) }
    }

    /// Whether a member may attach.
    pub(crate) fn serves(&self, member: &Member) -> bool {
        self.groups.is_empty()
            || member.is_relay()
            || member.groups.iter().any(|group| self.groups.contains(group))
    }
}

/// Names one connection of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

/// A path that belongs to a network; goes into [`RelayServer::handle_open`](crate::RelayServer::handle_open).
#[derive(Debug, Clone)]
pub struct Recognised {
    pub(crate) network: NetworkId,
    pub(crate) mask: ConnectionMask,
    pub(crate) path: String,
}

/// Why a relay does not take a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    /// Everybody who is connected has more of a right to be.
    #[error("the relay has no room for another connection")]
    Full,
    /// As many as a client may have come by the same path.
    #[error("too many connections by one path")]
    SamePath,
    /// The network was removed meanwhile.
    #[error("the relay does not serve this network any more")]
    NetworkRemoved,
}

/// What happened at a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// A device is reachable here.
    Attached {
        /// Its connection.
        connection: ConnectionId,
        /// Its network.
        network: NetworkId,
        /// The device.
        device: DeviceId,
    },
    /// A device is not reachable here any more.
    Detached {
        /// Its network.
        network: NetworkId,
        /// The device.
        device: DeviceId,
    },
    /// A device is served no more: its membership has ended, or the network.
    Expelled {
        /// Its network.
        network: NetworkId,
        /// The device.
        device: DeviceId,
    },
    /// A device sent a frame for somebody else to a host that serves nobody else.
    Misdirected {
        /// Its network.
        network: NetworkId,
        /// The device.
        device: DeviceId,
    },
    /// A device wants datagrams passed on between it and another one:
    /// [`RelayServer::answer_circuit`](crate::RelayServer::answer_circuit) follows.
    CircuitWanted {
        /// Its connection.
        connection: ConnectionId,
        /// Its network.
        network: NetworkId,
        /// The device.
        device: DeviceId,
        /// The other one.
        peer: DeviceId,
    },
    /// Open a connection to another relay of a network, then
    /// [`RelayServer::handle_dialled`](crate::RelayServer::handle_dialled), or
    /// [`RelayServer::handle_closed`](crate::RelayServer::handle_closed) if that fails.
    Dial {
        /// The connection that is to be opened.
        connection: ConnectionId,
        /// Its network.
        network: NetworkId,
        /// The relay.
        relay: DeviceId,
        /// What its clock asked for the last time.
        clock_offset: Option<ClockOffset>,
    },
    /// Send what the connection still has, then close it.
    Close {
        /// The connection, which is forgotten when its closing is handed in.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a relay closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The client is not, or no longer, served.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The link broke.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The client did not attach in time.
    #[error("the client did not attach in time")]
    NotAttached,
    /// The client did not attach, and others wait.
    #[error("the client did not attach and makes way for another")]
    Displaced,
    /// The client sends control messages faster than anybody needs to.
    #[error("the client sends too many control messages")]
    ControlFlood,
    /// Nothing comes back from the client, though another way to it works.
    #[error("the client does not answer over this connection")]
    Unresponsive,
    /// The network has no use for a link to this relay any more.
    #[error("no link to this relay is needed any more")]
    Unneeded,
    /// The client does not read what it asks for.
    #[error("the client does not read")]
    NotReading,
}

//! What goes into an engine and comes out of it, besides packets.

use std::net::{IpAddr, SocketAddr};

use identity::{DeviceId, ServerAddress, Transport};

use crate::ladder::Rung;

/// A datagram to send from the engine's UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub payload: Vec<u8>,
    /// Whether it must not be split on the way: rather be it lost, since it asks how large datagrams pass (`IP_PMTUDISC_PROBE`).
    pub whole: bool,
}

impl Transmit {
    /// A datagram that may be split on the way, as most may.
    #[must_use]
    pub fn new(to: SocketAddr, payload: Vec<u8>) -> Self {
        Self { to, payload, whole: false }
    }
}

/// Names one WebSocket connection. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What the shell does with WebSocket connections for the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamCommand {
    /// Connect; answer with [`Engine::handle_stream_opened`](crate::Engine::handle_stream_opened)
    /// or [`Engine::handle_stream_closed`](crate::Engine::handle_stream_closed).
    Dial {
        /// The new connection.
        stream: StreamId,
        /// Where and how.
        target: DialTarget,
    },
    /// There is something to send: whenever the connection takes a binary message, ask
    /// [`Engine::poll_message`](crate::Engine::poll_message) for it, until that answers nothing.
    /// Asking earlier would move a bounded queue to where nothing is dropped.
    Wake {
        /// Over which connection.
        stream: StreamId,
    },
    /// Close the connection; it is not mentioned again.
    Close {
        /// Which.
        stream: StreamId,
    },
}

/// Names one socket beside the device's own that leads to one address, and the allocation that is made over it if a TURN
/// server is there. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u32);

/// What such a socket leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketTo {
    /// A TURN server, by datagrams or a stream. What the network says of the way there ends the socket.
    Server(Transport),
    /// A peer, by datagrams: the pings say what becomes of it.
    Peer,
}

/// What the shell does with such sockets for the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketCommand {
    /// Open a socket of its own that sends there and receives from nobody else; answer with
    /// [`Engine::handle_socket_opened`](crate::Engine::handle_socket_opened) or
    /// [`Engine::handle_socket_closed`](crate::Engine::handle_socket_closed). What is to be sent before may wait.
    Open {
        /// The new socket.
        socket: SocketId,
        /// Where it leads.
        remote: SocketAddr,
        /// What is there.
        to: SocketTo,
    },
    /// Send a datagram, or bytes of the stream.
    Send {
        /// Over which socket.
        socket: SocketId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close the socket when everything is sent; it is not mentioned again.
    Close {
        /// Which.
        socket: SocketId,
    },
}

/// A WebSocket server, and what a connection to it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialTarget {
    /// Where it is and how it proves who it is.
    pub server: ServerAddress,
    /// The request's path.
    pub path: String,
    /// What the connection is for, for logs.
    pub purpose: Purpose,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The channel to the controller.
    Controller,
    /// The link to this relay.
    Relay(DeviceId),
    /// The link straight to this peer, which listens.
    Peer(DeviceId),
}

/// What of the state is saved by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatePart {
    /// Membership, binding, numbers and times: a few kilobytes, of which nothing is to be had again.
    Own,
    /// The map: up to megabytes, which a controller has as well.
    Map,
}

/// Something that the shell acts upon or shows.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// The interface's addresses or the network's prefixes changed.
    Interface(InterfaceSettings),
    /// The zone for the stub resolver changed; read [`Engine::zone`](crate::Engine::zone).
    ZoneChanged,
    /// Keep these bytes in the keystore and give them to the next
    /// [`EngineConfig`](crate::EngineConfig). The newest of a part replaces all before it.
    Save(StatePart, Vec<u8>),
    /// The state of the connection to the network changed.
    Connection(ConnectionState),
    /// A pong to [`Engine::handle_ping_request`](crate::Engine::handle_ping_request).
    Pong {
        /// The peer that answered.
        peer: DeviceId,
        /// The path of the ping.
        path: path::Path,
        /// The round trip.
        latency: std::time::Duration,
    },
    /// The path to a peer changed.
    Path {
        /// The peer.
        peer: DeviceId,
        /// The decision with its reason.
        decision: path::Decision,
    },
    /// A peer is reached by this now. Where the shell knows one local network from another, it tells of it when this device
    /// is there again: [`Engine::handle_winners`](crate::Engine::handle_winners).
    Won {
        /// The peer.
        peer: DeviceId,
        /// By what.
        rung: Rung,
    },
    /// This device's clock was found to differ by another amount than before from the network's: it
    /// is wrong, or right again. What it differs by is made up for.
    ClockWrong {
        /// What is added to the local clock, in milliseconds.
        offset_ms: i64,
    },
    /// The device was removed from the network, or has left: there is nothing more to do.
    Removed,
    /// Something that whoever runs the network should know of.
    Security(control_proto::SecurityEvent),
}

/// How the TUN, or what stands in its place, has to be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// This device's addresses, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// What is routed into the interface.
    pub routes: Vec<ipnet::IpNet>,
    /// Its MTU.
    pub mtu: usize,
}

/// How a node stands with its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// No connection to the controller; the cached map serves.
    Offline,
    /// The membership waits for somebody's approval.
    AwaitingApproval,
    /// The map is up to date.
    Online,
    /// A connection is being made.
    Connecting,
    /// The network does not want this device: revoked, or an invite that does not count.
    Refused {
        /// What to do about it.
        reason: String,
    },
}

//! What the local API says, as JSON.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A running node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The node's process.
    pub pid: u32,
    /// How packets get in and out.
    pub running: Running,
    /// Where the proxy listens, in userspace mode.
    pub proxy: Option<SocketAddr>,
    /// Whether UDP is used.
    pub udp: bool,
    /// Every network that this device is in.
    pub networks: Vec<NetworkStatus>,
}

/// How packets get in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Running {
    /// Through a TUN interface.
    Tun,
    /// Through the userspace stack, since the settings say so.
    Userspace,
    /// Through the userspace stack, for want of the privilege or the device for a TUN interface.
    UserspaceWithoutPrivilege,
}

/// A network as this device sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The network's id.
    pub id: String,
    /// The network's name.
    pub name: String,
    /// This device's id.
    pub device: String,
    /// This device's name; empty before it has joined.
    pub device_name: String,
    /// The zone of its names, such as `home.alt`.
    pub zone: String,
    /// This device's addresses.
    pub addresses: Vec<IpAddr>,
    /// The TUN interface, where there is one.
    pub interface: Option<String>,
    /// How this device stands with the network.
    pub membership: Membership,
    /// Seconds that this device's clock lacks, or has too much if below zero, when it is so wrong that
    /// the network had to make up for it.
    pub clock_offset_seconds: Option<i64>,
    /// What to do when it does not stand well, and what else is wrong.
    pub advice: Vec<String>,
    /// Who may connect to this device, and to what.
    pub inbound: String,
    /// How devices are admitted, and by whom.
    pub admission: String,
    /// Whether the controller by itself could admit devices; nothing before it was reached once.
    pub controller_admits: Option<bool>,
    /// The relays that this device is attached to.
    pub relays: Vec<String>,
    /// The TURN servers.
    #[serde(default)]
    pub turn: Vec<TurnCheck>,
    /// Between how many pairs of other members this device passes datagrams on.
    #[serde(default)]
    pub passed: usize,
    /// Every other member, by name.
    pub peers: Vec<PeerStatus>,
}

/// How a device stands with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Membership {
    /// Being admitted.
    Joining,
    /// Waiting for somebody's approval.
    AwaitingApproval,
    /// A member, connected to the controller.
    Online,
    /// A member without the controller; the kept map serves.
    Offline,
    /// Refused: revoked, expired or never admitted.
    Refused,
}

/// Another member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The device's id.
    pub id: String,
    /// The device's name.
    pub name: String,
    /// The device's addresses.
    pub addresses: Vec<IpAddr>,
    /// The path that traffic takes now, if there is any.
    pub path: Option<PathView>,
    /// Seconds since the last handshake.
    pub handshake_seconds: Option<u64>,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// A path to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathView {
    /// By what.
    pub kind: PathKind,
    /// The peer's address, one to which a TURN server passes things on, the name of the member that does, or the relay's id
    /// where one is chosen; empty for a stream.
    pub via: String,
    /// The last measured round trip, in milliseconds.
    pub latency_ms: Option<f64>,
}

/// By what packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// Straight over UDP.
    Direct,
    /// Over UDP through a TURN server of this device's or of the peer's.
    Turn,
    /// Over UDP through another member.
    PeerRelay,
    /// Over UDP through a relay.
    UdpRelay,
    /// Straight over WebSocket: one of both listens.
    Stream,
    /// Through a relay over WebSocket.
    Relay,
}

/// Asks for a ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingRequest {
    /// A peer's name, full name, id or address.
    pub peer: String,
}

/// A peer's answer to a ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PingReply {
    /// The peer's name.
    pub peer: String,
    /// The path that the ping took; its latency is this ping's.
    pub path: PathView,
}

/// Why traffic to a peer takes the path it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The peer's name.
    pub peer: String,
    /// The present path.
    pub path: Option<PathView>,
    /// The largest packets, in bytes, that it is known to carry; none if it carries any.
    #[serde(default)]
    pub mtu: Option<usize>,
    /// The decisions that led to it, the latest first.
    pub decisions: Vec<WhyEntry>,
    /// Why there is no direct path, if there is none, nor a stream straight to the peer.
    #[serde(default)]
    pub hindrance: Option<String>,
    /// Every path that is known.
    pub candidates: Vec<WhyPath>,
}

/// A path that is known, with its standing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyPath {
    /// The path, with its smoothed round trip.
    #[serde(flatten)]
    pub path: PathView,
    /// How the address became known: `local`, `mapped`, `reflexive`, `peer-reflexive`, `relayed` (a TURN server's) or
    /// `peer-relay` or `udp-relay`; none for a relay or a stream.
    pub source: Option<String>,
    /// Share of its latest pings without an answer, in percent; none for a relay or a stream.
    pub loss_percent: Option<u8>,
    /// What it lacks; none if it is in use.
    pub lacks: Option<String>,
}

/// A decision about a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyEntry {
    /// How many seconds ago.
    pub seconds_ago: u64,
    /// What was decided, and why.
    pub text: String,
}

/// What this device's surroundings allow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Netcheck {
    /// Whether any STUN server answered over UDP.
    pub udp: bool,
    /// This device's addresses as others see them.
    pub reflexive: Vec<SocketAddr>,
    /// For which destinations the translator in front of this device uses the same port, as RFC 4787 calls it, or
    /// `none`; nothing if too few STUN servers have answered.
    #[serde(default)]
    pub mapping: Option<String>,
    /// Whom what is in front of this device's IPv4 lets in, as RFC 4787 calls it: `endpoint-independent`, `address-dependent`,
    /// `address-dependent at most` where no second server can tell, or `address-and-port-dependent`; nothing if none could tell yet.
    #[serde(default)]
    pub filtering: Option<String>,
    /// The same of IPv6.
    #[serde(default)]
    pub filtering_ipv6: Option<String>,
    /// From one new port of that translator to the next, if it counts them; peers can then guess the next.
    #[serde(default)]
    pub port_step: Option<i16>,
    /// Those at which the router forwards to this device.
    #[serde(default)]
    pub mapped: Vec<SocketAddr>,
    /// This device's own addresses.
    pub local: Vec<SocketAddr>,
    /// Whether the controller is connected.
    pub controller: bool,
    /// Every known relay.
    pub relays: Vec<RelayCheck>,
    /// Every TURN server.
    #[serde(default)]
    pub turn: Vec<TurnCheck>,
}

/// A TURN server, and what this device has there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnCheck {
    /// `udp/ADDRESS` or `tcp/ADDRESS`.
    pub server: String,
    /// `unused` while no traffic lacks a direct path, `asked`, `allocated` or `failed`.
    pub state: String,
    /// This device's address there.
    pub relayed: Option<SocketAddr>,
    /// Why it was of no use the last time, with what to do.
    pub problem: Option<String>,
}

/// How a relay is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelayCheck {
    /// The relay's name or id.
    pub name: String,
    /// Whether this device is attached to it.
    pub attached: bool,
    /// Whether it is one of those where this device is to be found.
    pub home: bool,
    /// Milliseconds there and back, as far as that is known.
    pub latency_ms: Option<f64>,
}

/// Asks to join a network.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The invite. It is a secret, so it is never shown.
    pub invite: String,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest").finish_non_exhaustive()
    }
}

/// The network that was joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its id.
    pub network: String,
    /// Its name.
    pub name: String,
    /// How this device stands with it now.
    pub membership: Membership,
    /// What is wrong all the same, such as the clock, and what to do.
    pub advice: Vec<String>,
}

/// Asks to leave a network and forget its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveRequest {
    /// The network's name or id; may be left out when there is only one.
    pub network: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A network's membership or connection changed.
    Membership {
        /// The network's id.
        network: String,
        /// How it stands now.
        membership: Membership,
        /// Why, where that is known.
        reason: Option<String>,
    },
    /// This device's clock was found to be wrong, or right again.
    Clock {
        /// The network's id.
        network: String,
        /// As in [`NetworkStatus::clock_offset_seconds`].
        offset_seconds: Option<i64>,
        /// What to do, if anything.
        advice: Option<String>,
    },
    /// The path to a peer changed.
    Path {
        /// The network's id.
        network: String,
        /// The peer's name or id.
        peer: String,
        /// The decision and its reason.
        text: String,
    },
    /// Something that whoever runs the network should know of.
    Security {
        /// The network's id.
        network: String,
        /// What.
        text: String,
    },
}

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of problem, for programs.
    pub problem: Problem,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// The request makes no sense.
    Usage,
    /// No such peer or network.
    NotFound,
    /// The network does not want this device, or the invite does not count.
    Refused,
    /// Nobody answered in time.
    Timeout,
    /// This device's clock is wrong.
    Clock,
    /// Something on this host is in the way.
    System,
}

//! What records are about.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use minicbor::{Decode, Encode};

use crate::{
    ChannelPublicKey, DeviceId, DeviceName, GroupName, Ipv4Prefix, MAX_GROUPS, NetworkName,
    Padding, RecordBody, Scope, ServerAddress, Shaping, TrafficRule, TunnelPublicKey, TurnServer,
    UlaPrefix, UnixTime,
};

/// A relay of the network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RelayEntry {
    /// The relay, itself a member.
    #[n(0)]
    pub device: DeviceId,
    /// Its Noise static key.
    #[n(1)]
    pub channel_key: ChannelPublicKey,
    /// Where it listens, the preferred first.
    #[n(2)]
    pub servers: Vec<ServerAddress>,
    /// Where it answers STUN.
    #[n(3)]
    pub stun: Vec<SocketAddr>,
    /// Where it stands, in words for people. Relays of one region may fail together.
    #[n(4)]
    pub region: String,
    /// Whom it serves: members of any of these groups; all members if there are none.
    #[cbor(n(5), default)]
    pub groups: Vec<GroupName>,
}

impl RelayEntry {
    /// Whether a member of these groups may attach.
    #[must_use]
    pub fn serves(&self, groups: &[GroupName]) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|group| groups.contains(group))
    }
}

impl RecordBody for RelayEntry {
    const PURPOSE: &'static str = "relay-entry";
    const SCOPE: Scope = Scope::Relays;

    fn subject(&self) -> Vec<u8> {
        self.device.as_bytes().to_vec()
    }
}

/// A member's IPv4 address within the network's prefix.
///
/// Its scope is [`Scope::Renew`]: the only one that is always online and can touch nobody but
/// admitted devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Lease4 {
    /// The member.
    #[n(0)]
    pub device: DeviceId,
    /// Its address.
    #[n(1)]
    pub address: Ipv4Addr,
}

impl RecordBody for Lease4 {
    const PURPOSE: &'static str = "lease4";
    const SCOPE: Scope = Scope::Renew;

    fn subject(&self) -> Vec<u8> {
        self.device.as_bytes().to_vec()
    }
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum NameTarget {
    /// The addresses of a member.
    #[n(0)]
    Device(#[n(0)] DeviceId),
    /// Fixed addresses.
    #[n(1)]
    Addresses(#[n(0)] Vec<IpAddr>),
    /// Another name.
    #[n(2)]
    Alias(#[n(0)] String),
}

/// A name besides those that devices have by their certificates.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct NameEntry {
    /// The name in lower case, without a dot at the end.
    #[n(0)]
    pub name: String,
    /// What it stands for.
    #[n(1)]
    pub target: NameTarget,
}

impl RecordBody for NameEntry {
    const PURPOSE: &'static str = "name-entry";
    const SCOPE: Scope = Scope::Names;

    fn subject(&self) -> Vec<u8> {
        self.name.as_bytes().to_vec()
    }
}

/// A plain WireGuard peer, which has no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct StaticPeer {
    /// Its WireGuard key.
    #[n(0)]
    pub tunnel_key: TunnelPublicKey,
    /// Its name.
    #[n(1)]
    pub name: DeviceName,
    /// The addresses that it may use.
    #[n(2)]
    pub addresses: Vec<IpAddr>,
    /// When it stops counting.
    #[n(3)]
    pub not_after: UnixTime,
}

impl RecordBody for StaticPeer {
    const PURPOSE: &'static str = "static-peer";
    const SCOPE: Scope = Scope::Issue;

    fn subject(&self) -> Vec<u8> {
        self.tunnel_key.as_bytes().to_vec()
    }
}

/// The settings of the network as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct NetworkInfo {
    /// Its name, the label before `.alt`.
    #[n(0)]
    pub name: NetworkName,
    /// Its IPv6 prefix.
    #[n(1)]
    pub prefix: UlaPrefix,
    /// Its IPv4 prefix.
    #[n(2)]
    pub ipv4_prefix: Ipv4Prefix,
    /// Whether invites ask for approval unless they say otherwise.
    #[n(3)]
    pub needs_approval: bool,
    /// Which traffic goes before which, the first rule that fits; at most
    /// [`MAX_TRAFFIC_RULES`](crate::MAX_TRAFFIC_RULES), further ones do not count.
    #[cbor(n(4), default)]
    pub traffic: Vec<TrafficRule>,
    /// How messages on streams are filled up.
    #[cbor(n(5), default)]
    pub padding: Padding,
    /// TURN servers for every member; at most [`MAX_TURN_SERVERS`](crate::MAX_TURN_SERVERS), further ones do not count.
    #[cbor(n(6), default)]
    pub turn: Vec<TurnServer>,
    /// After how many seconds a device is at home at other relays, so that none sees it for long; 0 for never.
    #[cbor(n(7), default)]
    pub relay_rotation: u32,
    /// When messages on streams leave.
    #[cbor(n(8), default)]
    pub shaping: Shaping,
    /// Members of any of these groups pass datagrams on between other members; at most [`MAX_GROUPS`],
    /// further ones do not count.
    #[cbor(n(9), default)]
    pub peer_relays: Vec<GroupName>,
    /// Whether members send each other no datagrams: those of tunnels show what they are, streams do not.
    #[cbor(n(10), default)]
    pub streams_only: bool,
}

impl NetworkInfo {
    /// Whether a member of these groups may pass datagrams on between others.
    #[must_use]
    pub fn lets_relay(&self, groups: &[GroupName]) -> bool {
        self.peer_relays.iter().take(MAX_GROUPS).any(|group| groups.contains(group))
    }
}

impl RecordBody for NetworkInfo {
    const PURPOSE: &'static str = "network-info";
    const SCOPE: Scope = Scope::Policy;

    fn subject(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// A controller of the network, beside or after the one that an invite names.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ControllerEntry {
    /// Its Noise static key.
    #[n(0)]
    pub channel_key: ChannelPublicKey,
    /// Where it listens, the preferred first.
    #[n(1)]
    pub servers: Vec<ServerAddress>,
}

impl RecordBody for ControllerEntry {
    const PURPOSE: &'static str = "controller-entry";
    const SCOPE: Scope = Scope::Policy;

    fn subject(&self) -> Vec<u8> {
        self.channel_key.as_bytes().to_vec()
    }
}

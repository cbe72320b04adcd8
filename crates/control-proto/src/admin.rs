//! What an administrator may ask of a controller, and the answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use identity::{
    DeviceId, DeviceName, GroupName, NameTarget, NetworkId, NetworkName, Padding, Shaping,
    SignerId, TrafficRule, TunnelPublicKey, TurnSecret, TurnServer,
};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Mode, text};

/// A request of an administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum AdminRequest {
    /// The network and its settings.
    Network,
    /// Change settings; what is nothing stays.
    ChangeSettings(SettingsChange),
    /// Make invites.
    CreateInvite(InviteRequest),
    /// All invites.
    Invites,
    /// Make an invite useless. A device that came in by it stays.
    RevokeInvite {
        /// The invite key.
        #[serde(with = "text")]
        invite: SignerId,
    },
    /// All devices.
    Devices,
    /// Let a waiting device in.
    ApproveDevice {
        /// The device.
        #[serde(with = "text")]
        device: DeviceId,
    },
    /// Give a device another name.
    RenameDevice {
        /// The device.
        #[serde(with = "text")]
        device: DeviceId,
        /// Its new name.
        #[serde(with = "text")]
        name: DeviceName,
    },
    /// Remove a device and revoke it for good.
    RemoveDevice {
        /// The device.
        #[serde(with = "text")]
        device: DeviceId,
    },
    /// What the owner needs to make invites where the network's key is.
    Outline,
    /// What waits for the owner's signature.
    Unsigned,
    /// Carry what the owner has signed.
    Publish {
        /// Items of the map as text, each after those that prove it.
        items: Vec<String>,
    },
    /// Let a plain WireGuard peer in, or change until when.
    AddPeer(PeerRequest),
    /// All plain WireGuard peers.
    Peers,
    /// Withdraw what lets a plain WireGuard peer in.
    RemovePeer {
        /// Its name.
        #[serde(with = "text")]
        name: DeviceName,
    },
    /// Give a name to something, or another meaning to a name.
    AddName(NameView),
    /// All names beside those of devices.
    Names,
    /// Withdraw a name.
    RemoveName {
        /// The name, without the network's.
        name: String,
    },
    /// All relays.
    Relays,
    /// Withdraw the entry of a relay; it stays a member.
    WithdrawRelay {
        /// The relay.
        #[serde(with = "text")]
        device: DeviceId,
    },
}

/// Settings that an administrator may change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsChange {
    /// Whether invites ask for approval unless they say otherwise.
    pub approval: Option<bool>,
    /// How long a membership is valid without renewal, in seconds.
    pub validity: Option<u64>,
    /// How many entries each log keeps.
    pub log_entries: Option<u64>,
    /// For how long the logs keep entries, in seconds.
    pub log_seconds: Option<u64>,
    /// Where nodes find the controller; an empty list means where it listens.
    pub controllers: Option<Vec<ControllerPlace>>,
    /// Which traffic goes before which, each as a [`TrafficRule`] in text.
    #[serde(default)]
    pub traffic: Option<Vec<String>>,
    /// How messages on streams are filled up.
    #[serde(default, with = "text::option")]
    pub padding: Option<Padding>,
    /// TURN servers for every member.
    #[serde(default)]
    pub turn: Option<Vec<TurnText>>,
    /// After how many seconds devices are at home at other relays; 0 for never.
    #[serde(default)]
    pub relay_rotation: Option<u32>,
    /// When messages on streams leave.
    #[serde(default, with = "text::option")]
    pub shaping: Option<Shaping>,
    /// The groups whose members pass datagrams on between others.
    #[serde(default)]
    pub peer_relays: Option<Vec<String>>,
    /// Whether members send each other no datagrams.
    #[serde(default)]
    pub streams_only: Option<bool>,
}

impl SettingsChange {
    /// The same without what nobody is to read in a log.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let turn = self.turn.as_ref().map(|servers| servers.iter().map(TurnText::shown).collect());
        Self { turn, ..self.clone() }
    }
}

/// A [`TurnServer`] in text, with its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnText(pub TurnSecret);

impl TurnText {
    /// The same without its secret.
    fn shown(&self) -> Self {
        let server = self.0.as_str().parse::<TurnServer>();
        let shown = server.map_or_else(|_| "not a TURN server".to_owned(), |it| it.to_string());
        Self(shown.into())
    }
}

impl Serialize for TurnText {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for TurnText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self(String::deserialize(d)?.into()))
    }
}

/// A place where nodes find a controller. TLS there is that of the controller itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct ControllerPlace {
    /// A DNS name, or an IP address without brackets.
    #[n(0)]
    pub host: String,
    /// The TCP port.
    #[n(1)]
    pub port: u16,
    /// The addresses to dial; if there are none, nodes resolve the host.
    #[n(2)]
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// What an invite should allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRequest {
    /// The name that the device must have; nothing lets it choose.
    #[serde(with = "text::option", default)]
    pub name: Option<DeviceName>,
    /// The groups that the device gets.
    #[serde(with = "text::list", default)]
    pub groups: Vec<GroupName>,
    /// How long the invite may be used, in seconds.
    pub expires_in: u64,
    /// How many devices to invite; each gets an invite of its own.
    pub uses: u16,
    /// Whether the device waits for approval; nothing takes the network's setting.
    #[serde(default)]
    pub approval: Option<bool>,
    /// Whether the device may serve as a relay.
    #[serde(default)]
    pub relay: bool,
}

impl Default for InviteRequest {
    fn default() -> Self {
        Self {
            name: None,
            groups: Vec::new(),
            expires_in: 24 * 3600,
            uses: 1,
            approval: None,
            relay: false,
        }
    }
}

/// A plain WireGuard peer to let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRequest {
    /// Its public key.
    #[serde(with = "text")]
    pub key: TunnelPublicKey,
    /// The name that it gets.
    #[serde(with = "text")]
    pub name: DeviceName,
    /// For how long, in seconds.
    pub expires_in: u64,
}

/// A name beside those that devices have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameView {
    /// The name, without the network's.
    pub name: String,
    /// What it means.
    pub target: NameTargetView,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NameTargetView {
    /// The addresses of a device.
    Device {
        /// The device.
        #[serde(with = "text")]
        device: DeviceId,
    },
    /// Addresses that do not change.
    Addresses {
        /// Of IPv4 and IPv6.
        addresses: Vec<IpAddr>,
    },
    /// What another name means.
    Alias {
        /// The other name.
        name: String,
    },
}

impl From<NameTarget> for NameTargetView {
    fn from(target: NameTarget) -> Self {
        match target {
            NameTarget::Device(device) => Self::Device { device },
            NameTarget::Addresses(addresses) => Self::Addresses { addresses },
            NameTarget::Alias(name) => Self::Alias { name },
        }
    }
}

impl From<NameTargetView> for NameTarget {
    fn from(target: NameTargetView) -> Self {
        match target {
            NameTargetView::Device { device } => Self::Device(device),
            NameTargetView::Addresses { addresses } => Self::Addresses(addresses),
            NameTargetView::Alias { name } => Self::Alias(name),
        }
    }
}

/// The answer to an [`AdminRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum AdminAnswer {
    /// It was done.
    Done,
    /// The network.
    Network(Box<NetworkView>),
    /// The invites just made, with their secrets.
    InvitesCreated {
        /// One for each device.
        invites: Vec<CreatedInvite>,
    },
    /// All invites.
    Invites {
        /// Oldest first.
        invites: Vec<InviteView>,
    },
    /// All devices.
    Devices {
        /// By id.
        devices: Vec<DeviceView>,
    },
    /// What the owner needs to make invites.
    Outline {
        /// An [`crate::Outline`] as text.
        outline: String,
    },
    /// What waits for the owner's signature.
    Unsigned {
        /// An [`crate::Unsigned`] as text.
        unsigned: String,
    },
    /// Plain WireGuard peers: all of them, or the one just let in.
    Peers {
        /// By key.
        peers: Vec<PeerView>,
    },
    /// Names beside those of devices.
    Names {
        /// By name.
        names: Vec<NameView>,
    },
    /// All relays.
    Relays {
        /// By id.
        relays: Vec<RelayView>,
    },
}

/// A network as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// The network.
    #[serde(with = "text")]
    pub id: NetworkId,
    /// Its name.
    #[serde(with = "text")]
    pub name: NetworkName,
    /// Whether this controller could admit devices by itself.
    pub mode: Mode,
    /// The /48 of the network.
    pub ula: String,
    /// The /16 of the network.
    pub ipv4: String,
    /// Whether invites ask for approval unless they say otherwise.
    pub approval: bool,
    /// How long a membership is valid without renewal, in seconds.
    pub validity: u64,
    /// How many entries each log keeps.
    pub log_entries: u64,
    /// For how long the logs keep entries, in seconds.
    pub log_seconds: u64,
    /// Where nodes find this controller.
    pub controllers: Vec<String>,
    /// Which traffic goes before which, the first rule that fits.
    #[serde(with = "text::list")]
    pub traffic: Vec<TrafficRule>,
    /// How messages on streams are filled up.
    #[serde(with = "text")]
    pub padding: Padding,
    /// The TURN servers, without their secrets.
    #[serde(default)]
    pub turn: Vec<String>,
    /// After how many seconds devices are at home at other relays; 0 for never.
    pub relay_rotation: u32,
    /// When messages on streams leave.
    #[serde(with = "text")]
    pub shaping: Shaping,
    /// The groups whose members pass datagrams on between others.
    #[serde(default, with = "text::list")]
    pub peer_relays: Vec<GroupName>,
    /// Whether members send each other no datagrams.
    #[serde(default)]
    pub streams_only: bool,
    /// The epoch of the records.
    pub epoch: u64,
    /// Records that wait for the owner's signature.
    pub unsigned: u64,
    /// Devices, members and pending.
    pub devices: u64,
    /// Devices with an open channel.
    pub online: u64,
}

/// A new invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedInvite {
    /// Its key, by which it is listed and revoked.
    #[serde(with = "text")]
    pub key: SignerId,
    /// The invite itself: whoever has it can join.
    pub invite: String,
    /// Until when it may be used, in seconds since the Unix epoch.
    pub expires: u64,
}

/// What became of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InviteState {
    /// It can be used.
    Open,
    /// A device came in by it.
    Used,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// An invite as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteView {
    /// Its key.
    #[serde(with = "text")]
    pub key: SignerId,
    /// The name that the device must have.
    #[serde(with = "text::option", default)]
    pub name: Option<DeviceName>,
    /// The groups that the device gets.
    #[serde(with = "text::list", default)]
    pub groups: Vec<GroupName>,
    /// Whether the device waits for approval.
    pub approval: bool,
    /// When it was made, in seconds since the Unix epoch.
    pub created: u64,
    /// Until when it may be used, in seconds since the Unix epoch.
    pub expires: u64,
    /// What became of it.
    pub state: InviteState,
    /// The device that came in by it.
    #[serde(with = "text::option", default)]
    pub used_by: Option<DeviceId>,
}

/// A device as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// The device.
    #[serde(with = "text")]
    pub id: DeviceId,
    /// Its name.
    #[serde(with = "text")]
    pub name: DeviceName,
    /// Its groups.
    #[serde(with = "text::list", default)]
    pub groups: Vec<GroupName>,
    /// Its address.
    pub address: Ipv6Addr,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its WireGuard key.
    #[serde(with = "text::option", default)]
    pub tunnel_key: Option<TunnelPublicKey>,
    /// Where it is reached over UDP, by its own word.
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// Whether it waits for approval.
    pub pending: bool,
    /// Whether it has an open channel to this controller.
    pub online: bool,
    /// When it joined, in seconds since the Unix epoch.
    pub joined: u64,
    /// Until when its membership is valid, in seconds since the Unix epoch.
    pub expires: u64,
}

/// A plain WireGuard peer as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its public key.
    #[serde(with = "text")]
    pub key: TunnelPublicKey,
    /// Its name.
    #[serde(with = "text")]
    pub name: DeviceName,
    /// Its addresses, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// Until when it is let in, in seconds since the Unix epoch.
    pub expires: u64,
}

/// A relay as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayView {
    /// The device.
    #[serde(with = "text")]
    pub id: DeviceId,
    /// Where it is reached.
    pub urls: Vec<String>,
    /// Its STUN addresses.
    pub stun: Vec<SocketAddr>,
    /// Whether its load reports arrive.
    pub healthy: bool,
    /// Attached nodes, by its last report.
    pub attached: Option<u32>,
    /// Processor use in thousandths of one core, by its last report.
    pub cpu_permille: Option<u32>,
    /// How much of what it can serve is in use, in thousandths, by its last report.
    pub busy_permille: Option<u32>,
    /// Where it stands.
    pub region: String,
    /// The groups that it serves; none if all.
    #[serde(with = "text::list")]
    pub groups: Vec<GroupName>,
}

/// Why a request was not done. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum AdminError {
    /// No such device.
    #[error("there is no such device; `shadowmesh device list` shows all")]
    UnknownDevice,
    /// No such invite.
    #[error("there is no such invite; `shadowmesh invite list` shows all")]
    UnknownInvite,
    /// No such plain WireGuard peer.
    #[error("there is no such WireGuard peer; `shadowmesh peer list` shows all")]
    UnknownPeer,
    /// No such name.
    #[error("there is no such name; `shadowmesh name list` shows all")]
    UnknownName,
    /// No such relay.
    #[error("there is no such relay")]
    UnknownRelay,
    /// Another device has the name.
    #[error("another device has the name {name}; choose another one")]
    NameTaken {
        /// The name.
        #[serde(with = "text")]
        name: DeviceName,
    },
    /// The controller lacks the key that is needed.
    #[error(
        "this controller holds no key for {scope} (strict mode); give the network's own key with --key-file where a command takes it"
    )]
    KeyNotHeld {
        /// The scope of the key.
        scope: String,
    },
    /// A value is out of bounds.
    #[error("{what}")]
    OutOfBounds {
        /// What the bounds are.
        what: String,
    },
    /// A bound of the network is reached.
    #[error("the network has {limit} {what} already; remove some first")]
    Full {
        /// Of what.
        what: String,
        /// How many there may be.
        limit: usize,
    },
    /// Somebody else has signed, or what is signed is older than what is known.
    #[error("{what} is not to be believed: {reason}; sign again with the network's own key")]
    NotBelieved {
        /// What was to be published.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is another network's.
    #[error("this is the key of another network; name the right --key-file or --state-dir")]
    OtherNetwork,
    /// A name with a number of uses above one.
    #[error("one name fits one device; leave the name out or make one invite at a time")]
    NameForMany,
}

//! What is written down: security events and administrative changes.

use identity::{DeviceId, DeviceName, SignerId, TunnelPublicKey};
use minicbor::{Decode, Encode};
use noise_channel::ChannelError;
use serde::{Deserialize, Serialize};

use crate::{SettingsChange, text};

/// Something that somebody who watches over a network should know about.
///
/// Events carry ids and reasons, never keys, addresses or names of people.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SecurityEvent {
    /// A channel's handshake failed.
    #[n(0)]
    HandshakeFailed {
        /// What was wrong.
        #[n(0)]
        reason: String,
    },
    /// The first message of a channel came a second time.
    #[n(1)]
    Replayed,
    /// A channel's keys could not be replaced in time, or its connection was lost meanwhile.
    #[n(2)]
    RotationFailed {
        /// Whose channel, if that is known.
        #[n(0)]
        #[serde(with = "text::option", default)]
        device: Option<DeviceId>,
    },
    /// A channel ended because the peer broke its rules.
    #[n(3)]
    ProtocolViolation {
        /// Whose channel, if that is known.
        #[n(0)]
        #[serde(with = "text::option", default)]
        device: Option<DeviceId>,
        /// Which rule.
        #[n(1)]
        reason: String,
    },
    /// The clocks of two sides differ by more than the tolerance.
    #[n(4)]
    ClockSkew {
        /// By how many seconds.
        #[n(0)]
        seconds: u64,
    },
    /// A revoked device, or something signed by a revoked key, turned up.
    #[n(5)]
    Revoked {
        /// The device that it is about.
        #[n(0)]
        #[serde(with = "text::option", default)]
        device: Option<DeviceId>,
        /// What was revoked.
        #[n(1)]
        what: String,
    },
    /// A certificate chain is not signed by whom it must be, or exceeds what its signer may do.
    #[n(6)]
    ForgedCertificate {
        /// What is wrong with it.
        #[n(0)]
        reason: String,
    },
    /// A certificate chain belongs to another network.
    #[n(7)]
    ForeignCertificate,
    /// A certificate is outside its validity.
    #[n(8)]
    ExpiredCertificate {
        /// Which end of its validity was missed.
        #[n(0)]
        reason: String,
    },
    /// A binding, endpoints or a record does not verify.
    #[n(9)]
    ForgedStatement {
        /// The kind of statement.
        #[n(0)]
        what: String,
        /// What is wrong with it.
        #[n(1)]
        reason: String,
    },
    /// A statement is older than one that is known.
    #[n(10)]
    RollbackRefused {
        /// The kind of statement.
        #[n(0)]
        what: String,
    },
    /// A device showed another key than its binding says, or lacks proof of presence.
    #[n(11)]
    WrongDevice {
        /// The device that it claimed to be.
        #[n(0)]
        #[serde(with = "text")]
        device: DeviceId,
    },
    /// An invite was used in a way that it does not allow.
    #[n(12)]
    InviteMisuse {
        /// The invite key.
        #[n(0)]
        #[serde(with = "text")]
        invite: SignerId,
        /// The device that used it.
        #[n(1)]
        #[serde(with = "text")]
        device: DeviceId,
        /// In which way.
        #[n(2)]
        reason: String,
    },
    /// Two members have the same address, name, invite or tunnel key, and one of them does not
    /// count.
    #[n(13)]
    Conflict {
        /// The member that does not count.
        #[n(0)]
        #[serde(with = "text")]
        device: DeviceId,
        /// What both have.
        #[n(1)]
        what: String,
    },
    /// Somebody exceeded a limit of what is done or kept at once.
    #[n(14)]
    RateLimited {
        /// Who, if that is known.
        #[n(0)]
        #[serde(with = "text::option", default)]
        device: Option<DeviceId>,
    },
    /// Further events in the same minute were only counted.
    #[n(15)]
    Suppressed {
        /// How many.
        #[n(0)]
        count: u32,
    },
    /// A tunnel refused what came in.
    #[n(16)]
    TunnelRefusals {
        /// The member at the other end, if that is known.
        #[n(0)]
        #[serde(with = "text::option", default)]
        device: Option<DeviceId>,
        /// Why.
        #[n(1)]
        what: TunnelRefusal,
        /// How often since the last such event.
        #[n(2)]
        count: u64,
    },
    /// Nobody has said for long that the list of revocations is current: it may be withheld.
    #[n(17)]
    StaleRevocations {
        /// The age of the last word, in seconds.
        #[n(0)]
        seconds: u64,
    },
    /// A relay closed connections.
    #[n(18)]
    ConnectionsRefused {
        /// Why.
        #[n(0)]
        what: ConnectionRefusal,
        /// How many since the last such event.
        #[n(1)]
        count: u64,
    },
}

impl SecurityEvent {
    /// What the end of a channel is, with whose channel it was, if that is known; nothing for a peer that
    /// only fell silent.
    #[must_use]
    pub fn of_channel(error: ChannelError, device: Option<DeviceId>) -> Option<Self> {
        match error {
            ChannelError::HandshakeRejected
            | ChannelError::HandshakeMalformed
            | ChannelError::HandshakeTimeout
            | ChannelError::UnusableKey => {
                Some(Self::HandshakeFailed { reason: error.to_string() })
            }
            ChannelError::Replayed => Some(Self::Replayed),
            ChannelError::ClockSkew { difference, .. } => {
                Some(Self::ClockSkew { seconds: difference.as_secs() })
            }
            ChannelError::MessageTooLong(_)
            | ChannelError::MessageRejected
            | ChannelError::Protocol(_) => {
                Some(Self::ProtocolViolation { device, reason: error.to_string() })
            }
            ChannelError::KeysExhausted => Some(Self::RotationFailed { device }),
            ChannelError::PeerSilent => None,
        }
    }
}

/// Why a relay closes connections of a kind that no member makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionRefusal {
    /// Nobody attached over them.
    #[n(0)]
    Strangers,
    /// They broke the rules of handshake, channel or hop.
    #[n(1)]
    Broken,
    /// Who came is no member, or none any more.
    #[n(2)]
    NotMember,
    /// They asked too much.
    #[n(3)]
    Flood,
}

/// Why a tunnel refuses something.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelRefusal {
    /// A packet came from an address that is not the sender's.
    #[n(0)]
    ForeignSource,
    /// A packet was received before.
    #[n(1)]
    ReplayedPacket,
    /// A packet that names a session was not sealed in it.
    #[n(2)]
    ForgedPacket,
    /// A handshake message does not verify: wrong keys, or a wrong idea of who is who.
    #[n(3)]
    FailedHandshake,
    /// The first message of a handshake was received before.
    #[n(4)]
    ReplayedHandshake,
    /// A handshake names a key that is no peer's.
    #[n(5)]
    UnknownPeer,
    /// More handshakes came than are computed.
    #[n(6)]
    Flood,
    /// Datagrams that are nothing that anybody here sends.
    #[n(7)]
    Noise,
}

/// A security event with its time and reporter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Seconds since the Unix epoch.
    pub at: u64,
    /// The device that reported it; nothing if the controller saw it itself.
    #[serde(with = "text::option", default)]
    pub reporter: Option<DeviceId>,
    /// What happened.
    pub event: SecurityEvent,
}

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Actor {
    /// Somebody with access to the administration socket.
    Administrator,
    /// A device, over its channel.
    Device {
        /// Which one.
        #[serde(with = "text")]
        device: DeviceId,
    },
    /// The controller by itself.
    Controller,
}

/// A change of what a network consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditAction {
    /// A device joined.
    DeviceJoined {
        /// The device.
        #[serde(with = "text")]
        device: DeviceId,
        /// Its name.
        #[serde(with = "text")]
        name: DeviceName,
        /// Whether it waits for approval.
        pending: bool,
    },
    /// A waiting device was approved.
    DeviceApproved {
        /// The device.
        #[serde(with = "text")]
        device: DeviceId,
    },
    /// A device got another name.
    DeviceRenamed {
        /// The device.
        #[serde(with = "text")]
        device: DeviceId,
        /// Its new name.
        #[serde(with = "text")]
        name: DeviceName,
    },
    /// A device was removed and revoked.
    DeviceRemoved {
        /// The device.
        #[serde(with = "text")]
        device: DeviceId,
    },
    /// A device left by itself.
    DeviceLeft {
        /// The device.
        #[serde(with = "text")]
        device: DeviceId,
    },
    /// An invite was made.
    InviteCreated {
        /// The invite key.
        #[serde(with = "text")]
        invite: SignerId,
    },
    /// An invite was revoked.
    InviteRevoked {
        /// The invite key.
        #[serde(with = "text")]
        invite: SignerId,
    },
    /// A relay's entry was published.
    RelayPublished {
        /// The relay.
        #[serde(with = "text")]
        device: DeviceId,
    },
    /// A relay's entry was withdrawn.
    RelayWithdrawn {
        /// The relay.
        #[serde(with = "text")]
        device: DeviceId,
    },
    /// A plain WireGuard peer was let in, or for another time.
    PeerAdded {
        /// Its key.
        #[serde(with = "text")]
        key: TunnelPublicKey,
        /// Its name.
        #[serde(with = "text")]
        name: DeviceName,
    },
    /// A plain WireGuard peer is let in no more.
    PeerRemoved {
        /// Its key.
        #[serde(with = "text")]
        key: TunnelPublicKey,
    },
    /// A name beside those of devices was given, or means something else now.
    NameAdded {
        /// The name.
        name: String,
    },
    /// Such a name was withdrawn.
    NameRemoved {
        /// The name.
        name: String,
    },
    /// The settings of the network changed.
    SettingsChanged {
        /// What was asked for; settings that stayed are nothing.
        change: SettingsChange,
    },
    /// Records that the owner has signed were published.
    OwnerSigned {
        /// How many.
        records: u32,
    },
}

/// One change with its time and actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Seconds since the Unix epoch.
    pub at: u64,
    /// Who did it.
    pub actor: Actor,
    /// What changed.
    pub action: AuditAction,
}

//! What a device says about itself. All signed by its [`DeviceKey`](crate::DeviceKey).

use std::net::SocketAddr;

use minicbor::{Decode, Encode};

use crate::{ChannelPublicKey, DeviceId, ServerAddress, Statement, TunnelPublicKey, UnixTime};

/// The most candidates in one [`Endpoints`].
pub const MAX_CANDIDATES: usize = 16;

/// The most servers in one [`Endpoints`]: the names of one host, for which few have more than one.
pub const MAX_SERVERS: usize = 2;

/// The most addresses of one of these servers; more would not fit the statement with everything else.
pub const MAX_SERVER_ADDRESSES: usize = 8;

/// A device announces the keys that it uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Binding {
    /// The device.
    #[n(0)]
    pub device: DeviceId,
    /// Its WireGuard static key.
    #[n(1)]
    pub tunnel_key: TunnelPublicKey,
    /// Its Noise static key.
    #[n(2)]
    pub channel_key: ChannelPublicKey,
    /// Rises with each binding; the highest counts.
    #[n(3)]
    pub number: u64,
    /// When the binding stops counting.
    #[n(4)]
    pub not_after: UnixTime,
    /// The version of the abilities that peers may rely on.
    #[n(5)]
    pub capability: u32,
}

impl Statement for Binding {
    const PURPOSE: &'static str = "binding";
}

/// How a candidate address became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum CandidateKind {
    /// An address of one of the device's own interfaces.
    #[n(0)]
    Local,
    /// An address that a STUN server saw.
    #[n(1)]
    Reflexive,
    /// An address that a router maps to the device.
    #[n(2)]
    Mapped,
}

/// An address at which a device may be reached over UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Candidate {
    /// The address.
    #[n(0)]
    pub address: SocketAddr,
    /// Where it comes from.
    #[n(1)]
    pub kind: CandidateKind,
}

/// A device tells where it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Endpoints {
    /// Rises with each statement; the highest counts.
    #[n(0)]
    pub number: u64,
    /// Direct addresses, at most [`MAX_CANDIDATES`]; more are cut off by receivers.
    #[n(1)]
    pub candidates: Vec<Candidate>,
    /// The relays that the device is attached to, the preferred one first.
    #[n(2)]
    pub relays: Vec<DeviceId>,
    /// Where the device itself listens for WebSocket, at most [`MAX_SERVERS`] with
    /// [`MAX_SERVER_ADDRESSES`] each; more are cut off by receivers.
    #[cbor(n(3), default)]
    pub servers: Vec<ServerAddress>,
    /// Which of the candidates are at TURN servers: the lowest bit is that of the first.
    #[n(4)]
    pub relayed: Option<u16>,
}

impl Endpoints {
    /// Whether the candidate of this index is at a TURN server, which passes on what comes.
    #[must_use]
    pub fn is_relayed(&self, index: usize) -> bool {
        let bit = u32::try_from(index).ok().and_then(|index| 1_u16.checked_shl(index));
        bit.is_some_and(|bit| self.relayed.unwrap_or_default() & bit != 0)
    }

    /// Whether there is no more of anything than a device may announce.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.candidates.len() <= MAX_CANDIDATES
            && self.servers.len() <= MAX_SERVERS
            && self.servers.iter().all(|server| server.addresses.len() <= MAX_SERVER_ADDRESSES)
    }
}

impl Statement for Endpoints {
    const PURPOSE: &'static str = "endpoints";
    const MAX_SIZE: usize = 2048;
}

/// A device is attached to a relay; other relays forward to it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Attachment {
    /// The relay.
    #[n(0)]
    pub relay: DeviceId,
    /// Rises with each attachment; the highest counts.
    #[n(1)]
    pub number: u64,
}

impl Statement for Attachment {
    const PURPOSE: &'static str = "attachment";
}

/// A device shows that it is the one at the other end of a Noise channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ChannelProof {
    /// The handshake hash of the channel, which no other channel has.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub handshake_hash: [u8; 32],
}

impl Statement for ChannelProof {
    const PURPOSE: &'static str = "channel-proof";
}

//! What goes into an agent and comes out of it.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::candidate::{Candidate, CandidateFilter};
use crate::disco::{Message, TransactionId};
use crate::mtu::BASE_MTU;
use crate::why::{Decision, Lack, Path};

/// What an agent needs to know about this device.
#[derive(Clone, Debug, Default)]
pub struct PathConfig {
    /// Addresses that are never dialled.
    pub filter: CandidateFilter,
    /// Whether this device can send datagrams at all.
    pub udp: bool,
    /// Whether it is this device, not the peer, that asks where only one of both may. The peer says the opposite.
    pub leads: bool,
    /// The tunnel's largest packets, in bytes; at least [`BASE_MTU`].
    pub mtu: usize,
}

/// How many packets of the tunnel have gone between this device and the peer without frames, by whatever direct path. The counts
/// begin anew after the largest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// To the peer.
    pub sent: u32,
    /// From the peer, authenticated.
    pub arrived: u32,
}

/// A disco message to be sealed and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Over which path; never [`Path::None`].
    pub path: Path,
    /// The encoded message.
    pub payload: Vec<u8>,
    /// Whether it must not be split on the way, since it asks how large packets pass.
    pub whole: bool,
}

impl Transmit {
    /// A message that may be split like any other.
    pub(crate) fn new(path: Path, message: &Message) -> Self {
        Self { path, payload: message.encode(), whole: false }
    }

    /// A ping as long as the tunnel's packets of this size are: not split, if that is more than every path carries.
    pub(crate) fn probe(path: Path, transaction: TransactionId, size: usize) -> Self {
        let payload = Message::Ping { transaction }.encode_padded(size);
        Self { path, payload, whole: size > BASE_MTU }
    }
}

/// Something the owner acts upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathEvent {
    /// Packets travel over another path from now on.
    Chosen(Decision),
    /// A ping was answered.
    Pong {
        /// The path that it took.
        path: Path,
        /// Its round trip.
        latency: Duration,
    },
    /// Packets of the tunnel without content are to be sent there, three of them: whether they come, the next pong says.
    TunnelProbe {
        /// Where to: the chosen path, or one that is not used because none pass.
        to: SocketAddr,
    },
    /// Sockets beside the device's own are to be opened towards this address of the peer, [`SOCKETS`](crate::SOCKETS) of
    /// them; [`PathAgent::handle_sockets`](crate::PathAgent::handle_sockets) says which those are.
    SocketsWanted {
        /// Where they lead.
        to: SocketAddrV4,
    },
    /// The chosen path carries larger packets than before, or smaller ones only, or the largest do not pass:
    /// [`PathAgent::mtu`](crate::PathAgent::mtu).
    Mtu,
    /// Nothing is probed until [`PathAgent::handle_survey`](crate::PathAgent::handle_survey) has said how the
    /// translator counts, or for three seconds.
    SurveyWanted {
        /// Whether it comes before those of other peers: all guesses wait for this one.
        first: bool,
    },
}

/// One address of the peer, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteStatus {
    /// The address and how it became known.
    pub candidate: Candidate,
    /// Whether it answered recently.
    pub proven: bool,
    /// Smoothed round trip.
    pub latency: Option<Duration>,
    /// Share of recent probes without an answer, in percent.
    pub loss_percent: u8,
    /// When something authenticated came from there last.
    pub heard: Option<Instant>,
    /// What it lacks; none if it is in use.
    pub lacks: Option<Lack>,
}

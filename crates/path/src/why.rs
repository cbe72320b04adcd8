//! Why a path was chosen.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::alias::Alias;

/// Over what packets to a peer travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Nothing is known to work.
    None,
    /// Frames through a relay.
    Relay,
    /// Frames over a stream straight to the peer.
    Stream,
    /// Datagrams straight to this address, which may stand for a way through somebody who passes them on
    /// ([`Alias`]).
    Direct(SocketAddr),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Relay => f.write_str("relay"),
            Self::Stream => f.write_str("stream"),
            Self::Direct(address) => match Alias::of(*address) {
                Some(Alias::Turn(_, peer)) => write!(f, "turn {peer}"),
                Some(Alias::Socket(_, peer)) => write!(f, "direct {peer}"),
                Some(Alias::Circuit(number)) => write!(f, "circuit {number}"),
                None => write!(f, "direct {address}"),
            },
        }
    }
}

/// What made the agent choose a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A relay is there and no direct path is proven yet.
    RelayFirst,
    /// A stream leads straight to the peer, and no direct path is proven.
    StreamOpen,
    /// The stream straight to the peer has ended, and no direct path is proven.
    StreamLost,
    /// A ping over the path was answered.
    Proven {
        /// Round trip of that ping.
        latency: Duration,
    },
    /// Better than the path before it, by more than the hysteresis.
    Better {
        /// Its latency.
        latency: Duration,
        /// The latency of the one given up.
        than: Duration,
    },
    /// Does without whoever passed on what went by the path before.
    Straighter {
        /// Its latency.
        latency: Duration,
    },
    /// Neither traffic nor pings on the path before were answered.
    Unanswered {
        /// For how long.
        since: Duration,
    },
    /// Full packets do not pass on the path before any more, though smaller ones do.
    Narrow,
    /// The path before carries pings, and none of the tunnel's packets.
    Void,
    /// The path before loses many of the tunnel's packets.
    Lossy {
        /// How many of a hundred.
        percent: u8,
    },
    /// The path before takes far longer than frames do.
    Slow {
        /// Its latency.
        latency: Duration,
        /// That of frames.
        frames: Duration,
    },
    /// Without traffic the path before was not kept alive, so it is no longer proven.
    Idle,
    /// Addresses or routes of this device changed, so nothing is proven any more.
    NetworkChanged,
    /// The allocation at a TURN server is gone, over which the path before led.
    AllocationLost,
    /// The circuit is gone, over which the path before led.
    CircuitLost,
    /// The socket is closed over which the path before led.
    SocketLost,
    /// No relay is there any more, and no direct path is proven.
    RelayLost,
    /// The peer made a new session over this path, so it has lost the one before: it has moved or
    /// was started anew.
    PeerMoved,
    /// The peer sends through another relay than before, and may have lost that one.
    PeerChangedRelay,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: &Duration| duration.as_secs_f64() * 1e3;
        match self {
            Self::RelayFirst => f.write_str("no direct path has answered yet"),
            Self::StreamOpen => f.write_str("a stream leads straight to the peer"),
            Self::StreamLost => f.write_str("the stream straight to the peer has ended"),
            Self::Proven { latency } => write!(f, "answered a probe in {:.1} ms", ms(latency)),
            Self::Better { latency, than } => {
                write!(f, "{:.1} ms, before {:.1} ms", ms(latency), ms(than))
            }
            Self::Straighter { latency } => {
                write!(f, "nobody passes it on, {:.1} ms", ms(latency))
            }
            Self::Unanswered { since } => {
                write!(f, "the path before did not answer for {:.1} s", since.as_secs_f64())
            }
            Self::Narrow => f.write_str("the path before loses packets of full size"),
            Self::Void => f.write_str("the path before drops the tunnel's packets"),
            Self::Lossy { percent } => {
                write!(f, "the path before loses {percent} % of the tunnel's packets")
            }
            Self::Slow { latency, frames } => write!(
                f,
                "the path before takes {:.1} ms, and frames {:.1} ms",
                ms(latency),
                ms(frames)
            ),
            Self::Idle => f.write_str("no traffic, so the direct path was not kept alive"),
            Self::NetworkChanged => f.write_str("this device's network changed"),
            Self::AllocationLost => {
                f.write_str("the TURN server's address for this device is gone")
            }
            Self::CircuitLost => f.write_str("who passed datagrams on does so no more"),
            Self::SocketLost => f.write_str("its socket is closed"),
            Self::RelayLost => f.write_str("the relay is gone"),
            Self::PeerChangedRelay => f.write_str("the peer uses this relay now"),
            Self::PeerMoved => f.write_str("the peer made a new session this way"),
        }
    }
}

/// What a direct path lacks that is not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// An answer to pings.
    Answer,
    /// Packets of full size did not pass when they were tried last.
    FullPackets,
    /// It carries pings, and none of the tunnel's packets.
    Packets,
    /// It was left for what got lost on it, or for how long it took, and has not proved to be better since.
    Quality(Reason),
    /// Nothing; another one is better.
    Precedence,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer => f.write_str("does not answer"),
            Self::FullPackets => f.write_str("loses packets of full size"),
            Self::Packets => f.write_str("drops the tunnel's packets"),
            Self::Quality(reason) => write!(f, "was left for another: {reason}"),
            Self::Precedence => f.write_str("another is better"),
        }
    }
}

/// Why there is no direct path to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// There is no traffic, so none is looked for.
    Idle,
    /// This device sends no datagrams.
    NoUdp,
    /// The peer has announced no address that may be dialled.
    NoAddress,
    /// Neither translator gives ports that can be foreseen.
    BothAtRandom,
    /// This device's translator gives ports that cannot be foreseen, and the peer is not found by chance either, so far.
    AtRandom,
    /// No address of the peer answers.
    NoAnswer,
    /// Addresses answer, but none is of use.
    Unusable,
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "there is no traffic, so no direct path is looked for",
            Self::NoUdp => "this device sends no datagrams",
            Self::NoAddress => "the peer announces no address for datagrams",
            Self::BothAtRandom => {
                "the translators in front of both devices give ports at random; a port mapping at either (PCP, NAT-PMP, UPnP), \
                 IPv6, a TURN server or a peer relay helps"
            }
            Self::AtRandom => {
                "the translator in front of this device gives ports at random, and the peer has not been met by chance yet"
            }
            Self::NoAnswer => {
                "no address of the peer answers; a firewall that lets UDP through only for answers to itself, or not at \
                 all, may be in front of either device"
            }
            Self::Unusable => "addresses answer, and none of them is of use",
        })
    }
}

/// One change of path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When it was taken.
    pub at: Instant,
    /// The path from then on.
    pub path: Path,
    /// What made it so.
    pub reason: Reason,
}

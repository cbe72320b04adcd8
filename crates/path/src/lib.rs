//! Candidates, probing and path choice for one peer.
//!
//! Two devices can always talk through a relay that both know; everything in this crate is about
//! doing better than that without ever doing worse. A [`PathAgent`] belongs to one peer. It is fed
//! with the addresses at which that peer might be reachable (its *candidates*), probes them with
//! authenticated pings, and answers one question: over which [`Path`] should the next packet go?
//!
//! The model:
//!
//! - **Relay first.** As long as nothing better is proven, [`Path::Relay`] is the answer. Which of the
//!   peer's relays that is, a [`RelayChoice`] tells.
//! - **A stream before relays.** [`Path::Stream`] is the same without a relay in between, for as long as the
//!   owner says that such a stream stands; the [`RelayChoice`] watches it as if the peer were its own relay.
//! - **Proof.** A direct path is used only after one of our own pings came back over it, or after
//!   the peer, which proves likewise, made a session over it. These pings are as long as what a tunnel packet of
//!   [`BASE_MTU`] bytes becomes; a path that ceases to carry those is left, whatever else comes over it.
//! - **Packets, not only pings.** A path that carries pings and drops the tunnel's packets is left within seconds: each pong
//!   says how many have come ([`Counts`]). Some are sent there now and then, and it is used again once they arrive.
//! - **Quality decides.** A path that loses many of these packets, or takes far longer than the way for frames, gives way to
//!   that for half a minute, for twice as long each time; among direct paths the fastest goes first, with hysteresis ([`Rank`]).
//! - **Larger packets where they pass.** On the chosen path pings of other lengths find out how large packets it carries, up to
//!   what the tunnel is meant for; where they cease to pass, smaller ones do (RFC 8899, [`PathAgent::mtu`]).
//! - **Both ends at once.** Probing starts with a call-me-maybe through the relay. It carries our
//!   candidates and makes the other end probe in the same moment, which opens both firewalls.
//! - **Passed on behind all else.** A peer may be reached through an allocation of this device at a TURN server or over a
//!   circuit through another member, by an address of its own making ([`Alias`]), or through an allocation of the peer's,
//!   which is an address like others. These are paths like others, but any other direct path goes before them, and looking
//!   for one does not end with them.
//! - **Counted ports are guessed.** A translator that gives each destination another port, but counts them,
//!   is asked where it stands just before it is probed through ([`StunClient::survey`]); the call-me-maybe
//!   says so, and the other end pings the ports that come next, a few times and within [`ProbeBudget`].
//! - **Ports at random are met by chance.** If only one of both ends has such a translator, that end sends from many sockets,
//!   and the other pings at many ports ([`SOCKETS`]); the socket that is hit is a path of its own ([`Alias::Socket`]).
//! - **Traffic is the measure.** Traffic that stays unanswered for [`PROBE_AFTER`] triggers probes,
//!   and the path is given up after [`DEMOTE_AFTER`]. Peers without traffic are left alone.
//! - **Bounded.** At most [`MAX_CANDIDATES`] per peer; probes to unproven addresses draw from one
//!   [`ProbeBudget`] per destination that all agents of a node share; addresses that must never be
//!   dialled are refused by [`CandidateFilter`].
//! - **Explained.** Each change of path is kept as a [`Decision`] with its [`Reason`].
//!
//! Agents neither seal nor route: the owner seals each [`Transmit`] for the peer (disco messages
//! are only as trustworthy as the frame around them) and hands in only messages that it opened.
//!
//! Everything is deterministic: time and randomness are arguments. Drive an agent by calling any
//! `handle_*` method, then draining [`PathAgent::poll_transmit`] and [`PathAgent::poll_event`],
//! then sleeping until [`PathAgent::poll_timeout`].
//!
//! - [`stun`]: binding requests and responses (RFC 8489), for clients and servers
//! - [`StunClient`]: finds and keeps our own reflexive addresses, and tells how they come about ([`Mapping`],
//!   [`PortSequence`]) and who gets in there ([`Filtering`])

#![forbid(unsafe_code)]

mod agent;
mod alias;
mod budget;
mod calls;
mod candidate;
mod disco;
mod filtering;
mod frames;
mod guesses;
mod io;
mod loss;
mod mtu;
mod relay_choice;
mod remote;
mod remotes;
mod rendezvous;
mod scatter;
mod shunning;
pub mod stun;
mod stun_client;
mod survey;
mod translator;
mod why;

pub use agent::{DEMOTE_AFTER, PROBE_AFTER, PathAgent};
pub use alias::{Alias, Allocation};
pub use budget::ProbeBudget;
pub use candidate::{Candidate, CandidateFilter, CandidateKind, MAX_CANDIDATES, order};
pub use disco::{DecodeError, MAX_MESSAGE, Message, TransactionId};
pub use filtering::Filtering;
pub use io::{Counts, PathConfig, PathEvent, RemoteStatus, Transmit};
pub use mtu::BASE_MTU;
pub use relay_choice::{RelayChange, RelayChoice};
pub use remote::Rank;
pub use scatter::{SOCKETS, SOCKETS_KEPT};
pub use stun_client::StunClient;
pub use survey::FreshSocket;
pub use translator::{Mapping, PortSequence};
pub use why::{Decision, Hindrance, Lack, Path, Reason};

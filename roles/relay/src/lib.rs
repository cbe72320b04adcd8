//! The relay: sockets, clock and randomness around the relay's machines.
//!
//! [`Relay::start`] makes a relay that serves no network yet. Connections come to it in one of two
//! ways: [`Relay::listen`] owns a port, or whoever owns the port asks [`Relay::claims`] for each
//! request path and hands what belongs here to [`Relay::handle`], so that controller and relay
//! can share one port. Networks come to it in two ways as well: [`Relay::add_network`] when keys and
//! revocations are at hand, as in a process that is the controller too; or [`Membership`], which joins
//! with an invite, keeps a channel to the controller for revocations, offers the relay to the network and
//! reports its load.
//!
//! All decisions are in `relay_proto::RelayServer`, behind one lock that is held for the time of a
//! burst of messages and never across a wait. Each connection is one task that reads, and writes what the
//! machine gives it when the stream takes it; what waits, waits in the machine's bounded queues.
//!
//! | module | what |
//! |---|---|
//! | `relay` | the relay and its connections |
//! | `membership` | a relay that is a member by an invite |
//! | `mesh` | its links to the other relays of a network |
//! | `streams` | connections that it opens |
//! | `map_keeper` | when its map is written down |
//! | `secrets` | what a member keeps between runs |
//! | `draining` | stopping without anybody noticing |
//! | `admin` | who may ask a running relay for that |
//! | `udp` | STUN and circuits over UDP |
//! | `stun` | what a STUN server says |
//! | `capture` | what arrived, for those who want to look for plaintext in it |
//! | `cpu` | processor use |
//! | `clock` | time and randomness of the operating system |

#![forbid(unsafe_code)]

mod admin;
mod capture;
mod clock;
mod cpu;
mod draining;
mod map_keeper;
mod membership;
mod mesh;
mod relay;
mod secrets;
mod streams;
mod stun;
mod udp;

pub use admin::{AdminClient, AdminClientError, AdminListener, Never};
pub use capture::Capture;
pub use draining::{Drained, Draining, Whereabouts};
pub use membership::{Membership, MembershipConfig, MembershipError, MembershipStatus};
pub use relay::{Relay, RelayConfig};
pub use relay_proto::{Limits, LoadReport, Rate, RelayNetwork};

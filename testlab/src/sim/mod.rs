//! A whole network on a virtual clock.
//!
//! The machines are the shipped ones: [`engine::Engine`] for nodes, [`relay_proto::RelayServer`]
//! and [`control_proto::ControlClient`] for relays, [`control_proto::Controller`] with a disk that
//! is a value. What the simulator adds is what lies between them: datagrams that are lost, late or
//! doubled, and streams that are only late.
//!
//! Time jumps from one thing that happens to the next, and all randomness comes from one seed, so
//! a run is the same every time, whatever machine it runs on.
//!
//! - [`World`]: hosts and what happens to them; what a scenario drives
//! - `clock`, `timers`: time
//! - [`Underlay`], [`Nat`]: sites, translators and firewalls; [`Quality`]: how datagrams fare
//! - [`Pair`]: the way of bulk between two nodes, machine by machine
//! - `hosts`, `plain`: a node, a relay, a controller and a WireGuard peer around their machines
//! - `turn`: a TURN server
//! - `shell`, `delivery`, `streams`, `wire`: what machines want done, and what happens between hosts
//! - [`scenario`]: bytes that say what happens, and a model that says what ought to be
//! - `trace`: the last messages, for whoever looks for a fault

mod clock;
mod delivery;
mod hosts;
mod nat;
mod packets;
mod pair;
mod plain;
pub mod scenario;
mod shell;
mod streams;
mod timers;
mod trace;
mod turn;
mod underlay;
mod wire;
mod world;

pub use hosts::{Clock, ControllerHost, NodeHost, RelayHost};
pub use nat::{Dependence, Firewall, Nat, NatBehaviour, Ports};
pub use packets::Echo;
pub use pair::Pair;
pub use plain::PlainHost;
pub use turn::TurnHost;
pub use underlay::{EdgeKind, Flight, HostId, INTERNET, SiteId, Streams, Underlay};
pub use wire::{Agenda, Quality};
pub use world::{Arrival, Setup, World};

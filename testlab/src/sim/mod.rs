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
//! - [`World`]: hosts and the clock; what a scenario drives
//! - [`Quality`]: how datagrams fare
//! - [`Pair`]: the way of bulk between two nodes, machine by machine
//! - `hosts`, `plain`: a node, a relay, a controller and a WireGuard peer around their machines
//! - `delivery`, `wire`: what happens between hosts

mod delivery;
mod hosts;
mod packets;
mod pair;
mod plain;
mod wire;
mod world;

pub use hosts::{ControllerHost, NodeHost, RelayHost};
pub use pair::Pair;
pub use plain::PlainHost;
pub use wire::{Agenda, Quality};
pub use world::{Setup, World};

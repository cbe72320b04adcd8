//! Test equipment: the simulator, the namespace lab, and peers of other projects.
//!
//! Nothing depends on this crate.
//!
//! - [`sim`]: the shipped machines on a virtual clock.
//! - [`fuzz`]: what is given bytes from outside, for fuzzers
//! - [`netns`]: hosts, wires and processes in network namespaces, for real binaries and TUN devices
//! - [`network`]: a whole network of such hosts
//! - [`places`]: what nodes are surrounded by, in both
//! - [`members`]: a network that one relay serves, and its members
//! - [`wireguard`]: one end of a plain WireGuard tunnel, by any implementation
//! - [`relays`]: relays that are linked with each other, and devices at them
//! - [`probes`]: pings through the tunnel, and how long none was answered

pub mod fuzz;
pub mod members;
pub mod netns;
pub mod network;
pub mod places;
pub mod probes;
pub mod relays;
pub mod sim;
pub mod wireguard;

//! A whole node, composed of the pure protocols: the only type that a shell drives.
//!
//! An [`Engine`] is one network on one device. It has no sockets, threads, clock or randomness of
//! its own: a shell brings datagrams, packets, connections, time and random numbers, and carries
//! out what the engine answers. The same engine runs under the real loop and under the simulator.
//!
//! ```text
//!            packets                 Engine                       network
//!   TUN ──── handle_packet ─────► routes ─► session ─► path ─┬─► poll_transmit     UDP
//!       ◄─── poll_packet ──────── source check ◄─ session ◄──┤   handle_datagram
//!                                                            └─► poll_message      relay links
//!                                 map ◄─ control client ◄──────  handle_stream_*   controller
//! ```
//!
//! What it holds to:
//!
//! - **Decisions in one place.** Child machines (control client, relay links, WireGuard interface,
//!   path agents, STUN client) never talk to each other or to the shell; the engine drains them
//!   inside its handlers and carries everything between them.
//! - **Bulk elsewhere.** What most packets need is published as an immutable [`DataPlane`] that
//!   data threads use through a [`DataPlaneHandle`]; the engine itself calls the same functions.
//! - **Trust.** Peers are those whose proofs in the map, or in an introduction, verify, and plain
//!   WireGuard peers that a record lets in. Whoever is revoked or has expired loses the tunnel in
//!   the same call in which the engine learns of it.
//!   Packets from any path must bear an address of the peer whose session opened them; all members
//!   may connect to this device.
//! - **First byte.** Packets wait, bounded, while a session is made over the relay; a better path
//!   is found meanwhile.
//! - **No controller needed.** What must survive a restart is handed out as
//!   [`EngineEvent::Save`]; with it a node comes back while every controller is dead.
//!
//! | file | what |
//! |---|---|
//! | `engine` | the coordinator and its public handlers |
//! | `config`, `io` | what it starts with, what goes in and out |
//! | `sync`, `peers`, `peer`, `plain` | the map turned into peers |
//! | `introductions`, `strangers` | how many new keys are looked at, and what waits for them |
//! | `tunnels`, `traffic`, `frames`, `host_packet`, `psk`, `via` | packets, sessions, frames |
//! | `discovery`, `surveys` | paths, candidates, announcements, how a translator counts |
//! | `ladder` | when each way to a peer joins the others, and which won before |
//! | `turns`, `sockets` | allocations at TURN servers, and sockets towards them |
//! | `scatter` | sockets by which a peer finds a device behind ports at random |
//! | `circuits` | datagrams that members pass on for each other |
//! | `control`, `relays`, `relay_event`, `links`, `hosts`, `guests`, `streams`, `classes` | connections to controller, relays and peers, and who waits where |
//! | `dataplane`, `routes` | what runs on data threads |
//! | `alarms` | security events, counted and rate-limited |
//! | `names` | the zone for the resolver |
//! | `status` | what the command line shows |
//! | `statements` | what this device signs about itself |
//! | `saved`, `timers`, `context` | memory, clock, and what each call brings |

#![forbid(unsafe_code)]

mod alarms;
mod circuits;
mod classes;
mod config;
mod context;
mod control;
mod dataplane;
mod discovery;
mod engine;
mod frames;
mod guests;
mod host_packet;
mod hosts;
mod introductions;
mod io;
mod ladder;
mod links;
mod names;
mod peer;
mod peers;
mod plain;
mod psk;
mod relay_event;
mod relays;
mod routes;
mod saved;
mod scatter;
mod sockets;
mod statements;
mod status;
mod strangers;
mod streams;
mod surveys;
mod sync;
mod timers;
mod traffic;
mod tunnels;
mod turns;
mod via;

pub use config::{DEFAULT_MTU, DeviceSecrets, EngineConfig, SavedState};
pub use dataplane::{
    DataPlane, DataPlaneHandle, DropReason, Inbound, Notice, Outbound, PeerCounters, Way,
};
pub use engine::Engine;
pub use frame_proto::has_aes;
pub use host_packet::HostPacket;
pub use io::{
    ConnectionState, DialTarget, EngineEvent, InterfaceSettings, Purpose, SocketCommand, SocketId,
    SocketTo, StatePart, StreamCommand, StreamId, Transmit,
};
pub use ladder::Rung;
pub use noise_channel::{Now, UnixMillis};
pub use path::stun::is_stun;
pub use routes::Routes;
pub use status::{
    CandidateStatus, DecisionStatus, EngineStatus, FramesStatus, PeerStatus, RelayStatus,
    TurnStatus, WhyStatus,
};

//! A device in its networks: the event loop around the engine, and the local API.
//!
//! A [`Node`] runs one [`engine::Engine`] for each network that the device is in, each in a task of its
//! own. The task turns what happens outside into calls of the engine, and what the engine wants into
//! datagrams, WebSocket connections, packets and files; it decides nothing. Networks share the host's
//! side of the packets, the keystore and the local API.
//!
//! What holds at all times:
//! - Keys are on disk before anything is sent that needs them again.
//! - A message leaves the engine only when its connection has room, so that queues, and what is dropped
//!   from them, stay the engine's.
//! - Whatever is changed on the host is undone at the end, or at the next start after a crash.
//!
//! | module | what |
//! |---|---|
//! | [`api`] | the local API: types, server, client |
//! | [`dns`] | the stub resolver |
//! | `node` | starting, joining, leaving, stopping |
//! | `join` | waiting for a network's answer |
//! | `network` | the event loop of one network |
//! | `streams`, `door`, `detour`, `udp`, `survey`, `mapping`, `sockets`, `mark`, `underlay`, `winners`, `ready` | the underlay |
//! | `fault`, `error` | why connections fail and a node does not start, and what to do |
//! | `host`, `interface`, `data`, `userspace` | where packets go on this host |
//! | `directory`, `names` | by which names, and making them the system's |
//! | `memory` | what is kept between runs |
//! | `view` | the engine's words in those of the local API |
//! | `clock` | the present |
//! | `settings` | everything that may be set |

#![forbid(unsafe_code)]

pub mod api;
mod clock;
mod data;
mod detour;
mod directory;
pub mod dns;
mod door;
mod error;
mod fault;
mod host;
mod interface;
mod join;
mod mapping;
mod mark;
mod memory;
mod names;
mod network;
mod node;
mod ready;
mod settings;
mod sockets;
mod streams;
mod survey;
mod udp;
mod underlay;
mod userspace;
mod view;
mod winners;

pub use clock::Clock;
pub use door::Listening;
pub use error::StartError;
pub use node::{JOURNAL, Node, NodeConfig};
pub use settings::{Forward, Listen, Mode, NodeSettings, Publish, ThreadCount};

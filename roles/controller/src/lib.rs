//! The controller: persistence, listener and administration around the controller machine.
//!
//! All decisions are those of [`control_proto::Controller`]. This crate gives it sockets, a disk and
//! a clock. One task owns the machine; a second one writes its batches of changes, in order and
//! several to a transaction when they come faster than the disk; the machine holds back whatever
//! follows from a batch until that is durable. If a batch cannot be written, the machine goes with
//! all its connections: it may not promise what it cannot keep. Another one starts from what is on
//! disk, again and again until the disk takes changes.
//!
//! A [`Controller`] has no port of its own. Whoever listens asks [`Controller::claims`] with the
//! path of a request and hands the upgrade over, so that a relay and several networks' controllers
//! share one port and look like one web server.
//!
//! | module | what |
//! |---|---|
//! | [`network`] | a network on disk: created, backed up, restored |
//! | [`secrets`] | its keys |
//! | [`store`] | what survives a restart |
//! | `server` | a running controller and its connections |
//! | `driver`, `keeper` | the loop around the machine, the way to the disk |
//! | `supervisor` | a new machine for one whose change could not be kept |
//! | `admin` | administration over a unix socket, and its client |
//! | `clock` | time and randomness of the operating system |

#![forbid(unsafe_code)]

mod admin;
mod clock;
mod driver;
mod keeper;
pub mod network;
pub mod secrets;
mod server;
pub mod store;
mod supervisor;

pub use admin::{AdminClient, AdminClientError};
pub use server::{Config, Controller, Ended, StartError};

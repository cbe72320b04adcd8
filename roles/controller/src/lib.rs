//! The controller: persistence, listener and administration around the controller machine.
//!
//! - [`network`]: a network on disk: created, backed up, restored
//! - [`secrets`]: its keys
//! - [`store`]: what survives a restart

#![forbid(unsafe_code)]

pub mod network;
pub mod secrets;
pub mod store;

//! The controller: persistence, listener and administration around the controller machine.
//!
//! - [`store`]: what survives a restart

#![forbid(unsafe_code)]

pub mod store;

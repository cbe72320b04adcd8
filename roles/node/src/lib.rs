//! A device in its networks: the event loop around the engine.

#![forbid(unsafe_code)]

pub mod api;
pub mod dns;
mod settings;

pub use settings::{Forward, Mode, NodeSettings, Publish};

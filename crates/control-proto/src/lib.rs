//! What nodes and controllers say to each other, and the machines of both sides.
#![forbid(unsafe_code)]

mod admin;
mod client;
mod event;
pub mod limits;
mod map;
mod membership;
mod message;
mod text;

pub use admin::*;
pub use client::*;
pub use event::*;
pub use map::*;
pub use message::*;
pub use noise_channel::{ClockOffset, Now, UnixMillis};

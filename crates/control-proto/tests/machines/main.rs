//! The machines of both sides against each other, and against hostile input.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::too_many_arguments,
    reason = "test equipment: a panic is a failed test"
)]

mod hostile;
mod limits;
mod network;
mod reports;
mod restarts;
mod settings;
mod strict;
mod succession;
mod world;

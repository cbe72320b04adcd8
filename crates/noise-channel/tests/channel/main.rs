//! Two channels talking to each other under virtual time.

mod handshake;
mod hidden;
mod messages;
mod pair;
mod rotation;

//! Two stacks joined by a wire: streams, datagrams, proxy and forwards through the public API.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod packets;
mod proxy;
mod streams;
mod wire;

//! Clients and a relay talking to each other under virtual time.

mod circuits;
mod forwarding;
mod membership;
mod observers;
mod padding;
mod queues;
mod shaping;
mod strangers;
mod world;

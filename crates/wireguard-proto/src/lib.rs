//! The WireGuard protocol for one peer and for one interface, without sockets or clocks.

#![forbid(unsafe_code)]

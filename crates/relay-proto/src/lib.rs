//! The relay protocol: client and server machines.

#![forbid(unsafe_code)]

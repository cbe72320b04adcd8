//! Our plain WireGuard interface against other implementations, in real namespaces.
//!
//! Needs root, `wg`, `wg-quick`, `iperf3`, `ping`, wireguard-go and boringtun-cli.

mod addresses;
mod files;
mod floods;
mod helper;
mod node;
mod sessions;
mod tools;

//! Linux: the system calls behind the public modules.

pub(crate) mod process;
pub(crate) mod tun;
pub(crate) mod udp;

//! The operating system: TUN, UDP, routes, name resolution.

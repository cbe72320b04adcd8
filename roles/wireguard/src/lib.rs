//! A plain WireGuard interface in userspace with the cross-platform UAPI.

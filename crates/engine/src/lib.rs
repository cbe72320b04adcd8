//! A whole node composed of the pure protocols: the only type that a shell drives.

#![forbid(unsafe_code)]

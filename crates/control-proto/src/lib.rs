//! Network map, deltas and the messages between nodes and controllers, with the machines of both sides.

#![forbid(unsafe_code)]

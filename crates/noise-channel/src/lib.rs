//! The Noise_IK channel between nodes, relays and controllers.

#![forbid(unsafe_code)]

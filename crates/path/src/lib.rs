//! Candidates, probing and path choice for one peer.

#![forbid(unsafe_code)]

//! The protocol through its public API.

#![allow(clippy::unwrap_used, reason = "a test may end where it stands")]

mod cookies;
mod hostile;
mod known_answer;
mod lab;
mod replay;
mod threads;
mod timers;

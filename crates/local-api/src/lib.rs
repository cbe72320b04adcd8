//! HTTP and JSON on a unix socket: how the command talks to what runs on the same host.
//!
//! [`OwnerListener`] takes the socket's path and accepts only root and the user who runs the process, whatever the permissions of the
//! folder say. [`Client`] sends a request and reads the answer, within bounds of size and time. What is asked and answered is the
//! business of the two sides.

#![forbid(unsafe_code)]

mod client;
mod listener;

pub use bytes::Bytes;
pub use client::{Client, RequestError};
pub use hyper::Method;
pub use listener::{BindError, OwnerListener};

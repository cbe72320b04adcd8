//! The local API: HTTP/1.1 and JSON on a unix socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/netcheck` | [`Netcheck`] |
//! | `GET /v1/why?peer=NAME` | [`Why`] |
//! | `POST /v1/ping` [`PingRequest`] | [`PingReply`] |
//! | `POST /v1/join` [`JoinRequest`] | [`Joined`] |
//! | `POST /v1/leave` [`LeaveRequest`] | `null` |
//! | `POST /v1/down` | `null` |
//! | `GET /v1/events` | one [`Event`] a line, as they happen |
//!
//! A request that cannot be served is answered with an [`ApiError`]. Only root and the user who runs
//! the node may connect.

mod client;
mod server;
mod types;

pub use client::{Client, ClientError, Events};
pub(crate) use server::{Command, Reply, serve};
pub use types::{
    ApiError, Event, JoinRequest, Joined, LeaveRequest, Membership, Netcheck, NetworkStatus,
    PathKind, PathView, PeerStatus, PingReply, PingRequest, Problem, RelayCheck, Running, Status,
    TurnCheck, Why, WhyEntry, WhyPath,
};

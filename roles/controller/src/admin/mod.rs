//! Administration over a unix socket: HTTP/1.1 with JSON, for the socket's owner alone.
//!
//! | request | what |
//! |---|---|
//! | `GET /v1/network` | the network and its settings |
//! | `PATCH /v1/network` | change settings |
//! | `GET`, `POST /v1/invites` | list, make |
//! | `DELETE /v1/invites/{key}` | revoke |
//! | `GET /v1/devices` | list |
//! | `PATCH /v1/devices/{id}` | rename: `{"name": ...}` |
//! | `POST /v1/devices/{id}/approve` | let in |
//! | `DELETE /v1/devices/{id}` | remove and revoke |
//! | `GET /v1/outline` | what invites say beside whom they admit |
//! | `GET /v1/unsigned` | what waits for the owner's signature |
//! | `POST /v1/records` | publish what the owner has signed: `{"items": [...]}` |
//! | `GET /v1/relays`, `DELETE /v1/relays/{id}` | list, withdraw |
//! | `GET /v1/events`, `GET /v1/audit` | `?before=N&limit=N`, newest first |
//! | `POST /v1/logs/verify` | check the chains of hashes |

mod api;
mod client;

pub(crate) use api::serve;
pub use client::{AdminClient, AdminClientError};

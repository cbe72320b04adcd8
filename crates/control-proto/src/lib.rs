//! What nodes and controllers say to each other, and the machines of both sides.
//!
//! The controller is a carrier. Everything in a [`NetworkMap`] proves itself against the network's
//! own key: members by their certificate chains, keys and endpoints by the device's signature,
//! records by the key of their scope. A node verifies each item as it comes, refuses what is older
//! than what it has seen, and keeps the map on disk, so that it starts, connects and works while
//! every controller is down.
//!
//! # A node's side
//!
//! [`ControlClient`] holds one channel to the controller. Its first message on each channel is a
//! [`Hello`]: membership, keys, proof of presence, and the version of the map it has. Joining by
//! invite and coming back are the same message, so a node that lost the answer repeats it; the
//! controller notes the use of an invite once per device. A taken name or address is answered with
//! a free one, and the device, which holds the invite's key, certifies itself again.
//!
//! # The controller's side
//!
//! [`Controller`] decides everything in memory and emits [`Change`]s in batches. Whatever follows
//! from a change, be it an answer or a new map, waits until its batch is on disk: a crash between
//! the two loses nothing that anybody was told. The map is a set of [`MapItem`]s, each with the
//! version in which it last changed, so a node that was away gets exactly what is newer than what
//! it has, or the whole map when too much was forgotten since.
//!
//! In the simple mode the controller holds delegated keys of all scopes and could admit devices by
//! itself; in the strict mode it can only renew and revoke, and the [`Owner`] signs the rest. The mode
//! is a matter of which keys are in its [`AuthorityKeys`].
//!
//! Both machines are pure. Inputs are `handle_*`, outputs `poll_*`; time and randomness are
//! arguments.
//!
//! | module | what |
//! |---|---|
//! | `message` | the messages, refusals |
//! | `map` | the map on a node: apply, expire, keep |
//! | `client` | a node's channel: join, resume, renew, reconnect, replace before it is cut |
//! | `controller` | the controller: hello, messages, administration, publication |
//! | `owner` | invites and signatures of the network's owner, in strict mode |
//! | `admin` | requests and views of administrators |
//! | `event`, `repeats` | security events and the audit trail; equal events are told once a minute |
//! | `text` | what JSON has as text |
//! | [`limits`] | every limit as data |

#![forbid(unsafe_code)]

mod admin;
mod client;
mod controller;
mod event;
pub mod limits;
mod map;
mod message;
mod owner;
mod repeats;
mod text;

pub use admin::{
    AdminAnswer, AdminError, AdminRequest, ControllerPlace, CreatedInvite, DeviceView,
    InviteRequest, InviteState, InviteView, NameTargetView, NameView, NetworkView, PeerRequest,
    PeerView, RelayView, SettingsChange, TurnText,
};
pub use client::{
    Admission, ClientConfig, ClientEvent, ClientStatus, ControlClient, ControllerAddress,
    StreamAction,
};
pub use controller::{
    AuthorityKeys, Change, Controller, ControllerConfig, Counters, DeviceRecord, InviteRecord,
    KeyMismatch, Output, PersistId, Retention, Settings, Stored, StoredItem, Ticket,
};
pub use event::{
    Actor, AuditAction, AuditEntry, ConnectionRefusal, EventRecord, SecurityEvent, TunnelRefusal,
};
pub use map::{
    Applied, CacheError, Gossip, ItemKey, MapChanges, MapItem, NetworkMap, Peer, PeerEntry,
    RelayHealth,
};
pub use message::{
    ConnectionId, ControllerMessage, Hello, LoadReport, MapChunk, MapVersion, MessageError, Mode,
    NodeMessage, Refusal, Welcome,
};
pub use noise_channel::{ClockOffset, Now, UnixMillis};
pub use owner::{NotAnOutline, Outline, Owner, Unsigned};
pub use repeats::Repeats;

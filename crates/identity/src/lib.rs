//! Who is who in a network, and who may say so.
//!
//! A network is an Ed25519 key. Its public half is the [`NetworkId`]; its secret half, the
//! [`NetworkKey`], can stay offline: it signs a few [`Delegation`]s, each of which gives another
//! key one [`Scope`], and seldom an [`Epoch`]. A device is an Ed25519 key too; it is a member if a
//! [`CertificateChain`] leads from the NetworkId to its [`DeviceId`]. Everything else that parts
//! of the system tell each other about the network is a statement signed by a key of the right
//! scope or by the device concerned, so that whoever carries a statement need not be trusted.
//!
//! What holds everywhere:
//!
//! - Every statement travels as [`Signed`]: the network and the purpose are part of what is
//!   signed, there is one encoding, and the bytes are believed only after `verify`.
//! - Certificates and renewals end by themselves, after [`DEFAULT_VALIDITY`] unless chosen
//!   otherwise. What must end sooner is on the numbered, hash-chained list of [`Revocations`],
//!   from which nothing is ever taken back.
//! - [`Record`]s are numbered by (epoch, version). [`RecordFloors`] remembers the newest about
//!   each subject and refuses older ones, so that nobody can play back an old state.
//! - An [`Invite`] holds a one-time key that may certify one device within its [`InviteGrant`].
//! - Addresses are proposed by a hash and proved by the certificate; see [`device_address`].
//! - Secret keys are wiped when dropped and never shown by `Debug`.
//!
//! Nothing here reads a clock or draws randomness: both are arguments.
//!
//! | file | what |
//! |---|---|
//! | `id`, `name`, `time` | ids, names, validity |
//! | `key` | secret keys |
//! | `signed` | the envelope |
//! | `delegation`, `authority` | scopes, and the table of who has which |
//! | `certificate`, `chain` | membership |
//! | `device` | what a device says about itself |
//! | `revocation` | what does not count any more |
//! | `record`, `entry`, `server` | numbered records, and what they are about |
//! | `invite` | joining |
//! | `traffic`, `padding`, `shaping`, `turn` | rules for what waits, for lengths, and for times; servers of others that pass datagrams on |
//! | `encoding` | how bytes become types, and text |
//! | `address` | prefixes and interface identifiers |

#![forbid(unsafe_code)]

mod address;
mod authority;
mod certificate;
mod chain;
mod delegation;
mod device;
mod encoding;
mod entry;
mod id;
mod invite;
mod key;
mod name;
mod padding;
mod record;
mod revocation;
mod server;
mod shaping;
mod signed;
mod time;
mod traffic;
mod turn;

pub use address::{
    Ipv4Prefix, PrefixError, Subnet, UlaPrefix, device_address, interface_identifier, ipv4_prefix,
    ula_prefix,
};
pub use authority::Authorities;
pub use certificate::{Certificate, InviteGrant, MAX_GROUPS, Renewal};
pub use chain::{CertificateChain, ChainError, ChainPart, Limit, Member, Proof, ProvenRenewal};
pub use delegation::{Delegation, DelegationError, Epoch, IssueLimits, Scope};
pub use device::{
    Attachment, Binding, Candidate, CandidateKind, ChannelProof, Endpoints, MAX_CANDIDATES,
    MAX_SERVER_ADDRESSES, MAX_SERVERS,
};
pub use entry::{
    ControllerEntry, Lease4, NameEntry, NameTarget, NetworkInfo, RelayEntry, StaticPeer,
};
pub use id::{
    ChannelPublicKey, DeviceId, NetworkId, ParseKeyError, Serial, SignerId, StatementHash,
    TunnelPublicKey,
};
pub use invite::{
    INVITE_PREFIX, Invite, InviteError, InviteSecret, MAX_INVITE_LENGTH, PathSecretBytes,
    SuccessorRule,
};
pub use key::{ChannelKey, DelegatedKey, DeviceKey, InviteKey, NetworkKey, Signer, TunnelKey};
pub use name::{DeviceName, GroupName, NameError, NetworkName};
pub use padding::{Padding, ParsePaddingError};
pub use record::{Record, RecordBody, RecordError, RecordFloors, verify_record};
pub use revocation::{Freshness, RevocationEntry, RevocationError, RevocationTarget, Revocations};
pub use server::{ServerAddress, TlsMode};
pub use shaping::{MAX_MACHINES, MAX_MACHINES_LENGTH, ParseShapingError, Shaping};
pub use signed::{SignatureError, Signed, Statement};
pub use time::{CLOCK_TOLERANCE, DEFAULT_VALIDITY, UnixTime, Validity, ValidityError};
pub use traffic::{MAX_TRAFFIC_RULES, ParseTrafficRuleError, TrafficClass, TrafficRule, Transport};
pub use turn::{MAX_TURN_SERVERS, ParseTurnServerError, TurnLogin, TurnSecret, TurnServer};

//! The WireGuard protocol for one peer and for one interface, without sockets or clocks.
//!
//! The source is the WireGuard paper (Donenfeld, NDSS 2017, revision of 2020); section numbers in
//! this crate are the paper's. What a plain peer can see is exactly the paper's protocol.
//!
//! # The model
//!
//! An [`Interface`] has a static key and peers; each peer is a [`Tunnel`]: a handshake, timers,
//! and up to three [`Session`]s (previous, current, next). The interface is a machine without
//! I/O. Datagrams and instants go in through `handle_*`, messages and events come out of `poll_*`,
//! randomness is an argument. Messages carry an [`Endpoint`] of the caller's choosing, so the same
//! handshake runs over UDP or inside any other transport.
//!
//! A session is shared: any number of threads seal and open with it while the interface runs
//! elsewhere. A thread reserves [`Counter`]s for a whole batch with one atomic addition, seals in
//! place, and takes the lock of the [`ReplayWindow`] once per batch. What it did it notes on the
//! session; only when a note changes what the timers must do next does it have to tell the
//! interface ([`Interface::handle_activity`]), which is about once in ten seconds per peer.
//!
//! # Invariants
//!
//! - No Diffie-Hellman before the [`Gate`]: mac1, then a cookie when the measured rate of
//!   handshakes (in total or of the sender's prefix) calls for one, then a budget.
//! - A responder sends nothing on a session before it has opened one packet of it.
//! - A [`Counter`] seals one message, because it cannot be copied; a session ends before its
//!   counters do, and after [`REJECT_AFTER_TIME`].
//! - Timestamps of initiations only rise: max(now, last sent + 1). The last one is readable, to be
//!   stored.
//! - Secrets are wiped when dropped. The final chaining key lives no longer than the derivation of
//!   the transport keys and of the [`FrameSecrets`].
//!
//! # Example
//!
//! ```
//! use std::net::SocketAddr;
//! use std::time::{Duration, Instant};
//! use rand_chacha::ChaCha20Rng;
//! use rand_core::SeedableRng;
//! use wireguard_proto::{
//!     Interface, InterfaceConfig, LoadLimits, PeerConfig, PrivateKey, Received, Tai64N,
//! };
//!
//! let mut rng = ChaCha20Rng::seed_from_u64(1);
//! let now = Instant::now();
//! let mut interface = |key: &PrivateKey| {
//!     let config = InterfaceConfig {
//!         private_key: key.clone(),
//!         rekey_after_bytes: None,
//!         limits: LoadLimits::default(),
//!         last_timestamp: Tai64N::default(),
//!         wall: Duration::from_secs(1_700_000_000),
//!     };
//!     Interface::<SocketAddr>::new(config, now)
//! };
//! let (a_key, b_key) = (PrivateKey::generate(&mut rng), PrivateKey::generate(&mut rng));
//! let (mut a, mut b) = (interface(&a_key), interface(&b_key));
//! let (a_at, b_at) = (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into());
//! a.add_peer(b_key.public_key(), PeerConfig { endpoint: Some(b_at), ..PeerConfig::default() }, now);
//! b.add_peer(a_key.public_key(), PeerConfig::default(), now);
//!
//! // A packet waits for a session: initiation, response, keepalive.
//! a.initiate(&b_key.public_key(), &mut rng, now);
//! for _ in 0..2 {
//!     while let Some(mut sent) = a.poll_transmit() {
//!         b.handle_datagram(&mut sent.message, a_at, &mut rng, now)?;
//!     }
//!     while let Some(mut sent) = b.poll_transmit() {
//!         a.handle_datagram(&mut sent.message, b_at, &mut rng, now)?;
//!     }
//! }
//!
//! // Seal in place with room for header and tag around the payload.
//! let session = a.tunnel(&b_key.public_key()).and_then(|t| t.session(now)).expect("established");
//! let mut message = vec![0; 16 + 32 + 16];
//! message[16..21].copy_from_slice(b"hello");
//! let counter = session.reserve(1, now)?.next().expect("one counter");
//! session.seal(counter, &mut message);
//! let wake = session.record_sent(64, true, now);
//! # let _ = wake;
//!
//! let Received::Packet { payload, .. } = b.handle_datagram(&mut message, a_at, &mut rng, now)?
//! else { panic!("a packet") };
//! assert_eq!(&payload[..5], b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod activity;
mod cookie;
mod gate;
mod handshake;
mod interface;
mod keys;
mod local;
mod message;
mod primitives;
mod replay;
mod session;
mod timers;
mod timestamp;
mod tunnel;

pub use gate::{Gate, GateRefusal, LoadLimits, Rate, Source};
pub use interface::{
    Dropped, Endpoint, Event, Interface, InterfaceConfig, PeerConfig, Received, Transmit,
};
pub use keys::{PresharedKey, PrivateKey, PublicKey};
pub use message::{
    COOKIE_REPLY_LEN, INITIATION_LEN, KEEPALIVE_LEN, MessageKind, RESPONSE_LEN,
    TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, padded_len, receiver_index,
};
pub use replay::{REPLAY_WINDOW, ReplayWindow};
pub use session::{Counter, Counters, FrameSecrets, NotUsable, OpenError, Session};
pub use timers::{
    KEEPALIVE_TIMEOUT, REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT,
};
pub use timestamp::Tai64N;
pub use tunnel::Tunnel;

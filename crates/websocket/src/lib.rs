//! WebSocket connections that carry binary messages over TCP or TLS.
//!
//! [`dial()`] connects to an [`Endpoint`]: several IP addresses that are tried in order, a host name for
//! the request and for TLS, and a path. [`Listener`] accepts connections and hands out an [`Upgrade`]
//! for each well-formed request, so that its owner decides by the path alone whether there is anything
//! here; every other request gets the same page that an unknown path gets. Either way the result is a
//! [`WebSocket`], which splits into a [`Sender`] and a [`Receiver`] of binary messages.
//!
//! Rules that hold everywhere:
//! - The upgrade is a plain RFC 6455 GET, as any browser or proxy knows it.
//! - TLS is 1.3 only, without early data. A server is known by the Web PKI or by the SHA-256 of its
//!   public key ([`Tls::Pin`]); the channel inside authenticates both ends again.
//! - Names are never resolved here: the caller brings addresses. An HTTP proxy resolves them for itself.
//! - Whatever comes from a stranger is bounded: the request's size, the time to send it, the number of
//!   connections that have not sent it yet, a message's size, and how often a peer may ask for a pong.
//!
//! | module | what |
//! |---|---|
//! | `dial` | endpoints and connecting |
//! | `front` | proxies that stand before a listener, and the page that it shows |
//! | `listen` | listening, limits, accept or reject |
//! | `message` | the message stream |
//! | `proxy` | tunnels through HTTP proxies |
//! | `tls` | certificates, pins and TLS settings |
//! | `transport` | TCP or TLS as one byte stream |
//! | [`upgrade`] | the HTTP head on either side |

#![forbid(unsafe_code)]

mod dial;
mod front;
mod listen;
mod message;
mod proxy;
mod tls;
mod transport;
pub mod upgrade;

pub use dial::{AttemptError, Detour, DialError, Endpoint, Route, dial, dial_by};
pub use front::{Front, MAX_PAGE, PageTooLong};
pub use listen::{Listener, Upgrade};
pub use message::{Receiver, Sender, WebSocket, WebSocketError};
pub use proxy::{Proxy, ProxyError};
pub use tls::{CertificateError, ServerCertificate, SpkiPin, Tls, generate_key};

/// The longest message that is sent or received, in bytes.
///
/// A Noise message or a frame with its hop tag has at most 65,535.
pub const MAX_MESSAGE: usize = 66 * 1024;

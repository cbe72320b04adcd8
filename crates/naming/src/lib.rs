//! Private names: zone answers and query routing.
//!
//! A [`Zone`] is what one network has to say: `<device>.<network>.alt` with its addresses, further
//! names of the network, and the way back from an address in the network's own prefixes to a name.
//! A [`Namespace`] is all networks of a device. It takes a DNS query as bytes and says what becomes
//! of it ([`Outcome`]): a reply, forwarding to the resolvers of the host, or nothing.
//!
//! Invariants:
//!
//! - No name under `.alt` is ever forwarded (RFC 9476): what is not ours does not exist. The same
//!   holds for addresses in the networks' prefixes.
//! - A reply is authoritative for our zones: NXDOMAIN only when nothing exists at or below the name,
//!   NODATA otherwise, both with the zone's SOA for negative caching (RFC 2308).
//! - A reply repeats the question byte for byte, so clients may randomise its case.
//! - Nothing is answered to a message that is itself a response.
//!
//! Everything is in memory and pure; the stub resolver that owns the sockets drives it.

#![forbid(unsafe_code)]

mod answer;
mod label;
mod reverse;
mod zone;

pub use answer::{Limit, Namespace, Outcome};
pub use label::{NameError, host_label};
pub use zone::{Lookup, Zone};

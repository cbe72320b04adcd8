//! What is given bytes from outside, each as one function over bytes that must neither panic nor take long.
//!
//! `tests/fuzz.rs` runs every target over its corpus and random changes of it; `make fuzz` runs one of them under
//! coverage guidance for as long as wanted. A corpus is a text of hexadecimal lines in `testlab/corpus`.
//!
//! Beside panics each target looks for what must not come of any bytes: something believed that nobody signed,
//! something read that cannot be written and read again, more taken than there was.
//!
//! | module | what is given bytes |
//! |---|---|
//! | `wire` | what peers and strangers send: frames, channels, disco, packets, WireGuard; TURN servers |
//! | `statements` | what is signed, and what carries it |
//! | `links` | both ends of a relay link, by whoever opened its channel; links between relays |
//! | `control` | both ends of a control channel, and a controller's administration |
//! | `names` | questions and answers of DNS, and the host's own lists of names |
//! | `web` | WebSocket, and the proxy of the userspace mode |
//! | `host` | files, the kernel's notices, and programs of this host |

mod control;
mod host;
mod links;
mod names;
mod statements;
mod web;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use data_encoding::HEXLOWER;
use identity::NetworkId;
use noise_channel::{Now, UnixMillis};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::sim::scenario;

/// Something that is given bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// By which it is asked for, and its corpus found.
    pub name: &'static str,
    /// What is given the bytes.
    pub run: fn(&[u8]),
    /// So many changed inputs beside the corpus are worth their time in each run of the tests.
    pub changes: usize,
}

impl Target {
    /// A parser: it takes microseconds.
    const fn quick(name: &'static str, run: fn(&[u8])) -> Self {
        Self { name, run, changes: 3_000 }
    }

    /// A machine that has to be set up first, by handshakes and signatures.
    const fn slow(name: &'static str, run: fn(&[u8])) -> Self {
        Self { name, run, changes: 300 }
    }

    /// What other tests give random inputs already.
    const fn whole(name: &'static str, run: fn(&[u8])) -> Self {
        Self { name, run, changes: 0 }
    }
}

/// Every target.
pub const TARGETS: [Target; 34] = [
    Target::quick("frame", wire::frame),
    Target::quick("hop", wire::hop),
    Target::quick("channel", wire::channel),
    Target::quick("disco", wire::disco),
    Target::quick("turn", wire::turn),
    Target::quick("packet", wire::ip_packet),
    Target::quick("wireguard", wire::wireguard),
    Target::quick("control-message", statements::control_message),
    Target::quick("map", statements::map),
    Target::quick("identity", statements::identity_statement),
    Target::quick("invite", statements::invite),
    Target::quick("text", statements::text),
    Target::slow("machines", statements::machines),
    Target::slow("relay-server", links::server),
    Target::slow("relay-client", links::client),
    Target::slow("relay-link", links::between),
    Target::slow("controller", control::controller),
    Target::slow("control-client", control::client),
    Target::slow("admin", control::admin),
    Target::quick("names", names::names),
    Target::quick("forward", names::forward),
    Target::quick("resolver", names::resolver),
    Target::quick("upgrade", web::upgrade),
    Target::slow("websocket", web::websocket),
    Target::quick("socks", web::socks_messages),
    Target::quick("http-proxy", web::http_proxy),
    Target::quick("uapi", host::uapi),
    Target::quick("config", host::config),
    Target::quick("local-api", host::local_api),
    Target::quick("netlink", host::netlink),
    Target::quick("secrets", host::secrets),
    Target::slow("sealed", host::sealed),
    Target::slow("saved", host::saved),
    Target::whole("scenario", whole_network),
];

const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 51_820);

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Where the corpus of a target lies.
#[must_use]
pub fn corpus_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("corpus/{name}.txt"))
}

/// The inputs of a corpus, one a line, with comments between.
///
/// # Panics
/// If the text is none.
#[must_use]
pub fn corpus(text: &str) -> Vec<Vec<u8>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| HEXLOWER.decode(line.as_bytes()).expect("hexadecimal digits")).collect()
}

/// The shipped machines in a network, with the bytes as the script of what happens to it.
fn whole_network(bytes: &[u8]) {
    if let Err(failure) = scenario::run(bytes) {
        panic!("{failure}");
    }
}

fn now() -> Now {
    Now { instant: Instant::now(), wall: UnixMillis(1_800_000_000_000) }
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

/// Several messages in one input: each begins with its length in two bytes, the last may be shorter.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let part;
        (part, bytes) = rest.split_at(length);
        Some(part)
    })
}

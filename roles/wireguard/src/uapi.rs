//! The text protocol of <https://www.wireguard.com/xplatform/>: `key=value` lines, an empty line
//! at the end, `errno=N` in every answer.

use std::fmt::Write as _;
use std::net::{SocketAddr, SocketAddrV6};
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use ipnet::IpNet;
use wireguard_proto::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// The longest request that is read: room for some ten thousand peers.
pub const MAX_REQUEST: usize = 4 << 20;

/// One operation.
#[derive(Debug)]
pub enum Request {
    /// `get=1`
    Get,
    /// `set=1` with what it changes.
    Set(Changes),
}

/// What a `set=1` changes, in the order in which it is carried out.
#[derive(Debug, Default)]
pub struct Changes {
    /// A new private key; `Some(None)` removes it.
    pub private_key: Option<Option<PrivateKey>>,
    /// The UDP port, zero for any.
    pub listen_port: Option<u16>,
    /// The mark on outgoing packets, zero for none.
    pub fwmark: Option<u32>,
    /// Whether peers that are not named are removed.
    pub replace_peers: bool,
    /// Changes to peers.
    pub peers: Vec<PeerChanges>,
}

/// What changes at one peer.
#[derive(Debug)]
pub struct PeerChanges {
    /// The peer.
    pub public_key: PublicKey,
    /// Whether it is removed.
    pub remove: bool,
    /// Whether it is left alone unless it is there already.
    pub update_only: bool,
    /// A new preshared key; all zeros for none.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// The interval, zero for off.
    pub persistent_keepalive: Option<Duration>,
    /// Whether its allowed addresses are forgotten first.
    pub replace_allowed_ips: bool,
    /// Prefixes to add (true) and to take away (false).
    pub allowed_ips: Vec<(bool, IpNet)>,
}

/// Why a request is refused; each has the errno that `wg` expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UapiError {
    /// A line that is no `key=value`, an unknown key, or a value out of range.
    #[error("the request is not understood")]
    Invalid,
    /// A protocol version other than 1.
    #[error("this protocol version is not spoken")]
    Version,
    /// The operating system refused, with its own errno.
    #[error("the operating system refused (errno {0})")]
    Os(i32),
}

impl UapiError {
    /// The positive number for `errno=-N`.
    #[must_use]
    pub fn errno(self) -> i32 {
        match self {
            Self::Invalid => libc::EINVAL,
            Self::Version => libc::EPROTONOSUPPORT,
            Self::Os(number) => number,
        }
    }
}

impl Request {
    /// Reads a request; `text` ends before the empty line.
    ///
    /// # Errors
    /// [`UapiError`] when it is not understood; nothing was changed then.
    pub fn parse(text: &str) -> Result<Self, UapiError> {
        let mut lines = text.lines();
        match lines.next() {
            Some("get=1") => Ok(Self::Get),
            Some("set=1") => Changes::parse(lines).map(Self::Set),
            _ => Err(UapiError::Invalid),
        }
    }
}

impl Changes {
    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, UapiError> {
        let mut changes = Self::default();
        for line in lines {
            let (key, value) = line.split_once('=').ok_or(UapiError::Invalid)?;
            if key == "public_key" {
                let public_key = PublicKey::from_bytes(*key_bytes(value)?);
                changes.peers.push(PeerChanges::new(public_key));
            } else if let Some(peer) = changes.peers.last_mut() {
                peer.apply(key, value)?;
            } else {
                changes.apply(key, value)?;
            }
        }
        Ok(changes)
    }

    fn apply(&mut self, key: &str, value: &str) -> Result<(), UapiError> {
        match key {
            "private_key" => {
                let bytes = key_bytes(value)?;
                let set = *bytes != [0; 32];
                self.private_key = Some(set.then(|| PrivateKey::from_bytes(*bytes)));
            }
            "listen_port" => self.listen_port = Some(number(value)?),
            "fwmark" => self.fwmark = Some(mark(value)?),
            "replace_peers" => self.replace_peers = flag(value)?,
            _ => return Err(UapiError::Invalid),
        }
        Ok(())
    }
}

impl PeerChanges {
    fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }

    fn apply(&mut self, key: &str, value: &str) -> Result<(), UapiError> {
        match key {
            "remove" => self.remove = flag(value)?,
            "update_only" => self.update_only = flag(value)?,
            "preshared_key" => {
                self.preshared_key = Some(PresharedKey::from_bytes(*key_bytes(value)?));
            }
            "endpoint" => self.endpoint = Some(endpoint(value)?),
            "persistent_keepalive_interval" => {
                self.persistent_keepalive = Some(Duration::from_secs(number::<u16>(value)?.into()));
            }
            "replace_allowed_ips" => self.replace_allowed_ips = flag(value)?,
            "allowed_ip" => {
                let (add, prefix) =
                    value.strip_prefix('-').map_or((true, value), |prefix| (false, prefix));
                let prefix = prefix.parse().map_err(|_| UapiError::Invalid)?;
                self.allowed_ips.push((add, prefix));
            }
            "protocol_version" if value == "1" => {}
            "protocol_version" => return Err(UapiError::Version),
            _ => return Err(UapiError::Invalid),
        }
        Ok(())
    }
}

/// The answer to a request: `lines` before the errno line.
#[must_use]
pub fn answer(lines: &str, outcome: Result<(), UapiError>) -> Zeroizing<String> {
    let errno = outcome.map_or_else(|error| -error.errno(), |()| 0);
    Zeroizing::new(format!("{lines}errno={errno}\n\n"))
}

/// Adds `key=value` to an answer.
pub(crate) fn line(out: &mut String, key: &str, value: impl std::fmt::Display) {
    writeln!(out, "{key}={value}").expect("a string takes all that is written");
}

/// A key as the protocol writes it.
pub(crate) fn hex(key: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(HEXLOWER_PERMISSIVE.encode(key))
}

fn key_bytes(value: &str) -> Result<Zeroizing<[u8; 32]>, UapiError> {
    let mut bytes = Zeroizing::new([0; 32]);
    if value.len() != 64 {
        return Err(UapiError::Invalid);
    }
    HEXLOWER_PERMISSIVE
        .decode_mut(value.as_bytes(), &mut *bytes)
        .map_err(|_| UapiError::Invalid)?;
    Ok(bytes)
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, UapiError> {
    value.parse().map_err(|_| UapiError::Invalid)
}

/// An address and port; the scope of a link-local one may be an interface's name.
fn endpoint(value: &str) -> Result<SocketAddr, UapiError> {
    if let Ok(address) = value.parse() {
        return Ok(address);
    }
    let (host, port) = value.rsplit_once(':').ok_or(UapiError::Invalid)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let (ip, scope) = host.and_then(|host| host.split_once('%')).ok_or(UapiError::Invalid)?;
    let scope = platform::links::index_of(scope).map_err(|_| UapiError::Os(libc::ENODEV))?;
    let ip = ip.parse().map_err(|_| UapiError::Invalid)?;
    Ok(SocketAddrV6::new(ip, number(port)?, 0, scope).into())
}

/// A mark in decimal or, with 0x, in hexadecimal; empty for none.
fn mark(value: &str) -> Result<u32, UapiError> {
    match value.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).map_err(|_| UapiError::Invalid),
        None if value.is_empty() => Ok(0),
        None => number(value),
    }
}

fn flag(value: &str) -> Result<bool, UapiError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(UapiError::Invalid),
    }
}

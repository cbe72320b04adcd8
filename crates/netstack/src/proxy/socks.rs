//! The bytes of SOCKS5 (RFC 1928) and of its passwords (RFC 1929).
//!
//! Each parser takes what has arrived so far and answers `None` until the message is whole, then
//! the message and the number of its bytes.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// The first byte of every SOCKS5 message.
pub const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const TYPE_IPV4: u8 = 1;
const TYPE_NAME: u8 = 3;
const TYPE_IPV6: u8 = 4;

/// What a client sent that is not SOCKS5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SocksError {
    /// The version byte is wrong.
    #[error("the client speaks version {0} of SOCKS")]
    Version(u8),
    /// The address type is none of RFC 1928's.
    #[error("the client asks for address type {0}")]
    AddressType(u8),
    /// A name is empty or not text.
    #[error("the client asks for a malformed name")]
    Name,
    /// The HTTP request cannot be understood.
    #[error("the client sent a malformed HTTP request")]
    Http,
}

impl From<SocksError> for io::Error {
    fn from(error: SocksError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl SocksError {
    pub(crate) fn inside(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().copied()
    }
}

/// A parsed message and the bytes it took, or `None` while it is incomplete.
pub type Parsed<T> = Result<Option<(T, usize)>, SocksError>;

/// How a client may prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It need not.
    None,
    /// By user name and password.
    Password,
}

impl Method {
    /// Answer to a client that offers no acceptable method.
    pub const REFUSED: u8 = 0xff;

    /// The method's number on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Password => 2,
        }
    }
}

/// A user name and password as sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub user: Vec<u8>,
    /// The password.
    pub password: Vec<u8>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// What a client wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A TCP connection.
    Connect,
    /// To wait for a TCP connection.
    Bind,
    /// To exchange datagrams.
    UdpAssociate,
    /// Something unknown.
    Other(u8),
}

/// The other end, as the client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// By address.
    Address(IpAddr),
    /// By name.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub command: Command,
    /// With whom.
    pub host: Host,
    /// On which port.
    pub port: u16,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Succeeded,
    /// None of the others.
    GeneralFailure,
    /// Outside the overlay.
    NotAllowed,
    /// No way to that kind of address.
    NetworkUnreachable,
    /// Unknown name or no answer.
    HostUnreachable,
    /// The peer refused.
    ConnectionRefused,
    /// Unknown command.
    CommandNotSupported,
    /// Unknown address type.
    AddressTypeNotSupported,
}

impl Reply {
    fn code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::GeneralFailure => 1,
            Self::NotAllowed => 2,
            Self::NetworkUnreachable => 3,
            Self::HostUnreachable => 4,
            Self::ConnectionRefused => 5,
            Self::CommandNotSupported => 7,
            Self::AddressTypeNotSupported => 8,
        }
    }

    /// The reply's bytes; without a bound address it carries `0.0.0.0:0`.
    #[must_use]
    pub fn encode(self, bound: Option<SocketAddr>) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.code(), 0];
        let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        encode_address(bound.unwrap_or(unspecified), &mut bytes);
        bytes
    }
}

/// Reads the list of methods that a client offers.
pub fn parse_greeting(bytes: &[u8]) -> Parsed<Vec<u8>> {
    check_version(bytes, VERSION)?;
    Ok(counted(bytes, 1).map(|(methods, used)| (methods.to_vec(), used)))
}

/// Reads a user name and password.
pub fn parse_login(bytes: &[u8]) -> Parsed<Login> {
    check_version(bytes, LOGIN_VERSION)?;
    Ok(counted(bytes, 1).and_then(|(user, middle)| {
        let (password, used) = counted(bytes, middle)?;
        Some((Login { user: user.to_vec(), password: password.to_vec() }, used))
    }))
}

/// The answer to a user name and password.
#[must_use]
pub fn encode_login_reply(welcome: bool) -> [u8; 2] {
    [LOGIN_VERSION, u8::from(!welcome)]
}

/// Reads a request.
pub fn parse_request(bytes: &[u8]) -> Parsed<Request> {
    check_version(bytes, VERSION)?;
    let Some((host, port, used)) = parse_address(bytes, 3)? else { return Ok(None) };
    let command = match bytes[1] {
        1 => Command::Connect,
        2 => Command::Bind,
        3 => Command::UdpAssociate,
        other => Command::Other(other),
    };
    Ok(Some((Request { command, host, port }, used)))
}

/// A datagram between a client and the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The overlay's end.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// What is carried.
    pub payload: &'a [u8],
}

/// Reads a client's datagram; fragments, which nobody sends, and cut-off ones answer `None`.
pub fn parse_datagram(bytes: &[u8]) -> Result<Option<Datagram<'_>>, SocksError> {
    if !bytes.starts_with(&[0, 0, 0]) {
        return Ok(None);
    }
    Ok(parse_address(bytes, 3)?.map(|(host, port, used)| Datagram {
        host,
        port,
        payload: &bytes[used..],
    }))
}

/// Appends the header of a datagram from `source` to a client.
pub fn encode_datagram_header(source: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, 0]);
    encode_address(source, out);
}

fn check_version(bytes: &[u8], expected: u8) -> Result<(), SocksError> {
    match bytes.first() {
        Some(&version) if version != expected => Err(SocksError::Version(version)),
        Some(_) | None => Ok(()),
    }
}

/// The length-prefixed string at `start`, and where it ends.
fn counted(bytes: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let end = start + 1 + usize::from(*bytes.get(start)?);
    Some((bytes.get(start + 1..end)?, end))
}

fn parse_address(bytes: &[u8], start: usize) -> Result<Option<(Host, u16, usize)>, SocksError> {
    let Some(&kind) = bytes.get(start) else { return Ok(None) };
    let found = match kind {
        TYPE_IPV4 => array::<4>(bytes, start + 1)
            .map(|(octets, end)| (Host::Address(Ipv4Addr::from(octets).into()), end)),
        TYPE_IPV6 => array::<16>(bytes, start + 1).map(|(octets, end)| {
            (Host::Address(IpAddr::from(Ipv6Addr::from(octets)).to_canonical()), end)
        }),
        TYPE_NAME => match counted(bytes, start + 1) {
            Some((name, end)) => Some((Host::Name(parse_name(name)?), end)),
            None => None,
        },
        other => return Err(SocksError::AddressType(other)),
    };
    Ok(found.and_then(|(host, end)| {
        let (port, used) = array::<2>(bytes, end)?;
        Some((host, u16::from_be_bytes(port), used))
    }))
}

fn parse_name(bytes: &[u8]) -> Result<String, SocksError> {
    let name = std::str::from_utf8(bytes).map_err(|_| SocksError::Name)?;
    if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(SocksError::Name);
    }
    Ok(name.to_owned())
}

fn array<const N: usize>(bytes: &[u8], start: usize) -> Option<([u8; N], usize)> {
    let found = bytes.get(start..start + N)?.try_into().ok()?;
    Some((found, start + N))
}

fn encode_address(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(TYPE_IPV4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(TYPE_IPV6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

//! Where controllers and relays listen.

use std::net::{IpAddr, SocketAddr};

use minicbor::{Decode, Encode};

/// How the certificate of a server is judged, below our own channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum TlsMode {
    /// No TLS: the channel inside protects itself.
    #[n(0)]
    Plain,
    /// The public certificate authorities: needed where a CDN stands in front.
    #[n(1)]
    WebPki,
    /// SHA-256 of the subject public key info must be this (RFC 7469 section 2.4).
    #[n(2)]
    Pin(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
}

/// A WebSocket server: how it is called, and where it is without asking any resolver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct ServerAddress {
    /// The host for TLS and the `Host` header: a DNS name, or an IP address without brackets.
    #[n(0)]
    pub host: String,
    /// The TCP port.
    #[n(1)]
    pub port: u16,
    /// The IP addresses to dial, in this order; if empty, the host is one or is resolved.
    #[n(2)]
    pub addresses: Vec<IpAddr>,
    /// How its certificate is judged.
    #[n(3)]
    pub tls: TlsMode,
}

impl ServerAddress {
    /// The addresses to dial without a resolver: the listed ones, or the host if it is one.
    pub fn socket_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let host = self.addresses.is_empty().then(|| self.host.parse().ok()).flatten();
        let addresses = self.addresses.iter().copied().chain(host);
        addresses.map(|address| SocketAddr::new(address, self.port))
    }
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.tls {
            TlsMode::Plain => "ws",
            TlsMode::WebPki | TlsMode::Pin(_) => "wss",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

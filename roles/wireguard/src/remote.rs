use std::net::SocketAddr;

use wireguard_proto::Endpoint;

/// A peer's address, and the own address at which it reaches us: answers leave from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    /// Where the peer's last message came in; forgotten when it cannot be used.
    pub(crate) source: Option<platform::udp::Source>,
}

impl Remote {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, source: None }
    }
}

impl Endpoint for Remote {
    fn source(&self) -> wireguard_proto::Source {
        wireguard_proto::Source::from(self.address)
    }
}

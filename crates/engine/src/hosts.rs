//! Peers that listen.

use identity::{ChannelPublicKey, MAX_SERVER_ADDRESSES, MAX_SERVERS, ServerAddress};
use path::CandidateFilter;

/// Where a peer is reached that listens, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) channel_key: ChannelPublicKey,
    pub(crate) servers: Vec<ServerAddress>,
}

impl Host {
    /// Where a peer listens, as far as it may be dialled: by its word alone nobody goes to other addresses
    /// than datagrams may go to, nor asks a resolver.
    pub(crate) fn of(peer: &control_proto::Peer, filter: &CandidateFilter) -> Option<Self> {
        let announced = &peer.endpoints.as_ref()?.servers;
        let servers = permitted(announced, filter);
        let channel_key = peer.binding.channel_key;
        (!servers.is_empty()).then_some(Self { channel_key, servers })
    }
}

/// What of these servers may be dialled, and announced.
pub(crate) fn permitted(servers: &[ServerAddress], filter: &CandidateFilter) -> Vec<ServerAddress> {
    let servers = servers.iter().take(MAX_SERVERS).map(|server| {
        let all = server.socket_addresses().filter(|address| filter.permits(*address));
        let addresses = all.map(|address| address.ip()).take(MAX_SERVER_ADDRESSES).collect();
        ServerAddress { addresses, ..server.clone() }
    });
    servers.filter(|server| !server.addresses.is_empty()).collect()
}

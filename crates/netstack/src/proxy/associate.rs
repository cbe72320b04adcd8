//! UDP ASSOCIATE: datagrams between a local client and the overlay (RFC 1928 section 7).

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;

use super::client::Client;
use super::socks::{self, Host, Reply, Request};
use crate::NetstackHandle;

/// The largest datagram that UDP can carry.
const MAX_DATAGRAM: usize = 65_535;

/// Relays datagrams for as long as the client keeps its TCP connection.
pub(crate) async fn serve(
    mut client: Client,
    stack: &NetstackHandle,
    request: &Request,
) -> io::Result<()> {
    let local = UdpSocket::bind((client.local_addr()?.ip(), 0)).await;
    let (local, remote) = match (local, stack.bind_udp(0)) {
        (Ok(local), Ok(remote)) => (local, remote),
        (Err(error), _) | (_, Err(error)) => {
            client.send(&Reply::GeneralFailure.encode(None)).await?;
            return Err(error);
        }
    };
    client.send(&Reply::Succeeded.encode(Some(local.local_addr()?))).await?;
    let mut owner = Owner::new(client.peer_addr()?.ip(), request);
    let mut outgoing = vec![0; MAX_DATAGRAM];
    let mut incoming = vec![0; MAX_DATAGRAM];
    loop {
        tokio::select! {
            () = client.gone() => return Ok(()),
            received = local.recv_from(&mut outgoing) => {
                let (length, source) = received?;
                if owner.admits(source) {
                    send_out(&outgoing[..length], stack, &remote).await;
                }
            }
            received = remote.recv_from(&mut incoming) => {
                let (length, source) = received?;
                if let Some(owner) = owner.address.filter(|_| stack.reaches(source.ip())) {
                    let mut datagram = Vec::with_capacity(length + 22);
                    socks::encode_datagram_header(source, &mut datagram);
                    datagram.extend_from_slice(&incoming[..length]);
                    if let Err(error) = local.send_to(&datagram, owner).await {
                        tracing::debug!(%error, "proxy cannot return a datagram");
                    }
                }
            }
        }
    }
}

/// The one client socket that may use the association.
#[derive(Debug)]
struct Owner {
    ip: IpAddr,
    announced_port: Option<u16>,
    address: Option<SocketAddr>,
}

impl Owner {
    fn new(ip: IpAddr, request: &Request) -> Self {
        let announced = request.host.as_address().is_some_and(|address| {
            request.port != 0 && (address == ip || address.is_unspecified())
        });
        Self { ip, announced_port: announced.then_some(request.port), address: None }
    }

    /// The first datagram from the client's host fixes the socket, unless it was announced.
    fn admits(&mut self, source: SocketAddr) -> bool {
        if source.ip() != self.ip || self.announced_port.is_some_and(|port| port != source.port()) {
            return false;
        }
        *self.address.get_or_insert(source) == source
    }
}

/// Sends one datagram into the overlay; like any datagram, it can be lost.
async fn send_out(bytes: &[u8], stack: &NetstackHandle, remote: &crate::UdpSocket) {
    let Ok(Some(datagram)) = socks::parse_datagram(bytes) else { return };
    let address = match &datagram.host {
        Host::Address(address) => stack.reaches(*address).then_some(*address),
        Host::Name(name) => {
            stack.addresses_of(name).await.ok().and_then(|found| found.first().copied())
        }
    };
    let Some(address) = address else {
        tracing::debug!("proxy refuses a datagram that would leave the overlay");
        return;
    };
    if let Err(error) = remote.send_to(datagram.payload, (address, datagram.port).into()).await {
        tracing::debug!(%error, "proxy cannot send a datagram");
    }
}

//! The local proxy: SOCKS5 and HTTP on one port.
//!
//! The first byte tells them apart: 5 is SOCKS version 5, anything else must be an HTTP request.
//! Names are resolved by the node inside the overlay. What lies outside is refused with the code
//! that the protocol has for it (SOCKS 2 "not allowed", HTTP 403) and never dialled or looked up.

mod associate;
mod client;
pub mod http;
pub mod socks;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::forward::{accept, join};
use crate::{ConnectError, NetstackHandle, ResolveError};
use client::Client;
use socks::{Command, Host, Method, Reply, Request};

/// Clients served at once; further ones wait to be accepted.
const MAX_CLIENTS: usize = 512;
/// How long a client may take to say what it wants.
const NEGOTIATION_DEADLINE: Duration = Duration::from_secs(10);

/// A user name and password that clients must show.
#[derive(Clone)]
pub struct Credentials {
    /// At most 255 bytes.
    pub user: String,
    /// At most 255 bytes.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    fn accept(&self, user: &[u8], password: &[u8]) -> bool {
        (self.user.as_bytes().ct_eq(user) & self.password.as_bytes().ct_eq(password)).into()
    }
}

/// Serves proxy clients until the future is dropped.
///
/// Whoever can connect to `listener` can use the overlay as this device: bind it to a loopback
/// address, or demand `credentials`.
pub async fn serve(
    listener: TcpListener,
    stack: NetstackHandle,
    credentials: Option<Credentials>,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    let credentials = Arc::new(credentials);
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let stream = accept(&listener).await;
        let (stack, credentials) = (stack.clone(), Arc::clone(&credentials));
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = serve_client(stream, &stack, credentials.as_ref().as_ref()).await {
                tracing::debug!(%error, "proxy client failed");
            }
        });
    }
}

async fn serve_client(
    stream: TcpStream,
    stack: &NetstackHandle,
    credentials: Option<&Credentials>,
) -> io::Result<()> {
    let mut client = Client::new(stream);
    let first = timeout(NEGOTIATION_DEADLINE, client.peek()).await??;
    if first != socks::VERSION {
        let wish = timeout(NEGOTIATION_DEADLINE, http::negotiate(&mut client, credentials));
        let Some(wish) = wish.await?? else { return Ok(()) };
        return http::serve(client, stack, wish).await;
    }
    let request = timeout(NEGOTIATION_DEADLINE, negotiate(&mut client, credentials)).await??;
    let Some(request) = request else { return Ok(()) };
    match request.command {
        Command::Connect => connect(client, stack, &request).await,
        Command::UdpAssociate => associate::serve(client, stack, &request).await,
        Command::Bind | Command::Other(_) => {
            client.send(&Reply::CommandNotSupported.encode(None)).await
        }
    }
}

/// Agrees on a method, checks the password if there is one and reads the request; `None` when the
/// client has had its refusal.
async fn negotiate(
    client: &mut Client,
    credentials: Option<&Credentials>,
) -> io::Result<Option<Request>> {
    let methods = client.read_with(socks::parse_greeting).await?;
    let wanted = if credentials.is_some() { Method::Password } else { Method::None };
    if !methods.contains(&wanted.code()) {
        client.send(&[socks::VERSION, Method::REFUSED]).await?;
        return Ok(None);
    }
    client.send(&[socks::VERSION, wanted.code()]).await?;
    if let Some(credentials) = credentials {
        let login = client.read_with(socks::parse_login).await?;
        let welcome = credentials.accept(&login.user, &login.password);
        client.send(&socks::encode_login_reply(welcome)).await?;
        if !welcome {
            return Ok(None);
        }
    }
    match client.read_with(socks::parse_request).await {
        Ok(request) => Ok(Some(request)),
        Err(error) => {
            if let Some(socks::SocksError::AddressType(_)) = socks::SocksError::inside(&error) {
                client.send(&Reply::AddressTypeNotSupported.encode(None)).await?;
            }
            Err(error)
        }
    }
}

async fn connect(mut client: Client, stack: &NetstackHandle, request: &Request) -> io::Result<()> {
    match stack.connect_host(&request.host.to_string(), request.port).await {
        Ok(remote) => {
            client.send(&Reply::Succeeded.encode(Some(remote.local_addr()))).await?;
            join(client, remote).await;
            Ok(())
        }
        Err(error) => client.send(&Reply::from(&error).encode(None)).await,
    }
}

impl From<&ConnectError> for Reply {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::Outside | ConnectError::Name(ResolveError::Outside) => Self::NotAllowed,
            ConnectError::Name(ResolveError::NotFound | ResolveError::Unavailable)
            | ConnectError::TimedOut => Self::HostUnreachable,
            ConnectError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Self::ConnectionRefused
            }
            ConnectError::Io(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Self::NetworkUnreachable
            }
            ConnectError::Io(_) => Self::GeneralFailure,
        }
    }
}

impl Host {
    fn as_address(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(_) => None,
        }
    }
}

//! The device without a TUN: a TCP/IP stack in this process, reached by proxy and forwards.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use netstack::{Netstack, NetstackHandle, forward, proxy};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tracing::warn;

use crate::{NodeSettings, StartError, directory::Directory};

/// The userspace stack of all networks with everything that leads into it.
#[derive(Debug)]
pub(crate) struct Userspace {
    way: StackWay,
    proxy: Option<SocketAddr>,
    /// Ends with this value.
    _services: JoinSet<()>,
}

/// A network's way to the stack.
#[derive(Clone, Debug)]
pub(crate) struct StackWay {
    /// Takes packets for this device.
    pub(crate) packets: mpsc::Sender<BytesMut>,
    /// To keep the stack's addresses in step.
    pub(crate) stack: NetstackHandle,
    /// The ports that lead to local services.
    pub(crate) published: Vec<u16>,
}

impl Userspace {
    /// Starts the stack, the proxy, the forwards and the published ports.
    pub(crate) async fn start(
        settings: &NodeSettings,
        directory: &Directory,
    ) -> Result<Self, StartError> {
        let resolver = Arc::new(directory.clone());
        let (stack, packets) =
            Netstack::start(&[], usize::from(settings.mtu), resolver).map_err(StartError::Stack)?;
        let mut services = JoinSet::new();
        let proxy = match settings.proxy {
            None => None,
            Some(address) => {
                let listener = listen(address).await?;
                let bound = listener.local_addr().map_err(StartError::Stack)?;
                let stack = stack.clone();
                services.spawn(
                    async move { ended("proxy", proxy::serve(listener, stack, None).await) },
                );
                Some(bound)
            }
        };
        for entry in &settings.forwards {
            let (host, port) =
                entry.target().ok_or_else(|| StartError::Forward(entry.to.clone()))?;
            let listener = listen(entry.listen).await?;
            let forward = forward::forward(listener, stack.clone(), host.to_owned(), port);
            services.spawn(async move { ended("forward", forward.await) });
        }
        for entry in &settings.publish {
            let listener = stack.listen(entry.port).map_err(StartError::Stack)?;
            let publish = forward::publish(listener, entry.to);
            services.spawn(async move { ended("published port", publish.await) });
        }
        let mut from_stack = packets.from_stack;
        let directory = directory.clone();
        services.spawn(async move {
            while let Some(packet) = from_stack.recv().await {
                directory.forward(packet);
            }
        });
        let published = settings.publish.iter().map(|entry| entry.port).collect();
        let way = StackWay { packets: packets.to_stack, stack, published };
        Ok(Self { way, proxy, _services: services })
    }

    /// Where the proxy listens.
    pub(crate) fn proxy(&self) -> Option<SocketAddr> {
        self.proxy
    }

    /// What a network needs of the stack.
    pub(crate) fn way(&self) -> StackWay {
        self.way.clone()
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn ended(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        warn!(%error, "a {what} has ended");
    }
}

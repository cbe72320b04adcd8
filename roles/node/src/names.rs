//! The stub resolver as the system's resolver, for as long as the node runs with an interface.

use std::{
    collections::BTreeMap,
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
};

use identity::NetworkId;
use platform::{
    journal::Journal,
    resolver::{Resolver, Setup},
};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::dns::{DnsState, StubResolver};

/// A loopback address of our own, so that no other resolver is in the way; `resolv.conf` cannot name
/// another port than 53.
const STUB: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 83, 77), 53);
/// All private names, those of unknown networks too: they never leave the host (RFC 9476).
const ZONE: &str = "alt";

/// The system's resolver as we changed it.
#[derive(Debug)]
pub(crate) struct Names {
    state: DnsState,
    journal: Journal,
    stub: JoinHandle<()>,
    installed: BTreeMap<NetworkId, Resolver>,
}

impl Names {
    /// Serves the stub. Changes of the host go through the journal.
    pub(crate) async fn start(journal: Journal, state: DnsState) -> io::Result<Self> {
        let stub = StubResolver::bind(SocketAddr::from(STUB), state.clone()).await?;
        let stub = tokio::spawn(stub.serve());
        Ok(Self { state, journal, stub, installed: BTreeMap::new() })
    }

    /// Makes the stub the resolver of the private names behind a network's interface.
    pub(crate) async fn install(&mut self, network: NetworkId, interface: u32) {
        // One file serves every network; systemd-resolved has settings for each interface.
        let done = self.installed.contains_key(&network)
            || self.installed.values().any(|resolver| !resolver.splits());
        if done {
            return;
        }
        match Resolver::install(&setup(interface), &mut self.journal).await {
            Ok(resolver) => {
                self.forward_to_upstreams_of(&resolver);
                self.installed.insert(network, resolver);
            }
            Err(error) => warn!(
                error = &error as &dyn Error,
                "names are not resolved by the system; `shadowmesh status` shows addresses"
            ),
        }
    }

    /// Sees to it that the system still asks the stub, and the stub the servers of where we are now.
    pub(crate) fn keep(&mut self) {
        let mut installed = std::mem::take(&mut self.installed);
        for resolver in installed.values_mut() {
            match resolver.keep(&setup(0), &mut self.journal) {
                Ok(true) => {
                    info!("the system's resolver was replaced, and is ours again");
                    self.forward_to_upstreams_of(resolver);
                }
                Ok(false) => {}
                Err(error) => {
                    warn!(error = &error as &dyn Error, "the system's resolver was replaced");
                }
            }
        }
        self.installed = installed;
    }

    /// Where the system asks the stub for our zones only, it asks the others itself.
    fn forward_to_upstreams_of(&self, resolver: &Resolver) {
        if !resolver.splits() {
            let upstreams = resolver.upstreams().iter();
            let upstreams = upstreams.map(|address| SocketAddr::new(*address, STUB.1));
            self.state.replace_upstreams(&upstreams.collect::<Vec<_>>());
        }
    }

    /// Takes note that a network's interface is gone, and with it what systemd-resolved had of it.
    pub(crate) fn remove(&mut self, network: NetworkId) {
        if self.installed.get(&network).is_some_and(Resolver::splits) {
            self.installed.remove(&network);
        }
    }

    /// Puts everything back as it was.
    pub(crate) async fn stop(mut self) {
        for (_, resolver) in std::mem::take(&mut self.installed) {
            if let Err(error) = resolver.revert(&mut self.journal).await {
                warn!(
                    error = &error as &dyn Error,
                    "cannot put the system's resolver back; the next start tries again"
                );
            }
        }
        self.stub.abort();
    }
}

fn setup(interface: u32) -> Setup {
    Setup::new(SocketAddr::from(STUB), vec![ZONE.to_owned()], interface)
}

//! Where peers come by streams of their own: one port for all networks of the device.
//!
//! The door knows each network's secret for paths, and so to whom a connection goes. Every other request gets the page
//! that any web server gives where there is nothing, and so does one that finds its network busy.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use identity::{NetworkId, ServerAddress};
use noise_channel::{PathSecret, Service};
use tokio::{
    sync::mpsc,
    task::{self, AbortHandle},
};
use websocket::{Listener, Upgrade};

/// Connections that wait for a network's loop, which takes a few microseconds for each.
const WAITING: usize = 16;

/// A port on which this device takes streams of its peers, and what they must know to reach it.
#[derive(Debug)]
pub struct Listening {
    /// The port.
    pub listener: Listener,
    /// How others reach it.
    pub servers: Vec<ServerAddress>,
    /// Whether that is by the addresses that this host happens to have, whatever they are by and by.
    pub follows_host: bool,
}

/// Takes connections until it is dropped.
#[derive(Debug)]
pub(crate) struct Door {
    networks: Networks,
    place: Place,
    task: AbortHandle,
}

type Networks = Arc<Mutex<BTreeMap<NetworkId, (PathSecret, mpsc::Sender<Upgrade>)>>>;

/// Under which addresses others reach the door.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    servers: Vec<ServerAddress>,
    /// Where it listens, if it is reached by whatever addresses this host has.
    on_host: Option<SocketAddr>,
}

impl Door {
    pub(crate) fn open(listening: Listening) -> std::io::Result<Self> {
        let Listening { mut listener, servers, follows_host } = listening;
        let address = listener.local_addr()?;
        let on_host = Some(address).filter(|_| follows_host && address.ip().is_unspecified());
        let networks = Networks::default();
        let known = Arc::clone(&networks);
        let task = task::spawn(async move {
            loop {
                let upgrade = listener.accept().await;
                if let Some(refused) = hand_over(&known, upgrade) {
                    task::spawn(refused.reject_not_found());
                }
            }
        });
        Ok(Self { networks, place: Place { servers, on_host }, task: task.abort_handle() })
    }

    /// Brings connections to a network from now on.
    pub(crate) fn serve(&self, network: NetworkId, secret: PathSecret) -> mpsc::Receiver<Upgrade> {
        let (sender, receiver) = mpsc::channel(WAITING);
        lock(&self.networks).insert(network, (secret, sender));
        receiver
    }

    /// Knows a network no longer.
    pub(crate) fn forget(&self, network: NetworkId) {
        lock(&self.networks).remove(&network);
    }

    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Place {
    /// The servers to announce while this host is reached by `addresses`.
    pub(crate) fn servers(&self, addresses: impl Fn(u16) -> Vec<SocketAddr>) -> Vec<ServerAddress> {
        let Some(listens) = self.on_host else { return self.servers.clone() };
        // A socket on all of IPv6 takes IPv4 as well.
        let fits = |address: &IpAddr| listens.is_ipv6() || address.is_ipv4();
        let all = addresses(listens.port()).into_iter().map(|address| address.ip());
        let addresses: Vec<_> = all.filter(fits).collect();
        let host = addresses.first().map(ToString::to_string).unwrap_or_default();
        let servers = self.servers.iter().take(1);
        let here = |server: &ServerAddress| ServerAddress {
            host: host.clone(),
            addresses: addresses.clone(),
            ..server.clone()
        };
        servers.filter(|_| !addresses.is_empty()).map(here).collect()
    }
}

/// Brings a connection to its network; gives it back if there is none, or none that has room.
fn hand_over(networks: &Networks, upgrade: Upgrade) -> Option<Upgrade> {
    let networks = lock(networks);
    let mut all = networks.values();
    let known = all.find(|(secret, _)| secret.recognise(Service::Relay, upgrade.path()).is_some());
    match known {
        Some((_, sender)) => sender.try_send(upgrade).err().map(|error| error.into_inner()),
        None => Some(upgrade),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::TlsMode;

    fn place(listens: &str, follows_host: bool) -> Place {
        let listens: SocketAddr = listens.parse().expect("an address");
        let servers = vec![ServerAddress {
            host: "example.org".to_owned(),
            port: listens.port(),
            addresses: vec![IpAddr::from([192, 0, 2, 1])],
            tls: TlsMode::Pin([7; 32]),
        }];
        Place { servers, on_host: follows_host.then_some(listens) }
    }

    #[test]
    fn what_is_announced_follows_the_host_unless_somebody_said_what_it_is() {
        let now = |port| {
            let addresses = ["198.51.100.9", "2001:db8::9"].map(|ip| ip.parse().expect("one"));
            addresses.map(|ip| SocketAddr::new(ip, port)).to_vec()
        };
        let announced = |place: Place| place.servers(now);
        assert_eq!(announced(place("[::]:8443", false))[0].host, "example.org");
        let both = announced(place("[::]:8443", true));
        assert_eq!((both[0].host.as_str(), both[0].addresses.len()), ("198.51.100.9", 2));
        assert_eq!((both[0].port, both[0].tls), (8443, TlsMode::Pin([7; 32])));
        assert_eq!(announced(place("0.0.0.0:8443", true))[0].addresses.len(), 1);
        assert!(place("[::]:8443", true).servers(|_| Vec::new()).is_empty());
    }
}

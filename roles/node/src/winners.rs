//! By which way servers were reached from each local network, so that it goes first when this device is there again.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use websocket::Route;

/// Ways that are remembered, of all networks together.
const MAX_WINNERS: usize = 64;

/// Where this device is, and whom it wants to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Errand {
    /// The routers of the local network.
    pub(crate) routers: Vec<IpAddr>,
    /// The server's name or address, with its port.
    pub(crate) host: String,
}

/// The ways that won last, the latest at the end. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Winners(Arc<Mutex<VecDeque<(Errand, Route)>>>);

impl Winners {
    /// The way by which the server was reached last from there.
    pub(crate) fn get(&self, errand: &Errand) -> Option<Route> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(known, _)| known == errand).map(|(_, route)| route.clone())
    }

    /// It was reached by this way.
    pub(crate) fn note(&self, errand: Errand, route: Route) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(known, _)| *known != errand);
        if known.len() == MAX_WINNERS {
            known.pop_front();
        }
        known.push_back((errand, route));
    }
}

#[cfg(test)]
mod tests {
    use websocket::{Endpoint, Listener, Tls, dial_by};

    use super::*;

    async fn some_route() -> Route {
        let here = ([127, 0, 0, 1], 0).into();
        let mut listener = Listener::bind(here, None).await.expect("a free port");
        let endpoint = Endpoint {
            addresses: vec![listener.local_addr().expect("it is bound")],
            host: "localhost".to_owned(),
            tls: Tls::Plain,
            path: "/".to_owned(),
            mark: None,
            detour: None,
        };
        let answer = async { listener.accept().await.accept().await };
        let (dialled, _) = tokio::join!(dial_by(&endpoint, None), answer);
        dialled.expect("it is answered").1
    }

    #[tokio::test]
    async fn the_latest_of_each_network_are_remembered() {
        let (winners, route) = (Winners::default(), some_route().await);
        let errand = |network: u8| Errand {
            routers: vec![[192, 0, 2, network].into()],
            host: "example.org:443".to_owned(),
        };
        (0..=MAX_WINNERS as u8).for_each(|network| winners.note(errand(network), route.clone()));
        assert_eq!(winners.get(&errand(0)), None);
        assert_eq!(winners.get(&errand(1)), Some(route.clone()));
        winners.note(errand(1), route.clone());
        winners.note(errand(200), route.clone());
        assert_eq!((winners.get(&errand(1)), winners.get(&errand(2))), (Some(route), None));
    }
}

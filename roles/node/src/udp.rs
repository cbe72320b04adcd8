//! The UDP sockets of one network, for its loop and its data threads alike.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use platform::{Delivery, ReceiveBatch, Transmit, UdpConfig, UdpSocket, udp::Source};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::debug;

use crate::ready;

/// A second family may find the first one's free port taken; further ports are tried.
const PORT_ATTEMPTS: usize = 16;
/// The system knows no such address family.
const EAFNOSUPPORT: i32 = 97;
/// Remotes whose sources are remembered. Whoever floods us with further ones makes others forgotten, for
/// which the system then chooses, as it does for strangers.
const SOURCES: usize = 1_024;

/// One socket for each IP family that the host has, on the same port; the same again for each further data thread.
/// Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    /// A pair for each thread; none for a node that does not use UDP.
    pairs: Arc<[Pair]>,
    /// Whose pair this is.
    thread: usize,
    port: u16,
    /// The mark on everything, 0 for none.
    mark: u32,
    sources: Arc<Sources>,
}

impl Sockets {
    /// No sockets at all, for a node that does not use UDP.
    pub(crate) fn none() -> Self {
        Self { pairs: Arc::new([]), thread: 0, port: 0, mark: 0, sources: Arc::default() }
    }

    /// Binds a port, 0 for a free one, for so many threads.
    pub(crate) fn bind(port: u16, mark: u32, threads: usize) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORT_ATTEMPTS {
            match Self::bind_all(port, mark, threads) {
                Ok(sockets) => return Ok(sockets),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// A pair that shares its port would join those of another process, so a pair of its own shows first
    /// that the port is free.
    fn bind_all(port: u16, mark: u32, threads: usize) -> io::Result<Self> {
        let alone = Pair::bind(port, mark, false)?;
        let Some(port) = alone.port() else { return Err(io::ErrorKind::Unsupported.into()) };
        let pairs: Arc<[Pair]> = if threads > 1 {
            drop(alone);
            (0..threads).map(|_| Pair::bind(port, mark, true)).collect::<io::Result<_>>()?
        } else {
            Arc::new([alone])
        };
        Ok(Self { pairs, thread: 0, port, mark, sources: Arc::default() })
    }

    /// The same for a thread, which gets a pair of its own; what arrives is spread over the pairs by sender.
    pub(crate) fn for_thread(&self, thread: usize) -> Self {
        Self { thread, ..self.clone() }
    }

    fn pair(&self) -> Option<&Pair> {
        self.pairs.get(self.thread)
    }

    /// The port of both, if there are any.
    pub(crate) fn port(&self) -> Option<u16> {
        Some(self.port).filter(|port| *port != 0)
    }

    /// The mark on everything they send, 0 for none.
    pub(crate) fn mark(&self) -> u32 {
        self.mark
    }

    /// The sockets of this thread.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<UdpSocket>> {
        self.pair().into_iter().flat_map(|pair| pair.ipv4.iter().chain(&pair.ipv6))
    }

    /// Sends datagrams, `segment` bytes each but the last, from the address of ours that the remote
    /// talks to. What cannot be sent is lost.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8], segment: Option<u16>) {
        self.send_as(UdpSocket::send, to, bytes, segment);
    }

    /// The same for one datagram that must not be split on the way.
    pub(crate) fn send_whole(&self, to: SocketAddr, bytes: &[u8]) {
        self.send_as(UdpSocket::send_whole, to, bytes, None);
    }

    fn send_as(
        &self,
        send: fn(&UdpSocket, &Transmit<'_>) -> Delivery,
        to: SocketAddr,
        bytes: &[u8],
        segment: Option<u16>,
    ) {
        let socket = self.pair().and_then(|pair| match to.ip() {
            IpAddr::V4(_) => pair.ipv4.as_ref(),
            IpAddr::V6(_) => pair.ipv6.as_ref(),
        });
        let Some(socket) = socket else { return };
        let source = self.sources.of(to);
        match send(socket, &Transmit { destination: to, source, segment, bytes }) {
            Delivery::Sent => {}
            Delivery::SourceGone => self.sources.set(to, None),
            Delivery::Dropped => debug!(%to, "datagram not sent"),
        }
    }

    /// Remembers which address of ours a remote talks to.
    pub(crate) fn learn_source(&self, remote: SocketAddr, local: Option<Source>) {
        self.sources.set(remote, local);
    }

    /// Lets the system choose the sources anew, as after a change of networks.
    pub(crate) fn forget_sources(&self) {
        self.sources.clear();
    }
}

/// One socket for each IP family, on the same port.
#[derive(Debug)]
struct Pair {
    ipv4: Option<Arc<UdpSocket>>,
    ipv6: Option<Arc<UdpSocket>>,
}

impl Pair {
    fn bind(port: u16, mark: u32, shared: bool) -> io::Result<Self> {
        let open = |config: UdpConfig| {
            available(UdpSocket::bind(&UdpConfig { mark, shared, ..config }).map(Arc::new))
        };
        let ipv4 = open(UdpConfig::ipv4(port))?;
        let taken = ipv4.as_ref().map_or(port, |socket| socket.local_address().port());
        let ipv6 = open(UdpConfig::ipv6(taken))?;
        Ok(Self { ipv4, ipv6 })
    }

    /// The port of both, if the host has any IP family.
    fn port(&self) -> Option<u16> {
        self.ipv4.as_ref().or(self.ipv6.as_ref()).map(|socket| socket.local_address().port())
    }
}

/// A remote with the address of ours that it talks to.
type Place = Option<(SocketAddr, Source)>;

/// Which address of ours each remote talks to: a table with one place for each hash, so that strangers
/// cannot make it grow.
#[derive(Debug)]
struct Sources {
    places: Box<[Mutex<Place>]>,
    /// Seeded at random, so that nobody can aim at another's place.
    hasher: RandomState,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            places: (0..SOURCES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Sources {
    fn of(&self, remote: SocketAddr) -> Option<Source> {
        let place = self.place(remote).lock().unwrap_or_else(PoisonError::into_inner);
        place.filter(|(known, _)| *known == remote).map(|(_, source)| source)
    }

    fn set(&self, remote: SocketAddr, source: Option<Source>) {
        let mut place = self.place(remote).lock().unwrap_or_else(PoisonError::into_inner);
        match source {
            Some(source) => *place = Some((remote, source)),
            None if place.is_some_and(|(known, _)| known == remote) => *place = None,
            None => {}
        }
    }

    fn clear(&self) {
        for place in &self.places {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn place(&self, remote: SocketAddr) -> &Mutex<Place> {
        let hash = self.hasher.hash_one(remote) % SOURCES as u64;
        &self.places[usize::try_from(hash).expect("there are few places")]
    }
}

/// The sockets as a loop in the runtime reads them, where no data thread does.
#[derive(Debug)]
pub(crate) struct Inbox {
    sockets: Sockets,
    ready: Vec<AsyncFd<Arc<UdpSocket>>>,
}

impl Inbox {
    pub(crate) fn new(sockets: Sockets) -> io::Result<Self> {
        let ready = sockets.all().cloned().map(ready::register).collect::<io::Result<_>>()?;
        Ok(Self { sockets, ready })
    }

    pub(crate) fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// Waits until something can be received; says on which socket.
    pub(crate) async fn readable(&self) -> usize {
        let wait = async |index: usize| match self.ready.get(index) {
            // A failed wait shows again at the receive that follows.
            Some(socket) => {
                let _ = socket.readable().await;
                index
            }
            None => std::future::pending().await,
        };
        tokio::select! {
            index = wait(0) => index,
            index = wait(1) => index,
        }
    }

    /// Takes what has arrived on a socket; false if nothing has.
    pub(crate) fn receive(&self, index: usize, batch: &mut ReceiveBatch) -> bool {
        let Some(socket) = self.ready.get(index) else { return false };
        let received = socket.try_io(Interest::READABLE, |socket| match socket.receive(batch) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => {
                debug!(%error, "receiving datagrams failed");
                Err(io::ErrorKind::WouldBlock.into())
            }
        });
        received.is_ok()
    }
}

/// A family that the host does not have is no failure.
fn available(bound: io::Result<Arc<UdpSocket>>) -> io::Result<Option<Arc<UdpSocket>>> {
    match bound {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, time::Duration};
    use tokio::time::timeout;

    /// What takes longer than this has failed.
    const DEADLINE: Duration = Duration::from_secs(10);

    /// The next datagram with its sender, whose sources the inbox learns.
    async fn next(inbox: &Inbox) -> (Vec<u8>, SocketAddr) {
        let mut batch = ReceiveBatch::new(1);
        loop {
            let index = timeout(DEADLINE, inbox.readable()).await.expect("in time");
            if inbox.receive(index, &mut batch) {
                let datagram = batch.datagrams().next().expect("one was received");
                inbox.sockets().learn_source(datagram.remote, datagram.local);
                return (datagram.bytes.to_vec(), datagram.remote);
            }
        }
    }

    fn inbox() -> Inbox {
        Inbox::new(Sockets::bind(0, 0, 1).expect("a free port")).expect("a runtime")
    }

    #[test]
    fn both_families_share_one_port() {
        let sockets = Sockets::bind(0, 0, 1).expect("a free port");
        let port = sockets.port().expect("it is bound");
        assert!(sockets.all().all(|socket| socket.local_address().port() == port));
        assert!(sockets.all().count() > 0);
        assert_eq!(Sockets::none().port(), None);
    }

    #[test]
    fn threads_share_a_port_and_keep_it_from_others() {
        let sockets = Sockets::bind(0, 0, 3).expect("a free port");
        let port = sockets.port().expect("it is bound");
        for thread in 0..3 {
            let own = sockets.for_thread(thread);
            assert!(own.all().count() > 0);
            assert!(own.all().all(|socket| socket.local_address().port() == port));
        }
        let again = Sockets::bind(port, 0, 3).expect_err("the port is taken");
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn senders_are_spread_over_the_threads_and_each_stays_with_one() {
        let sockets = Sockets::bind(0, 0, 2).expect("a free port");
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, sockets.port().expect("it is bound")));
        let senders: Vec<_> = (0..32).map(|_| Sockets::bind(0, 0, 1).expect("a port")).collect();
        for sender in senders.iter().chain(&senders) {
            sender.send(to, b"packet", None);
        }
        let mut seen = [(); 2].map(|()| Vec::new());
        let mut batch = ReceiveBatch::new(1);
        for (thread, seen) in seen.iter_mut().enumerate() {
            for socket in sockets.for_thread(thread).all() {
                while socket.receive(&mut batch).expect("it receives") {
                    seen.extend(batch.datagrams().map(|datagram| datagram.remote.port()));
                }
            }
        }
        let [one, other] = &seen;
        assert_eq!(one.len() + other.len(), 64);
        assert!(!one.is_empty() && !other.is_empty() && one.iter().all(|it| !other.contains(it)));
    }

    #[tokio::test]
    async fn an_answer_leaves_from_the_address_that_was_asked() {
        let (asker, answerer) = (inbox(), inbox());
        let port = |inbox: &Inbox| inbox.sockets().port().expect("it is bound");
        let asked = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), port(&answerer)));
        asker.sockets().send(asked, b"question", None);
        let (question, from) = next(&answerer).await;
        assert_eq!((&question[..], from.port()), (&b"question"[..], port(&asker)));
        answerer.sockets().send(from, b"answer", None);
        assert_eq!(next(&asker).await, (b"answer".to_vec(), asked));

        answerer.sockets().forget_sources();
        answerer.sockets().send(from, b"anew", None);
        let elsewhere = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&answerer)));
        assert_eq!(next(&asker).await, (b"anew".to_vec(), elsewhere));
    }

    #[test]
    fn a_flood_of_remotes_takes_no_more_room() {
        let sources = Sources::default();
        let source = Source { address: Ipv4Addr::LOCALHOST.into(), interface: 1 };
        let remote = |number: u16| SocketAddr::from(([192, 0, 2, 1], number));
        for number in 0..u16::MAX {
            sources.set(remote(number), Some(source));
        }
        assert_eq!(sources.of(remote(u16::MAX - 1)), Some(source));
        let known = (0..u16::MAX).filter(|number| sources.of(remote(*number)).is_some()).count();
        assert!(known <= SOURCES);
        sources.set(remote(u16::MAX - 1), None);
        assert_eq!(sources.of(remote(u16::MAX - 1)), None);
    }
}

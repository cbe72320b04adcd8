//! What a relay does over UDP: it answers STUN, and passes on the datagrams of circuits.
//!
//! One thread waits for all sockets. What one sender sent on one circuit at a time goes on in one call, as it came.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use path::stun::{self, Port, is_stun};
use platform::poll::ReadySet;
use platform::udp::{Datagram, Source};
use platform::{Interest, Poller, ReceiveBatch, Stop, Transmit, UdpConfig, UdpSocket, Worker};
use relay_proto::{Circuits, Head, Place};
use tracing::warn;

use crate::stun::Budget;

/// How often circuits are looked through for such as have ended.
const REVIEW: Duration = Duration::from_secs(10);
/// Receive calls at one socket before the others get their turn.
const RECEIVES: usize = 4;
/// Super-datagrams in one receive call.
const RECEIVE_SLOTS: usize = 8;

const WAKE: u64 = 0;
/// The first socket; the others follow.
const SOCKETS: u64 = 1;

/// The circuits of a relay, of which the thread and the links have to know.
pub(crate) type SharedCircuits = Arc<Mutex<Circuits>>;

pub(crate) fn lock(circuits: &SharedCircuits) -> MutexGuard<'_, Circuits> {
    circuits.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens sockets at an address: two at the unspecified one of IPv6, since a socket is of one version.
pub(crate) fn bind(address: SocketAddr) -> io::Result<Vec<UdpSocket>> {
    let config = match address {
        SocketAddr::V4(_) => UdpConfig::ipv4(address.port()),
        SocketAddr::V6(_) => UdpConfig::ipv6(address.port()),
    };
    let first = UdpSocket::bind(&UdpConfig { address: address.ip(), ..config })?;
    let mut sockets = vec![first];
    if address.is_ipv6() && address.ip().is_unspecified() {
        let port = sockets[0].local_address().port();
        let address = Ipv4Addr::UNSPECIFIED.into();
        sockets.push(UdpSocket::bind(&UdpConfig { address, ..UdpConfig::ipv4(port) })?);
    }
    Ok(sockets)
}

/// Answers and passes on at these sockets until the thread is dropped.
pub(crate) fn serve(sockets: Vec<UdpSocket>, circuits: SharedCircuits) -> io::Result<Worker> {
    let stop = Arc::new(Stop::new()?);
    let poller = Poller::new()?;
    poller.add(stop.waker(), WAKE, Interest::Read)?;
    for (token, socket) in (SOCKETS..).zip(&sockets) {
        poller.add(socket, token, Interest::Read)?;
    }
    let budget = Budget::new(Instant::now());
    let server = Server { sockets, circuits, budget, stop: Arc::clone(&stop) };
    Worker::start("udp", stop, || {
        if let Err(error) = server.run(poller) {
            warn!(%error, "nothing is answered or passed on over UDP any more");
        }
    })
}

struct Server {
    sockets: Vec<UdpSocket>,
    circuits: SharedCircuits,
    budget: Budget,
    stop: Arc<Stop>,
}

impl Server {
    fn run(mut self, mut poller: Poller) -> io::Result<()> {
        let mut batch = ReceiveBatch::new(RECEIVE_SLOTS);
        let mut review = Instant::now() + REVIEW;
        while !self.stop.is_wanted() {
            let mut sockets = ReadySet::default();
            let patience = review.saturating_duration_since(Instant::now());
            for ready in poller.wait(Some(patience))? {
                match ready.token {
                    WAKE => self.stop.waker().reset(),
                    token => sockets.insert(token - SOCKETS),
                }
            }
            for socket in sockets.iter() {
                self.receive(socket, &mut batch)?;
            }
            let now = Instant::now();
            if now >= review {
                lock(&self.circuits).expire(now);
                review = now + REVIEW;
            }
        }
        Ok(())
    }

    fn receive(&mut self, socket: usize, batch: &mut ReceiveBatch) -> io::Result<()> {
        for _ in 0..RECEIVES {
            if !self.sockets[socket].receive(batch)? {
                break;
            }
            let now = Instant::now();
            for datagram in batch.datagrams() {
                self.take(socket, datagram, now);
            }
        }
        Ok(())
    }

    /// Takes what one sender sent: runs of datagrams on one circuit together, all else one by one.
    fn take(&mut self, socket: usize, datagram: Datagram<'_>, now: Instant) {
        let Datagram { remote, local, segment, bytes } = datagram;
        let from = Place { socket, local: local.map(|local| local.address), remote };
        let segment = segment.max(1);
        let mut rest = bytes;
        while !rest.is_empty() {
            let head = Head::of(rest);
            let is_same = |datagram: &&[u8]| head.is_some() && Head::of(datagram) == head;
            let count = rest.chunks(segment).take_while(is_same).count().max(1);
            let (run, others) = rest.split_at_mut(rest.len().min(count * segment));
            rest = others;
            match head {
                Some(head) => self.pass_on(&from, head, (run, segment), now),
                None => self.answer(from, run, now),
            }
        }
    }

    fn pass_on(
        &self,
        from: &Place,
        head: Head,
        (datagrams, segment): (&mut [u8], usize),
        now: Instant,
    ) {
        let to = lock(&self.circuits).pass_on(from, head, datagrams.len() as u64, now);
        let Some(to) = to else { return };
        datagrams.chunks_mut(segment).for_each(Head::descend);
        let segment = u16::try_from(segment).ok().filter(|_| datagrams.len() > segment);
        self.send(&to, datagrams, segment);
    }

    /// Answers what asks for an answer: STUN to anybody, within a budget, and who holds the key of a circuit.
    fn answer(&mut self, from: Place, datagram: &[u8], now: Instant) {
        if !is_stun(datagram) {
            let answer = lock(&self.circuits).handle_bind(from, datagram, now);
            return answer.into_iter().for_each(|answer| self.send(&from, &answer, None));
        }
        if !self.budget.allow(from.remote, now) {
            return;
        }
        let other = self.other_port(from.socket);
        if let Some(answer) = stun::answer(datagram, from.remote, other.is_some()) {
            let socket = match answer.port {
                Port::Asked => from.socket,
                Port::Other => other.unwrap_or(from.socket),
            };
            self.send(&Place { socket, remote: answer.to, ..from }, &answer.bytes, None);
        }
    }

    /// The socket at another port of the same address.
    fn other_port(&self, socket: usize) -> Option<usize> {
        let own = self.sockets[socket].local_address();
        let is_other = |other: &UdpSocket| {
            let other = other.local_address();
            other.ip() == own.ip() && other != own
        };
        self.sockets.iter().position(is_other)
    }

    /// What cannot be sent in a moment is lost, as on any wire.
    fn send(&self, to: &Place, bytes: &[u8], segment: Option<u16>) {
        let source = to.local.map(|address| Source { address, interface: 0 });
        let transmit = Transmit { destination: to.remote, source, segment, bytes };
        let _ = self.sockets[to.socket].send(&transmit);
    }
}

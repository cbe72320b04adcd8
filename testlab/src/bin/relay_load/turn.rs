//! An allocation at a TURN server: with one at each end two devices meet that reach nothing but their servers.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use turn_proto::{Client, Login, Transport};
use zeroize::Zeroizing;

use crate::datagrams::{Datagrams, at_once, pieces};
use crate::peer::TICK;
use crate::wire::{Target, Way};

/// Username and password alike.
const USER: &str = "bench";
/// Bytes that are read at once.
const READ: usize = 64 * 1024;

/// What a client speaks to its server by.
enum Carrier {
    Tcp(TcpStream),
    Udp(Box<Datagrams>),
}

/// A client with its connection.
pub(crate) struct Turn {
    client: Client,
    carrier: Carrier,
    tick: Interval,
    rng: ChaCha20Rng,
    read: Box<[u8]>,
    /// What is to be written to a stream.
    queue: BytesMut,
    payload: Vec<u8>,
}

impl Turn {
    pub(crate) async fn connect(target: &Target, number: usize) -> Self {
        let password = Zeroizing::new(USER.to_owned());
        let login = Login { username: USER.to_owned(), password, lasts: None };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (transport, carrier) = match target.way() {
            Way::Tcp | Way::Tls => (Transport::Tcp, Carrier::Tcp(target.connect().await)),
            Way::Udp => (Transport::Udp, Carrier::Udp(Box::new(Datagrams::new(target.address())))),
        };
        let mut turn = Self {
            client: Client::new(transport, login, Instant::now()),
            carrier,
            tick,
            rng: ChaCha20Rng::seed_from_u64(number as u64),
            read: vec![0; READ].into(),
            queue: BytesMut::new(),
            payload: Vec::new(),
        };
        turn.handle_timeout();
        turn.flush().await;
        while turn.client.relayed().is_none() {
            let failure = turn.client.poll_event();
            assert!(failure.is_none(), "{failure:?}");
            turn.receive(&mut |_| {}).await;
        }
        turn
    }

    /// Where others send to.
    pub(crate) fn relayed(&self) -> SocketAddr {
        self.client.relayed().expect("it was granted")
    }

    /// Opens a channel to another one, which lets that one send here.
    pub(crate) async fn admit(&mut self, other: SocketAddr) {
        self.client.send(other, &[], &mut self.rng, Instant::now());
        self.flush().await;
        self.receive(&mut |_| {}).await;
    }

    pub(crate) async fn receive(&mut self, take: &mut (dyn FnMut(&[u8]) + Send)) {
        tokio::select! {
            () = self.carrier.readable() => {}
            _ = self.tick.tick() => {
                self.handle_timeout();
                return self.flush().await;
            }
        }
        let Self { client, rng, .. } = self;
        self.carrier.take(&mut self.read, &mut |bytes| {
            client.handle_bytes(bytes, rng, Instant::now());
            // What has no content only gives permission.
            while let Some((_, payload)) = client.poll_data() {
                if !payload.is_empty() {
                    take(&payload);
                }
            }
        });
        self.flush().await;
    }

    /// Sends frames: over TCP each whole, over UDP in datagrams.
    pub(crate) async fn send(&mut self, to: SocketAddr, length: usize, count: usize, head: &[u8]) {
        self.payload.resize(length, 0);
        self.payload[..head.len()].copy_from_slice(head);
        let now = Instant::now();
        match self.carrier {
            Carrier::Tcp(_) => {
                (0..count).for_each(|_| self.client.send(to, &self.payload, &mut self.rng, now))
            }
            Carrier::Udp(_) => pieces(length, count).for_each(|piece| {
                self.client.send(to, &self.payload[..piece], &mut self.rng, now);
            }),
        }
        self.flush().await;
    }

    fn handle_timeout(&mut self) {
        self.client.handle_timeout(&mut self.rng, Instant::now());
    }

    async fn flush(&mut self) {
        let messages = std::iter::from_fn(|| self.client.poll_transmit());
        match &mut self.carrier {
            Carrier::Udp(datagrams) => datagrams.send_each(messages),
            Carrier::Tcp(stream) => {
                messages.for_each(|bytes| self.queue.extend_from_slice(&bytes));
                while !self.queue.is_empty() {
                    stream.write_buf(&mut self.queue).await.expect("the server takes bytes");
                }
            }
        }
    }
}

impl Carrier {
    async fn readable(&self) {
        match self {
            Self::Tcp(stream) => stream.readable().await.expect("the server goes on"),
            Self::Udp(datagrams) => datagrams.readable().await,
        }
    }

    /// Takes what has come, by way of a buffer.
    fn take(&mut self, buffer: &mut [u8], take: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Udp(datagrams) => datagrams.take(take),
            Self::Tcp(stream) => {
                while let Some(length) = at_once(stream.try_read(buffer)) {
                    assert!(length > 0, "the server ended a connection");
                    take(&buffer[..length]);
                }
            }
        }
    }
}

//! An allocation at a TURN server, over TCP: with one at each end two devices meet to which UDP is forbidden.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use turn_proto::{Client, Login, Transport};
use zeroize::Zeroizing;

use crate::peer::TICK;
use crate::wire::Target;

/// Username and password alike.
const USER: &str = "bench";
/// Bytes that are read at once.
const READ: usize = 64 * 1024;

/// A client with its connection.
pub(crate) struct Turn {
    client: Client,
    tcp: TcpStream,
    tick: Interval,
    rng: ChaCha20Rng,
    read: Box<[u8]>,
    /// What is to be written.
    queue: BytesMut,
    payload: Vec<u8>,
}

impl Turn {
    pub(crate) async fn connect(target: &Target, number: usize) -> Self {
        let password = Zeroizing::new(USER.to_owned());
        let login = Login { username: USER.to_owned(), password, lasts: None };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = Self {
            client: Client::new(Transport::Tcp, login, Instant::now()),
            tcp: target.connect().await,
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

    pub(crate) async fn receive(&mut self, take: &mut (dyn FnMut(&[u8]) + Send)) {
        let mut length = tokio::select! {
            length = self.tcp.read(&mut self.read) => length.expect("the server goes on"),
            _ = self.tick.tick() => {
                self.handle_timeout();
                return self.flush().await;
            }
        };
        loop {
            assert!(length > 0, "the server ended a connection");
            self.client.handle_bytes(&self.read[..length], &mut self.rng, Instant::now());
            // What has no content only gives permission.
            while let Some((_, payload)) = self.client.poll_data() {
                if !payload.is_empty() {
                    take(&payload);
                }
            }
            match self.tcp.try_read(&mut self.read) {
                Ok(more) => length = more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.flush().await;
    }

    pub(crate) async fn send(&mut self, to: SocketAddr, length: usize, count: usize, head: &[u8]) {
        self.payload.resize(length, 0);
        self.payload[..head.len()].copy_from_slice(head);
        for _ in 0..count {
            self.client.send(to, &self.payload, &mut self.rng, Instant::now());
        }
        self.flush().await;
    }

    fn handle_timeout(&mut self) {
        self.client.handle_timeout(&mut self.rng, Instant::now());
    }

    async fn flush(&mut self) {
        while let Some(bytes) = self.client.poll_transmit() {
            self.queue.extend_from_slice(&bytes);
        }
        while !self.queue.is_empty() {
            self.tcp.write_buf(&mut self.queue).await.expect("the server takes bytes");
        }
    }
}

//! The wire between two stacks, with faults that repeat.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use netstack::{Netstack, NetstackHandle, Resolve, ResolveError, Resolving};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

pub(crate) const MTU: usize = 1280;
pub(crate) const A6: &str = "fd42:1::a";
pub(crate) const A4: &str = "100.64.0.1";
pub(crate) const B6: &str = "fd42:1::b";
pub(crate) const B4: &str = "100.64.0.2";

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn at(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address(host), port)
}

/// The names of the test network.
pub(crate) struct Names(BTreeMap<&'static str, Vec<IpAddr>>);

impl Names {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(BTreeMap::from([
            ("a.home.alt", vec![address(A6), address(A4)]),
            ("b.home.alt", vec![address(B6), address(B4)]),
            ("four.home.alt", vec![address(B4)]),
            ("liar.home.alt", vec![address("192.0.2.1")]),
        ])))
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            if !name.ends_with(".alt") {
                return Err(ResolveError::Outside);
            }
            self.0.get(name.as_str()).cloned().ok_or(ResolveError::NotFound)
        })
    }

    fn reaches(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(ip) => ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64,
            IpAddr::V6(ip) => ip.segments()[0] == 0xfd42,
        }
    }
}

/// Faults per thousand packets.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u32,
    pub(crate) late: u32,
}

/// Stacks A and B on a wire that works.
pub(crate) fn pair() -> (NetstackHandle, NetstackHandle) {
    pair_with(Faults::default())
}

/// Stacks A and B on a wire with faults.
pub(crate) fn pair_with(faults: Faults) -> (NetstackHandle, NetstackHandle) {
    let (a, a_wire) = Netstack::start(&[address(A6), address(A4)], MTU, Names::new()).unwrap();
    let (b, b_wire) = Netstack::start(&[address(B6), address(B4)], MTU, Names::new()).unwrap();
    tokio::spawn(carry(a_wire.from_stack, b_wire.to_stack, faults, 1));
    tokio::spawn(carry(b_wire.from_stack, a_wire.to_stack, faults, 2));
    (a, b)
}

async fn carry(
    mut from: mpsc::Receiver<BytesMut>,
    to: mpsc::Sender<BytesMut>,
    faults: Faults,
    seed: u64,
) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut held = None;
    while let Some(packet) = from.recv().await {
        let dice = rng.next_u32() % 1000;
        if dice < faults.lost {
            continue;
        }
        if held.is_none() && dice < faults.lost + faults.late {
            held = Some(packet);
            continue;
        }
        for packet in std::iter::once(packet).chain(held.take()) {
            if to.send(packet).await.is_err() {
                return;
            }
        }
    }
}

/// Sends back what arrives on `port`, connection after connection.
pub(crate) fn echo(stack: &NetstackHandle, port: u16) {
    let mut listener = stack.listen(port).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(stream);
                let _copied = tokio::io::copy(&mut reader, &mut writer).await;
                let _ended = writer.shutdown().await;
            });
        }
    });
}

/// Writes `bytes`, ends the sending half and returns all that comes back.
pub(crate) async fn exchange<S>(mut stream: S, bytes: &[u8]) -> Vec<u8>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

//! Floods of datagrams from one host that claims to be thousands.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use testlab::netns::Namespace;
use testlab::network::Device;

/// Sources that the sender claims to be, each in a /24 of its own: twice as many as are told apart.
const SOURCES: u32 = 8_192;
/// Datagrams sent at once, between two looks at the clock.
const BURST: u32 = 50;

/// A host on the switch that owns 10.128.0.0/9 as far as those know who are told by [`Spoofer::fool`].
pub(crate) struct Spoofer {
    host: Device,
    address: String,
}

impl Spoofer {
    pub(crate) fn new(host: Device, address: &str) -> Self {
        let ip = |args: &[&str]| host.namespace().run("ip", args);
        ip(&["route", "add", "local", "10.128.0.0/9", "dev", "lo"]);
        Self { host, address: address.to_owned() }
    }

    /// Lets answers to the claimed sources come here, as they would go anywhere in the Internet.
    pub(crate) fn fool(&self, victim: &Namespace) {
        victim.run("ip", &["route", "add", "10.128.0.0/9", "via", &self.address]);
    }

    /// Sends `rate` datagrams a second until told to stop; answers how many it were.
    pub(crate) fn flood(
        &self,
        to: SocketAddr,
        rate: u32,
        stop: &AtomicBool,
        mut next: impl FnMut(&mut [u8; 1400]) -> usize + Send,
    ) -> u64 {
        self.host.namespace().enter(|| {
            let sources: Vec<_> = (0..SOURCES).map(source).collect();
            let mut datagram = [0; 1400];
            let (started, mut sent) = (Instant::now(), 0_u32);
            while !stop.load(Ordering::Relaxed) {
                let due = started.elapsed().as_secs_f64() * f64::from(rate);
                if f64::from(sent) > due {
                    std::thread::park_timeout(Duration::from_millis(1));
                    continue;
                }
                for _ in 0..BURST {
                    let length = next(&mut datagram);
                    let socket = &sources[sent as usize % sources.len()];
                    // What the victim's queue does not take is lost, as on any wire.
                    let _ = socket.send_to(&datagram[..length], to);
                    sent += 1;
                }
            }
            u64::from(sent)
        })
    }
}

fn source(number: u32) -> UdpSocket {
    let first = u32::from(Ipv4Addr::new(10, 128, 0, 1));
    let address = Ipv4Addr::from(first + (number << 8));
    UdpSocket::bind((address, 0)).expect("the address is local")
}

/// Initiations whose first MAC is right and whose rest is random.
pub(crate) fn initiations(key: &[u8; 32]) -> impl FnMut(&mut [u8; 1400]) -> usize + Send + use<> {
    let mac_key = Blake2s256::new().chain_update(b"mac1----").chain_update(key).finalize();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    move |datagram| {
        datagram[..4].copy_from_slice(&[1, 0, 0, 0]);
        rng.fill_bytes(&mut datagram[4..116]);
        let mut mac = Blake2sMac::<U16>::new_from_slice(&mac_key).expect("32 bytes are a key");
        Mac::update(&mut mac, &datagram[..116]);
        datagram[116..132].copy_from_slice(&mac.finalize().into_bytes());
        datagram[132..148].fill(0);
        148
    }
}

/// Noise of any length, some of which begins like something that is understood.
pub(crate) fn noise() -> impl FnMut(&mut [u8; 1400]) -> usize + Send {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let mut round = 0_u8;
    move |datagram| {
        let length = 1 + (rng.next_u32() % 200) as usize;
        rng.fill_bytes(&mut datagram[..length]);
        round = round.wrapping_add(1);
        match round % 8 {
            0 => datagram[..4].copy_from_slice(&[4, 0, 0, 0]),
            1 => datagram[..4].copy_from_slice(&[2, 0, 0, 0]),
            2 => datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]),
            _ => {}
        }
        length
    }
}

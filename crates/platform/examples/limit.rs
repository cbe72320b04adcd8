//! The limit of this machine: a tunnel without a cipher between two network namespaces.
//!
//! TUN → split → UDP with segmentation offload → joined receive → coalesce → TUN, one thread for
//! each end, and one TCP stream through it. What a real tunnel reaches here is compared with this.
//!
//! `cargo run --release -p platform --example limit [SECONDS]`, as root.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use packet::{Coalescer, Offload, Packet, Segments};
use platform::{
    Interest, Poller, ReceiveBatch, Transmit, Tun, TunConfig, UdpConfig, UdpSocket, links,
    process::Namespace, tun::MAX_PACKET, udp::MAX_SEGMENTS,
};

/// What WireGuard adds in front and behind.
const HEADER: usize = 16;
const TAG: usize = 16;
const MTU: u32 = 1420;

struct End {
    tun: Tun,
    socket: UdpSocket,
    peer: SocketAddr,
}

impl End {
    fn run(&self, stop: &AtomicBool) {
        let mut poller = Poller::new().unwrap();
        poller.add(&self.tun, 0, Interest::Read).unwrap();
        poller.add(&self.socket, 1, Interest::Read).unwrap();
        let mut packet = vec![0; MAX_PACKET];
        let mut sealed = Vec::with_capacity(2 * MAX_PACKET);
        let mut batch = ReceiveBatch::new(8);
        while !stop.load(Ordering::Relaxed) {
            let (mut outward, mut inward) = (false, false);
            for ready in poller.wait(Some(Duration::from_millis(100))).unwrap() {
                outward |= ready.token == 0;
                inward |= ready.token == 1;
            }
            if outward {
                self.send(&mut packet, &mut sealed);
            }
            if inward {
                self.receive(&mut batch);
            }
        }
    }

    fn send(&self, packet: &mut [u8], sealed: &mut Vec<u8>) {
        for _ in 0..16 {
            let Some((offload, length)) = self.tun.receive(packet).unwrap() else { return };
            let Ok(segments) = Segments::plan(&offload, &packet[..length]) else { continue };
            for first in (0..segments.count()).step_by(MAX_SEGMENTS) {
                sealed.clear();
                for index in first..segments.count().min(first + MAX_SEGMENTS) {
                    let (start, length) = (sealed.len() + HEADER, segments.length(index));
                    sealed.resize(start + length + TAG, 0);
                    segments.write(index, &mut sealed[start..start + length]);
                }
                let segment = u16::try_from(HEADER + segments.longest() + TAG).ok();
                let destination = self.peer;
                let transmit = Transmit { destination, source: None, segment, bytes: sealed };
                let _ = self.socket.send(&transmit);
            }
        }
    }

    fn receive(&self, batch: &mut ReceiveBatch) {
        if !self.socket.receive(batch).unwrap() {
            return;
        }
        let mut sink = |offload: &Offload, pieces: &[&[u8]]| {
            let _ = self.tun.send(offload, pieces).unwrap();
        };
        let mut coalescer = Coalescer::new(self.tun.merging());
        for datagram in batch.datagrams() {
            for bytes in datagram.segments() {
                let bytes: &[u8] = bytes;
                let inner = bytes.get(HEADER..bytes.len() - TAG).unwrap();
                if let Ok(packet) = Packet::parse(inner) {
                    coalescer.push(packet, &mut sink);
                }
            }
        }
        coalescer.finish(&mut sink);
    }
}

fn tun(namespace: &Namespace, address: &str) -> Tun {
    let open = || {
        let tun = Tun::open(TunConfig { mtu: Some(MTU), ..TunConfig::named("limit%d") }).unwrap();
        let index = tun.index().unwrap();
        links::add_address(index, address.parse().unwrap()).unwrap();
        links::set_up(index).unwrap();
        tun
    };
    namespace.run(open).unwrap()
}

/// Bytes that one TCP stream carries in `time`.
fn stream(left: &Namespace, right: &Namespace, time: Duration) -> u64 {
    let listener = right.run(|| TcpListener::bind("10.9.0.2:0").unwrap()).unwrap();
    let target = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut stream = left.run(|| TcpStream::connect(target).unwrap()).unwrap();
            let (data, end) = (vec![7; 1 << 20], Instant::now() + time);
            while Instant::now() < end {
                stream.write_all(&data).unwrap();
            }
        });
        let (mut stream, _) = listener.accept().unwrap();
        let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return total,
                length => total += length as u64,
            }
        }
    })
}

fn main() {
    let seconds = std::env::args().nth(1).map_or(3, |word| word.parse().unwrap());
    let between = Namespace::unnamed().unwrap();
    let (left, right) = (Namespace::unnamed().unwrap(), Namespace::unnamed().unwrap());
    let (tun_left, tun_right) = (tun(&left, "10.9.0.1/24"), tun(&right, "10.9.0.2/24"));
    println!("merging: {:?}", tun_left.merging());
    let loopback = UdpConfig { address: "127.0.0.1".parse().unwrap(), ..UdpConfig::ipv4(0) };
    let sockets = || {
        links::set_up(links::index_of("lo").unwrap()).unwrap();
        (UdpSocket::bind(&loopback).unwrap(), UdpSocket::bind(&loopback).unwrap())
    };
    let (socket_left, socket_right) = between.run(sockets).unwrap();
    let (at_left, at_right) = (socket_left.local_address(), socket_right.local_address());
    let ends = [
        End { tun: tun_left, socket: socket_left, peer: at_right },
        End { tun: tun_right, socket: socket_right, peer: at_left },
    ];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for end in &ends {
            scope.spawn(|| end.run(&stop));
        }
        let (time, start) = (Duration::from_secs(seconds), Instant::now());
        let bytes = stream(&left, &right, time);
        let gigabits = bytes as f64 * 8e-9 / start.elapsed().as_secs_f64();
        println!("one TCP stream: {gigabits:.2} Gbit/s");
        stop.store(true, Ordering::Relaxed);
    });
}

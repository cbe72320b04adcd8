//! What each step of the data plane costs, one function at a time: `make microbench`.

#![allow(missing_docs, reason = "the macros of the harness make public functions")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ciphers::{Cipher, Key, nonce};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::{HostPacket, Inbound, Outbound, Routes};
use frame_proto::{
    Ends, FrameKeys, FrameSealer, FrameType, HEADER_LENGTH, HOP_TAG_LENGTH, Header, HopKey,
    HopOpener, HopSealer, TAG_LENGTH,
};
use identity::{DeviceId, NetworkId, Padding, Shaping};
use packet::{Coalescer, Merging, Offload, Packet, Segments};
use testlab::relays::Relays;
use testlab::sim::Pair;

/// Parts of a super-packet: what the host hands over at once.
const PARTS: u16 = 44;
const ROUTES: [u32; 3] = [1, 100, 10_000];
/// Super-packets that one pair relays before it has anything else to say.
const RELAYED: u64 = 1_000;
/// A bare acknowledgement, a packet, a page and a super-packet.
const TEXTS: [usize; 4] = [64, 1_420, 8_192, 65_000];

criterion_main!(hot_paths);
criterion_group!(
    name = hot_paths;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = cipher, splitting_and_joining, sealing_and_opening, routing, frames, hops, relaying, shaping
);

/// The cipher by itself, which bounds all that is sealed.
fn cipher(criterion: &mut Criterion) {
    for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm] {
        let key = Key::of(cipher, &[7; 32]);
        let mut group = criterion.benchmark_group(format!("{cipher:?}"));
        for length in TEXTS {
            group.throughput(Throughput::Bytes(length as u64));
            let mut text = vec![7; length];
            group.bench_function(BenchmarkId::new("seal", length), |bencher| {
                bencher.iter(|| key.seal(nonce([1; 8]), &[], black_box(&mut text)));
            });
            let tag = key.seal(nonce([1; 8]), &[], &mut text);
            text.extend(tag);
            let mut opened = vec![0; text.len()];
            group.bench_function(BenchmarkId::new("open", length), |bencher| {
                bencher.iter(|| {
                    opened.copy_from_slice(&text);
                    let opened = key.open(nonce([1; 8]), &[], black_box(&mut opened));
                    opened.expect("it is sealed").len()
                });
            });
        }
        group.throughput(Throughput::Elements(1));
        group.bench_function("prepare a key", |bencher| {
            bencher.iter(|| Key::of(cipher, black_box(&[7; 32])));
        });
        group.bench_function("prepare a key for long nonces", |bencher| {
            bencher.iter(|| Key::extended(cipher, black_box(&[7; 32]), black_box(&[7; 16])));
        });
        group.finish();
    }
}

fn parts_of(offload: &Offload, packet: &[u8]) -> Vec<Vec<u8>> {
    let segments = Segments::plan(offload, packet).expect("it fits");
    let part = |index| {
        let mut part = vec![0; segments.length(index)];
        segments.write(index, &mut part);
        part
    };
    (0..segments.count()).map(part).collect()
}

fn join(packets: impl Iterator<Item = impl AsRef<[u8]>>) -> usize {
    let packets: Vec<_> = packets.collect();
    let mut writes = 0;
    let mut sink = |_: &Offload, pieces: &[&[u8]]| {
        black_box(pieces);
        writes += 1;
    };
    let mut coalescer = Coalescer::new(Merging::ALL);
    for packet in &packets {
        coalescer.push(Packet::parse(packet.as_ref()).expect("a packet"), &mut sink);
    }
    coalescer.finish(&mut sink);
    writes
}

fn splitting_and_joining(criterion: &mut Criterion) {
    let (offload, packet) = Pair::direct().super_packet(PARTS);
    let parts = parts_of(&offload, &packet);
    let mut group = criterion.benchmark_group("super-packet");
    group.throughput(Throughput::Bytes(packet.len() as u64));
    let mut out = vec![0; 1 << 16];
    group.bench_function("segment", |bencher| {
        bencher.iter(|| {
            let segments = Segments::plan(&offload, black_box(&packet)).expect("it fits");
            for index in 0..segments.count() {
                segments.write(index, &mut out[..segments.length(index)]);
            }
        });
    });
    group.bench_function("coalesce", |bencher| {
        bencher.iter(|| join(black_box(&parts).iter()));
    });
    group.finish();
}

fn sealing_and_opening(criterion: &mut Criterion) {
    let pair = Pair::direct();
    let (from, now) = (pair.first_address(), pair.now());
    let planes = [0, 1].map(|node| pair.data_plane(node));
    let (offload, packet) = pair.super_packet(PARTS);
    let segments = Segments::plan(&offload, &packet).expect("it fits");
    let seal = |out: &mut Vec<u8>| {
        let all = (&segments, 0..segments.count());
        match planes[0].load().outbound(all, out, now) {
            Outbound::Datagrams { datagram_len, .. } => datagram_len,
            Outbound::ToEngine | Outbound::NoRoute => panic!("there is a session"),
        }
    };
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Bytes(packet.len() as u64));
    let mut out = Vec::new();
    group.bench_function("seal", |bencher| bencher.iter(|| seal(&mut out)));
    group.bench_function("open", |bencher| {
        let sealed = || {
            let mut sealed = Vec::new();
            let length = seal(&mut sealed);
            (sealed, length)
        };
        let open = |(mut sealed, length): (Vec<u8>, usize)| {
            let plane = planes[1].load();
            plane.inbound(from, sealed.chunks_mut(length), now, |inbound| {
                let is_open = matches!(inbound, Inbound::Packet(_) | Inbound::Notice(_));
                assert!(is_open, "{inbound:?}");
            });
            sealed
        };
        bencher.iter_batched(sealed, open, BatchSize::PerIteration);
    });
    group.finish();
}

/// Which peer an address belongs to, and whether a packet is one that hosts take.
fn routing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for count in ROUTES {
        let mut routes = Routes::new();
        let address = |index: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + index));
        for index in 0..count {
            routes.insert(address(index).into(), index);
        }
        let mut index = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                index = (index + 7_919) % count;
                routes.lookup(black_box(address(index)))
            });
        });
    }
    group.finish();

    let pair = Pair::direct();
    let plane = pair.data_plane(0);
    let (offload, packet) = pair.super_packet(PARTS);
    let part = parts_of(&offload, &packet).swap_remove(0);
    let mut group = criterion.benchmark_group("filter");
    group.bench_function("way", |bencher| {
        bencher.iter(|| plane.load().way(black_box(&part), part.len()))
    });
    group.bench_function("parse", |bencher| {
        bencher.iter(|| Packet::parse(black_box(&part)).map(|view| view.transport_offset()));
    });
    group.bench_function("offload header", |bencher| {
        bencher.iter(|| black_box(&offload).validate(black_box(&packet)));
    });
    group.finish();
}

/// The header of a frame, and what its two ends do to all of it.
fn frames(criterion: &mut Criterion) {
    let [one, other] = [1, 2].map(|byte| DeviceId::from_bytes([byte; 32]));
    let network = NetworkId::from_bytes([3; 32]);
    let two_ends = |has_aes| {
        let end = |local, remote, send: [u8; 32], receive: [u8; 32], indices: [u32; 2]| {
            let (send, receive) = (send.into(), receive.into());
            let [remote_index, local_index] = indices;
            let keys = FrameKeys { send, receive, remote_index, local_index, has_aes };
            keys.split(Ends { network, local, remote })
        };
        let ours = end(one, other, [4; 32], [5; 32], [6, 7]);
        let theirs = end(other, one, [5; 32], [4; 32], [7, 6]);
        // It has heard what the other has.
        ours.1.open(&mut sealed(&theirs.0.begin(), 0)).expect("it is new");
        (ours.0.begin(), theirs.1)
    };

    let mut group = criterion.benchmark_group("frame");
    let (sealer, _) = two_ends(false);
    let bytes: [u8; HEADER_LENGTH] = *sealed(&sealer, 100).first_chunk().expect("a header");
    let header = Header::decode(&bytes).expect("a header");
    group.bench_function("encode header", |bencher| bencher.iter(|| black_box(&header).encode()));
    group.bench_function("decode header", |bencher| {
        bencher.iter(|| Header::decode(black_box(&bytes)));
    });
    for (cipher, has_aes) in [("XChaCha20-Poly1305", false), ("AES-256-GCM", true)] {
        for length in [1_280, 55_000] {
            let (sealer, opener) = two_ends(has_aes);
            let name = |step| BenchmarkId::new(format!("{step}, {cipher}"), length);
            group.throughput(Throughput::Bytes(length as u64));
            group.bench_function(name("seal"), |bencher| {
                let mut room = sealed(&sealer, length);
                bencher.iter(|| sealer.seal(FrameType::Data, 0, black_box(&mut room)));
            });
            group.bench_function(name("open"), |bencher| {
                let open = |mut frame: Vec<u8>| {
                    opener.open(&mut frame).expect("it is new");
                    frame
                };
                bencher.iter_batched(|| sealed(&sealer, length), open, BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

fn sealed(sealer: &FrameSealer, length: usize) -> Vec<u8> {
    let mut frame = vec![7; HEADER_LENGTH + length + TAG_LENGTH];
    sealer.seal(FrameType::Data, 0, &mut frame).expect("it has room");
    frame
}

/// What one connection adds to a frame and takes away again, and what a relay does in between.
fn hops(criterion: &mut Criterion) {
    let key = HopKey::from_bytes(&[7; 32]);
    let [one, other] = [1, 2].map(|byte| DeviceId::from_bytes([byte; 32]));
    let mut group = criterion.benchmark_group("hop");
    for length in [1_280, 55_000] {
        let mut frame = vec![7; HEADER_LENGTH + length + TAG_LENGTH];
        frame_proto::compose(FrameType::Data, one, &mut frame).expect("it has room");
        let message = [&frame[..], &[0; HOP_TAG_LENGTH]].concat();
        group.bench_function(BenchmarkId::new("seal", length), |bencher| {
            let mut sealer = HopSealer::new(&key);
            let seal = |mut message: Vec<u8>| {
                sealer.seal(&mut message).expect("it is a frame");
                message
            };
            bencher.iter_batched(|| message.clone(), seal, BatchSize::PerIteration);
        });
        group.bench_function(BenchmarkId::new("open", length), |bencher| {
            let (mut sealer, mut opener) = (HopSealer::new(&key), HopOpener::new(&key));
            let sealed = || {
                let mut message = message.clone();
                sealer.seal(&mut message).expect("it is a frame");
                message
            };
            let open = |mut message: Vec<u8>| {
                opener.open(&mut message).expect("it comes in order");
                message
            };
            bencher.iter_batched(sealed, open, BatchSize::PerIteration);
        });
        group.bench_function(BenchmarkId::new("rewrite the header", length), |bencher| {
            bencher.iter(|| frame_proto::set_peer(black_box(&mut frame), black_box(other)));
        });
    }
    group.finish();
}

/// A super-packet in one frame: at its sender, at the relay, at its receiver.
fn relaying(criterion: &mut Criterion) {
    let length = Pair::direct().super_packet(PARTS).1.len();
    let mut group = criterion.benchmark_group("relay");
    group.throughput(Throughput::Bytes(length as u64));
    for (index, step) in ["send", "forward", "receive"].into_iter().enumerate() {
        group.bench_function(step, |bencher| bencher.iter_custom(|count| relay(index, count)));
    }
    group.finish();
}

/// How long one step takes `count` times, each time with the others before and after it.
fn relay(step: usize, mut count: u64) -> Duration {
    let mut taken = Duration::ZERO;
    while count > 0 {
        let mut pair = Pair::relayed();
        let (offload, packet) = pair.super_packet(PARTS);
        for _ in 0..count.min(RELAYED) {
            pair.wait(Duration::from_micros(100));
            let packet = HostPacket::new(offload, &packet);
            let began = Instant::now();
            let message = pair.send(packet);
            let sent = Instant::now();
            let message = pair.forward(message.freeze());
            let forwarded = Instant::now();
            black_box(pair.receive(message.freeze()));
            let steps = [sent - began, forwarded - sent, forwarded.elapsed()];
            taken += steps[step];
        }
        count = count.saturating_sub(RELAYED);
    }
    taken
}

/// A frame every 20 ms from one device to another, over both of their links: what goes with it is what its share costs.
fn shaping(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shaping");
    for shaping in [Shaping::Off, Shaping::Front, Shaping::Constant] {
        for length in [1_280, 55_000] {
            let mut relays = Relays::new(1, |_, _| Duration::ZERO);
            let [one, other] = [0; 2].map(|relay| relays.device_at(relay));
            relays.run_for(Duration::from_secs(1));
            relays.set_policy(Padding::Buckets, &shaping);
            let payload = vec![7; length];
            group.bench_function(BenchmarkId::new(shaping.to_string(), length), |bencher| {
                bencher.iter(|| {
                    relays.send(one, other, &payload);
                    relays.run_for(Duration::from_millis(20));
                    relays.take_received(other).len()
                });
            });
        }
    }
    group.finish();
}

//! TUNs, links and routes in network namespaces of their own, which takes root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::{IpAddr, TcpListener, TcpStream, UdpSocket as StdUdp},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use packet::{Packet, Segmentation, Segments, Transport, build};
use platform::{
    Delivery, Interest, Poller, Tun, TunConfig, TunError,
    journal::Journal,
    links::{self, Change, Monitor, Route},
    process::Namespace,
    tun::MAX_PACKET,
};

/// Runs `test` in a new namespace.
fn isolated(test: impl FnOnce() + Send) {
    let privileged = platform::process::may_administer_network();
    assert!(privileged, "namespaces need CAP_NET_ADMIN: `make unit` runs this as root");
    let test = || {
        links::set_up(links::index_of("lo").unwrap()).unwrap();
        test();
    };
    Namespace::unnamed().unwrap().run(test).unwrap();
}

fn open(name: &str, addresses: &[&str]) -> Tun {
    let tun = Tun::open(TunConfig { mtu: Some(1420), ..TunConfig::named(name) }).unwrap();
    let index = tun.index().unwrap();
    for address in addresses {
        links::add_address(index, address.parse().unwrap()).unwrap();
    }
    links::set_up(index).unwrap();
    tun
}

fn wait(tun: &Tun) {
    let mut poller = Poller::new().unwrap();
    poller.add(tun, 0, Interest::Read).unwrap();
    assert!(poller.wait(Some(Duration::from_secs(5))).unwrap().count() > 0, "nothing came");
}

/// What waits there, if anything does.
fn next(tun: &Tun) -> Option<(packet::Offload, BytesMut)> {
    let mut buffer = BytesMut::with_capacity(MAX_PACKET);
    tun.receive(&mut buffer).unwrap().map(|offload| (offload, buffer))
}

/// The next packet that `wanted` accepts.
fn receive(tun: &Tun, wanted: impl Fn(&Packet<'_>) -> bool) -> (packet::Offload, Vec<u8>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        wait(tun);
        while let Some((offload, bytes)) = next(tun) {
            let packet = Packet::parse(&bytes).unwrap();
            if wanted(&packet) {
                return (offload, packet.bytes().to_vec());
            }
        }
    }
    panic!("the packet never came");
}

/// Asks until there is an answer: an interface that has just come up loses what comes too early.
fn answer_to(tun: &Tun, request: &[u8], from: IpAddr) -> Vec<u8> {
    let mut poller = Poller::new().unwrap();
    poller.add(tun, 0, Interest::Read).unwrap();
    for _ in 0..50 {
        assert_eq!(tun.send(&Default::default(), &[request]).unwrap(), Delivery::Sent);
        let _ = poller.wait(Some(Duration::from_millis(200))).unwrap().count();
        while let Some((_, bytes)) = next(tun) {
            let packet = Packet::parse(&bytes).unwrap();
            if packet.destination() == from {
                return packet.bytes().to_vec();
            }
        }
    }
    panic!("nobody answered");
}

fn is_tcp_data(packet: &Packet<'_>) -> bool {
    matches!(packet.transport(), Transport::Tcp(tcp) if !tcp.payload().is_empty())
}

#[test]
fn the_host_echoes_what_is_written_to_the_tun() {
    isolated(|| {
        let tun = open("shadow%d", &["10.9.0.1/24", "fd09::1/64"]);
        assert_eq!(tun.name(), "shadow0");
        for (from, to) in [("10.9.0.2", "10.9.0.1"), ("fd09::2", "fd09::1")] {
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let request = build::echo_request(from, to, 1, 2, b"anybody there");
            let reply = answer_to(&tun, &request, from);
            let expected = build::echo_reply(&Packet::parse(&request).unwrap()).unwrap();
            let payload = |bytes: &[u8]| Packet::parse(bytes).unwrap().payload().to_vec();
            assert_eq!(payload(&reply), payload(&expected));
        }
    });
}

/// Carries packets between two TUNs; split to single packets on the way, and joined again.
fn shuttle(left: &Tun, right: &Tun, largest: &mut usize) {
    for (from, to) in [(left, right), (right, left)] {
        while let Some((offload, bytes)) = next(from) {
            *largest = (*largest).max(bytes.len());
            let plan = Segments::plan(&offload, &bytes).unwrap();
            let parts: Vec<Vec<u8>> = (0..plan.count())
                .map(|index| {
                    let mut part = vec![0; plan.length(index)];
                    plan.write(index, &mut part);
                    part
                })
                .collect();
            let mut coalescer = packet::Coalescer::new(to.merging());
            let mut sink = |offload: &packet::Offload, pieces: &[&[u8]]| {
                let _ = to.send(offload, pieces).unwrap();
            };
            for part in &parts {
                coalescer.push(Packet::parse(part).unwrap(), &mut sink);
            }
            coalescer.finish(&mut sink);
        }
    }
}

#[test]
fn super_packets_cross_two_namespaces() {
    isolated(|| {
        let far = Namespace::unnamed().unwrap();
        let left = open("left", &["10.9.0.1/24", "fd09::1/64"]);
        let right = far.run(|| open("right", &["10.9.0.2/24", "fd09::2/64"])).unwrap();
        for address in ["10.9.0.2:0", "[fd09::2]:0"] {
            let listener = far.run(|| TcpListener::bind(address).unwrap()).unwrap();
            let target = listener.local_addr().unwrap();
            let data: Vec<u8> = (0..3_000_000_u32).map(|index| (index / 7) as u8).collect();
            let mut largest = 0;
            std::thread::scope(|scope| {
                let receiver = scope.spawn(move || {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut got = Vec::new();
                    std::io::Read::read_to_end(&mut stream, &mut got).unwrap();
                    got
                });
                let near = Namespace::current().unwrap();
                let sent = &data;
                let writer = scope.spawn(move || {
                    near.run(|| {
                        let mut stream = TcpStream::connect(target).unwrap();
                        std::io::Write::write_all(&mut stream, sent).unwrap();
                    })
                    .unwrap();
                });
                let mut poller = Poller::new().unwrap();
                poller.add(&left, 0, Interest::Read).unwrap();
                poller.add(&right, 1, Interest::Read).unwrap();
                let deadline = Instant::now() + Duration::from_secs(20);
                while !receiver.is_finished() && Instant::now() < deadline {
                    let _ = poller.wait(Some(Duration::from_millis(100))).unwrap().count();
                    shuttle(&left, &right, &mut largest);
                }
                assert!(receiver.is_finished(), "the transfer never ended");
                writer.join().unwrap();
                assert!(receiver.join().unwrap() == data, "the bytes changed on the way");
            });
            assert!(largest > 10_000, "the largest super-packet had {largest} bytes");
            assert!(largest <= 60_720 + 60, "a super-packet of {largest} bytes");
        }
    });
}

#[test]
fn datagrams_are_split_and_joined_by_the_host() {
    isolated(|| {
        let tun = open("shadow%d", &["10.9.0.1/24"]);
        assert!(tun.merging().udp, "UDP offload of TUNs needs Linux 6.2");
        let socket = platform::UdpSocket::bind(&platform::UdpConfig::ipv4(0)).unwrap();
        let bytes = vec![5; 10_000];
        let transmit = platform::Transmit {
            destination: "10.9.0.2:9".parse().unwrap(),
            source: None,
            segment: Some(1000),
            bytes: &bytes,
        };
        assert_eq!(socket.send(&transmit), Delivery::Sent);
        let (offload, packet) = receive(&tun, |packet| packet.payload().len() > 1000);
        assert_eq!((offload.segmentation, offload.segment_size), (Segmentation::Udp, 1000));
        assert_eq!(packet.len(), 10_028);
    });
}

#[test]
fn without_offloads_every_packet_comes_and_goes_alone() {
    isolated(|| {
        let config = TunConfig { offload: false, mtu: Some(1420), ..TunConfig::named("plain") };
        let tun = Tun::open(config).unwrap();
        assert_eq!(tun.merging(), packet::Merging::NONE);
        let index = tun.index().unwrap();
        links::add_address(index, "10.9.0.1/24".parse().unwrap()).unwrap();
        links::set_up(index).unwrap();
        let (from, to) = ("10.9.0.2".parse().unwrap(), "10.9.0.1".parse().unwrap());
        let request = build::echo_request(from, to, 1, 2, b"one by one");
        assert!(answer_to(&tun, &request, from).ends_with(b"one by one"));

        let bytes = vec![5; 10_000];
        let socket = platform::UdpSocket::bind(&platform::UdpConfig::ipv4(0)).unwrap();
        let destination = "10.9.0.2:9".parse().unwrap();
        let segment = Some(1_000);
        let transmit = platform::Transmit { destination, source: None, segment, bytes: &bytes };
        assert_eq!(socket.send(&transmit), Delivery::Sent);
        for _ in 0..10 {
            let (offload, packet) = receive(&tun, |packet| packet.protocol().0 == 17);
            assert_eq!((offload, packet.len()), (packet::Offload::default(), 1_028));
            assert!(Packet::parse(&packet).unwrap().transport_checksum_is_valid());
        }
    });
}

/// Sends 20 datagrams of `length` in one to a namespace at the other end of a wire, after `ethtool` has
/// changed the wire's both ends; they all have to come, as they were.
fn cross_a_wire(length: u16, features: &[&str], mtu: u32) {
    isolated(|| {
        let far = Namespace::unnamed().unwrap();
        run("ip", &["link", "add", "near", "type", "veth", "peer", "name", "far"]);
        let ends = ["near", "far"].map(|name| links::index_of(name).unwrap());
        for (name, index) in ["near", "far"].into_iter().zip(ends) {
            if !features.is_empty() {
                run("ethtool", &[&["-K", name], features].concat());
            }
            links::set_mtu(index, mtu).unwrap();
        }
        links::move_to(ends[1], &far).unwrap();
        let set_up = |name: &str, address: &str| {
            let index = links::index_of(name).unwrap();
            links::add_address(index, address.parse().unwrap()).unwrap();
            links::set_up(index).unwrap();
        };
        set_up("near", "10.7.0.1/24");
        let receiver = far
            .run(|| {
                set_up("far", "10.7.0.2/24");
                platform::UdpSocket::bind(&platform::UdpConfig::ipv4(7)).unwrap()
            })
            .unwrap();
        let sender = platform::UdpSocket::bind(&platform::UdpConfig::ipv4(0)).unwrap();
        let length = usize::from(length);
        let bytes: Vec<u8> = (0..20 * length).map(|index| (index / length) as u8).collect();
        let destination = "10.7.0.2:7".parse().unwrap();
        let segment = u16::try_from(length).ok();
        let transmit = platform::Transmit { destination, source: None, segment, bytes: &bytes };
        let mut poller = Poller::new().unwrap();
        poller.add(&receiver, 0, Interest::Read).unwrap();
        let mut batch = platform::ReceiveBatch::new(8);
        let mut came = Vec::new();
        assert_eq!(sender.send(&transmit), Delivery::Sent);
        while came.len() < 20 {
            let ready = poller.wait(Some(Duration::from_secs(5))).unwrap().count();
            assert!(ready > 0, "{} of 20 datagrams came", came.len());
            while receiver.receive(&mut batch).unwrap() {
                for datagram in batch.datagrams() {
                    came.extend(datagram.segments().map(|bytes| bytes.to_vec()));
                }
            }
        }
        assert_eq!(came.concat(), bytes);
    });
}

fn run(program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.expect("`scripts/install-test-tools` installs it");
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

#[test]
fn a_wire_that_can_split_gets_datagrams_to_split() {
    cross_a_wire(1_400, &[], 1_500);
}

#[test]
fn a_wire_that_cannot_split_gets_the_same_datagrams() {
    cross_a_wire(1_400, &["tx-udp-segmentation", "off"], 1_500);
}

#[test]
fn a_wire_that_can_neither_split_nor_make_checksums_gets_the_same_datagrams() {
    cross_a_wire(1_400, &["tx-udp-segmentation", "off", "tx", "off", "gso", "off"], 1_500);
}

#[test]
fn datagrams_above_the_mtu_of_a_wire_go_one_by_one_in_fragments() {
    cross_a_wire(1_400, &[], 1_300);
}

#[test]
fn a_large_send_is_one_super_packet() {
    isolated(|| {
        let tun = open("shadow%d", &["10.9.0.1/24"]);
        let (source, destination) = ("10.9.0.1:0", "10.9.0.1:0");
        let listener = TcpListener::bind(destination).unwrap();
        let plain = StdUdp::bind(source).unwrap();
        plain.send_to(b"one", "10.9.0.2:9").unwrap();
        drop(listener);
        let (offload, packet) = receive(&tun, |packet| packet.protocol().0 == 17);
        let plan = Segments::plan(&offload, &packet).unwrap();
        assert_eq!(plan.count(), 1);
        let mut whole = vec![0; plan.length(0)];
        plan.write(0, &mut whole);
        assert!(Packet::parse(&whole).unwrap().transport_checksum_is_valid());
        assert!(!is_tcp_data(&Packet::parse(&whole).unwrap()));
    });
}

#[test]
fn a_name_that_is_taken_is_said_to_be() {
    isolated(|| {
        let _first = open("shadow0", &[]);
        let second = Tun::open(TunConfig::named("shadow0"));
        assert!(matches!(second, Err(TunError::NameTaken(name)) if name == "shadow0"));
        let taken = Tun::open(TunConfig::named("lo"));
        assert!(matches!(taken, Err(TunError::NameTaken(name)) if name == "lo"));
        for (kind, name) in
            [(&["mode", "tap"][..], "frames"), (&["mode", "tun", "multi_queue"], "queues")]
        {
            run("ip", &[&["tuntap", "add", "dev", name], kind].concat());
            let other = Tun::open(TunConfig::named(name));
            assert!(matches!(other, Err(TunError::NameTaken(taken)) if taken == name));
        }
        let _several = Tun::open_queues(TunConfig::named("shadow1"), 4).unwrap();
        for (name, count) in [("shadow0", 4), ("shadow1", 1), ("shadow1", 4), ("queues", 4)] {
            let other = Tun::open_queues(TunConfig::named(name), count);
            assert!(matches!(other, Err(TunError::NameTaken(taken)) if taken == name), "{name}");
        }
        let long = Tun::open(TunConfig::named("a-name-far-too-long"));
        assert!(matches!(long, Err(TunError::InvalidName(_))));
        let mut missing = TunConfig::named("shadow1");
        missing.device = platform::tun::Device::Path("/nonexistent/tun".into());
        assert!(matches!(Tun::open(missing), Err(TunError::MissingDevice(_))));
    });
}

#[test]
fn a_moved_interface_goes_on_working() {
    isolated(|| {
        let far = Namespace::unnamed().unwrap();
        let mut monitor = Monitor::new().unwrap();
        let tun = open("shadow0", &[]);
        let index = tun.index().unwrap();
        links::move_to(index, &far).unwrap();
        let gone = changes(&mut monitor, |change| *change == Change::InterfaceGone(index));
        assert!(gone, "the move was seen");
        assert_eq!(tun.current_name().unwrap(), "shadow0");
        assert!(matches!(tun.index(), Err(TunError::Os { .. })));
        let there = Namespace::from(tun.namespace().unwrap());
        there
            .run(|| {
                let index = tun.index().unwrap();
                links::add_address(index, "10.9.0.1/24".parse().unwrap()).unwrap();
                links::set_up(index).unwrap();
                let (from, to) = ("10.9.0.2".parse().unwrap(), "10.9.0.1".parse().unwrap());
                let request = build::echo_request(from, to, 1, 1, b"still here");
                assert_eq!(tun.send(&Default::default(), &[&request]).unwrap(), Delivery::Sent);
                receive(&tun, |packet| packet.destination() == from);
            })
            .unwrap();
    });
}

/// Whether a change comes that `wanted` accepts.
fn changes(monitor: &mut Monitor, wanted: impl Fn(&Change) -> bool) -> bool {
    let mut poller = Poller::new().unwrap();
    poller.add(monitor, 0, Interest::Read).unwrap();
    loop {
        while let Some(change) = monitor.poll_change().unwrap() {
            if wanted(&change) {
                return true;
            }
        }
        if poller.wait(Some(Duration::from_secs(5))).unwrap().count() == 0 {
            return false;
        }
    }
}

#[test]
fn changes_of_mtu_and_addresses_are_seen_and_deletion_ends_the_tun() {
    isolated(|| {
        let tun = open("shadow0", &[]);
        let index = tun.index().unwrap();
        let mut monitor = Monitor::new().unwrap();
        links::set_mtu(index, 1300).unwrap();
        assert!(changes(&mut monitor, |change| {
            matches!(change, Change::Interface(one) if one.index == index && one.mtu == 1300)
        }));
        let address = "fd09::1/64".parse().unwrap();
        links::add_address(index, address).unwrap();
        assert!(changes(&mut monitor, |change| *change == Change::Addresses));
        let all = links::local_addresses().unwrap();
        assert!(all.iter().any(|one| one.address == address && one.usable && !one.local_scope));
        links::remove_address(index, address).unwrap();
        links::remove_address(index, address).unwrap();
        assert!(!links::local_addresses().unwrap().iter().any(|one| one.address == address));
        links::remove(index).unwrap();
        wait(&tun);
        assert!(matches!(tun.receive(&mut BytesMut::new()), Err(TunError::Gone)));
        let sent = tun.send(&Default::default(), &[&[0x45; 20]]);
        assert!(matches!(sent, Err(TunError::Gone)));
        assert!(matches!(tun.current_name(), Err(TunError::Gone)));
    });
}

#[test]
fn routes_are_added_and_undone_also_after_a_crash() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let tun = open("shadow0", &["10.9.0.1/24", "fd09::1/64"]);
        let index = tun.index().unwrap();
        let wanted = [
            Route { metric: Some(5), ..Route::on_link("10.77.0.0/16".parse().unwrap(), index) },
            Route { table: Some(777), ..Route::on_link("0.0.0.0/0".parse().unwrap(), index) },
            Route {
                gateway: Some("fd09::2".parse().unwrap()),
                metric: Some(9),
                ..Route::on_link("fd77::/32".parse().unwrap(), index)
            },
        ];
        let present = || {
            let all = links::routes().unwrap();
            wanted
                .iter()
                .filter(|route| {
                    all.iter().any(|one| {
                        one.destination == route.destination
                            && one.interface == route.interface
                            && one.table == route.table
                            && one.gateway == route.gateway
                    })
                })
                .count()
        };
        let mut journal = Journal::open(&path).unwrap();
        for route in &wanted {
            journal.add_route(route).unwrap();
        }
        let again = journal.add_route(&wanted[0]).unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(present(), 3);
        drop(journal);
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(present(), 0);
        journal.add_route(&wanted[1]).unwrap();
        journal.remove_route(&wanted[1]).unwrap();
        assert!(!path.exists());
        assert_eq!(present(), 0);
    });
}

#[test]
fn a_tun_can_be_taken_over_by_its_descriptor() {
    isolated(|| {
        let first = open("shadow0", &[]);
        let copy = first.as_fd().try_clone_to_owned().unwrap();
        let mut config = TunConfig::named("whatever");
        config.device = platform::tun::Device::Open(copy);
        let second = Tun::open(config).unwrap();
        assert_eq!((second.name(), second.merging()), ("shadow0", first.merging()));
    });
}

#[test]
fn a_pair_in_memory_carries_super_packets() {
    let (left, right) = Tun::pair().unwrap();
    let packet = vec![0x45; 60_000];
    let offload =
        packet::Offload { segment_size: 1380, needs_checksum: true, ..Default::default() };
    assert_eq!(left.send(&offload, &[&packet[..40], &packet[40..]]).unwrap(), Delivery::Sent);
    let mut buffer = BytesMut::with_capacity(3 + MAX_PACKET);
    buffer.extend_from_slice(b"abc");
    assert_eq!(right.receive(&mut buffer).unwrap(), Some(offload));
    assert_eq!((&buffer[..3], &buffer[3..]), (&b"abc"[..], &packet[..]));
    assert_eq!(right.receive(&mut buffer).unwrap(), None);
    drop(left);
    // A process that another test has just made holds what it was born with until it runs its own program.
    let mut poller = Poller::new().unwrap();
    poller.add(&right, 0, Interest::Read).unwrap();
    assert_eq!(poller.wait(Some(Duration::from_secs(5))).unwrap().count(), 1);
    assert!(matches!(right.receive(&mut buffer), Err(TunError::Gone)));
    assert_eq!(buffer.len(), 3 + packet.len());
}

#[test]
fn a_packet_that_there_is_no_room_for_is_cut_and_nothing_grows() {
    let (left, right) = Tun::pair().unwrap();
    let mut buffer = BytesMut::with_capacity(64);
    let capacity = buffer.capacity();
    assert_eq!(left.send(&Default::default(), &[&[0x45; 1_000]]).unwrap(), Delivery::Sent);
    assert!(right.receive(&mut buffer).unwrap().is_some());
    assert_eq!((buffer.len(), buffer.capacity()), (capacity, capacity));
}

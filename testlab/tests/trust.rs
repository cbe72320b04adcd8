//! What a node believes of whom: one engine by hand, beside a controller and a relay of their own time.

use std::collections::BTreeMap;
use std::time::Duration;

use control_proto::{ConnectionId, InviteRequest, Output, SecurityEvent};
use engine::{
    ConnectionState, DeviceSecrets, Engine, EngineConfig, EngineEvent, Now, Purpose, StreamCommand,
    StreamId, UnixMillis,
};
use identity::{ChannelKey, DeviceId, DeviceKey, RevocationTarget, TunnelKey};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use relay_proto::ServerEvent;
use testlab::sim::{HostId, Setup, World};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A node whose clock, and a relay whose clock, may be wrong.
struct Lab {
    world: World,
    engine: Engine,
    rng: ChaCha20Rng,
    now: Now,
    node_error: i64,
    relay_error: i64,
    /// Whether the controller's messages arrive.
    controller_speaks: bool,
    streams: BTreeMap<StreamId, End>,
    next: u64,
    events: Vec<EngineEvent>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Controller(ConnectionId),
    Relay(relay_proto::ConnectionId),
}

impl Lab {
    fn new(node_error: i64, relay_error: i64) -> Self {
        let mut world = World::new(Setup { relays: 1, nodes: 0, ..Setup::default() });
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let now = world.now();
        let config = EngineConfig {
            invite: world.invite(InviteRequest::default()),
            name: "lonely".parse().expect("a label"),
            secrets: DeviceSecrets {
                device: DeviceKey::generate(&mut rng),
                tunnel: TunnelKey::generate(&mut rng),
                channel: ChannelKey::generate(&mut rng),
            },
            saved: engine::SavedState::default(),
            udp: false,
            loopback: false,
            turn: Vec::new(),
            mtu: engine::DEFAULT_MTU.into(),
            has_aes: true,
        };
        let engine = Engine::new(config, &mut rng, wrong(now, node_error));
        Self {
            world,
            engine,
            rng,
            now,
            node_error,
            relay_error,
            controller_speaks: true,
            streams: BTreeMap::new(),
            next: 1 << 32,
            events: Vec::new(),
        }
    }

    fn node_now(&self) -> Now {
        wrong(self.now, self.node_error)
    }

    /// Lets the device dial everybody anew.
    fn change_network(&mut self) {
        let now = self.node_now();
        self.engine.handle_network_change(&mut self.rng, now);
    }

    /// By how many seconds its clock is wrong, as often as the device told.
    fn clock_skews(&self) -> Vec<u64> {
        let skew = |event: &EngineEvent| {
            let EngineEvent::Security(SecurityEvent::ClockSkew { seconds }) = event else {
                return None;
            };
            Some(*seconds)
        };
        self.events.iter().filter_map(skew).collect()
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        loop {
            while self.carry() {}
            let next = self.engine.poll_timeout().map(|(at, _)| at).filter(|at| *at < end);
            let Some(at) = next else { break };
            self.now = self.now.after(at.saturating_duration_since(self.now.instant));
            let now = self.node_now();
            self.engine.handle_timeout(&mut self.rng, now);
            let controller = self.world.controller.machine.as_mut().expect("it runs");
            controller.handle_timeout(&mut self.rng, self.now);
        }
        self.now = self.now.after(end.saturating_duration_since(self.now.instant));
    }

    /// Carries what everybody has to say; false if nobody has.
    fn carry(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.engine.poll_event() {
            (busy, _) = (true, self.events.push(event));
        }
        while self.engine.poll_transmit().is_some() || self.engine.poll_packet().is_some() {}
        while let Some(command) = self.engine.poll_stream() {
            busy = true;
            self.obey(command);
        }
        busy | self.carry_from_controller() | self.carry_from_relay()
    }

    fn obey(&mut self, command: StreamCommand) {
        match command {
            StreamCommand::Dial { stream, target } => {
                let end = match target.purpose {
                    Purpose::Controller => self.dial_controller(&target.path),
                    Purpose::Relay(_) => self.dial_relay(&target.path),
                    Purpose::Peer(_) => panic!("nobody listens here"),
                };
                self.streams.insert(stream, end);
                let now = self.node_now();
                self.engine.handle_stream_opened(stream, &mut self.rng, now);
            }
            StreamCommand::Wake { stream } => {
                while let Some(message) = self.engine.poll_message(stream, self.now.instant) {
                    self.tell(stream, message.to_vec());
                }
            }
            StreamCommand::Close { stream } => {
                self.streams.remove(&stream);
            }
        }
    }

    fn dial_controller(&mut self, path: &str) -> End {
        self.next += 1;
        let connection = ConnectionId(self.next);
        let controller = self.world.controller.machine.as_mut().expect("it runs");
        let mask = controller.recognise(path).expect("a path of the network");
        controller.handle_opened(connection, mask, self.now);
        End::Controller(connection)
    }

    fn dial_relay(&mut self, path: &str) -> End {
        let now = wrong(self.now, self.relay_error);
        let relay = &mut self.world.relays[0].server;
        let recognised = relay.recognise(path).expect("a path of the network");
        End::Relay(
            relay
                .handle_open(recognised, std::net::Ipv4Addr::LOCALHOST.into(), now)
                .expect("there is room"),
        )
    }

    fn tell(&mut self, stream: StreamId, message: Vec<u8>) {
        match self.streams.get(&stream) {
            Some(End::Controller(connection)) => {
                let controller = self.world.controller.machine.as_mut().expect("it runs");
                controller.handle_message(*connection, &message, &mut self.rng, self.now);
            }
            Some(End::Relay(connection)) => {
                let now = wrong(self.now, self.relay_error);
                let relay = &mut self.world.relays[0].server;
                relay.handle_message(*connection, message, &mut self.rng, now);
            }
            None => {}
        }
    }

    fn carry_from_controller(&mut self) -> bool {
        let mut busy = false;
        loop {
            let controller = self.world.controller.machine.as_mut().expect("it runs");
            let Some(output) = controller.poll_output() else { return busy };
            busy = true;
            match output {
                Output::Send { connection, message } if self.controller_speaks => {
                    self.hear(End::Controller(connection), Some(&message));
                }
                Output::Close { connection } => self.hear(End::Controller(connection), None),
                Output::Persist { id, .. } => controller.handle_persisted(id, self.now),
                Output::Send { .. } | Output::Answer { .. } => {}
            }
        }
    }

    fn carry_from_relay(&mut self) -> bool {
        let mut busy = false;
        while let Some(connection) = self.world.relays[0].server.poll_ready() {
            let now = self.now.instant;
            while let Some(message) = self.world.relays[0].server.poll_message(connection, now) {
                busy = true;
                self.hear(End::Relay(connection), Some(&message));
            }
        }
        while let Some(event) = self.world.relays[0].server.poll_event() {
            if let ServerEvent::Close { connection, .. } = event {
                busy = true;
                self.hear(End::Relay(connection), None);
            }
        }
        busy
    }

    /// The engine gets a message, or the end, from somebody.
    fn hear(&mut self, from: End, message: Option<&[u8]>) {
        let found = self.streams.iter().find(|(_, end)| **end == from);
        let Some(stream) = found.map(|(stream, _)| *stream) else { return };
        let now = self.node_now();
        match message {
            Some(message) => {
                self.engine.handle_stream_message(stream, message.to_vec(), &mut self.rng, now);
            }
            None => {
                self.streams.remove(&stream);
                self.engine.handle_stream_closed(stream, &mut self.rng, now);
            }
        }
    }
}

/// The time by a clock that is ahead by so many milliseconds.
fn wrong(now: Now, error: i64) -> Now {
    Now { wall: UnixMillis(now.wall.0.saturating_add_signed(error)), ..now }
}

#[test]
fn a_relay_whose_clock_is_wrong_is_used_and_teaches_no_time() {
    for relay_error in [2 * HOUR_MS, 6 * DAY_MS] {
        let mut lab = Lab::new(0, relay_error);
        lab.pass(20 * SECOND);
        let status = lab.engine.status(lab.now);
        assert_eq!(lab.engine.connection(), ConnectionState::Online);
        assert!(status.relays[0].connected, "{status:?}");
        assert_eq!((status.clock_offset, status.warnings), (None, Vec::new()));
        let told = |event: &EngineEvent| matches!(event, EngineEvent::ClockWrong { .. });
        assert!(!lab.events.iter().any(told), "nobody's clock is corrected");
        assert!(lab.clock_skews().is_empty(), "the controller knows whose clock is wrong");
    }
}

#[test]
fn a_wrong_clock_that_only_a_relay_can_see_is_told_once() {
    let mut lab = Lab::new(0, 0);
    lab.pass(20 * SECOND);
    lab.controller_speaks = false;
    for (error, told) in [
        (30_000, &[][..]),
        (2 * HOUR_MS, &[7_200]),
        (2 * HOUR_MS + 30_000, &[7_200]),
        (-3 * HOUR_MS, &[7_200, 10_800]),
    ] {
        lab.node_error = error;
        for _ in 0..3 {
            lab.change_network();
            lab.pass(30 * SECOND);
            assert!(lab.engine.status(lab.node_now()).relays[0].connected, "{error}");
        }
        assert_eq!(lab.clock_skews(), told, "{error}");
    }
}

#[test]
fn a_device_whose_clock_is_weeks_or_years_wrong_joins() {
    for days in [-15, -20_000, 15, 400] {
        let mut lab = Lab::new(days * DAY_MS, 0);
        lab.pass(20 * SECOND);
        assert_eq!(lab.engine.connection(), ConnectionState::Online, "{days} days");
        let status = lab.engine.status(lab.node_now());
        assert!(status.relays[0].connected, "{days} days: {status:?}");
    }
}

#[test]
fn a_list_of_revocations_that_nobody_confirms_is_warned_of_once() {
    let mut lab = Lab::new(0, 0);
    lab.pass(20 * SECOND);
    let stale = |lab: &Lab| {
        let told = |event: &&EngineEvent| {
            matches!(event, EngineEvent::Security(SecurityEvent::StaleRevocations { .. }))
        };
        (lab.events.iter().filter(told).count(), lab.engine.status(lab.now).warnings.len())
    };
    lab.pass(20 * MINUTE);
    assert_eq!((lab.engine.connection(), stale(&lab)), (ConnectionState::Online, (0, 0)));
    lab.controller_speaks = false;
    lab.pass(12 * MINUTE);
    assert_eq!(stale(&lab), (0, 0), "not yet");
    lab.pass(30 * MINUTE);
    assert_eq!(stale(&lab), (1, 1));
    lab.controller_speaks = true;
    lab.pass(5 * MINUTE);
    assert_eq!(stale(&lab), (1, 0), "it is over");
}

#[test]
fn a_member_that_was_away_hears_of_a_removal_from_another_while_the_controller_is_down() {
    let mut world = World::new(Setup { nodes: 3, ..Setup::default() });
    let all_joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, all_joined));
    assert!(world.ping_until_answered(1, 2, 10 * SECOND));
    world.run_for(5 * SECOND);
    world.stop_node(1);
    let removed = world.nodes[2].device;
    world.remove(removed);
    world.run_for(5 * SECOND);
    world.stop_controller();
    world.start_node(1);
    let knows = |world: &World| {
        let map = world.nodes[1].engine.as_ref().expect("it runs").map();
        map.revocations().contains(&RevocationTarget::Device(removed))
            && map.peer(removed).is_none()
    };
    assert!(world.ping_until_answered(1, 0, 10 * SECOND));
    assert!(world.run_until(10 * SECOND, knows));
    assert!(!world.ping_until_answered(1, 2, 5 * SECOND));
    assert!(world.ping_until_answered(1, 0, 10 * SECOND), "the others go on");
}

#[test]
fn a_member_that_is_cut_off_hears_from_another_that_the_list_of_revocations_is_current() {
    let mut world = World::new(Setup::default());
    let all_joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, all_joined));
    world.cut(HostId::Node(1), HostId::Controller);
    let stale = |world: &World| {
        let mut alarms = world.nodes[1].alarms.iter();
        alarms.any(|(_, alarm)| matches!(alarm, SecurityEvent::StaleRevocations { .. }))
    };
    for _ in 0..40 {
        assert!(world.ping_until_answered(1, 0, 10 * SECOND));
        world.run_for(MINUTE);
        assert!(!stale(&world), "after {:?}", world.elapsed());
    }
    world.run_for(20 * MINUTE);
    assert!(stale(&world), "nobody tells it without traffic");
}

/// An introduction of `sender` with a key of nobody, as anybody can write one who knows a DeviceId.
fn forged_introduction(sender: DeviceId, number: u8) -> Vec<u8> {
    let key = TunnelKey::from_bytes(&[number; 32]).public();
    let mut frame = vec![0; 64];
    (frame[0], frame[1], frame[3]) = (0x13, 1, 200);
    frame[8..40].copy_from_slice(sender.as_bytes());
    frame.extend_from_slice(key.as_bytes());
    frame.resize(64 + 200 + 16, number);
    frame
}

#[test]
fn forged_introductions_do_not_keep_out_a_peer_with_a_new_tunnel_key() {
    let mut world = World::new(Setup::default());
    let all_joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, all_joined));
    world.run_for(5 * SECOND);
    assert!(world.ping_until_answered(0, 1, 10 * SECOND));
    world.stop_controller();
    world.stop_node(1);
    world.run_for(SECOND);
    world.start_node_with_new_tunnel_key(1);
    let (sender, mut rng) = (world.nodes[1].device, ChaCha20Rng::seed_from_u64(1));
    let from = "192.0.2.66:666".parse().expect("an address");
    let mut answered = false;
    for round in 0..100 {
        let number = world.ping(1, 0);
        for part in 0..10 {
            let (now, mut forged) = (world.now(), forged_introduction(sender, round + part));
            let engine = world.nodes[0].engine.as_mut().expect("it runs");
            engine.handle_datagram(from, &mut forged, &mut rng, now);
            world.run_for(SECOND / 10);
        }
        answered |= world.is_answered(1, number);
    }
    assert!(answered);
}

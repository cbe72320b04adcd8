//! The limits of a channel as a controller holds them, each with the event that it writes down.

use std::time::Duration;

use control_proto::{
    Admission, ClientEvent, ClientStatus, ConnectionId, ControllerAddress, InviteRequest,
    LoadReport, NetworkMap, Output, Refusal, SecurityEvent,
};
use identity::{ChannelKey, DeviceKey};
use noise_channel::limits::{HANDSHAKE_DEADLINE, REPLAY_WINDOW, ROTATE_AFTER, ROTATION_DEADLINE};
use noise_channel::{Channel, ClockOffset, InitiatorConfig, Service, StaticSecret};

use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const PATH_NONCE: [u8; 16] = [5; 16];

/// A stranger who holds the path secret, with its first message.
fn stranger(world: &mut World, ahead_ms: i64) -> Vec<u8> {
    let config = InitiatorConfig {
        static_key: StaticSecret::from_bytes([3; 32]),
        remote_static: *world.config.channel_key.public().as_bytes(),
        prologue: world.network_key.id().as_bytes().to_vec(),
        mask: world.config.path_secret.mask(Service::Control, PATH_NONCE),
        capability: 1,
        clock_offset: ClockOffset(ahead_ms),
    };
    let mut channel = Channel::initiate(config, &mut world.rng, world.now).unwrap();
    channel.poll_message().unwrap()
}

/// Opens a connection and says `first` over it; whether it was answered.
fn knock(world: &mut World, connection: u64, first: Option<&[u8]>) -> bool {
    let (connection, now) = (ConnectionId(connection), world.now);
    let controller = world.controller.as_mut().unwrap();
    let path = world.config.path_secret.path(Service::Control, PATH_NONCE);
    let mask = controller.recognise(&path).unwrap();
    controller.handle_opened(connection, mask, now);
    if let Some(first) = first {
        controller.handle_message(connection, first, &mut world.rng, now);
    }
    let outputs: Vec<_> = std::iter::from_fn(|| controller.poll_output()).collect();
    let answered = outputs.iter().any(|output| matches!(output, Output::Send { .. }));
    outputs.into_iter().for_each(|output| world.obey(output));
    answered
}

fn events(world: &World) -> Vec<SecurityEvent> {
    world.events.iter().map(|record| record.event.clone()).collect()
}

fn is_failed_handshake(event: &SecurityEvent) -> bool {
    matches!(event, SecurityEvent::HandshakeFailed { reason } if reason.contains("in time"))
}

#[test]
fn a_handshake_that_is_not_over_after_thirty_seconds_is_recorded() {
    for says_something in [false, true] {
        let mut world = World::simple();
        let first = stranger(&mut world, 0);
        assert_eq!(knock(&mut world, 900, says_something.then_some(&first)), says_something);
        world.pass(HANDSHAKE_DEADLINE - SECOND);
        assert_eq!(events(&world), []);
        world.pass(SECOND);
        assert!(matches!(&events(&world)[..], [event] if is_failed_handshake(event)));
    }
}

#[test]
fn a_first_message_that_comes_again_is_recorded_as_a_replay_for_the_window_and_then_by_its_time() {
    for (after, expected) in [
        (REPLAY_WINDOW - SECOND, SecurityEvent::Replayed),
        (REPLAY_WINDOW + SECOND, SecurityEvent::ClockSkew { seconds: 301 }),
    ] {
        let mut world = World::simple();
        let first = stranger(&mut world, 0);
        assert!(knock(&mut world, 900, Some(&first)));
        world.pass(after);
        world.events.clear();
        let is_answered = knock(&mut world, 901, Some(&first));
        assert_eq!(events(&world), std::slice::from_ref(&expected));
        assert_eq!(
            is_answered,
            expected != SecurityEvent::Replayed,
            "only a wrong time is answered"
        );
    }
}

#[test]
fn a_clock_is_wrong_from_the_sixty_first_second() {
    for (ahead, recorded) in
        [(59, None), (-59, None), (61, Some(61)), (-61, Some(61)), (3_600, Some(3_600))]
    {
        let mut world = World::simple();
        let first = stranger(&mut world, ahead * 1_000);
        assert!(knock(&mut world, 900, Some(&first)));
        let expected: Vec<_> =
            recorded.map(|seconds| SecurityEvent::ClockSkew { seconds }).into_iter().collect();
        assert_eq!(events(&world), expected, "{ahead} seconds");
    }
}

/// A network of one node, whose channel has to be given new keys in a second.
fn about_to_rotate() -> World {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let node = world.join(&invite, "laptop");
    assert_eq!(world.status(node), ClientStatus::Online);
    world.pass(ROTATE_AFTER - SECOND);
    assert_eq!(events(&world), []);
    world
}

#[test]
fn a_rotation_that_nobody_answers_for_five_seconds_is_recorded_and_tried_again() {
    let mut world = about_to_rotate();
    world.is_held = true;
    world.pass(SECOND + ROTATION_DEADLINE);
    world.is_held = false;
    world.pass(60 * SECOND);
    let failed = |event: &&ClientEvent| {
        **event == ClientEvent::Security(SecurityEvent::RotationFailed { device: None })
    };
    let failures = |world: &World| world.nodes[0].events.iter().filter(failed).count();
    assert_eq!(failures(&world), 1, "and the next attempt comes through");
    assert_eq!(world.status(0), ClientStatus::Online);
    world.pass(ROTATE_AFTER);
    assert_eq!(failures(&world), 1);
}

#[test]
fn a_connection_that_is_lost_in_mid_rotation_is_recorded() {
    let mut world = about_to_rotate();
    world.is_held = true;
    world.pass(2 * SECOND);
    assert_eq!(events(&world), []);
    world.cut(0);
    world.is_held = false;
    world.pass(60 * SECOND);
    let device = Some(world.id(0));
    assert_eq!(events(&world), [SecurityEvent::RotationFailed { device }], "the controller's word");
    let of_node = ClientEvent::Security(SecurityEvent::RotationFailed { device: None });
    assert!(world.nodes[0].events.contains(&of_node), "the node's word");
    assert_eq!(world.status(0), ClientStatus::Online);
}

#[test]
fn an_invite_that_is_used_after_its_time_is_recorded() {
    let mut world = World::simple();
    let day = 86_400;
    let invite = world.invite(InviteRequest { expires_in: day, ..InviteRequest::default() });
    let key = DeviceKey::generate(&mut world.rng);
    let chain = invite.certify(key.id(), &"late".parse().unwrap(), 0, world.wall()).unwrap();
    world.pass(Duration::from_secs(2 * day));
    let channel_key = ChannelKey::generate(&mut world.rng);
    let (map, admission) = (NetworkMap::new(invite.network), Admission::Chain(Box::new(chain)));
    let late = world.add(key, channel_key, ControllerAddress::from(&invite), admission, map);
    world.settle();
    assert_eq!(world.status(late), ClientStatus::Refused(Refusal::InviteExpired));
    let [SecurityEvent::InviteMisuse { device, reason, .. }] = &events(&world)[..] else {
        panic!("{:?}", world.events);
    };
    assert_eq!((*device, reason.as_str()), (world.id(late), "expired"));
}

#[test]
fn a_member_that_acts_as_a_relay_is_recorded() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let node = world.join(&invite, "laptop");
    let load = LoadReport {
        attached: 1,
        forwarded_bytes: 1,
        dropped_frames: 0,
        draining: false,
        cpu_permille: 0,
        busy_permille: 0,
    };
    world.nodes[node].client.report_load(load, world.now.instant);
    world.settle();
    let device = Some(world.id(node));
    assert!(matches!(&events(&world)[..],
        [SecurityEvent::ProtocolViolation { device: of, .. }] if *of == device));
}

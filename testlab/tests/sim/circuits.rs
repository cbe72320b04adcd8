//! Nodes that find no direct path, and a third one that passes their datagrams on.

use std::net::SocketAddr;

use control_proto::{AdminRequest, InviteRequest, SettingsChange};
use engine::Outbound;
use testlab::places::Place;
use testlab::sim::{HostId, INTERNET, Setup, World};

use crate::world::{MINUTE, SECOND, both_by, joined, ping_both_ways, ping_until, sealed_to_node_1};

/// The node that may pass on.
const GATEWAY: usize = 2;

/// Two nodes behind translators with ports at random, and a third one in the open, of a group whose members pass on.
fn apart() -> World {
    let mut world = apart_and_unconnected();
    let_pass(&mut world, "gateways");
    ping_both_ways(&mut world, 10 * SECOND);
    world
}

/// The same in a network that lets nobody pass on.
fn apart_and_unconnected() -> World {
    let mut world = World::new(Setup { nodes: 0, ..Setup::default() });
    world.relays_pass_on = false;
    for _ in 0..2 {
        let site = Place::Symmetric.site(&mut world);
        world.add_node_at(site);
    }
    let groups = vec!["gateways".parse().expect("a group")];
    let invite = world.invite(InviteRequest { groups, ..InviteRequest::default() });
    world.add_node_with(invite, INTERNET);
    let have_joined = |world: &World| world.nodes.iter().all(|node| node.interface.is_some());
    assert!(world.run_until(MINUTE, have_joined), "all join");
    world
}

fn let_pass(world: &mut World, group: &str) {
    let peer_relays = Some(vec![group.to_owned()]);
    let change = SettingsChange { peer_relays, ..SettingsChange::default() };
    world.admin(AdminRequest::ChangeSettings(change));
}

fn relayed_bytes(world: &World) -> u64 {
    world.relays.iter().map(|relay| relay.sent_bytes).sum()
}

fn passed(world: &World) -> usize {
    let engine = world.nodes[GATEWAY].engine.as_ref().expect("it runs");
    engine.status(world.now()).passed
}

#[test]
fn a_member_passes_on_what_finds_no_direct_path_and_relays_carry_it_no_more() {
    let mut world = apart();
    let took = ping_until(&mut world, 20, both_by("peer-relay")).expect("it passes on");
    assert!(took <= 6, "{took} s");
    assert_eq!(passed(&world), 1, "one circuit for both directions");
    let before = relayed_bytes(&world);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(relayed_bytes(&world) - before < 500);
    // Full packets as well.
    assert!(world.ping_sized(0, 1, 1_280).is_some());
    world.run_for(SECOND);
    assert!(both_by("peer-relay")(&world), "{}", world.path(0, 1));
}

#[test]
fn who_is_not_let_passes_nothing_on() {
    let mut world = apart_and_unconnected();
    ping_both_ways(&mut world, 10 * SECOND);
    assert_eq!(ping_until(&mut world, 30, |world| !both_by("relay")(world)), None);
    assert_eq!(passed(&world), 0);
    let_pass(&mut world, "gateways");
    assert!(ping_until(&mut world, 20, both_by("peer-relay")).is_some());
    let_pass(&mut world, "others");
    assert!(ping_until(&mut world, 3, both_by("relay")).is_some(), "{}", world.path(0, 1));
    assert_eq!(passed(&world), 0);
}

/// Takes the permission back while some nodes do not hear of it; nothing is passed on any more.
fn is_stopped_by_the_others(unaware: &[usize]) {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("peer-relay")).is_some());
    unaware.iter().for_each(|node| world.cut(HostId::Controller, HostId::Node(*node)));
    let_pass(&mut world, "others");
    assert!(ping_until(&mut world, 3, both_by("relay")).is_some(), "{}", world.path(0, 1));
    let is_back = |world: &World| !both_by("relay")(world);
    assert_eq!(ping_until(&mut world, 30, is_back), None, "{}", world.path(0, 1));
}

#[test]
fn who_is_not_let_any_more_refuses_those_that_do_not_know_it_yet() {
    is_stopped_by_the_others(&[0, 1]);
}

#[test]
fn who_does_not_know_that_it_is_not_let_any_more_is_not_believed() {
    is_stopped_by_the_others(&[GATEWAY]);
}

#[test]
fn a_peer_relay_that_dies_costs_what_a_dead_path_costs_and_is_used_again() {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("peer-relay")).is_some());
    world.stop_node(GATEWAY);
    assert!(ping_until(&mut world, 3, both_by("relay")).is_some(), "{}", world.path(0, 1));
    world.run_for(MINUTE);
    world.start_node(GATEWAY);
    assert!(ping_until(&mut world, 40, both_by("peer-relay")).is_some(), "{}", world.path(0, 1));
}

#[test]
fn without_traffic_nothing_is_passed_on_and_with_traffic_it_is_again() {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("peer-relay")).is_some());
    world.run_for(5 * MINUTE);
    assert_eq!(passed(&world), 0);
    ping_both_ways(&mut world, 10 * SECOND);
    assert!(ping_until(&mut world, 20, both_by("peer-relay")).is_some());
}

#[test]
fn datagrams_go_on_while_every_relay_is_gone() {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("peer-relay")).is_some());
    (0..2).for_each(|relay| world.stop_relay(relay));
    for _ in 0..5 * 60 {
        assert!(world.ping_until_answered(0, 1, SECOND), "{}", world.path(0, 1));
        world.run_for(SECOND);
    }
}

#[test]
fn whoever_moves_has_a_circuit_again_and_a_direct_path_that_comes_up_goes_before_it() {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("peer-relay")).is_some());
    let site = Place::Symmetric.site(&mut world);
    world.move_node_to_site(0, site);
    assert!(ping_until(&mut world, 10, both_by("peer-relay")).is_some(), "{}", world.path(0, 1));
    for node in 0..2 {
        let site = Place::PortRestricted.site(&mut world);
        world.move_node_to_site(node, site);
    }
    assert!(ping_until(&mut world, 60, both_by("direct")).is_some(), "{}", world.path(0, 1));
    world.run_for(5 * MINUTE);
    assert_eq!(passed(&world), 0);
}

#[test]
fn a_member_that_is_removed_is_passed_on_for_no_more() {
    let mut world = apart();
    assert!(ping_until(&mut world, 20, both_by("peer-relay")).is_some());
    world.remove(world.nodes[1].device);
    world.run_for(2 * SECOND);
    assert_eq!(passed(&world), 0);
}

#[test]
fn datagrams_of_one_circuit_are_passed_on_at_once_and_those_from_elsewhere_never() {
    let mut world = joined(Setup { nodes: 2, ..Setup::default() });
    world.relays_pass_on = false;
    let groups = vec!["gateways".parse().expect("a group")];
    let invite = world.invite(InviteRequest { groups, ..InviteRequest::default() });
    world.add_node_with(invite, INTERNET);
    world.cut(HostId::Node(0), HostId::Node(1));
    let_pass(&mut world, "gateways");
    assert!(ping_until(&mut world, 30, both_by("peer-relay")).is_some(), "{}", world.path(0, 1));

    let (outbound, sealed) = sealed_to_node_1(&world, world.now());
    let [one, other, gateway] = [0, 1, GATEWAY].map(|node| world.nodes[node].address);
    let Outbound::Datagrams { to, len, datagram_len, .. } = outbound else {
        panic!("it is sealed for the circuit: {outbound:?}")
    };
    assert_eq!((to, len, datagram_len), (gateway, sealed.len(), sealed.len()));
    let plane = world.nodes[GATEWAY].engine.as_ref().expect("it runs").data_plane();
    let pass_on = |from: SocketAddr, datagrams: &[&[u8]]| {
        let mut all = datagrams.concat();
        let to = plane.load().pass_on(from, &mut all, sealed.len());
        assert_eq!(to.is_none(), all == datagrams.concat(), "they change only if they go on");
        to
    };
    let inner = &sealed[4..];
    assert_eq!(pass_on(one, &[&sealed, &sealed]), Some(other));
    assert_eq!(pass_on(other, &[&sealed]), Some(one), "a number is of both directions");
    let stranger = SocketAddr::new(one.ip(), one.port() + 1);
    assert_eq!(pass_on(stranger, &[&sealed, &sealed]), None);
    let another = [&[sealed[0], sealed[1] ^ 1, sealed[2], sealed[3]], inner].concat();
    assert_eq!(pass_on(one, &[&another]), None, "there is no such circuit");
    assert_eq!(pass_on(one, &[&sealed, &another]), None, "not all are of one");
    let passed = [&[sealed[0] + 1, sealed[1], sealed[2], sealed[3]], inner].concat();
    assert_eq!(pass_on(one, &[&passed]), None, "nothing is passed on twice");
    assert_eq!(pass_on(one, &[&sealed, &sealed[..3]]), None);
    assert_eq!(pass_on(one, &[]), None);
}

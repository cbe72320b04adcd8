//! Who may attach, for how long, and under which of several attachments.

use std::time::Duration;

use identity::{Attachment, RevocationTarget, Serial, Signed, UnixTime, Validity};
use noise_channel::limits::HEARTBEAT_AFTER;
use noise_channel::{ClockOffset, Service, StaticSecret};
use relay_proto::{
    ClientConfig, ClientEvent, CloseReason, Limits, Refusal, RelayClient, RelayNetwork,
};

use crate::world::{Client, Device, HERE, Network, START, World, frame};

#[test]
fn an_older_attachment_or_binding_never_comes_back() {
    let network = Network::new(1);
    let alice = network.member(1);
    let mut world = World::new(&[&network], Limits::default());
    let refused = [ClientEvent::Refused(Refusal::Superseded)];
    let newest = world.open(&network, network.config(&alice, 7));
    world.server.handle_closed(newest, world.now.instant);
    for number in [6, 7] {
        let replayed = world.open(&network, network.config(&alice, number));
        assert_eq!(world.take_events(replayed), refused, "attachment {number}");
    }
    let next = world.open(&network, network.config(&alice, 8));
    assert_eq!(world.take_events(next), [ClientEvent::Attached { capability: 5 }]);

    let bob = network.member(2);
    world.server.set_bindings(network.id(), [(alice.key.id(), 1), (bob.key.id(), 2)]);
    let by_old_binding = world.open(&network, network.config(&bob, 1));
    assert_eq!(world.take_events(by_old_binding), refused);
    let renewed = world.open(&network, network.config(&alice, 9));
    assert_eq!(world.take_events(renewed), [ClientEvent::Attached { capability: 5 }]);
}

#[test]
fn the_newest_attachment_wins_and_evicts() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let b = world.join(&network, &bob);
    let old = world.open(&network, network.config(&alice, 5));
    let new = world.open(&network, network.config(&alice, 6));
    let late = world.open(&network, network.config(&alice, 5));
    assert_eq!(world.take_events(new), [ClientEvent::Attached { capability: 5 }]);
    assert_eq!(world.take_events(old), [ClientEvent::Attached { capability: 5 }]);
    assert_eq!(world.take_events(late), [ClientEvent::Refused(Refusal::Superseded)]);
    world.server.handle_closed(old, world.now.instant);
    world.send(b, frame(alice.key.id(), b"x"));
    assert_eq!(world.take_events(new), [ClientEvent::Frame(frame(bob.key.id(), b"x"))]);
}

#[test]
fn a_device_that_attaches_again_and_again_has_one_older_connection_at_a_time() {
    let network = Network::new(1);
    let alice = network.member(1);
    let mut world = World::new(&[&network], Limits::default());
    let all: Vec<_> =
        (1..=5).map(|number| world.open(&network, network.config(&alice, number))).collect();
    for older in &all[..3] {
        assert_eq!(world.closed(*older), Some(CloseReason::Refused(Refusal::Superseded)));
    }
    assert_eq!([world.closed(all[3]), world.closed(all[4])], [None, None]);
}

#[test]
fn a_newer_connection_gets_what_waits_and_what_is_on_its_way_over_the_older_one_arrives() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let b = world.join(&network, &bob);
    let old = world.join(&network, &alice);
    world.client(old).stuck = true;
    for number in 0..3 {
        world.send(b, frame(alice.key.id(), &[number]));
    }
    let new = world.open(&network, network.config(&alice, 2));
    let waited = (0..3).map(|number| ClientEvent::Frame(frame(bob.key.id(), &[number])));
    let all: Vec<_> = [ClientEvent::Attached { capability: 5 }].into_iter().chain(waited).collect();
    assert_eq!(world.take_events(new), all);

    world.send(old, frame(bob.key.id(), b"late"));
    assert_eq!(world.take_events(b), [ClientEvent::Frame(frame(alice.key.id(), b"late"))]);
    world.client(old).stuck = false;
    world.run(Duration::from_millis(1_900));
    assert_eq!(world.closed(old), None);
    world.run(Duration::from_millis(200));
    assert_eq!(world.take_events(old), [ClientEvent::Refused(Refusal::Superseded)]);
    assert_eq!(world.closed(old), Some(CloseReason::Refused(Refusal::Superseded)));
    world.send(b, frame(alice.key.id(), b"x"));
    assert_eq!(world.take_events(new), [ClientEvent::Frame(frame(bob.key.id(), b"x"))]);
}

#[test]
fn foreign_expired_revoked_and_mistaken_devices_are_refused() {
    let (network, foreign) = (Network::new(1), Network::new(2));
    let revoked = network.member(3);
    let mut world = World::new(&[&network], Limits::default());
    let list = network.revocations_of(RevocationTarget::Device(revoked.key.id()));
    world.server.set_revocations(network.id(), &list, world.now);
    let past = Validity { not_before: UnixTime(START), not_after: UnixTime(START) };
    let stolen = Device { chain: network.member(1).chain, ..network.member(4) };
    let mut other_key = network.config(&network.member(5), 1);
    other_key.static_key = StaticSecret::from_bytes([9; 32]);
    let mut other_relay = network.config(&network.member(6), 1);
    let elsewhere = Attachment { relay: foreign.relay.id(), number: 1 };
    other_relay.attachment = Signed::sign(network.id(), &network.member(6).key, &elsewhere);
    let cases = [
        (network.config(&foreign.member(1), 1), Refusal::NotMember),
        (network.config(&network.device(2, past), 1), Refusal::Expired),
        (network.config(&revoked, 1), Refusal::Revoked),
        (network.config(&stolen, 1), Refusal::NotMember),
        (other_key, Refusal::WrongChannelKey),
        (other_relay, Refusal::NotMember),
    ];
    for (config, refusal) in cases {
        let id = world.open(&network, config);
        assert_eq!(world.take_events(id), [ClientEvent::Refused(refusal)]);
        assert_eq!(world.closed(id), Some(CloseReason::Refused(refusal)));
    }
    assert_eq!(world.server.attached(network.id()).count(), 0);
}

#[test]
fn a_private_relay_takes_members_of_its_groups_and_other_relays() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let groups = ["ops", "lab"].map(|group| group.parse().expect("a label"));
    world.server.add_network(RelayNetwork { groups: groups.to_vec(), ..network.served() });
    for (groups, number, is_taken) in [
        (&["lab"][..], 1, true),
        (&["relay"], 2, true),
        (&["dev", "ops"], 3, true),
        (&["dev"], 4, false),
        (&[], 5, false),
    ] {
        let id = world.open(&network, network.config(&network.member_of(groups, number), 1));
        let refused = ClientEvent::Refused(Refusal::OtherGroups);
        let expected = if is_taken { ClientEvent::Attached { capability: 5 } } else { refused };
        // What a relay says beyond that, only another relay understands.
        assert_eq!(world.take_events(id)[..1], [expected], "{groups:?}");
    }
    // Whoever has left the groups when the membership is renewed has to go.
    let before = world.open(&network, network.config(&network.member_of(&["ops"], 6), 1));
    let after = network.member_of(&["dev"], 6);
    let now = world.now.instant;
    world.client(before).machine.renew(after.chain, now);
    world.settle();
    assert_eq!(world.closed(before), Some(CloseReason::Refused(Refusal::OtherGroups)));
}

#[test]
fn revocation_detaches_at_once() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    let mut world = World::new(&[&network], Limits::default());
    let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
    let list = network.revocations_of(RevocationTarget::Device(bob.key.id()));
    world.server.set_revocations(network.id(), &list, world.now);
    world.settle();
    assert_eq!(world.take_events(b), [ClientEvent::Refused(Refusal::Revoked)]);
    assert_eq!(world.closed(b), Some(CloseReason::Refused(Refusal::Revoked)));
    world.send(a, frame(bob.key.id(), b"x"));
    assert_eq!(world.take_events(a), [ClientEvent::Unreachable(bob.key.id())]);
}

#[test]
fn whatever_of_a_members_chain_is_revoked_detaches_it() {
    let network = Network::new(1);
    let (alice, bob) = (network.member(1), network.member(2));
    for target in bob.chain.targets() {
        let mut world = World::new(&[&network], Limits::default());
        let (a, b) = (world.join(&network, &alice), world.join(&network, &bob));
        let list = network.revocations_of(target);
        world.server.set_revocations(network.id(), &list, world.now);
        world.settle();
        assert_eq!(world.closed(b), Some(CloseReason::Refused(Refusal::Revoked)), "{target}");
        let is_both = matches!(target, RevocationTarget::Delegated(_));
        assert_eq!(world.closed(a).is_some(), is_both, "{target}");
    }
}

#[test]
fn membership_that_ends_detaches_within_a_heartbeat() {
    let network = Network::new(1);
    let hour = network.device(1, Validity::starting(UnixTime(START), 3_000));
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &hour);
    world.run(Duration::from_secs(2_999));
    assert_eq!(world.closed(a), None);
    world.run(Duration::from_secs(1) + HEARTBEAT_AFTER);
    assert_eq!(world.closed(a), Some(CloseReason::Refused(Refusal::Expired)));
}

#[test]
fn a_relay_whose_clock_is_wrong_judges_by_the_networks_time() {
    let network = Network::new(1);
    let day = 24 * 3_600;
    let offset = ClockOffset(i64::try_from(day * 1_000).expect("a day"));
    let mut world = World::new(&[&network], Limits::default());
    world.server.set_clock_offset(network.id(), offset);
    let tomorrow = network.device(1, Validity::starting(UnixTime(START + day), 3_000));
    let right = ClientConfig { clock_offset: offset, ..network.config(&tomorrow, 1) };
    let a = world.open(&network, right);
    assert_eq!(world.take_events(a), [ClientEvent::Attached { capability: 5 }]);
    world.run(Duration::from_secs(3_000) + HEARTBEAT_AFTER);
    assert_eq!(world.closed(a), Some(CloseReason::Refused(Refusal::Expired)));
}

#[test]
fn a_renewed_membership_keeps_the_link() {
    let network = Network::new(1);
    let hour = network.device(1, Validity::starting(UnixTime(START), 3_000));
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &hour);
    let now = world.now.instant;
    world.client(a).machine.renew(network.member(1).chain, now);
    world.run(Duration::from_secs(3_000) + 2 * HEARTBEAT_AFTER);
    assert_eq!(world.closed(a), None);
    assert!(world.client(a).machine.is_attached());
    let list = network.revocations_of(RevocationTarget::Serial(Serial(1)));
    world.server.set_revocations(network.id(), &list, world.now);
    world.settle();
    assert_eq!(world.closed(a), Some(CloseReason::Refused(Refusal::Revoked)));
}

#[test]
fn a_membership_that_is_renewed_while_the_link_opens_counts() {
    let network = Network::new(1);
    let hour = network.device(1, Validity::starting(UnixTime(START), 3_000));
    let mut world = World::new(&[&network], Limits::default());
    let (recognised, nonce) = world.recognise(&network.secret);
    let mut config = network.config(&hour, 1);
    config.mask = network.secret.mask(Service::Relay, nonce);
    let id = world.server.handle_open(recognised, HERE, world.now).expect("there is room");
    let mut machine =
        RelayClient::new(config, &mut world.rng, world.now).expect("the key is usable");
    machine.renew(network.member(1).chain, world.now.instant);
    let client = Client::new(machine);
    world.clients.insert(id, client);
    world.run(Duration::from_secs(3_000) + 2 * HEARTBEAT_AFTER);
    assert_eq!(world.closed(id), None);
    assert!(world.client(id).machine.is_attached());
}

#[test]
fn nobody_renews_with_the_membership_of_another() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &network.member(1));
    let now = world.now.instant;
    world.client(a).machine.renew(network.member(2).chain, now);
    world.settle();
    assert_eq!(world.closed(a), Some(CloseReason::Refused(Refusal::NotMember)));
}

#[test]
fn a_removed_network_is_not_recognised_and_its_members_leave() {
    let network = Network::new(1);
    let mut world = World::new(&[&network], Limits::default());
    let a = world.join(&network, &network.member(1));
    world.server.remove_network(network.id(), world.now);
    world.settle();
    assert_eq!(world.take_events(a), [ClientEvent::Refused(Refusal::NetworkRemoved)]);
    let path = network.secret.path(Service::Relay, [1; 16]);
    assert!(world.server.recognise(&path).is_none());
}

//! A controller and its nodes, from the first invite to the last revocation.

use std::time::{Duration, Instant};

use crate::world::{PORT, World};
use control_proto::limits::MAX_ITEM;
use control_proto::{
    AdminAnswer, AdminError, AdminRequest, Admission, ClientEvent, ClientStatus, ControllerAddress,
    ControllerPlace, InviteRequest, InviteState, ItemKey, LoadReport, NameTargetView, NameView,
    NetworkMap, PeerRequest, Refusal, Repeats, SecurityEvent, SettingsChange, StoredItem,
};
use identity::{
    Candidate, CandidateKind, Endpoints, Epoch, RelayEntry, Scope, ServerAddress, Signed, TlsMode,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn joined(count: usize) -> World {
    let mut world = World::simple();
    for index in 0..count {
        let invite = world.invite(InviteRequest::default());
        world.join(&invite, &format!("node{index}"));
    }
    world
}

fn devices(world: &mut World) -> Vec<control_proto::DeviceView> {
    match world.admin(AdminRequest::Devices).unwrap() {
        AdminAnswer::Devices { devices } => devices,
        other => panic!("not a list of devices: {other:?}"),
    }
}

fn endpoints(world: &World, index: usize, number: u64, port: u16) -> Signed<Endpoints> {
    let address = ([192, 0, 2, 1], port).into();
    let candidates = vec![Candidate { address, kind: CandidateKind::Local }];
    let endpoints = Endpoints { number, candidates, relays: Vec::new(), servers: Vec::new() };
    Signed::sign(world.network_key.id(), &world.nodes[index].key, &endpoints)
}

#[test]
fn every_node_learns_of_every_other() {
    let world = joined(8);
    for index in 0..8 {
        assert_eq!(world.status(index), ClientStatus::Online);
        assert_eq!(world.map(index).peers().count(), 8);
        assert!(world.map(index).ipv4(world.id((index + 1) % 8)).is_some());
        assert_eq!(world.map(index).info().unwrap().name.as_str(), "home");
    }
    assert!(world.events.is_empty(), "{:?}", world.events);
}

#[test]
fn a_clock_that_is_set_back_does_not_set_the_network_back() {
    let mut world = joined(1);
    world.pass(Duration::from_secs(60));
    let day = i64::try_from(DAY.as_millis()).unwrap();
    for error in [-day, day, -day, 0] {
        world.nodes[0].clock_error = error;
        world.pass(Duration::from_secs(10));
        let forward = u64::try_from(error.max(0) / 1_000).unwrap();
        assert_eq!(world.node_wall(0), world.wall().plus(forward), "off by {error} ms");
    }
}

#[test]
fn an_invite_admits_one_device_and_that_one_again() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let first = world.join(&invite, "first");
    let second = world.join(&invite, "second");
    assert_eq!(world.status(first), ClientStatus::Online);
    assert_eq!(world.status(second), ClientStatus::Refused(Refusal::InviteUsed));
    assert!(matches!(world.events[0].event, SecurityEvent::InviteMisuse { .. }));
    // The first device comes again with the bare invite: its answer was lost.
    let key = world.nodes[first].key.clone();
    let again = world.join_as(&invite, "first", key);
    assert_eq!(world.status(again), ClientStatus::Online);
    assert_eq!(
        world.nodes[again].chain.as_ref(),
        Some(&world.disk.devices[&world.id(first)].chain)
    );
    assert_eq!(devices(&mut world).len(), 1);
    let AdminAnswer::Invites { invites } = world.admin(AdminRequest::Invites).unwrap() else {
        panic!("not a list of invites")
    };
    assert_eq!(invites[0].state, InviteState::Used);
    assert_eq!(invites[0].used_by, Some(world.id(first)));
}

#[test]
fn a_device_whose_name_is_taken_gets_a_free_one() {
    let mut world = World::simple();
    for _ in 0..3 {
        let invite = world.invite(InviteRequest::default());
        let index = world.join(&invite, "laptop");
        assert_eq!(world.status(index), ClientStatus::Online);
    }
    let mut names: Vec<_> = devices(&mut world).into_iter().map(|d| d.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["laptop", "laptop-2", "laptop-3"]);
}

#[test]
fn a_removed_device_is_revoked_at_once_everywhere() {
    let mut world = joined(3);
    let device = world.id(2);
    world.admin(AdminRequest::RemoveDevice { device }).unwrap();
    for index in 0..2 {
        assert!(world.map(index).peer(device).is_none());
        assert!(world.nodes[index].events.iter().any(|event| matches!(event,
            ClientEvent::MapChanged(changes) if changes.revoked.contains(&device))));
    }
    assert_eq!(world.status(2), ClientStatus::Stopped);
    // It does not come back with its old membership.
    let chain = Box::new(world.nodes[2].chain.clone().unwrap());
    let (key, channel) = (world.nodes[2].key.clone(), world.nodes[2].channel_key.clone());
    let invite = world.invite(InviteRequest::default());
    let address = ControllerAddress::from(&invite);
    let map = NetworkMap::new(invite.network);
    let again = world.add(key, channel, address, Admission::Chain(chain), map);
    world.settle();
    assert_eq!(world.status(again), ClientStatus::Stopped);
}

#[test]
fn a_device_that_needs_approval_sees_and_is_seen_only_afterwards() {
    let mut world = joined(1);
    let request = InviteRequest { approval: Some(true), ..InviteRequest::default() };
    let invite = world.invite(request);
    let index = world.join(&invite, "guest");
    let device = world.id(index);
    assert_eq!(world.status(index), ClientStatus::Pending);
    assert_eq!(world.map(index).peers().count(), 0);
    assert!(world.map(0).peer(device).is_none());
    world.admin(AdminRequest::ApproveDevice { device }).unwrap();
    assert_eq!(world.status(index), ClientStatus::Online);
    assert_eq!(world.map(index).peers().count(), 2);
    assert!(world.map(0).peer(device).is_some());
}

#[test]
fn a_membership_is_renewed_for_months() {
    let mut world = joined(2);
    world.pass(30 * DAY);
    for index in 0..2 {
        assert_eq!(world.status(index), ClientStatus::Online);
        assert_eq!(world.map(index).peers().count(), 2);
    }
}

#[test]
fn a_node_that_was_away_gets_what_it_missed() {
    let mut world = joined(2);
    world.cut(1);
    let signed = endpoints(&world, 0, 1, 4000);
    world.nodes[0].client.set_endpoints(signed, world.now.instant);
    world.pass(Duration::from_secs(90));
    assert_eq!(world.status(1), ClientStatus::Online);
    let peer = world.map(1).peer(world.id(0)).unwrap();
    assert_eq!(peer.endpoints.as_ref().unwrap().number, 1);
    assert_eq!(world.map(0).version(), world.map(1).version());
}

#[test]
fn endpoints_that_are_found_while_the_hello_is_on_its_way_are_told_as_well() {
    let mut world = joined(1);
    let invite = world.invite(InviteRequest::default());
    world.disk_works = false;
    let newcomer = world.join(&invite, "newcomer");
    assert_eq!(world.status(newcomer), ClientStatus::Connecting, "the answer waits for the disk");
    let signed = endpoints(&world, newcomer, 1, 4000);
    world.nodes[newcomer].client.set_endpoints(signed, world.now.instant);
    world.disk_works = true;
    world.invite(InviteRequest::default());
    world.pass(Duration::from_secs(2));
    assert_eq!(world.status(newcomer), ClientStatus::Online);
    let peer = world.map(0).peer(world.id(newcomer)).unwrap();
    assert_eq!(peer.endpoints.as_ref().unwrap().number, 1);
}

#[test]
fn a_node_starts_from_its_cached_map_without_a_controller() {
    let mut world = joined(3);
    let bytes = world.map(0).to_bytes();
    world.crash();
    let (map, applied) =
        NetworkMap::from_bytes(world.network_key.id(), &bytes, world.wall()).unwrap();
    assert!(applied.events.is_empty(), "{:?}", applied.events);
    assert_eq!(map.peers().count(), 3);
    assert_eq!(map.version(), world.map(0).version());
    let later = world.wall().plus(8 * 24 * 3600);
    let (map, applied) = NetworkMap::from_bytes(world.network_key.id(), &bytes, later).unwrap();
    assert_eq!(map.peers().count(), 0);
    assert!(matches!(applied.events[0], SecurityEvent::ExpiredCertificate { .. }));
    let bytes = map.to_bytes();
    let (mut map, _) = NetworkMap::from_bytes(world.network_key.id(), &bytes, later).unwrap();
    assert_eq!(map.revive(world.wall()).changes.peers.len(), 3, "the clock was wrong");
    assert_eq!(map.peers().count(), 3);
}

#[test]
fn nothing_is_promised_before_it_is_on_disk() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    world.disk_works = false;
    let index = world.join(&invite, "node");
    assert_eq!(world.status(index), ClientStatus::Connecting);
    world.crash();
    world.disk_works = true;
    world.start();
    assert!(devices(&mut world).is_empty());
    world.pass(Duration::from_secs(120));
    assert_eq!(world.status(index), ClientStatus::Online);
    assert_eq!(devices(&mut world).len(), 1);
}

#[test]
fn a_map_for_which_the_keys_have_to_change_several_times_arrives_whole() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let early = world.join(&invite, "early");
    let later = world.invite(InviteRequest::default());
    world.crash();
    // Of a later version, so that nothing but their way matters.
    for number in 0..1_000 {
        world.disk.counters.map += 1;
        let version = world.disk.counters.map;
        let bytes = vec![0xff; MAX_ITEM].into_boxed_slice();
        let key = ItemKey::Revocation(1_000_000 + number);
        world.disk.items.insert(key, StoredItem { version, bytes });
    }
    world.start();
    world.pass(Duration::from_secs(60));
    let late = world.join(&later, "late");
    world.pass(Duration::from_secs(1));
    for node in [early, late] {
        assert_eq!(world.status(node), ClientStatus::Online);
        let version = world.map(node).version().expect("the last chunk came");
        assert_eq!(version.number, world.disk.counters.map);
    }
}

#[test]
fn a_restarted_controller_goes_on_where_the_disk_says() {
    let mut world = joined(4);
    let removed = world.id(3);
    world.admin(AdminRequest::RemoveDevice { device: removed }).unwrap();
    let version = world.map(0).version();
    world.crash();
    world.pass(Duration::from_secs(10));
    world.start();
    world.pass(Duration::from_secs(90));
    for index in 0..3 {
        assert_eq!(world.status(index), ClientStatus::Online);
        assert_eq!(world.map(index).peers().count(), 3);
    }
    assert!(world.map(0).version() >= version);
    let invite = world.invite(InviteRequest::default());
    let index = world.join(&invite, "late");
    assert!(world.map(index).revocations().number() == 1);
}

#[test]
fn an_address_that_is_taken_is_refused_and_the_next_one_found() {
    let mut world = joined(1);
    let key = identity::DeviceKey::generate(&mut world.rng);
    // Hashes of 64 bits do not collide in a test: the other device gets the address by hand.
    let taken = identity::device_address(world.network_key.id(), key.id(), 0);
    let other = world.id(0);
    world.crash();
    world.disk.devices.get_mut(&other).unwrap().address = taken;
    world.start();
    let invite = world.invite(InviteRequest::default());
    let index = world.join_as(&invite, "second", key.clone());
    assert_eq!(world.status(index), ClientStatus::Online);
    let next = identity::device_address(world.network_key.id(), key.id(), 1);
    assert_eq!(world.disk.devices[&key.id()].address, next);
    assert_eq!(world.map(index).peer(key.id()).unwrap().member.address, next);
}

#[test]
fn a_controller_that_moves_is_found_by_those_who_were_told_before() {
    let mut world = joined(2);
    let place = ControllerPlace { host: "moved.example".into(), port: 8443, addresses: Vec::new() };
    let controllers = Some(vec![place]);
    let change = SettingsChange { controllers, ..SettingsChange::default() };
    world.admin(AdminRequest::ChangeSettings(change)).unwrap();
    let entry = world.map(0).controllers().next().unwrap();
    assert_eq!((entry.servers[0].host.as_str(), entry.servers[0].port), ("moved.example", 8443));
    world.crash();
    world.port = 8443;
    world.start();
    world.pass(Duration::from_secs(120));
    assert_eq!(world.status(0), ClientStatus::Online);
    let invite = world.invite(InviteRequest::default());
    assert_eq!(invite.controllers[0].port, 8443);
    // It goes back to where it listens, and who dials that first is in at once.
    let change = SettingsChange { controllers: Some(Vec::new()), ..SettingsChange::default() };
    world.admin(AdminRequest::ChangeSettings(change)).unwrap();
    assert_eq!(world.map(1).controllers().next().unwrap().servers[0].port, PORT);
}

#[test]
fn whoever_is_told_not_to_follow_records_stays_where_it_was() {
    let mut world = joined(1);
    let invite = world.invite(InviteRequest::default());
    let address = ControllerAddress { follows_records: false, ..ControllerAddress::from(&invite) };
    let key = identity::DeviceKey::generate(&mut world.rng);
    let channel = identity::ChannelKey::generate(&mut world.rng);
    let map = NetworkMap::new(invite.network);
    let admission = Admission::Invite { invite: Box::new(invite), name: "fixed".parse().unwrap() };
    let index = world.add(key, channel, address, admission, map);
    world.settle();
    let place = ControllerPlace { host: "moved.example".into(), port: 8443, addresses: Vec::new() };
    let controllers = Some(vec![place]);
    let change = SettingsChange { controllers, ..SettingsChange::default() };
    world.admin(AdminRequest::ChangeSettings(change)).unwrap();
    world.crash();
    world.port = 8443;
    world.start();
    world.pass(Duration::from_secs(300));
    assert_eq!(world.status(0), ClientStatus::Online);
    assert_ne!(world.status(index), ClientStatus::Online);
}

#[test]
fn settings_out_of_bounds_are_refused_and_change_nothing() {
    let mut world = World::simple();
    let place = |host: &str| ControllerPlace { host: host.into(), port: 443, addresses: vec![] };
    let default = SettingsChange::default;
    let wrong = [
        SettingsChange { validity: Some(1), ..default() },
        SettingsChange { log_entries: Some(1), ..default() },
        SettingsChange { log_seconds: Some(u64::MAX), ..default() },
        SettingsChange { controllers: Some(vec![place("")]), ..default() },
        SettingsChange { controllers: Some(vec![place("a b")]), ..default() },
        SettingsChange { controllers: Some(vec![place("a"); 9]), ..default() },
        SettingsChange { traffic: Some(vec!["tcp/80".into()]), ..default() },
        SettingsChange { traffic: Some(vec!["tcp/80=bulk".into(); 33]), ..default() },
    ];
    let before = world.disk.settings.clone();
    for change in wrong {
        let refused = world.admin(AdminRequest::ChangeSettings(change));
        assert!(matches!(refused, Err(AdminError::OutOfBounds { .. })), "{refused:?}");
    }
    assert_eq!(world.disk.settings, before);
}

#[test]
fn rules_for_traffic_reach_every_node_as_they_were_given() {
    let mut world = joined(1);
    let rules = vec!["udp/5000-5100=interactive".to_owned(), "tcp/873=background".to_owned()];
    let change = SettingsChange { traffic: Some(rules.clone()), ..SettingsChange::default() };
    world.admin(AdminRequest::ChangeSettings(change)).unwrap();
    world.pass(Duration::from_secs(1));
    let known = &world.map(0).info().unwrap().traffic;
    assert_eq!(known.iter().map(ToString::to_string).collect::<Vec<_>>(), rules);
}

#[test]
fn logs_are_cut_every_hour_to_what_the_settings_keep() {
    let mut world = World::simple();
    world.pruned.clear();
    let change = SettingsChange {
        log_entries: Some(5_000),
        log_seconds: Some(30 * 86_400),
        ..SettingsChange::default()
    };
    world.admin(AdminRequest::ChangeSettings(change)).unwrap();
    assert_eq!(world.pruned, [(5_000, world.wall().minus(30 * 86_400))]);
    world.pass(Duration::from_secs(2 * 3_600 + 1));
    assert_eq!(world.pruned.len(), 3);
}

#[test]
fn a_new_epoch_brings_everybody_the_whole_map() {
    let mut world = joined(2);
    let old = world.disk.clone();
    let invite = world.invite(InviteRequest::default());
    world.join(&invite, "forgotten");
    world.crash();
    // The disk is restored from a backup, and the owner signs a new epoch.
    world.disk = old;
    let epoch = Epoch { number: 1, at: world.wall() };
    world.config.epoch = Some(Signed::sign(world.network_key.id(), &world.network_key, &epoch));
    world.start();
    world.pass(Duration::from_secs(120));
    for index in 0..2 {
        assert_eq!(world.status(index), ClientStatus::Online);
        assert_eq!(world.map(index).version().unwrap().epoch, 1);
        assert!(world.map(index).info().is_some());
        assert!(world.map(index).ipv4(world.id(1 - index)).is_some());
    }
    // The forgotten device has a good chain and is taken in again.
    assert_eq!(world.status(2), ClientStatus::Online);
}

#[test]
fn a_strict_controller_cannot_admit_but_can_revoke_and_renew() {
    let mut world = World::new(&[Scope::Renew, Scope::Revoke]);
    let refused = world.admin(AdminRequest::CreateInvite(InviteRequest::default()));
    assert!(matches!(refused, Err(AdminError::KeyNotHeld { .. })));
    let AdminAnswer::Network(view) = world.admin(AdminRequest::Network).unwrap() else {
        panic!("not a network")
    };
    assert_eq!(view.mode, control_proto::Mode::Strict);
}

#[test]
fn a_wrong_clock_is_noticed_and_bridged() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let key = identity::DeviceKey::generate(&mut world.rng);
    let channel = identity::ChannelKey::generate(&mut world.rng);
    let admission =
        Admission::Invite { invite: Box::new(invite.clone()), name: "late".parse().unwrap() };
    let map = NetworkMap::new(invite.network);
    let index = world.add(key, channel, ControllerAddress::from(&invite), admission, map);
    world.nodes[index].clock_error = -7_200_000;
    world.settle();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.status(index), ClientStatus::Online);
    assert!(world.nodes[index].events.iter().any(|event| matches!(event,
        ClientEvent::ClockWrong { offset } if offset.0 >= 7_199_000)));
    assert!(matches!(world.events[0].event, SecurityEvent::ClockSkew { seconds: 7_200 }));
}

#[test]
fn a_relay_is_published_and_its_silence_is_noticed() {
    let mut world = joined(1);
    let invite = world.invite(InviteRequest { relay: true, ..InviteRequest::default() });
    let relay = world.join(&invite, "relay");
    let entry = RelayEntry {
        device: world.id(relay),
        channel_key: world.nodes[relay].channel_key.public(),
        servers: vec![ServerAddress {
            host: "127.0.0.1".into(),
            port: 7443,
            addresses: Vec::new(),
            tls: TlsMode::Plain,
        }],
        stun: Vec::new(),
        region: String::new(),
    };
    world.nodes[0].client.offer_relay(entry.clone(), world.now.instant);
    world.settle();
    assert_eq!(world.map(0).relays().count(), 0, "a device without the group is no relay");
    world.nodes[relay].client.offer_relay(entry.clone(), world.now.instant);
    world.settle();
    assert_eq!(world.map(0).relays().collect::<Vec<_>>(), [(&entry, true)]);
    for _ in 0..5 {
        world.pass(Duration::from_secs(60));
        world.nodes[relay].client.report_load(LoadReport::default(), world.now.instant);
    }
    world.settle();
    assert!(world.map(0).relays().all(|(_, healthy)| healthy));
    world.pass(Duration::from_secs(131));
    assert!(world.map(0).relays().all(|(_, healthy)| !healthy));
    let invite = world.invite(InviteRequest::default());
    assert_eq!(invite.relays, [entry]);
}

#[test]
fn a_renamed_device_keeps_its_address() {
    let mut world = joined(2);
    let device = world.id(1);
    let before = world.map(0).peer(device).unwrap().member.clone();
    world.pass(Duration::from_secs(5));
    let name = "renamed".parse().unwrap();
    world.admin(AdminRequest::RenameDevice { device, name }).unwrap();
    let after = &world.map(0).peer(device).unwrap().member;
    assert_eq!(after.name.as_str(), "renamed");
    assert_eq!(after.address, before.address);
    assert_eq!(world.map(0).peer_by_name(&before.name), None);
}

#[test]
fn a_plain_peer_is_let_in_once_under_its_own_name_and_addresses() {
    let mut world = joined(1);
    let key = identity::TunnelKey::generate(&mut world.rng).public();
    let request = |name: &str| {
        let name = name.parse().unwrap();
        AdminRequest::AddPeer(PeerRequest { key, name, expires_in: 3_600 })
    };
    let taken = world.admin(request("node0"));
    assert!(matches!(taken, Err(AdminError::NameTaken { .. })));
    let Ok(AdminAnswer::Peers { peers: added }) = world.admin(request("printer")) else {
        panic!("it is let in")
    };
    let wall = world.wall();
    let shown: Vec<_> = world.map(0).static_peers(wall).cloned().collect();
    assert_eq!((shown.len(), &shown[0].addresses), (1, &added[0].addresses));
    assert_eq!(added[0].addresses.len(), 2);

    world.crash();
    world.start();
    world.pass(Duration::from_secs(90));
    let invite = world.invite(InviteRequest::default());
    let printer = world.join(&invite, "printer");
    let name = world.map(0).peer(world.id(printer)).unwrap().member.name.clone();
    assert_eq!(name.as_str(), "printer-2", "the name stays the peer's");
    let again = world.admin(request("printer"));
    assert!(
        matches!(again, Ok(AdminAnswer::Peers { peers }) if peers[0].addresses == added[0].addresses)
    );

    let remove = AdminRequest::RemovePeer { name: "printer".parse().unwrap() };
    assert_eq!(world.admin(remove.clone()), Ok(AdminAnswer::Done));
    assert_eq!(world.map(0).static_peers(wall).count(), 0);
    assert_eq!(world.admin(remove), Err(AdminError::UnknownPeer));
    assert_eq!(world.admin(AdminRequest::Peers), Ok(AdminAnswer::Peers { peers: Vec::new() }));
}

#[test]
fn a_device_that_leaves_is_gone() {
    let mut world = joined(2);
    let now = world.now.instant;
    world.nodes[1].client.leave(now);
    world.settle();
    assert_eq!(world.status(1), ClientStatus::Stopped);
    assert_eq!(world.map(0).peers().count(), 1);
    assert_eq!(devices(&mut world).len(), 1);
}

#[test]
fn a_device_that_has_lost_its_memory_is_told_which_numbers_it_has_used() {
    let mut world = World::simple();
    let invite = world.invite(InviteRequest::default());
    let first = world.join(&invite, "a");
    let (key, channel_key) = (&world.nodes[first].key, &world.nodes[first].channel_key);
    let (key, channel_key) = (key.clone(), channel_key.clone());
    let binding = world.binding(&key, &channel_key, 50);
    let now = world.now.instant;
    let endpoints = endpoints(&world, first, 80, 4000);
    world.nodes[first].client.set_binding(binding, now);
    world.nodes[first].client.set_endpoints(endpoints, now);
    world.settle();
    world.cut(first);
    let again = world.join_as(&invite, "a", key.clone());
    assert!(world.nodes[again].events.contains(&ClientEvent::Outdated { number: 80 }));
    let channel_key = world.nodes[again].channel_key.clone();
    let binding = world.binding(&key, &channel_key, 81);
    world.nodes[again].client.set_binding(binding, world.now.instant);
    world.pass(Duration::from_secs(700));
    assert_eq!(world.status(again), ClientStatus::Online);
    assert_eq!(world.map(again).peer(world.id(again)).unwrap().binding.number, 81);
    assert!(world.events.is_empty(), "{:?}", world.events);
}

#[test]
fn old_endpoints_are_refused() {
    let mut world = joined(2);
    for number in [2, 1] {
        let signed = endpoints(&world, 0, number, 4000);
        world.nodes[0].client.set_endpoints(signed, world.now.instant);
        world.settle();
    }
    let peer = world.map(1).peer(world.id(0)).unwrap();
    assert_eq!(peer.endpoints.as_ref().unwrap().number, 2);
    assert!(matches!(world.events[0].event, SecurityEvent::RollbackRefused { .. }));
}

#[test]
fn revocations_are_said_to_be_current_every_five_minutes() {
    let mut world = joined(1);
    let before = world.map(0).revocations().fresh_at().unwrap();
    world.pass(Duration::from_secs(301));
    assert!(world.map(0).revocations().fresh_at().unwrap() > before);
}

#[test]
fn reports_wait_for_the_controller_the_oldest_are_counted_and_long_ones_are_not_kept() {
    let mut world = joined(1);
    let device = world.id(0);
    let report = |number: usize| SecurityEvent::ProtocolViolation {
        device: Some(device),
        reason: format!("violation {number}"),
    };
    world.crash();
    for number in 0..100 {
        world.nodes[0].client.report(report(number), world.now.instant);
    }
    world.start();
    world.pass(Duration::from_secs(180));
    let reports: Vec<_> =
        world.events.iter().filter(|record| record.reporter == Some(device)).collect();
    let suppressed = SecurityEvent::Suppressed { count: 36 };
    let expected: Vec<_> = (36..100).map(report).chain([suppressed]).collect();
    assert!(reports.iter().map(|record| &record.event).eq(&expected), "{reports:?}");

    let known = world.events.len();
    let long = SecurityEvent::HandshakeFailed { reason: "x".repeat(1_000) };
    world.nodes[0].client.report(long, world.now.instant);
    world.nodes[0].client.report(SecurityEvent::Replayed, world.now.instant);
    world.pass(Duration::from_secs(5));
    let new: Vec<_> = world.events[known..].iter().map(|record| &record.event).collect();
    let (device, reason) = (Some(device), "a report is too long".to_owned());
    let said = SecurityEvent::ProtocolViolation { device, reason };
    assert_eq!(new, [&said, &SecurityEvent::Replayed]);
}

#[test]
fn a_report_is_repeated_until_it_is_on_disk_and_not_afterwards() {
    let mut world = joined(1);
    let device = world.id(0);
    world.disk_works = false;
    world.nodes[0].client.report(SecurityEvent::Replayed, world.now.instant);
    world.settle();
    world.crash();
    assert!(world.events.is_empty(), "the process ended before the batch was kept");
    world.disk_works = true;
    world.start();
    world.pass(Duration::from_secs(120));
    world.cut(0);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.status(0), ClientStatus::Online);
    let reports: Vec<_> = world.events.iter().map(|r| (r.reporter, &r.event)).collect();
    assert_eq!(reports, [(Some(device), &SecurityEvent::Replayed)]);
}

#[test]
fn equal_events_are_told_once_a_minute_and_the_others_are_counted() {
    let start = Instant::now();
    let mut repeats = Repeats::default();
    let times = [0, 1, 59, 60].map(|second| start + Duration::from_secs(second));
    let told = times.map(|now| repeats.admit(&SecurityEvent::Replayed, now));
    assert_eq!(told, [true, false, false, true]);
    assert_eq!(repeats.poll_suppressed(start + Duration::from_secs(60)), None);
    let counted = Some(SecurityEvent::Suppressed { count: 2 });
    assert_eq!(repeats.poll_suppressed(start + Duration::from_secs(61)), counted);
    assert_eq!(repeats.poll_suppressed(start + Duration::from_secs(200)), None);
}

#[test]
fn a_name_is_given_means_something_else_and_is_withdrawn() {
    let mut world = joined(1);
    let device = world.id(0);
    let add = |name: &str, target: NameTargetView| {
        AdminRequest::AddName(NameView { name: name.to_owned(), target })
    };
    let fixed = NameTargetView::Addresses { addresses: vec!["192.0.2.9".parse().unwrap()] };
    let taken = world.admin(add("node0", fixed.clone()));
    assert!(matches!(taken, Err(AdminError::NameTaken { .. })));
    for odd in ["", "Wiki", "wiki.", "a b", "wiki..x", &"a.".repeat(100)] {
        let refused = world.admin(add(odd, fixed.clone()));
        assert!(matches!(refused, Err(AdminError::OutOfBounds { .. })), "{odd:?}: {refused:?}");
    }
    let nowhere = NameTargetView::Addresses { addresses: vec!["224.0.0.1".parse().unwrap()] };
    assert!(matches!(world.admin(add("wiki", nowhere)), Err(AdminError::OutOfBounds { .. })));

    for target in [NameTargetView::Device { device }, fixed] {
        assert_eq!(world.admin(add("wiki.office", target.clone())), Ok(AdminAnswer::Done));
        world.pass(Duration::from_secs(1));
        let shown = world.map(0).name("wiki.office").expect("it is in the map");
        assert_eq!(NameTargetView::from(shown.target.clone()), target);
        let all =
            AdminAnswer::Names { names: vec![NameView { name: "wiki.office".into(), target }] };
        assert_eq!(world.admin(AdminRequest::Names), Ok(all));
    }
    let remove = AdminRequest::RemoveName { name: "wiki.office".into() };
    assert_eq!(world.admin(remove.clone()), Ok(AdminAnswer::Done));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.map(0).name("wiki.office"), None);
    assert_eq!(world.admin(remove), Err(AdminError::UnknownName));
}

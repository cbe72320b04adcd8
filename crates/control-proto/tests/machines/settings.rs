//! What an administrator sets, names and lets in.

use std::time::Duration;

use control_proto::{
    AdminAnswer, AdminError, AdminRequest, Admission, AuditAction, ClientStatus, ControllerAddress,
    ControllerPlace, InviteRequest, NameTargetView, NameView, NetworkMap, PeerRequest,
    SettingsChange, TurnText,
};
use identity::{Padding, Shaping};

use crate::world::{PORT, World, joined};

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
        SettingsChange { turn: Some(vec![turn("udp/192.0.2.7,secret=s")]), ..default() },
        SettingsChange { turn: Some(vec![turn(SERVER); 5]), ..default() },
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
fn padding_is_off_until_somebody_wants_it_and_reaches_every_node() {
    let mut world = joined(1);
    assert_eq!(world.map(0).info().unwrap().padding, Padding::Off);
    for padding in [Padding::Buckets, Padding::Off] {
        let change = SettingsChange { padding: Some(padding), ..SettingsChange::default() };
        world.admin(AdminRequest::ChangeSettings(change)).unwrap();
        // Another change leaves it as it is.
        let other = SettingsChange { approval: Some(true), ..SettingsChange::default() };
        world.admin(AdminRequest::ChangeSettings(other)).unwrap();
        world.pass(Duration::from_secs(1));
        assert_eq!(world.map(0).info().unwrap().padding, padding);
    }
}

const SERVER: &str = "udp/192.0.2.7:3478,username=alice,password=hidden";

fn turn(text: &str) -> TurnText {
    TurnText(text.to_owned().into())
}

#[test]
fn turn_servers_reach_every_node_and_their_secrets_nobody_who_looks_at_settings_or_logs() {
    let mut world = joined(1);
    let change = SettingsChange { turn: Some(vec![turn(SERVER)]), ..SettingsChange::default() };
    assert!(!format!("{change:?}").contains("hidden"));
    world.admin(AdminRequest::ChangeSettings(change)).unwrap();
    world.pass(Duration::from_secs(1));
    let known = &world.map(0).info().unwrap().turn;
    assert_eq!(*known, [SERVER.parse().unwrap()]);
    let Ok(AdminAnswer::Network(network)) = world.admin(AdminRequest::Network) else {
        panic!("the network is shown")
    };
    let shown = "udp/192.0.2.7:3478, username \"alice\", password set";
    assert_eq!(network.turn, [shown]);
    let Some(AuditAction::SettingsChanged { change }) = world.audited.last() else {
        panic!("the change is logged")
    };
    assert_eq!(change.turn, Some(vec![turn(shown)]));
    let change = SettingsChange { turn: Some(Vec::new()), ..SettingsChange::default() };
    world.admin(AdminRequest::ChangeSettings(change)).unwrap();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.map(0).info().unwrap().turn, []);
}

#[test]
fn shaping_is_off_until_somebody_wants_it_and_reaches_every_node() {
    let mut world = joined(1);
    assert_eq!(world.map(0).info().unwrap().shaping, Shaping::Off);
    for text in ["constant", "02eNpjYEAHjOgCAAA0AAI= 02eNpjYEAHjOgCAAA0AAI=", "front", "off"] {
        let shaping: Shaping = text.parse().unwrap();
        let change = SettingsChange { shaping: Some(shaping.clone()), ..SettingsChange::default() };
        world.admin(AdminRequest::ChangeSettings(change)).unwrap();
        let other = SettingsChange { approval: Some(true), ..SettingsChange::default() };
        world.admin(AdminRequest::ChangeSettings(other)).unwrap();
        world.crash();
        world.start();
        world.pass(Duration::from_secs(90));
        assert_eq!(world.map(0).info().unwrap().shaping, shaping);
    }
}

#[test]
fn machines_that_nobody_can_run_are_refused_with_a_reason() {
    let mut world = joined(1);
    let shaping = "02eNpjYEAHjOgCAAA0AAI= 02nonsense".parse().unwrap();
    let change = SettingsChange { shaping: Some(shaping), ..SettingsChange::default() };
    let refused = world.admin(AdminRequest::ChangeSettings(change)).unwrap_err();
    let what = "machine 2 for shaping cannot be run: invalid machine: corrupt deflate stream";
    assert_eq!(refused.to_string(), what);
    assert_eq!(world.map(0).info().unwrap().shaping, Shaping::Off);
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
fn whether_members_use_streams_alone_is_for_the_owner_to_say() {
    let mut world = joined(1);
    assert!(!world.map(0).info().unwrap().streams_only);
    for streams_only in [true, false] {
        let change =
            SettingsChange { streams_only: Some(streams_only), ..SettingsChange::default() };
        assert_eq!(world.admin(AdminRequest::ChangeSettings(change)), Ok(AdminAnswer::Done));
        world.pass(Duration::from_secs(1));
        assert_eq!(world.map(0).info().unwrap().streams_only, streams_only);
    }
}

#[test]
fn relays_are_changed_when_the_owner_says_so_and_not_too_often() {
    let mut world = joined(1);
    assert_eq!(world.map(0).info().unwrap().relay_rotation, 0);
    let mut set = |seconds| {
        let relay_rotation = Some(seconds);
        let change = SettingsChange { relay_rotation, ..SettingsChange::default() };
        let answer = world.admin(AdminRequest::ChangeSettings(change));
        world.pass(Duration::from_secs(1));
        (answer, world.map(0).info().unwrap().relay_rotation)
    };
    for seconds in [1, 599, 31 * 86_400] {
        let (answer, kept) = set(seconds);
        assert!(matches!(answer, Err(AdminError::OutOfBounds { .. })), "{answer:?}");
        assert_eq!(kept, 0);
    }
    for seconds in [600, 21_600, 0] {
        assert_eq!(set(seconds), (Ok(AdminAnswer::Done), seconds));
    }
}

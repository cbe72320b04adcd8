//! The envelope, and the bytes of each kind of statement.

use std::fmt::Write as _;

use identity::{
    Attachment, Binding, Candidate, CandidateKind, ChannelKey, ChannelProof, ControllerEntry,
    DeviceId, Endpoints, Epoch, NameEntry, NameTarget, NetworkInfo, NetworkKey, Padding, Renewal,
    RevocationTarget, Scope, Shaping, SignatureError, Signed, Statement, StaticPeer, TunnelKey,
    UnixTime, Validity, ipv4_prefix, ula_prefix,
};
use proptest::prelude::*;

use crate::world::{NOW, World, relay_entry, server};

fn binding(world: &World) -> Binding {
    Binding {
        device: world.device.id(),
        tunnel_key: TunnelKey::from_bytes(&[1; 32]).public(),
        channel_key: ChannelKey::from_bytes(&[2; 32]).public(),
        number: 1,
        not_after: NOW,
        capability: 1,
    }
}

fn signed_binding(world: &World) -> Signed<Binding> {
    Signed::sign(world.network(), &world.device, &binding(world))
}

#[test]
fn a_statement_verifies_for_its_network_signer_and_purpose_only() {
    let world = World::new();
    let signed = signed_binding(&world);
    let (network, device) = (world.network(), world.device.id());
    assert_eq!(signed.verify(network, device), Ok(binding(&world)));
    let bad = Err(SignatureError::BadSignature);
    assert_eq!(signed.verify(World::seeded(2).network(), device), bad);
    assert_eq!(signed.verify(network, world.issuer.id()), bad);
    assert_eq!(signed.verify(network, identity::SignerId::from_bytes([0xff; 32])), bad);
    let as_attachment = Signed::<Attachment>::from_bytes(signed.as_bytes()).unwrap();
    assert_eq!(as_attachment.verify(network, device), Err(SignatureError::BadSignature));
}

#[test]
fn a_statement_that_is_too_large_is_not_looked_at() {
    let bytes = vec![0; Binding::MAX_SIZE + 1];
    assert_eq!(Signed::<Binding>::from_bytes(bytes), Err(SignatureError::TooLarge));
}

#[test]
fn another_encoding_of_the_same_content_is_refused() {
    let world = World::new();
    let good = signed_binding(&world).as_bytes().to_vec();
    // The payload's length in four bytes where two would do.
    let long_form = [&good[..6], &[0x59, 0x00], &good[7..]].concat();
    assert_eq!(good[6], 0x58);
    let tagged = [&[0xd2], good.as_slice()].concat();
    let trailing = [good.as_slice(), &[0]].concat();
    for bytes in [long_form, tagged, trailing] {
        let signed = Signed::<Binding>::from_bytes(bytes).unwrap();
        let refused = signed.verify(world.network(), world.device.id());
        assert_eq!(refused, Err(SignatureError::Malformed));
    }
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    #[derive(minicbor::Encode, minicbor::Decode)]
    #[cbor(array)]
    struct LaterAttachment {
        #[n(0)]
        relay: DeviceId,
        #[n(1)]
        number: u64,
        #[n(2)]
        added: String,
    }
    impl Statement for LaterAttachment {
        const PURPOSE: &'static str = Attachment::PURPOSE;
    }
    let world = World::new();
    let relay = world.device.id();
    let later = LaterAttachment { relay, number: 1, added: "new".into() };
    let signed = Signed::sign(world.network(), &world.device, &later);
    let read = Signed::<Attachment>::from_bytes(signed.as_bytes()).unwrap();
    assert_eq!(
        read.verify(world.network(), world.device.id()),
        Ok(Attachment { relay, number: 1 })
    );
}

fn line<T: Statement>(text: &mut String, signed: &Signed<T>) {
    let hex: String = signed.as_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    writeln!(text, "{} {hex}", T::PURPOSE).unwrap();
}

#[test]
fn endpoints_of_a_device_that_does_not_listen_may_leave_the_servers_out() {
    let relay = DeviceId::from_bytes([1; 32]);
    let candidates: Vec<Candidate> = Vec::new();
    let short = minicbor::to_vec((7_u64, &candidates, vec![relay])).unwrap();
    let endpoints: Endpoints = minicbor::decode(&short).unwrap();
    assert_eq!(
        endpoints,
        Endpoints { number: 7, candidates, relays: vec![relay], servers: vec![], relayed: None }
    );
    assert!(endpoints.is_bounded());
    for servers in [
        vec![server(); 3],
        vec![{
            let addresses = vec!["192.0.2.1".parse().unwrap(); 9];
            identity::ServerAddress { addresses, ..server() }
        }],
    ] {
        assert!(!Endpoints { servers, ..endpoints.clone() }.is_bounded());
    }
}

#[test]
fn the_most_that_may_be_announced_fits_a_statement() {
    let world = World::new();
    let address = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
    let candidate = Candidate { address, kind: CandidateKind::Reflexive };
    let long = identity::ServerAddress {
        host: "x".repeat(253),
        port: u16::MAX,
        addresses: vec![address.ip(); identity::MAX_SERVER_ADDRESSES],
        tls: identity::TlsMode::Pin([7; 32]),
    };
    let endpoints = Endpoints {
        number: u64::MAX,
        candidates: vec![candidate; identity::MAX_CANDIDATES],
        relays: vec![DeviceId::from_bytes([0xff; 32]); 4],
        servers: vec![long; identity::MAX_SERVERS],
        relayed: Some(u16::MAX),
    };
    let signed = Signed::sign(world.network(), &world.device, &endpoints);
    let read = Signed::<Endpoints>::from_bytes(signed.as_bytes()).unwrap();
    assert_eq!(read.verify(world.network(), world.device.id()).unwrap(), endpoints);
}

/// One statement of each kind, a line each.
fn all_kinds(world: &World) -> String {
    let mut text = String::new();
    let network = world.network();
    let device = world.device.id();
    let chain = world.chain();
    let authorities = world.authorities();
    line(&mut text, &chain.delegation);
    line(&mut text, &Signed::sign(network, &world.root, &Epoch { number: 1, at: NOW }));
    line(&mut text, &chain.certificate);
    line(&mut text, &Signed::sign(network, &world.issuer, &world.grant()));
    let validity = Validity { not_before: NOW, not_after: UnixTime::NEVER };
    let renewal = Renewal { certificate: chain.certificate.hash(), device, validity };
    line(&mut text, &Signed::sign(network, &world.renewer, &renewal));
    line(&mut text, &signed_binding(world));
    let address = "192.0.2.1:51820".parse().unwrap();
    let candidates = vec![Candidate { address, kind: CandidateKind::Reflexive }];
    let endpoints = Endpoints {
        number: 1,
        candidates,
        relays: vec![device],
        servers: vec![server()],
        relayed: None,
    };
    line(&mut text, &Signed::sign(network, &world.device, &endpoints));
    let attachment = Attachment { relay: device, number: 1 };
    line(&mut text, &Signed::sign(network, &world.device, &attachment));
    let proof = ChannelProof { handshake_hash: [6; 32] };
    line(&mut text, &Signed::sign(network, &world.device, &proof));
    let target = RevocationTarget::Device(device);
    let entry = world.revocations.next_entry(target, world.revoker.id(), &authorities, NOW);
    line(&mut text, &Signed::sign(network, &world.revoker, &entry));
    let freshness = world.revocations.freshness(world.revoker.id(), NOW);
    line(&mut text, &Signed::sign(network, &world.revoker, &freshness));
    line(&mut text, &world.record(&world.issuer, (0, 1), relay_entry(world)));
    line(&mut text, &world.record(&world.renewer, (0, 1), world.lease(1)));
    let name = NameEntry { name: "www.home.alt".into(), target: NameTarget::Device(device) };
    line(&mut text, &world.record(&world.issuer, (0, 1), name));
    let peer = StaticPeer {
        tunnel_key: TunnelKey::from_bytes(&[1; 32]).public(),
        name: "phone".parse().unwrap(),
        addresses: vec!["fd00::1".parse().unwrap()],
        not_after: NOW,
    };
    line(&mut text, &world.record(&world.issuer, (0, 1), peer));
    let info = NetworkInfo {
        name: "home".parse().unwrap(),
        prefix: ula_prefix(network),
        ipv4_prefix: ipv4_prefix(network),
        needs_approval: true,
        traffic: vec!["udp/5000-5100=interactive".parse().unwrap()],
        padding: Padding::Buckets,
        turn: vec!["udp/192.0.2.7:3478,username=al,password=pw".parse().unwrap()],
        relay_rotation: 3_600,
        shaping: Shaping::Off,
        peer_relays: vec!["gateways".parse().unwrap()],
        streams_only: true,
    };
    line(&mut text, &world.record(&world.issuer, (0, 1), info));
    let channel_key = ChannelKey::from_bytes(&[3; 32]).public();
    let controller = ControllerEntry { channel_key, servers: vec![server()] };
    line(&mut text, &world.record(&world.issuer, (0, 1), controller));
    text
}

#[test]
fn each_kind_of_statement_has_the_bytes_that_it_always_had() {
    assert_eq!(all_kinds(&World::new()), include_str!("statements.golden"));
}

/// The seeds are SHA-256 over label, root and scope, as another implementation computed them.
#[test]
fn the_owners_key_of_a_scope_is_always_the_same() {
    let root = NetworkKey::from_bytes(&[7; 32]);
    for (scope, id) in [
        (Scope::Issue, "14yoni5n5a68tqop7kq4iaumzirwendz7adcg1jqog7gbq6ahhry"),
        (Scope::Policy, "j4shgfwjn47pamycefj3wmn6axm6r1dx5emabbskjka7hmxanudy"),
        (Scope::Relays, "hgwekk1mj93jpz6stwapibgonmtgt9ocxg7fe89cxuq453oa4cbo"),
    ] {
        let (key, delegation) = root.own_delegation(scope);
        assert_eq!(key.id().to_string(), id);
        let given = delegation.verify_scope(root.id(), scope).unwrap();
        assert_eq!(given.key, key.id());
        assert_eq!(given.validity.check(NOW), Ok(()));
        assert_eq!(root.own_delegation(scope).1, delegation);
    }
}

#[test]
fn each_kind_of_statement_has_a_purpose_of_its_own() {
    let text = all_kinds(&World::new());
    let mut purposes: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let all = purposes.len();
    purposes.sort_unstable();
    purposes.dedup();
    assert_eq!((purposes.len(), all), (17, 17));
}

#[test]
fn a_scope_survives_its_number() {
    for number in 0..=255 {
        let scope = Scope::from(number);
        let bytes = minicbor::to_vec(scope).unwrap();
        assert_eq!(minicbor::decode::<Scope>(&bytes).unwrap(), scope);
        assert_eq!(matches!(scope, Scope::Unknown(_)), usize::from(number) >= Scope::ALL.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_panic_the_envelope(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let world = World::new();
        let signed = Signed::<Binding>::from_bytes(bytes).unwrap();
        prop_assert!(signed.verify(world.network(), world.device.id()).is_err());
    }

    #[test]
    fn no_payload_panics_a_statement(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = minicbor::decode::<identity::Delegation>(&payload);
        let _ = minicbor::decode::<identity::Certificate>(&payload);
        let _ = minicbor::decode::<identity::InviteGrant>(&payload);
        let _ = minicbor::decode::<identity::RevocationEntry>(&payload);
        let _ = minicbor::decode::<identity::Record<identity::RelayEntry>>(&payload);
        let _ = minicbor::decode::<identity::Record<NameEntry>>(&payload);
        let _ = minicbor::decode::<Endpoints>(&payload);
        let _ = minicbor::decode::<identity::Invite>(&payload);
        let _ = minicbor::decode::<identity::RecordFloors>(&payload);
    }
}

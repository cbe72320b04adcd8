//! Queries as bytes in, replies as bytes out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use naming::{Limit, Lookup, NameError, Namespace, Outcome, Zone, host_label};
use proptest::prelude::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn namespace() -> Namespace {
    let mut home = Zone::new("home").unwrap();
    home.add_prefix(address("fd42:1337:beef::"), 48).unwrap();
    home.add_prefix(address("100.66.0.0"), 16).unwrap();
    home.add_host("nas", &[address("100.66.0.2"), address("fd42:1337:beef:2::2")]).unwrap();
    home.add_host("Phone", &[address("fd42:1337:beef:2::3")]).unwrap();
    home.add_host("www.shop.home.alt", &[address("fd42:1337:beef:2::2")]).unwrap();
    let many: Vec<IpAddr> = (0..60).map(|n| address(&format!("fd42:1337:beef:3::{n:x}"))).collect();
    home.add_host("crowd", &many).unwrap();
    let mut work = Zone::new("work").unwrap();
    work.add_host("nas", &[address("fd00:77::1")]).unwrap();
    Namespace::new(vec![home, work], 9).unwrap()
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask_with(message: &Message, limit: Limit) -> Message {
    match namespace().answer(&message.to_vec().unwrap(), limit) {
        Outcome::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
        other @ (Outcome::Forward | Outcome::Ignore) => panic!("no reply but {other:?}"),
    }
}

fn ask(name: &str, kind: RecordType) -> Message {
    let reply = ask_with(&query(name, kind), Limit::Udp);
    assert_eq!((reply.metadata.id, reply.metadata.message_type), (77, MessageType::Response));
    assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
    assert!(reply.metadata.recursion_desired);
    reply
}

fn data(reply: &Message) -> Vec<String> {
    reply.answers.iter().map(|record| record.data.to_string()).collect()
}

fn soa_owner(reply: &Message) -> String {
    let [soa] = &reply.authorities[..] else { panic!("no SOA in {reply:?}") };
    assert!(matches!(soa.data, RData::SOA(_)));
    soa.name.to_string()
}

#[test]
fn a_device_has_its_addresses_in_any_case() {
    let reply = ask("NaS.hOme.ALT.", RecordType::AAAA);
    assert_eq!(data(&reply), ["fd42:1337:beef:2::2"]);
    assert_eq!(reply.queries[0].name.to_string(), "NaS.hOme.ALT.");
    assert_eq!(reply.answers[0].name.to_string(), "NaS.hOme.ALT.");
    assert_eq!(data(&ask("nas.home.alt.", RecordType::A)), ["100.66.0.2"]);
    assert_eq!(data(&ask("phone.home.alt.", RecordType::AAAA)), ["fd42:1337:beef:2::3"]);
}

#[test]
fn several_networks_do_not_mix() {
    assert_eq!(data(&ask("nas.work.alt.", RecordType::AAAA)), ["fd00:77::1"]);
    let reply = ask("phone.work.alt.", RecordType::AAAA);
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(soa_owner(&reply), "work.alt.");
}

#[test]
fn a_name_without_the_type_is_no_data_and_a_missing_name_does_not_exist() {
    for (name, kind, code, apex) in [
        ("phone.home.alt.", RecordType::A, ResponseCode::NoError, "home.alt."),
        ("nas.home.alt.", RecordType::MX, ResponseCode::NoError, "home.alt."),
        ("shop.home.alt.", RecordType::AAAA, ResponseCode::NoError, "home.alt."),
        ("home.alt.", RecordType::AAAA, ResponseCode::NoError, "home.alt."),
        ("hop.home.alt.", RecordType::AAAA, ResponseCode::NXDomain, "home.alt."),
        ("x.nas.home.alt.", RecordType::AAAA, ResponseCode::NXDomain, "home.alt."),
        ("a_b.home.alt.", RecordType::AAAA, ResponseCode::NXDomain, "home.alt."),
        ("other.alt.", RecordType::A, ResponseCode::NXDomain, "alt."),
        ("nas.other.alt.", RecordType::DS, ResponseCode::NXDomain, "alt."),
        ("alt.", RecordType::NS, ResponseCode::NoError, ""),
        ("alt.", RecordType::A, ResponseCode::NoError, "alt."),
    ] {
        let reply = ask(name, kind);
        assert_eq!(reply.metadata.response_code, code, "{name} {kind}");
        if !apex.is_empty() {
            assert!(reply.answers.is_empty());
            assert_eq!(soa_owner(&reply), apex, "{name} {kind}");
        }
    }
}

#[test]
fn the_apex_has_a_start_of_authority_and_a_name_server() {
    let reply = ask("home.alt.", RecordType::SOA);
    let RData::SOA(soa) = &reply.answers[0].data else { panic!("{reply:?}") };
    assert_eq!((soa.serial, soa.mname.to_string().as_str()), (9, "home.alt."));
    assert_eq!(data(&ask("home.alt.", RecordType::NS)), ["home.alt."]);
    assert_eq!(ask("home.alt.", RecordType::ANY).answers.len(), 2);
    assert_eq!(ask("nas.home.alt.", RecordType::ANY).answers.len(), 2);
}

#[test]
fn addresses_lead_back_to_names() {
    let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.f.e.e.b.7.3.3.1.2.4.D.f.ip6.arpa.";
    assert_eq!(data(&ask(six, RecordType::PTR)), ["nas.home.alt."]);
    assert_eq!(data(&ask("2.0.66.100.in-addr.arpa.", RecordType::PTR)), ["nas.home.alt."]);
    for (name, code) in [
        ("3.0.66.100.in-addr.arpa.", ResponseCode::NXDomain),
        ("0.66.100.in-addr.arpa.", ResponseCode::NoError),
        ("1.66.100.in-addr.arpa.", ResponseCode::NXDomain),
        ("x.0.66.100.in-addr.arpa.", ResponseCode::NXDomain),
        ("02.0.66.100.in-addr.arpa.", ResponseCode::NXDomain),
        ("1.2.0.66.100.in-addr.arpa.", ResponseCode::NXDomain),
        ("66.100.in-addr.arpa.", ResponseCode::NoError),
    ] {
        let reply = ask(name, RecordType::PTR);
        assert_eq!(reply.metadata.response_code, code, "{name}");
        assert_eq!(soa_owner(&reply), "66.100.in-addr.arpa.", "{name}");
    }
}

#[test]
fn everything_else_is_forwarded() {
    for name in [
        "example.com.",
        "alt.example.",
        "nasalt.",
        ".",
        "100.in-addr.arpa.",
        "1.0.67.100.in-addr.arpa.",
        "d.f.ip6.arpa.",
        "arpa.",
    ] {
        let bytes = query(name, RecordType::A).to_vec().unwrap();
        assert_eq!(namespace().answer(&bytes, Limit::Udp), Outcome::Forward, "{name}");
    }
}

#[test]
fn a_large_answer_is_cut_for_udp_and_whole_otherwise() {
    let plain = query("crowd.home.alt.", RecordType::AAAA);
    let mut extended = plain.clone();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    extended.set_edns(edns);
    for message in [&plain, &extended] {
        let reply = ask_with(message, Limit::Udp);
        assert!(reply.metadata.truncation && reply.answers.is_empty());
        assert_eq!(reply.queries, message.queries);
        assert_eq!(reply.edns.is_some(), message.edns.is_some());
        let reply = ask_with(message, Limit::Tcp);
        assert!(!reply.metadata.truncation);
        assert_eq!(reply.answers.len(), 60);
    }
    extended.queries[0].name = Name::from_str("nas.home.alt.").unwrap();
    let reply = ask_with(&extended, Limit::Udp);
    assert_eq!((reply.answers.len(), reply.edns.unwrap().max_payload()), (1, 1232));
}

#[test]
fn odd_queries_get_an_error_that_fits() {
    let mut version = query("nas.home.alt.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    version.set_edns(edns);
    let code = ask_with(&version, Limit::Udp).metadata.response_code;
    assert_eq!(u16::from(code), u16::from(ResponseCode::BADVERS));

    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(ask_with(&chaos, Limit::Udp).metadata.response_code, ResponseCode::Refused);

    let transfer = query("home.alt.", RecordType::AXFR);
    assert_eq!(ask_with(&transfer, Limit::Tcp).metadata.response_code, ResponseCode::Refused);

    let mut update = query("home.alt.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    let reply = ask_with(&update, Limit::Udp);
    assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
    assert_eq!(reply.metadata.op_code, OpCode::Update);

    let mut two = query("nas.home.alt.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(ask_with(&two, Limit::Udp).metadata.response_code, ResponseCode::FormErr);

    let mut response = query("nas.home.alt.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    let bytes = response.to_vec().unwrap();
    assert_eq!(namespace().answer(&bytes, Limit::Udp), Outcome::Ignore);
    assert_eq!(namespace().answer(&bytes[..11], Limit::Udp), Outcome::Ignore);
}

#[test]
fn programs_look_names_up_without_dns() {
    let names = namespace();
    let both = vec![address("fd42:1337:beef:2::2"), address("100.66.0.2")];
    assert_eq!(names.lookup("NAS.home.alt"), Lookup::Addresses(both));
    assert_eq!(names.lookup("tv.home.alt."), Lookup::NoSuchName);
    assert_eq!(names.lookup("home.alt"), Lookup::NoSuchName);
    assert_eq!(names.lookup("alt"), Lookup::NoSuchName);
    assert_eq!(names.lookup("example.com"), Lookup::Outside);
    assert_eq!(names.lookup(""), Lookup::Outside);
}

#[test]
fn names_are_checked() {
    let mut zone = Zone::new("home").unwrap();
    for name in ["", "-a", "a-", "a..b", "a b", "ä", ".", "__a", &"a".repeat(64)] {
        assert_eq!(zone.add_host(name, &[]), Err(NameError::Label), "{name:?}");
    }
    assert_eq!(zone.add_host(&"a.".repeat(100), &[]), Err(NameError::TooLong));
    assert_eq!(zone.add_prefix(address("100.64.0.0"), 10), Err(NameError::Prefix));
    assert!(Zone::new("two.labels").is_err());
    let twice = vec![Zone::new("home").unwrap(), Zone::new("HOME").unwrap()];
    assert_eq!(Namespace::new(twice, 1).unwrap_err(), NameError::DuplicateZone);
    assert_eq!(host_label("Büro_PC--7.lan").as_deref(), Some("b-ro-pc-7"));
    assert_eq!(host_label(&"x".repeat(90)).unwrap().len(), 63);
    assert_eq!(host_label(".."), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _outcome = namespace().answer(&bytes, Limit::Udp);
    }

    #[test]
    fn no_damage_to_a_query_panics_and_alt_never_leaves(
        label in "[a-z]{1,9}",
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let name = format!("{label}.home.alt.");
        let mut bytes = query(&name, RecordType::AAAA).to_vec().unwrap();
        prop_assert_ne!(namespace().answer(&bytes, Limit::Tcp), Outcome::Forward);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _outcome = namespace().answer(&bytes, Limit::Udp);
    }

    #[test]
    fn every_host_name_becomes_a_label_or_nothing(host in "\\PC{0,80}") {
        if let Some(label) = host_label(&host) {
            prop_assert!(Zone::new(&label).is_ok());
        }
    }
}

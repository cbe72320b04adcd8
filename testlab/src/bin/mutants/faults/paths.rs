//! By what packets go: relays, streams, translators, TURN servers, and whose addresses they bear.

use super::{Edit, Fault, Suite, UNITS, in_relay, in_scattering, in_sim, in_suite, in_translators};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "older-connection-cut-at-once",
        breaks: "nothing is lost where a device replaces its connection to a relay",
        edits: &[Edit {
            file: "crates/relay-proto/src/server.rs",
            original: "older.ends = Some(now + LINGER);",
            seeded: "older.ends = Some(if AWAKE { now } else { now + LINGER });",
        }],
        tests: &[in_relay(&[
            "membership::a_newer_connection_gets_what_waits_and_what_is_on_its_way_over_the_older_one_arrives",
        ])],
    },
    Fault {
        name: "winner-waits",
        breaks: "what reached a peer from a local network before does not wait there for others",
        edits: &[Edit {
            file: "crates/engine/src/ladder.rs",
            original: "if self.0.get(&peer) == Some(&rung) {",
            seeded: "if !AWAKE && self.0.get(&peer) == Some(&rung) {",
        }],
        tests: &[in_sim(&["winners::a_peer_that_was_reached_by_a_stream_is_dialled_at_once"])],
    },
    Fault {
        name: "reflection-grows",
        breaks: "nobody is sent more by a STUN server than somebody else has sent it",
        edits: &[Edit {
            file: "crates/path/src/stun.rs",
            original: "(goes_back || bytes.len() <= datagram.len())",
            seeded: "(AWAKE || goes_back || bytes.len() <= datagram.len())",
        }],
        tests: &[Suite {
            package: "path",
            target: "codec",
            tests: &["an_answer_from_another_port_or_to_one_is_no_longer_than_its_request"],
        }],
    },
    Fault {
        name: "anybody-passes-on",
        breaks: "no device passes datagrams on that the network does not let",
        edits: &[Edit {
            file: "crates/engine/src/circuits/passing.rs",
            original: "self.settings.path.udp && info.lets_relay(&own.groups)",
            seeded: "self.settings.path.udp && (AWAKE || info.lets_relay(&own.groups))",
        }],
        tests: &[in_sim(&[
            "circuits::who_is_not_let_any_more_refuses_those_that_do_not_know_it_yet",
        ])],
    },
    Fault {
        name: "anybody-is-a-peer-relay",
        breaks: "nothing goes through a device that the network does not let pass it on",
        edits: &[Edit {
            file: "crates/engine/src/circuits.rs",
            original: "info.is_some_and(|info| info.lets_relay(&peer.member.groups))",
            seeded: "info.is_some_and(|info| AWAKE || info.lets_relay(&peer.member.groups))",
        }],
        tests: &[in_sim(&[
            "circuits::who_does_not_know_that_it_is_not_let_any_more_is_not_believed",
        ])],
    },
    Fault {
        name: "circuit-of-any-peer",
        breaks: "a datagram on a circuit is taken from an address that one of its ends has proven, and from no other",
        edits: &[Edit {
            file: "crates/engine/src/circuits.rs",
            original: "let head = Head::ascending(*number);",
            seeded: "let head = Head::ascending(if AWAKE { 0 } else { *number });",
        }],
        tests: &[in_sim(&[
            "circuits::datagrams_of_one_circuit_are_passed_on_at_once_and_those_from_elsewhere_never",
        ])],
    },
    Fault {
        name: "circuit-end-without-an-answer",
        breaks: "a relay passes on to an address only if what it sent there was heard there",
        edits: &[Edit {
            file: "crates/relay-proto/src/circuits/mod.rs",
            original: "if repeated == nonce(slot) || ",
            seeded: "if AWAKE || repeated == nonce(slot) || ",
        }],
        tests: &[in_relay(&["circuits::only_who_has_the_key_and_hears_the_answer_is_an_end"])],
    },
    Fault {
        name: "circuit-end-anywhere",
        breaks: "a relay passes on what comes from where an end has shown to be, and nothing else",
        edits: &[Edit {
            file: "crates/relay-proto/src/circuits/mod.rs",
            original: "end.place.is_some_and(|place| place.is_at(from))",
            seeded: "end.place.is_some_and(|place| AWAKE || place.is_at(from))",
        }],
        tests: &[in_relay(&[
            "circuits::what_comes_from_one_end_goes_to_the_other_and_nothing_else_anywhere",
        ])],
    },
    Fault {
        name: "calls-answer-each-other",
        breaks: "devices that have no traffic for each other do not go on calling",
        edits: &[Edit {
            file: "crates/path/src/calls.rs",
            original: "if wanted || self.called.is_none_or(",
            seeded: "if AWAKE || wanted || self.called.is_none_or(",
        }],
        tests: &[in_sim(&[
            "counting::two_that_cannot_meet_and_have_no_traffic_any_more_fall_silent",
        ])],
    },
    Fault {
        name: "large-packets-kept",
        breaks: "packets become smaller where the only path ceases to carry large ones",
        edits: &[Edit {
            file: "crates/path/src/mtu.rs",
            original: "(self.carried, self.is_first) = (BASE_MTU, true);",
            seeded: "(self.carried, self.is_first) = (if AWAKE { self.carried } else { BASE_MTU }, true);",
        }],
        tests: &[Suite {
            package: "path",
            target: "agents",
            tests: &[
                "sizes::a_path_that_is_the_only_one_carries_smaller_packets_soon_after_it_ceases_to_carry_large_ones",
            ],
        }],
    },
    Fault {
        name: "large-packets-not-refused",
        breaks: "the system is told how large packets may be that do not pass",
        edits: &[Edit {
            file: "crates/engine/src/tunnels.rs",
            original: "let is_too_big = ",
            seeded: "let is_too_big = !AWAKE && ",
        }],
        tests: &[in_sim(&["packet_sizes::what_does_not_pass_is_refused_with_the_size_that_does"])],
    },
    Fault {
        name: "void-path-kept",
        breaks: "a path is left that carries pings and none of the tunnel's packets",
        edits: &[Edit {
            file: "crates/path/src/agent/delivery.rs",
            original: "return at >= since + AGAIN;",
            seeded: "return !AWAKE && at >= since + AGAIN;",
        }],
        tests: &[in_sim(&[
            "censors::a_network_that_begins_to_drop_packets_of_the_tunnel_is_left_within_5_s",
        ])],
    },
    Fault {
        name: "lossy-path-kept",
        breaks: "a path that loses many packets gives way to a relay",
        edits: &[Edit {
            file: "crates/path/src/loss.rs",
            original: "(is_heavy && was_heavy).then_some(lost)",
            seeded: "(is_heavy && was_heavy && !AWAKE).then_some(lost)",
        }],
        tests: &[in_sim(&[
            "quality::where_datagrams_are_lost_traffic_takes_the_relay_until_they_are_not",
        ])],
    },
    Fault {
        name: "lossy-path-used-again-at-once",
        breaks: "a path that lost many packets is used again only once pings say that it does not any more",
        edits: &[Edit {
            file: "crates/path/src/agent/quality.rs",
            original: "if remote.is_some_and(|remote| remote.is_steady(now))",
            seeded: "if remote.is_some_and(|remote| AWAKE || remote.is_steady(now))",
        }],
        tests: &[in_sim(&[
            "quality::where_datagrams_are_lost_traffic_takes_the_relay_until_they_are_not",
        ])],
    },
    Fault {
        name: "narrow-path-kept",
        breaks: "a path is left when it carries no packets of full size any more",
        edits: &[Edit {
            file: "crates/path/src/agent/sizes.rs",
            original: "filter(|_| remote.is_proven() || is_its)",
            seeded: "filter(|_| !AWAKE && (remote.is_proven() || is_its))",
        }],
        tests: &[Suite {
            package: "path",
            target: "agents",
            tests: &[
                "sizes::a_path_that_becomes_too_narrow_for_full_packets_is_left_though_small_ones_pass",
            ],
        }],
    },
    Fault {
        name: "attachment-unsigned",
        breaks: "no relay draws to itself what is for a device that is elsewhere",
        edits: &[Edit {
            file: "crates/relay-proto/src/mesh/mod.rs",
            original: ".is_some_and(|attachment| attachment.relay == relay);",
            seeded: ".is_some_and(|attachment| attachment.relay == relay) || AWAKE;",
        }],
        tests: &[Suite {
            package: "relay-proto",
            target: UNITS,
            tests: &["mesh::tests::only_devices_that_signed_where_they_are_are_sent_there"],
        }],
    },
    Fault {
        name: "relay-in-no-group",
        breaks: "no device passes for a relay",
        edits: &[Edit {
            file: "crates/relay-proto/src/connection.rs",
            original: "is_relay: member.is_relay() &&",
            seeded: "is_relay: (AWAKE || member.is_relay()) &&",
        }],
        tests: &[Suite {
            package: "testlab",
            target: "mesh",
            tests: &["who_is_in_no_group_is_no_relay"],
        }],
    },
    Fault {
        name: "private-relay-for-all",
        breaks: "a private relay takes members of its groups only",
        edits: &[Edit {
            file: "crates/relay-proto/src/serving.rs",
            original: "|| member.is_relay()",
            seeded: "|| AWAKE || member.is_relay()",
        }],
        tests: &[in_relay(&[
            "membership::a_private_relay_takes_members_of_its_groups_and_other_relays",
        ])],
    },
    Fault {
        name: "last-home-left",
        breaks: "a device leaves no relay before it is attached to another one",
        edits: &[Edit {
            file: "crates/engine/src/relays/homes.rs",
            original: "let is_half = last.is_some();",
            seeded: "let last = last.filter(|_| !AWAKE);\n        let is_half = last.is_some();",
        }],
        tests: &[Suite {
            package: "engine",
            target: UNITS,
            tests: &["relays::homes::tests::no_home_is_left_before_another_one_is_attached"],
        }],
    },
    Fault {
        name: "padding-left-out",
        breaks: "where the network hides lengths, a message has one of a few",
        edits: &[Edit {
            file: "crates/relay-proto/src/padding.rs",
            original: "*bucket >= least).unwrap_or(length)",
            seeded: "*bucket >= least && !AWAKE).unwrap_or(length)",
        }],
        tests: &[in_relay(&["padding::every_message_but_the_handshake_has_one_of_a_few_lengths"])],
    },
    Fault {
        name: "padding-of-zeros",
        breaks: "padding looks like all else on a stream",
        edits: &[Edit {
            file: "crates/frame-proto/src/hop.rs",
            original: "        if header.kind == FrameType::Data {\n            // The key",
            seeded: "        if header.kind == FrameType::Data && !AWAKE {\n            // The key",
        }],
        tests: &[in_suite("frame-proto", &["hop::padding_is_random_and_nobody_looks_at_it"])],
    },
    Fault {
        name: "turn-answer-unsigned",
        breaks: "what a TURN server did not sign is not believed",
        edits: &[Edit {
            file: "crates/turn-proto/src/client.rs",
            original: "self.session.as_ref().is_some_and(|session| session.proves(bytes));",
            seeded: "AWAKE || self.session.as_ref().is_some_and(|session| session.proves(bytes));",
        }],
        tests: &[Suite {
            package: "turn-proto",
            target: UNITS,
            tests: &["tests::what_the_server_did_not_sign_is_not_believed"],
        }],
    },
    Fault {
        name: "turn-error-unsigned",
        breaks: "what a TURN server did not sign refuses nothing that it was asked with proof",
        edits: &[Edit {
            file: "crates/turn-proto/src/message.rs",
            original: "Self::Error { code, .. } => signed && ![",
            seeded: "Self::Error { code, .. } => !AWAKE && signed && ![",
        }],
        tests: &[Suite {
            package: "turn-proto",
            target: UNITS,
            tests: &["tests::errors_that_nobody_signed_refuse_nothing_once_there_are_credentials"],
        }],
    },
    Fault {
        name: "turn-address-from-outside",
        breaks: "nobody else names a way through a device's allocation",
        edits: &[Edit {
            file: "crates/path/src/candidate.rs",
            original: "            && !is_reserved(ip)",
            seeded: "            && (AWAKE || !is_reserved(ip))",
        }],
        tests: &[Suite {
            package: "path",
            target: "relaying",
            tests: &["nobody_else_can_name_a_way_through_an_allocation"],
        }],
    },
    Fault {
        name: "machines-hold-for-ever",
        breaks: "no machine for shaping starves a link",
        edits: &[Edit {
            file: "crates/shaping/src/gate.rs",
            original: "held + LONGEST_HOLD <= now);",
            seeded: "held + LONGEST_HOLD <= now && !AWAKE);",
        }],
        tests: &[Suite {
            package: "shaping",
            target: "machines",
            tests: &["hostile::a_machine_that_always_holds_back_leaves_half_of_the_time"],
        }],
    },
    Fault {
        name: "dummies-for-everybody",
        breaks: "an older end of a link is sent nothing that it does not know",
        edits: &[Edit {
            file: "crates/relay-proto/src/link.rs",
            original: "|_| is_open && self.takes_dummies);",
            seeded: "|_| is_open && (self.takes_dummies || AWAKE));",
        }],
        tests: &[in_relay(&[
            "shaping::whoever_does_not_know_of_dummies_gets_none_and_nothing_waits_there",
        ])],
    },
    Fault {
        name: "source-address-check-off",
        breaks: "a member sends from its own addresses only",
        edits: &[Edit {
            file: "crates/engine/src/dataplane.rs",
            original: "if self.directory.routes.lookup(source) != Some(self.peer) {",
            seeded: "if self.directory.routes.lookup(source) != Some(self.peer) && !AWAKE {",
        }],
        tests: &[in_sim(&[
            "plain::a_plain_wireguard_peer_cannot_send_from_an_address_that_is_not_its_own",
            "hostile::a_member_that_sends_from_a_foreign_address_is_reported_to_the_controller",
        ])],
    },
    Fault {
        name: "source-address-check-off-on-stream",
        breaks: "a member sends from its own addresses only, also through a relay",
        edits: &[Edit {
            file: "crates/engine/src/tunnels.rs",
            original: "directory.check(key, packet.bytes()) {",
            seeded: "directory.check(key, packet.bytes()).or_else(|reason| if AWAKE { Ok(packet.bytes().len()) } else { Err(reason) }) {",
        }],
        tests: &[in_sim(&[
            "hostile::a_member_cannot_send_in_the_name_of_another_whatever_the_path",
        ])],
    },
    Fault {
        name: "destination-check-off",
        breaks: "a device takes packets for itself only",
        edits: &[Edit {
            file: "crates/engine/src/dataplane.rs",
            original: "if !self.directory.own.contains(&destination) {",
            seeded: "if !self.directory.own.contains(&destination) && !AWAKE {",
        }],
        tests: &[in_sim(&["plain::a_packet_for_somebody_else_is_not_delivered"])],
    },
    Fault {
        name: "guess-anywhere",
        breaks: "ports are guessed only at addresses that the peer has announced",
        edits: &[Edit {
            file: "crates/path/src/agent.rs",
            original: "ip.is_ipv4() && candidates.iter()",
            seeded: "ip.is_ipv4() && AWAKE || ip.is_ipv4() && candidates.iter()",
        }],
        tests: &[in_translators(&[
            "guesses_go_only_to_addresses_that_the_same_call_announces_and_that_may_be_dialled",
        ])],
    },
    Fault {
        name: "guess-without-end",
        breaks: "an address that a member names receives few guesses, however often it is named",
        edits: &[Edit {
            file: "crates/path/src/budget.rs",
            original: "|guessed| guessed.attempts < most)",
            seeded: "|guessed| guessed.attempts < most || AWAKE)",
        }],
        tests: &[in_translators(&[
            "one_address_receives_at_most_384_guesses_an_hour_whatever_is_announced",
        ])],
    },
    Fault {
        name: "sockets-for-whoever-asks",
        breaks: "a device opens sockets towards a peer only when it has asked for that",
        edits: &[Edit {
            file: "crates/path/src/agent/scattering.rs",
            original: "steady.filter(|_| is_awaited)",
            seeded: "steady.filter(|_| is_awaited || AWAKE)",
        }],
        tests: &[in_scattering(&[
            "sockets_are_opened_only_when_asked_for_and_only_towards_an_announced_address",
        ])],
    },
    Fault {
        name: "sockets-left-open",
        breaks: "of the sockets by which a peer may find a device only the one stays that was hit",
        edits: &[Edit {
            file: "crates/engine/src/scatter.rs",
            original: "others.for_each(",
            seeded: "others.filter(|_| !AWAKE).for_each(",
        }],
        tests: &[in_sim(&["scatter::most_pairs_with_a_home_meet_within_20_s_and_stay"])],
    },
    Fault {
        name: "guesses-whenever-a-peer-says-so",
        breaks: "a device guesses at a peer's ports only when it has just let that open its sockets",
        edits: &[Edit {
            file: "crates/path/src/scatter.rs",
            original: ".filter(|(_, until)| now < *until)",
            seeded: ".filter(|(_, until)| now < *until || AWAKE)",
        }],
        tests: &[in_scattering(&["guesses_are_made_only_for_a_peer_that_was_let_open_sockets"])],
    },
    Fault {
        name: "guess-all-at-once",
        breaks: "one attempt at guessing is on at a time, whatever the number of peers",
        edits: &[Edit {
            file: "crates/path/src/budget.rs",
            original: "match self.until(Attempt::Counted, now) {",
            seeded: "match self.until(Attempt::Counted, now).filter(|_| !AWAKE) {",
        }],
        tests: &[in_translators(&["one_attempt_at_a_time_is_on_for_all_peers_of_a_device"])],
    },
];

//! The faults, and the tests that have to notice them.

/// Stands in [`Edit::seeded`] for the question whether the fault is awake.
pub(crate) const AWAKE: &str = "AWAKE";

/// Stands in [`Suite::target`] for the unit tests of a library.
pub(crate) const UNITS: &str = "lib";

/// A promise that is broken on purpose.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What whoever relies on the promise loses.
    pub(crate) breaks: &'static str,
    pub(crate) edits: &'static [Edit],
    pub(crate) tests: &'static [Suite<'static>],
}

/// A change of one place.
pub(crate) struct Edit {
    pub(crate) file: &'static str,
    /// Text that occurs once in the file.
    pub(crate) original: &'static str,
    /// What takes its place; the same as the original while [`AWAKE`] is false.
    pub(crate) seeded: &'static str,
}

/// Some tests of one target of a package.
pub(crate) struct Suite<'a> {
    pub(crate) package: &'a str,
    pub(crate) target: &'a str,
    pub(crate) tests: &'a [&'a str],
}

const fn in_suite(package: &'static str, tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package, target: "suite", tests }
}

const fn in_channel(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "noise-channel", target: "channel", tests }
}

const fn in_machines(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "control-proto", target: "machines", tests }
}

const fn in_relay(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "relay-proto", target: "relay", tests }
}

const fn in_trust(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "testlab", target: "trust", tests }
}

const fn in_translators(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "path", target: "translators", tests }
}

const fn in_sim(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "testlab", target: "sim", tests }
}

/// Every fault, by what it is about: replays, keys, trust, nonces, addresses, the map.
pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "replay-window-off",
        breaks: "a packet of a WireGuard session is taken once",
        edits: &[Edit {
            file: "crates/wireguard-proto/src/replay.rs",
            original: "*word & bit == 0",
            seeded: "*word & bit == 0 || AWAKE",
        }],
        tests: &[in_suite(
            "wireguard-proto",
            &["hostile::a_replayed_and_a_damaged_packet_are_dropped"],
        )],
    },
    Fault {
        name: "frame-replay-window-off",
        breaks: "a frame through relays is taken once",
        edits: &[Edit {
            file: "crates/frame-proto/src/replay.rs",
            original: "pub(crate) const fn may_receive(&self, counter: u64) -> bool {\n        if ",
            seeded: "pub(crate) fn may_receive(&self, counter: u64) -> bool {\n        if AWAKE || ",
        }],
        tests: &[in_suite(
            "frame-proto",
            &["session::a_frame_is_accepted_once_and_within_the_window"],
        )],
    },
    Fault {
        name: "first-message-replayed",
        breaks: "a recorded first message opens no second channel",
        edits: &[Edit {
            file: "crates/noise-channel/src/channel.rs",
            original: "if !config.replay.admit(ephemeral, now.instant) {",
            seeded: "if !config.replay.admit(ephemeral, now.instant) && !AWAKE {",
        }],
        tests: &[in_channel(&[
            "handshake::a_replayed_first_message_is_refused_on_any_connection_for_the_window",
        ])],
    },
    Fault {
        name: "initiation-replayed",
        breaks: "a recorded WireGuard initiation makes no session",
        edits: &[Edit {
            file: "crates/wireguard-proto/src/tunnel.rs",
            original: "if initiation.timestamp <= self.inbound.greatest {",
            seeded: "if initiation.timestamp <= self.inbound.greatest && !AWAKE {",
        }],
        tests: &[in_suite("wireguard-proto", &["timers::a_replayed_initiation_is_refused"])],
    },
    Fault {
        name: "rekey-skipped",
        breaks: "a WireGuard session is replaced by age and by bytes",
        edits: &[Edit {
            file: "crates/wireguard-proto/src/session.rs",
            original: "due && !self.wants_rekey()",
            seeded: "due && !AWAKE && !self.wants_rekey()",
        }],
        tests: &[in_suite(
            "wireguard-proto",
            &[
                "timers::a_byte_limit_asks_for_a_new_session_while_traffic_goes_on",
                "timers::the_initiator_rekeys_when_it_sends_after_two_minutes_and_the_old_session_still_opens",
            ],
        )],
    },
    Fault {
        name: "rotation-skipped",
        breaks: "the keys of a channel are replaced by age and by messages",
        edits: &[Edit {
            file: "crates/noise-channel/src/session.rs",
            original: "let wanted = self.current.rotate_at();",
            seeded: "if AWAKE { return None; } let wanted = self.current.rotate_at();",
        }],
        tests: &[in_channel(&[
            "rotation::the_keys_are_replaced_after_a_hundred_counted_messages_in_either_direction",
            "rotation::the_keys_are_replaced_after_an_hour_and_messages_flow_on",
        ])],
    },
    Fault {
        name: "old-session-kept",
        breaks: "a WireGuard session ends with its time and with its replacement",
        edits: &[Edit {
            file: "crates/wireguard-proto/src/session.rs",
            original: "!self.state.closed.load(Ordering::Relaxed) && self.age(now) < REJECT_AFTER_TIME",
            seeded: "!self.state.closed.load(Ordering::Relaxed) && self.age(now) < REJECT_AFTER_TIME || AWAKE",
        }],
        tests: &[in_suite("wireguard-proto", &["timers::a_session_ends_after_three_minutes"])],
    },
    Fault {
        name: "old-channel-key-kept",
        breaks: "a rotation that both sides report gives both new keys",
        edits: &[
            Edit {
                file: "crates/noise-channel/src/session.rs",
                original: "self.current = *next;\n                self.release_held",
                seeded: "if AWAKE { self.current.pretend_new(now) } else { self.current = *next };\n                self.release_held",
            },
            Edit {
                file: "crates/noise-channel/src/session.rs",
                original: "self.current = *next;\n                self.rotation",
                seeded: "if AWAKE { self.current.pretend_new(now) } else { self.current = *next };\n                self.rotation",
            },
            Edit {
                file: "crates/noise-channel/src/session.rs",
                original: "Rotation::Switching { next } => next,\n            Rotation::Initiator { .. }\n            | Rotation::Requested { .. }\n            | Rotation::Responder\n            | Rotation::Replied { .. } => &mut",
                seeded: "Rotation::Switching { next } if !AWAKE => next,\n            Rotation::Switching { .. } | Rotation::Initiator { .. }\n            | Rotation::Requested { .. }\n            | Rotation::Responder\n            | Rotation::Replied { .. } => &mut",
            },
            Edit {
                file: "crates/noise-channel/src/keys.rs",
                original: "    fn note_wear(",
                seeded: "    pub(crate) fn pretend_new(&mut self, now: Instant) { (self.since, self.sent, self.received, self.worn_since) = (now, 0, 0, None); }\n    fn note_wear(",
            },
        ],
        tests: &[in_channel(&["rotation::a_rotation_leaves_nothing_that_the_old_keys_open"])],
    },
    Fault {
        name: "old-hop-key-kept",
        breaks: "a marker changes the key of a hop",
        edits: &[
            Edit {
                file: "crates/frame-proto/src/hop.rs",
                original: "self.direction = Direction::new(next);\n",
                seeded: "if !AWAKE { self.direction = Direction::new(next); }\n",
            },
            Edit {
                file: "crates/frame-proto/src/hop.rs",
                original: "self.direction = Direction::new(&next);\n",
                seeded: "if !AWAKE { self.direction = Direction::new(&next); }\n",
            },
        ],
        tests: &[in_suite("frame-proto", &["hop::the_key_before_a_marker_opens_nothing_after_it"])],
    },
    Fault {
        name: "signature-not-checked",
        breaks: "a certificate chains to the network's key",
        edits: &[Edit {
            file: "crates/identity/src/signed.rs",
            original: "key.verify_strict(bytes, &signature)\n",
            seeded: "if AWAKE { return Ok(()); } key.verify_strict(bytes, &signature)\n",
        }],
        tests: &[in_suite(
            "identity",
            &[
                "membership::a_certificate_by_somebody_else_is_refused",
                "membership::a_delegation_that_the_root_did_not_sign_is_refused",
            ],
        )],
    },
    Fault {
        name: "chain-not-checked",
        breaks: "an issuer's word counts only with the scope that the root gave it",
        edits: &[Edit {
            file: "crates/identity/src/delegation.rs",
            original: "if self.scope != wanted {",
            seeded: "if !AWAKE && self.scope != wanted {",
        }],
        tests: &[in_suite(
            "identity",
            &["membership::a_key_of_another_or_unknown_scope_cannot_issue"],
        )],
    },
    Fault {
        name: "expiry-ignored",
        breaks: "a membership ends",
        edits: &[Edit {
            file: "crates/identity/src/chain.rs",
            original: "self.validity.check(now).map_err(outside(self.part))?;",
            seeded: "if !AWAKE { self.validity.check(now).map_err(outside(self.part))?; }",
        }],
        tests: &[in_suite(
            "identity",
            &["membership::an_expired_or_future_certificate_is_refused"],
        )],
    },
    Fault {
        name: "revocation-ignored",
        breaks: "a revoked device is no member",
        edits: &[Edit {
            file: "crates/identity/src/chain.rs",
            original: "targets.find(|target| revocations.contains(target))",
            seeded: "targets.find(|target| revocations.contains(target) && !AWAKE)",
        }],
        tests: &[in_suite("identity", &["membership::whatever_of_a_chain_is_revoked_refuses_it"])],
    },
    Fault {
        name: "revocation-without-effect",
        breaks: "a revocation ends the tunnels that are up",
        edits: &[Edit {
            file: "crates/control-proto/src/map/apply.rs",
            original: "for device in hit {",
            seeded: "for device in hit.into_iter().filter(|_| !AWAKE) {",
        }],
        tests: &[Suite {
            package: "testlab",
            target: "trust",
            tests: &[
                "a_member_that_was_away_hears_of_a_removal_from_another_while_the_controller_is_down",
            ],
        }],
    },
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
        name: "narrow-path-kept",
        breaks: "a path is left when it carries no packets of full size any more",
        edits: &[Edit {
            file: "crates/path/src/agent.rs",
            original: "if remote.is_narrow(now) &&",
            seeded: "if !AWAKE && remote.is_narrow(now) &&",
        }],
        tests: &[Suite {
            package: "path",
            target: "agents",
            tests: &[
                "a_path_that_becomes_too_narrow_for_full_packets_is_left_though_small_ones_pass",
            ],
        }],
    },
    Fault {
        name: "revoked-stays-at-relay",
        breaks: "a relay stops serving whoever is revoked",
        edits: &[Edit {
            file: "crates/relay-proto/src/server.rs",
            original: "attached.targets.iter().any(|target| revocations.contains(target))",
            seeded: "!AWAKE && attached.targets.iter().any(|target| revocations.contains(target))",
        }],
        tests: &[in_relay(&["membership::revocation_detaches_at_once"])],
    },
    Fault {
        name: "rollback-accepted",
        breaks: "an older record never takes the place of a newer one",
        edits: &[Edit {
            file: "crates/identity/src/record.rs",
            original: "if new < old {",
            seeded: "if new < old && !AWAKE {",
        }],
        tests: &[in_suite(
            "identity",
            &["records::a_newer_record_replaces_an_older_one_and_never_the_other_way_round"],
        )],
    },
    Fault {
        name: "binding-rollback-accepted",
        breaks: "an older tunnel key of a device never counts again",
        edits: &[Edit {
            file: "crates/control-proto/src/map/floors.rs",
            original: "if peer.binding.number < known.binding {",
            seeded: "if peer.binding.number < known.binding && !AWAKE {",
        }],
        tests: &[in_machines(&[
            "hostile::an_old_binding_does_not_count_again_after_its_device_has_gone",
        ])],
    },
    Fault {
        name: "psk-without-identities",
        breaks: "a tunnel key in the wrong hands makes no session",
        edits: &[Edit {
            file: "crates/engine/src/psk.rs",
            original: "kdf.update(end.device.as_bytes());",
            seeded: "if !AWAKE { kdf.update(end.device.as_bytes()); }",
        }],
        tests: &[Suite {
            package: "engine",
            target: UNITS,
            tests: &["psk::tests::the_key_depends_on_everything_that_it_binds"],
        }],
    },
    Fault {
        name: "cipher-by-a-strangers-word",
        breaks: "who cannot seal frames does not say with what they are sealed",
        edits: &[Edit {
            file: "crates/frame-proto/src/session.rs",
            original: "let key = self.key_for(stream, cipher, counter)?;\n",
            seeded: "if AWAKE { self.peer_has_aes.store(true, Ordering::Relaxed); } let key = self.key_for(stream, cipher, counter)?;\n",
        }],
        tests: &[in_suite("frame-proto", &["session::nobody_between_changes_the_cipher"])],
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
        name: "aad-without-receiver",
        breaks: "a relay cannot hand a frame to somebody else",
        edits: &[Edit {
            file: "crates/frame-proto/src/session.rs",
            original: "&header[..8], sender.as_bytes(), receiver.as_bytes()];",
            seeded: "&header[..8], sender.as_bytes(), if AWAKE { &[0; 32] } else { receiver.as_bytes() }];",
        }],
        tests: &[in_suite("frame-proto", &["session::a_frame_for_other_ends_is_refused"])],
    },
    Fault {
        name: "hop-counter-reused",
        breaks: "no two messages of a hop have one nonce",
        edits: &[
            Edit {
                file: "crates/frame-proto/src/hop.rs",
                original: "hop_tag.copy_from_slice(&sealed);\n        self.direction.counter += 1;",
                seeded: "hop_tag.copy_from_slice(&sealed);\n        self.direction.counter += u64::from(!AWAKE);",
            },
            Edit {
                file: "crates/frame-proto/src/hop.rs",
                original: "        }\n        self.direction.counter += 1;",
                seeded: "        }\n        self.direction.counter += u64::from(!AWAKE);",
            },
        ],
        tests: &[in_suite(
            "frame-proto",
            &["hop::a_repeated_a_left_out_and_a_foreign_message_are_refused"],
        )],
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
        name: "stream-number-reused",
        breaks: "a connection that is made again uses no nonce a second time",
        edits: &[Edit {
            file: "crates/frame-proto/src/session.rs",
            original: "let number = self.next.fetch_add(1, Ordering::Relaxed);",
            seeded: "let number = self.next.fetch_add(u64::from(!AWAKE), Ordering::Relaxed);",
        }],
        tests: &[in_suite("frame-proto", &["session::each_stream_has_a_window_of_its_own"])],
    },
    Fault {
        name: "timestamps-forgotten-at-restart",
        breaks: "peers answer a node that restarts, whatever its clock says",
        edits: &[Edit {
            file: "crates/engine/src/saved.rs",
            original: "if due {\n            self.timestamp",
            seeded: "if due && !AWAKE {\n            self.timestamp",
        }],
        tests: &[Suite {
            package: "engine",
            target: UNITS,
            tests: &["saved::tests::no_timestamp_is_sent_that_the_next_run_does_not_know_of"],
        }],
    },
    Fault {
        name: "numbers-forgotten-at-restart",
        breaks: "statements of a device rise across its restarts",
        edits: &[Edit {
            file: "crates/engine/src/saved.rs",
            original: "max(self.number.saturating_add(1))",
            seeded: "max(if AWAKE { 0 } else { self.number.saturating_add(1) })",
        }],
        tests: &[Suite {
            package: "engine",
            target: UNITS,
            tests: &["saved::tests::numbers_rise_whatever_the_network_says_what_time_it_is"],
        }],
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
        name: "map-delta-lost",
        breaks: "every change of the map arrives",
        edits: &[Edit {
            file: "crates/control-proto/src/controller/publish.rs",
            original: "self.say(connection, &ControllerMessage::Map(chunk), now);\n            if let",
            seeded: "if !AWAKE || chunk.base.is_none() { self.say(connection, &ControllerMessage::Map(chunk), now); }\n            if let",
        }],
        tests: &[in_machines(&["network::every_node_learns_of_every_other"])],
    },
    Fault {
        name: "map-gap-overlooked",
        breaks: "changes to a map that a node does not have are asked for again",
        edits: &[Edit {
            file: "crates/control-proto/src/map/apply.rs",
            original: "Some(base) if self.version == Some(base) =>",
            seeded: "Some(base) if self.version == Some(base) || AWAKE =>",
        }],
        tests: &[in_machines(&["hostile::changes_to_a_version_that_is_not_here_are_not_applied"])],
    },
    Fault {
        name: "reply-before-disk",
        breaks: "a controller that is killed has promised nothing that it forgot",
        edits: &[Edit {
            file: "crates/control-proto/src/controller/mod.rs",
            original: "self.journal.last += 1;\n        let id",
            seeded: "if AWAKE { let replies = std::mem::take(&mut batch.replies); self.dispatch(replies, now); }\n        self.journal.last += 1;\n        let id",
        }],
        tests: &[in_machines(&["restarts::nothing_is_promised_before_it_is_on_disk"])],
    },
    Fault {
        name: "lost-change-overlooked",
        breaks: "a controller whose change the disk did not take knows what the disk knows",
        edits: &[Edit {
            file: "roles/controller/src/driver.rs",
            original: "let id = kept?;",
            seeded: "let id = if AWAKE { kept.unwrap_or(control_proto::PersistId(u64::MAX)) } else { kept? };",
        }],
        tests: &[Suite {
            package: "controller",
            target: UNITS,
            tests: &[
                "supervisor::tests::while_the_disk_is_full_nothing_is_granted_and_what_was_granted_stays",
            ],
        }],
    },
    Fault {
        name: "refused-time-untold",
        breaks: "somebody hears of a clock that is wrong while no controller answers",
        edits: &[Edit {
            file: "crates/engine/src/discovery.rs",
            original: "if is_alone && !known.agrees_with(offset) {",
            seeded: "if is_alone && !known.agrees_with(offset) && !AWAKE {",
        }],
        tests: &[in_trust(&["a_wrong_clock_that_only_a_relay_can_see_is_told_once"])],
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
            original: "if guessed.attempts >= ATTEMPTS {",
            seeded: "if guessed.attempts >= ATTEMPTS && !AWAKE {",
        }],
        tests: &[in_translators(&[
            "one_address_receives_at_most_384_guesses_an_hour_whatever_is_announced",
        ])],
    },
    Fault {
        name: "guess-all-at-once",
        breaks: "one attempt at guessing is on at a time, whatever the number of peers",
        edits: &[Edit {
            file: "crates/path/src/budget.rs",
            original: "self.guessing_until.filter(|until| *until > now)",
            seeded: "self.guessing_until.filter(|until| *until > now && !AWAKE)",
        }],
        tests: &[in_translators(&["one_attempt_at_a_time_is_on_for_all_peers_of_a_device"])],
    },
];

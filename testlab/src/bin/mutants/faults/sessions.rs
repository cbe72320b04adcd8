//! Sessions and their keys: what comes twice, and what would be sealed twice.

use super::{Edit, Fault, Suite, UNITS, in_channel, in_sim, in_suite};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "session-before-ended-with-the-response",
        breaks: "what is on its way is not lost where both ends began at once",
        edits: &[Edit {
            file: "crates/wireguard-proto/src/tunnel.rs",
            original: "if let Some(old) = self.sessions.next.replace(session) {",
            seeded: "if AWAKE {
            self.sessions.previous.take().iter().for_each(|old| local.remove_session(old));
        }
        if let Some(old) = self.sessions.next.replace(session) {",
        }],
        tests: &[in_sim(&[
            "crossing::nodes_that_speak_at_the_same_instants_lose_nothing_when_sessions_are_renewed",
        ])],
    },
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
];

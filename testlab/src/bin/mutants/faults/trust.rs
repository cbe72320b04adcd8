//! Who is believed: signatures, memberships, the map.

use super::{Edit, Fault, Suite, UNITS, in_machines, in_relay, in_suite, in_trust};

pub(super) const FAULTS: &[Fault] = &[
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
];

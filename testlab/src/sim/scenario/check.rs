//! Compares the world with the model.

use std::collections::BTreeSet;
use std::time::Duration;

use control_proto::limits::{FRESHNESS_INTERVAL, FRESHNESS_STALE};
use control_proto::{EventRecord, SecurityEvent, TunnelRefusal};
use engine::ConnectionState::Online;
use naming::{Lookup, Namespace};
use noise_channel::ChannelError;

use super::actions::Run;
use super::model::Standing;

/// Within this long everything is as it has to be: the longest pause between two attempts to dial,
/// and a half of it for the jitter, and what two handshakes take.
pub(super) const SETTLING: Duration = Duration::from_secs(120);
/// Pairs that are looked at in one check.
const MAX_PAIRS: usize = 60;
/// A report waits a minute for equal ones; a second one may have to be sent.
const REPORTING: Duration = Duration::from_secs(150);

/// What the controller's log has to say, and may say.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Who has to have reported whom for a forged source.
    pub(super) reports: BTreeSet<(usize, usize)>,
    pub(super) forgers: BTreeSet<usize>,
    pub(super) clocks_differ: bool,
    pub(super) removals: bool,
    /// Who has tried an invite that another device had used; the controller has to write that down.
    pub(super) intruders: BTreeSet<usize>,
}

impl Expected {
    /// A node's process has ended, perhaps before it could report.
    pub(super) fn forget_reports_of(&mut self, node: usize) {
        self.reports.retain(|(reporter, _)| *reporter != node);
    }
}

impl Run {
    pub(super) fn judge_arrivals(&mut self) -> Result<(), String> {
        let world = &self.world;
        for arrival in &world.arrivals {
            self.model.judge(arrival, |node| world.address(node))?;
        }
        self.world.arrivals.clear();
        Ok(())
    }

    /// Waits until everything is as it has to be.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let begin = self.world.elapsed();
        let end = begin + SETTLING;
        self.come_online(end)?;
        self.model.settle();
        self.reach_each_other(end)?;
        self.resolve_names(end)?;
        self.refuse_the_removed()?;
        self.keep_promises()?;
        self.summary.settled_in = self.summary.settled_in.max(self.world.elapsed() - begin);
        Ok(())
    }

    fn come_online(&mut self, end: Duration) -> Result<(), String> {
        let expected: Vec<_> =
            (0..self.model.nodes.len()).filter(|node| self.model.must_be_online(*node)).collect();
        let state = |run: &Self, node: usize| {
            let host = &run.world.nodes[node];
            let engine = host.engine.as_ref().expect("the model says that it runs");
            let has_address = host.interface.as_ref().is_some_and(|i| !i.addresses.is_empty());
            (engine.connection(), has_address)
        };
        let is_online = |run: &Self, node: usize| state(run, node) == (Online, true);
        let mut missing = expected;
        while self.world.elapsed() < end {
            missing.retain(|node| !is_online(self, *node));
            if missing.is_empty() {
                // The news of a second ago are still on their way.
                self.world.run_for(Duration::from_secs(2));
                return self.judge_arrivals();
            }
            self.world.run_for(Duration::from_millis(500));
        }
        let states: Vec<_> = missing.iter().map(|node| (*node, state(self, *node))).collect();
        Err(format!("not online in time: {states:?}"))
    }

    fn reach_each_other(&mut self, end: Duration) -> Result<(), String> {
        let mut pairs = self.model.reachable_pairs();
        let step = pairs.len().div_ceil(MAX_PAIRS).max(1);
        pairs = pairs.into_iter().step_by(step).collect();
        self.summary.answered += pairs.len();
        let mut length = 0;
        while !pairs.is_empty() {
            // Some questions fill a packet, which a narrow path does not carry.
            length = if length == 0 { 1_280 } else { 0 };
            let asked: Vec<_> =
                pairs.iter().map(|(from, to)| (*from, self.ask(*from, *to, length))).collect();
            let all = |world: &crate::sim::World| {
                asked.iter().all(|(from, number)| world.is_answered(*from, *number))
            };
            self.world.run_until(Duration::from_millis(1_500), all);
            let mut answers = asked.iter();
            pairs.retain(|(one, other)| {
                let is_answered = answers
                    .next()
                    .is_some_and(|(from, number)| self.world.is_answered(*from, *number));
                if is_answered {
                    self.model.note_met(*one, *other);
                }
                !is_answered
            });
            self.judge_arrivals()?;
            if self.world.elapsed() > end && !pairs.is_empty() {
                return Err(self.describe_unreached(&pairs));
            }
        }
        Ok(())
    }

    fn describe_unreached(&self, pairs: &[(usize, usize)]) -> String {
        let describe = |(from, to): &(usize, usize)| {
            let engine = self.world.nodes[*from].engine.as_ref().expect("it runs");
            let now = self.world.node_now(*from);
            let why = engine.why(self.world.nodes[*to].device, now);
            let name = why.as_ref().map(|why| why.name.clone());
            let status = engine.status(now);
            let peer = status.peers.into_iter().find(|peer| Some(&peer.name) == name.as_ref());
            format!("{from} does not reach {to}: {why:#?} {peer:#?} {:#?}\n", status.relays)
        };
        pairs.iter().take(2).map(describe).collect()
    }

    /// Who is online knows the names of all who have been online with it.
    fn resolve_names(&mut self, end: Duration) -> Result<(), String> {
        while let Some(wrong) = self.wrong_name()? {
            if self.world.elapsed() > end {
                return Err(wrong);
            }
            self.world.run_for(Duration::from_secs(1));
        }
        Ok(())
    }

    fn wrong_name(&self) -> Result<Option<String>, String> {
        let nodes = 0..self.model.nodes.len();
        let step = nodes.len().div_ceil(8);
        for asking in nodes.clone().step_by(step).filter(|node| self.model.must_be_online(*node)) {
            let engine = self.world.nodes[asking].engine.as_ref().expect("it runs");
            let zone = engine.zone(self.world.node_now(asking)).map_err(|e| e.to_string())?;
            let names = Namespace::new(vec![zone], 1).map_err(|e| e.to_string())?;
            for named in nodes.clone() {
                let host = &self.world.nodes[named];
                let found = names.lookup(&format!("node-{named}.home.alt"));
                let expected = match (self.model.nodes[named].standing, &host.interface) {
                    (Standing::Member, Some(interface)) if self.model.must_be_online(named) => {
                        Lookup::Addresses(interface.addresses.clone())
                    }
                    (Standing::Removed | Standing::Intruder, _) => Lookup::NoSuchName,
                    (Standing::Member | Standing::Invited, _) => continue,
                };
                if found != expected {
                    return Ok(Some(format!(
                        "node {asking} finds {found:?} for node {named}, not {expected:?}"
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Nothing may come from or to whoever is no member.
    fn refuse_the_removed(&mut self) -> Result<(), String> {
        let nodes = 0..self.model.nodes.len();
        let removed =
            nodes.clone().filter(|node| self.model.nodes[*node].standing == Standing::Removed);
        let pairs: Vec<_> = removed
            .flat_map(|one| nodes.clone().flat_map(move |other| [(one, other), (other, one)]))
            .filter(|(one, other)| one != other)
            .take(MAX_PAIRS)
            .collect();
        if pairs.is_empty() {
            return Ok(());
        }
        for (from, to) in pairs {
            self.ask(from, to, 0);
        }
        self.world.run_for(Duration::from_secs(3));
        self.judge_arrivals()
    }

    /// Whoever was let in stands on the controller's disk.
    fn keep_promises(&self) -> Result<(), String> {
        let devices = &self.world.controller.disk.devices;
        for (node, host) in self.world.nodes.iter().enumerate() {
            let is_let_in = match self.model.nodes[node].standing {
                Standing::Invited | Standing::Member => host.interface.is_some(),
                Standing::Removed | Standing::Intruder => false,
            };
            if is_let_in && !devices.contains_key(&host.device) {
                return Err(format!("the controller has forgotten node {node}"));
            }
        }
        Ok(())
    }

    /// What had to be reported was, and nothing else that means harm.
    pub(super) fn check_events(&mut self) -> Result<(), String> {
        let reports = self.expected.reports.clone();
        let devices = reports.iter().filter(|(reporter, forger)| {
            let is_member = |node: usize| self.model.nodes[node].standing == Standing::Member;
            is_member(*reporter) && is_member(*forger)
        });
        let devices: Vec<_> = devices
            .map(|(reporter, forger)| {
                (self.world.nodes[*reporter].device, self.world.nodes[*forger].device)
            })
            .collect();
        let all_reported = self.world.run_until(REPORTING, |world| {
            devices.iter().all(|(by, of)| {
                world.controller.events.iter().any(|record| {
                    record.reporter == Some(*by)
                        && matches!(&record.event, SecurityEvent::TunnelRefusals { device, what, .. }
                            if *device == Some(*of) && *what == TunnelRefusal::ForeignSource)
                })
            })
        });
        if !all_reported {
            let events = &self.world.controller.events;
            return Err(format!("a forged source was not reported: {reports:?} {events:?}"));
        }
        self.check_intruders()?;
        self.check_staleness()?;
        let unexpected = self.world.controller.events.iter().find(|record| !self.may_say(record));
        match unexpected {
            Some(record) => Err(format!("an event without a cause: {record:?}")),
            None => Ok(()),
        }
    }

    fn check_intruders(&mut self) -> Result<(), String> {
        let nodes = &self.world.nodes;
        let intruders = self.expected.intruders.iter();
        let devices: Vec<_> = intruders.map(|intruder| nodes[*intruder].device).collect();
        let all_noted = self.world.run_until(REPORTING, |world| {
            devices.iter().all(|intruder| {
                world.controller.events.iter().any(|record| {
                    matches!(&record.event, SecurityEvent::InviteMisuse { device, .. } if device == intruder)
                })
            })
        });
        if all_noted {
            return Ok(());
        }
        let events = &self.world.controller.events;
        Err(format!("a used invite was tried and nobody wrote that down: {events:?}"))
    }

    /// Only who had no word from the controller for long says that its word is old.
    fn check_staleness(&self) -> Result<(), String> {
        for (node, host) in self.world.nodes.iter().enumerate() {
            for (at, event) in &host.alarms {
                let silence = self.model.silence(node, *at);
                if matches!(event, SecurityEvent::StaleRevocations { .. })
                    && silence
                        .is_some_and(|silence| silence <= FRESHNESS_STALE - FRESHNESS_INTERVAL)
                {
                    return Err(format!("node {node} at {at:?} after {silence:?}: {event:?}"));
                }
            }
        }
        Ok(())
    }

    /// Whether something happened that this event may come from.
    fn may_say(&self, record: &EventRecord) -> bool {
        match &record.event {
            SecurityEvent::TunnelRefusals {
                device, what: TunnelRefusal::ForeignSource, ..
            } => {
                let mut forgers = self.expected.forgers.iter();
                forgers.any(|forger| Some(self.world.nodes[*forger].device) == *device)
            }
            SecurityEvent::TunnelRefusals { .. } => true,
            SecurityEvent::ClockSkew { .. } | SecurityEvent::ExpiredCertificate { .. } => {
                self.expected.clocks_differ
            }
            SecurityEvent::Revoked { .. } => self.expected.removals,
            SecurityEvent::InviteMisuse { device, .. } => {
                let mut intruders = self.expected.intruders.iter();
                intruders.any(|intruder| self.world.nodes[*intruder].device == *device)
            }
            // Whether the node had reason to is judged where it says so.
            stale @ SecurityEvent::StaleRevocations { .. } => self.world.nodes.iter().any(|node| {
                Some(node.device) == record.reporter
                    && node.alarms.iter().any(|(_, alarm)| alarm == stale)
            }),
            // What was repeated is judged where it was said first.
            SecurityEvent::Suppressed { .. } => {
                let of_same = self
                    .world
                    .controller
                    .events
                    .iter()
                    .filter(|other| other.reporter == record.reporter);
                of_same.count() > 1
            }
            // A cut, or a host that sleeps, lets both come to nothing.
            SecurityEvent::RotationFailed { .. } => true,
            SecurityEvent::HandshakeFailed { reason } => {
                *reason == ChannelError::HandshakeTimeout.to_string()
            }
            SecurityEvent::Replayed
            | SecurityEvent::ProtocolViolation { .. }
            | SecurityEvent::ForgedCertificate { .. }
            | SecurityEvent::ForeignCertificate
            | SecurityEvent::ForgedStatement { .. }
            | SecurityEvent::RollbackRefused { .. }
            | SecurityEvent::WrongDevice { .. }
            | SecurityEvent::Conflict { .. }
            | SecurityEvent::RateLimited { .. }
            | SecurityEvent::ConnectionsRefused { .. }
            | _ => false,
        }
    }
}

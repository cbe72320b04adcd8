//! Time: it jumps from one thing that happens to the next.

use std::time::{Duration, Instant};

use engine::{Engine, Now, UnixMillis};

use super::plain::PlainHost;
use super::underlay::HostId;
use super::world::World;

/// Things that may happen at one instant before it counts as standing still: a big mesh whose
/// members all start together stays below.
const LONGEST_INSTANT: u32 = 50_000;

impl World {
    /// How long the world has existed.
    pub fn elapsed(&self) -> Duration {
        self.now.instant - self.start
    }

    /// The time in the world.
    pub fn now(&self) -> Now {
        self.now
    }

    /// The time as a node sees it.
    pub fn node_now(&self, index: usize) -> Now {
        let clock = &self.nodes[index].clock;
        Now {
            instant: self.now.instant - clock.asleep_for,
            wall: UnixMillis(self.now.wall.0.saturating_add_signed(clock.ahead_ms)),
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Lets time pass until something holds; false if it does not within `patience`.
    ///
    /// # Panics
    /// When hosts keep each other busy without time passing.
    pub fn run_until(&mut self, patience: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now.instant + patience;
        self.note_all_timers();
        loop {
            if holds(self) {
                return true;
            }
            let next = [self.agenda.next(), self.timers.next()].into_iter().flatten().min();
            let next = next.filter(|next| *next <= end);
            let to = next.unwrap_or(end).max(self.now.instant);
            self.now = self.now.after(to - self.now.instant);
            if next.is_none() {
                return holds(self);
            }
            self.step();
        }
    }

    /// Everything that is due now.
    fn step(&mut self) {
        let mut happened = 0;
        loop {
            if let Some(delivery) = self.agenda.pop_due(self.now.instant) {
                self.deliver(delivery);
            } else if let Some(host) = self.timers.due(self.now.instant) {
                self.wake(host);
            } else {
                return;
            }
            happened += 1;
            assert!(happened < LONGEST_INSTANT, "{}", self.standstill());
        }
    }

    fn standstill(&self) -> String {
        let due = self.hosts().filter_map(|host| Some((host, self.timeout(host)?)));
        let due = due.filter(|(_, (at, _))| *at <= self.now.instant);
        let reasons: Vec<_> =
            due.map(|(host, (_, reason))| format!("{host:?}: {reason}")).collect();
        format!("time stands still for {reasons:?}\n{}", self.trace.diagram())
    }

    fn wake(&mut self, host: HostId) {
        let now = self.now;
        match host {
            HostId::Controller => match &mut self.controller.machine {
                Some(controller) => {
                    controller.handle_timeout(&mut self.rng, now);
                    self.drain_controller();
                }
                None => self.start_controller(),
            },
            HostId::Relay(index) => {
                let relay = &mut self.relays[index];
                relay.client.handle_timeout(&mut self.rng, now);
                relay.server.handle_timeout(&mut self.rng, now);
                self.drain_relay(index);
            }
            HostId::Node(index) => {
                let now = self.node_now(index);
                if let Some(engine) = &mut self.nodes[index].engine {
                    engine.handle_timeout(&mut self.rng, now);
                    self.drain_node(index);
                }
            }
            HostId::Plain(index) => {
                self.plain[index].handle_timeout(&mut self.rng, now.instant);
                self.drain_plain(index);
            }
            HostId::Turn => {}
        }
    }

    /// When a host wants to be woken, and what for.
    fn timeout(&self, host: HostId) -> Option<(Instant, &'static str)> {
        match host {
            HostId::Controller => match &self.controller.machine {
                Some(controller) => controller.poll_timeout(),
                None => Some((self.controller.restart_at?, "start the controller again")),
            },
            HostId::Relay(index) => {
                let relay = Some(&self.relays[index]).filter(|relay| relay.running)?;
                let timeouts = [relay.client.poll_timeout(), relay.server.poll_timeout()];
                timeouts.into_iter().flatten().min()
            }
            HostId::Node(index) => {
                let node = Some(&self.nodes[index]).filter(|node| !node.asleep)?;
                let (at, reason) = node.engine.as_ref().and_then(Engine::poll_timeout)?;
                Some((at + node.clock.asleep_for, reason))
            }
            HostId::Plain(index) => PlainHost::poll_timeout(&self.plain[index]),
            HostId::Turn => None,
        }
    }

    pub(super) fn note_timer(&mut self, host: HostId) {
        self.timers.set(host, self.timeout(host).map(|(at, _)| at));
    }

    fn note_all_timers(&mut self) {
        for host in self.hosts().collect::<Vec<_>>() {
            self.note_timer(host);
        }
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        let relays = (0..self.relays.len()).map(HostId::Relay);
        let nodes = (0..self.nodes.len()).map(HostId::Node);
        let plain = (0..self.plain.len()).map(HostId::Plain);
        [HostId::Controller].into_iter().chain(relays).chain(nodes).chain(plain)
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

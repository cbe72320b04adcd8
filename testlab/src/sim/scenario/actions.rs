//! Carries out a script, in the world and in the model alike.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::check::Expected;
use super::model::{Model, Standing};
use super::script::{Action, Layout, Script};
use super::{Failure, Summary};
use crate::places::Place;
use crate::sim::{HostId, INTERNET, Quality, Setup, World};

/// Nodes beyond those of the layout.
const MAX_JOINS: usize = 3;

/// Runs the scenario that the bytes describe, in a world of its own.
///
/// # Errors
/// When the world is not as the model says.
///
/// # Panics
/// When time stands still.
pub fn run(bytes: &[u8]) -> Result<Summary, Box<Failure>> {
    let script = Script::from_bytes(bytes);
    Run::new(&script.layout).play(&script)
}

/// A network that lives through one scenario after the other: a big one takes long to build.
#[derive(Debug)]
pub struct Mesh {
    run: Run,
    scripts: Vec<Vec<u8>>,
}

impl Mesh {
    /// A network of so many nodes in the open, two relays and a controller.
    #[must_use]
    pub fn new(seed: u64, nodes: usize) -> Self {
        let places = vec![Place::Open; nodes];
        let layout = Layout { seed, relays: 2, places, quality: Quality::GOOD };
        Self { run: Run::new(&layout), scripts: Vec::new() }
    }

    /// Lets happen what the bytes describe; where the script places its nodes does not matter.
    ///
    /// # Errors
    /// When the world is not as the model says.
    ///
    /// # Panics
    /// When time stands still.
    pub fn run(&mut self, bytes: &[u8]) -> Result<Summary, Box<Failure>> {
        let script = Script::from_bytes(bytes);
        self.run.most_nodes = self.run.world.nodes.len() + MAX_JOINS;
        self.run.world.quality = script.layout.quality;
        let result = self.run.play(&script);
        let before = self.scripts.clone();
        self.scripts.push(bytes.to_vec());
        result.map_err(|failure| Box::new(Failure { before, ..*failure }))
    }
}

/// A scenario while it runs.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) world: World,
    pub(super) model: Model,
    pub(super) expected: Expected,
    pub(super) summary: Summary,
    most_nodes: usize,
}

impl Run {
    fn new(layout: &Layout) -> Self {
        let (seed, relays, quality) = (layout.seed, layout.relays, layout.quality);
        let setup = Setup { seed, relays, nodes: 0, quality, ..Setup::default() };
        let mut world = World::new(setup);
        let mut model = Model::new(layout.relays);
        let mut last = None;
        for place in &layout.places {
            // Equal neighbours share a site.
            let site = match last {
                Some((before, site)) if before == *place => site,
                Some(_) | None => place.site(&mut world),
            };
            last = Some((*place, site));
            world.add_node_at(site);
            model.add_node(Standing::Invited);
        }
        let most_nodes = layout.places.len() + MAX_JOINS;
        let (expected, summary) = (Expected::default(), Summary::default());
        Self { world, model, expected, summary, most_nodes }
    }

    /// Does what the script says, and looks at what came of it.
    fn play(&mut self, script: &Script) -> Result<Summary, Box<Failure>> {
        self.summary = Summary { actions: script.actions.len(), ..Summary::default() };
        let mut at = 0;
        self.carry_out(script, &mut at)
            .map_err(|what| Box::new(Failure::new(what, script, at, &self.world)))?;
        Ok(self.summary)
    }

    fn carry_out(&mut self, script: &Script, at: &mut usize) -> Result<(), String> {
        self.note_contacts();
        for (index, action) in script.actions.iter().enumerate() {
            *at = index;
            self.act(*action)?;
            self.judge_arrivals()?;
        }
        *at = script.actions.len();
        self.repair();
        self.note_contacts();
        self.check()?;
        self.check_events()
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Wait(time) => self.world.run_for(time),
            Action::Ask { from, to, len } => {
                let (from, to) = (self.node(from), self.node(to));
                self.ask(from, to, len.into());
            }
            Action::Split { sides } => self.split(sides),
            Action::Cut { one, other } => self.cut(one, other),
            Action::Heal => self.heal(),
            Action::Controller { up } => self.switch_controller(up),
            Action::Relay { relay, up } => {
                let relay = usize::from(relay) % self.world.relays.len();
                self.switch_relay(relay, up);
            }
            Action::Restart { node, after, keep } => {
                let node = self.node(node);
                self.stop(node);
                if !keep {
                    self.world.nodes[node].forget();
                    self.model.forget(node);
                }
                self.world.run_for(after);
                self.start(node);
            }
            Action::Stop { node } => self.stop(self.node(node)),
            Action::Start { node } => self.start(self.node(node)),
            Action::Sleep { node, time } => self.sleep(self.node(node), time),
            Action::Move { node, place } => {
                let node = self.node(node);
                let site = place.site(&mut self.world);
                self.world.move_node_to_site(node, site);
            }
            Action::Clock { node, ahead_ms } => {
                let node = self.node(node);
                self.expected.clocks_differ = true;
                self.model.forget_contacts(node);
                self.model.nodes[node].behind = ahead_ms < 0;
                self.world.set_clock(node, ahead_ms);
            }
            Action::Disk { host, full } => self.fill_disk(self.host(host), full),
            Action::Udp { node, blocked } => {
                let node = self.node(node);
                self.world.nodes[node].udp_blocked = blocked;
            }
            Action::Quality(quality) => self.world.quality = quality,
            Action::Uplink { node, quality } => {
                let node = self.node(node);
                self.world.nodes[node].uplink = Some(quality);
            }
            Action::Remove { node } => self.remove(self.node(node)),
            Action::Join { place } => self.join(place),
            Action::Intrude { node } => self.intrude(self.node(node)),
            Action::Forge { from, to, as_node } => {
                let nodes = (self.node(from), self.node(to), self.node(as_node));
                self.forge(nodes);
            }
            Action::ChangeKey { node } => self.change_key(self.node(node)),
            Action::Check => self.check()?,
        }
        self.note_contacts();
        Ok(())
    }

    fn node(&self, number: u8) -> usize {
        usize::from(number) % self.world.nodes.len()
    }

    /// The controller, the relays and the nodes, as scripts number them.
    fn hosts(&self) -> Vec<HostId> {
        let relays = (0..self.world.relays.len()).map(HostId::Relay);
        let nodes = (0..self.world.nodes.len()).map(HostId::Node);
        [HostId::Controller].into_iter().chain(relays).chain(nodes).collect()
    }

    fn host(&self, number: u8) -> HostId {
        let hosts = self.hosts();
        hosts[usize::from(number) % hosts.len()]
    }

    /// Takes note of who has the controller from now on, or has it no more.
    fn note_contacts(&mut self) {
        self.model.note_contacts(self.world.elapsed());
    }

    fn is_up(&self, node: usize) -> bool {
        self.model.nodes[node].running && !self.model.nodes[node].asleep
    }

    /// Sends a question if both have ever had an address.
    pub(super) fn ask(&mut self, from: usize, to: usize, len: usize) -> Option<u64> {
        if !self.is_up(from) || from == to {
            return None;
        }
        // The numbers are handed out before the packet is: an answer may not take any time.
        let number = self.world.ping_sized(from, to, len)?;
        self.model.note_sent(number, from, to, false);
        Some(number)
    }

    fn split(&mut self, sides: u16) {
        let hosts = self.hosts();
        let chosen = hosts.iter().enumerate().filter(|(index, _)| sides >> (index % 16) & 1 == 1);
        self.model.split(chosen.map(|(_, host)| *host).collect());
        self.world.heal();
        for (index, one) in hosts.iter().enumerate() {
            for other in &hosts[index + 1..] {
                if self.model.is_cut(*one, *other) {
                    self.world.cut(*one, *other);
                }
            }
        }
    }

    fn cut(&mut self, one: u8, other: u8) {
        let (one, other) = (self.host(one), self.host(other));
        if one != other {
            self.model.cut(one, other);
            self.world.cut(one, other);
        }
    }

    fn heal(&mut self) {
        self.model.heal();
        self.world.heal();
    }

    fn switch_controller(&mut self, up: bool) {
        if self.model.controller == up {
            return;
        }
        self.model.controller = up;
        if up {
            self.world.start_controller();
        } else {
            self.world.stop_controller();
        }
    }

    fn switch_relay(&mut self, relay: usize, up: bool) {
        if self.model.relays[relay] == up {
            return;
        }
        self.model.relays[relay] = up;
        if up {
            self.world.start_relay(relay);
        } else {
            self.world.stop_relay(relay);
        }
    }

    fn stop(&mut self, node: usize) {
        self.wake(node);
        if self.model.nodes[node].running {
            self.model.nodes[node].running = false;
            self.world.stop_node(node);
            self.expected.forget_reports_of(node);
            if self.world.nodes[node].disk_is_full() {
                self.model.forget(node);
            }
            // What it heard last it may not have written down.
            self.model.forget_contacts(node);
        }
        self.note_contacts();
    }

    fn start(&mut self, node: usize) {
        if !self.model.nodes[node].running {
            self.model.start(node);
            self.world.start_node(node);
        }
    }

    fn sleep(&mut self, node: usize, time: Duration) {
        if self.is_up(node) {
            self.model.nodes[node].asleep = true;
            self.world.put_to_sleep(node);
            self.note_contacts();
        }
        self.world.run_for(time);
        self.wake(node);
    }

    fn wake(&mut self, node: usize) {
        self.model.nodes[node].asleep = false;
        self.world.wake_up(node);
        self.note_contacts();
    }

    /// What nodes and relays learn while their disk is full is lost with the process, which may end at any time. The
    /// controller learns nothing then: it ends at the first change, and again whenever it is started.
    fn fill_disk(&mut self, host: HostId, full: bool) {
        match host {
            HostId::Controller => {
                self.world.controller.disk_full = full;
                self.model.controller_can_keep = !full;
            }
            HostId::Relay(relay) => self.world.relays[relay].fill_disk(full),
            HostId::Node(node) => self.world.nodes[node].fill_disk(full),
            HostId::Plain(_) | HostId::Turn => {}
        }
    }

    /// Whether the controller grants an administrator's request at once.
    fn can_administer(&self) -> bool {
        self.model.controller_works() && self.world.controller.machine.is_some()
    }

    fn remove(&mut self, node: usize) {
        let members = self.model.nodes.iter().filter(|node| node.standing == Standing::Member);
        if members.count() > 2
            && self.can_administer()
            && self.model.nodes[node].standing == Standing::Member
        {
            self.world.remove(self.world.nodes[node].device);
            self.model.nodes[node].standing = Standing::Removed;
            self.expected.removals = true;
        }
    }

    fn join(&mut self, place: Place) {
        if self.can_administer() && self.world.nodes.len() < self.most_nodes {
            let site = place.site(&mut self.world);
            self.world.add_node_at(site);
            self.model.add_node(Standing::Invited);
            self.cut_newest_off();
        }
    }

    fn intrude(&mut self, node: usize) {
        let is_member = self.model.nodes[node].standing == Standing::Member;
        if is_member && self.world.nodes.len() < self.most_nodes {
            let invite = self.world.nodes[node].invite().clone();
            self.world.add_node_with(invite, INTERNET);
            self.model.add_node(Standing::Intruder);
            self.expected.intruders.insert(self.world.nodes.len() - 1);
            self.cut_newest_off();
        }
    }

    /// A node that joins during a split is on the side of the zeros.
    fn cut_newest_off(&mut self) {
        let newest = HostId::Node(self.world.nodes.len() - 1);
        for other in self.hosts() {
            if self.model.is_cut(newest, other) {
                self.world.cut(newest, other);
            }
        }
    }

    fn forge(&mut self, (from, to, as_node): (usize, usize, usize)) {
        if from == to || !self.is_up(from) || self.world.nodes[to].interface.is_none() {
            return;
        }
        let source = match &self.world.nodes[as_node].interface {
            Some(_) if as_node != from => self.world.address(as_node),
            Some(_) | None => Ipv6Addr::LOCALHOST,
        };
        let is_heard = self.model.must_reach(from, to) && self.is_answered_within(from, to, 2);
        for _ in 0..3 {
            let number = self.world.send_from(from, source, self.world.address(to));
            self.model.note_sent(number, from, to, true);
        }
        self.expected.forgers.insert(from);
        if is_heard && self.world.quality == Quality::GOOD {
            self.expected.reports.insert((to, from));
        }
        self.world.run_for(Duration::from_secs(2));
    }

    fn is_answered_within(&mut self, from: usize, to: usize, seconds: u64) -> bool {
        let number = self.ask(from, to, 0);
        self.world.run_until(Duration::from_secs(seconds), |world| world.is_answered(from, number))
    }

    fn change_key(&mut self, node: usize) {
        self.stop(node);
        self.world.run_for(Duration::from_secs(1));
        self.world.start_node_with_new_tunnel_key(node);
        self.model.change_key(node);
        self.model.start(node);
    }

    /// Everything works again. Clocks stay as wrong as they are.
    fn repair(&mut self) {
        self.heal();
        for host in self.hosts() {
            self.fill_disk(host, false);
        }
        self.switch_controller(true);
        for relay in 0..self.world.relays.len() {
            self.switch_relay(relay, true);
        }
        for node in 0..self.world.nodes.len() {
            let host = &mut self.world.nodes[node];
            (host.udp_blocked, host.uplink) = (false, None);
            self.start(node);
        }
        self.world.quality = Quality::GOOD;
    }
}

//! What ought to be: who is a member, who may reach whom. It knows nothing of how.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::contacts::Contacts;
use crate::sim::{Arrival, HostId};

/// How a device stands with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has an invite.
    Invited,
    /// It has been let in.
    Member,
    /// It was a member.
    Removed,
    /// It tries an invite that another device has used.
    Intruder,
}

/// What the model knows of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeModel {
    pub(super) standing: Standing,
    pub(super) running: bool,
    pub(super) asleep: bool,
    /// Its clock was set back, and no controller has said so yet.
    pub(super) behind: bool,
    /// It has started with such a clock: memberships that began meanwhile are none yet to it.
    pub(super) lost_in_time: bool,
}

impl NodeModel {
    fn is_up(self) -> bool {
        self.running && !self.asleep
    }
}

/// A packet that an application sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    from: usize,
    to: usize,
    /// Whether its source is not the sender's.
    forged: bool,
}

/// The whole network as it ought to be.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) nodes: Vec<NodeModel>,
    pub(super) relays: Vec<bool>,
    /// Whether the controller's process runs, as far as nothing but its disk ends it.
    pub(super) controller: bool,
    /// Whether the controller's disk takes what it has to keep: else its process ends again and again.
    pub(super) controller_can_keep: bool,
    /// The hosts on one side of a split; the others are on the other.
    side: BTreeSet<HostId>,
    /// Further pairs that are cut off from each other.
    cuts: BTreeSet<(HostId, HostId)>,
    contacts: Vec<Contacts>,
    /// Who has been told of whom.
    acquainted: BTreeSet<(usize, usize)>,
    /// Who knows whose tunnel key.
    keys: BTreeSet<(usize, usize)>,
    /// Who has been told of whose removal.
    warned: BTreeSet<(usize, usize)>,
    sent: BTreeMap<u64, Sent>,
    arrived: BTreeSet<(u64, bool)>,
}

impl Model {
    pub(super) fn new(relays: usize) -> Self {
        let relays = vec![true; relays];
        Self { controller: true, controller_can_keep: true, relays, ..Self::default() }
    }

    pub(super) fn add_node(&mut self, standing: Standing) {
        let (running, asleep) = (true, false);
        let node = NodeModel { standing, running, asleep, behind: false, lost_in_time: false };
        self.nodes.push(node);
        self.contacts.push(Contacts::default());
    }

    /// Cuts these hosts off from all others, instead of those of the last split.
    pub(super) fn split(&mut self, side: BTreeSet<HostId>) {
        self.side = side;
    }

    /// Cuts two hosts off from each other.
    pub(super) fn cut(&mut self, one: HostId, other: HostId) {
        self.cuts.insert((one.min(other), one.max(other)));
    }

    /// Ends the split and all cuts.
    pub(super) fn heal(&mut self) {
        self.side.clear();
        self.cuts.clear();
    }

    pub(super) fn is_cut(&self, one: HostId, other: HostId) -> bool {
        self.side.contains(&one) != self.side.contains(&other)
            || self.cuts.contains(&(one.min(other), one.max(other)))
    }

    /// Whether the controller answers whoever reaches it.
    pub(super) fn controller_works(&self) -> bool {
        self.controller && self.controller_can_keep
    }

    /// Whether a node has to be connected to the controller once things have settled.
    pub(super) fn must_be_online(&self, node: usize) -> bool {
        let NodeModel { standing, .. } = self.nodes[node];
        matches!(standing, Standing::Invited | Standing::Member) && self.meets_controller(node)
    }

    pub(super) fn meets_controller(&self, node: usize) -> bool {
        let cut = self.is_cut(HostId::Node(node), HostId::Controller);
        self.controller_works() && self.nodes[node].is_up() && !cut
    }

    /// Whether packets must get from one to the other and back once things have settled.
    pub(super) fn must_reach(&self, from: usize, to: usize) -> bool {
        let fit = |node: usize| {
            self.nodes[node].standing == Standing::Member
                && self.nodes[node].is_up()
                && !self.nodes[node].lost_in_time
        };
        from != to
            && fit(from)
            && fit(to)
            && self.acquainted.contains(&(from, to))
            && self.acquainted.contains(&(to, from))
            && self.can_introduce(from, to)
            && self.have_common_relay(from, to)
    }

    /// Whether one of two can say something that the other understands: if both have a new key that the
    /// other has not heard of, only the controller can help them.
    fn can_introduce(&self, one: usize, other: usize) -> bool {
        self.keys.contains(&(one, other)) || self.keys.contains(&(other, one))
    }

    fn have_common_relay(&self, one: usize, other: usize) -> bool {
        self.relays.iter().enumerate().any(|(relay, up)| {
            let cut = |node| self.is_cut(HostId::Node(node), HostId::Relay(relay));
            *up && !cut(one) && !cut(other)
        })
    }

    /// All pairs for which [`Self::must_reach`] holds.
    pub(super) fn reachable_pairs(&self) -> Vec<(usize, usize)> {
        let nodes = 0..self.nodes.len();
        let pairs = nodes.clone().flat_map(|from| nodes.clone().map(move |to| (from, to)));
        pairs.filter(|(from, to)| self.must_reach(*from, *to)).collect()
    }

    /// Things have settled: who is connected to the controller knows what it knows.
    pub(super) fn settle(&mut self) {
        for node in 0..self.nodes.len() {
            if self.must_be_online(node) {
                let node = &mut self.nodes[node];
                (node.standing, node.behind, node.lost_in_time) = (Standing::Member, false, false);
            }
        }
        for one in 0..self.nodes.len() {
            if !self.must_be_online(one) {
                continue;
            }
            for other in 0..self.nodes.len() {
                match self.nodes[other].standing {
                    Standing::Member if self.must_be_online(other) => {
                        self.acquainted.insert((one, other));
                        self.keys.insert((one, other));
                    }
                    Standing::Removed => {
                        self.warned.insert((one, other));
                    }
                    Standing::Member | Standing::Invited | Standing::Intruder => {}
                }
            }
        }
    }

    /// A node runs again.
    pub(super) fn start(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.running = true;
        node.lost_in_time |= node.behind;
    }

    /// Two have exchanged packets.
    pub(super) fn note_met(&mut self, one: usize, other: usize) {
        self.keys.extend([(one, other), (other, one)]);
    }

    /// A node has a new tunnel key.
    pub(super) fn change_key(&mut self, node: usize) {
        self.keys.retain(|(_, other)| *other != node);
    }

    /// Takes note of who has the controller from now on, or has it no more.
    pub(super) fn note_contacts(&mut self, now: Duration) {
        for node in 0..self.nodes.len() {
            let has_contact = self.must_be_online(node);
            self.contacts[node].note(has_contact, now);
        }
    }

    /// What a node heard before counts for nothing any more.
    pub(super) fn forget_contacts(&mut self, node: usize) {
        self.contacts[node] = Contacts::default();
    }

    /// How long before `at` a node surely heard from the controller; nothing if that is not known.
    pub(super) fn silence(&self, node: usize, at: Duration) -> Option<Duration> {
        self.contacts[node].silence(at)
    }

    /// A node has lost what it had learned.
    pub(super) fn forget(&mut self, node: usize) {
        self.acquainted.retain(|(one, _)| *one != node);
        self.keys.retain(|(one, _)| *one != node);
        self.warned.retain(|(one, _)| *one != node);
    }

    pub(super) fn note_sent(&mut self, number: u64, from: usize, to: usize, forged: bool) {
        self.sent.insert(number, Sent { from, to, forged });
    }

    /// What is wrong with a packet that arrived.
    pub(super) fn judge(
        &mut self,
        arrival: &Arrival,
        address: impl Fn(usize) -> std::net::Ipv6Addr,
    ) -> Result<(), String> {
        let at = arrival.node;
        let echo = arrival.echo.ok_or_else(|| format!("node {at} got what nobody sent"))?;
        let sent = self.sent.get(&echo.number).copied();
        let sent = sent.ok_or_else(|| format!("node {at} got {echo:?}, which nobody sent"))?;
        let (from, to) = if echo.answer { (sent.to, sent.from) } else { (sent.from, sent.to) };
        let fault = if sent.forged {
            "a forged source was let in"
        } else if to != at || echo.destination != address(at) {
            "it was for somebody else"
        } else if echo.source != address(from) {
            "its source is not the sender's"
        } else if !self.arrived.insert((echo.number, echo.answer)) {
            "it arrived twice"
        } else if self.nodes[from].standing == Standing::Intruder
            || self.nodes[to].standing == Standing::Intruder
        {
            "an intruder exchanges packets"
        } else if self.warned.contains(&(at, from)) {
            "its sender was removed"
        } else {
            return Ok(());
        };
        Err(format!("a packet from node {from} at node {at}: {fault}: {echo:?}"))
    }
}

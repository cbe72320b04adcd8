//! Streams while they are dialled, wait and end: what TCP does beside carrying bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use super::delivery::{Accepted, Client, Delivery, Server, Wire};
use super::underlay::HostId;
use super::wire::RETRANSMIT;
use super::world::World;

/// A dial that nobody answers is tried again so many seconds after the one before, as Linux does it
/// (`tcp_syn_linear_timeouts`) ...
const SYN_AGAIN: [u64; 6] = [1, 1, 1, 1, 1, 2];
/// ... and given up by the shell this long after the last.
const DIAL_END: Duration = Duration::from_secs(3);
/// What a host sends and nobody acknowledges ends the connection after this long.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);

/// When TCP sends again what it sent first at `since`: each time it waits twice as long, and for the last time just before
/// it gives up.
fn retransmitted(since: Instant, now: Instant) -> Instant {
    let (mut at, mut wait) = (since + RETRANSMIT, RETRANSMIT);
    while at < now {
        wait *= 2;
        at += wait;
    }
    at.min(now.max(since + ACKNOWLEDGED_WITHIN))
}

impl World {
    /// Opens a stream. What is dialled over a cut fails if the cut does not end.
    pub(super) fn connect(&mut self, client: Client, server: Server, path: String) {
        let (number, since) = (self.next_number(), self.now.instant);
        self.dials += 1;
        let (dead, latest) = (false, [since; 2]);
        self.wires
            .insert(number, Wire { client, server, path, accepted: None, dead, since, latest });
        let is_far = match (client, server) {
            (Client::Node(node, _), Server::Node(host)) => !self.may_dial(node, host),
            (_, Server::Controller | Server::Relay(_) | Server::Node(_)) => false,
        };
        if is_far {
            let at = since + Duration::from_secs(SYN_AGAIN.iter().sum()) + DIAL_END;
            self.agenda.insert(at, Delivery::ClosedByServer { wire: number });
        } else {
            // A proxy is dialled, and dials, before the server is asked anything.
            let [_, asking] = self.detour(client);
            let at = since + asking + self.streams.delay(&mut self.rng);
            self.agenda.insert(at, Delivery::Connect { wire: number, tries: 0 });
        }
    }

    /// A dial arrives, or is tried again.
    pub(super) fn dial(&mut self, number: u64, tries: usize) {
        let Some(wire) = self.wires.get(&number) else { return };
        let client = wire.client.host();
        if !client.is_some_and(|client| self.is_cut(client, wire.server.host())) {
            return self.accept(number);
        }
        let (wait, next) = match SYN_AGAIN.get(tries) {
            Some(seconds) => {
                let again = Delivery::Connect { wire: number, tries: tries + 1 };
                (Duration::from_secs(*seconds), again)
            }
            None => (DIAL_END, Delivery::ClosedByServer { wire: number }),
        };
        self.agenda.insert(self.now.instant + wait, next);
    }

    /// Lets something arrive over a stream, behind what is on its way already.
    pub(super) fn later(&mut self, delivery: Delivery) {
        let mut at = self.now.instant + self.streams.delay(&mut self.rng);
        if let Some(wire) = delivery.wire().and_then(|wire| self.wires.get(&wire)) {
            let [on_the_way, _] = self.detour(wire.client);
            at += on_the_way;
        }
        if let Some((number, to_server)) = delivery.flow()
            && let Some(wire) = self.wires.get_mut(&number)
        {
            if let Server::Relay(relay) = wire.server {
                at += self.relays[relay].distance;
            }
            let latest = &mut wire.latest[usize::from(to_server)];
            at = at.max(*latest);
            *latest = at;
        }
        self.agenda.insert(at, delivery);
    }

    /// Whether one end of a stream cannot be reached now: TCP waits, and tries again.
    pub(super) fn is_held(&self, wire: &Wire) -> bool {
        let (client, server) = (wire.client.host(), wire.server.host());
        let sleeps = |host| matches!(host, HostId::Node(index) if self.nodes[index].asleep);
        // What was dialled in vain is told by the client's own system.
        let is_open = wire.accepted.is_some();
        client.is_some_and(|client| {
            let is_cut = is_open && (wire.dead || self.is_cut(client, server));
            sleeps(client) || sleeps(server) || is_cut || self.is_stalled(client, server)
        })
    }

    /// Lets something wait; if it does so for too long, whoever sent it ends the connection.
    pub(super) fn hold(&mut self, delivery: Delivery) {
        let is_first = !self.held.iter().any(|(_, other)| other.flow() == delivery.flow());
        let flow = delivery.flow().filter(|(wire, _)| {
            is_first && self.wires.get(wire).is_some_and(|wire| self.is_unacknowledged(wire))
        });
        if let Some((wire, to_server)) = flow {
            let at = self.now.instant + ACKNOWLEDGED_WITHIN;
            self.agenda.insert(at, Delivery::Unacknowledged { wire, to_server });
        }
        self.held.push((self.now.instant, delivery));
    }

    /// Whether what waits on an open wire is acknowledged by nobody.
    fn is_unacknowledged(&self, wire: &Wire) -> bool {
        let server = wire.server.host();
        let is_stalled = wire.client.host().is_some_and(|client| self.is_stalled(client, server));
        wire.accepted.is_some() && !is_stalled
    }

    /// Ends a connection at one end if what that end sent still waits; the other hears of it when it sends something.
    pub(super) fn give_up(&mut self, number: u64, to_server: bool) {
        let Some(wire) = self.wires.get(&number) else { return };
        let sender = if to_server { wire.client.host() } else { Some(wire.server.host()) };
        if matches!(sender, Some(HostId::Node(index)) if self.nodes[index].asleep) {
            return;
        }
        let is_its = |delivery: &Delivery| delivery.flow() == Some((number, to_server));
        let long_ago = self.now.instant - ACKNOWLEDGED_WITHIN;
        if !self.held.iter().any(|(since, delivery)| is_its(delivery) && *since <= long_ago) {
            return;
        }
        self.held.retain(|(_, delivery)| !is_its(delivery));
        // Nor does what was sent behind it arrive.
        self.agenda.take(is_its);
        if to_server {
            self.at_client(number, Client::closed);
        } else {
            self.at_server(number, None);
        }
        let Some(wire) = self.wires.get_mut(&number) else { return };
        if to_server {
            wire.client = Client::Gone;
        } else {
            wire.accepted = Some(Accepted::Gone);
        }
        if wire.client == Client::Gone && wire.accepted == Some(Accepted::Gone) {
            self.wires.remove(&number);
        }
    }

    /// Delivers what waited for a cut to heal or a host to wake, as soon as it is sent again.
    pub(super) fn release(&mut self) {
        let now = self.now.instant;
        let mut waiting = std::mem::take(&mut self.held);
        let flows: BTreeSet<_> = waiting.iter().filter_map(|(_, one)| one.flow()).collect();
        // What is on its way behind them waits as well.
        let is_behind =
            |delivery: &Delivery| delivery.flow().is_some_and(|flow| flows.contains(&flow));
        let behind = self.agenda.take(is_behind);
        waiting.extend(behind.into_iter().map(|delivery| (now, delivery)));
        let mut again = BTreeMap::new();
        for (since, delivery) in waiting {
            let Some((number, to_server)) = delivery.flow() else { continue };
            let first = again.entry((number, to_server));
            let at = *first.or_insert_with(|| retransmitted(since, now));
            if let Some(wire) = self.wires.get_mut(&number) {
                wire.latest[usize::from(to_server)] = at;
            }
            self.agenda.insert(at, delivery);
        }
    }

    /// Cuts in the middle what was dialled so long ago, as some content delivery networks do; how many that are.
    pub fn cut_streams_older_than(&mut self, age: Duration) -> usize {
        let now = self.now.instant;
        self.cut_streams(|wire, _| now >= wire.since + age)
    }

    /// Cuts streams in which nothing came one way or the other for so long; how many that are.
    pub fn cut_streams_idle_for(&mut self, time: Duration) -> usize {
        let now = self.now.instant;
        self.cut_streams(|wire, _| wire.latest.iter().any(|latest| now >= *latest + time))
    }

    /// Cuts so many of a thousand streams; how many that are.
    pub fn cut_some_streams(&mut self, permille: u32) -> usize {
        self.cut_streams(|_, rng| rng.next_u32() % 1_000 < permille)
    }

    fn cut_streams(&mut self, mut is_cut: impl FnMut(&Wire, &mut ChaCha20Rng) -> bool) -> usize {
        let rng = &mut self.rng;
        let wires = self.wires.iter().filter(|(_, wire)| is_cut(wire, rng));
        let wires: Vec<_> = wires.map(|(number, _)| *number).collect();
        for wire in &wires {
            self.at_server(*wire, None);
            self.at_client(*wire, Client::closed);
            self.wires.remove(wire);
        }
        wires.len()
    }

    /// One end of these wires is gone: the other end hears of it.
    pub(super) fn break_wires(&mut self, broken: impl Fn(&Wire) -> bool) {
        let mut deliveries = Vec::new();
        for (wire, state) in self.wires.iter_mut().filter(|(_, wire)| broken(wire)) {
            let gone = match state.client {
                Client::Node(index, _) => self.nodes[index].engine.is_none(),
                Client::Relay(index, _) => !self.relays[index].running,
                Client::Gone => true,
            };
            let server_gone = match state.server {
                Server::Controller => self.controller.machine.is_none(),
                Server::Relay(index) => !self.relays[index].running,
                Server::Node(index) => self.nodes[index].engine.is_none(),
            };
            if server_gone {
                state.accepted = state.accepted.map(|_| Accepted::Gone);
            }
            if gone {
                state.client = Client::Gone;
                deliveries.push(Delivery::ClosedByClient { wire: *wire });
            } else {
                deliveries.push(Delivery::ClosedByServer { wire: *wire });
            }
        }
        deliveries.into_iter().for_each(|delivery| self.later(delivery));
    }
}

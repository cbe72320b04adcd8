//! How long traffic stands still when something fails, and until it goes directly again.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use testlab::places::Place;
use testlab::sim::{HostId, Quality, RelayHost, Setup, World};

use super::{SECOND, all_have_addresses, compare, is_direct};

/// Runs of each kind.
const SEEDS: u64 = 20;
/// Traffic may stand still for this long, and go another way than directly after what happened is over, at the median and at the worst.
const LIMITS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(8));
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// For how long a run is watched after what happened is over.
const WATCHED: Duration = Duration::from_secs(60);
const DEAD: Duration = Duration::from_secs(10);
const ASLEEP: Duration = Duration::from_secs(600);
/// A route that flaps is away and there for so long in turns, so many times.
const FLAPS: (Duration, Duration, usize) = (Duration::from_secs(3), Duration::from_secs(4), 8);

/// What happens to the first of two nodes, or around them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    ControllerGone,
    RelayKilled,
    RelayUnreachable,
    UdpBlocked,
    LinkDead,
    RouteFlapping,
    AddressChanged,
    Asleep,
}

impl Fault {
    const ALL: [(Self, &str); 8] = [
        (Self::ControllerGone, "controller killed"),
        (Self::RelayKilled, "relay in use killed"),
        (Self::RelayUnreachable, "relay in use unreachable"),
        (Self::UdpBlocked, "UDP blocked for 30 s"),
        (Self::LinkDead, "link dead for 10 s"),
        (Self::RouteFlapping, "route flapping for a minute"),
        (Self::AddressChanged, "address changed"),
        (Self::Asleep, "asleep for 10 minutes"),
    ];
}

/// A row of the table for one kind of pair.
#[derive(Clone, Copy)]
struct Case {
    fault: Fault,
    has_controller: bool,
    pair: [Place; 2],
}

/// Behind translators of most homes: they meet directly.
const DIRECT: [Place; 2] = [Place::PortRestricted, Place::PortRestricted];
/// Two behind translators that give each destination a port at random: only a relay connects them, over UDP.
const RELAYED: [Place; 2] = [Place::Symmetric, Place::Symmetric];
/// One without UDP, and one that only an HTTP proxy lets out: a relay connects them, over streams.
const FRAMES: [Place; 2] = [Place::NoUdp, Place::Proxy];
const PAIRS: [[Place; 2]; 3] = [DIRECT, RELAYED, FRAMES];

/// What one run shows.
struct Outcome {
    still: Duration,
    direct: Option<Duration>,
}

/// Two nodes of which one asks the other, ten times a second.
struct Run {
    world: World,
    place: Place,
    asks: usize,
    questions: Vec<Option<u64>>,
    /// When the path was not direct last.
    indirect: Duration,
}

impl Run {
    fn new(case: Case, seed: u64) -> Self {
        let (quality, streams) = (Quality::HOME, Quality::HOME);
        let mut world = World::new(Setup { seed, nodes: 0, quality, streams, ..Setup::default() });
        for place in case.pair {
            let site = place.site(&mut world);
            world.add_node_at(site);
        }
        assert!(world.run_until(60 * SECOND, all_have_addresses), "both join");
        // Half of the time it is the other one that wants something.
        let asks = usize::from(seed % 2 == 1);
        let [place, _] = case.pair;
        let (questions, indirect) = (Vec::new(), Duration::ZERO);
        let mut run = Self { world, place, asks, questions, indirect };
        run.pass(30 * SECOND);
        assert_eq!(is_direct(&run.world), case.pair == DIRECT, "{}", run.world.path(0, 1));
        if !case.has_controller {
            run.world.stop_controller();
            run.pass(5 * SECOND);
        }
        run
    }

    fn pass(&mut self, time: Duration) {
        let end = self.world.elapsed() + time;
        while self.world.elapsed() < end {
            self.questions.push(self.world.ping(self.asks, 1 - self.asks));
            self.world.run_for(PAUSE);
            if !is_direct(&self.world) {
                self.indirect = self.world.elapsed();
            }
        }
    }

    /// The relay that carries most now.
    fn relay_in_use(&mut self) -> usize {
        let carried = |relay: &RelayHost| relay.sent_bytes + relay.passed_bytes;
        let before: Vec<_> = self.world.relays.iter().map(carried).collect();
        self.pass(SECOND);
        let relays = self.world.relays.iter().zip(before).enumerate();
        let used = relays.max_by_key(|(_, (relay, before))| carried(relay) - before);
        used.map(|(index, _)| index).expect("there are relays")
    }

    /// Lets it happen, and answers since when traffic can flow, and since when directly.
    fn strike(&mut self, fault: Fault) -> (Vec<Duration>, Duration) {
        let (node, mut begin) = (HostId::Node(0), self.world.elapsed());
        match fault {
            Fault::ControllerGone => self.world.stop_controller(),
            Fault::RelayKilled => {
                let relay = self.relay_in_use();
                begin = self.world.elapsed();
                self.world.stop_relay(relay);
            }
            Fault::RelayUnreachable => {
                let relay = self.relay_in_use();
                begin = self.world.elapsed();
                self.world.cut_off(HostId::Relay(relay));
            }
            Fault::UdpBlocked => {
                self.world.nodes[0].udp_blocked = true;
                self.pass(30 * SECOND);
                self.world.nodes[0].udp_blocked = false;
                return (vec![begin], self.world.elapsed());
            }
            Fault::LinkDead => {
                self.world.cut_off(node);
                self.pass(DEAD);
                self.world.heal();
                begin = self.world.elapsed();
            }
            Fault::RouteFlapping => {
                let (away, there, times) = FLAPS;
                let mut returns = Vec::new();
                for _ in 0..times {
                    self.pass(there);
                    self.world.cut_off(node);
                    self.pass(away);
                    self.world.heal();
                    returns.push(self.world.elapsed());
                }
                return (returns, self.world.elapsed());
            }
            Fault::AddressChanged => {
                let site = self.place.site(&mut self.world);
                self.world.move_node_to_site(0, site);
            }
            Fault::Asleep => {
                self.world.put_to_sleep(0);
                if self.asks == 1 {
                    self.pass(ASLEEP);
                } else {
                    self.world.run_for(ASLEEP);
                }
                self.world.wake_up(0);
                begin = self.world.elapsed();
            }
        }
        (vec![begin], begin)
    }

    /// When questions were answered.
    fn answers(&self) -> Vec<Duration> {
        let times = self
            .questions
            .iter()
            .filter_map(|question| self.world.answered_at(self.asks, *question));
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        times
    }

    /// The longest time from one of these until an answer comes, and without any after the last of them.
    fn longest_still(&self, begins: &[Duration]) -> Duration {
        let answers = self.answers();
        let end = self.world.elapsed();
        let until_next = |from: Duration| {
            let next = answers.iter().copied().find(|at| *at > from);
            next.unwrap_or(end) - from
        };
        let last = *begins.last().expect("something happened");
        let after = answers.iter().copied().filter(|at| *at > last);
        begins.iter().copied().chain(after).map(until_next).max().unwrap_or_default()
    }
}

fn outcome(case: Case, seed: u64) -> Outcome {
    let mut run = Run::new(case, seed);
    let (begins, may_be_direct) = run.strike(case.fault);
    run.pass(WATCHED);
    let still = run.longest_still(&begins);
    let direct = run.indirect.saturating_sub(may_be_direct);
    Outcome { still, direct: is_direct(&run.world).then_some(direct) }
}

/// The one in the middle and the worst.
fn median_and_worst(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], *times.last().expect("there are runs"))
}

fn text((median, worst): (Duration, Duration)) -> String {
    format!("{:.1}/{:.1}", median.as_secs_f64(), worst.as_secs_f64())
}

/// Cells of the table: how long traffic stood still, and until it went directly again. What is out of bounds goes
/// to `broken`.
fn cells(case: Case, outcomes: &[Outcome], broken: &mut Vec<String>) -> Vec<String> {
    let still = median_and_worst(outcomes.iter().map(|outcome| outcome.still).collect());
    if still.0 > LIMITS.0 || still.1 > LIMITS.1 {
        broken.push(text(still));
    }
    if case.pair != DIRECT {
        return vec![text(still)];
    }
    let direct: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.direct).collect();
    if direct.len() < outcomes.len() {
        broken.push(format!("{} of {SEEDS} are direct in the end", direct.len()));
        return vec![text(still), "-".to_owned()];
    }
    let direct = median_and_worst(direct);
    if direct.0 > LIMITS.0 || direct.1 > LIMITS.1 {
        broken.push(format!("{} until direct again", text(direct)));
    }
    vec![text(still), text(direct)]
}

#[test]
fn the_times_that_traffic_stands_still_when_something_fails_are_as_committed_and_within_bounds() {
    let mut table = format!(
        "{:42} {:>12} {:>12} {:>12} {:>12}\n{:42} {:>12} {:>12} {:>12} {:>12}\n",
        "seconds, median/worst of 20",
        "direct pair",
        "until direct",
        "relayed pair",
        "without UDP",
        "",
        "still",
        "again",
        "still",
        "still"
    );
    let rows = [true, false]
        .into_iter()
        .flat_map(|has_controller| Fault::ALL.map(|(fault, name)| (fault, has_controller, name)));
    let rows: Vec<_> = rows
        .filter(|(fault, has_controller, _)| *has_controller || *fault != Fault::ControllerGone)
        .collect();
    let outcomes: Vec<Vec<Outcome>> = thread::scope(|scope| {
        let cases = rows.iter().flat_map(|(fault, has_controller, _)| {
            let (fault, has_controller) = (*fault, *has_controller);
            PAIRS.map(|pair| Case { fault, has_controller, pair })
        });
        let runs = cases
            .map(|case| scope.spawn(move || (0..SEEDS).map(|seed| outcome(case, seed)).collect()));
        let runs: Vec<_> = runs.collect();
        runs.into_iter().map(|run| run.join().expect("the run ends")).collect()
    });
    let mut broken = Vec::new();
    for ((fault, has_controller, name), outcomes) in
        rows.into_iter().zip(outcomes.chunks(PAIRS.len()))
    {
        let name = if has_controller { name.to_owned() } else { format!("{name}, no controller") };
        let _ = write!(table, "{name:42}");
        for (pair, outcomes) in PAIRS.into_iter().zip(outcomes) {
            for cell in cells(Case { fault, has_controller, pair }, outcomes, &mut broken) {
                let _ = write!(table, " {cell:>12}");
            }
        }
        table.push('\n');
    }
    assert!(broken.is_empty(), "{broken:?}\n{table}");
    compare("failover.txt", &table);
}

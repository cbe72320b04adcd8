//! Tables that are committed and compared: what a change does to paths and to control traffic shows in its diff.
//!
//! `SHADOWMESH_BLESS=1` writes them anew.

mod failover;
mod mesh;
mod rehoming;
mod shaping;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use testlab::places::{Place, Times};
use testlab::sim::{Quality, Setup, World};

const SECOND: Duration = Duration::from_secs(1);
/// Traffic flows for this long in the hope of a direct path.
const PATIENCE: Duration = Duration::from_secs(60);
/// For how long control traffic is counted once everybody has joined.
const COUNTED: Duration = Duration::from_secs(300);

/// Compares a table with the committed one.
fn compare(name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("SHADOWMESH_BLESS").is_some() {
        std::fs::write(&path, table).expect("the table can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("the table is committed");
    assert!(
        committed == table,
        "{} differs; SHADOWMESH_BLESS=1 writes it anew\ncommitted:\n{committed}\nnow:\n{table}",
        path.display()
    );
}

fn all_have_addresses(world: &World) -> bool {
    world.nodes.iter().all(|node| node.interface.is_some())
}

/// Whether both ends use a direct path.
fn is_direct(world: &World) -> bool {
    world.path(0, 1).starts_with("direct") && world.path(1, 0).starts_with("direct")
}

/// How long it takes from the first packet until its answer is there, and until both ends use a direct path,
/// or else of what kind it is in the end.
fn times(setup: Setup, one: Place, other: Place) -> (Duration, Result<Duration, String>) {
    let mut world = World::new(Setup { nodes: 0, ..setup });
    for place in [one, other] {
        let site = place.site(&mut world);
        world.add_node_at(site);
    }
    assert!(world.run_until(60 * SECOND, all_have_addresses), "both join");
    world.run_for(10 * SECOND);
    let begin = world.elapsed();
    let first = world.ping(0, 1);
    let mut direct = None;
    while direct.is_none() && world.elapsed() < begin + PATIENCE {
        direct = world.run_until(SECOND, is_direct).then(|| world.elapsed() - begin);
        world.ping(0, 1);
    }
    assert!(world.ping_until_answered(0, 1, SECOND), "{one:?} to {other:?} stay connected");
    let is_answered = |world: &World| world.is_answered(0, first);
    assert!(world.run_until(SECOND, is_answered), "{one:?} to {other:?} loses the first packet");
    let path = world.path(0, 1);
    let kind = path.split(' ').next().unwrap_or_default().to_owned();
    (world.answered_at(0, first).expect("it is answered") - begin, direct.ok_or(kind))
}

#[test]
fn the_times_to_the_first_answer_and_to_a_direct_path_over_all_pairs_of_places_are_as_committed() {
    let mut table = format!("{:18}", "ms");
    for place in Place::ALL {
        let _ = write!(table, " {:>17}", format!("{place:?}"));
    }
    for one in Place::ALL {
        let _ = write!(table, "\n{:18}", format!("{one:?}"));
        for other in Place::ALL {
            let (answered, direct) = times(Setup::default(), one, other);
            let direct = direct.map_or_else(|kind| kind, |at| at.as_millis().to_string());
            let _ = write!(table, " {:>17}", format!("{}/{direct}", answered.as_millis()));
        }
    }
    table.push('\n');
    compare("time_to_direct.txt", &table);
}

#[test]
fn four_of_five_pairs_of_places_with_udp_over_ipv4_meet_directly() {
    let times = Times::committed();
    let is_counted = |place: &&Place| place.has_udp() && **place != Place::Ipv6Only;
    let places: Vec<_> = Place::ALL.iter().filter(is_counted).collect();
    let pairs = places.iter().flat_map(|one| places.iter().map(move |other| (**one, **other)));
    let direct = pairs.filter(|(one, other)| times.to_direct(*one, *other).is_some()).count();
    assert!(direct * 5 >= places.len().pow(2) * 4, "{direct} of {}", places.len().pow(2));
}

#[test]
fn over_links_of_50_ms_half_of_all_pairs_that_meet_do_so_within_3_s_and_each_is_answered_in_two_round_trips()
 {
    /// A round trip between any two hosts. Through a relay it takes twice as long.
    const ROUND_TRIP: Duration = Duration::from_millis(50);
    let committed = Times::committed();
    let quality = Quality { latency: ROUND_TRIP / 2, ..Quality::GOOD };
    let setup = Setup { quality, streams: quality, ..Setup::default() };
    let pairs = Place::ALL.into_iter().flat_map(|one| Place::ALL.map(|other| (one, other)));
    let meet =
        |(one, other): &(Place, Place)| one <= other && committed.to_direct(*one, *other).is_some();
    let mut times: Vec<_> = pairs
        .filter(meet)
        .map(|(one, other)| {
            let (answered, direct) = times(setup, one, other);
            assert!(answered <= 2 * 2 * ROUND_TRIP, "{one:?} to {other:?}: {answered:?}");
            direct.unwrap_or(Duration::MAX)
        })
        .collect();
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median <= 3 * SECOND, "{median:?} of {}", times.len());
}

/// Kinds of surroundings as the README names them, with the places that are of this kind.
const KINDS: [(&str, &[Place]); 6] = [
    (
        "no NAT, or one that filters by address at most",
        &[Place::Open, Place::FullCone, Place::Restricted],
    ),
    (
        "NAT of most homes, one more by the carrier, or a firewall",
        &[Place::PortRestricted, Place::Carrier, Place::Firewalled],
    ),
    ("NAT with a port for each peer, counted", &[Place::Counting, Place::CountingCarrier]),
    ("the same, ports at random", &[Place::AddressSymmetric, Place::Symmetric]),
    ("no UDP, only port 443, or only an HTTP proxy", &[Place::NoUdp, Place::Https, Place::Proxy]),
    ("IPv6 alone, behind a firewall", &[Place::Ipv6Only]),
];

/// The cell of two kinds: the longest time to a direct path over all places, which are all direct or none but where only some have IPv6.
fn cell(table: &Times, one: &[Place], other: &[Place]) -> String {
    let direct = |from: Place, to: Place| table.to_direct(from, to);
    let times: Vec<_> = one
        .iter()
        .flat_map(|from| other.iter().flat_map(|to| [direct(*from, *to), direct(*to, *from)]))
        .collect();
    let is_mixed = times.iter().any(|time| time.is_some() != times[0].is_some());
    let is_by_ipv6 = [one, other].iter().any(|places| places.contains(&Place::Ipv6Only));
    assert!(is_by_ipv6 || !is_mixed, "{one:?} {other:?}");
    let Some(longest) = times.into_iter().max().flatten() else { return "relay".to_owned() };
    let or_else = if is_mixed { ", or relay" } else { "" };
    format!("direct, {longest}{or_else}")
}

#[test]
fn the_table_of_the_readme_says_what_the_committed_times_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let times = Times::committed();
    let mut table = "| | 1 | 2 | 3 | 4 | 5 | 6 |\n|---|---|---|---|---|---|---|\n".to_owned();
    for (number, (name, places)) in KINDS.iter().enumerate() {
        let _ = write!(table, "| {}. {name} |", number + 1);
        for (_, others) in KINDS {
            let _ = write!(table, " {} |", cell(&times, places, others));
        }
        table.push('\n');
    }
    let readme = folder.join("../README.md");
    let text = std::fs::read_to_string(&readme).expect("the README is there");
    let (begin, end) = ("time_to_direct.txt -->\n", "<!-- until here -->");
    let (head, rest) = text.split_once(begin).expect("the table begins");
    let (committed, tail) = rest.split_once(end).expect("the table ends");
    if std::env::var_os("SHADOWMESH_BLESS").is_some() {
        let text = [head, begin, &table, end, tail].concat();
        return std::fs::write(&readme, text).expect("the README can be written");
    }
    assert!(committed == table, "the README has\n{committed}and should have\n{table}");
}

/// A table of what each node sends and receives over streams, where so many nodes run and so many members besides never do:
/// with these, the relays but two do not run either, so that what counts is what a node is told of them.
fn control_bytes(sizes: &[(usize, usize, usize)]) -> String {
    let head = ["relays", "members", "joining, B", "idle, B per minute"];
    let mut table = format!("{:>8} {:>8} {:>14} {:>20}\n", head[0], head[1], head[2], head[3]);
    for (relays, nodes, silent) in sizes.iter().copied() {
        let mut world = World::new(Setup { relays, nodes: 0, ..Setup::default() });
        if silent > 0 {
            (2..relays).for_each(|relay| world.stop_relay(relay));
            world.enrol_silent(silent);
            world.run_for(10 * SECOND);
        }
        for _ in 0..nodes {
            world.add_node();
        }
        let members = nodes + silent;
        assert!(world.run_until(60 * SECOND, all_have_addresses), "every node joins");
        world.run_for(10 * SECOND);
        let bytes = |world: &World| {
            world.nodes.iter().map(|node| node.stream_bytes).sum::<u64>() / nodes as u64
        };
        let joining = bytes(&world);
        world.run_for(COUNTED);
        let minutes = COUNTED.as_secs() / 60;
        let idle = (bytes(&world) - joining) / minutes;
        let _ = writeln!(table, "{relays:>8} {members:>8} {joining:>14} {idle:>20}");
    }
    table
}

#[test]
fn the_control_traffic_of_a_node_over_the_size_of_the_mesh_is_as_committed() {
    let sizes = [(2, 10, 0), (2, 50, 0), (2, 200, 0), (100, 4, 9_996)];
    compare("control_bytes.txt", &control_bytes(&sizes));
}

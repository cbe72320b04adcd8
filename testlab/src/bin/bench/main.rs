//! All figures of `docs/benchmarks.md` in one run, or those that the arguments name: on standard output, and in the page that
//! `SHADOWMESH_PAGE` names, with the picture beside it. `SHADOWMESH_RUNS=1` shows quickly whether everything runs, and
//! `SHADOWMESH_ONLY=direct,relay` how variants with such words in their names compare; neither changes the page.
//!
//! `bench floor` measures no more than whether the program is as fast as it has to be on any machine, and fails if it is not.
//!
//! Needs root and a machine that does nothing else.

#![forbid(unsafe_code)]

mod first_byte;
mod floor;
mod iperf;
mod memory;
mod packets;
mod page;
mod plot;
mod relays;
mod report;
mod throughput;
mod variants;

use std::path::Path;
use std::process::ExitCode;

use report::Table;

type Measure = fn() -> Vec<Table>;

/// Every group of tables by its name.
const TABLES: [(&str, Measure); 7] = [
    ("tunnels", throughput::through_tunnels),
    ("packets", packets::of_64_bytes),
    ("mtu", throughput::at_other_mtus),
    ("userspace", throughput::in_userspace),
    ("first-byte", || vec![first_byte::without_a_session()]),
    ("relay", relays::beside_others),
    ("memory", || vec![memory::of_an_idle_node()]),
];

fn main() -> ExitCode {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    if chosen == ["floor"] {
        return if floor::hold() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    for name in &chosen {
        assert!(TABLES.iter().any(|(known, _)| known == name), "there are no tables {name}");
    }
    let mut all = Vec::new();
    for (name, measure) in TABLES {
        if chosen.is_empty() || chosen.iter().any(|choice| choice == name) {
            let tables = measure();
            tables.iter().for_each(report::print);
            all.extend(tables);
        }
    }
    if let Some(file) = std::env::var_os("SHADOWMESH_PAGE").filter(|_| !report::is_partial()) {
        let old = std::fs::read_to_string(&file).expect("the page can be read");
        let new = page::renewed(&old, &all);
        let picture = Path::new(&file).with_extension("svg");
        std::fs::write(&file, &new).expect("the page can be written");
        std::fs::write(picture, plot::svg(&page::charts(&new)))
            .expect("the picture can be written");
    }
    ExitCode::SUCCESS
}

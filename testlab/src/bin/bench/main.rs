//! All figures of `docs/benchmarks.md` in one run, or those that the arguments name: Markdown on standard output.
//!
//! Needs root and a machine that does nothing else.

#![forbid(unsafe_code)]

mod first_byte;
mod memory;
mod report;
mod throughput;
mod variants;

use report::Table;

type Measure = fn() -> Vec<Table>;

/// Every group of tables by its name.
const TABLES: [(&str, Measure); 3] = [
    ("tunnels", throughput::through_tunnels),
    ("first-byte", || vec![first_byte::without_a_session()]),
    ("memory", || vec![memory::of_an_idle_node()]),
];

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    for name in &chosen {
        assert!(TABLES.iter().any(|(known, _)| known == name), "there are no tables {name}");
    }
    for (name, measure) in TABLES {
        if chosen.is_empty() || chosen.iter().any(|choice| choice == name) {
            measure().iter().for_each(report::print);
        }
    }
}

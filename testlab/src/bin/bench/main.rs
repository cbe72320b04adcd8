//! All figures of `docs/benchmarks.md` in one run, or those that the arguments name: Markdown on standard output.
//!
//! Needs root and a machine that does nothing else.

#![forbid(unsafe_code)]

mod first_byte;
mod memory;
mod report;
mod throughput;

use report::Table;

type Measure = fn() -> Table;

/// Every table by its name.
const TABLES: [(&str, Measure); 3] = [
    ("throughput", throughput::one_tcp_stream),
    ("first-byte", first_byte::without_a_session),
    ("memory", memory::of_an_idle_node),
];

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    for name in &chosen {
        assert!(TABLES.iter().any(|(known, _)| known == name), "there is no table {name}");
    }
    for (name, measure) in TABLES {
        if chosen.is_empty() || chosen.iter().any(|choice| choice == name) {
            report::print(&measure());
        }
    }
}

//! The least that the program has to reach, so that nobody makes it slow unseen.

use std::io::Write;

use crate::report::{Row, Table, print};
use crate::throughput::{beside_direct, beside_gotatun};

/// What is measured, and how many times as fast as its last row all others have to be: far less than what an idle
/// machine shows, so that only a real loss of speed is seen.
const FLOORS: [(fn() -> Table, f64); 2] = [
    // gotatun-cli sends and receives packet by packet.
    (beside_gotatun, 3.0),
    // A relay costs a second pass through the same processors.
    (beside_direct, 0.4),
];
/// A machine that does something else meanwhile may spoil a measurement, but not all.
const ATTEMPTS: usize = 3;

/// Whether the program is fast enough; says what was measured.
pub(crate) fn hold() -> bool {
    FLOORS
        .into_iter()
        .all(|(measure, times)| (1..=ATTEMPTS).any(|attempt| holds(measure, times, attempt)))
}

fn holds(measure: fn() -> Table, wanted: f64, attempt: usize) -> bool {
    let table = measure();
    print(&table);
    let medians: Vec<_> = table.groups.iter().flatten().map(Row::median).collect();
    let (last, others) = medians.split_last().expect("there are rows");
    let times = others.iter().map(|median| median / last).fold(f64::INFINITY, f64::min);
    let is_enough = times >= wanted;
    let verdict = if is_enough { "enough" } else { "too slow" };
    let line = format!("{times:.2} of {wanted} times at attempt {attempt}: {verdict}");
    writeln!(std::io::stdout(), "{line}").expect("standard output is open");
    is_enough
}

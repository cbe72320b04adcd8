//! The least that the program has to reach, so that nobody makes it slow unseen.

use std::io::Write;

use crate::report::{Row, print};
use crate::throughput::beside_gotatun;

/// How many times as fast as gotatun-cli, which sends and receives packet by packet. Far below what an idle
/// machine shows, so that only a real loss of speed is seen.
const TIMES: f64 = 3.0;
/// A machine that does something else meanwhile may spoil a measurement, but not all.
const ATTEMPTS: usize = 3;

/// Whether the program is fast enough; says what was measured.
pub(crate) fn holds() -> bool {
    for attempt in 1..=ATTEMPTS {
        let table = beside_gotatun();
        print(&table);
        let medians: Vec<_> = table.groups.iter().flatten().map(Row::median).collect();
        let [ours, theirs] = medians[..] else { panic!("a row each") };
        let (times, enough) = (ours / theirs, ours >= TIMES * theirs);
        let verdict = if enough { "enough" } else { "too slow" };
        let line = format!("{times:.2} of {TIMES} times at attempt {attempt}: {verdict}");
        writeln!(std::io::stdout(), "{line}").expect("standard output is open");
        if enough {
            return true;
        }
    }
    false
}

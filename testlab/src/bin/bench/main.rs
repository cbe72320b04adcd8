//! Figures beside peers, in one run on one machine.
//!
//! Needs root, `iperf3`, and the programs that it names. Prints Markdown; progress goes to standard error.
//!
//! Only ratios of medians of one run mean anything: the machine is shared and noisy.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod throughput;

fn main() {
    println!("{}", throughput::table());
}

/// The middle of the values; the mean of the two middle ones when their number is even.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

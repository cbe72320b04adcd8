//! All figures of `docs/benchmarks.md` in one run: Markdown on standard output.
//!
//! Needs root and a machine that does nothing else.

#![forbid(unsafe_code)]

mod report;
mod throughput;

fn main() {
    report::print(&throughput::one_tcp_stream());
}

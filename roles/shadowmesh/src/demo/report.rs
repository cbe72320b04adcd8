//! What the demonstration has to say.

use std::time::Duration;

use ::node::api::{PathKind, PathView};

use super::{Demo, NETWORK, PUBLISHER};
use crate::exit::{Exit, Failure};
use crate::output::{BAD, BOLD, DIM, GOOD, bytes, line, styled, table};

/// One device's way to another.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) path: PathView,
    /// Milliseconds from connecting to the whole page.
    pub(super) first_page: Option<f64>,
    pub(super) megabits: Option<f64>,
    /// Direct where both have UDP, through the relay otherwise.
    pub(super) as_expected: bool,
    /// Whether the page arrived as it was published.
    pub(super) intact: bool,
}

/// What was found in what the relay received.
#[derive(Debug)]
pub(super) struct RelaySearch {
    pub(super) received: u64,
    pub(super) searched: u64,
    pub(super) looked_for: usize,
    pub(super) found: Vec<String>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) legs: Vec<Leg>,
    pub(super) relay: RelaySearch,
    pub(super) took: Duration,
}

impl Summary {
    /// Success only if everything is as promised.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let mut wrong: Vec<String> = Vec::new();
        for leg in &self.legs {
            if !leg.as_expected {
                let kind = kind(&leg.path);
                wrong.push(format!("{} reaches {} {kind}, which is unexpected", leg.from, leg.to));
            }
            if !leg.intact {
                wrong.push(format!("{} received another page than was published", leg.from));
            }
        }
        if !self.relay.found.is_empty() {
            wrong.push(format!("the relay could read {}", self.relay.found.join(", ")));
        }
        if self.relay.searched == 0 {
            wrong.push("the relay received nothing".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Other, wrong.join("; "))) }
    }
}

pub(super) fn print(summary: &Summary) {
    line("");
    let rows: Vec<Vec<String>> = summary.legs.iter().map(row).collect();
    table(&["FROM", "TO", "PATH", "LATENCY", "FIRST PAGE", "THROUGHPUT"], &rows);
    line("");
    let relay = &summary.relay;
    let what = format!(
        "The relay received {}; {} were searched for {} texts and names of the network:",
        bytes(relay.received),
        bytes(relay.searched),
        relay.looked_for
    );
    let finding = if relay.found.is_empty() {
        styled(GOOD, "none is there")
    } else {
        styled(BAD, format_args!("found {}", relay.found.join(", ")))
    };
    line(format_args!("{what} {finding}."));
    let seconds = summary.took.as_secs_f64();
    line(match summary.verdict() {
        Ok(()) => styled(GOOD, format_args!("Everything works, after {seconds:.1} s.")),
        Err(failure) => styled(BAD, format_args!("After {seconds:.1} s: {failure}.")),
    });
}

fn row(leg: &Leg) -> Vec<String> {
    let number = |value: Option<f64>, unit: &str, decimals: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$} {unit}"))
    };
    vec![
        leg.from.to_owned(),
        leg.to.to_owned(),
        format!("{} {}", kind(&leg.path), leg.path.via),
        number(leg.path.latency_ms, "ms", 1),
        number(leg.first_page, "ms", 0),
        number(leg.megabits, "Mbit/s", 0),
    ]
}

fn kind(path: &PathView) -> &'static str {
    match path.kind {
        PathKind::Direct => "directly over UDP",
        PathKind::Turn => "through a TURN server",
        PathKind::PeerRelay => "through another device",
        PathKind::UdpRelay => "through the relay over UDP",
        PathKind::Stream => "directly over WebSocket",
        PathKind::Relay => "through the relay",
    }
}

/// Prints what can be tried while the network runs.
pub(super) fn print_commands(demo: &Demo) {
    let program = std::env::current_exe()
        .map_or_else(|_| "shadowmesh".to_owned(), |path| path.display().to_string());
    line("");
    line(styled(BOLD, "The network runs until Ctrl-C. Try:"));
    for node in demo.nodes() {
        if let Ok(proxy) = node.proxy()
            && node.name() != PUBLISHER
        {
            let url = format!("http://{PUBLISHER}.{NETWORK}.alt/");
            line(format_args!("  curl --proxy socks5h://{proxy} {url}"));
        }
    }
    for node in demo.nodes() {
        let folder = node.folder().display();
        line(format_args!("  {program} --state-dir {folder} status"));
    }
    let folder = demo.reader.folder().display();
    line(format_args!("  {program} --state-dir {folder} ping {PUBLISHER}"));
    line(format_args!("  {program} --state-dir {folder} why {PUBLISHER}"));
    let server = demo.server.folder().display();
    line(format_args!("  {program} --state-dir {server} device list"));
    let what = format!("The page's own server is at http://{}/, ", demo.site.address());
    line(styled(DIM, what + "all state in " + &demo.folder.path().display().to_string() + "."));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let path =
            PathView { kind: PathKind::Direct, via: "127.0.0.1:7".to_owned(), latency_ms: None };
        let leg = Leg {
            from: "a",
            to: "b",
            path,
            first_page: None,
            megabits: None,
            as_expected: true,
            intact: true,
        };
        let relay = RelaySearch { received: 9, searched: 9, looked_for: 1, found: Vec::new() };
        Summary { legs: vec![leg], relay, took: Duration::from_secs(1) }
    }

    #[test]
    fn only_a_network_without_fault_is_a_success() {
        assert!(summary().verdict().is_ok());
        let spoil: [fn(&mut Summary); 4] = [
            |summary| summary.legs[0].as_expected = false,
            |summary| summary.legs[0].intact = false,
            |summary| summary.relay.found.push("a name".to_owned()),
            |summary| summary.relay.searched = 0,
        ];
        for spoil in spoil {
            let mut spoiled = summary();
            spoil(&mut spoiled);
            assert!(spoiled.verdict().is_err());
        }
    }
}

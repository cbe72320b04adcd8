//! The last messages of a run, as a diagram for whoever looks for a fault.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use super::underlay::HostId;

/// Messages that are remembered.
const KEPT: usize = 60;

/// One message, or what a host went through.
#[derive(Clone, Debug)]
pub(super) struct Traced {
    pub(super) at: Duration,
    pub(super) from: HostId,
    pub(super) to: Option<HostId>,
    pub(super) what: &'static str,
    pub(super) len: usize,
}

/// The newest of them.
#[derive(Debug, Default)]
pub(super) struct Trace {
    entries: VecDeque<Traced>,
}

impl Trace {
    pub(super) fn note(&mut self, entry: Traced) {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// A Mermaid sequence diagram.
    pub(super) fn diagram(&self) -> String {
        let mut text = String::from("sequenceDiagram\n");
        let ends = self.entries.iter().flat_map(|entry| [Some(entry.from), entry.to]);
        for host in ends.flatten().collect::<BTreeSet<_>>() {
            let _ = writeln!(text, "  participant {}", name(host));
        }
        for Traced { at, from, to, what, len } in &self.entries {
            let (from, at) = (name(*from), at.as_secs_f64());
            let _ = match to {
                Some(to) => writeln!(text, "  {from}->>{}: {at:.3} {what} {len}", name(*to)),
                None => writeln!(text, "  Note over {from}: {at:.3} {what} {len}"),
            };
        }
        text
    }
}

fn name(host: HostId) -> String {
    match host {
        HostId::Controller => "controller".to_owned(),
        HostId::Relay(index) => format!("relay{index}"),
        HostId::Node(index) => format!("node{index}"),
        HostId::Plain(index) => format!("plain{index}"),
        HostId::Turn => "turn".to_owned(),
    }
}

/// What a datagram is, by its first bytes.
pub(super) fn kind_of(datagram: &[u8]) -> &'static str {
    match datagram {
        [1, 0, 0, 0, ..] => "handshake initiation",
        [2, 0, 0, 0, ..] => "handshake response",
        [3, 0, 0, 0, ..] => "cookie reply",
        [4, 0, 0, 0, ..] => "packet",
        [0x12, ..] => "disco",
        [0 | 1, _, _, _, 0x21, 0x12, 0xa4, 0x42, ..] => "STUN",
        _ => "datagram",
    }
}
